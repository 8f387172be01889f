//! `GET /usage/records`: the requests of a period one by one, newest first, as JSON or CSV.

use axum::{
    Json,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use tenantry_domain::{KeyId, Period, RequestId, UserId, roles::Permission, time::rfc3339, usage::UsageEvent};
use tenantry_web::{
    ApiError, Caller, Query,
    csv::{CSV_TYPE, Csv, wants_csv},
    cursor::{Cursors, PageLimit},
    error::Problem,
};
use utoipa::{IntoParams, ToSchema};

use crate::{State, days::Month, figures::Charged};

/// Which records.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordsQuery {
    /// A UTC calendar month; the current one when left out.
    #[param(value_type = Option<String>, pattern = r"^(19[7-9]\d|[2-8]\d{3})-(0[1-9]|1[0-2])$", example = "2026-11")]
    period: Option<Month>,
    /// How many records at most.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{22,}$")]
    cursor: Option<String>,
}

/// One admitted request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Record {
    /// The request.
    #[schema(value_type = String, example = "req_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^req_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: RequestId,
    /// When it was admitted.
    #[schema(format = DateTime)]
    at: String,
    /// The period whose allowances it used.
    #[schema(example = "2026-11")]
    period: String,
    /// The endpoint: `chat` or `embeddings`.
    #[schema(example = "chat")]
    operation: &'static str,
    /// The model as the client named it.
    #[schema(example = "gpt-5-mini")]
    model: String,
    /// How it ended: `ok`, `client_closed`, `upstream_error`, `interrupted` or `expired`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The API key; `null` when a signed-in person called.
    #[schema(value_type = Option<String>, required)]
    api_key_id: Option<KeyId>,
    /// The member who called, or who made the key.
    #[schema(value_type = Option<String>, required)]
    member_id: Option<UserId>,
    /// Prompt tokens, cached ones included.
    prompt_tokens: u64,
    /// Prompt tokens that the vendor had cached.
    cached_tokens: u64,
    /// Completion tokens, reasoning included.
    completion_tokens: u64,
    /// Completion tokens that were reasoning.
    reasoning_tokens: u64,
    /// What was taken from the allowances.
    charged: Charged,
    /// Micro-credits that were taken.
    credits: u64,
    /// The vendor reported no usage, and it was counted here.
    estimated: bool,
    /// Tokens beyond what was held. They were not charged.
    overrun: u64,
    /// Whether the answer was streamed.
    streamed: bool,
    /// Milliseconds from admission to the end.
    latency_ms: u64,
    /// Milliseconds from admission to the first byte of the answer, when there was one.
    #[schema(required)]
    first_byte_ms: Option<u64>,
    /// `x-request-id` of the answer.
    request_id: String,
}

impl From<UsageEvent> for Record {
    fn from(event: UsageEvent) -> Self {
        Self {
            at: rfc3339(event.at),
            period: event.period().to_string(),
            id: event.id,
            operation: event.operation.name(),
            model: event.model,
            status: event.status.name(),
            api_key_id: event.key,
            member_id: event.member,
            prompt_tokens: event.tokens.prompt,
            cached_tokens: event.tokens.cached,
            completion_tokens: event.tokens.completion,
            reasoning_tokens: event.tokens.reasoning,
            charged: event.charged.into(),
            credits: event.credits,
            estimated: event.estimated,
            overrun: event.overrun,
            streamed: event.streamed,
            latency_ms: event.latency_ms,
            first_byte_ms: event.first_byte_ms,
            request_id: event.request_id,
        }
    }
}

/// A page of records.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordList {
    /// The records, newest first.
    data: Vec<Record>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Usage records
///
/// The admitted requests of a period, newest first. With `Accept: text/csv` the same page comes as CSV, and
/// the next page's cursor in `x-next-cursor` and `Link`.
#[utoipa::path(
    get,
    path = "/api/v1/usage/records",
    tag = "usage",
    operation_id = "list_usage_records",
    params(RecordsQuery),
    responses(
        (
            status = 200,
            description = "A page of records.",
            content((RecordList = "application/json"), (String = "text/csv")),
            headers(
                ("x-next-cursor" = String, description = "With CSV: where the next page begins; absent on the last one."),
                ("link" = String, description = "With CSV: the next page (RFC 8288); absent on the last one."),
            ),
        ),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The API key lacks the scope `usage`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn records(
    Shared(state): Shared<State>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<RecordsQuery>,
) -> Result<Response, ApiError> {
    let scope = caller.scope(Permission::ReadUsage)?;
    let period = query.period.map_or_else(|| Period::of(state.store.now()), |Month(period)| period);
    let list = format!("usage-records/{period}");
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), &list);
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.usage_records(scope, period, query.limit.0, position.as_deref()).await?;
    let data: Vec<Record> = page.items.into_iter().map(Into::into).collect();
    let next_cursor = page.next.map(|position| cursors.seal(&position));
    let mut response = if wants_csv(&headers) {
        as_csv(&data, period, query.limit.0, next_cursor.as_deref())
    } else {
        Json(RecordList { data, next_cursor }).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn as_csv(records: &[Record], period: Period, limit: u16, next_cursor: Option<&str>) -> Response {
    let mut response = table(records).into_response();
    let mut set = |name: HeaderName, text: &str| {
        // Nothing in these texts comes from outside, so each is a header value.
        if let Ok(value) = HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, CSV_TYPE);
    set(header::CONTENT_DISPOSITION, &format!("attachment; filename=\"usage-{period}.csv\""));
    if let Some(cursor) = next_cursor {
        set(HeaderName::from_static("x-next-cursor"), cursor);
        let next = format!("</api/v1/usage/records?period={period}&limit={limit}&cursor={cursor}>; rel=\"next\"");
        set(header::LINK, &next);
    }
    response
}

/// The columns are the fields of [`Record`] in their order.
fn table(records: &[Record]) -> String {
    let mut csv = Csv::with_header(&[
        "id",
        "at",
        "period",
        "operation",
        "model",
        "status",
        "api_key_id",
        "member_id",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "charged_messages",
        "charged_llm_tokens",
        "charged_images",
        "charged_api_calls",
        "credits",
        "estimated",
        "overrun",
        "streamed",
        "latency_ms",
        "first_byte_ms",
        "request_id",
    ]);
    for record in records {
        csv.text(record.id.as_str());
        csv.text(&record.at);
        csv.text(&record.period);
        csv.text(record.operation);
        csv.text(&record.model);
        csv.text(record.status);
        csv.optional(record.api_key_id.as_ref().map(KeyId::as_str));
        csv.optional(record.member_id.as_ref().map(UserId::as_str));
        csv.plain(record.prompt_tokens);
        csv.plain(record.cached_tokens);
        csv.plain(record.completion_tokens);
        csv.plain(record.reasoning_tokens);
        csv.plain(record.charged.messages);
        csv.plain(record.charged.llm_tokens);
        csv.plain(record.charged.images);
        csv.plain(record.charged.api_calls);
        csv.plain(record.credits);
        csv.plain(record.estimated);
        csv.plain(record.overrun);
        csv.plain(record.streamed);
        csv.plain(record.latency_ms);
        csv.optional(record.first_byte_ms.map(|ms| ms.to_string()).as_deref());
        csv.text(&record.request_id);
        csv.end_row();
    }
    csv.finish()
}

#[cfg(test)]
mod tests {
    use tenantry_domain::{
        Amounts, OrgId,
        usage::{Operation, Status, Tokens},
    };

    use super::*;

    #[test]
    fn csv_has_a_cell_for_every_column_and_no_formula() {
        let event = UsageEvent {
            id: RequestId::new(),
            org: OrgId::new(),
            at: 1_795_000_000_000,
            period: Period::of(1_795_000_000_000).index(),
            key: None,
            member: Some(UserId::new()),
            operation: Operation::Chat,
            model: "=cmd, \"x\"".into(),
            status: Status::Ok,
            tokens: Tokens::default(),
            charged: Amounts::NONE,
            credits: 0,
            cost: 123_456_789,
            price_version: 1,
            estimated: false,
            overrun: 0,
            streamed: true,
            latency_ms: 5,
            first_byte_ms: None,
            request_id: "-started-with-a-dash".into(),
            shard: 0,
        };
        let record = Record::from(event);
        let fields = serde_json::to_value(&record).unwrap().as_object().unwrap().len();
        let text = table(&[record]);
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 3);
        // `charged` is one field and four columns.
        assert_eq!(lines[0].split(',').count(), fields + 3);
        assert_eq!(lines[1].replace(", ", " ").split(',').count(), fields + 3);
        assert!(lines[1].contains("\"'=cmd, \"\"x\"\"\""), "{text}");
        assert!(lines[1].ends_with(",'-started-with-a-dash"), "{text}");
        assert!(!text.contains("123456789"), "what vendors charge is not shown");
    }
}

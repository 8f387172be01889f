//! A record as answers show it: one JSON object, or one row of CSV.

use std::collections::BTreeMap;

use serde::Serialize;
use tenantry_domain::{KeyId, RequestId, UserId, time::rfc3339, usage::UsageEvent};
use tenantry_web::csv::Csv;
use utoipa::ToSchema;

use crate::figures::Charged;

/// One admitted request, or a record of a resource of the organization's own.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Record {
    /// The record.
    #[schema(value_type = String, example = "req_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^req_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: RequestId,
    /// When it was admitted; when what was recorded happened.
    #[schema(format = DateTime)]
    at: String,
    /// The period whose allowances it used.
    #[schema(example = "2026-11")]
    period: String,
    /// The endpoint: `chat` or `embeddings`; `record` for a resource of the organization's own.
    #[schema(example = "chat")]
    operation: &'static str,
    /// The model as the client named it; `null` for a resource of the organization's own.
    #[schema(required, example = "gpt-5-mini")]
    model: Option<String>,
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
    /// The organization's own resource; `null` for a request.
    #[schema(required, example = "pages_scanned")]
    resource: Option<String>,
    /// How much of it.
    #[schema(required)]
    amount: Option<u64>,
    /// What was sent along with it.
    #[schema(required)]
    metadata: Option<BTreeMap<String, String>>,
}

impl From<UsageEvent> for Record {
    fn from(event: UsageEvent) -> Self {
        let period = event.period().to_string();
        let (model, resource) = if event.own.is_none() { (Some(event.model), None) } else { (None, Some(event.model)) };
        let (amount, metadata) = event.own.map(|own| (own.amount, own.metadata)).unzip();
        Self {
            at: rfc3339(event.at),
            period,
            id: event.id,
            operation: event.operation.name(),
            model,
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
            resource,
            amount,
            metadata,
        }
    }
}

/// A table without rows: the columns are the fields of [`Record`] in their order.
pub(crate) fn header() -> Csv {
    Csv::with_header(&[
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
        "resource",
        "amount",
        "metadata",
    ])
}

/// One more row. Metadata are a JSON object.
pub(crate) fn write_row(csv: &mut Csv, record: &Record) {
    csv.text(record.id.as_str());
    csv.text(&record.at);
    csv.text(&record.period);
    csv.text(record.operation);
    csv.optional(record.model.as_deref());
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
    csv.optional(record.resource.as_deref());
    csv.optional(record.amount.map(|amount| amount.to_string()).as_deref());
    let metadata = record.metadata.as_ref().and_then(|metadata| serde_json::to_string(metadata).ok());
    csv.optional(metadata.as_deref());
    csv.end_row();
}

#[cfg(test)]
mod tests {
    use tenantry_domain::{
        Amounts, OrgId, Period,
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
            own: None,
        };
        let record = Record::from(event);
        let fields = serde_json::to_value(&record).unwrap().as_object().unwrap().len();
        let mut csv = header();
        write_row(&mut csv, &record);
        let text = csv.finish();
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 3);
        // `charged` is one field and four columns.
        assert_eq!(lines[0].split(',').count(), fields + 3);
        assert_eq!(lines[1].replace(", ", " ").split(',').count(), fields + 3);
        assert!(lines[1].contains("\"'=cmd, \"\"x\"\"\""), "{text}");
        assert!(lines[1].ends_with(",'-started-with-a-dash,,,"), "{text}");
        assert!(!text.contains("123456789"), "what vendors charge is not shown");
    }
}

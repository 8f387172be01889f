//! `GET /usage/records`: the records of a period one by one, newest first, as JSON or CSV.

use axum::{
    Json,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE, LINK, VARY},
};
use serde::{Deserialize, Serialize};
use tenantry_domain::{Period, roles::Permission};
use tenantry_web::{
    ApiError, Caller, Query,
    csv::{CSV_TYPE, wants_csv},
    cursor::{Cursors, PageLimit},
    error::Problem,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    State,
    days::Month,
    rows::{Record, header, write_row},
};

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
/// The admitted requests of a period, and what was recorded with `POST /usage/record`, newest first. With `Accept: text/csv` the same page comes as CSV, and
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
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn as_csv(records: &[Record], period: Period, limit: u16, next_cursor: Option<&str>) -> Response {
    let mut csv = header();
    records.iter().for_each(|record| write_row(&mut csv, record));
    let mut response = csv.finish().into_response();
    let mut set = |name: HeaderName, text: &str| {
        // Nothing in these texts comes from outside, so each is a header value.
        if let Ok(value) = HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    };
    set(CONTENT_TYPE, CSV_TYPE);
    set(CONTENT_DISPOSITION, &format!("attachment; filename=\"usage-{period}.csv\""));
    if let Some(cursor) = next_cursor {
        set(HeaderName::from_static("x-next-cursor"), cursor);
        let next = format!("</api/v1/usage/records?period={period}&limit={limit}&cursor={cursor}>; rel=\"next\"");
        set(LINK, &next);
    }
    response
}

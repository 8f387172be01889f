//! `GET /audit-log`: who did what to what, newest first, as JSON or CSV. Readable by owners alone.

use axum::{
    Json as Answer,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    Millis,
    roles::Permission,
    time::{parse_day, parse_moment},
};
use tenantry_store::{AuditFilter, AuditRow};
use tenantry_web::{
    ApiError, Caller, Code, Query,
    csv::{CSV_TYPE, Csv, wants_csv},
    cursor::{Cursors, PageLimit},
};
use utoipa::{IntoParams, ToSchema};

use crate::{State, refusals::ReadRefusals};

/// Milliseconds of a day.
const DAY: Millis = 24 * 60 * 60 * 1000;

/// Longest value of a filter: actions and ids are shorter.
const FILTER_CHARS: usize = 100;

/// Which rows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// From this UTC day or moment on.
    #[param(
        example = "2026-11-01",
        pattern = r"^(19[7-9]\d|[2-8]\d{3})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-](0\d|1[0-4]):[0-5]\d))?$"
    )]
    from: Option<String>,
    /// Up to this UTC day, the day included; or before this moment.
    #[param(
        example = "2026-11-20T12:00:00Z",
        pattern = r"^(19[7-9]\d|[2-8]\d{3})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-](0\d|1[0-4]):[0-5]\d))?$"
    )]
    to: Option<String>,
    /// This action, like `member.removed`, or all of a kind, like `member`.
    #[param(example = "member", min_length = 1, max_length = 100)]
    action: Option<String>,
    /// Id of a person or an API key, `system`, or `operator:` and a name.
    #[param(min_length = 1, max_length = 100)]
    actor: Option<String>,
    /// Id of what it was done to.
    #[param(min_length = 1, max_length = 100)]
    target: Option<String>,
    /// How many rows at most.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: PageLimit,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{22,}$")]
    cursor: Option<String>,
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// The row.
    id: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// What.
    #[schema(example = "member.role_changed")]
    action: String,
    /// Who: id of a person, an API key or an end customer; `system`; or `operator:` and a name, for who runs the platform.
    #[schema(example = "usr_068b0kx0fawcp8yv9p2zkv5a5r")]
    actor: String,
    /// Id of what it was done to.
    #[schema(required)]
    target: Option<String>,
    /// What changed by it; secrets and addresses of people are left out.
    changes: Vec<AuditChange>,
    /// Address that the request came from.
    #[schema(required)]
    ip: Option<String>,
    /// Program that sent it, as it calls itself.
    #[schema(required)]
    user_agent: Option<String>,
    /// The request's `x-request-id`.
    request_id: String,
}

/// A value that changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditChange {
    /// The field, as the API calls it.
    field: String,
    /// What it was; `null` where it was not set.
    #[schema(required)]
    old: Option<String>,
    /// What it is; `null` where it is not set any more.
    #[schema(required)]
    new: Option<String>,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let change = |(field, old, new)| AuditChange { field, old, new };
        Self {
            id: row.id,
            at: row.at,
            action: row.action,
            actor: row.actor,
            target: row.target,
            changes: row.changes.into_iter().map(change).collect(),
            ip: row.ip,
            user_agent: row.user_agent,
            request_id: row.request_id,
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditList {
    /// The rows, newest first. With filters a page may have few, or none, and still a next one.
    data: Vec<AuditEntry>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Audit log
///
/// What was done in the caller's organization, newest first; rows are kept for 400 days. With `Accept: text/csv` the
/// same page comes as CSV, and the next page's cursor in `x-next-cursor`.
#[utoipa::path(
    get,
    path = "/api/v1/audit-log",
    tag = "audit log",
    operation_id = "list_audit_log",
    params(AuditQuery),
    security(("bearer" = [])),
    responses(
        (
            status = 200,
            description = "A page of rows.",
            content((AuditList = "application/json"), (String = "text/csv")),
            headers(("x-next-cursor" = String, description = "With CSV: where the next page begins; absent on the last one.")),
        ),
        ReadRefusals,
    ),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<AuditQuery>,
) -> Result<Response, ApiError> {
    let scope = caller.still_may(&state.store, Permission::ReadAudit).await?;
    let filter = AuditFilter {
        from: query.from.as_deref().map(|text| bound("from", text, 0)).transpose()?,
        to: query.to.as_deref().map(|text| bound("to", text, DAY)).transpose()?,
        action: word("action", query.action)?,
        actor: word("actor", query.actor)?,
        target: word("target", query.target)?,
    };
    // A position in one selection of rows says nothing about another.
    let list = format!("audit-log/{filter:?}");
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), &list);
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.audit_log(scope, &filter, query.limit.0, position.as_deref()).await?;
    let data: Vec<AuditEntry> = page.items.into_iter().map(Into::into).collect();
    let next_cursor = page.next.map(|position| cursors.seal(&position));
    let mut response = if wants_csv(&headers) {
        as_csv(&data, next_cursor.as_deref())
    } else {
        Answer(AuditList { data, next_cursor }).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// A moment, or the beginning of a day and `of_day` more.
fn bound(name: &str, text: &str, of_day: Millis) -> Result<Millis, ApiError> {
    let day = parse_day(text).map(|day| day + of_day);
    day.or_else(|_| parse_moment(text)).map_err(|_| {
        ApiError::new(
            Code::InvalidParameter,
            format!("query: {name}: must be a day like 2026-11-20, or a time like 2026-11-20T12:00:00Z"),
        )
    })
}

fn word(name: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.is_empty() || text.chars().count() > FILTER_CHARS => {
            Err(ApiError::new(Code::InvalidParameter, format!("query: {name}: must be 1 to {FILTER_CHARS} characters")))
        }
        text => Ok(text),
    }
}

fn as_csv(rows: &[AuditEntry], next_cursor: Option<&str>) -> Response {
    let mut response = table(rows).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CSV_TYPE));
    let name = HeaderValue::from_static("attachment; filename=\"audit-log.csv\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    if let Some(cursor) = next_cursor.and_then(|cursor| HeaderValue::from_str(cursor).ok()) {
        headers.insert(HeaderName::from_static("x-next-cursor"), cursor);
    }
    response
}

/// The columns are the fields of [`AuditEntry`] in their order; the changes are JSON in one cell.
fn table(rows: &[AuditEntry]) -> String {
    let mut csv =
        Csv::with_header(&["id", "at", "action", "actor", "target", "changes", "ip", "user_agent", "request_id"]);
    for row in rows {
        csv.text(&row.id);
        csv.text(&row.at);
        csv.text(&row.action);
        csv.text(&row.actor);
        csv.optional(row.target.as_deref());
        csv.text(&serde_json::to_string(&row.changes).unwrap_or_default());
        csv.optional(row.ip.as_deref());
        csv.optional(row.user_agent.as_deref());
        csv.text(&row.request_id);
        csv.end_row();
    }
    csv.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_a_cell_for_every_field_and_no_formula() {
        let row = AuditEntry {
            id: "1".into(),
            at: "2026-11-20T12:00:00.000Z".into(),
            action: "session.replayed".into(),
            actor: "system".into(),
            target: None,
            changes: vec![],
            ip: None,
            user_agent: Some("=cmd".into()),
            request_id: "-dash".into(),
        };
        let fields = serde_json::to_value(&row).unwrap().as_object().unwrap().len();
        let text = table(&[row]);
        assert!(text.split("\r\n").take(2).all(|line| line.split(',').count() == fields), "{text}");
        assert!(text.contains(",'=cmd,'-dash\r\n"), "{text}");
    }

    #[test]
    fn a_day_ends_with_itself() {
        assert_eq!(bound("to", "2026-11-20", DAY).unwrap(), bound("to", "2026-11-21T00:00:00Z", DAY).unwrap());
        assert!(bound("to", "yesterday", DAY).is_err());
    }
}

//! `GET /usage/records/export`: the records of any days, as CSV or JSON lines, streamed.
//!
//! A page is read from the database when the client has taken the one before: so there is one in memory, whatever the
//! client asks for and however slowly it reads. The first page is read before the answer begins, and its failure has a
//! status. Later ones cannot: the connection is broken off, so that nobody takes a part for the whole, and JSON lines say
//! why in a last line, if it still gets out.

use std::{fmt, io, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::json;
use tenantry_domain::{Millis, Period, roles::Permission, time::day, usage::UsageEvent};
use tenantry_store::{Page, Store, StoreError, TenantScope};
use tenantry_web::{
    ApiError, Caller, Code, Query,
    csv::{CSV_TYPE, Csv, wants_csv},
    error::Problem,
    router::TraceId,
};
use tracing::Span;
use utoipa::IntoParams;

use crate::{
    State,
    days::{DAY, Day, start_of_day},
    rows::{self, Record, write_row},
};

/// Records that are read at once. DynamoDB ends a page at a megabyte in any case.
const PAGE: u16 = 500;

/// How long what was read, and the last words, have to get out before the connection is broken off. What the client's
/// connection takes at once is passed on as soon as there is something to wait for; a slow client may miss the rest. That
/// the connection is broken off it sees in any case.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Which days.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// First UTC day; the first one of the month of `to` when left out.
    #[param(value_type = Option<String>, format = Date, pattern = r"^(19[7-9]\d|[2-8]\d{3})-", example = "2026-09-01")]
    from: Option<Day>,
    /// Last UTC day, included; today when left out.
    #[param(value_type = Option<String>, format = Date, pattern = r"^(19[7-9]\d|[2-8]\d{3})-", example = "2026-11-30")]
    to: Option<Day>,
}

impl ExportQuery {
    /// First millisecond of the first and of the last day.
    fn range(&self, now: Millis) -> Result<(Millis, Millis), ApiError> {
        let last = self.to.map_or_else(|| start_of_day(now), |Day(at)| at);
        let first = self.from.map_or_else(|| Period::of(last).start(), |Day(at)| at);
        if first > last {
            return Err(ApiError::new(Code::InvalidValue, "from: lies behind `to`, which is today when left out"));
        }
        Ok((first, last))
    }
}

/// How the records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Csv,
}

impl Format {
    fn page(self, events: Vec<UsageEvent>) -> String {
        let records = events.into_iter().map(Record::from);
        match self {
            // A record is made of texts, numbers and nothing else, so it can be written.
            Self::JsonLines => records.filter_map(|r| Some(serde_json::to_string(&r).ok()? + "\n")).collect(),
            Self::Csv => {
                let mut csv = Csv::rows();
                records.for_each(|record| write_row(&mut csv, &record));
                csv.finish()
            }
        }
    }

    /// What comes before the first record.
    fn head(self) -> String {
        match self {
            Self::JsonLines => String::new(),
            Self::Csv => rows::header().finish(),
        }
    }

    /// What is said of a failure, where that cannot be taken for a record.
    fn last_words(self, problem: &Problem) -> Option<String> {
        match self {
            Self::JsonLines => Some(format!("{}\n", json!({ "error": problem }))),
            Self::Csv => None,
        }
    }
}

/// Export usage records
///
/// The records of any UTC days, oldest first, as JSON lines, or as CSV with `Accept: text/csv`, streamed for as long as there
/// are any: no cursor is needed. Records are as in `GET /usage/records`. When something fails on the way the connection is
/// broken off, and JSON lines end with `{"error": …}` if that still gets out; go on with `from` the day of the last
/// record that came.
#[utoipa::path(
    get,
    path = "/api/v1/usage/records/export",
    tag = "usage",
    operation_id = "export_usage_records",
    params(ExportQuery),
    responses(
        (
            status = 200,
            description = "The records.",
            content((String = "application/jsonl"), (String = "text/csv")),
        ),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The API key lacks the scope `usage`.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`from` lies behind `to`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn export(
    Shared(state): Shared<State>,
    caller: Caller,
    Extension(trace): Extension<TraceId>,
    headers: HeaderMap,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let scope = caller.scope(Permission::ReadUsage)?.clone();
    let (first, last) = query.range(state.store.now())?;
    let (format, kind, ending) = if wants_csv(&headers) {
        (Format::Csv, CSV_TYPE, "csv")
    } else {
        (Format::JsonLines, "application/jsonl", "jsonl")
    };
    let export = Export { store: state.store, scope, first, until: last + DAY, format, trace, span: Span::current() };
    let page = export.page(None).await?;
    let mut response = Body::from_stream(export.stream(page)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    // nginx and its kin would collect the answer, and take it from us faster than the client does.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let name = format!("attachment; filename=\"usage-{}-{}.{ending}\"", day(first), day(last));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// What is exported.
struct Export {
    store: Store,
    scope: TenantScope,
    first: Millis,
    until: Millis,
    format: Format,
    trace: TraceId,
    span: Span,
}

/// What comes next.
enum Next {
    /// A page that is read already.
    Ready(Page<UsageEvent>),
    /// The page behind this.
    Behind(String),
    /// The end of the connection.
    BreakOff,
    Nothing,
}

/// Why the stream ends early.
#[derive(Debug)]
struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an export was broken off")
    }
}

impl std::error::Error for BrokenOff {}

impl Export {
    async fn page(&self, cursor: Option<&str>) -> Result<Page<UsageEvent>, StoreError> {
        self.store.usage_between(&self.scope, self.first, self.until, PAGE, cursor).await
    }

    fn stream(self, first: Page<UsageEvent>) -> impl Stream<Item = io::Result<Bytes>> {
        let head = self.format.head();
        stream::unfold((self, head, Next::Ready(first)), |(export, text, next)| async move {
            let (item, next) = export.step(text, next).await?;
            Some((item, (export, String::new(), next)))
        })
    }

    /// The next piece of the body, and what comes behind it. Pages of other days than those that are asked for, which are
    /// few, are passed over: an empty piece would end the body in some places.
    async fn step(&self, mut text: String, mut next: Next) -> Option<(io::Result<Bytes>, Next)> {
        loop {
            let page = match next {
                Next::Ready(page) => page,
                Next::Behind(cursor) => match self.page(Some(&cursor)).await {
                    Ok(page) => page,
                    Err(error) => match self.failed(error) {
                        Some(words) => return Some((Ok((text + &words).into()), Next::BreakOff)),
                        None => {
                            next = Next::BreakOff;
                            continue;
                        }
                    },
                },
                Next::BreakOff => {
                    // The server throws away what it has not passed on when the body fails.
                    tokio::time::sleep(LAST_WORDS).await;
                    return Some((Err(io::Error::other(BrokenOff)), Next::Nothing));
                }
                Next::Nothing => return None,
            };
            text += &self.format.page(page.items);
            next = page.next.map_or(Next::Nothing, Next::Behind);
            if !text.is_empty() {
                return Some((Ok(text.into()), next));
            }
        }
    }

    /// Logs the failure; returns what the client is told.
    fn failed(&self, error: StoreError) -> Option<String> {
        let _entered = self.span.enter();
        tracing::error!(%error, "an export was broken off");
        self.format.last_words(&ApiError::from(error).to_problem(&self.trace.0))
    }
}

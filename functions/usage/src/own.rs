//! `POST /usage/record`: what the organization counts itself, beside what is counted here.

use std::{collections::BTreeMap, time::Duration};

use axum::{Extension, extract::State as Shared};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    Amounts, Millis, Period, RequestId,
    own::{Own, OwnResource, OwnResourceError},
    roles::Permission,
    secret::sha256_hex,
    time::parse_moment,
    usage::{Operation, Status, Tokens, UsageEvent},
};
use tenantry_store::{Admitted, MOST_RESOURCES, OwnRecorded, RecordKey, TenantScope, WindowRule};
use tenantry_web::{
    ApiError, Caller, Code, Json,
    error::Problem,
    idempotency::{REPLAYED, key_in, reused},
    router::TraceId,
};
use utoipa::ToSchema;

use crate::{State, rows::Record};

/// Records of one organization: ten a second for ten minutes. The plan does not pay for them, so they have an end.
const RECORDS: WindowRule = WindowRule { most: 6_000, window: 10 * 60 * 1000 };

/// How far a client's clock may run ahead of this one.
const AHEAD: Millis = 5 * 60 * 1000;

/// A record to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRecord {
    /// A resource of the organization's own. What the platform meters itself (`messages`, `llm_tokens`, `images`,
    /// `api_calls`) is none. At most 100 different ones a month.
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,63}$", example = "pages_scanned")]
    resource: String,
    /// How much of it.
    #[schema(minimum = 1, maximum = 100_000_000_000_u64, example = 12)]
    amount: u64,
    /// Up to 20 texts by name, to be found with the record again: 4096 bytes in all, names of 40 and values of 500
    /// characters.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// When it happened; now when left out. In this month or the last one (UTC). Up to five minutes ahead, as clocks differ,
    /// are recorded as now; later is refused.
    #[schema(format = DateTime, example = "2026-11-20T12:00:00Z")]
    at: Option<String>,
}

/// Record usage
///
/// Adds an amount of a resource that the organization counts itself. It appears in records, exports, statistics and history
/// beside what the platform counts, and uses up nothing of the plan. With an `Idempotency-Key` a record is made once, however
/// often it is sent, for 32 days at least. An organization may make 6,000 requests in ten minutes.
#[utoipa::path(
    post,
    path = "/api/v1/usage/record",
    tag = "usage",
    operation_id = "record_usage",
    params(
        (
            "Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "Visible ASCII that is new for each record, like a UUID. The same record with the same key is answered as it was \
                           the first time, and not made again.",
        ),
    ),
    request_body = NewRecord,
    responses(
        (
            status = 201,
            description = "The record.",
            body = Record,
            headers(("idempotent-replayed" = String, description = "`true`: it had been made before.")),
        ),
        (status = 400, description = "The body or the `Idempotency-Key` is malformed.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The API key lacks the scope `record`.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (
            status = 422,
            description = "A value is not allowed. Or `idempotency_key_reused`: the `Idempotency-Key` was used for another record.",
            body = Problem, content_type = "application/problem+json",
        ),
        (status = 429, description = "Too many records in these ten minutes; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn record(
    Shared(state): Shared<State>,
    caller: Caller,
    Extension(trace): Extension<TraceId>,
    headers: HeaderMap,
    Json(new): Json<NewRecord>,
) -> Result<(StatusCode, HeaderMap, axum::Json<Record>), ApiError> {
    let scope = caller.scope(Permission::RecordUsage)?;
    let key = key_in(&headers)?.map(|key| record_key(&caller, &key, &new)).transpose()?;
    let now = state.store.now();
    let resource: OwnResource =
        new.resource.parse().map_err(|error: OwnResourceError| ApiError::invalid("/resource", error.to_string()))?;
    let own = Own::new(new.amount, new.metadata.unwrap_or_default())
        .map_err(|error| ApiError::invalid(error.pointer(), error.to_string()))?;
    let at = match admitted(&state, scope, new.at.as_deref(), now).await {
        Ok(at) => at,
        // Neither the month nor the rate is asked of what was recorded when they allowed it.
        Err(refusal) => match &key {
            Some(key) => match state.store.own_usage_recorded(scope, key).await? {
                Some(recorded) => return answer(recorded),
                None => return Err(refusal),
            },
            None => return Err(refusal),
        },
    };
    let event = UsageEvent {
        // Of the moment that it is about, because records are listed by their ids.
        id: RequestId::at(at),
        org: scope.org().clone(),
        at,
        period: Period::of(at).index(),
        key: caller.key().cloned(),
        member: Some(caller.member().clone()),
        operation: Operation::Record,
        model: resource.to_string(),
        status: Status::Ok,
        tokens: Tokens::default(),
        charged: Amounts::NONE,
        credits: 0,
        cost: 0,
        price_version: 0,
        estimated: false,
        overrun: 0,
        streamed: false,
        latency_ms: 0,
        first_byte_ms: None,
        request_id: trace.0.to_string(),
        shard: 0,
        own: Some(own),
    };
    answer(state.store.record_own_usage(scope, event, key.as_ref()).await?)
}

fn answer(recorded: OwnRecorded) -> Result<(StatusCode, HeaderMap, axum::Json<Record>), ApiError> {
    let mut headers = HeaderMap::new();
    let event = match recorded {
        OwnRecorded::Now(event) => event,
        OwnRecorded::Before(before) => {
            headers.insert(HeaderName::from_static(REPLAYED), HeaderValue::from_static("true"));
            before
        }
        OwnRecorded::Reused => return Err(reused()),
        OwnRecorded::TooMany => {
            let text = format!("is one more than the {MOST_RESOURCES} resources of your own that a month may have");
            return Err(ApiError::invalid("/resource", text));
        }
    };
    Ok((StatusCode::CREATED, headers, axum::Json((*event).into())))
}

/// The moment of a new record, where one may be made.
async fn admitted(state: &State, scope: &TenantScope, at: Option<&str>, now: Millis) -> Result<Millis, ApiError> {
    let at = at.map_or(Ok(now), |at| moment(at, now))?;
    match state.store.count_try(&format!("record\ntenant\n{}", scope.org()), &RECORDS).await? {
        Admitted::Now => Ok(at),
        Admitted::In(wait) => {
            let text = "More records than an organization may make in ten minutes. Sum up, or wait.";
            let wait = Duration::from_millis(wait.unsigned_abs());
            Err(ApiError::new(Code::RateLimited, text).retry_after(wait))
        }
    }
}

/// In this month or the last one: what the reconciler looks at.
fn moment(text: &str, now: Millis) -> Result<Millis, ApiError> {
    let at = parse_moment(text).map_err(|error| ApiError::invalid("/at", error.to_string()))?;
    let this = Period::of(now);
    let earliest = Period::from_index(this.index() - 1).unwrap_or(this).start();
    if (earliest..=now + AHEAD).contains(&at) {
        return Ok(at.min(now));
    }
    Err(ApiError::invalid("/at", "must be in this month or the last one, and not in the future"))
}

/// The key is the caller's own. What it stands for is the record as it was sent, however that was written.
fn record_key(caller: &Caller, key: &str, new: &NewRecord) -> Result<RecordKey, ApiError> {
    let sent = serde_json::to_vec(new).map_err(|error| ApiError::internal(error.to_string()))?;
    // An actor's id has no blank.
    let id = sha256_hex(format!("{} {key}", caller.audit_actor().as_str()).as_bytes());
    Ok(RecordKey { id, fingerprint: sha256_hex(&sent) })
}

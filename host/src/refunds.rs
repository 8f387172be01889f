//! `POST /_dev/refund`: what the operator asks the function quota-reset for on AWS, with the same payload and answer.

use axum::{Json, Router, extract::State, middleware::from_fn, routing::post};
use serde_json::Value;
use tenantry_domain::RequestId;
use tenantry_quota_reset::{REFUND, RefundAnswer, refund};
use tenantry_sandbox::guard::local_only;

use crate::jobs::Jobs;

/// For this machine alone.
pub(crate) fn router(jobs: Jobs) -> Router {
    Router::new().route("/_dev/refund", post(ask)).layer(from_fn(local_only)).with_state(jobs)
}

async fn ask(State(jobs): State<Jobs>, Json(mut payload): Json<Value>) -> Json<RefundAnswer> {
    // There is one job here.
    if let Some(payload) = payload.as_object_mut() {
        payload.entry("job").or_insert_with(|| REFUND.into());
    }
    Json(refund(jobs.state(), payload, RequestId::new().as_str()).await)
}

//! The controls: `/_dev/<vendor>/notifications` and `/_dev/<vendor>/faults`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Desk, Fault};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    faults: Vec<Fault>,
}

#[derive(Deserialize)]
struct Delay {
    #[serde(default)]
    seconds: u32,
}

type Shared = State<Arc<dyn Desk>>;

pub(super) fn router(desk: Arc<dyn Desk>) -> Router {
    let base = format!("/_dev/{}", desk.path());
    Router::new()
        .route(&format!("{base}/notifications"), get(list))
        .route(&format!("{base}/notifications/reorder"), post(reorder))
        .route(&format!("{base}/notifications/{{id}}/deliver"), post(deliver))
        .route(&format!("{base}/notifications/{{id}}/repeat"), post(repeat))
        .route(&format!("{base}/notifications/{{id}}/delay"), post(delay))
        .route(&format!("{base}/faults"), get(faults).post(order_faults).delete(clear_faults))
        .with_state(desk)
}

async fn list(State(desk): Shared) -> Response {
    Json(json!({"data": desk.outbox().list()})).into_response()
}

/// Sends it at once and says what became of it.
async fn deliver(State(desk): Shared, Path(id): Path<String>) -> Response {
    if !desk.outbox().deliver(&id).await {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(json!({"data": desk.outbox().list().into_iter().find(|listed| listed.id == id)})).into_response()
}

async fn repeat(State(desk): Shared, Path(id): Path<String>) -> StatusCode {
    found(desk.outbox().repeat(&id))
}

async fn delay(State(desk): Shared, Path(id): Path<String>, Query(delay): Query<Delay>) -> StatusCode {
    found(desk.outbox().delay(&id, u64::from(delay.seconds) * 1000))
}

async fn reorder(State(desk): Shared, Json(order): Json<Order>) -> StatusCode {
    found(desk.outbox().reorder(&order.ids))
}

async fn faults(State(desk): Shared) -> Response {
    Json(json!({"faults": desk.faults().left()})).into_response()
}

async fn order_faults(State(desk): Shared, Json(ordered): Json<Ordered>) -> StatusCode {
    desk.faults().order(ordered.faults);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(desk): Shared) -> StatusCode {
    desk.faults().clear();
    StatusCode::NO_CONTENT
}

const fn found(found: bool) -> StatusCode {
    if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

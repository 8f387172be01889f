//! The controls, below `/_dev/pay`: what happens to notifications, and to the next calls. Browsers' forms and programs
//! use the same addresses; a form is led back to the overview.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{Desk, Disguise, Fault, Outbox, Vendor};

#[derive(Clone)]
struct Controls {
    desks: [Arc<dyn Desk>; 2],
    outbox: Arc<Outbox>,
}

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

#[derive(Deserialize)]
struct Deliver {
    #[serde(default)]
    disguise: Disguise,
}

#[derive(Deserialize)]
struct Hold {
    held: bool,
}

#[derive(Deserialize)]
struct Chosen {
    fault: Fault,
}

pub(super) fn router(desks: &[Arc<dyn Desk>; 2], outbox: &Arc<Outbox>) -> Router {
    Router::new()
        .route("/_dev/pay/notifications", get(list))
        .route("/_dev/pay/notifications/hold", post(hold))
        .route("/_dev/pay/notifications/reorder", post(reorder))
        .route("/_dev/pay/notifications/{id}/deliver", post(deliver))
        .route("/_dev/pay/notifications/{id}/repeat", post(repeat))
        .route("/_dev/pay/notifications/{id}/delay", post(delay))
        .route("/_dev/pay/faults/{vendor}", get(faults).post(order_faults).delete(clear_faults))
        .route("/_dev/pay/faults/{vendor}/next", post(choose_fault))
        .with_state(Controls { desks: desks.clone(), outbox: outbox.clone() })
}

async fn list(State(controls): State<Controls>) -> Response {
    Json(json!({"held": controls.outbox.is_held(), "data": controls.outbox.list()})).into_response()
}

/// Sends it at once and says what became of it.
async fn deliver(
    State(controls): State<Controls>,
    Path(id): Path<String>,
    Query(deliver): Query<Deliver>,
    headers: HeaderMap,
) -> Response {
    if !controls.outbox.deliver(&id, deliver.disguise).await {
        return StatusCode::NOT_FOUND.into_response();
    }
    let listed = controls.outbox.list().into_iter().find(|listed| listed.id == id);
    back(&headers, Json(json!({"data": listed})).into_response())
}

async fn repeat(State(controls): State<Controls>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    found(&headers, controls.outbox.repeat(&id))
}

async fn delay(
    State(controls): State<Controls>,
    Path(id): Path<String>,
    Query(delay): Query<Delay>,
    headers: HeaderMap,
) -> Response {
    found(&headers, controls.outbox.delay(&id, u64::from(delay.seconds) * 1000))
}

async fn reorder(State(controls): State<Controls>, headers: HeaderMap, Json(order): Json<Order>) -> Response {
    found(&headers, controls.outbox.reorder(&order.ids))
}

async fn hold(State(controls): State<Controls>, Query(hold): Query<Hold>, headers: HeaderMap) -> Response {
    controls.outbox.hold(hold.held);
    back(&headers, StatusCode::NO_CONTENT.into_response())
}

impl Controls {
    fn desk(&self, vendor: &str) -> Option<&dyn Desk> {
        let vendor = Vendor::parse(vendor)?;
        self.desks.iter().find(|desk| desk.vendor() == vendor).map(|desk| &**desk)
    }
}

async fn faults(State(controls): State<Controls>, Path(vendor): Path<String>) -> Response {
    match controls.desk(&vendor) {
        Some(desk) => Json(json!({"faults": desk.faults().left()})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn order_faults(
    State(controls): State<Controls>,
    Path(vendor): Path<String>,
    headers: HeaderMap,
    Json(ordered): Json<Ordered>,
) -> Response {
    let desk = controls.desk(&vendor);
    if let Some(desk) = desk {
        desk.faults().order(ordered.faults);
    }
    found(&headers, desk.is_some())
}

/// One fault, from a form: all but those with a number.
async fn choose_fault(
    State(controls): State<Controls>,
    Path(vendor): Path<String>,
    Query(chosen): Query<Chosen>,
    headers: HeaderMap,
) -> Response {
    let desk = controls.desk(&vendor);
    if let Some(desk) = desk {
        desk.faults().order([chosen.fault]);
    }
    found(&headers, desk.is_some())
}

async fn clear_faults(State(controls): State<Controls>, Path(vendor): Path<String>, headers: HeaderMap) -> Response {
    let desk = controls.desk(&vendor);
    if let Some(desk) = desk {
        desk.faults().clear();
    }
    found(&headers, desk.is_some())
}

fn found(headers: &HeaderMap, found: bool) -> Response {
    if found { back(headers, StatusCode::NO_CONTENT.into_response()) } else { StatusCode::NOT_FOUND.into_response() }
}

/// To the overview, when a person pressed a button there.
fn back(headers: &HeaderMap, answer: Response) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    if kind == Some(b"application/x-www-form-urlencoded") { Redirect::to("/_dev/pay").into_response() } else { answer }
}

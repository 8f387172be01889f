//! The clients: they call the gateway's router, wait, or leave.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::{
    scenario::{Call, Patience},
    vendor::prompt,
    world::{Pool, Process, World, lock},
};

/// After this a client believes in nothing any more.
const LONGEST: Duration = Duration::from_secs(150);

/// What a client saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The gateway said no: 402, 403 or 429.
    Refused(u16, String),
    /// It, or the vendor, failed.
    Failed(u16, String),
    /// The whole answer, with its usage.
    Whole(Value),
    /// A stream, and whether it ended as it should.
    Streamed { done: bool },
    /// The client left.
    Left,
    /// Nobody answered any more.
    Nothing,
}

/// The name that a client gives its call, and finds in the record.
pub(crate) fn trace_id(number: usize) -> String {
    format!("call-{number:04}")
}

/// Makes a call when its time has come.
pub(crate) async fn call(world: Arc<World>, gateways: Arc<Pool<Router>>, number: usize) {
    let call = world.scenario.calls[number].clone();
    tokio::time::sleep(call.at).await;
    let (process, router) = gateways.any(&world);
    world.note(|| format!("client: call {number} to {}", process.name));
    let outcome = match call.patience {
        Patience::Leaves(after) => timeout(after, ask(&world, &process, router, number, &call)).await,
        _ => timeout(LONGEST, ask(&world, &process, router, number, &call)).await,
    };
    let outcome = outcome.unwrap_or(match call.patience {
        Patience::Leaves(_) => Outcome::Left,
        _ => Outcome::Nothing,
    });
    world.note(|| format!("client: call {number}: {outcome:?}"));
    lock(&world.seen).outcomes.insert(number, outcome);
}

async fn ask(world: &World, process: &Arc<Process>, router: Router, number: usize, call: &Call) -> Outcome {
    let key = lock(&world.tenants)[call.tenant].keys[usize::from(call.budgeted)].1.clone();
    let (path, mut body) = match call.model {
        "vectors" => ("/api/v1/embeddings", json!({"model": call.model, "input": prompt(number, call)})),
        _ => {
            let messages = json!([{"role": "user", "content": prompt(number, call)}]);
            ("/api/v1/chat/completions", json!({"model": call.model, "messages": messages, "stream": call.stream}))
        }
    };
    if let Some(most) = call.max_tokens.filter(|_| call.model != "vectors") {
        body["max_tokens"] = most.into();
    }
    let request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-request-id", trace_id(number))
        .body(Body::from(body.to_string()))
        .expect("a request");
    let response = router.oneshot(request).await.expect("routers do not fail");
    process.alive().await;
    let status = response.status().as_u16();
    if call.stream && status == 200 {
        return read_stream(process, response, call.patience).await;
    }
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let code = body["error"]["code"].as_str().unwrap_or_default().to_owned();
    match status {
        200 => Outcome::Whole(body["usage"].clone()),
        402 | 403 | 429 if !lock(&world.seen).asked.contains_key(&number) => Outcome::Refused(status, code),
        _ => Outcome::Failed(status, code),
    }
}

async fn read_stream(process: &Process, response: Response<Body>, patience: Patience) -> Outcome {
    let mut body = response.into_body();
    let (mut pieces, mut text) = (0, vec![]);
    while let Some(frame) = body.frame().await {
        process.alive().await;
        let Ok(data) = frame.expect("a stream of ours").into_data() else { continue };
        text.extend_from_slice(&data);
        pieces += 1;
        if matches!(patience, Patience::LeavesAfter(most) if pieces > most) {
            return Outcome::Left;
        }
    }
    Outcome::Streamed { done: text.ends_with(b"data: [DONE]\n\n") }
}

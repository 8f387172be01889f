//! The way to the database: the SDK's HTTP client, whose requests get lost, refused, held up and done without an answer.

use std::{future::pending, sync::Arc, sync::atomic::Ordering};

use aws_sdk_dynamodb::{
    Client,
    config::{
        Builder,
        retry::{RetryPartition, TokenBucket},
    },
};
use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use tenantry_web::config::Env;
use tokio::sync::oneshot;

use crate::world::{Fate, Process, World, lock, millis};

/// A client with the patience of the functions.
pub(crate) fn client(process: &Arc<Process>) -> Client {
    let env: Env = [("AWS_REGION".to_owned(), "sim".to_owned())].into_iter().collect();
    // A process knows only its own failures; and one run knows nothing of another.
    let retries = RetryPartition::custom("simulated").token_bucket(TokenBucket::default()).build();
    let config = Builder::from(env.aws())
        .allow_no_auth()
        .retry_partition(retries)
        .http_client(SharedHttpClient::new(Wire(process.clone())));
    Client::from_conf(config.build())
}

#[derive(Debug, Clone)]
struct Wire(Arc<Process>);

impl HttpClient for Wire {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // `DynamoDB_20120810.UpdateItem`
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().unwrap_or_default().to_vec();
        let process = self.0.clone();
        HttpConnectorFuture::new(async move { send(&process, &operation, body).await })
    }
}

async fn send(process: &Arc<Process>, operation: &str, body: Vec<u8>) -> Result<HttpResponse, ConnectorError> {
    let world = process.world.clone();
    world.requests.fetch_add(1, Ordering::SeqCst);
    let fate = process.fate();
    if fate == Fate::Dead {
        return pending().await;
    }
    let faults = world.scenario.faults;
    let writes = !matches!(operation, "GetItem" | "Query" | "TransactGetItems");
    if world.happens(faults.before) || (!writes && world.happens(faults.reads)) {
        world.note(|| format!("{} {operation}: no connection", process.name));
        return Err(ConnectorError::io("simulated: no connection".into()));
    }
    if world.happens(faults.throttled) {
        world.note(|| format!("{} {operation}: throttled", process.name));
        let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
        return answer(400, json!({"__type": kind, "message": "simulated"}).to_string());
    }
    if writes && world.happens(faults.conflict) {
        world.note(|| format!("{} {operation}: conflict", process.name));
        return answer(400, conflict(operation, &body));
    }
    let slow = |rate| if world.happens(rate) { world.dice(|dice| dice.u64(1..5_000)) } else { 0 };
    let (before, after) = (slow(faults.slow), slow(faults.slow));
    let is_reservation = is_reservation(&body);
    let lost = world.happens(faults.lost) || (is_reservation && world.happens(faults.unheard));
    if (lost || before > 0 || after > 0) && is_reservation {
        lock(&world.seen).unheard += 1;
    }
    let (status, text) = if before == 0 {
        apply(&world, &process.name, operation, &body)
    } else {
        // What is on its way arrives, whether or not somebody still waits for the answer.
        let (sender, receiver) = oneshot::channel();
        let (world, name, operation) = (world.clone(), process.name.clone(), operation.to_owned());
        tokio::spawn(async move {
            millis(before).await;
            let _ = sender.send(apply(&world, &name, &operation, &body));
        });
        receiver.await.map_err(|error| ConnectorError::other(error.into(), None))?
    };
    if fate == Fate::Dies {
        return pending().await;
    }
    if after > 0 {
        millis(after).await;
    }
    process.alive().await;
    if lost {
        world.note(|| format!("{} {operation}: the answer was lost", process.name));
        return Err(ConnectorError::io("simulated: the answer was lost".into()));
    }
    answer(status, text)
}

fn is_reservation(body: &[u8]) -> bool {
    const MARK: &[u8] = b"#holds.#request = :hold";
    body.windows(MARK.len()).any(|part| part == MARK)
}

fn answer(status: u16, text: String) -> Result<HttpResponse, ConnectorError> {
    let status = StatusCode::try_from(status).map_err(|error| ConnectorError::other(error.into(), None))?;
    Ok(HttpResponse::new(status, SdkBody::from(text)))
}

/// Two writes at one item at the same moment: DynamoDB refuses one of them.
fn conflict(operation: &str, body: &[u8]) -> String {
    const PREFIX: &str = "com.amazonaws.dynamodb.v20120810#";
    if operation != "TransactWriteItems" {
        return json!({"__type": format!("{PREFIX}TransactionConflictException"), "message": "simulated"}).to_string();
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let writes = body["TransactItems"].as_array().map_or(1, Vec::len);
    let reason = |index| json!({"Code": if index == 0 { "TransactionConflict" } else { "None" }});
    json!({
        "__type": format!("{PREFIX}TransactionCanceledException"),
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
        "CancellationReasons": (0..writes).map(reason).collect::<Vec<_>>(),
    })
    .to_string()
}

/// Lets the database do it.
fn apply(world: &World, name: &str, operation: &str, body: &[u8]) -> (u16, String) {
    let (status, text) = match &world.saboteur {
        Some(saboteur) => saboteur.apply(world, name, operation, body),
        _ => world.engine.serve(operation, body),
    };
    world.note(|| format!("{name} {operation} {} -> {status}{}", about(body), told(status, &text)));
    (status, text)
}

fn told(status: u16, text: &str) -> String {
    if status == 200 {
        return String::new();
    }
    let kind: Value = serde_json::from_str(text).unwrap_or_default();
    let codes = kind["CancellationReasons"].as_array().into_iter().flatten();
    let codes: Vec<_> = codes.filter_map(|reason| reason["Code"].as_str()).collect();
    let kind = kind["__type"].as_str().unwrap_or_default();
    format!(" {} {}", kind.rsplit('#').next().unwrap_or_default(), codes.join(", "))
}

/// What a request is about, without the ids in it: they are others in every run.
fn about(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let one = |request: &Value| {
        let key = if request["Key"].is_null() { &request["Item"] } else { &request["Key"] };
        let sk = key["sk"]["S"].as_str().unwrap_or_default();
        let update = request["UpdateExpression"].as_str().unwrap_or_default();
        format!("{}{}{update}", without_ids(sk), if update.is_empty() { "" } else { " " })
    };
    match body["TransactItems"].as_array() {
        Some(writes) => {
            let inner =
                |write: &Value| write.as_object().and_then(|write| write.values().next()).map_or(String::new(), one);
            writes.iter().map(inner).collect::<Vec<_>>().join("; ")
        }
        None => one(&body),
    }
}

fn without_ids(text: &str) -> String {
    let part = |part: &str| if part.len() >= 26 { "~".to_owned() } else { part.to_owned() };
    text.split('#').map(part).collect::<Vec<_>>().join("#")
}

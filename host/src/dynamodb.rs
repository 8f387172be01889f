//! DynamoDB in the process: the SDK's HTTP client answers from an embedded engine instead of a socket.
//!
//! Everything above the HTTP client is the production code path: the same SDK, the same requests, the
//! same error types. What the engine does not emulate are throttling, conflicts and stale reads.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Region},
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
use dynoxide::{Database, DynoxideError};

/// Capacity units, in thousandths, that the requests so far have used up. DynamoDB bills by these.
#[derive(Debug, Default)]
pub struct Capacity {
    write: AtomicU64,
    read: AtomicU64,
}

impl Capacity {
    /// Write units so far.
    #[must_use]
    pub fn write_units(&self) -> f64 {
        units(&self.write)
    }

    /// Read units so far.
    #[must_use]
    pub fn read_units(&self) -> f64 {
        units(&self.read)
    }
}

#[allow(clippy::cast_precision_loss, reason = "thousandths of units of one test")]
fn units(thousandths: &AtomicU64) -> f64 {
    thousandths.load(Ordering::Relaxed) as f64 / 1000.0
}

/// The embedded engine.
#[derive(Clone)]
pub struct Embedded {
    database: Database,
    on_file: bool,
    capacity: Option<Arc<Capacity>>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("on_file", &self.on_file).finish_non_exhaustive()
    }
}

impl Embedded {
    /// An engine whose data ends with it.
    ///
    /// # Errors
    /// When SQLite cannot start.
    pub fn in_memory() -> Result<Self, DynoxideError> {
        Ok(Self { database: Database::memory()?, on_file: false, capacity: None })
    }

    /// An engine that keeps its data in the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be opened, or is something else.
    pub fn on_file(path: &Path) -> Result<Self, DynoxideError> {
        Ok(Self { database: Database::new(&path.to_string_lossy())?, on_file: true, capacity: None })
    }

    /// The same engine, which also counts the capacity that requests use up.
    #[must_use]
    pub fn with_capacity(mut self, capacity: Arc<Capacity>) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Deletes items past their time to live, as DynamoDB does in the background.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn sweep_ttl(&self) -> Result<usize, DynoxideError> {
        self.database.sweep_ttl()
    }

    /// Every item of a table as DynamoDB's JSON, to look for what must not be there. Clients cannot do that: no function may.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn all_items(&self, table: &str) -> Result<Vec<serde_json::Value>, DynoxideError> {
        let failed = |error: serde_json::Error| DynoxideError::InternalServerError(error.to_string());
        let mut items = vec![];
        let mut request = serde_json::json!({"TableName": table});
        loop {
            let page = self.database.scan(serde_json::from_value(request.clone()).map_err(failed)?)?;
            let mut page = serde_json::to_value(&page).map_err(failed)?;
            if let Some(more) = page["Items"].as_array_mut() {
                items.append(more);
            }
            match page["LastEvaluatedKey"].take() {
                serde_json::Value::Null => return Ok(items),
                next => request["ExclusiveStartKey"] = next,
            }
        }
    }

    /// An SDK client whose requests this engine answers.
    #[must_use]
    pub fn client(&self) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("local"))
            .allow_no_auth()
            .http_client(SharedHttpClient::new(self.clone()))
            .build();
        Client::from_conf(config)
    }

    fn answer(&self, operation: &str, body: &[u8]) -> (u16, String) {
        match self.execute(operation, body) {
            Ok(answer) => (200, answer),
            Err(error) => (error.status_code(), error.to_json()),
        }
    }

    fn execute(&self, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
        macro_rules! dispatch {
            ($($name:literal => $method:ident),* $(,)?) => {
                match operation {
                    $($name => {
                        let request = serde_json::from_slice(body)
                            .map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
                        write(&self.database.$method(request)?)
                    })*
                    _ => Err(DynoxideError::ValidationException(format!("{operation} is not wired up"))),
                }
            };
        }
        dispatch! {
            "GetItem" => get_item,
            "PutItem" => put_item,
            "UpdateItem" => update_item,
            "DeleteItem" => delete_item,
            "Query" => query,
            "TransactWriteItems" => transact_write_items,
            "CreateTable" => create_table,
            "UpdateTimeToLive" => update_time_to_live,
        }
    }

    /// Answers one request of the wire protocol: the operation that `X-Amz-Target` names, and the JSON of its body.
    /// Returns the status and the JSON of the answer.
    #[must_use]
    pub fn serve(&self, operation: &str, body: &[u8]) -> (u16, String) {
        let Some(capacity) = &self.capacity else { return self.answer(operation, body) };
        if matches!(operation, "CreateTable" | "UpdateTimeToLive") {
            return self.answer(operation, body);
        }
        let asking = [br#"{"ReturnConsumedCapacity":"TOTAL","#, body.get(1..).unwrap_or_default()].concat();
        let (status, answer) = self.answer(operation, &asking);
        let write = !matches!(operation, "GetItem" | "Query");
        let counter = if write { &capacity.write } else { &capacity.read };
        counter.fetch_add(consumed(&answer, write), Ordering::Relaxed);
        (status, answer)
    }
}

fn write(answer: &impl serde::Serialize) -> Result<String, DynoxideError> {
    serde_json::to_string(answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// Thousandths of units in an answer. A failed condition costs a write like any other, and its answer
/// does not say how large the item was; ours fit in one unit.
fn consumed(answer: &str, write: bool) -> u64 {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let consumed = &answer["ConsumedCapacity"];
    let of = |capacity: &serde_json::Value| capacity["CapacityUnits"].as_f64().unwrap_or(0.0);
    let units = match consumed {
        serde_json::Value::Array(tables) => tables.iter().map(of).sum(),
        serde_json::Value::Null => f64::from(u8::from(write)),
        one => of(one),
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let thousandths = (units * 1000.0).round() as u64;
    thousandths
}

impl HttpClient for Embedded {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Embedded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // `DynamoDB_20120810.UpdateItem`
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().unwrap_or_default().to_vec();
        let engine = self.clone();
        HttpConnectorFuture::new(async move {
            let (status, answer) = if engine.on_file {
                // A commit waits for the disk; the threads that serve requests must not.
                tokio::task::spawn_blocking(move || engine.serve(&operation, &body))
                    .await
                    .map_err(|error| ConnectorError::other(error.into(), None))?
            } else {
                engine.serve(&operation, &body)
            };
            let status = StatusCode::try_from(status).map_err(|error| ConnectorError::other(error.into(), None))?;
            Ok(HttpResponse::new(status, SdkBody::from(answer)))
        })
    }
}

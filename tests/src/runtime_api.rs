//! The API of Lambda's service that a function's process talks to: it asks for an event, answers it, asks for the next.
//! See <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.
//!
//! A streamed answer is passed through as it comes: whoever invoked has its status and headers, and its first chunk,
//! while the function is still writing, and a reader that does not keep up slows the function down. Nothing is added to
//! the answer and nothing waits for more of it. What Lambda has beyond that is left out: time limits, sizes, retries,
//! extensions.
//!
//! [`crate::function::Function`] is a process together with an API of its own.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_domain::{Clock as _, RequestId, SystemClock};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::platform::Reply;

/// What stands between the head of a streamed answer and its body.
const DELIMITER: [u8; 8] = [0; 8];
/// The content type of a streamed answer that begins with such a head.
const WITH_HEAD: &str = "application/vnd.awslambda.http-integration-response";
/// How long an event may take: Lambda's most.
const TIME_LIMIT_MS: i64 = 900_000;
/// Chunks that wait for their reader before the function has to.
const CHUNKS: usize = 4;

/// Why there is no answer, or no rest of one.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// The function said so, to `/error`, to `/init/error` or in the trailers of a stream.
    #[error("the function failed with {kind}: {text}")]
    Reported {
        /// `Lambda-Runtime-Function-Error-Type`.
        kind: String,
        /// What it said, as it said it.
        text: String,
    },
    /// The process ended, or broke off its answer.
    #[error("the function's process ended, or broke off its answer")]
    Gone,
    /// The answer is not what its kind should be.
    #[error("not an answer to HTTP: {0}")]
    Malformed(String),
}

/// What a function answered.
#[derive(Debug)]
pub enum Answer {
    /// At once; JSON.
    Whole(Bytes),
    /// As HTTP, bit by bit.
    Streamed(HttpResponse),
}

/// An answer of a function behind API Gateway.
#[derive(Debug)]
pub struct HttpResponse {
    /// Whether it came as a stream.
    pub streamed: bool,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    chunks: mpsc::Receiver<Result<Bytes, FunctionError>>,
}

impl HttpResponse {
    /// The next piece of the body, as soon as the function has written it.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, FunctionError>> {
        self.chunks.recv().await
    }

    /// The whole of it, or what is left.
    ///
    /// # Errors
    /// When the function does not write it to its end.
    pub async fn whole(mut self) -> Result<Reply, FunctionError> {
        let mut bytes = vec![];
        while let Some(chunk) = self.chunk().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(Reply { status: self.status, headers: self.headers, bytes })
    }
}

impl Answer {
    /// The answer as HTTP: API Gateway's JSON of a response, or a stream of one.
    ///
    /// # Errors
    /// When it is neither.
    pub fn http(self) -> Result<HttpResponse, FunctionError> {
        let bytes = match self {
            Self::Streamed(response) => return Ok(response),
            Self::Whole(bytes) => bytes,
        };
        let malformed = || FunctionError::Malformed(String::from_utf8_lossy(&bytes).into_owned());
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
        let (status, headers) = head(&answer).ok_or_else(malformed)?;
        let body = answer["body"].as_str().unwrap_or_default();
        let body = match answer["isBase64Encoded"].as_bool() {
            Some(true) => BASE64.decode(body.as_bytes()).map_err(|_| malformed())?,
            _ => body.as_bytes().to_vec(),
        };
        let (sender, chunks) = mpsc::channel(1);
        // There is room for the one chunk.
        sender.try_send(Ok(body.into())).ok();
        Ok(HttpResponse { streamed: false, status, headers, chunks })
    }

    /// The answer as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(self) -> Result<Value, FunctionError> {
        match self {
            Self::Whole(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| FunctionError::Malformed(String::from_utf8_lossy(&bytes).into_owned())),
            Self::Streamed(_) => Err(FunctionError::Malformed("a stream".into())),
        }
    }
}

/// Status and headers, of a head or of API Gateway's JSON of a response.
fn head(answer: &Value) -> Option<(StatusCode, HeaderMap)> {
    let status = u16::try_from(answer["statusCode"].as_u64()?).ok()?;
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &Value| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.as_str()?).ok()?);
        }
        Some(())
    };
    // API Gateway has headers twice: the last value of each, and all of them.
    let all = answer["multiValueHeaders"].as_object().filter(|headers| !headers.is_empty());
    for (name, value) in all.or(answer["headers"].as_object()).into_iter().flatten() {
        add(name, value)?;
    }
    add("set-cookie", answer.get("cookies").unwrap_or(&json!([])))?;
    Some((StatusCode::from_u16(status).ok()?, headers))
}

/// The running API. Dropping it closes its port.
#[derive(Debug)]
pub struct RuntimeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

type Outcome = Result<Answer, FunctionError>;

#[derive(Debug)]
struct Shared {
    events: mpsc::UnboundedSender<Event>,
    /// A process that waits for an event holds this.
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    /// Who waits for an answer, by the event's id; `None` when no process will ever give one.
    asking: Mutex<Option<HashMap<String, oneshot::Sender<Outcome>>>>,
}

#[derive(Debug)]
struct Event {
    id: String,
    payload: String,
}

impl Shared {
    fn asking(&self) -> MutexGuard<'_, Option<HashMap<String, oneshot::Sender<Outcome>>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits for the answer to event `id`.
    fn who_asked(&self, id: &str) -> Option<oneshot::Sender<Outcome>> {
        self.asking().as_mut()?.remove(id)
    }
}

impl RuntimeApi {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When no port of 127.0.0.1 can be bound.
    pub async fn start() -> Self {
        let (events, waiting) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { events, waiting: waiting.into(), asking: Mutex::new(Some(HashMap::new())) });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(answered))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
            .route("/2018-06-01/runtime/init/error", post(not_started))
            .with_state(shared.clone());
        let (address, server) = listen(router).await;
        Self { address, shared, server }
    }

    /// What `AWS_LAMBDA_RUNTIME_API` says.
    #[must_use]
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Puts an event before the function and waits for the answer, or for the beginning of one that streams. Events
    /// that no process has asked for yet wait.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub async fn invoke(&self, event: &Value) -> Result<Answer, FunctionError> {
        let (answer, answered) = oneshot::channel();
        let id = RequestId::new().to_string();
        self.shared.asking().as_mut().ok_or(FunctionError::Gone)?.insert(id.clone(), answer);
        self.shared.events.send(Event { id, payload: event.to_string() }).map_err(|_| FunctionError::Gone)?;
        answered.await.unwrap_or(Err(FunctionError::Gone))
    }

    /// To be called when the process has ended: whoever waits, waits no more.
    pub(crate) fn ended(&self) -> impl FnOnce() + Send + use<> {
        let shared = self.shared.clone();
        move || drop(shared.asking().take())
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves `router` on a free port of 127.0.0.1. Small packets go out at once: tests are about when bytes arrive.
pub(crate) async fn listen(router: Router) -> (SocketAddr, JoinHandle<()>) {
    use axum::serve::ListenerExt as _;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    let listener = listener.tap_io(|socket| {
        socket.set_nodelay(true).ok();
    });
    let server = tokio::spawn(async move {
        axum::serve(listener, router).await.ok();
    });
    (address, server)
}

/// `GET …/next`: waits for an event.
async fn next(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let Some(Event { id, payload }) = shared.waiting.lock().await.recv().await else {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", id)
        .header("lambda-runtime-deadline-ms", SystemClock.now() + TIME_LIMIT_MS)
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:000000000000:function:test")
        .header("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0");
    answer.body(Body::from(payload)).expect("a well-formed answer")
}

/// `POST …/response`: an answer, whole or as a stream. It is over, for the function, when it has been read.
async fn answered(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let Some(asked) = shared.who_asked(&id) else { return status(StatusCode::BAD_REQUEST) };
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
    if has("lambda-runtime-function-response-mode", "streaming") {
        pass_on(asked, has("content-type", WITH_HEAD), body).await;
    } else {
        let whole = body.collect().await.map(|body| Answer::Whole(body.to_bytes()));
        asked.send(whole.map_err(|_| FunctionError::Gone)).ok();
    }
    status(StatusCode::ACCEPTED)
}

/// Tells whoever asked of the answer as soon as its head is there, and then hands on every chunk as it comes.
async fn pass_on(asked: oneshot::Sender<Outcome>, with_head: bool, mut body: Body) {
    let mut begun = BytesMut::new();
    let head = loop {
        if !with_head {
            break json!({"statusCode": 200});
        }
        if let Some(at) = begun.windows(DELIMITER.len()).position(|window| window == DELIMITER) {
            let head = begun.split_to(at);
            begun = begun.split_off(DELIMITER.len());
            break serde_json::from_slice(&head).unwrap_or_default();
        }
        match body.frame().await {
            Some(Ok(frame)) => begun.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Some(Err(_)) | None => {
                asked.send(Err(FunctionError::Gone)).ok();
                return;
            }
        }
    };
    let Some((status, headers)) = self::head(&head) else {
        asked.send(Err(FunctionError::Malformed(head.to_string()))).ok();
        return;
    };
    let (sender, chunks) = mpsc::channel(CHUNKS);
    asked.send(Ok(Answer::Streamed(HttpResponse { streamed: true, status, headers, chunks }))).ok();
    if !begun.is_empty() {
        sender.send(Ok(begun.freeze())).await.ok();
    }
    // A client that has left is nothing the function hears of: what it writes is read and lost.
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            sender.send(Err(FunctionError::Gone)).await.ok();
            return;
        };
        match frame.into_data() {
            Ok(data) => drop(sender.send(Ok(data)).await),
            Err(frame) => {
                if let Some(error) = frame.into_trailers().ok().and_then(|trailers| trailer(&trailers)) {
                    sender.send(Err(error)).await.ok();
                }
            }
        }
    }
}

/// The error that a stream ended with.
fn trailer(trailers: &HeaderMap) -> Option<FunctionError> {
    let text = |name| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let kind = text("lambda-runtime-function-error-type")?;
    let body = text("lambda-runtime-function-error-body").unwrap_or_default();
    let body = BASE64.decode(body.as_bytes()).unwrap_or_default();
    Some(FunctionError::Reported { kind, text: String::from_utf8_lossy(&body).into_owned() })
}

/// `POST …/error`: the function could not handle the event.
async fn failed(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response<Body> {
    let Some(asked) = shared.who_asked(&id) else { return status(StatusCode::BAD_REQUEST) };
    asked.send(Err(reported(&headers, &body))).ok();
    status(StatusCode::ACCEPTED)
}

/// `POST /runtime/init/error`: the function could not start; nobody will be answered.
async fn not_started(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response<Body> {
    for (_, asked) in shared.asking().take().into_iter().flatten() {
        asked.send(Err(reported(&headers, &body))).ok();
    }
    status(StatusCode::ACCEPTED)
}

fn reported(headers: &HeaderMap, body: &str) -> FunctionError {
    let kind = headers.get("lambda-runtime-function-error-type").and_then(|kind| kind.to_str().ok());
    FunctionError::Reported { kind: kind.unwrap_or("Unknown").to_owned(), text: body.to_owned() }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(r#"{"status":"OK"}"#));
    *response.status_mut() = status;
    response
}

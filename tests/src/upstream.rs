//! A model vendor of the tests' own: it speaks the OpenAI wire format over real HTTP on a port of 127.0.0.1, remembers
//! every request, counts the usage it reported, and misbehaves as the prompt tells it to (see [`Directive`]).
//!
//! ```no_run
//! # use tenantry_tests::upstream::Upstream;
//! # async fn example() {
//! let upstream = Upstream::start().await;
//! // … point the gateway at upstream.base_url() with VENDOR_KEY and send the prompt "/hold /words 30" …
//! upstream.wait_holding(1).await; // the first chunk is out, upstream has not finished
//! upstream.release();
//! upstream.wait_idle().await;
//! assert_eq!(upstream.reported().completion_tokens, 30);
//! # }
//! ```
//!
//! A token is a word here. Nothing sleeps: an answer that waits, waits for [`Upstream::release`], and a test that waits,
//! waits for a count. The same things can be done over HTTP at [`Upstream::control_url`] (`GET /state`,
//! `POST /release`), for clients in other languages.
//!
//! This file has the server and what tests see of it, `directive` the language of the prompts, `script` the answers.

mod directive;
mod script;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::directive::Directive;
use self::script::{Reply, Step};

/// The one key that the upstream accepts: `Authorization: Bearer <VENDOR_KEY>`.
pub const VENDOR_KEY: &str = "vendor-key-of-the-mock-upstream";
/// Words in an answer unless the prompt or the request's limit says otherwise: two full chunks and a short one.
pub const DEFAULT_WORDS: usize = 24;
/// What `/absurd-usage` reports of each kind of token.
pub const ABSURD_TOKENS: i64 = 1_000_000_000_000;

/// The running server. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// Token counts in OpenAI's sense: the prompt includes what was cached, the completion includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: i64,
    /// Tokens of the answer.
    pub completion_tokens: i64,
    /// Those of the prompt that were cached.
    pub cached_tokens: i64,
    /// Those of the answer that were reasoning.
    pub reasoning_tokens: i64,
}

/// The sum of the usage that was sent to the caller, the last one of each answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Answers that reported usage.
    pub calls: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: i64,
    /// Tokens of their completions.
    pub completion_tokens: i64,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is still being written, or held.
    InFlight,
    /// It was written to its end, which may be a break that the prompt asked for.
    Finished,
    /// The caller closed the connection before the end.
    Abandoned,
}

/// A request as it came in, and how far its answer got.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The path, with `/v1` and the query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `null` when it is not JSON.
    pub body: Value,
    /// The usage that was reported, if any: the last one.
    pub usage: Option<Usage>,
    /// The words of the answer that were sent.
    pub words: u64,
    /// What became of the answer.
    pub outcome: Outcome,
}

/// Counters that a test can read, and wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were opened.
    pub connections: usize,
    /// Requests below `/v1` that were received.
    pub requests: usize,
    /// Those that are not answered to the end.
    pub in_flight: usize,
    /// The most that `in_flight` has been.
    pub max_in_flight: usize,
    /// Those that wait for `release`.
    pub holding: usize,
    /// How often `release` was called.
    releases: usize,
}

#[derive(Debug, Default)]
struct Shared {
    counts: watch::Sender<Counts>,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    received: Vec<Received>,
    /// How often each prompt came.
    prompts: HashMap<String, usize>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Value {
        let counts = *self.counts.borrow();
        json!({
            "connections": counts.connections,
            "requests": counts.requests,
            "in_flight": counts.in_flight,
            "max_in_flight": counts.max_in_flight,
            "holding": counts.holding,
        })
    }

    /// Lets every answer go on that waits now, or will wait, and belongs to a request received before this call.
    fn release(&self) {
        self.counts.send_modify(|counts| counts.releases += 1);
    }
}

impl Upstream {
    /// Starts the server on a free port.
    ///
    /// # Panics
    /// When no port of 127.0.0.1 can be bound.
    #[allow(clippy::expect_used, reason = "a test cannot go on without its upstream")]
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("the address of a bound port");
        let shared = Arc::new(Shared::default());
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, server }
    }

    /// Where an OpenAI client is to be pointed: `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where a client in another language finds `GET /state` and `POST /release`; needs no key.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}/control", self.address)
    }

    /// Every request below `/v1` in the order of arrival, refused ones too.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shared.log().received.clone()
    }

    /// The counters as they are now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Requests that are not answered to the end.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.counts().in_flight
    }

    /// The most requests there have been at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.counts().max_in_flight
    }

    /// The usage that was reported, over all answers.
    #[must_use]
    pub fn reported(&self) -> Reported {
        let mut sum = Reported::default();
        for usage in self.shared.log().received.iter().filter_map(|received| received.usage) {
            sum.calls += 1;
            sum.prompt_tokens += usage.prompt_tokens;
            sum.completion_tokens += usage.completion_tokens;
        }
        sum
    }

    /// Lets every answer go on that waits now, or is going to, and belongs to a request that arrived before this call.
    pub fn release(&self) {
        self.shared.release();
    }

    /// Waits until the counters satisfy a condition.
    pub async fn wait_for(&self, condition: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        // The sender lives in `self`, so this does not fail while it is borrowed.
        counts.wait_for(condition).await.map(|counts| *counts).unwrap_or_default()
    }

    /// Waits until at least `count` answers wait for `release`.
    pub async fn wait_holding(&self, count: usize) {
        self.wait_for(|counts| counts.holding >= count).await;
    }

    /// Waits until at least `count` requests have been received.
    pub async fn wait_requests(&self, count: usize) {
        self.wait_for(|counts| counts.requests >= count).await;
    }

    /// Waits until no request is in flight.
    pub async fn wait_idle(&self) {
        self.wait_for(|counts| counts.in_flight == 0).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        // A chunk is a packet: tests are about when bytes arrive.
        socket.set_nodelay(true).ok();
        shared.counts.send_modify(|counts| counts.connections += 1);
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        // A connection's error is the caller's going away or a break that was asked for.
        connections
            .spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

/// Why a connection is closed without the rest of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the prompt asked for a broken connection")]
struct Broken;

type Body = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Broken>> + Send>>>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    match (&head.method, path) {
        (&Method::GET, "/control/state") => return Ok(respond(Reply::json(200, &shared.state()), None)),
        (&Method::POST, "/control/release") => {
            shared.release();
            return Ok(respond(Reply::json(200, &shared.state()), None));
        }
        _ => {}
    }
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let prompt = script::prompt(&body);
    let (call, earlier) = Call::begin(&shared, &head, &body, &prompt);

    let directives = Directive::parse(&prompt);
    let reply = if authorization.strip_prefix("Bearer ") != Some(VENDOR_KEY) {
        Reply::error(401, "upstream does not know this key")
    } else {
        match (&head.method, path, directives) {
            (&Method::GET, "/v1/models", _) => script::models(),
            (&Method::POST, "/v1/chat/completions" | "/v1/embeddings", Err(mistake)) => Reply::error(400, &mistake),
            (&Method::POST, "/v1/chat/completions" | "/v1/embeddings", Ok(_)) if body.is_null() => {
                Reply::error(400, "upstream needs a JSON body")
            }
            (&Method::POST, "/v1/chat/completions", Ok(directives)) => {
                script::failure(&directives, earlier, authorization)
                    .unwrap_or_else(|| script::chat(&body, &directives, call.index))
            }
            (&Method::POST, "/v1/embeddings", Ok(directives)) => script::failure(&directives, earlier, authorization)
                .unwrap_or_else(|| script::embeddings(&body, &directives)),
            _ => Reply::error(404, &format!("upstream has no {} {path}", head.method)),
        }
    };
    if reply.hold_headers {
        call.hold().await;
    }
    if reply.drop {
        call.finished();
        return Err(Broken);
    }
    Ok(respond(reply, Some(call)))
}

/// Hands the script over to the connection, which pulls it step by step.
fn respond(reply: Reply, call: Option<Call>) -> Response<Body> {
    let body = stream::unfold((reply.steps, call), |(mut steps, call): (VecDeque<Step>, Option<Call>)| async move {
        // The connection flushes what it has whenever the body makes it wait.
        tokio::task::yield_now().await;
        loop {
            let step = steps.pop_front()?;
            if let (true, Some(call)) = (steps.is_empty(), &call) {
                call.finished();
            }
            match step {
                Step::Hold => {
                    if let Some(call) = &call {
                        call.hold().await;
                    }
                }
                Step::Cut => return Some((Err(Broken), (steps, call))),
                Step::Write { bytes, usage, words } => {
                    if let Some(call) = &call {
                        call.wrote(usage, words);
                    }
                    return Some((Ok(Frame::data(bytes)), (steps, call)));
                }
            }
        }
    });
    let mut response = Response::new(StreamBody::new(Box::pin(body) as Pin<Box<_>>));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    // A gateway answers with its own.
    response.headers_mut().insert("x-request-id", http::HeaderValue::from_static("req_of_the_upstream"));
    response
}

/// One request in flight. It ends when it is dropped: with the body's end or with the connection.
struct Call {
    shared: Arc<Shared>,
    index: usize,
    /// Calls of `release` before the request came.
    releases: usize,
}

impl Call {
    /// Takes a request in; also says how many came before it with the same prompt.
    fn begin(shared: &Arc<Shared>, head: &http::request::Parts, body: &Value, prompt: &str) -> (Self, usize) {
        let mut log = shared.log();
        let index = log.received.len();
        let times = log.prompts.entry(prompt.to_owned()).or_default();
        let earlier = *times;
        *times += 1;
        log.received.push(Received {
            method: head.method.clone(),
            path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: head.headers.clone(),
            body: body.clone(),
            usage: None,
            words: 0,
            outcome: Outcome::InFlight,
        });
        drop(log);
        let mut releases = 0;
        shared.counts.send_modify(|counts| {
            counts.requests += 1;
            counts.in_flight += 1;
            counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
            releases = counts.releases;
        });
        (Self { shared: Arc::clone(shared), index, releases }, earlier)
    }

    fn update(&self, change: impl FnOnce(&mut Received)) {
        if let Some(received) = self.shared.log().received.get_mut(self.index) {
            change(received);
        }
    }

    fn wrote(&self, usage: Option<Usage>, words: u64) {
        self.update(|received| {
            received.usage = usage.or(received.usage);
            received.words += words;
        });
    }

    fn finished(&self) {
        self.update(|received| received.outcome = Outcome::Finished);
    }

    /// Waits for a `release` that came after the request.
    async fn hold(&self) {
        struct Holding<'a>(&'a Shared);
        impl Drop for Holding<'_> {
            fn drop(&mut self) {
                self.0.counts.send_modify(|counts| counts.holding -= 1);
            }
        }
        let mut counts = self.shared.counts.subscribe();
        self.shared.counts.send_modify(|counts| counts.holding += 1);
        let _holding = Holding(&self.shared);
        counts.wait_for(|counts| counts.releases > self.releases).await.ok();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.update(|received| {
            if received.outcome == Outcome::InFlight {
                received.outcome = Outcome::Abandoned;
            }
        });
        self.shared.counts.send_modify(|counts| counts.in_flight -= 1);
    }
}

//! The pooled HTTP client for all vendors.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::uri::Scheme;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tower::Service;

mod address;

use address::{Resolver, is_public};

/// Name resolution, TCP and TLS together may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An unused connection is kept this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const H2_KEEP_ALIVE: Duration = Duration::from_secs(20);
const USER_AGENT: HeaderValue = HeaderValue::from_static("tenantry/0.1");

type BoxError = Box<dyn Error + Send + Sync>;
type Http = HttpConnector<Resolver>;

/// Why a request got no response. The texts hold addresses and causes, never headers or bodies.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No connection was made, so nothing was sent.
    #[error("{0}")]
    Connect(String),
    /// The head of the response did not come before the deadline.
    #[error("no response before the deadline")]
    Timeout,
    /// The connection broke, or the peer does not speak HTTP.
    #[error("{0}")]
    Protocol(String),
}

/// An HTTP client with a pool of connections: HTTP/1.1 and, where TLS negotiates it, HTTP/2. It follows no redirects and
/// neither sends nor asks for compressed bodies. Build one and clone it.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client that connects anywhere, for `host` and tests.
    pub fn new() -> Self {
        Self::build(false)
    }

    /// A client that refuses loopback, private, link-local and other special addresses, also when a name resolves to
    /// one: base URLs are the operator's input, and the cloud's metadata service must stay out of reach.
    pub fn public_only() -> Self {
        Self::build(true)
    }

    fn build(public_only: bool) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver::new(public_only));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = Connector { http, tls: Arc::new(OnceCell::new()), public_only };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_keep_alive_interval(H2_KEEP_ALIVE)
            .http2_adaptive_window(true)
            // A request is sent again only when the pooled connection turned out closed and gave the whole request back
            // unsent (hyper's `TrySendError` still holds the message), so no vendor ever works twice for it.
            .retry_canceled_requests(true)
            .build(connector);
        Self { client }
    }

    /// Posts JSON and returns the response as soon as its head is in. Dropping the future or the response closes the
    /// connection (HTTP/1.1) or resets the stream (HTTP/2).
    ///
    /// # Errors
    /// See [`HttpError`]. An error status is not an error here.
    pub async fn post_json(
        &self,
        url: Uri,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, HttpError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        match tokio::time::timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(HttpError::Connect(causes(&error))),
            Ok(Err(error)) => Err(HttpError::Protocol(causes(&error))),
            Err(_) => Err(HttpError::Timeout),
        }
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

/// An error with what caused it, in one line.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Connects with a time limit that covers TLS too, and builds the TLS half at its first use: parsing the system's root
/// certificates is most of what a client costs to build.
#[derive(Clone)]
struct Connector {
    http: Http,
    tls: Arc<OnceCell<HttpsConnector<Http>>>,
    public_only: bool,
}

impl Connector {
    async fn https(&self) -> Result<HttpsConnector<Http>, BoxError> {
        let http = self.http.clone();
        let build = || async {
            // Reads and parses files, hence off the event loop. The process has one crypto provider, aws-lc-rs.
            let built = tokio::task::spawn_blocking(move || {
                let builder = HttpsConnectorBuilder::new().with_native_roots()?;
                Ok::<_, std::io::Error>(builder.https_or_http().enable_all_versions().wrap_connector(http))
            });
            Ok::<_, BoxError>(built.await??)
        };
        self.tls.get_or_try_init(build).await.cloned()
    }

    async fn connect(mut self, uri: Uri) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, BoxError> {
        // Names are checked when they are resolved; a literal address never gets there.
        if self.public_only && !uri.host().and_then(address::literal).is_none_or(is_public) {
            return Err("the address is not public".into());
        }
        if uri.scheme() == Some(&Scheme::HTTPS) {
            self.https().await?.call(uri).await
        } else {
            Ok(MaybeHttpsStream::Http(self.http.call(uri).await?))
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(result) => result,
                Err(_) => Err("connect timeout".into()),
            }
        })
    }
}

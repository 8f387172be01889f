//! The HTTP client for both vendors: HTTP/1.1 over rustls with aws-lc-rs, or in the clear to the doubles on this machine.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use ::http::{HeaderMap, HeaderValue, Request, StatusCode, header, uri::Scheme};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::sync::OnceCell;

use crate::error::PaymentError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// No vendor's answer comes near it.
const MAX_ANSWER_BYTES: usize = 1 << 20;
const USER_AGENT: HeaderValue = HeaderValue::from_static("tenantry/0.1");

/// A pool of connections. It follows no redirects. Build one and clone it.
#[derive(Clone)]
pub struct HttpClient {
    plain: Client<HttpConnector, Full<Bytes>>,
    /// Made at the first use: the system's root certificates are most of what a client costs to build.
    tls: Arc<OnceCell<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpClient {
    /// A client without connections.
    #[must_use]
    pub fn new() -> Self {
        Self { plain: client(tcp()), tls: Arc::default() }
    }

    /// Sends a request and reads the whole answer within `limit`. That nothing usable came back is all that is said of
    /// a failure: the vendor may have acted on what it got.
    pub(crate) async fn send(&self, request: Request<Bytes>, limit: Duration) -> Result<Reply, PaymentError> {
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let exchange = async {
            let response = if request.uri().scheme() == Some(&Scheme::HTTPS) {
                self.tls().await?.request(request).await
            } else {
                self.plain.request(request).await
            };
            let (head, body) = response.map_err(|error| PaymentError::unavailable(causes(&error)))?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    PaymentError::malformed("the answer is too long")
                } else {
                    PaymentError::unavailable(causes(&*error))
                }
            })?;
            Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let timeout = || PaymentError::unavailable("no whole answer in time");
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(timeout()))
    }

    async fn tls(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Full<Bytes>>, PaymentError> {
        let build = || async {
            // Reads and parses files, hence off the event loop. The process has one crypto provider, aws-lc-rs.
            let built = tokio::task::spawn_blocking(|| {
                let mut tcp = tcp();
                tcp.enforce_http(false);
                let builder = HttpsConnectorBuilder::new().with_native_roots()?;
                Ok::<_, std::io::Error>(client(builder.https_only().enable_http1().wrap_connector(tcp)))
            });
            let failed = |error: &dyn fmt::Display| PaymentError::unavailable(format!("no TLS: {error}"));
            built.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
        };
        self.tls.get_or_try_init(build).await
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp
}

fn client<C>(connector: C) -> Client<C, Full<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT).build(connector)
}

/// An error with what caused it, in one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

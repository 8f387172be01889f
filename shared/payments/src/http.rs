//! The HTTP client of all vendors: HTTP/1.1 over rustls with aws-lc-rs, or in the clear to the doubles on this machine.

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

/// How we call ourselves.
pub(crate) const USER_AGENT: HeaderValue = HeaderValue::from_static("tenantry/0.1");
/// Name resolution and TCP may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An unused connection is kept this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

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

/// That nothing usable came back is all that is said of a failure: the vendor may have acted on what it got. The text holds
/// addresses and causes, never headers or bodies.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The answer is longer than any that is expected.
    TooLong,
    /// No answer, or a part of one.
    Broken(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the answer is too long"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl HttpClient {
    /// A client without connections.
    #[must_use]
    pub fn new() -> Self {
        Self { plain: client(tcp()), tls: Arc::default() }
    }

    /// Sends a request and reads the whole answer, of at most `most` bytes.
    pub(crate) async fn exchange(&self, request: Request<Bytes>, most: usize) -> Result<Reply, Unanswered> {
        let request = request.map(Full::new);
        let response = if request.uri().scheme() == Some(&Scheme::HTTPS) {
            self.tls().await?.request(request).await
        } else {
            self.plain.request(request).await
        };
        let (head, body) = response.map_err(|error| Unanswered::Broken(causes(&error)))?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { Unanswered::TooLong } else { Unanswered::Broken(causes(&*error)) }
        })?;
        Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    /// The same within `limit`, as WeChat Pay and Alipay are asked.
    pub(crate) async fn send(&self, mut request: Request<Bytes>, limit: Duration) -> Result<Reply, PaymentError> {
        /// No answer of theirs comes near it.
        const MOST: usize = 1 << 20;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        match tokio::time::timeout(limit, self.exchange(request, MOST)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error @ Unanswered::TooLong)) => Err(PaymentError::malformed(error.to_string())),
            Ok(Err(error @ Unanswered::Broken(_))) => Err(PaymentError::unavailable(error.to_string())),
            Err(_) => Err(PaymentError::unavailable("no whole answer in time")),
        }
    }

    async fn tls(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Full<Bytes>>, Unanswered> {
        let build = || async {
            // Reads and parses files, hence off the event loop. The process has one crypto provider, aws-lc-rs.
            let built = tokio::task::spawn_blocking(|| {
                let mut tcp = tcp();
                tcp.enforce_http(false);
                let builder = HttpsConnectorBuilder::new().with_native_roots()?;
                Ok::<_, std::io::Error>(client(builder.https_only().enable_http1().wrap_connector(tcp)))
            });
            let failed = |error: &dyn fmt::Display| Unanswered::Broken(format!("no TLS: {error}"));
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
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        // Only requests that were given back unsent, because the pooled connection turned out closed.
        .retry_canceled_requests(true)
        .build(connector)
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

//! One request to Stripe and its answer.

use std::{error::Error, pin::Pin, sync::Arc, task, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, sync::OnceCell};
use tower::Service;

/// Name resolution and TCP may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An unused connection is kept this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read; a page of 100 invoices is about 1 MB.
const MAX_ANSWER: usize = 8 << 20;

type BoxError = Box<dyn Error + Send + Sync>;

/// A pooled HTTP/1.1 client that follows no redirects.
#[derive(Clone)]
pub(super) struct Http(Client<Connector, Full<Bytes>>);

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Http {
    pub(super) fn new() -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            // Only requests that were given back unsent, because the pooled connection turned out closed.
            .retry_canceled_requests(true)
            .build(Connector { http, tls: Arc::new(OnceCell::new()) });
        Self(client)
    }

    /// Sends, and reads the whole answer. The error's text holds addresses and causes, never headers or bodies.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Answer, String> {
        let form = body.is_some();
        let mut request = Request::new(Full::new(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if form {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(header::CONTENT_TYPE, form);
        }
        let response = self.0.request(request).await.map_err(|error| causes(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| causes(error.as_ref()))?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }
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

/// Builds the TLS half at its first use: parsing the system's root certificates is most of what a client costs, and a
/// function that only verifies a webhook needs none.
#[derive(Clone)]
struct Connector {
    http: HttpConnector,
    tls: Arc<OnceCell<HttpsConnector<HttpConnector>>>,
}

impl Connector {
    async fn connect(mut self, uri: Uri) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, BoxError> {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok(MaybeHttpsStream::Http(self.http.call(uri).await?));
        }
        let http = self.http.clone();
        let build = || async {
            // Reads and parses files, hence off the event loop. The process has one crypto provider, aws-lc-rs.
            let built = tokio::task::spawn_blocking(move || {
                let builder = HttpsConnectorBuilder::new().with_native_roots()?;
                Ok::<_, std::io::Error>(builder.https_or_http().enable_http1().wrap_connector(http))
            });
            Ok::<_, BoxError>(built.await??)
        };
        self.tls.get_or_try_init(build).await?.clone().call(uri).await
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), BoxError>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

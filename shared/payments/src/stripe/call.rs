//! A call: one request, its retries, and what the answers mean.

use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use serde::de::DeserializeOwned;
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    OperationKey, Stripe,
    error::{Refusal, StripeError},
    wire,
};
use crate::http::Reply;

/// How often a request is sent at most.
const ATTEMPTS: u32 = 3;
/// The largest answer that is read; a page of 100 invoices is about 1 MB.
const MAX_ANSWER: usize = 8 << 20;

/// What an answer means for the call.
enum Verdict {
    Done(Bytes),
    Final(StripeError),
    /// The error, and how long Stripe asks to wait.
    Again(StripeError, Option<Duration>),
}

impl Stripe {
    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, request: impl StripeRequest) -> Result<T, StripeError> {
        self.call(request.build(), None).await
    }

    /// Changes something.
    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        request: impl StripeRequest,
        key: &OperationKey,
    ) -> Result<T, StripeError> {
        self.call(request.build(), Some(key)).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        key: Option<&OperationKey>,
    ) -> Result<T, StripeError> {
        let body = self.exchange(request, key).await?;
        wire::read(&body).map_err(StripeError::Malformed)
    }

    /// Sends until there is an answer that ends the call, with the same key each time.
    async fn exchange(&self, request: RequestBuilder, key: Option<&OperationKey>) -> Result<Bytes, StripeError> {
        let unsendable = |_| StripeError::Malformed("a request that cannot be sent".to_owned());
        let (method, posts) = match request.method {
            StripeMethod::Get => (Method::GET, false),
            StripeMethod::Post => (Method::POST, true),
            StripeMethod::Delete => (Method::DELETE, false),
        };
        let query = request.query.filter(|query| !query.is_empty());
        let uri = match query {
            Some(query) => format!("{}{}?{query}", self.base, request.path),
            None => format!("{}{}", self.base, request.path),
        };
        let uri: Uri = uri.parse().map_err(|_| unsendable(()))?;
        let mut headers = self.headers.clone();
        if let Some(key) = key {
            headers.insert("idempotency-key", HeaderValue::try_from(key.as_str()).map_err(|_| unsendable(()))?);
        }
        let body = match request.body.filter(|body| !body.is_empty()) {
            Some(body) => Some(Bytes::from(canonical(&body))),
            None => posts.then(Bytes::new),
        };
        let deadline = Instant::now() + self.timeout;
        let mut attempt = 1;
        loop {
            let (error, asked) = match self.attempt(&method, &uri, &headers, body.as_ref(), deadline).await {
                Verdict::Done(body) => return Ok(body),
                Verdict::Final(error) => return Err(error),
                Verdict::Again(error, asked) => (error, asked),
            };
            let pause = asked.unwrap_or_else(|| self.pause(attempt));
            if attempt == ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Option<&Bytes>,
        deadline: Instant,
    ) -> Verdict {
        let mut request = Request::new(body.cloned().unwrap_or_default());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        if body.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(header::CONTENT_TYPE, form);
        }
        match timeout_at(deadline, self.http.exchange(request, MAX_ANSWER)).await {
            Ok(Ok(answer)) => self.judge(answer),
            Ok(Err(cause)) => Verdict::Again(StripeError::Unavailable(cause.to_string()), None),
            Err(_) => Verdict::Final(StripeError::Unavailable("no answer in time".to_owned())),
        }
    }

    /// What `answer` means (<https://docs.stripe.com/error-low-level>): 409 is a request with the same key that has not
    /// ended, 424 a dependency of Stripe's, 429 too many requests or a locked object.
    fn judge(&self, answer: Reply) -> Verdict {
        let Reply { status, headers, body } = answer;
        let status = status.as_u16();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match status {
            200..=299 => return Verdict::Done(body),
            400.. => {}
            _ => return Verdict::Final(StripeError::Malformed(format!("status {status}"))),
        }
        let refusal = Refusal::read(status, &body, text("request-id").map(str::to_owned), &self.conceal);
        let locked = refusal.code.as_deref() == Some("lock_timeout");
        let passing = locked || matches!(status, 409 | 424 | 429 | 500..);
        let again = match text("stripe-should-retry") {
            Some("true") => true,
            Some("false") => false,
            _ => passing,
        };
        let error = if passing {
            StripeError::Unavailable(refusal.to_string())
        } else {
            StripeError::Refused(Box::new(refusal))
        };
        if !again {
            return Verdict::Final(error);
        }
        let asked = text("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Verdict::Again(error, asked)
    }

    /// The pause after attempt `attempt`: doubled each time, and up to half longer by chance, so that clients which failed
    /// together do not come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let pause = self.retry_pause.saturating_mul(1 << (attempt - 1).min(16));
        let mut chance = [0_u8];
        // Without randomness there is no jitter; nothing secret depends on it.
        let _ = rand::fill(&mut chance);
        pause + pause.mul_f64(f64::from(chance[0]) / 512.0)
    }
}

/// The body with its pairs in one order: metadata comes out of a hash map, and the same operation must be the same bytes
/// when it is repeated by another process.
fn canonical(body: &str) -> String {
    let mut pairs: Vec<&str> = body.split('&').collect();
    pairs.sort_unstable();
    pairs.join("&")
}

//! A vendor (or any server) that speaks the OpenAI wire format.

use std::time::Duration;

use ::http::uri::Scheme;
use ::http::{HeaderMap, HeaderValue, Response, Uri, header};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::Instant;

use super::error::{MAX_ERROR_BYTES, map_error};
use super::relay::RelayOptions;
use super::{request, response};
use crate::error::{TimeoutPhase, UpstreamError};
use crate::http::{HttpClient, HttpError, causes};
use crate::key::VendorKey;
use crate::provider::{BoxFuture, ChatCall, ChatReply, ChatStream, CompleteReply, EmbeddingsCall, Provider};
use crate::sse::DEFAULT_MAX_EVENT_BYTES;

/// The largest answer that is not streamed: 64 MiB.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Reading the body of an error may take this long; the status alone says most of it.
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

/// Why a base URL or key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BaseUrlError {
    /// Not an absolute http or https URL.
    #[error("the base URL must be an absolute http or https URL")]
    NotHttp,
    /// A query or user information, where keys would show in logs.
    #[error("the base URL must not hold a query or credentials")]
    Extras,
    /// The key has characters that cannot stand in a header.
    #[error("the key cannot be sent in a header")]
    Key,
}

/// One account (base URL and key) with a vendor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OpenAiUpstream {
    chat_url: Uri,
    embeddings_url: Uri,
    headers: HeaderMap,
    key: VendorKey,
    http: HttpClient,
}

impl OpenAiUpstream {
    /// `base_url` ends before `/chat/completions`, such as `https://api.openai.com/v1`. With an empty key no
    /// `Authorization` is sent.
    ///
    /// # Errors
    /// [`BaseUrlError`] says what is wrong with the URL or the key.
    pub fn new(base_url: &str, key: VendorKey, http: HttpClient) -> Result<Self, BaseUrlError> {
        let base: Uri = base_url.parse().map_err(|_| BaseUrlError::NotHttp)?;
        let authority = base.authority().ok_or(BaseUrlError::NotHttp)?;
        if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&base.scheme()) {
            return Err(BaseUrlError::NotHttp);
        }
        if base.query().is_some() || authority.as_str().contains('@') {
            return Err(BaseUrlError::Extras);
        }
        let url = |path: &str| {
            format!("{}/{path}", base_url.trim_end_matches('/')).parse::<Uri>().map_err(|_| BaseUrlError::NotHttp)
        };
        let mut headers = HeaderMap::new();
        if !key.expose().is_empty() {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| BaseUrlError::Key)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Self { chat_url: url("chat/completions")?, embeddings_url: url("embeddings")?, headers, key, http })
    }

    /// Posts, and turns an error status into an error.
    async fn post(
        &self,
        url: &Uri,
        accept: &'static str,
        body: Bytes,
        until: Instant,
        phase: TimeoutPhase,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut headers = self.headers.clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let response = self.http.post_json(url.clone(), headers, body, until).await.map_err(|error| match error {
            HttpError::Connect(text) => UpstreamError::Connect(self.key.redact(&text).into_owned()),
            HttpError::Timeout => UpstreamError::Timeout(phase),
            HttpError::Protocol(text) => UpstreamError::Protocol(self.key.redact(&text).into_owned()),
        })?;
        if response.status().is_success() { Ok(response) } else { Err(self.status_error(response).await) }
    }

    async fn status_error(&self, response: Response<Incoming>) -> UpstreamError {
        let (head, mut body) = response.into_parts();
        let mut start = BytesMut::new();
        // A body that breaks off or is slow to come leaves what there is of it.
        let _ = tokio::time::timeout(ERROR_BODY_TIME, async {
            while let Some(Ok(frame)) = body.frame().await {
                let Some(data) = frame.data_ref() else { continue };
                start.extend_from_slice(&data[..data.len().min(MAX_ERROR_BYTES - start.len())]);
                if start.len() == MAX_ERROR_BYTES {
                    break;
                }
            }
        })
        .await;
        map_error(head.status, &head.headers, &start, &self.key).into()
    }

    /// The whole body of an answer.
    async fn complete(&self, url: &Uri, body: Bytes, deadline: Instant) -> Result<Bytes, UpstreamError> {
        let response = self.post(url, "application/json", body, deadline, TimeoutPhase::Deadline).await?;
        whole(response, deadline).await
    }

    async fn stream(&self, call: &ChatCall, prepared: request::PreparedChat) -> Result<ChatReply, UpstreamError> {
        let timing = call.timing;
        let until = Instant::now() + timing.first_byte;
        let (until, phase) = if until < timing.deadline {
            (until, TimeoutPhase::FirstByte)
        } else {
            (timing.deadline, TimeoutPhase::Deadline)
        };
        let response = self.post(&self.chat_url, "text/event-stream", prepared.body, until, phase).await?;
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is = |expected: &str| kind.get(..expected.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(expected));
        // Servers that label their streams wrongly are let through; these two are never streams.
        if is("text/html") {
            return Err(UpstreamError::Protocol("the answer is a web page".to_owned()));
        }
        if is("application/json") {
            // An error with a status of success, or a server that ignores `stream`: what it produced must be paid for.
            let body = whole(response, timing.deadline).await?;
            return Ok(ChatReply::Complete(response::read_chat(body, &self.key)?));
        }
        let options = RelayOptions {
            client_asked_usage: prepared.client_asked_usage,
            client_model: Some(call.client_model.clone()),
            key: self.key.clone(),
            max_event_bytes: DEFAULT_MAX_EVENT_BYTES,
        };
        let source = BodyDataStream::new(response.into_body()).map_err(|error| UpstreamError::Protocol(causes(&error)));
        Ok(ChatReply::Stream(ChatStream::new(source, options, timing)))
    }
}

/// The whole body of a response.
async fn whole(response: Response<Incoming>, deadline: Instant) -> Result<Bytes, UpstreamError> {
    let collecting = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
    match tokio::time::timeout_at(deadline, collecting).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(UpstreamError::TooLarge),
        Ok(Err(error)) => Err(UpstreamError::Protocol(causes(&*error))),
        Err(_) => Err(UpstreamError::Timeout(TimeoutPhase::Deadline)),
    }
}

impl Provider for OpenAiUpstream {
    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<ChatReply, UpstreamError>> {
        Box::pin(async move {
            let prepared = request::prepare_chat(
                &call.request,
                &call.upstream_model,
                call.max_completion_tokens,
                call.cap_field,
                call.stream,
            );
            if call.stream {
                return self.stream(&call, prepared).await;
            }
            let body = self.complete(&self.chat_url, prepared.body, call.timing.deadline).await?;
            Ok(ChatReply::Complete(response::read_chat(body, &self.key)?))
        })
    }

    fn embeddings(&self, call: EmbeddingsCall) -> BoxFuture<'_, Result<CompleteReply, UpstreamError>> {
        Box::pin(async move {
            let body = request::prepare_embeddings(&call.request, &call.upstream_model);
            let body = self.complete(&self.embeddings_url, body, call.timing.deadline).await?;
            response::read_embeddings(body, &self.key)
        })
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

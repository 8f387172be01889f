//! Answers that come as they are produced.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::poll_fn};
use http::{HeaderMap, HeaderValue, header};
use tenantry_domain::usage::Status;
use tenantry_providers::{
    ChatCall, ChatReply, ChatStream, Provider, StreamPart, UpstreamError, Usage,
    openai::{Produced, RelayOutcome, StreamEnd},
};
use tenantry_web::ApiError;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument as _;

use crate::{
    State,
    answer::{failed, finish_failed, no_store},
    call::{Call, Proposal},
};

/// A comment goes out when the vendor was silent for this long, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_COMMENT: &[u8] = b": keep-alive\n\n";

/// Parts that may wait for a slow client; then the vendor waits too. Few, because one may be megabytes.
const BUFFERED_PARTS: usize = 2;

/// How long the vendor's usage is waited for when the client left after the last word: it comes right
/// behind, and counts what nobody sees, such as hidden reasoning.
const LAST_CHUNK: Duration = Duration::from_secs(2);

/// Starts the stream in a task of its own, which settles however the stream ends. The response begins
/// when the vendor has accepted; until then its errors have a status of their own.
pub(crate) async fn respond(
    state: &State,
    proposal: Proposal,
    provider: Arc<dyn Provider>,
    upstream: ChatCall,
) -> Result<Response, ApiError> {
    let (accepted, begins) = oneshot::channel();
    let (parts, mut receiver) = mpsc::channel::<Bytes>(BUFFERED_PARTS);
    let task = run(state.clone(), proposal, provider, upstream, accepted, parts);
    state.0.calls.spawn(task.in_current_span());
    let headers = begins.await.map_err(|_| ApiError::internal("the task of a call died"))??;
    let body = poll_fn(move |context| receiver.poll_recv(context)).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(body));
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx and its kin buffer responses unless told not to.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    no_store(response.headers_mut());
    Ok(response)
}

async fn run(
    state: State,
    proposal: Proposal,
    provider: Arc<dyn Provider>,
    mut upstream: ChatCall,
    mut accepted: oneshot::Sender<Result<HeaderMap, ApiError>>,
    parts: mpsc::Sender<Bytes>,
) {
    let mut call = match Call::admit(&state, proposal).await {
        Ok(call) => call,
        Err(error) => {
            let _ = accepted.send(Err(error));
            return;
        }
    };
    if accepted.is_closed() {
        call.finish_unused(Status::ClientClosed).await;
        return;
    }
    upstream.max_completion_tokens = call.cap();
    upstream.timing = call.timing();
    let deadline = upstream.timing.deadline;
    let reply = tokio::select! {
        biased;
        reply = provider.chat(upstream) => reply,
        // The client left before the vendor answered. The vendor has the prompt, and bills it.
        () = accepted.closed() => {
            call.finish_used(Status::ClientClosed, Usage::Missing, &Produced::default()).await;
            return;
        }
    };
    let mut stream = match reply {
        Ok(ChatReply::Stream(stream)) => stream,
        Ok(ChatReply::Complete(reply)) => {
            // Some servers ignore `stream`. The answer was produced, so it counts; the client asked for
            // events and gets an error, because guessing chunks would be making them up.
            let headers = call.finish_used(Status::Interrupted, reply.usage, &reply.produced).await;
            let error = UpstreamError::Protocol("a whole answer where a stream was asked for".into());
            let _ = accepted.send(Err(failed(&error).with_headers(headers)));
            return;
        }
        Err(error) => {
            let headers = finish_failed(call, &error).await;
            let _ = accepted.send(Err(failed(&error).with_headers(headers)));
            return;
        }
    };
    // A client that left just now is noticed by the first part that cannot be sent.
    let _ = accepted.send(Ok(call.limit_headers()));
    let last = pump(&mut call, &mut stream, &parts, deadline).await;
    if last.is_none() && stream.has_finished_choices() {
        let rest = async { while stream.next().await.is_some() {} };
        let _ = timeout(LAST_CHUNK, rest).await;
    }
    settle(call, stream.into_outcome(), last.is_none()).await;
    if let Some(last) = last {
        let _ = timeout_at(deadline, parts.send(last)).await;
    }
}

/// Passes parts on until the last, which it returns unsent: it goes out when the call is settled.
/// `None` when the client left.
async fn pump(
    call: &mut Call,
    stream: &mut ChatStream,
    parts: &mpsc::Sender<Bytes>,
    deadline: Instant,
) -> Option<Bytes> {
    loop {
        let part = tokio::select! {
            biased;
            () = parts.closed() => return None,
            part = timeout(KEEP_ALIVE, stream.next()) => part,
        };
        let bytes = match part {
            Err(_) => Bytes::from_static(KEEP_ALIVE_COMMENT),
            Ok(Some(StreamPart::More(bytes))) => {
                call.first_byte();
                bytes
            }
            Ok(Some(StreamPart::Last(bytes))) => return Some(bytes),
            Ok(None) => return Some(Bytes::new()),
        };
        // A client that does not read is as good as gone when the call's time is up.
        if !matches!(timeout_at(deadline, parts.send(bytes)).await, Ok(Ok(()))) {
            return None;
        }
    }
}

/// The stated rules: the vendor failed before the first token, nothing; it failed later, or the client
/// left, what was produced until then.
async fn settle(call: Call, outcome: RelayOutcome, client_left: bool) {
    let complete = matches!(outcome.ended, StreamEnd::Done);
    let status = match &outcome.ended {
        _ if client_left => Status::ClientClosed,
        StreamEnd::Done => Status::Ok,
        StreamEnd::Abandoned => Status::ClientClosed,
        StreamEnd::UpstreamError(error) => {
            tracing::warn!(code = error.code, "the vendor failed in the middle");
            Status::Interrupted
        }
        StreamEnd::Truncated => {
            tracing::warn!("the vendor's stream was cut off");
            Status::Interrupted
        }
    };
    if status == Status::Interrupted && !outcome.saw_first_token {
        call.finish_unused(Status::UpstreamError).await;
        return;
    }
    let usage = if complete { outcome.usage } else { whole(outcome.usage, &outcome.produced) };
    call.finish_used(status, usage, &outcome.produced).await;
}

/// Usage that a vendor reported on the way covers only what came before it; then our count is the better.
fn whole(usage: Usage, produced: &Produced) -> Usage {
    match usage.reported() {
        Some(reported) if reported.completion_tokens >= produced.tokens() => usage,
        _ => Usage::Missing,
    }
}

//! The client against a server that is written out by hand, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::openai::{RelayOutcome, StreamEnd};
use crate::provider::{CapField, StreamPart, Timing};

const KEY: &str = "sk-vendor-0123456789abcdef";
const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#;
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Runs `script` on a server's connections and gives a provider that calls it.
async fn upstream<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    script: impl FnOnce(TcpListener) -> F + Send + 'static,
) -> (Arc<dyn Provider>, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let provider = OpenAiUpstream::new(&url, VendorKey::new(KEY), HttpClient::new()).unwrap();
    (Arc::new(provider), tokio::spawn(script(listener)))
}

/// Reads a whole request.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request broke off");
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return text.into_owned();
        }
    }
}

async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn event(payload: &str) -> String {
    let event = format!("data: {payload}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// A server that gives one response and closes.
async fn answering(response: String) -> Arc<dyn Provider> {
    let (provider, _) = upstream(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        // The client need not read all of it.
        let _ = stream.write_all(response.as_bytes()).await;
    })
    .await;
    provider
}

fn respond(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn call(stream: bool) -> ChatCall {
    let Value::Object(request) = json!({"model": "gpt", "messages": [{"role": "user", "content": "hi"}], "new": 1})
    else {
        panic!()
    };
    ChatCall {
        request: Arc::new(request),
        client_model: "gpt".to_owned(),
        upstream_model: "vendor/gpt".to_owned(),
        max_completion_tokens: 100,
        cap_field: CapField::MaxTokens,
        stream,
        timing: Timing {
            first_byte: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            deadline: Instant::now() + Duration::from_secs(30),
        },
    }
}

async fn stream_of(provider: &Arc<dyn Provider>, call: ChatCall) -> ChatStream {
    let ChatReply::Stream(stream) = provider.chat(call).await.unwrap() else { panic!("not a stream") };
    stream
}

async fn error_of(response: String, stream: bool) -> UpstreamError {
    let provider = answering(response).await;
    let error = provider.chat(call(stream)).await.unwrap_err();
    assert!(!format!("{error} {error:?} {:?}", error.body()).contains("0123456789abcdef"), "{error:?}");
    error
}

async fn last(mut stream: ChatStream) -> (String, RelayOutcome) {
    loop {
        if let StreamPart::Last(bytes) = stream.next().await.unwrap() {
            return (String::from_utf8(bytes.to_vec()).unwrap(), stream.into_outcome());
        }
    }
}

#[tokio::test]
async fn the_vendor_gets_the_prepared_request() {
    let body = r#"{"choices":[{"message":{"content":"Hello"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    let (provider, server) = upstream(move |listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = request(&mut stream).await;
        write(&mut stream, &respond("200 OK", body)).await;
        request
    })
    .await;
    let ChatReply::Complete(reply) = provider.chat(call(false)).await.unwrap() else { panic!("a stream") };
    assert_eq!(reply.body, body);
    assert_eq!(reply.usage.reported().unwrap().prompt_tokens, 9);
    let request = server.await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    for header in
        [&format!("authorization: Bearer {KEY}"), "content-type: application/json", "accept-encoding: identity"]
    {
        assert!(head.contains(header), "{head}");
    }
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        json!({"model": "vendor/gpt", "messages": [{"role": "user", "content": "hi"}], "new": 1, "stream": false, "max_tokens": 100})
    );
}

#[tokio::test]
async fn embeddings_have_their_own_path() {
    let (provider, server) = upstream(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = request(&mut stream).await;
        write(&mut stream, &respond("200 OK", r#"{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}"#)).await;
        request
    })
    .await;
    let ChatCall { request, client_model, upstream_model, timing, .. } = call(false);
    let reply = provider.embeddings(EmbeddingsCall { request, client_model, upstream_model, timing }).await.unwrap();
    assert_eq!(reply.usage.reported().unwrap().prompt_tokens, 3);
    assert!(server.await.unwrap().starts_with("POST /v1/embeddings "));
}

#[tokio::test]
async fn the_first_chunk_arrives_before_the_vendor_has_finished() {
    let (go_on, gate) = oneshot::channel();
    let (provider, _server) = upstream(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        write(&mut stream, &format!("{STREAM_HEAD}{}", event(HELLO))).await;
        gate.await.unwrap();
        write(&mut stream, &format!("{}0\r\n\r\n", event("[DONE]"))).await;
    })
    .await;
    let mut stream = stream_of(&provider, call(true)).await;
    assert_eq!(stream.next().await, Some(StreamPart::More(format!("data: {HELLO}\n\n").into())));
    assert!(!stream.has_finished_choices());
    // A future of `next` that is dropped loses nothing.
    assert!(tokio::time::timeout(Duration::ZERO, stream.next()).await.is_err());
    go_on.send(()).unwrap();
    assert_eq!(stream.next().await, Some(StreamPart::Last("data: [DONE]\n\n".into())));
    assert_eq!(stream.next().await, None);
    assert_eq!(stream.into_outcome().ended, StreamEnd::Done);
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    for reads_first in [false, true] {
        let (provider, server) = upstream(|listener| async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            write(&mut stream, &format!("{STREAM_HEAD}{}", event(HELLO))).await;
            // Ends when the client closes, by an orderly end or a reset.
            !matches!(stream.read(&mut [0; 16]).await, Ok(1..))
        })
        .await;
        let mut stream = stream_of(&provider, call(true)).await;
        if reads_first {
            stream.next().await.unwrap();
        }
        let outcome = stream.into_outcome();
        assert_eq!((outcome.ended, outcome.saw_first_token), (StreamEnd::Abandoned, reads_first));
        assert!(server.await.unwrap());
    }
}

#[tokio::test]
async fn error_statuses_before_the_first_byte() {
    for stream in [false, true] {
        let html = respond("502 Bad Gateway\r\ncontent-type: text/html", &format!("<html>nginx {KEY}</html>"));
        let error = error_of(html, stream).await;
        assert_eq!(error.status(), 502);
        assert!(!error.body().message.contains("nginx"));

        let body = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}","code":"invalid_api_key"}}}}"#);
        let error = error_of(respond("401 Unauthorized", &body), stream).await;
        assert_eq!(error.status(), 502);
        assert_eq!(error.body().code.as_deref(), Some("upstream_auth"));

        let error = error_of(respond("429 Too Many Requests\r\nretry-after: 7", "{}"), stream).await;
        assert_eq!((error.status().as_u16(), error.retry_after()), (429, Some(Duration::from_secs(7))));

        let error = error_of(
            respond("400 Bad Request", r#"{"error":{"message":"no","type":"t","param":"p","code":"c"}}"#),
            stream,
        )
        .await;
        assert_eq!(error.body().to_json(), r#"{"error":{"message":"no","type":"t","param":"p","code":"c"}}"#);

        let error = error_of(respond("302 Found\r\nlocation: http://127.0.0.1:1/", ""), stream).await;
        assert_eq!(error.status(), 502, "redirects are not followed");
    }
}

#[tokio::test]
async fn of_an_error_only_the_start_is_read() {
    let (provider, server) = upstream(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        write(&mut stream, "HTTP/1.1 500 Oops\r\ncontent-length: 999999999\r\n\r\n").await;
        // Goes on until the client, who has seen enough, closes.
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert_eq!(provider.chat(call(true)).await.unwrap_err().status(), 502);
    server.await.unwrap();
}

#[tokio::test]
async fn answers_that_are_no_streams() {
    let json = |body: &str| respond("200 OK\r\ncontent-type: application/json", body);
    let error = error_of(json(r#"{"error":{"message":"quota"}}"#), true).await;
    assert_eq!(error.body().message, "quota");
    let html = respond("200 OK\r\ncontent-type: text/html", "<html>");
    for (response, stream) in [(html, true), (json("{\"choices"), true), (respond("200 OK", "<html>"), false)] {
        assert!(matches!(error_of(response, stream).await, UpstreamError::Protocol(_)));
    }
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"choices\"";
    assert!(matches!(error_of(half.to_owned(), true).await, UpstreamError::Protocol(_)));
}

#[tokio::test]
async fn a_whole_answer_where_a_stream_was_asked_for_is_handed_over() {
    // More than is read of an error.
    let text = "Hello ".repeat(MAX_ERROR_BYTES);
    let body =
        json!({"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 9, "completion_tokens": 7}});
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        let response = respond(&format!("200 OK\r\ncontent-type: {kind}"), &body.to_string());
        let ChatReply::Complete(reply) = answering(response).await.chat(call(true)).await.unwrap() else {
            panic!("a stream")
        };
        assert_eq!(reply.usage.reported().unwrap().completion_tokens, 7);
        assert!(reply.produced.tokens() > MAX_ERROR_BYTES as u64);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_told_apart() {
    for stream in [false, true] {
        let (provider, server) = upstream(|listener| async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"x\":\"").await;
            let piece = vec![b'x'; 1 << 20];
            while stream.write_all(&piece).await.is_ok() {}
        })
        .await;
        let error = provider.chat(call(stream)).await.unwrap_err();
        assert!(matches!(error, UpstreamError::TooLarge), "{error}");
        assert_eq!((error.status().as_u16(), error.retry_after()), (502, None));
        assert_eq!(error.body().code.as_deref(), Some("upstream_too_large"));
        server.await.unwrap();
    }
}

#[tokio::test]
async fn broken_connections() {
    for stream in [false, true] {
        assert!(matches!(error_of(String::new(), stream).await, UpstreamError::Protocol(_)));
        assert!(matches!(error_of("SSH-2.0-OpenSSH\r\n".to_owned(), stream).await, UpstreamError::Protocol(_)));
    }
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choices\"";
    assert!(matches!(error_of(half.to_owned(), false).await, UpstreamError::Protocol(_)));

    let provider = answering(format!("{STREAM_HEAD}{}", event(HELLO))).await;
    let (bytes, outcome) = last(stream_of(&provider, call(true)).await).await;
    assert!(bytes.contains("upstream_protocol") && !bytes.contains("[DONE]"), "{bytes}");
    assert!(outcome.saw_first_token && matches!(outcome.ended, StreamEnd::UpstreamError(_)));

    let provider = answering(format!("{STREAM_HEAD}{}0\r\n\r\n", event(HELLO))).await;
    assert_eq!(last(stream_of(&provider, call(true)).await).await.1.ended, StreamEnd::Truncated);
}

/// A server that says `start` once it has the request, then tells so, and then is silent until the client closes.
async fn silent(start: String) -> (Arc<dyn Provider>, JoinHandle<()>, oneshot::Receiver<()>) {
    let (said, when_said) = oneshot::channel();
    let (provider, server) = upstream(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        write(&mut stream, &start).await;
        said.send(()).unwrap();
        while let Ok(1..) = stream.read(&mut [0; 16]).await {}
    })
    .await;
    (provider, server, when_said)
}

/// Time flies by itself from then on whenever nothing else happens.
async fn pause_after(signal: oneshot::Receiver<()>) {
    signal.await.unwrap();
    tokio::time::pause();
}

#[tokio::test]
async fn slow_heads_and_bodies_time_out() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    for (start, stream, first_byte, expected) in [
        ("", true, 20, TimeoutPhase::FirstByte),
        ("", true, 40, TimeoutPhase::Deadline),
        ("", false, 20, TimeoutPhase::Deadline),
        (half, false, 20, TimeoutPhase::Deadline),
    ] {
        let (provider, server, when_said) = silent(start.to_owned()).await;
        let mut call = call(stream);
        call.timing.first_byte = Duration::from_secs(first_byte);
        let (result, ()) = tokio::join!(provider.chat(call), pause_after(when_said));
        let error = result.unwrap_err();
        assert!(matches!(error, UpstreamError::Timeout(phase) if phase == expected), "{error}");
        assert_eq!(error.status(), 504);
        tokio::time::resume();
        server.await.unwrap();
    }
}

#[tokio::test]
async fn silence_in_a_stream_times_out() {
    for idle in [20, 40] {
        let (provider, server, when_said) = silent(format!("{STREAM_HEAD}{}", event(HELLO))).await;
        let mut call = call(true);
        call.timing.idle = Duration::from_secs(idle);
        let mut stream = stream_of(&provider, call).await;
        stream.next().await.unwrap();
        pause_after(when_said).await;
        let started = Instant::now();
        let (bytes, outcome) = last(stream).await;
        assert!(bytes.contains("upstream_timeout"), "{bytes}");
        assert_eq!(outcome.produced.tokens(), 1);
        assert!((started.elapsed().as_secs() < 21) == (idle == 20), "{:?}", started.elapsed());
        tokio::time::resume();
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced() {
    let (closed, when_closed) = oneshot::channel();
    let (provider, server) = upstream(|listener| async move {
        let answer = respond("200 OK", r#"{"choices":[]}"#);
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            request(&mut stream).await;
            write(&mut stream, &answer).await;
        }
        drop(stream);
        closed.send(()).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        write(&mut stream, &answer).await;
    })
    .await;
    provider.chat(call(false)).await.unwrap();
    provider.chat(call(false)).await.unwrap();
    when_closed.await.unwrap();
    provider.chat(call(false)).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_stream_gives_its_connection_back() {
    let (got_done, when_done) = oneshot::channel();
    let (ended, when_ended) = oneshot::channel();
    let (provider, server) = upstream(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        write(&mut stream, &format!("{STREAM_HEAD}{}", event("[DONE]"))).await;
        when_done.await.unwrap();
        write(&mut stream, "0\r\n\r\n").await;
        ended.send(()).unwrap();
        // The next request comes on the same connection.
        request(&mut stream).await;
        write(&mut stream, &respond("200 OK", r#"{"choices":[]}"#)).await;
    })
    .await;
    let (bytes, _) = last(stream_of(&provider, call(true)).await).await;
    assert_eq!(bytes, "data: [DONE]\n\n");
    got_done.send(()).unwrap();
    when_ended.await.unwrap();
    // Lets the client see the end; a connection that was closed instead would never come back however long this took.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    provider.chat(call(false)).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn unreachable_vendors() {
    let of = |url: &str, http| OpenAiUpstream::new(url, VendorKey::new(KEY), http).unwrap();
    // Nobody listens on port 1, and no system gives it away.
    for provider in [
        of("http://127.0.0.1:1", HttpClient::new()),
        of("http://127.0.0.1:1", HttpClient::public_only()),
        of("http://localhost:1", HttpClient::public_only()),
        of("https://[::ffff:169.254.169.254]/latest", HttpClient::public_only()),
    ] {
        let error = provider.chat(call(true)).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Connect(_)), "{error}");
        assert!(error.retry_after().is_none());
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        write(&mut stream, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let provider = OpenAiUpstream::new(&url, VendorKey::new(KEY), HttpClient::new()).unwrap();
    assert!(matches!(provider.chat(call(true)).await.unwrap_err(), UpstreamError::Connect(_)));
}

#[test]
fn base_urls_are_checked() {
    let new = |url: &str, key: &str| OpenAiUpstream::new(url, VendorKey::new(key), HttpClient::new());
    for url in ["", "api.openai.com/v1", "ftp://x/v1", "/v1", "https://"] {
        assert_eq!(new(url, KEY).unwrap_err(), BaseUrlError::NotHttp, "{url}");
    }
    assert_eq!(new("https://x/v1?key=1", KEY).unwrap_err(), BaseUrlError::Extras);
    assert_eq!(new("https://user:pass@x/v1", KEY).unwrap_err(), BaseUrlError::Extras);
    assert_eq!(new("https://x/v1", "a\nb").unwrap_err(), BaseUrlError::Key);
    let upstream = new("https://x/v1/", KEY).unwrap();
    assert_eq!(upstream.chat_url, "https://x/v1/chat/completions");
    assert!(!format!("{upstream:?}").contains("0123456789abcdef"), "{upstream:?}");
    assert!(new("http://localhost:11434/v1", "").unwrap().headers.is_empty());
}

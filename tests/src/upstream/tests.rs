//! The tests' tool is tested itself: what it sends, byte for byte.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DEFAULT_WORDS, Outcome, Reported, Upstream, VENDOR_KEY};

/// Sends a request on a connection of its own.
async fn send(upstream: &Upstream, path: &str, key: &str, body: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(upstream.address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: upstream\r\nauthorization: Bearer {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    socket
}

/// The head, the body with the chunked coding taken off, and whether the body was complete.
async fn receive(mut socket: TcpStream) -> (String, String, bool) {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let Some((head, mut rest)) = text.split_once("\r\n\r\n") else { return (text, String::new(), false) };
    if !head.contains("chunked") {
        return (head.to_owned(), rest.to_owned(), true);
    }
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (head.to_owned(), body, true);
        }
        // A chunk of one byte may be a part of a character; the tests that look at text do not split it.
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (head.to_owned(), body, false)
}

fn chat(prompt: &str, stream: bool) -> Value {
    json!({
        "model": "m",
        "messages": [{"role": "user", "content": prompt}],
        "stream": stream,
        "stream_options": if stream { json!({"include_usage": true}) } else { Value::Null },
    })
}

async fn ask(upstream: &Upstream, prompt: &str, stream: bool) -> (String, String, bool) {
    receive(send(upstream, "/v1/chat/completions", VENDOR_KEY, &chat(prompt, stream)).await).await
}

/// The JSON of the events of a stream, and how often `[DONE]` came.
fn events(body: &str) -> (Vec<Value>, usize) {
    let data = || body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data().filter_map(|data| serde_json::from_str(data).ok()).collect();
    (events, data().filter(|data| *data == "[DONE]").count())
}

fn text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn answers_whole_and_in_chunks_with_the_same_text_and_usage() {
    let upstream = Upstream::start().await;
    let (head, body, complete) = ask(&upstream, "say something", false).await;
    assert!(head.starts_with("HTTP/1.1 200") && complete, "{head}");
    let whole: Value = serde_json::from_str(&body).unwrap();
    let content = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.starts_with("Hello from upstream the quick"), "{content}");
    assert_eq!(whole["usage"]["completion_tokens"], DEFAULT_WORDS);
    assert_eq!(whole["usage"]["prompt_tokens"], 2);

    let (_, body, complete) = ask(&upstream, "say something", true).await;
    let (events, done) = events(&body);
    assert!(complete);
    assert_eq!((text(&events).as_str(), done), (content, 1));
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    let tokens = 2 * DEFAULT_WORDS as i64;
    assert_eq!(upstream.reported(), Reported { calls: 2, prompt_tokens: 4, completion_tokens: tokens });
    let seen = upstream.requests();
    assert!(seen.iter().all(|seen| seen.outcome == Outcome::Finished && seen.words == DEFAULT_WORDS as u64));
    upstream.wait_idle().await;
}

#[tokio::test]
async fn reports_usage_in_a_stream_only_when_asked_and_never_more_words_than_allowed() {
    let upstream = Upstream::start().await;
    let mut body = chat("/words 40", true);
    body["stream_options"] = Value::Null;
    body["max_tokens"] = json!(7);
    let socket = send(&upstream, "/v1/chat/completions", VENDOR_KEY, &body).await;
    let (_, body, _) = receive(socket).await;
    let (events, _) = events(&body);
    assert_eq!(text(&events).split(' ').count(), 7);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(!body.contains("usage"));
    assert_eq!(upstream.reported(), Reported::default());
}

#[tokio::test]
async fn a_held_answer_gives_its_first_chunk_and_waits() {
    let upstream = Upstream::start().await;
    let mut socket = send(&upstream, "/v1/chat/completions", VENDOR_KEY, &chat("/hold", true)).await;
    upstream.wait_holding(1).await;
    let mut first = Vec::new();
    while !String::from_utf8_lossy(&first).contains("Hello") {
        assert_ne!(socket.read_buf(&mut first).await.unwrap(), 0);
    }
    assert_eq!((upstream.in_flight(), upstream.max_in_flight()), (1, 1));
    assert_eq!(upstream.requests()[0].words, 10);
    upstream.release();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("[DONE]"));
    upstream.wait_idle().await;
    assert_eq!(upstream.requests()[0].words, DEFAULT_WORDS as u64);
}

#[tokio::test]
async fn sees_a_caller_go_away() {
    let upstream = Upstream::start().await;
    let streamed = send(&upstream, "/v1/chat/completions", VENDOR_KEY, &chat("/hold", true)).await;
    let silent = send(&upstream, "/v1/chat/completions", VENDOR_KEY, &chat("/hold-headers", false)).await;
    upstream.wait_holding(2).await;
    drop((streamed, silent));
    upstream.wait_idle().await;
    assert!(upstream.requests().iter().all(|seen| seen.outcome == Outcome::Abandoned));
    assert_eq!(upstream.counts().holding, 0);
}

#[tokio::test]
async fn writes_the_stream_as_it_is_told_to() {
    let upstream = Upstream::start().await;
    let (_, crlf, _) = ask(&upstream, "/crlf", true).await;
    assert_eq!(crlf.matches('\n').count(), crlf.matches("\r\n").count());
    let (_, tight, _) = ask(&upstream, "/no-space", true).await;
    assert!(tight.contains("data:{") && tight.contains("data:[DONE]") && !tight.contains("data: "));
    let (_, comments, _) = ask(&upstream, "/comments", true).await;
    assert!(comments.starts_with(": keep-alive\n\n"));
    let (_, open, complete) = ask(&upstream, "/no-done", true).await;
    assert!(complete && !open.contains("[DONE]"));
    let (_, huge, _) = ask(&upstream, "/huge 300000", true).await;
    assert!(huge.lines().any(|line| line.len() > 300_000));
    let (_, every, _) = ask(&upstream, "/usage-every-chunk", true).await;
    assert!(events(&every).0.iter().all(|event| event["usage"].is_object()));
    let (_, none, _) = ask(&upstream, "/no-usage", true).await;
    assert!(events(&none).0.iter().all(|event| event["usage"].is_null()));
}

#[tokio::test]
async fn splits_inside_characters() {
    let upstream = Upstream::start().await;
    let mut socket = send(&upstream, "/v1/chat/completions", VENDOR_KEY, &chat("/split", true)).await;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    // Every chunk of the coding is `1 CR LF byte CR LF`.
    let start = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let body: Vec<u8> = bytes[start..].chunks(6).take_while(|chunk| chunk[0] == b'1').map(|chunk| chunk[3]).collect();
    let (events, done) = events(std::str::from_utf8(&body).unwrap());
    assert!(text(&events).contains("naïve Größe 你好 Привет 🦀🎈"));
    assert_eq!(done, 1);
}

#[tokio::test]
async fn fails_as_it_is_told_to() {
    let upstream = Upstream::start().await;
    let (head, body, _) = ask(&upstream, "/error 503", true).await;
    assert!(head.starts_with("HTTP/1.1 503") && body.contains("\"server_error\""));
    let (head, body, _) = ask(&upstream, "/error-html 502", true).await;
    assert!(head.contains("text/html") && body.starts_with("<html>"));
    let (head, _, _) = ask(&upstream, "/retry-after 429 17", false).await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 17"));
    let (_, body, _) = ask(&upstream, "/leak 401", false).await;
    assert!(body.contains(VENDOR_KEY));
    let (head, _, _) = ask(&upstream, "/drop", false).await;
    assert_eq!(head, "");
    let (_, body, complete) = ask(&upstream, "/midstream-error", true).await;
    assert!(complete && !body.contains("[DONE]"));
    assert_eq!(text(&events(&body).0).split(' ').count(), 20);
    assert!(body.contains("\"error\""));
    let (_, body, complete) = ask(&upstream, "/midstream-cut", true).await;
    assert!(!complete && text(&events(&body).0).split(' ').count() == 20);
    let (_, body, _) = ask(&upstream, "/bad-json", false).await;
    assert!(serde_json::from_str::<Value>(&body).is_err());
    for expected in ["503", "503", "200", "200"] {
        let (head, _, _) = ask(&upstream, "/flaky 503 2", false).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{head}");
    }
    let (head, _, _) = ask(&upstream, "/mistyped", false).await;
    assert!(head.starts_with("HTTP/1.1 400"));
    let (head, _, _) = receive(send(&upstream, "/v1/chat/completions", "other", &chat("hi", false)).await).await;
    assert!(head.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn calls_a_tool_and_takes_its_result() {
    let upstream = Upstream::start().await;
    let mut body = chat("weather?", true);
    body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": {}}}]);
    let (_, streamed, _) = receive(send(&upstream, "/v1/chat/completions", VENDOR_KEY, &body).await).await;
    let (events, _) = events(&streamed);
    let calls = || events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]["function"]);
    assert!(calls().any(|function| function["name"] == "weather"));
    let arguments: String = calls().filter_map(|function| function["arguments"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"city": "Paris", "unit": "celsius"}));

    body["stream"] = json!(false);
    body["messages"].as_array_mut().unwrap().push(json!({"role": "tool", "tool_call_id": "x", "content": "sunny"}));
    let (_, whole, _) = receive(send(&upstream, "/v1/chat/completions", VENDOR_KEY, &body).await).await;
    assert!(whole.contains("Hello from upstream"));
}

#[tokio::test]
async fn embeds_in_both_encodings() {
    let upstream = Upstream::start().await;
    let embed = async |format: &str| -> Value {
        let body = json!({"model": "m", "input": ["one two", "three"], "encoding_format": format, "dimensions": 2});
        let (_, body, _) = receive(send(&upstream, "/v1/embeddings", VENDOR_KEY, &body).await).await;
        serde_json::from_str(&body).unwrap()
    };
    let float = embed("float").await;
    assert_eq!(float["data"][1]["embedding"], json!([0.25, -0.25]));
    assert_eq!(float["usage"]["prompt_tokens"], 3);
    let base64 = embed("base64").await;
    assert_eq!(base64["data"][1]["embedding"], "AACAPgAAgL4=");
    assert_eq!(upstream.reported(), Reported { calls: 2, prompt_tokens: 6, completion_tokens: 0 });
}

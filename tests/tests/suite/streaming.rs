//! Streams through the gateway.

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_domain::usage::Status;
use tenantry_tests::{
    platform::{Platform, Setup, Tenant, chat_body, request},
    upstream::{Outcome, Upstream},
};
use tower::ServiceExt as _;

async fn stage() -> (Upstream, Platform, Tenant) {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    (upstream, platform, tenant)
}

/// The JSON of every event but `[DONE]`.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn content(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn the_first_chunk_comes_before_the_upstream_has_finished() {
    let (upstream, platform, tenant) = stage().await;
    let call = request(Method::POST, "/api/v1/chat/completions", &tenant.api_key, &chat_body("/hold hello", true));
    let response = platform.router().oneshot(call).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut first = String::new();
    while content(&events(&first)).is_empty() {
        let frame = body.frame().await.unwrap().unwrap();
        first.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert_eq!(upstream.requests()[0].outcome, Outcome::InFlight);
    assert_eq!(platform.meter(&tenant).await.holds.len(), 1, "held while it lasts");
    upstream.release();
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    // The last byte goes out when the call is settled.
    assert!(platform.meter(&tenant).await.holds.is_empty());
    platform.quiesce().await;
    platform.books(&tenant).await;
}

#[tokio::test]
async fn usage_is_always_asked_for_and_shown_only_to_those_who_asked() {
    let (upstream, platform, tenant) = stage().await;
    let plain = platform.chat_stream(&tenant.api_key, "hello").await.expect(200).text();
    assert_eq!(upstream.requests()[0].body["stream_options"]["include_usage"], true);
    assert!(!plain.contains("usage"), "{plain}");
    assert!(events(&plain).iter().all(|event| !event["choices"].as_array().unwrap().is_empty()));

    let mut asking = chat_body("hello", true);
    asking["stream_options"] = json!({"include_usage": true});
    let asked = platform.post("/api/v1/chat/completions", &tenant.api_key, asking).await.expect(200).text();
    let events = events(&asked);
    let usage: Vec<_> = events.iter().filter(|event| event["usage"].is_object()).collect();
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0]["choices"], json!([]));
    assert!(usage[0]["usage"]["total_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn every_manner_of_writing_a_stream_gives_the_same_answer_and_one_done() {
    let (_upstream, platform, tenant) = stage().await;
    let want = content(&events(&platform.chat_stream(&tenant.api_key, "hello").await.text()));
    for manner in
        ["/crlf", "/no-space", "/comments", "/no-done", "/usage-every-chunk", "/no-usage", "/crlf /no-space /no-done"]
    {
        let stream = platform.chat_stream(&tenant.api_key, &format!("{manner} hello")).await.expect(200).text();
        assert_eq!(content(&events(&stream)), want, "{manner}");
        assert_eq!(stream.matches("data: [DONE]\n\n").count(), 1, "{manner}");
        assert!(stream.ends_with("data: [DONE]\n\n"), "{manner}");
    }
    let whole = content(&events(&platform.chat_stream(&tenant.api_key, "/unicode hello").await.text()));
    let split = platform.chat_stream(&tenant.api_key, "/split /unicode hello").await.text();
    assert_eq!(content(&events(&split)).len(), whole.len());
    let huge = platform.chat_stream(&tenant.api_key, "/huge 3000000 hello").await.expect(200).text();
    assert!(huge.len() > 3_000_000 && huge.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn an_error_before_the_first_byte_keeps_its_class_and_hides_the_vendor() {
    let (_upstream, platform, tenant) = stage().await;
    for stream in [false, true] {
        for (prompt, status, retry_after) in [
            ("/error 400", 400, ""),
            ("/error 401", 502, ""),
            ("/error 404", 404, ""),
            ("/error 500", 502, ""),
            ("/error 503", 503, ""),
            ("/retry-after 429 17", 429, "17"),
            ("/error-html 502", 502, ""),
            ("/leak 400", 502, ""),
            ("/drop", 502, ""),
        ] {
            let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, chat_body(prompt, stream)).await;
            assert_eq!(reply.status.as_u16(), status, "{prompt}: {}", reply.text());
            assert_eq!(reply.header("retry-after"), retry_after, "{prompt}");
            let error = reply.json();
            assert!(error["error"]["message"].is_string(), "{prompt}");
            assert!(
                !reply.text().contains("vendor-key") && !reply.text().contains("<html"),
                "{prompt}: {}",
                reply.text()
            );
        }
    }
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), 18);
    assert!(records.iter().all(|record| record.status == Status::UpstreamError && record.tokens.total() == 0));
}

#[tokio::test]
async fn an_error_in_the_middle_is_one_event_and_never_a_made_up_end() {
    let (_upstream, platform, tenant) = stage().await;
    for prompt in ["/midstream-error hello", "/midstream-cut hello", "/bad-json hello"] {
        let stream = platform.chat_stream(&tenant.api_key, prompt).await.expect(200).text();
        let events = events(&stream);
        assert!(!content(&events).is_empty(), "{prompt}");
        assert_eq!(events.iter().filter(|event| event["error"].is_object()).count(), 1, "{prompt}: {stream}");
        assert!(events.last().unwrap()["error"].is_object(), "{prompt}");
        assert!(!stream.contains("[DONE]") && !stream.contains("\"stop\""), "{prompt}: {stream}");
    }
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert!(records.iter().all(|record| record.status == Status::Interrupted && record.tokens.completion > 0));
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_upstream_and_is_charged_what_was_produced() {
    let (upstream, platform, tenant) = stage().await;
    let call =
        request(Method::POST, "/api/v1/chat/completions", &tenant.api_key, &chat_body("/hold /words 60 hello", true));
    let mut body = platform.router().oneshot(call).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    upstream.wait_holding(1).await;
    drop(body);
    upstream.wait_idle().await;
    assert_eq!(upstream.requests()[0].outcome, Outcome::Abandoned);
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!((record.status, record.estimated), (Status::ClientClosed, true));
    assert!(record.tokens.prompt > 0);
    assert!((1..60).contains(&record.tokens.completion), "{:?}", record.tokens);
}

#[tokio::test]
async fn a_client_that_leaves_before_a_whole_answer_pays_for_the_answer() {
    let (upstream, platform, tenant) = stage().await;
    let (router, body) = (platform.router(), chat_body("/hold-headers hello", false));
    let call = request(Method::POST, "/api/v1/chat/completions", &tenant.api_key, &body);
    let waiting = tokio::spawn(router.oneshot(call));
    upstream.wait_holding(1).await;
    waiting.abort();
    let _ = waiting.await;
    upstream.release();
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!((record.status, record.estimated), (Status::ClientClosed, false));
    assert_eq!(record.tokens.completion, upstream.reported().completion_tokens.unsigned_abs());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_stream_begins_frees_its_hold() {
    let (upstream, platform, tenant) = stage().await;
    let call =
        request(Method::POST, "/api/v1/chat/completions", &tenant.api_key, &chat_body("/hold-headers hello", true));
    let waiting = tokio::spawn(platform.router().oneshot(call));
    upstream.wait_holding(1).await;
    waiting.abort();
    upstream.wait_idle().await;
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!((record.status, record.tokens.completion), (Status::ClientClosed, 0));
}

#[tokio::test]
async fn tool_calls_pass_through() {
    let (_upstream, platform, tenant) = stage().await;
    let mut body = chat_body("what is the weather?", false);
    body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    let whole = platform.post("/api/v1/chat/completions", &tenant.api_key, body.clone()).await.expect(200).json();
    assert!(whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"].is_string());
    body["stream"] = json!(true);
    let stream = platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200).text();
    assert!(events(&stream).iter().any(|event| event["choices"][0]["delta"]["tool_calls"].is_array()));
    platform.quiesce().await;
    platform.books(&tenant).await;
}

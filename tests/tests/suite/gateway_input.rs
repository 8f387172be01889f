//! Bad input to the model endpoints: an error that names the field, nothing reserved, no vendor called.

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use tenantry_tests::{
    platform::{Platform, Reply, Setup, Tenant, chat_body},
    upstream::Upstream,
};

async fn stage() -> (Upstream, Platform, Tenant) {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    (upstream, platform, tenant)
}

async fn send_raw(platform: &Platform, key: &str, body: impl Into<Body>, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::post("/api/v1/chat/completions").header(header::AUTHORIZATION, format!("Bearer {key}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    platform.send(request.body(body.into()).unwrap()).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn nothing_is_reserved_and_no_vendor_is_called_for_bad_input() {
    let (upstream, platform, tenant) = stage().await;
    let good = chat_body("hello", false);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, status, param) in [
        (with("model", json!("no-such-model")), 404, "model"),
        (with("model", json!("text-embedding-3-small")), 400, "model"),
        (with("model", json!(5)), 400, "model"),
        (with("messages", json!("hello")), 400, "messages"),
        (with("messages", json!([])), 400, "messages"),
        (with("messages", json!([{"role": 1}])), 400, "messages.0.role"),
        (with("max_tokens", json!(-1)), 400, "max_tokens"),
        (with("max_tokens", json!(1e30)), 400, "max_tokens"),
        (with("max_completion_tokens", json!("many")), 400, "max_completion_tokens"),
        (with("n", json!(0)), 400, "n"),
        (with("stream", json!("true")), 400, "stream"),
        (with("models", json!(["gpt-5.5"])), 400, "models"),
        (with("fallbacks", json!(["gpt-5.5"])), 400, "fallbacks"),
    ] {
        let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, body.clone()).await;
        let error = reply.clone().expect(status).json();
        assert_eq!(error["error"]["param"], param, "{body}");
        assert!(error["error"]["message"].as_str().unwrap().contains(param), "{error}");
        assert!(!reply.header("x-request-id").is_empty());
    }
    let key = &tenant.api_key;
    for (body, headers, status) in [
        (b"{".to_vec(), vec![JSON], 400),
        (b"".to_vec(), vec![JSON], 400),
        (b"[]".to_vec(), vec![JSON], 400),
        // Small on the wire, hundreds of megabytes in memory.
        (format!("{{\"x\":[{}0]}}", "{\"\":0},".repeat(500_000)).into_bytes(), vec![JSON], 400),
        (b"{\"model\": \"\xff\xfe\"}".to_vec(), vec![JSON], 400),
        ([b"{\"model\":\"gpt-4.1-mini\",\"messages\":".to_vec(), vec![b'['; 50_000]].concat(), vec![JSON], 400),
        (good.to_string().into_bytes(), vec![], 415),
        (good.to_string().into_bytes(), vec![("content-type", "text/plain")], 415),
        (good.to_string().into_bytes(), vec![JSON, ("content-encoding", "gzip")], 415),
        (vec![b' '; tenantry_chat::BODY_LIMIT + 1], vec![JSON], 413),
    ] {
        let reply = send_raw(&platform, key, body, &headers).await.expect(status);
        assert!(reply.json()["error"]["message"].is_string());
    }
    let body = json!({"model": "gpt-4.1-mini", "input": "hello"});
    platform.post("/api/v1/embeddings", key, body).await.expect(400);
    platform.post("/api/v1/embeddings", key, json!({"model": "text-embedding-3-small"})).await.expect(400);

    platform.quiesce().await;
    assert_eq!(upstream.counts().requests, 0);
    assert!(platform.books(&tenant).await.is_empty());
    let meter = platform.meter(&tenant).await;
    assert_eq!((meter.left, meter.ready_at), (meter.given, 0), "the meter was not touched");
}

#[tokio::test]
async fn credentials_are_checked_before_anything_else() {
    let (upstream, platform, tenant) = stage().await;
    // One key in 62 ends in an x.
    let other = if tenant.api_key.ends_with('x') { "y" } else { "x" };
    let flipped = format!("{}{other}", &tenant.api_key[..tenant.api_key.len() - 1]);
    for (credential, code) in [
        ("", "unauthenticated"),
        (flipped.as_str(), "invalid_api_key"),
        ("sk-something-of-openai", "invalid_api_key"),
        ("wk_live_", "invalid_api_key"),
    ] {
        let reply = platform.chat(credential, "hello").await.expect(401);
        assert_eq!(reply.code(), code, "{credential}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    let request = Request::get("/api/v1/models").header("x-api-key", &tenant.api_key).body(Body::empty()).unwrap();
    platform.send(request).await.expect(200);
    assert_eq!(upstream.counts().requests, 0);
}

#[tokio::test]
async fn unknown_members_reach_the_vendor_and_answers_come_back_untouched() {
    let (upstream, platform, tenant) = stage().await;
    let mut body = chat_body("hello", false);
    body["some_new_option"] = json!({"deep": [1, 2.5, null]});
    body["temperature"] = json!(0.3);
    let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200);
    let sent = &upstream.requests()[0];
    assert_eq!(sent.body["some_new_option"], json!({"deep": [1, 2.5, null]}));
    assert_eq!(sent.body["temperature"], 0.3);
    assert_eq!(sent.body["max_tokens"], 64);
    assert!(sent.headers.get("authorization").unwrap().to_str().unwrap().contains("vendor-key"));
    assert_eq!(reply.json()["object"], "chat.completion");
}

#[tokio::test]
async fn depth_has_one_limit_whatever_a_key_is_called() {
    let (upstream, platform, tenant) = stage().await;
    let mut nested = "1".to_owned();
    for _ in 0..20 {
        let inside = "[".repeat(100) + &nested + &"]".repeat(100);
        nested = json!({"$serde_json::private::RawValue": inside}).to_string();
        if nested.len() > 1_000_000 {
            break;
        }
    }
    // Past the parser, which reads it as what it is: an object with a string in it. A parser that honours the
    // key overflows the stack and takes the whole process with it.
    let body = format!("{{\"model\":\"none\",\"messages\":[{{\"role\":\"user\"}}],\"x\":{nested}}}");
    let reply = send_raw(&platform, &tenant.api_key, body, &[JSON]).await.expect(404);
    assert_eq!(reply.code(), "model_not_found");
    assert_eq!(upstream.counts().requests, 0);
}

#[tokio::test]
async fn answers_stay_out_of_caches() {
    let (_upstream, platform, tenant) = stage().await;
    for path in ["/api/v1/models", "/api/v1/usage/stats", "/api/v1/organizations", "/api/v1/nothing"] {
        assert_eq!(platform.get(path, &tenant.api_key).await.header("cache-control"), "no-store", "{path}");
    }
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let (_upstream, platform, tenant) = stage().await;
    let list = platform.get("/api/v1/models", &tenant.api_key).await.expect(200).json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(ids.len() >= 30 && ids.contains(&"gpt-4.1-mini") && ids.contains(&"deepseek-chat"));
    assert!(!ids.contains(&"sandbox/echo"), "only without a vendor");
    platform.get("/api/v1/models/gpt-4.1-mini", &tenant.api_key).await.expect(200);
    let missing = platform.get("/api/v1/models/nope", &tenant.api_key).await.expect(404);
    assert_eq!(missing.code(), "model_not_found");
}

#[tokio::test]
async fn without_a_vendor_the_sandbox_answers_offline() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    platform.get("/api/v1/models/sandbox%2Fecho", &tenant.api_key).await.expect(200);
    let mut body = chat_body("Hello, sandbox!", false);
    body["model"] = json!("sandbox/echo");
    let whole = platform.post("/api/v1/chat/completions", &tenant.api_key, body.clone()).await.expect(200).json();
    assert!(whole["choices"][0]["message"]["content"].as_str().unwrap().contains("Hello, sandbox!"));
    body["stream"] = json!(true);
    let stream = platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200).text();
    assert_eq!(stream.matches("data: [DONE]").count(), 1);
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records[0].tokens, records[1].tokens, "the same answer costs the same, streamed or not");
    assert_eq!(whole["usage"]["total_tokens"].as_u64().unwrap(), records[0].tokens.total());
    // A model of a vendor that is not configured says so.
    let reply = platform.chat(&tenant.api_key, "hello").await.expect(404);
    assert!(reply.text().contains("not configured"));
}

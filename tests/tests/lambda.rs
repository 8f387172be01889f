//! The release binaries as Lambda runs them: each a process that talks to a runtime API, here one that passes chunks
//! through, and finds DynamoDB and its queues at an address. `cargo xtask e2e` builds them, and this program with the feature
//! that stands for them: without them there is nothing to test, and the program is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use data_encoding::BASE64;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{
    Clock as _, SystemClock,
    usage::{Status, UsageEvent},
};
use tenantry_payments::stripe::sign;
use tenantry_tests::{
    aws::Aws,
    event::{batch, request},
    function::{Function, Program},
    http::PASSWORD,
    platform::{Tenant, chat_body},
    runtime_api::HttpResponse,
    upstream::{Outcome, Upstream, VENDOR_KEY},
};

const CHAT: &str = "/api/v1/chat/completions";

/// The gateway with its vendor.
struct Stage {
    aws: Aws,
    upstream: Upstream,
    tenant: Tenant,
    chat: Function,
}

impl Stage {
    async fn start(change: impl FnOnce(Program) -> Program) -> Self {
        let (aws, upstream) = (Aws::start().await, Upstream::start().await);
        let tenant = aws.tenant("team").await;
        let program = change(gateway(&aws, &upstream));
        Self { chat: Function::start(&program).await, aws, upstream, tenant }
    }

    fn call(&self, prompt: &str, stream: bool) -> Value {
        request(&Method::POST, CHAT, &self.tenant.api_key, &chat_body(prompt, stream))
    }

    /// What was sent to the usage queue.
    fn usage(&self) -> Vec<UsageEvent> {
        let sent = self.aws.sent();
        assert!(sent.iter().all(|message| message.queue == "usage"), "{sent:?}");
        sent.iter().map(|message| serde_json::from_str(&message.body).unwrap()).collect()
    }
}

fn gateway(aws: &Aws, upstream: &Upstream) -> Program {
    Program::release("tenantry-chat")
        .variables(aws.variables())
        .variable("OPENAI_BASE_URL", &upstream.base_url())
        .variable("OPENAI_API_KEY", VENDOR_KEY)
        .variable("ALLOW_PRIVATE_UPSTREAMS", "true")
}

async fn function(name: &str, aws: &Aws) -> Function {
    Function::start(&Program::release(&format!("tenantry-{name}")).variables(aws.variables())).await
}

/// The text of a stream's events so far.
fn content(stream: &[u8]) -> String {
    let stream = std::str::from_utf8(stream).unwrap();
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let events = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    events.filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
}

/// Reads the beginning of a stream, up to its first text.
async fn first_text(response: &mut HttpResponse) -> Vec<u8> {
    let mut begun = vec![];
    while !begun.ends_with(b"\n\n") || content(&begun).is_empty() {
        begun.extend_from_slice(&response.chunk().await.expect("more of the stream").unwrap());
    }
    begun
}

/// The upstream writes its first words and then waits for the test, and the test has it go on only when it has seen those
/// words come out of the runtime API. Were they held back anywhere, this would not end.
#[tokio::test]
async fn the_first_chunk_leaves_the_function_before_the_upstream_has_ended() {
    let stage = Stage::start(|program| program).await;
    let mut response = stage.chat.begin(&stage.call("/hold /words 40 hello", true)).await.unwrap();
    assert!(response.streamed);
    assert_eq!(
        (response.status.as_u16(), &response.headers["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );

    let mut stream = first_text(&mut response).await;
    stage.upstream.wait_holding(1).await;
    assert_eq!(stage.upstream.requests()[0].outcome, Outcome::InFlight);
    assert_eq!(stage.upstream.requests()[0].words, 10, "of 40");
    let meter = stage.aws.store().meter(&stage.tenant.scope).await.unwrap();
    assert_eq!(meter.holds.len(), 1, "held while it lasts");
    assert_eq!(stage.usage(), [], "nothing is known of the end");

    stage.upstream.release();
    stream.extend(response.whole().await.unwrap().bytes);
    assert!(stream.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(content(&stream).split_whitespace().count(), 40);

    // With the last byte Lambda may freeze the process: all is said and settled before it.
    let meter = stage.aws.store().meter(&stage.tenant.scope).await.unwrap();
    assert!(meter.holds.is_empty(), "{:?}", meter.holds);
    let [usage] = stage.usage().try_into().unwrap();
    let reported = stage.upstream.requests()[0].usage.unwrap();
    assert_eq!(usage.status, Status::Ok);
    assert_eq!(
        (usage.tokens.prompt.cast_signed(), usage.tokens.completion.cast_signed()),
        (reported.prompt_tokens, reported.completion_tokens)
    );
    assert_eq!((&usage.org, usage.key.as_ref()), (&stage.tenant.org, Some(&stage.tenant.key)));
}

#[tokio::test]
async fn a_stream_passes_intact_and_the_process_serves_the_next() {
    let stage = Stage::start(|program| program).await;
    let mut texts = vec![];
    for prompt in ["/words 60 hello", "/split /unicode /words 12 hello", "/huge 3000000 hello"] {
        let reply = stage.chat.request(&stage.call(prompt, true)).await.unwrap().expect(200);
        assert!(reply.bytes.ends_with(b"data: [DONE]\n\n"), "{prompt}");
        texts.push(content(&reply.bytes));
    }
    assert_eq!(texts[0].split_whitespace().count(), 60);
    assert_eq!(texts[1].split_whitespace().count(), 12);
    assert!(texts[2].len() > 3_000_000);
    assert_eq!(stage.usage().len(), 3);
    assert!(stage.usage().iter().all(|usage| usage.status == Status::Ok));
}

#[tokio::test]
async fn an_error_before_the_first_byte_is_the_status_of_the_head() {
    let stage = Stage::start(|program| program).await;
    for (prompt, status, retry_after) in
        [("/error 400", 400, ""), ("/error 500", 502, ""), ("/retry-after 429 17", 429, "17"), ("/drop", 502, "")]
    {
        let response = stage.chat.begin(&stage.call(prompt, true)).await.unwrap();
        assert!(response.streamed, "{prompt}");
        let reply = response.whole().await.unwrap().expect(status);
        assert_eq!(reply.header("retry-after"), retry_after, "{prompt}");
        assert_eq!(reply.header("content-type"), "application/json", "{prompt}");
        assert!(reply.json()["error"]["message"].is_string(), "{prompt}");
    }
    let refused = request(&Method::POST, CHAT, "wk_of_nobody", &chat_body("hello", true));
    stage.chat.request(&refused).await.unwrap().expect(401);
    assert!(stage.usage().iter().all(|usage| usage.status == Status::UpstreamError && usage.tokens.total() == 0));
}

#[tokio::test]
async fn an_error_in_the_middle_is_an_event_of_a_stream_that_ends_well() {
    let stage = Stage::start(|program| program).await;
    let reply = stage.chat.request(&stage.call("/midstream-cut /words 40 hello", true)).await.unwrap().expect(200);
    assert!(reply.text().contains(r#""error":"#) && !reply.text().contains("[DONE]"), "{}", reply.text());
    let [usage] = stage.usage().try_into().unwrap();
    assert_eq!(usage.status, Status::Interrupted);
    assert!(usage.tokens.completion > 0);
}

#[tokio::test]
async fn a_front_end_that_cannot_stream_gets_it_whole() {
    let stage = Stage::start(|program| program.variable("RESPONSE_MODE", "buffered")).await;
    let response = stage.chat.begin(&stage.call("/words 40 hello", true)).await.unwrap();
    assert!(!response.streamed);
    let reply = response.whole().await.unwrap().expect(200);
    assert_eq!(reply.header("content-type"), "text/event-stream");
    assert_eq!(content(&reply.bytes).split_whitespace().count(), 40);
    assert!(reply.bytes.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(stage.usage().len(), 1);
}

/// As on Lambda Managed Instances: all of them have begun before any may end.
#[tokio::test]
async fn one_process_streams_many_answers_at_once() {
    const STREAMS: usize = 20;
    let stage = Stage::start(|program| program.concurrency(STREAMS)).await;
    let event = stage.call("/hold /words 40 hello", true);
    let mut streams = vec![];
    for _ in 0..STREAMS {
        let mut response = stage.chat.begin(&event).await.unwrap();
        streams.push((first_text(&mut response).await, response));
    }
    stage.upstream.wait_holding(STREAMS).await;
    stage.upstream.release();
    for (mut stream, response) in streams {
        stream.extend(response.whole().await.unwrap().bytes);
        assert_eq!(content(&stream).split_whitespace().count(), 40);
    }
    assert_eq!(stage.usage().len(), STREAMS);
}

/// An export is as long as its records; it leaves in pieces, and is whole. What is short comes the same way.
#[tokio::test]
async fn an_export_streams_and_so_does_all_else_of_its_function() {
    let aws = Aws::start().await;
    let tenant = aws.tenant("team").await;
    let usage = function("usage", &aws).await;
    let token = aws.access_token(&tenant);
    let mut amounts = vec![];
    for amount in 1..=3 {
        let record = json!({"resource": "pages", "amount": amount});
        let record = request(&Method::POST, "/api/v1/usage/record", &token, &record);
        amounts.push(usage.request(&record).await.unwrap().expect(201).json()["amount"].clone());
    }
    let export = request(&Method::GET, "/api/v1/usage/records/export", &tenant.api_key, &Value::Null);
    let response = usage.begin(&export).await.unwrap();
    assert!(response.streamed);
    let reply = response.whole().await.unwrap().expect(200);
    assert_eq!(reply.header("content-type"), "application/jsonl");
    let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["amount"].clone()).collect::<Vec<_>>(), amounts);
    let refused = request(&Method::GET, "/api/v1/usage/records/export", "", &Value::Null);
    usage.request(&refused).await.unwrap().expect(401);
}

/// The stage is a part of the address and of no route.
#[tokio::test]
async fn the_other_functions_answer_requests_through_a_stage() {
    let aws = Aws::start().await;
    let tenant = aws.tenant("team").await;
    let token = aws.access_token(&tenant);
    let get = |path: &str, credential: &str| request(&Method::GET, path, credential, &Value::Null);

    let auth = function("auth", &aws).await;
    let keys = auth.request(&get("/.well-known/jwks.json", "")).await.unwrap().expect(200).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    let login = json!({"email": tenant.email, "password": PASSWORD});
    let signed_in = auth.request(&request(&Method::POST, "/api/v1/auth/login", "", &login)).await.unwrap().expect(200);
    let signed_in = signed_in.json();

    let tenants = function("tenants", &aws).await;
    let path = format!("/api/v1/organizations/{}", tenant.org);
    for token in [&token, signed_in["access_token"].as_str().unwrap()] {
        let organization = tenants.request(&get(&path, token)).await.unwrap().expect(200).json();
        assert_eq!(organization["id"], json!(tenant.org));
    }
    assert_eq!(tenants.request(&get("/prod/api/v1/organizations", &token)).await.unwrap().status, 404);

    let usage = function("usage", &aws).await;
    let history = "/api/v1/usage/history?from=2026-01-01&to=2026-01-03";
    let history = usage.request(&get(history, &tenant.api_key)).await.unwrap().expect(200).json();
    assert_eq!((&history["from"], &history["to"]), (&json!("2026-01-01"), &json!("2026-01-03")));
    let stats = usage.request(&get("/api/v1/usage/stats", &tenant.api_key)).await.unwrap().expect(200).json();
    assert_eq!(stats["totals"]["requests"], 0);

    let billing = function("billing", &aws).await;
    for credential in [&token, &tenant.api_key] {
        let current = billing.request(&get("/api/v1/subscriptions/current", credential)).await.unwrap();
        let current = current.expect(200).json();
        assert_eq!((&current["plan"]["id"], &current["subscription"]), (&json!("team"), &Value::Null));
    }
    let plans = billing.request(&get("/api/v1/subscriptions/plans", "")).await.unwrap().expect(200).json();
    assert_eq!(plans["data"][1]["prices"][0]["price_id"], Value::Null, "nobody sells here: {plans}");
}

/// API Gateway encodes what it takes for binary; the signature is over what was sent.
#[tokio::test]
async fn a_signature_is_checked_over_the_bytes_that_were_sent() {
    let aws = Aws::start().await;
    let stripe = [("STRIPE_SECRET_KEY", "sk_test_1"), ("STRIPE_WEBHOOK_SECRETS", "whsec_1")];
    let stripe = stripe.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let program = Program::release("tenantry-webhooks").variables(aws.variables()).variables(stripe);
    let webhooks = Function::start(&program).await;
    let body = r#"{"id":"evt_1","of":"no version that we read – ünreadable"}"#;
    for (sent, encoded, status) in [
        (body.to_owned(), false, 204),
        (BASE64.encode(body.as_bytes()), true, 204),
        (BASE64.encode(body.as_bytes()), false, 400),
        (BASE64.encode(format!("{body} ").as_bytes()), true, 400),
    ] {
        let mut event = request(&Method::POST, "/webhooks/stripe", "", &json!({}));
        let signature = sign(body.as_bytes(), "whsec_1", SystemClock.now());
        event["multiValueHeaders"]["stripe-signature"] = json!([signature]);
        event["headers"]["stripe-signature"] = json!(signature);
        event["body"] = json!(sent);
        event["isBase64Encoded"] = json!(encoded);
        webhooks.request(&event).await.unwrap().expect(status);
    }
    let wechat = request(&Method::POST, "/webhooks/wechat", "", &json!({}));
    assert_eq!(webhooks.request(&wechat).await.unwrap().status, 404);
}

/// One call from the gateway to its record, with the queue's part played by the test.
#[tokio::test]
async fn usage_becomes_a_record_and_one_bad_message_fails_alone() {
    let stage = Stage::start(|program| program).await;
    stage.chat.request(&stage.call("/words 40 hello", true)).await.unwrap().expect(200);
    let [message] = stage.aws.sent().try_into().unwrap();
    let aggregator = function("usage-aggregator", &stage.aws).await;
    let messages = [("good", &*message.body), ("bad", "no usage event"), ("again", &*message.body)];
    let answer = aggregator.invoke(&batch(&messages)).await.unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "bad"}]}));
    let usage = function("usage", &stage.aws).await;
    let event = request(&Method::GET, "/api/v1/usage/stats", &stage.tenant.api_key, &Value::Null);
    assert_eq!(usage.request(&event).await.unwrap().expect(200).json()["totals"]["requests"], 1);
}

#[tokio::test]
async fn jobs_and_mails_are_taken_from_their_events() {
    let aws = Aws::start().await;
    aws.tenant("team").await;
    let quota_reset = function("quota-reset", &aws).await;
    let answer = quota_reset.invoke(&json!({"job": "sweep"})).await.unwrap();
    let jobs = aws.sent();
    assert_eq!(answer["messages"], jobs.len());
    let messages: Vec<_> = jobs.iter().map(|job| (job.queue.as_str(), job.body.as_str())).collect();
    assert_eq!(quota_reset.invoke(&batch(&messages)).await.unwrap(), json!({"batchItemFailures": []}));
    let unknown = quota_reset.invoke(&json!({"job": "nonsense"})).await.unwrap_err();
    assert!(unknown.to_string().contains("nonsense"), "{unknown}");

    let mailer = function("mailer", &aws).await;
    let mail = json!({
        "id": "one", "language": "en", "to": "ada@example.com",
        "template": "verification", "data": {"name": "Ada", "token": "of-no-use", "valid_minutes": 30},
    });
    let answer = mailer.invoke(&batch(&[("good", &mail.to_string()), ("bad", "{}")])).await.unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "bad"}]}));
}

//! What goes wrong around a call: outages, conflicts, clients that leave, vendors that misbehave. Whatever it is,
//! nothing is free, nothing is lost, and nobody pays for what was not produced.

use std::{
    future::Future as _,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use aws_sdk_dynamodb::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut},
    },
    error::BoxError,
};
use axum::{
    Router,
    body::Body,
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::StreamExt as _;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_domain::{
    Amounts, RequestId, Resource, SystemClock,
    metering::Demand,
    plans::{DEFAULT_PLANS, Plans},
    usage::{Status, UsageEvent},
};
use tenantry_host::{demo, dynamodb::Embedded, queue::LocalQueue};
use tenantry_store::{Admission, SettleOutcome, Store, TenantScope};
use tenantry_tests::{
    platform::{Platform, Setup, Tenant, chat_body, request},
    process::Folder,
    upstream::Upstream,
};
use tokio::sync::watch;
use tower::ServiceExt as _;

const CHAT: &str = "/api/v1/chat/completions";

/// A vendor that always answers what `answer` makes.
async fn vendor(answer: impl Fn(Value) -> Response + Clone + Send + Sync + 'static) -> Setup {
    let app = Router::new().route(
        "/v1/chat/completions",
        post(move |body: String| {
            let answer = answer.clone();
            async move { answer(serde_json::from_str(&body).unwrap()) }
        }),
    );
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    Setup::default().variable("OPENAI_BASE_URL", &url).variable("OPENAI_API_KEY", "key-of-a-vendor")
}

fn json_answer(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

/// An event stream that sends `events` and then stays open for ever.
fn open_stream(events: String) -> Response {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    tokio::spawn(async move {
        sender.send(Ok(events)).await.ok();
        sender.closed().await;
    });
    let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
}

fn chunk(delta: Value, finish: Value) -> String {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
    format!("data: {chunk}\n\n")
}

/// Reads a stream until `text` was in it, then leaves.
async fn read_until(platform: &Platform, tenant: &Tenant, body: &Value, text: &str) {
    let call = request(Method::POST, CHAT, &tenant.api_key, body);
    let mut stream = platform.router().oneshot(call).await.unwrap().into_body();
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = stream.frame().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

// ---- holds that leak ----------------------------------------------------------------------------------

/// The server drops a handler whose client hangs up. Between the write that takes the hold and its answer only
/// the call's own task can know of the hold.
#[tokio::test]
async fn a_client_that_leaves_while_it_is_being_admitted_leaves_no_hold() {
    let (upstream, folder) = (Upstream::start().await, Folder::new());
    let platform = Platform::start(Setup::default().upstream(&upstream).data_dir(folder.path())).await;
    let tenant = platform.tenant("free").await;
    let mut open = chat_body("hello", true);
    open.as_object_mut().unwrap().remove("max_tokens");
    let mut call = Box::pin(platform.router().oneshot(request(Method::POST, CHAT, &tenant.api_key, &open)));
    // The client stays until the reservation is written, and is gone before anybody looks at the answer.
    while platform.meter(&tenant).await.holds.is_empty() {
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        tokio::task::yield_now().await;
    }
    drop(call);
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), 1);
    // Nothing, or the little that the vendor had said by the time that the client was gone.
    assert_eq!(records[0].status, Status::ClientClosed);
    assert!(records[0].charged.get(Resource::LlmTokens) < 50, "{:?}", records[0]);
}

const CONFLICT: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException","message":"Transaction is ongoing for the item"}"#;

/// Answers one `UpdateItem` as DynamoDB does while a transaction (an expiry, a roll-over) is under way on the
/// same item, without carrying it out. The SDK does not try that again by itself.
#[derive(Debug, Default)]
struct OneConflict {
    attempts: AtomicUsize,
}

impl Intercept for OneConflict {
    fn name(&self) -> &'static str {
        "OneConflict"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            *context.request_mut().body_mut() = "{}".into();
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.attempts.load(Ordering::SeqCst) == 1 {
            *context.response_mut().body_mut() = CONFLICT.into();
        }
        Ok(())
    }
}

async fn bare_store() -> (Embedded, Store, TenantScope) {
    let engine = Embedded::in_memory().unwrap();
    let plans = Plans::parse(DEFAULT_PLANS).unwrap();
    let plan = plans.first().clone();
    let store = Store::new(engine.client(), "table", plans, Arc::new(SystemClock));
    store.create_table().await.unwrap();
    let hasher = tenantry_auth::Hasher::default();
    let password = "correct horse battery";
    let registered = tenantry_auth::register_user(&store, &hasher, "a@example.com", password, None, None, &plan).await;
    let (_, org) = registered.unwrap().unwrap();
    #[allow(clippy::disallowed_methods, reason = "the test made this tenant")]
    let scope = TenantScope::authenticated(org);
    (engine, store, scope)
}

/// A store over the same table whose next write meets a transaction.
fn conflicted(engine: &Embedded) -> Store {
    let config = engine.client().config().to_builder().interceptor(OneConflict::default()).build();
    let plans = Plans::parse(DEFAULT_PLANS).unwrap();
    Store::new(aws_sdk_dynamodb::Client::from_conf(config), "table", plans, Arc::new(SystemClock))
}

fn demand() -> Demand {
    let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 500);
    Demand { amounts, credits: 0 }
}

/// On DynamoDB a plain `UpdateItem` fails with `TransactionConflictException` while a transaction touches the
/// item, which the embedded engine never does.
#[tokio::test]
async fn a_settlement_that_meets_a_transaction_is_tried_again() {
    let (engine, store, scope) = bare_store().await;
    let admission = store.reserve(&scope, &RequestId::new(), &demand(), 60_000).await.unwrap();
    let Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
    let outcome = conflicted(&engine).settle(&reservation, &Amounts::NONE, 0).await;
    assert!(matches!(outcome, Ok(SettleOutcome::Settled)), "{outcome:?}");
    assert!(store.meter(&scope).await.unwrap().holds.is_empty());
}

#[tokio::test]
async fn a_reservation_that_meets_a_transaction_is_tried_again() {
    let (engine, _store, scope) = bare_store().await;
    let admission = conflicted(&engine).reserve(&scope, &RequestId::new(), &demand(), 60_000).await;
    assert!(matches!(admission, Ok(Admission::Admitted(_))), "{admission:?}");
}

// ---- usage that is lost -------------------------------------------------------------------------------

/// The holds of events that wait have been settled, so a message may only be given up for its own faults.
#[tokio::test]
async fn an_outage_of_the_store_loses_no_usage() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    let plans = platform.store().plans().clone();
    let down = Store::new(Embedded::in_memory().unwrap().client(), "no-such-table", plans, Arc::new(SystemClock));
    for _ in 0..5 {
        platform.host().queue().deliver(&down).await.unwrap();
    }
    platform.quiesce().await;
    assert_eq!(platform.host().queue().depth().unwrap(), (0, 0), "(waiting, dead)");
    assert_eq!(platform.books(&tenant).await.len(), 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_written_fails_alone() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    let event = platform.records(&tenant).await[0].clone();
    let another = |model: &str| UsageEvent { id: RequestId::new(), model: model.to_owned(), ..event.clone() };
    // A sort key of more than 1,024 bytes is refused by DynamoDB, whoever tries.
    for event in [another("gpt-4.1-mini"), another(&"m".repeat(2_000))] {
        platform.host().queue().push(&serde_json::to_string(&event).unwrap()).unwrap();
    }
    platform.quiesce().await;
    assert_eq!(platform.records(&tenant).await.len(), 2, "the good one is written");
    assert_eq!(platform.host().queue().depth().unwrap(), (0, 1), "the poison is dead, alone");
}

/// Some servers ignore `stream`. The answer was produced, so it counts.
#[tokio::test]
async fn a_whole_answer_where_a_stream_was_asked_for_is_metered() {
    let answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "one two three"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 40, "total_tokens": 51}});
    let platform = Platform::start(vendor(move |_| json_answer(&answer)).await).await;
    let tenant = platform.tenant("team").await;
    platform.chat_stream(&tenant.api_key, "hello").await;
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!((record.tokens.prompt, record.tokens.completion), (11, 40), "{record:?}");
    assert_eq!(record.charged.get(Resource::LlmTokens), 51);
}

/// The arguments of a custom tool (`tool_calls[].custom.input`) are completion tokens like any other. A
/// client that hangs up before the end does not have them for nothing.
#[tokio::test]
async fn what_a_custom_tool_call_produced_is_charged_when_the_client_leaves() {
    let setup = vendor(|_| {
        let call = |text: &str| json!({"tool_calls": [{"index": 0, "type": "custom", "custom": {"input": text}}]});
        open_stream((0..200).map(|n| chunk(call(&format!("line {n} of a program\n")), Value::Null)).collect())
    });
    let platform = Platform::start(setup.await).await;
    let tenant = platform.tenant("team").await;
    let mut body = chat_body("write it", true);
    body["max_tokens"] = json!(4_000);
    read_until(&platform, &tenant, &body, "line 199").await;
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!(record.status, Status::ClientClosed);
    assert!(record.tokens.completion > 500, "{:?}", record.tokens);
}

/// OpenAI's reasoning is not in the stream, only in the usage at its end. A client that has read the last word
/// and hangs up pays for the reasoning too, as the vendor bills it.
#[tokio::test]
async fn a_client_that_leaves_after_the_last_word_pays_for_the_hidden_reasoning() {
    let usage = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3_005, "total_tokens": 3_015,
            "completion_tokens_details": {"reasoning_tokens": 3_000}}});
    let (left, gone) = watch::channel(false);
    let setup = vendor(move |_| {
        let words = chunk(json!({"content": "The answer is 42."}), json!("stop"));
        let (end, mut gone) = (format!("data: {usage}\n\ndata: [DONE]\n\n"), gone.clone());
        // The usage follows a moment after the last word, as it does over a network.
        let body = futures_util::stream::once(async move { Ok::<_, std::io::Error>(words) }).chain(
            futures_util::stream::once(async move {
                gone.wait_for(|gone| *gone).await.ok();
                Ok(end)
            }),
        );
        ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
    });
    let platform = Platform::start(setup.await).await;
    let tenant = platform.tenant("team").await;
    let mut body = chat_body("think", true);
    body["max_tokens"] = json!(8_000);
    read_until(&platform, &tenant, &body, "\"stop\"").await;
    left.send(true).unwrap();
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!(record.tokens.completion, 3_005, "{:?}", record.tokens);
}

/// The vendor generated, and bills, the whole answer; that it does not fit into our own limit is no failure of the
/// vendor "before the first token".
#[tokio::test]
async fn an_answer_that_is_larger_than_the_gateway_takes_is_charged() {
    let platform = Platform::start(
        vendor(|_| {
            ([("content-type", "application/json")], format!("{{\"x\":\"{}\"}}", "x".repeat(65 << 20))).into_response()
        })
        .await,
    )
    .await;
    let tenant = platform.tenant("team").await;
    platform.chat(&tenant.api_key, "hello").await.expect(502);
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert!(record.charged.get(Resource::LlmTokens) > 0, "{record:?}");
}

/// A gpt-4o-mini image costs up to 48,169 prompt tokens (2,833 + 8 × 5,667).
#[tokio::test]
async fn an_image_is_held_at_what_its_model_bills_for_it() {
    let answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a cat"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 48_180, "completion_tokens": 2, "total_tokens": 48_182}});
    let platform = Platform::start(vendor(move |_| json_answer(&answer)).await).await;
    let tenant = platform.tenant("free").await;
    let content = json!([{"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "high"}}]);
    let body = json!({"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": content}]});
    for _ in 0..10 {
        // 200,000 tokens a month cover four of these.
        platform.post(CHAT, &tenant.api_key, body.clone()).await;
    }
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    let used: u64 = records.iter().map(|record| record.tokens.total()).sum();
    assert!(used <= 200_000, "{used} tokens on an allowance of 200000, in {} calls", records.len());
}

// ---- limits -------------------------------------------------------------------------------------------

/// Milliseconds per request are rounded: never in the tenant's favour.
#[test]
fn a_rate_is_never_above_the_plans() {
    for per_minute in [7, 350, 25_000, 31_000, 40_000, 60_000] {
        let plans =
            DEFAULT_PLANS.replacen("requests_per_minute = 10", &format!("requests_per_minute = {per_minute}"), 1);
        let rate = Plans::parse(&plans).unwrap().first().rate();
        assert!(60_000 / rate.interval <= per_minute, "{per_minute} a minute became {}", 60_000 / rate.interval);
    }
}

// ---- what passes through ------------------------------------------------------------------------------

/// Models write the members of a structured answer in the order of its schema ("reasoning" before "answer"), so
/// the order is part of the request. A map that sorts its keys changes it.
#[tokio::test]
async fn members_that_are_not_known_reach_the_vendor_in_their_order() {
    let (sent, mut got) = tokio::sync::mpsc::unbounded_channel();
    let app = Router::new().route(
        "/v1/chat/completions",
        post(move |body: String| async move {
            sent.send(body).unwrap();
            ([("content-type", "application/json")], r#"{"choices":[{"message":{"content":"x"}}]}"#)
        }),
    );
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let setup = Setup::default().variable("OPENAI_BASE_URL", &url).variable("OPENAI_API_KEY", "key-of-a-vendor");
    let platform = Platform::start(setup).await;
    let tenant = platform.tenant("team").await;
    let body = r#"{"model":"gpt-4.1-mini","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"response_format":
        {"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object","properties":{"reasoning":{"type":"string"},"answer":{"type":"string"}}}}}}"#;
    let call = http::Request::post(CHAT)
        .header("authorization", format!("Bearer {}", tenant.api_key))
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    platform.send(call).await.expect(200);
    let vendor = got.recv().await.unwrap();
    assert!(vendor.find("\"reasoning\"").unwrap() < vendor.find("\"answer\"").unwrap(), "{vendor}");
}

// ---- host ---------------------------------------------------------------------------------------------

/// A platform that is dropped without `stop` takes its workers with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queues_consumer_ends_with_its_platform() {
    let (_engine, store, _scope) = bare_store().await;
    let (stop, stopped) = watch::channel(false);
    let consumer = tokio::spawn(LocalQueue::open(None).unwrap().run(store, stopped));
    drop(stop);
    // If it went on for ever, so would this, until nextest ends it.
    consumer.await.unwrap();
}

/// A look around with `--in-memory` must not cost a folder its demo organization.
#[tokio::test]
async fn a_run_in_memory_leaves_the_demo_of_the_folder_alone() {
    let folder = Folder::new();
    let on_file = Platform::start(Setup::default().data_dir(folder.path())).await;
    let first = demo::prepare(on_file.host(), folder.path(), false, "http://a/api/v1").await.unwrap();
    let in_memory = Platform::start(Setup::default()).await;
    demo::prepare(in_memory.host(), folder.path(), true, "http://b/api/v1").await.unwrap();
    let again = demo::prepare(on_file.host(), folder.path(), false, "http://a/api/v1").await.unwrap();
    assert_eq!(again.organization_id, first.organization_id);
}

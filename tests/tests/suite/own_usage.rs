//! What tenants count themselves: recorded once, bounded, seen wherever usage is seen, and no way to change what the
//! platform counts.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use aws_sdk_dynamodb::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef},
        retry::RetryConfig,
    },
    error::BoxError,
    types::AttributeValue,
};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{KeyId, plans::Limit, roles::KeyScope, secret::ApiKeySecret};
use tenantry_store::{Difference, Look, NewApiKey};
use tenantry_tests::{
    http::{problem, text},
    jobs::Row,
    platform::{Platform, Reply, Setup, Tenant, request},
    queries::usage,
};
use tower::ServiceExt as _;

const RECORD: &str = "/api/v1/usage/record";
const RECORDS: &str = "/api/v1/usage/records";
const HISTORY: &str = "/api/v1/usage/history";
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A platform, a tenant, and a key of its that may record and read.
async fn stage() -> (Platform, Tenant, String) {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let key = key(&platform, &tenant, &[KeyScope::Record, KeyScope::Usage]).await;
    (platform, tenant, key)
}

async fn key(platform: &Platform, tenant: &Tenant, scopes: &[KeyScope]) -> String {
    let secret = ApiKeySecret::generate().unwrap();
    let new = NewApiKey {
        id: &KeyId::new(),
        name: "own",
        secret: &secret,
        scopes: scopes.iter().copied().collect(),
        expires_at: None,
        budgets: tenantry_domain::budget::Budgets::default(),
        created_by: &tenant.user,
    };
    platform.store().create_api_key(&tenant.scope, &new, Limit::Unlimited, None).await.unwrap().unwrap();
    secret.expose().to_owned()
}

async fn keyed(platform: &Platform, credential: &str, key: &str, body: &Value) -> Reply {
    let mut request = request(Method::POST, RECORD, credential, body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    platform.send(request).await
}

async fn rows(platform: &Platform, path: &str, credential: &str) -> Vec<Value> {
    let page = platform.get(path, credential).await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

fn pages(amount: u64) -> Value {
    json!({"resource": "pages_scanned", "amount": amount, "metadata": {"customer": "=acme, \"x\"", "job": "7"}})
}

#[tokio::test]
async fn a_record_is_seen_wherever_usage_is_and_uses_up_nothing() {
    let (platform, tenant, key) = stage().await;
    let reply = platform.post(RECORD, &key, pages(12)).await.expect(201);
    let made = reply.json();
    assert_eq!(
        made,
        json!({
            "id": made["id"], "at": "2026-11-20T12:00:00.000Z", "period": "2026-11", "operation": "record", "model": null,
            "status": "ok", "api_key_id": made["api_key_id"], "member_id": tenant.user,
            "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0, "reasoning_tokens": 0,
            "charged": {"messages": 0, "llm_tokens": 0, "images": 0, "api_calls": 0},
            "credits": 0, "estimated": false, "overrun": 0, "streamed": false, "latency_ms": 0, "first_byte_ms": null,
            "request_id": reply.header("x-request-id"),
            "resource": "pages_scanned", "amount": 12, "metadata": {"customer": "=acme, \"x\"", "job": "7"},
        })
    );
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    platform.post(RECORD, &token, json!({"resource": "gpu.seconds", "amount": 3})).await.expect(201);
    platform.post(RECORD, &key, json!({"resource": "pages_scanned", "amount": 30, "metadata": null})).await.expect(201);
    platform
        .post(
            "/api/v1/chat/completions",
            &tenant.api_key,
            json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hi"}]}),
        )
        .await
        .expect(200);
    platform.quiesce().await;

    let listed = rows(&platform, RECORDS, &key).await;
    assert_eq!(listed.len(), 4);
    assert!(listed.contains(&made), "{listed:?}");
    assert_eq!(listed.iter().filter(|row| row["operation"] == "record").count(), 3);

    let own = json!({"gpu.seconds": {"records": 1, "amount": 3}, "pages_scanned": {"records": 2, "amount": 42}});
    let stats = platform.get("/api/v1/usage/stats", &key).await.expect(200).json();
    assert_eq!((&stats["totals"]["recorded"], &stats["totals"]["requests"]), (&own, &json!(1)));
    assert_eq!(stats["series"][19]["recorded"], own);
    let grouped = async |by: &str| rows(&platform, &format!("{HISTORY}?group_by={by}"), &key).await;
    let day = grouped("day").await.pop().unwrap();
    assert_eq!((&day["day"], &day["recorded"], &day["requests"]), (&json!("2026-11-20"), &own, &json!(1)));
    let models = grouped("model").await;
    assert_eq!(models.iter().map(|row| text(row, "/model")).collect::<Vec<_>>(), ["sandbox/echo"]);
    let members = grouped("member").await;
    assert_eq!((members.len(), &members[0]["recorded"]), (1, &own));
    let by_key = grouped("key").await;
    let of = |id: &Value| by_key.iter().find(|row| row["api_key_id"] == *id).unwrap()["recorded"].clone();
    assert_eq!(of(&made["api_key_id"]), json!({"pages_scanned": {"records": 2, "amount": 42}}));
    assert_eq!(of(&Value::Null), json!({"gpu.seconds": {"records": 1, "amount": 3}}), "a person's");
    let resources = grouped("resource").await;
    let names: Vec<_> = resources.iter().map(|row| text(row, "/resource")).collect();
    assert_eq!(names, ["messages", "llm_tokens", "images", "api_calls", "gpu.seconds", "pages_scanned"]);
    assert_eq!(resources[5]["recorded"], json!({"pages_scanned": {"records": 2, "amount": 42}}));
    assert_eq!((&resources[0]["recorded"], &resources[5]["requests"]), (&json!({}), &json!(0)));

    // The meter has counted the call alone, and the books agree.
    assert_eq!(stats["resources"][3]["used"], 1);
    assert_eq!(platform.books(&tenant).await.len(), 4);

    // And it goes with everything else that the organization has.
    let export = platform.get(&format!("/api/v1/organizations/{}/export", tenant.org), &token).await.expect(200).text();
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let record = lines.iter().find(|line| line["type"] == "usage_record" && line["id"] == made["id"]).unwrap();
    assert_eq!(
        (&record["resource"], &record["amount"], &record["metadata"]["job"]),
        (&json!("pages_scanned"), &json!(12), &json!("7"))
    );
    let sums =
        lines.iter().find(|line| line["type"] == "usage_roll_up" && line["resource"] == "pages_scanned").unwrap();
    assert_eq!((&sums["amount"], &sums["model"]), (&json!(42), &Value::Null));
}

#[tokio::test]
async fn a_key_makes_a_record_once_and_stands_for_no_other() {
    let (platform, tenant, key_a) = stage().await;
    let first = keyed(&platform, &key_a, "k1", &pages(5)).await.expect(201);
    assert_eq!(first.header("idempotent-replayed"), "");
    // Written otherwise, it is the same record. The clock has moved on, and the answer has not.
    platform.clock().advance(3 * DAY);
    let same = json!({"metadata": {"job": "7", "customer": "=acme, \"x\""}, "amount": 5, "resource": "pages_scanned"});
    let again = keyed(&platform, &key_a, "k1", &same).await.expect(201);
    assert_eq!((again.json(), again.header("idempotent-replayed")), (first.json(), "true"));
    for other in
        [pages(6), json!({"resource": "pages_scanned", "amount": 5}), json!({"resource": "pages", "amount": 5})]
    {
        problem(&keyed(&platform, &key_a, "k1", &other).await, 422, "idempotency_key_reused");
    }
    // Another caller's key is another key, and without one every record is new.
    let key_b = key(&platform, &tenant, &[KeyScope::Record]).await;
    keyed(&platform, &key_b, "k1", &pages(5)).await.expect(201);
    for _ in 0..2 {
        platform.post(RECORD, &key_a, pages(5)).await.expect(201);
    }
    // Of many that come at once one is made.
    let large = pages(100);
    let replies = join_all((0..12).map(|_| keyed(&platform, &key_a, "k2", &large))).await;
    let ids: std::collections::BTreeSet<_> =
        replies.into_iter().map(|r| text(&r.expect(201).json(), "/id").to_owned()).collect();
    assert_eq!(ids.len(), 1);
    let records = platform.records(&tenant).await;
    assert_eq!(records.iter().filter_map(|record| record.own.as_ref()).map(|own| own.amount).sum::<u64>(), 4 * 5 + 100);
    assert_eq!(platform.roll_ups(&tenant).await.iter().map(|row| row.sums.amount).sum::<u64>(), 4 * 5 + 100);
    assert_eq!(records.len(), 5);
    for wrong in ["", "a b", &"k".repeat(256)] {
        problem(&keyed(&platform, &key_a, wrong, &pages(1)).await, 400, "invalid_parameter");
    }
    // A key that was refused stands for nothing.
    problem(&keyed(&platform, &key_a, "k3", &pages(0)).await, 422, "invalid_value");
    keyed(&platform, &key_a, "k3", &pages(1)).await.expect(201);
}

#[tokio::test]
async fn what_the_platform_counts_cannot_be_recorded_nor_what_has_no_bounds() {
    let (platform, _, key) = stage().await;
    let many: Value = (0..21).map(|n| (n.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let large: Value =
        (0..9).map(|n| (n.to_string(), json!("v".repeat(500)))).collect::<serde_json::Map<_, _>>().into();
    let before = platform.host().all_items().unwrap();
    for (change, status, pointer) in [
        (json!({"resource": "llm_tokens"}), 422, "/resource"),
        (json!({"resource": "messages"}), 422, "/resource"),
        (json!({"resource": "images"}), 422, "/resource"),
        (json!({"resource": "api_calls"}), 422, "/resource"),
        (json!({"resource": "a#b"}), 422, "/resource"),
        (json!({"resource": "Pages"}), 422, "/resource"),
        (json!({"resource": ""}), 422, "/resource"),
        (json!({"resource": 5}), 400, "/resource"),
        (json!({"amount": 0}), 422, "/amount"),
        (json!({"amount": -1}), 422, "/amount"),
        (json!({"amount": 100_000_000_001_u64}), 422, "/amount"),
        (json!({"amount": 1.5}), 400, "/amount"),
        (json!({"amount": "1"}), 400, "/amount"),
        (json!({"metadata": many}), 422, "/metadata"),
        (json!({"metadata": large}), 422, "/metadata"),
        (json!({"metadata": {"": "v"}}), 422, "/metadata"),
        (json!({"metadata": {"k": "v".repeat(501)}}), 422, "/metadata"),
        (json!({"metadata": {"k": 5}}), 400, "/metadata/k"),
        (json!({"metadata": {"k": {}}}), 400, "/metadata/k"),
        (json!({"metadata": ["k"]}), 400, "/metadata"),
        (json!({"at": "2026-09-30T23:59:59.999Z"}), 422, "/at"),
        (json!({"at": "2026-11-20T12:05:00.001Z"}), 422, "/at"),
        (json!({"at": "yesterday"}), 422, "/at"),
        (json!({"at": 5}), 400, "/at"),
        (json!({"charged": 5}), 400, "/charged"),
    ] {
        let mut body = json!({"resource": "pages", "amount": 1});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = platform.post(RECORD, &key, body).await;
        let error = problem(&reply, status, if status == 422 { "invalid_value" } else { "invalid_body" });
        assert_eq!(error["errors"][0]["pointer"], pointer, "{change}: {error}");
    }
    assert_eq!(platform.host().all_items().unwrap(), before);
    let most = json!({"resource": "x".repeat(64), "amount": 100_000_000_000_u64, "metadata": {"k": "ü".repeat(500)}});
    platform.post(RECORD, &key, most).await.expect(201);
}

#[tokio::test]
async fn it_takes_the_scope_of_its_own() {
    let (platform, tenant, _) = stage().await;
    for scopes in [&[KeyScope::Models, KeyScope::Usage, KeyScope::Login][..], &[KeyScope::Usage]] {
        let other = key(&platform, &tenant, scopes).await;
        problem(&platform.post(RECORD, &other, pages(1)).await, 403, "forbidden");
    }
    let recorder = key(&platform, &tenant, &[KeyScope::Record]).await;
    platform.post(RECORD, &recorder, pages(1)).await.expect(201);
    problem(&platform.get(RECORDS, &recorder).await, 403, "forbidden");
    // A key may be given it, and has it by no default.
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let made =
        platform.post("/api/v1/api-keys", &token, json!({"name": "k", "scopes": ["record"]})).await.expect(201).json();
    platform.post(RECORD, text(&made, "/secret"), pages(1)).await.expect(201);
    let plain = platform.post("/api/v1/api-keys", &token, json!({"name": "k"})).await.expect(201).json();
    assert_eq!(plain["scopes"], json!(["models", "usage"]));
}

#[tokio::test]
async fn a_month_has_a_hundred_resources_at_most() {
    let (platform, _, key) = stage().await;
    let record = async |name: String| platform.post(RECORD, &key, json!({"resource": name, "amount": 1})).await;
    // Together, so that some meet on the row of names.
    let replies = join_all((0..104).map(|n| record(format!("r{n}")))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 201);
    assert_eq!((taken.len(), refused.len()), (100, 4));
    for reply in refused {
        assert!(text(&problem(reply, 422, "invalid_value"), "/detail").contains("one more than the 100"));
    }
    let known = text(&taken[0].json(), "/resource").to_owned();
    record(known).await.expect(201);
    platform.clock().advance(11 * DAY);
    record("new".to_owned()).await.expect(201);
}

#[tokio::test]
async fn records_have_a_rate() {
    let (platform, tenant, key) = stage().await;
    let first = keyed(&platform, &key, "k1", &pages(2)).await.expect(201);
    // As if so many had come before.
    let items = platform.host().all_items().unwrap();
    let [counter] = items.iter().filter(|item| text(item, "/pk/S").starts_with("TRY#")).collect::<Vec<_>>()[..] else {
        panic!("one counter: {items:?}")
    };
    assert_eq!(counter["tries"], json!({"N": "1"}));
    let mut row =
        Row::from(["pk", "sk"].map(|name| (name.to_owned(), AttributeValue::S(text(&counter[name], "/S").to_owned()))));
    row.insert("tries".into(), AttributeValue::N("5999".into()));
    platform.put_row(row).await;
    platform.post(RECORD, &key, pages(1)).await.expect(201);
    let refused = platform.post(RECORD, &key, pages(1)).await;
    problem(&refused, 429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "600");
    assert_eq!(platform.records(&tenant).await.len(), 2);
    // Nobody else's.
    let other = platform.tenant("free").await;
    let other = self::key(&platform, &other, &[KeyScope::Record]).await;
    platform.post(RECORD, &other, pages(1)).await.expect(201);
    // What was recorded before is no new record.
    let again = keyed(&platform, &key, "k1", &pages(2)).await.expect(201);
    assert_eq!((again.json(), again.header("idempotent-replayed")), (first.json(), "true"));
    problem(&keyed(&platform, &key, "k1", &pages(3)).await, 422, "idempotency_key_reused");
    problem(&keyed(&platform, &key, "k2", &pages(2)).await, 429, "rate_limited");
    platform.clock().advance(600_000);
    platform.post(RECORD, &key, pages(1)).await.expect(201);
}

#[tokio::test]
async fn what_is_said_late_counts_on_its_day_and_the_reconciler_understands_it() {
    let (platform, tenant, key) = stage().await;
    for (at, amount) in [("2026-10-01T00:00:00Z", 7), ("2026-10-31T23:59:59.999Z", 8), ("2026-11-20T13:00:00+01:00", 9)]
    {
        let body = json!({"resource": "pages", "amount": amount, "at": at});
        let made = keyed(&platform, &key, at, &body).await.expect(201).json();
        assert_eq!(text(&made, "/period"), &text(&made, "/at")[..7]);
        assert_eq!(keyed(&platform, &key, at, &body).await.expect(201).json(), made);
    }
    let history = rows(&platform, &format!("{HISTORY}?from=2026-10-01&to=2026-11-20"), &key).await;
    let amount =
        |day: &str| history.iter().find(|row| row["day"] == day).unwrap()["recorded"]["pages"]["amount"].clone();
    assert_eq!(["2026-10-01", "2026-10-31", "2026-11-20"].map(amount), [json!(7), json!(8), json!(9)]);
    assert_eq!(rows(&platform, &format!("{RECORDS}?period=2026-10"), &key).await.len(), 2);

    let store = platform.store();
    let look = async || match store.look(&tenant.scope, &|| false).await.unwrap() {
        Look::Clean => None,
        Look::Suspicious(suspicion) => Some(suspicion),
        Look::Unfinished => panic!("there is time"),
    };
    assert!(look().await.is_none());
    let mut wrong: Row = platform.rows(&tenant.scope, "ROLL#2026-10-31").await.remove(0);
    wrong.insert("amount".into(), AttributeValue::N("80".into()));
    platform.put_row(wrong).await;
    platform.delete_row(&platform.rows(&tenant.scope, "ROLL#2026-11-20").await[0]).await;
    let suspicion = look().await.expect("two wrong rows");
    platform.clock().advance(10 * 60_000);
    let found = store.look_again(&tenant.scope, &suspicion, &|| false).await.unwrap().unwrap();
    let amounts: Vec<_> = found
        .iter()
        .map(|difference| match difference {
            Difference::RollUp(repair) => (repair.stored.map(|sums| sums.amount), repair.recorded.amount),
            Difference::Meter { .. } | Difference::Credits { .. } => panic!("{difference:?}"),
        })
        .collect();
    assert_eq!(amounts, [(Some(80), 8), (None, 9)]);
    assert!(look().await.is_none());
    assert_eq!(rows(&platform, &format!("{HISTORY}?from=2026-10-01&to=2026-11-20"), &key).await, history);
}

#[tokio::test]
async fn a_clock_may_run_ahead_by_five_minutes() {
    let (platform, _, key) = stage().await;
    let body = |at: &str| json!({"resource": "pages", "amount": 1, "at": at});
    for at in ["2026-11-20T12:00:00.050Z", "2026-11-20T12:05:00Z"] {
        let made = keyed(&platform, &key, at, &body(at)).await.expect(201).json();
        assert_eq!(made["at"], "2026-11-20T12:00:00.000Z", "{at}: not later than now");
        // What the key stands for is what was sent.
        assert_eq!(keyed(&platform, &key, at, &body(at)).await.expect(201).json(), made);
        problem(&keyed(&platform, &key, at, &body(text(&made, "/at"))).await, 422, "idempotency_key_reused");
    }
    // The month is the one that it is here.
    platform.clock().advance(10 * DAY + DAY / 2 - 1);
    let made = platform.post(RECORD, &key, body("2026-12-01T00:04:59Z")).await.expect(201).json();
    assert_eq!((text(&made, "/at"), text(&made, "/period")), ("2026-11-30T23:59:59.999Z", "2026-11"));
}

#[tokio::test]
async fn a_key_is_answered_when_the_moment_is_too_long_ago_by_now() {
    let (platform, _, key) = stage().await;
    let body = json!({"resource": "pages", "amount": 5, "at": "2026-10-05T00:00:00Z"});
    let made = keyed(&platform, &key, "k1", &body).await.expect(201).json();
    platform.clock().advance(11 * DAY);
    let again = keyed(&platform, &key, "k1", &body).await.expect(201);
    assert_eq!((again.json(), again.header("idempotent-replayed")), (made, "true"));
    let other = json!({"resource": "pages", "amount": 6, "at": "2026-10-05T00:00:00Z"});
    problem(&keyed(&platform, &key, "k1", &other).await, 422, "idempotency_key_reused");
    let error = problem(&keyed(&platform, &key, "k2", &body).await, 422, "invalid_value");
    assert_eq!(error["errors"][0]["pointer"], "/at");
    assert_eq!(rows(&platform, &format!("{RECORDS}?period=2026-10"), &key).await.len(), 1);
}

/// The first answers to transactions are lost, which were carried out.
#[derive(Debug)]
struct Lost {
    left: AtomicUsize,
    is_transaction: AtomicBool,
}

impl Intercept for Lost {
    fn name(&self) -> &'static str {
        "Lost"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target").unwrap_or_default();
        self.is_transaction.store(target.ends_with("TransactWriteItems"), Ordering::SeqCst);
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let spend = |left: usize| left.checked_sub(1);
        if self.is_transaction.load(Ordering::SeqCst)
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_ok()
        {
            let answer = context.response_mut();
            *answer.status_mut() = 500.try_into()?;
            *answer.body_mut() = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError"}"#.into();
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_was_made_once() {
    let (platform, tenant, recorder) = stage().await;
    let at_once = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
    let ask = async |lost: usize, retry: RetryConfig, key: Option<&str>| {
        let mut request = request(Method::POST, RECORD, &recorder, &pages(5));
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        let lost = Lost { left: AtomicUsize::new(lost), is_transaction: AtomicBool::new(false) };
        usage(&platform, lost, retry).oneshot(request).await.unwrap().status().as_u16()
    };
    let made = async || {
        let (records, rows) = (platform.records(&tenant).await, platform.roll_ups(&tenant).await);
        assert_eq!(rows.iter().map(|row| row.sums.amount).sum::<u64>(), 5 * records.len() as u64);
        records.len()
    };
    // Within one request the SDK asks again.
    assert_eq!(ask(1, at_once.clone(), None).await, 201);
    assert_eq!(made().await, 1);
    assert_eq!(ask(2, at_once, Some("k1")).await, 201);
    assert_eq!(made().await, 2);
    // When that is not enough, the client does.
    for (lost, status) in [(1, 503), (1, 503), (0, 201), (0, 201)] {
        assert_eq!(ask(lost, RetryConfig::disabled(), Some("k2")).await, status);
        assert_eq!(made().await, 3);
    }
}

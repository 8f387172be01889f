//! Limits of its own that a key has: kept in the same reservation as the tenant's, all or nothing.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{
    Amounts, KeyId, Period, RequestId, Resource,
    budget::{Budget, BudgetId, Ceiling, Owner, Spent},
    metering::{Demand, Refusal},
    usage::Status,
};
use tenantry_store::{Admission, Terms};
use tenantry_tests::{
    http::{problem, text},
    platform::{NOON, Platform, Reply, Setup, Tenant, chat_body},
    upstream::Upstream,
};

const KEYS: &str = "/api/v1/api-keys";
const CHAT: &str = "/api/v1/chat/completions";
const MINUTE: i64 = 60_000;

struct Stage {
    upstream: Upstream,
    platform: Platform,
    tenant: Tenant,
    token: String,
}

impl Stage {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let platform = Platform::start(Setup::default().upstream(&upstream)).await;
        let tenant = platform.tenant("team").await;
        let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
        Self { upstream, platform, tenant, token }
    }

    async fn key(&self, limits: Value) -> Value {
        let mut body = json!({"name": "k"});
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        self.platform.post(KEYS, &self.token, body).await.expect(201).json()
    }

    async fn change(&self, key: &Value, body: Value) -> Reply {
        self.platform.call(Method::PATCH, &format!("{KEYS}/{}", text(key, "/id")), &self.token, body).await
    }

    async fn ask(&self, key: &Value, prompt: &str) -> Reply {
        self.platform.post(CHAT, text(key, "/secret"), chat_body(prompt, false)).await
    }

    async fn spent(&self, key: &Value) -> Spent {
        let period = self.platform.meter(&self.tenant).await.period;
        self.spent_in(key, period).await
    }

    async fn spent_in(&self, key: &Value, period: Period) -> Spent {
        self.platform.store().spent(&self.tenant.scope, &of_key(key), period).await.unwrap()
    }

    /// The books of the tenant, and what was used of the key's budget is what its records say.
    async fn books(&self, key: &Value) -> usize {
        self.platform.quiesce().await;
        let records = self.platform.books(&self.tenant).await;
        let of_key: Vec<_> =
            records.iter().filter(|r| r.key.as_ref().is_some_and(|id| id.as_str() == text(key, "/id"))).collect();
        let charged = of_key.iter().fold(Amounts::NONE, |sum, record| sum.plus(&record.charged));
        assert_eq!(self.spent(key).await.amounts, charged);
        of_key.len()
    }
}

fn of_key(key: &Value) -> BudgetId {
    BudgetId { owner: Owner::ApiKey(text(key, "/id").parse().unwrap()), model: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_40_parallel_calls_on_a_budget_for_7_exactly_7_reach_the_upstream() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"budget": {"messages": 7}})).await;
    let replies = join_all((0..40).map(|_| stage.ask(&key, "hello"))).await;
    let admitted = replies.iter().filter(|reply| reply.status == 200).count();
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (429, "quota_exceeded"), "{}", reply.text());
        assert_eq!(reply.header("x-should-retry"), "false");
        assert!(reply.text().contains("API key's monthly budget of messages"), "{}", reply.text());
    }
    assert_eq!((admitted, stage.upstream.counts().requests), (7, 7));
    assert_eq!(stage.books(&key).await, 7);
    // The tenant's other key is not bound by it.
    stage.platform.chat(&stage.tenant.api_key, "hello").await.expect(200);
    assert_eq!(stage.books(&key).await, 7);
}

#[tokio::test]
async fn what_a_call_did_not_use_goes_back_to_the_budget_however_it_ends() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"budget": {"llm_tokens": 1_000_000}})).await;
    for (prompt, used) in [("hello", true), ("/error 500", false), ("/midstream-cut hello", true)] {
        let before = stage.spent(&key).await.amounts;
        let stream = prompt.contains("midstream");
        stage.platform.post(CHAT, text(&key, "/secret"), chat_body(prompt, stream)).await;
        stage.books(&key).await;
        let after = stage.spent(&key).await.amounts;
        assert_eq!(after.get(Resource::LlmTokens) > before.get(Resource::LlmTokens), used, "{prompt}");
        assert!(after.get(Resource::LlmTokens) < 1_000, "{prompt}: what was held went back");
    }
}

#[tokio::test]
async fn an_answer_is_as_long_as_the_budget_covers() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"budget": {"llm_tokens": 200}})).await;
    let body = json!({"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello"}]});
    let reply = stage.platform.post(CHAT, text(&key, "/secret"), body.clone()).await.expect(200);
    let asked = stage.upstream.requests().last().unwrap().body.clone();
    let cap = asked["max_completion_tokens"].as_u64().or(asked["max_tokens"].as_u64()).unwrap();
    assert!(cap < 200, "{asked}");
    assert_eq!(reply.header("x-ratelimit-limit-tokens"), "200", "the tighter limit is the one that is told");
    let used = stage.spent(&key).await.amounts.get(Resource::LlmTokens);
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), (200 - used).to_string(), "after the call");
    // A cap that the client names is not lowered.
    let mut named = body;
    named["max_tokens"] = json!(500);
    let refused = stage.platform.post(CHAT, text(&key, "/secret"), named).await.expect(429);
    assert!(refused.text().contains("of 200 left"), "{}", refused.text());
    stage.books(&key).await;
}

#[tokio::test]
async fn a_rate_of_its_own_is_kept_to_the_millisecond() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"requests_per_minute": 3})).await;
    for left in ["2", "1", "0"] {
        let reply = stage.ask(&key, "hello").await.expect(200);
        assert_eq!(reply.header("x-ratelimit-limit-requests"), "3");
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), left);
    }
    let refused = stage.ask(&key, "hello").await.expect(429);
    assert_eq!(refused.code(), "rate_limited");
    assert_eq!(refused.header("retry-after"), "20");
    stage.platform.clock().advance(20_000 - 1);
    stage.ask(&key, "hello").await.expect(429);
    stage.platform.clock().advance(1);
    stage.ask(&key, "hello").await.expect(200);
    stage.ask(&key, "hello").await.expect(429);
    assert_eq!(stage.books(&key).await, 4);
}

#[tokio::test]
async fn the_tenants_own_limits_still_hold_and_take_nothing_from_the_budget() {
    let upstream = Upstream::start().await;
    let setup = Setup::default().upstream(&upstream).plan_change("messages = 1_000", "messages = 1");
    let platform = Platform::start(setup).await;
    let tenant = platform.tenant("free").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let stage = Stage { upstream, platform, tenant, token };
    let key = stage.key(json!({"budget": {"messages": 5}})).await;
    stage.ask(&key, "hello").await.expect(200);
    let refused = stage.ask(&key, "hello").await.expect(429);
    assert!(refused.text().contains("plan's monthly allowance"), "{}", refused.text());
    assert_eq!(stage.books(&key).await, 1);
    assert_eq!(stage.spent(&key).await.amounts.get(Resource::Messages), 1);
}

#[tokio::test]
async fn a_budget_starts_afresh_each_month_and_late_settlements_stay_in_theirs() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"budget": {"messages": 1}})).await;
    let period = Period::of(NOON);
    let budget = Budget { limits: [(Resource::Messages, 1)].into(), ..Budget::default() };
    let budgets = [Ceiling { id: of_key(&key), budget }];
    let demand = Demand { amounts: Amounts::NONE.with(Resource::Messages, 1), credits: 0 };
    let store = stage.platform.store();
    let reserve = async || {
        let request = RequestId::at(store.now());
        let terms = Terms { budgets: &budgets, feature: None };
        store.reserve_within(&stage.tenant.scope, terms, &request, &demand, 3_600_000).await.unwrap()
    };
    stage.platform.clock().set(period.end() - 1_000);
    let Admission::Admitted(late) = reserve().await else { panic!("refused") };
    assert!(matches!(reserve().await, Admission::Refused(Refusal::BudgetExceeded { left: 0, .. })));

    stage.platform.clock().advance(2_000);
    let Admission::Admitted(fresh) = reserve().await else { panic!("refused") };
    store.settle(&late, &Amounts::NONE, 0).await.unwrap();
    assert_eq!(stage.spent_in(&key, period).await.amounts, Amounts::NONE, "given back to the month it came from");
    assert_eq!(stage.spent(&key).await.amounts.get(Resource::Messages), 1, "and not to this one");
    store.settle(&fresh, &Amounts::NONE, 0).await.unwrap();
    store.settle(&fresh, &Amounts::NONE, 0).await.unwrap();
    assert_eq!(stage.spent(&key).await.amounts, Amounts::NONE, "once");
}

#[tokio::test]
async fn an_expired_hold_stays_charged_to_the_budget_and_names_the_key() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"budget": {"messages": 2}})).await;
    let id: KeyId = text(&key, "/id").parse().unwrap();
    let budget = Budget { limits: [(Resource::Messages, 2)].into(), ..Budget::default() };
    let demand = Demand { amounts: Amounts::NONE.with(Resource::Messages, 1), credits: 0 };
    let store = stage.platform.store();
    let budgets = [Ceiling { id: of_key(&key), budget }];
    let terms = Terms { budgets: &budgets, feature: None };
    store.reserve_within(&stage.tenant.scope, terms, &RequestId::at(store.now()), &demand, MINUTE).await.unwrap();
    stage.platform.clock().advance(2 * MINUTE);
    stage.platform.host().sweep().await;
    let records = stage.platform.books(&stage.tenant).await;
    assert_eq!((records[0].status, records[0].key.as_ref()), (Status::Expired, Some(&id)));
    assert_eq!(stage.books(&key).await, 1);
}

#[tokio::test]
async fn limits_are_shown_changed_and_told_to_the_audit_log() {
    let stage = Stage::start().await;
    let key = stage.key(json!({"budget": {"messages": 1, "credits": 9}, "requests_per_minute": 60})).await;
    assert_eq!((&key["budget"]["messages"], &key["budget"]["credits"]), (&json!(1), &json!(9)));
    assert_eq!(key["requests_per_minute"], 60);
    stage.ask(&key, "hello").await.expect(200);
    stage.ask(&key, "hello").await.expect(429);

    // The budget is replaced whole; what is not named stays.
    let changed = stage.change(&key, json!({"budget": {"messages": 2}})).await.expect(200).json();
    assert_eq!((&changed["budget"]["messages"], &changed["budget"]["credits"]), (&json!(2), &Value::Null));
    assert_eq!(changed["requests_per_minute"], 60);
    stage.ask(&key, "hello").await.expect(200);
    stage.ask(&key, "hello").await.expect(429);
    // Lowered below what was used: nothing is left, and nothing is owed.
    stage.change(&key, json!({"budget": {"messages": 0}})).await.expect(200);
    assert!(stage.ask(&key, "hello").await.expect(429).text().contains("0 of 0 left"));
    let free = stage.change(&key, json!({"budget": null, "requests_per_minute": null})).await.expect(200).json();
    assert_eq!((&free["budget"], &free["requests_per_minute"]), (&Value::Null, &Value::Null));
    stage.ask(&key, "hello").await.expect(200);

    let log = stage.platform.get("/api/v1/audit-log?action=api_key.updated", &stage.token).await.expect(200).text();
    assert!(log.contains("requests_per_minute"), "{log}");
    for (body, pointer) in [
        (json!({"requests_per_minute": 0}), "/requests_per_minute"),
        (json!({"requests_per_minute": 60_001}), "/requests_per_minute"),
        (json!({"budget": {"images": 9_007_199_254_740_992_u64}}), "/budget/images"),
    ] {
        let refused = stage.change(&key, body).await;
        problem(&refused, 422, "invalid_value");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
    problem(&stage.change(&key, json!({"budget": {"messages": -1}})).await, 422, "invalid_value");
    stage.change(&key, json!({"budget": {"left": 5}})).await.expect(400);
}

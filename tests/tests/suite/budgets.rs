//! Budgets of members and of models: beside those of keys, in the same reservation, all or nothing.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{
    Amounts, RequestId, Resource, UserId,
    budget::{BudgetId, Owner},
    metering::Demand,
    plans::{DEFAULT_PLANS, Plans},
    usage::Status,
};
use tenantry_store::{Store, TenantScope, Terms};
use tenantry_tests::{
    http::{problem, text},
    platform::{Platform, Reply, Setup, Tenant, chat_body},
    upstream::Upstream,
};

use crate::members::{Person, again, joined, person};

const CHAT: &str = "/api/v1/chat/completions";
const KEYS: &str = "/api/v1/api-keys";
const MINI: &str = "gpt-4.1-mini";
const OTHER: &str = "gpt-4o-mini";
const MINUTE: i64 = 60_000;

/// An organization with an owner and an admin, who has two keys.
struct Stage {
    upstream: Upstream,
    platform: Platform,
    owner: Person,
    admin: Person,
    keys: [Value; 2],
    tenant: Tenant,
}

impl Stage {
    async fn set() -> Self {
        let upstream = Upstream::start().await;
        let setup = Setup::default().upstream(&upstream).plan_change("members = 1", "members = 50");
        let setup = setup.plan_change("in_flight = 2", "in_flight = 100").plan_change("keys = 2", "keys = 50");
        let setup = setup.plan_change("requests_per_minute = 10", "requests_per_minute = 6_000");
        let platform = Platform::start(setup).await;
        let owner = person(&platform, "ada").await;
        let admin = joined(&platform, &owner, "grace", "admin").await;
        let switch = json!({"organization_id": owner.org});
        let token = platform.post("/api/v1/auth/switch", &admin.token, switch).await.expect(200).json();
        let admin = Person { token: text(&token, "/access_token").to_owned(), ..admin };
        let key = async |name: &str| platform.post(KEYS, &admin.token, json!({"name": name})).await.expect(201).json();
        let keys = [key("a").await, key("b").await];
        let tenant = platform.existing_tenant(owner.org.parse().unwrap()).await;
        Self { upstream, platform, owner, admin, keys, tenant }
    }

    fn scope(&self) -> &TenantScope {
        &self.tenant.scope
    }

    /// What the admin can call with.
    fn credentials(&self) -> [&str; 3] {
        [&self.admin.token, text(&self.keys[0], "/secret"), text(&self.keys[1], "/secret")]
    }

    fn member_path(&self, of: &Person) -> String {
        format!("/api/v1/organizations/{}/members/{}", self.owner.org, of.id)
    }

    async fn limit_member(&self, by: &Person, of: &Person, body: Value) -> Reply {
        self.platform.call(Method::PATCH, &self.member_path(of), &by.token, body).await
    }

    async fn limit_models(&self, models: Value) -> Reply {
        let path = format!("/api/v1/organizations/{}", self.owner.org);
        self.platform.call(Method::PATCH, &path, &self.owner.token, json!({"model_budgets": models})).await
    }

    async fn limit_key(&self, key: &Value, body: Value) -> Reply {
        self.platform.call(Method::PATCH, &format!("{KEYS}/{}", text(key, "/id")), &self.owner.token, body).await
    }

    async fn ask(&self, credential: &str, model: &str) -> Reply {
        let mut body = chat_body("hello", false);
        body["model"] = model.into();
        self.platform.post(CHAT, credential, body).await
    }

    fn member(&self, of: &Person, model: Option<&str>) -> BudgetId {
        budget(Owner::Member(of.id.parse().unwrap()), model)
    }

    async fn spent(&self, id: &BudgetId) -> Amounts {
        let period = self.platform.meter(&self.tenant).await.period;
        self.platform.store().spent(self.scope(), id, period).await.unwrap().amounts
    }

    async fn messages(&self, id: &BudgetId) -> u64 {
        self.spent(id).await.get(Resource::Messages)
    }
}

fn budget(owner: Owner, model: Option<&str>) -> BudgetId {
    BudgetId { owner, model: model.map(ToOwned::to_owned) }
}

fn of_key(key: &Value, model: Option<&str>) -> BudgetId {
    budget(Owner::ApiKey(text(key, "/id").parse().unwrap()), model)
}

/// The refusal's limit, which is the same words in both shapes.
fn limit(reply: &Reply) -> Value {
    reply.json()["error"]["limit"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_members_budget_is_for_all_they_do_and_holds_against_parallel_calls() {
    let stage = Stage::set().await;
    stage.limit_member(&stage.owner, &stage.admin, json!({"budget": {"messages": 7}})).await.expect(200);
    let credentials = stage.credentials();
    let replies = join_all((0..36).map(|n| stage.ask(credentials[n % 3], MINI))).await;
    let admitted = replies.iter().filter(|reply| reply.status == 200).count();
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (429, "quota_exceeded"), "{}", reply.text());
        assert!(reply.text().contains("This member's monthly budget of messages"), "{}", reply.text());
        let expected = json!({
            "of": "member", "resource": "messages", "limit": 7, "left": 0, "resets_at": "2026-12-01T00:00:00.000Z"
        });
        assert_eq!(limit(reply), expected);
    }
    assert_eq!((admitted, stage.upstream.counts().requests), (7, 7));
    // Others are not bound by it.
    stage.ask(&stage.owner.token, MINI).await.expect(200);
    stage.platform.quiesce().await;
    let records = stage.platform.books(&stage.tenant).await;
    let admin: UserId = stage.admin.id.parse().unwrap();
    let of_admin = records.iter().filter(|record| record.member.as_ref() == Some(&admin));
    let charged = of_admin.fold(Amounts::NONE, |sum, record| sum.plus(&record.charged));
    assert_eq!(stage.spent(&stage.member(&stage.admin, None)).await, charged, "the records say what was used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_budgets_of_a_call_are_taken_from_or_none() {
    let stage = Stage::set().await;
    let [a, b] = &stage.keys;
    stage.limit_models(json!({MINI: {"messages": 9}})).await.expect(200);
    let of_member = json!({"budget": {"messages": 6, "models": {MINI: {"messages": 5}}}});
    stage.limit_member(&stage.owner, &stage.admin, of_member).await.expect(200);
    stage.limit_key(a, json!({"budget": {"messages": 4, "models": {MINI: {"messages": 3}}}})).await.expect(200);
    let (of_a, of_b) = (text(a, "/secret"), text(b, "/secret"));

    // The tightest of five says no, and nothing is taken from any.
    let replies = join_all((0..12).map(|_| stage.ask(of_a, MINI))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 3);
    let refused = replies.iter().find(|reply| reply.status != 200).unwrap();
    assert_eq!((&limit(refused)["of"], &limit(refused)["model"]), (&json!("api_key"), &json!(MINI)));
    let organization = budget(Owner::Organization, Some(MINI));
    let all = [
        organization.clone(),
        stage.member(&stage.admin, None),
        stage.member(&stage.admin, Some(MINI)),
        of_key(a, None),
        of_key(a, Some(MINI)),
    ];
    stage.platform.quiesce().await;
    for id in &all {
        assert_eq!(stage.messages(id).await, 3, "{id:?}");
    }
    // Another model: the budgets of all models hold, those of the other do not.
    stage.ask(of_a, OTHER).await.expect(200);
    let refused = stage.ask(of_a, OTHER).await.expect(429);
    assert_eq!((&limit(&refused)["of"], &limit(&refused)["model"]), (&json!("api_key"), &Value::Null));
    // Another key of theirs: the member's hold.
    stage.ask(of_b, MINI).await.expect(200);
    stage.ask(of_b, MINI).await.expect(200);
    let refused = stage.ask(of_b, MINI).await.expect(429);
    assert_eq!(limit(&refused)["of"], "member", "{}", refused.text());
    // Another member: the organization's holds.
    for _ in 0..4 {
        stage.ask(&stage.owner.token, MINI).await.expect(200);
    }
    let refused = stage.ask(&stage.owner.token, MINI).await.expect(429);
    assert!(refused.text().contains("The organization's monthly budget of messages for gpt-4.1-mini"));
    assert_eq!(stage.messages(&organization).await, 9);
    stage.platform.quiesce().await;
    assert_eq!(stage.platform.books(&stage.tenant).await.len(), 10);
}

#[tokio::test]
async fn what_is_not_used_goes_back_to_every_budget_however_the_call_ends() {
    let stage = Stage::set().await;
    let [a, _] = &stage.keys;
    let limits = json!({"llm_tokens": 100_000, "messages": 50});
    let whole = json!({"budget": {"llm_tokens": 100_000, "models": {MINI: limits}}});
    stage.limit_models(json!({MINI: limits})).await.expect(200);
    stage.limit_member(&stage.owner, &stage.admin, whole.clone()).await.expect(200);
    stage.limit_key(a, whole).await.expect(200);
    for prompt in ["hello", "/error 500", "/drop", "/midstream-cut hello", "/midstream-error hello"] {
        let stream = prompt.contains("midstream");
        stage.platform.post(CHAT, text(a, "/secret"), chat_body(prompt, stream)).await;
    }
    stage.platform.quiesce().await;
    let records = stage.platform.books(&stage.tenant).await;
    let charged = records.iter().fold(Amounts::NONE, |sum, record| sum.plus(&record.charged));
    assert_eq!((records.len(), charged.get(Resource::Messages)), (5, 3));
    for id in [
        budget(Owner::Organization, Some(MINI)),
        stage.member(&stage.admin, None),
        stage.member(&stage.admin, Some(MINI)),
        of_key(a, None),
        of_key(a, Some(MINI)),
    ] {
        assert_eq!(stage.spent(&id).await, charged, "{id:?}");
    }
}

#[tokio::test]
async fn an_expired_hold_stays_charged_to_every_budget_and_names_key_and_member() {
    let stage = Stage::set().await;
    let [a, _] = &stage.keys;
    let limits = json!({"budget": {"messages": 9, "models": {MINI: {"messages": 9}}}});
    stage.limit_member(&stage.owner, &stage.admin, limits.clone()).await.expect(200);
    stage.limit_key(a, limits).await.expect(200);
    stage.limit_models(json!({MINI: {"messages": 9}})).await.expect(200);
    let store = stage.platform.store();
    let key = store.api_key(stage.scope(), &text(a, "/id").parse().unwrap()).await.unwrap().unwrap();
    let admin = stage.admin.id.parse().unwrap();
    let ceilings = store.ceilings(stage.scope(), Some((&key.id, &key.budgets)), &admin, MINI).await.unwrap();
    assert_eq!(ceilings.len(), 5);
    let terms = Terms { budgets: &ceilings, feature: None };
    let demand = Demand { amounts: Amounts::NONE.with(Resource::Messages, 1), credits: 0 };
    let (unsettled, released) = (RequestId::at(store.now()), RequestId::at(store.now()));
    for request in [&unsettled, &released] {
        store.admit(stage.scope(), terms, request, &demand, MINUTE).await.unwrap().unwrap();
    }
    // Read back from its text: the budgets that it came from are those it goes back to.
    let holds = stage.platform.meter(&stage.tenant).await.holds;
    let mut held: Vec<_> = holds[&unsettled].budgets.clone();
    held.sort();
    let mut expected: Vec<_> = ceilings.iter().map(|ceiling| ceiling.id.clone()).collect();
    expected.sort();
    assert_eq!(held, expected);
    store.release(stage.scope(), &released).await.unwrap();
    for ceiling in &ceilings {
        assert_eq!(stage.messages(&ceiling.id).await, 1, "{:?}", ceiling.id);
    }

    stage.platform.clock().advance(2 * MINUTE);
    stage.platform.host().sweep().await;
    let records = stage.platform.books(&stage.tenant).await;
    assert_eq!((records.len(), records[0].status), (1, Status::Expired));
    assert_eq!((records[0].key.as_ref(), records[0].member.as_ref()), (Some(&key.id), Some(&admin)));
    for ceiling in &ceilings {
        assert_eq!(stage.messages(&ceiling.id).await, 1, "{:?}", ceiling.id);
    }
}

#[tokio::test]
async fn answers_are_as_long_as_the_tightest_budget_covers() {
    let stage = Stage::set().await;
    let [a, _] = &stage.keys;
    stage.limit_member(&stage.owner, &stage.admin, json!({"budget": {"llm_tokens": 400}})).await.expect(200);
    stage.limit_models(json!({MINI: {"llm_tokens": 300}})).await.expect(200);
    stage.limit_key(a, json!({"budget": {"models": {MINI: {"llm_tokens": 200}}}})).await.expect(200);
    let body = json!({"model": MINI, "messages": [{"role": "user", "content": "hello"}]});
    let reply = stage.platform.post(CHAT, text(a, "/secret"), body).await.expect(200);
    let asked = stage.upstream.requests().last().unwrap().body.clone();
    let cap = asked["max_completion_tokens"].as_u64().or(asked["max_tokens"].as_u64()).unwrap();
    assert!((100..200).contains(&cap), "{asked}");
    assert_eq!(reply.header("x-ratelimit-limit-tokens"), "200");
    stage.platform.quiesce().await;
    let used = stage.platform.books(&stage.tenant).await[0].tokens.total();
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), (200 - used).to_string());
}

#[tokio::test]
async fn rates_of_members_and_models_are_kept() {
    let stage = Stage::set().await;
    stage.limit_member(&stage.owner, &stage.admin, json!({"requests_per_minute": 3})).await.expect(200);
    stage.limit_models(json!({MINI: {"requests_per_minute": 2}})).await.expect(200);
    let [session, a, b] = stage.credentials();
    stage.ask(a, MINI).await.expect(200);
    stage.ask(b, MINI).await.expect(200);
    let refused = stage.ask(session, MINI).await.expect(429);
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("rate_limited", "30"));
    let expected = json!({
        "of": "organization", "model": MINI, "resource": "requests_per_minute", "limit": 2, "left": 0
    });
    assert_eq!(limit(&refused), expected);
    stage.ask(session, OTHER).await.expect(200);
    let refused = stage.ask(b, OTHER).await.expect(429);
    assert_eq!((&limit(&refused)["of"], &limit(&refused)["limit"]), (&json!("member"), &json!(3)));
    assert_eq!(refused.header("retry-after"), "20");
    stage.platform.clock().advance(20_000);
    stage.ask(b, OTHER).await.expect(200);
    stage.ask(b, OTHER).await.expect(429);
}

#[tokio::test]
async fn who_may_set_a_members_budget_and_how_it_is_shown() {
    let stage = Stage::set().await;
    let (owner, admin) = (&stage.owner, &stage.admin);
    let plain = joined(&stage.platform, owner, "plain", "member").await;
    let limits = json!({"budget": {"messages": 4, "models": {"gpt-4.1/x": {"credits": 9}}}, "requests_per_minute": 60});
    let shown = stage.limit_member(admin, &plain, limits).await.expect(200).json();
    assert_eq!((&shown["budget"]["messages"], &shown["role"]), (&json!(4), &json!("member")));
    assert_eq!(
        (&shown["budget"]["models"]["gpt-4.1/x"]["credits"], &shown["requests_per_minute"]),
        (&json!(9), &json!(60))
    );
    // What is not named stays; with a change of role too.
    let shown = stage.limit_member(owner, &plain, json!({"role": "admin"})).await.expect(200).json();
    assert_eq!((&shown["budget"]["messages"], &shown["role"]), (&json!(4), &json!("admin")));
    let both = json!({"role": "member", "budget": null});
    let shown = stage.limit_member(owner, &plain, both).await.expect(200).json();
    assert_eq!(
        (&shown["budget"], &shown["role"], &shown["requests_per_minute"]),
        (&Value::Null, &json!("member"), &json!(60))
    );
    let list = stage.platform.get(&format!("/api/v1/organizations/{}/members", owner.org), &owner.token).await;
    assert!(list.expect(200).text().contains("\"requests_per_minute\":60"));

    // Nobody but an owner changes their own; owners are changed by owners.
    problem(
        &stage.limit_member(admin, admin, json!({"budget": null, "requests_per_minute": 1})).await,
        403,
        "forbidden",
    );
    problem(&stage.limit_member(admin, owner, json!({"requests_per_minute": 1})).await, 403, "forbidden");
    problem(&stage.limit_member(&plain, admin, json!({"requests_per_minute": 1})).await, 403, "forbidden");
    stage.limit_member(owner, owner, json!({"requests_per_minute": 100})).await.expect(200);
    for (body, pointer) in [
        (json!({"requests_per_minute": 0}), "/requests_per_minute"),
        (json!({"budget": {"models": {"": {}}}}), "/budget/models"),
        (json!({"budget": {"models": {"a#b": {}}}}), "/budget/models"),
        (json!({"budget": {"models": {"a/b": {"requests_per_minute": 0}}}}), "/budget/models/a~1b/requests_per_minute"),
        (json!({"budget": {"credits": 9_007_199_254_740_992_u64}}), "/budget/credits"),
    ] {
        let refused = stage.limit_member(owner, &plain, body).await;
        problem(&refused, 422, "invalid_value");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("m{n}"), json!({}))).collect();
    problem(&stage.limit_models(json!(many)).await, 422, "invalid_value");
    stage.limit_member(owner, &plain, json!({"budget": {"models": {"a": [1]}}})).await.expect(400);

    let log = stage.platform.get("/api/v1/audit-log?action=member.budget_changed", &owner.token).await.expect(200);
    let rows = log.json()["data"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 2, "{}", log.text());
    assert!(log.text().contains("gpt-4.1/x"), "{}", log.text());

    let shown = stage.limit_models(json!({MINI: {"llm_tokens": 5}})).await.expect(200).json();
    assert_eq!(shown["model_budgets"][MINI]["llm_tokens"], 5);
    let export = format!("/api/v1/organizations/{}/export", owner.org);
    let export = stage.platform.get(&export, &owner.token).await.expect(200).text();
    assert!(export.contains("\"model_budgets\":{\"gpt-4.1-mini\""), "{export}");
    assert_eq!(stage.limit_models(Value::Null).await.expect(200).json()["model_budgets"], Value::Null);
    stage.ask(&owner.token, MINI).await.expect(200);
    let log = stage.platform.get("/api/v1/audit-log?action=organization.updated", &owner.token).await.expect(200);
    assert!(log.text().contains("model_budgets"), "{}", log.text());
}

#[tokio::test]
async fn a_budget_reaches_another_process_within_half_a_minute() {
    let stage = Stage::set().await;
    let plans = Plans::parse(DEFAULT_PLANS).unwrap();
    let mine = stage.platform.store();
    let other = Store::new(stage.platform.host().database().clone(), tenantry_host::TABLE, plans, mine.clock());
    let admin: UserId = stage.admin.id.parse().unwrap();
    let count = async |store: &Store| store.ceilings(stage.scope(), None, &admin, MINI).await.unwrap().len();
    assert_eq!((count(mine).await, count(&other).await), (0, 0));
    stage.limit_member(&stage.owner, &stage.admin, json!({"budget": {"messages": 1}})).await.expect(200);
    stage.limit_models(json!({MINI: {"messages": 1}})).await.expect(200);
    assert_eq!((count(mine).await, count(&other).await), (2, 0));
    stage.platform.clock().advance(30_000 - 1);
    assert_eq!(count(&other).await, 0);
    stage.platform.clock().advance(1);
    assert_eq!(count(&other).await, 2);
}

#[tokio::test]
async fn the_keys_of_a_member_who_left_are_bound_by_their_own_budgets() {
    let stage = Stage::set().await;
    let [a, _] = &stage.keys;
    stage.limit_member(&stage.owner, &stage.admin, json!({"budget": {"messages": 0}})).await.expect(200);
    stage.limit_key(a, json!({"budget": {"messages": 1}})).await.expect(200);
    let refused = stage.ask(text(a, "/secret"), MINI).await.expect(429);
    assert_eq!(limit(&refused)["of"], "member");
    stage.platform.delete(&stage.member_path(&stage.admin), &stage.owner.token).await.expect(204);
    stage.platform.clock().advance(30_000);
    let owner = again(&stage.platform, stage.owner).await;
    assert!(!owner.token.is_empty());
    stage.platform.post(CHAT, text(a, "/secret"), chat_body("hello", false)).await.expect(200);
    let refused = stage.platform.post(CHAT, text(a, "/secret"), chat_body("hello", false)).await.expect(429);
    assert_eq!(limit(&refused)["of"], "api_key");
}

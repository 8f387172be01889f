//! Limits of the month that are nearly used up: the owners are told at 80 % and at 100 %, once each.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{Amounts, Millis, Period, RequestId, Resource, metering::Demand};
use tenantry_quota_reset::Job;
use tenantry_store::Admission;
use tenantry_tests::{
    http::text,
    jobs::Jobs,
    platform::{NOON, Platform, Setup, Tenant},
    upstream::Upstream,
};
use tenantry_web::mail::{Content, LimitedBy, Mail};

use crate::webhooks::confirm_address;

const MINUTE: Millis = 60_000;
const MINI: &str = "gpt-4.1-mini";

struct Stage {
    _upstream: Upstream,
    platform: Platform,
    tenant: Tenant,
    jobs: Jobs,
}

impl Stage {
    /// A tenant with ten messages a month, whose owner can be written to.
    async fn set() -> Self {
        let upstream = Upstream::start().await;
        let setup = Setup::default().upstream(&upstream).plan_change("messages = 1_000", "messages = 10");
        let setup = setup.plan_change("requests_per_minute = 10", "requests_per_minute = 6_000");
        let platform = Platform::start(setup.plan_change("keys = 2", "keys = 9")).await;
        let tenant = platform.tenant("free").await;
        confirm_address(&platform, &tenant).await;
        let jobs = Jobs::new(platform.store());
        Self { _upstream: upstream, platform, tenant, jobs }
    }

    async fn ask(&self, credential: &str, times: usize) {
        for _ in 0..times {
            self.platform.chat(credential, "hello").await.expect(200);
        }
        self.platform.quiesce().await;
    }

    /// What the sweep tells: by whom, what, percent, used and limit.
    async fn told(&self) -> Vec<(LimitedBy, String, u8, u64, u64)> {
        self.jobs.all(Job::Sweep, false).await;
        self.jobs.mails().iter().map(|mail| self.reached(mail)).collect()
    }

    fn reached(&self, mail: &Mail) -> (LimitedBy, String, u8, u64, u64) {
        assert_eq!(mail.to.as_str(), self.tenant.email);
        let Content::LimitReached { by, who, model, resource, percent, used, limit, .. } = &mail.content else {
            panic!("{mail:?}")
        };
        (*by, format!("{who}/{model}/{resource}"), *percent, *used, *limit)
    }

    async fn rows(&self) -> Vec<Value> {
        let token = text(&self.platform.login(&self.tenant).await, "/access_token").to_owned();
        let log = self.platform.get("/api/v1/audit-log?action=limit.reached", &token).await.expect(200).json();
        log["data"].as_array().unwrap().clone()
    }
}

fn messages(percent: u8, used: u64, limit: u64) -> (LimitedBy, String, u8, u64, u64) {
    (LimitedBy::Plan, "//messages".to_owned(), percent, used, limit)
}

#[tokio::test]
async fn owners_are_told_of_each_threshold_once_a_month() {
    let stage = Stage::set().await;
    let key = &stage.tenant.api_key;
    stage.ask(key, 7).await;
    assert_eq!(stage.told().await, []);
    stage.ask(key, 1).await;
    assert_eq!(stage.told().await, [messages(80, 8, 10)]);
    stage.ask(key, 1).await;
    assert_eq!(stage.told().await, []);
    stage.ask(key, 1).await;
    assert_eq!(stage.told().await, [messages(100, 10, 10)]);
    stage.platform.chat(key, "hello").await.expect(429);
    assert_eq!(stage.told().await, []);
    let rows = stage.rows().await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["changes"], json!([{"field": "messages", "old": null, "new": "100 % of 10"}]));

    // The next month begins anew; whoever goes past both at once hears of the larger alone.
    stage.platform.clock().set(Period::of(NOON).end());
    assert_eq!(stage.told().await, []);
    stage.ask(key, 10).await;
    assert_eq!(stage.told().await, [messages(100, 10, 10)]);
    assert_eq!(stage.told().await, []);
}

#[tokio::test]
async fn what_requests_in_flight_hold_is_not_used_yet() {
    let stage = Stage::set().await;
    let demand = Demand { amounts: Amounts::NONE.with(Resource::Messages, 9), credits: 0 };
    let (store, request) = (stage.platform.store(), RequestId::new());
    let reserve = store.reserve(&stage.tenant.scope, &request, &demand, 10 * MINUTE).await.unwrap();
    let Admission::Admitted(reservation) = reserve else { panic!("refused") };
    assert_eq!(stage.told().await, []);
    store.settle(&reservation, &demand.amounts, 0).await.unwrap();
    assert_eq!(stage.told().await, [messages(80, 9, 10)]);
}

#[tokio::test]
async fn a_larger_plan_has_thresholds_of_its_own() {
    let stage = Stage::set().await;
    stage.ask(&stage.tenant.api_key, 10).await;
    assert_eq!(stage.told().await, [messages(100, 10, 10)]);
    stage.platform.store().put_on_plan(&stage.tenant.scope, "pro", 1, None).await.unwrap();
    assert_eq!(stage.told().await, [], "10 of 50,000");
    let demand = Demand { amounts: Amounts::NONE.with(Resource::Messages, 40_000), credits: 0 };
    let store = stage.platform.store();
    let reserve = store.reserve(&stage.tenant.scope, &RequestId::new(), &demand, MINUTE).await.unwrap();
    let Admission::Admitted(reservation) = reserve else { panic!("refused") };
    store.settle(&reservation, &demand.amounts, 0).await.unwrap();
    assert_eq!(stage.told().await, [messages(80, 40_010, 50_000)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_sweeps_at_once_tell_once_and_one_that_died_is_made_up_for() {
    let stage = Stage::set().await;
    stage.ask(&stage.tenant.api_key, 8).await;
    let commerce = stage.platform.host().commerce();
    // It died after it had ordered the mail.
    let warnings = stage.platform.store().limit_warnings(&stage.tenant.scope).await.unwrap();
    assert_eq!(warnings.len(), 1);
    let inbox = tenantry_tests::jobs::Ordered::default();
    let sweeps = join_all((0..8).map(|_| commerce.warn_of_limits(&stage.tenant.scope, &inbox))).await;
    assert_eq!(sweeps.into_iter().map(Result::unwrap).sum::<u64>(), 1);
    assert_eq!(inbox.take().len(), 1);
    assert_eq!((stage.told().await.len(), stage.rows().await.len()), (0, 1));
}

#[tokio::test]
async fn budgets_are_told_of_too() {
    let stage = Stage::set().await;
    let owner = text(&stage.platform.login(&stage.tenant).await, "/access_token").to_owned();
    let body = json!({"name": "shop", "budget": {"messages": 5, "models": {MINI: {"messages": 4}}}});
    let key = stage.platform.post("/api/v1/api-keys", &owner, body).await.expect(201).json();
    let organization = format!("/api/v1/organizations/{}", stage.tenant.org);
    for (path, body) in [
        (organization.clone(), json!({"model_budgets": {MINI: {"messages": 4}}})),
        (format!("{organization}/members/{}", stage.tenant.user), json!({"budget": {"api_calls": 4}})),
    ] {
        stage.platform.call(Method::PATCH, &path, &owner, body).await.expect(200);
    }
    stage.ask(text(&key, "/secret"), 3).await;
    assert_eq!(stage.told().await, [], "75 %");
    stage.ask(text(&key, "/secret"), 1).await;
    let mut told = stage.told().await;
    told.sort_by_key(|told| told.1.clone());
    let of = |by, what: &str, percent, limit| (by, what.to_owned(), percent, 4, limit);
    let name = stage.tenant.email.clone();
    let mut expected = [
        of(LimitedBy::Organization, "/gpt-4.1-mini/messages", 100, 4),
        of(LimitedBy::ApiKey, "shop//messages", 80, 5),
        of(LimitedBy::ApiKey, "shop/gpt-4.1-mini/messages", 100, 4),
        of(LimitedBy::Member, &format!("{name}//api_calls"), 100, 4),
    ];
    expected.sort_by_key(|told| told.1.clone());
    assert_eq!(told, expected);
    assert_eq!(stage.told().await, []);
    let rows = stage.rows().await;
    let targets: Vec<_> = rows.iter().filter_map(|row| row["target"].as_str()).collect();
    assert_eq!((rows.len(), targets.len()), (4, 3));
    assert!(targets.contains(&text(&key, "/id")) && targets.contains(&stage.tenant.user.as_str()));
    // A quiet tenant's budgets are not looked at; what it does next is.
    stage.platform.clock().advance(15 * MINUTE);
    assert!(!stage.platform.store().sweep_if_due(&stage.tenant.scope).await.unwrap().limits);
}

#[tokio::test]
async fn nobody_is_written_to_whose_address_is_not_confirmed_and_the_log_has_it() {
    let upstream = Upstream::start().await;
    let setup = Setup::default().upstream(&upstream).plan_change("messages = 1_000", "messages = 1");
    let platform = Platform::start(setup).await;
    let tenant = platform.tenant("free").await;
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    let jobs = Jobs::new(platform.store());
    jobs.all(Job::Sweep, false).await;
    assert_eq!(jobs.mails(), []);
    assert_eq!(
        platform
            .rows(&tenant.scope, "AUDIT#")
            .await
            .iter()
            .filter(|row| { row["action"].as_s().is_ok_and(|action| action == "limit.reached") })
            .count(),
        1
    );
}

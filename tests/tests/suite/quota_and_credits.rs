//! A model with a price takes of the plan's allowances and of the credits in one call: of both, or of neither.

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};
use tenantry_domain::{Resource, ledger::LedgerKind, metering::Meter};
use tenantry_store::NewLedgerRow;
use tenantry_tests::{
    http::text,
    platform::{Platform, Reply, Setup, Tenant},
    upstream::Upstream,
};

use crate::credits::PRICED;

const CHAT: &str = "/api/v1/chat/completions";

struct Stage {
    upstream: Upstream,
    platform: Platform,
    tenant: Tenant,
}

impl Stage {
    /// A tenant with `tokens` a month and `credits`; a prompt token costs one, a completion token two.
    async fn set(tokens: u64, credits: u64) -> Self {
        let upstream = Upstream::start().await;
        let setup = Setup::default().upstream(&upstream).variable("CATALOGUE_TOML", PRICED);
        let setup = setup.plan_change("llm_tokens = 200_000", &format!("llm_tokens = {tokens}"));
        let setup = setup.plan_change("requests_per_minute = 10", "requests_per_minute = 6_000");
        let platform =
            Platform::start(setup.plan_change("in_flight = 2", "in_flight = 100").plan_change("keys = 2", "keys = 9"))
                .await;
        let tenant = platform.tenant("free").await;
        if credits > 0 {
            let (kind, key) = (LedgerKind::Purchase, "ord_1");
            let new = NewLedgerRow { kind, amount: credits, key, reference: None, expires_at: None };
            platform.store().add_credits(&tenant.scope, &new).await.unwrap();
        }
        Self { upstream, platform, tenant }
    }

    async fn ask(&self, credential: &str, cap: Option<u64>) -> Reply {
        let mut body = json!({"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello"}]});
        if let Some(cap) = cap {
            body["max_tokens"] = cap.into();
        }
        self.platform.post(CHAT, credential, body).await
    }

    async fn meter(&self) -> Meter {
        self.platform.quiesce().await;
        self.platform.books(&self.tenant).await;
        self.platform.meter(&self.tenant).await
    }

    /// Tokens and credits that are left.
    async fn left(&self) -> (u64, u64) {
        let meter = self.meter().await;
        (meter.left.get(Resource::LlmTokens).number().unwrap(), meter.credits)
    }

    /// The cap that the vendor got last.
    fn cap(&self) -> u64 {
        let body = self.upstream.requests().last().unwrap().body.clone();
        body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64()).unwrap()
    }
}

#[tokio::test]
async fn what_lacks_one_of_both_takes_nothing_of_the_other() {
    for (tokens, credits, status, code) in [
        (1_000, 50, 402, "insufficient_credits"),
        (50, 100_000, 429, "quota_exceeded"),
        (50, 50, 429, "quota_exceeded"),
    ] {
        let stage = Stage::set(tokens, credits).await;
        let before = stage.meter().await;
        for cap in [Some(64), None] {
            let refused = stage.ask(&stage.tenant.api_key, cap).await.expect(status);
            assert_eq!(refused.code(), code);
        }
        assert_eq!(
            (stage.meter().await, stage.upstream.counts().requests),
            (before, 0),
            "not even a place in the minute"
        );
    }
}

#[tokio::test]
async fn a_call_takes_of_both_what_it_used_and_gives_back_the_rest() {
    let stage = Stage::set(10_000, 10_000).await;
    for cap in [64, 200] {
        let before = stage.left().await;
        let reply = stage.ask(&stage.tenant.api_key, Some(cap)).await.expect(200).json();
        let usage = |name: &str| reply["usage"][name].as_u64().unwrap();
        let (prompt, completion) = (usage("prompt_tokens"), usage("completion_tokens"));
        let after = stage.left().await;
        assert_eq!(before.0 - after.0, prompt + completion);
        assert_eq!(before.1 - after.1, prompt + 2 * completion);
    }
    let before = stage.left().await;
    let body = json!({"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "/error 500"}]});
    stage.platform.post(CHAT, &stage.tenant.api_key, body).await.expect(502);
    assert_eq!(stage.left().await, before, "nothing was produced, nothing is taken");
}

#[tokio::test]
async fn an_open_cap_is_lowered_to_what_both_cover() {
    // What is held for the prompt is the same each time; the vendor's own cap is 1,000.
    for (tokens, credits, lowered) in [(300, 100_000, "tokens"), (100_000, 300, "credits"), (300, 300, "credits")] {
        let stage = Stage::set(tokens, credits).await;
        stage.ask(&stage.tenant.api_key, None).await.expect(200);
        let (cap, prompt) = (
            stage.cap(),
            300 - {
                let probe = Stage::set(300, 100_000).await;
                probe.ask(&probe.tenant.api_key, None).await.expect(200);
                probe.cap()
            },
        );
        let expected = if lowered == "tokens" { 300 - prompt } else { (300 - prompt - 1) / 2 };
        assert_eq!(cap, expected, "{tokens} tokens and {credits} credits: {lowered}");
        assert!(prompt + cap <= tokens && prompt + 2 * cap <= credits);
        stage.meter().await;
    }
}

#[tokio::test]
async fn a_budget_of_both_stands_beside_the_tenants() {
    let stage = Stage::set(10_000, 10_000).await;
    let owner = text(&stage.platform.login(&stage.tenant).await, "/access_token").to_owned();
    let key = async |budget: Value| {
        let body = json!({"name": "k", "budget": budget});
        let key = stage.platform.post("/api/v1/api-keys", &owner, body).await.expect(201).json();
        text(&key, "/secret").to_owned()
    };
    let open = key(json!({"llm_tokens": 250, "credits": 200})).await;
    stage.ask(&open, None).await.expect(200);
    assert!((50..100).contains(&stage.cap()), "credits allow the least: {}", stage.cap());
    let before = stage.meter().await;
    let refused = stage.ask(&open, Some(500)).await.expect(429);
    assert!(["llm_tokens", "credits"].contains(&text(&refused.json(), "/error/limit/resource")), "{}", refused.text());
    let none = key(json!({"credits": 10})).await;
    let refused = stage.ask(&none, Some(64)).await.expect(429);
    assert_eq!(
        (refused.code().as_str(), text(&refused.json(), "/error/limit/resource")),
        ("quota_exceeded", "credits")
    );
    assert_eq!(stage.meter().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_30_parallel_calls_as_many_get_in_as_both_cover() {
    // Each holds the same, whatever it uses then: answers wait until all have asked.
    let probe = Stage::set(10_000, 10_000).await;
    let body =
        json!({"model": "gpt-4.1-mini", "max_tokens": 64, "messages": [{"role": "user", "content": "/hold hello"}]});
    let ask = async |stage: &Stage| stage.platform.post(CHAT, &stage.tenant.api_key, body.clone()).await;
    let (reply, held) = tokio::join!(ask(&probe), async {
        probe.upstream.wait_holding(1).await;
        let meter = probe.platform.meter(&probe.tenant).await;
        probe.upstream.release();
        let hold = meter.holds.values().next().unwrap().clone();
        (hold.amounts.get(Resource::LlmTokens), hold.credits)
    });
    reply.expect(200);
    let (tokens, credits) = held;
    for (tokens, credits, fit, code) in
        [(6 * tokens, 100 * credits, 6, "quota_exceeded"), (100 * tokens, 5 * credits + 1, 5, "insufficient_credits")]
    {
        let stage = Stage::set(tokens, credits).await;
        let mut calls: FuturesUnordered<_> = (0..30).map(|_| ask(&stage)).collect();
        // All but those that fit are refused while those wait for their answers.
        for _ in fit..30 {
            let refused = calls.next().await.unwrap();
            assert_eq!(refused.code(), code, "{}", refused.text());
        }
        stage.upstream.wait_holding(fit).await;
        stage.upstream.release();
        for _ in 0..fit {
            calls.next().await.unwrap().expect(200);
        }
        assert_eq!(stage.upstream.counts().requests, fit);
        stage.meter().await;
    }
}

//! What `x-ratelimit-*` says is what then happens: as many more calls are admitted as the last answer said, and no more.

use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{Period, Resource};
use tenantry_tests::{
    http::text,
    platform::{NOON, Platform, Reply, Setup, Tenant, chat_body},
    upstream::Upstream,
};

use crate::credits::PRICED;

const CHAT: &str = "/api/v1/chat/completions";
const MINI: &str = "gpt-4.1-mini";

struct Stage {
    _upstream: Upstream,
    platform: Platform,
    tenant: Tenant,
}

impl Stage {
    /// On the first plan, with these changes.
    async fn set(changes: &[(&str, &str)]) -> Self {
        Self::with(Setup::default(), changes).await
    }

    async fn with(mut setup: Setup, changes: &[(&str, &str)]) -> Self {
        let upstream = Upstream::start().await;
        for (from, to) in changes {
            setup = setup.plan_change(from, to);
        }
        let platform = Platform::start(setup.upstream(&upstream)).await;
        let tenant = platform.tenant("free").await;
        Self { _upstream: upstream, platform, tenant }
    }

    async fn owner(&self) -> String {
        text(&self.platform.login(&self.tenant).await, "/access_token").to_owned()
    }

    async fn chat(&self, prompt: &str) -> Reply {
        self.platform.chat(&self.tenant.api_key, prompt).await
    }

    /// Sends one call, and then as many as its answer says are left; the next one is refused.
    async fn keeps_its_word(&self, credential: &str, limit: u64, remaining: u64) {
        let ask = async || self.platform.post(CHAT, credential, chat_body("hello", false)).await;
        let first = ask().await.expect(200);
        assert_eq!(number(&first, "x-ratelimit-limit-requests"), limit);
        assert_eq!(number(&first, "x-ratelimit-remaining-requests"), remaining);
        for left in (0..remaining).rev() {
            assert_eq!(number(&ask().await.expect(200), "x-ratelimit-remaining-requests"), left);
        }
        let refused = ask().await.expect(429);
        assert_eq!(number(&refused, "x-ratelimit-limit-requests"), limit, "{}", refused.text());
        assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
        assert!(refused.header("ratelimit").starts_with("\"requests\";r=0;t="));
    }
}

fn number(reply: &Reply, header: &str) -> u64 {
    reply.header(header).parse().unwrap_or_else(|_| panic!("{header}: {:?} {}", reply.headers, reply.text()))
}

const FAST: (&str, &str) = ("requests_per_minute = 10", "requests_per_minute = 6_000");

#[tokio::test]
async fn the_rate_of_the_plan() {
    let stage = Stage::set(&[("requests_per_minute = 10", "requests_per_minute = 7")]).await;
    stage.keeps_its_word(&stage.tenant.api_key, 7, 6).await;
    // A seventh of a minute later one more is.
    let refused = stage.chat("hello").await.expect(429);
    assert_eq!(refused.header("retry-after"), "9");
    stage.platform.clock().advance(8_572);
    let reply = stage.chat("hello").await.expect(200);
    assert_eq!(number(&reply, "x-ratelimit-remaining-requests"), 0);
    // All are there again when as much time has passed as it says.
    assert_eq!(reply.header("x-ratelimit-reset-requests"), format!("{}ms", 7 * 8_572));
    stage.platform.clock().advance(7 * 8_572);
    stage.keeps_its_word(&stage.tenant.api_key, 7, 6).await;
}

#[tokio::test]
async fn the_messages_of_the_month() {
    let stage = Stage::set(&[FAST, ("messages = 1_000", "messages = 4")]).await;
    stage.keeps_its_word(&stage.tenant.api_key, 4, 3).await;
    let refused = stage.chat("hello").await.expect(429);
    let rest = Period::of(NOON).end() - NOON;
    assert_eq!(refused.header("x-ratelimit-reset-requests"), format!("{rest}ms"));
    assert_eq!(refused.header("ratelimit-policy"), format!("\"requests\";q=4;w={}", 30 * 24 * 3600));
    stage.platform.clock().advance(rest);
    stage.keeps_its_word(&stage.tenant.api_key, 4, 3).await;
}

#[tokio::test]
async fn the_calls_of_the_month() {
    let stage = Stage::set(&[FAST, ("api_calls = 10_000", "api_calls = 3")]).await;
    let embed = async || {
        let body = json!({"model": "text-embedding-3-small", "input": "hello"});
        stage.platform.post("/api/v1/embeddings", &stage.tenant.api_key, body).await
    };
    for left in [2, 1, 0] {
        let reply = embed().await.expect(200);
        assert_eq!(number(&reply, "x-ratelimit-limit-requests"), 3, "messages are no limit of embeddings");
        assert_eq!(number(&reply, "x-ratelimit-remaining-requests"), left);
        stage.platform.quiesce().await;
        let left = stage.platform.meter(&stage.tenant).await.left.get(Resource::LlmTokens).number().unwrap();
        assert_eq!(number(&reply, "x-ratelimit-remaining-tokens"), left);
    }
    assert_eq!(number(&embed().await.expect(429), "x-ratelimit-remaining-requests"), 0);
}

#[tokio::test]
async fn the_tightest_of_the_budgets() {
    let stage = Stage::set(&[FAST]).await;
    let owner = stage.owner().await;
    let body = json!({"name": "k", "budget": {"messages": 8, "models": {MINI: {"messages": 6}}}});
    let key = stage.platform.post("/api/v1/api-keys", &owner, body).await.expect(201).json();
    let organization = format!("/api/v1/organizations/{}", stage.tenant.org);
    let set = async |path: &str, body: Value| {
        stage.platform.call(Method::PATCH, path, &owner, body).await.expect(200);
    };
    let of_member = format!("{organization}/members/{}", stage.tenant.user);
    set(&of_member, json!({"requests_per_minute": 4})).await;
    stage.keeps_its_word(text(&key, "/secret"), 4, 3).await;
    // The key has two left for the model.
    set(&of_member, json!({"requests_per_minute": null})).await;
    stage.keeps_its_word(text(&key, "/secret"), 6, 1).await;
    set(&organization, json!({"model_budgets": {MINI: {"api_calls": 2}}})).await;
    stage.keeps_its_word(&owner, 2, 1).await;
}

#[tokio::test]
async fn tokens_are_those_that_are_left_after_the_call_however_it_ends() {
    let stage = Stage::set(&[FAST]).await;
    for (prompt, status) in [("hello", 200), ("/error 500", 500), ("/drop", 502), ("/no-usage hello", 200)] {
        let reply = stage.chat(prompt).await;
        assert_eq!(reply.status.is_success(), status == 200, "{prompt}: {}", reply.text());
        stage.platform.quiesce().await;
        let meter = stage.platform.meter(&stage.tenant).await;
        let left = |resource| meter.left.get(resource).number().unwrap();
        assert_eq!(number(&reply, "x-ratelimit-limit-tokens"), 200_000, "{prompt}");
        assert_eq!(number(&reply, "x-ratelimit-remaining-tokens"), left(Resource::LlmTokens), "{prompt}");
        assert_eq!(number(&reply, "x-ratelimit-remaining-requests"), left(Resource::Messages), "{prompt}");
        assert_eq!(reply.header("x-ratelimit-reset-tokens"), format!("{}s", (Period::of(NOON).end() - NOON) / 1000));
    }
    // The failed ones took a place in the minute all the same.
    assert_eq!(stage.platform.meter(&stage.tenant).await.rate.remaining(0, NOON), 6_000);
}

#[tokio::test]
async fn a_stream_says_at_its_beginning_what_is_left_while_it_goes_on() {
    let stage = Stage::set(&[]).await;
    let reply = stage.platform.chat_stream(&stage.tenant.api_key, "hello").await.expect(200);
    stage.platform.quiesce().await;
    let left = stage.platform.meter(&stage.tenant).await.left.get(Resource::LlmTokens).number().unwrap();
    let said = number(&reply, "x-ratelimit-remaining-tokens");
    let cap_and_prompt = 64 + 32;
    assert!(said < left && said + 2 * cap_and_prompt > 200_000, "{said}: what is held counts as used; {left}");
    assert_eq!(number(&reply, "x-ratelimit-remaining-requests"), 9);
    // An upstream that refuses the stream: all is known then.
    let reply = stage.platform.chat_stream(&stage.tenant.api_key, "/error 503").await.expect(503);
    assert_eq!(number(&reply, "x-ratelimit-remaining-tokens"), left);
    assert_eq!(number(&reply, "x-ratelimit-remaining-requests"), 8);
}

#[tokio::test]
async fn refusals_say_it_too() {
    // Out of credits.
    let stage = Stage::with(Setup::default().variable("CATALOGUE_TOML", PRICED), &[]).await;
    for _ in 0..3 {
        let refused = stage.chat("hello").await.expect(402);
        assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 10, "a refusal takes nothing");
        assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 200_000);
        let limit = &refused.json()["error"]["limit"];
        assert_eq!(*limit, json!({"of": "plan", "resource": "credits", "left": 0}));
    }
    // Not in the plan.
    let stage = Stage::set(&[]).await;
    let body = json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]});
    let refused = stage.platform.post(CHAT, &stage.tenant.api_key, body).await.expect(403);
    assert_eq!(refused.code(), "upgrade_required");
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 10);
    // Too many tokens wanted.
    let mut body = chat_body("hello", false);
    body["n"] = json!(10_000);
    let stage = Stage::set(&[("llm_tokens = 200_000", "llm_tokens = 50")]).await;
    let refused = stage.chat("hello").await.expect(429);
    assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 50);
    assert_eq!(refused.json()["error"]["limit"]["left"], 50);
}

//! The meter through the gateway: nobody gets in past a limit, and every end of a call is booked right.

use futures_util::future::join_all;
use serde_json::json;
use tenantry_domain::{Resource, plans::Limit, usage::Status};
use tenantry_tests::{
    network::{chat, http},
    platform::{Platform, Setup, chat_body},
    upstream::Upstream,
};

/// Every way in which a call can end, as the prompt that makes the upstream do it.
const ENDS: [(&str, bool, Status, bool); 15] = [
    ("hello", false, Status::Ok, false),
    ("hello", true, Status::Ok, false),
    ("/words 40 /cached 3 hello", false, Status::Ok, false),
    ("/reasoning hello", true, Status::Ok, false),
    ("/usage-every-chunk hello", true, Status::Ok, false),
    ("/no-done hello", true, Status::Ok, false),
    ("/split /unicode /crlf hello", true, Status::Ok, false),
    ("/no-usage hello", true, Status::Ok, true),
    ("/no-usage hello", false, Status::Ok, true),
    ("/negative-usage hello", true, Status::Ok, true),
    ("/absurd-usage hello", false, Status::Ok, true),
    ("/midstream-error hello", true, Status::Interrupted, true),
    ("/midstream-cut hello", true, Status::Interrupted, true),
    ("/error 500", false, Status::UpstreamError, false),
    ("/error 429", true, Status::UpstreamError, false),
];

#[tokio::test]
async fn every_end_of_a_call_is_booked_once_and_to_the_token() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    let mut exact = tenantry_domain::usage::Tokens::default();
    for (prompt, stream, status, estimated) in ENDS {
        platform.post("/api/v1/chat/completions", &tenant.api_key, chat_body(prompt, stream)).await;
        platform.quiesce().await;
        let records = platform.books(&tenant).await;
        let record = &records[0];
        assert_eq!((record.status, record.estimated), (status, estimated), "{prompt} stream={stream}");
        assert_eq!(record.streamed, stream);
        let reported = upstream.requests().last().unwrap().usage;
        match status {
            Status::UpstreamError => assert_eq!(record.charged, tenantry_domain::Amounts::NONE, "{prompt}"),
            _ if estimated => assert!(record.tokens.prompt > 0 && record.tokens.completion > 0, "{prompt}: {record:?}"),
            _ => {
                let reported = reported.expect("the upstream reported usage");
                assert_eq!(record.tokens.prompt, reported.prompt_tokens.unsigned_abs(), "{prompt}");
                assert_eq!(record.tokens.completion, reported.completion_tokens.unsigned_abs(), "{prompt}");
                assert_eq!(record.tokens.cached, reported.cached_tokens.unsigned_abs(), "{prompt}");
                assert_eq!(record.tokens.reasoning, reported.reasoning_tokens.unsigned_abs(), "{prompt}");
                exact.prompt += record.tokens.prompt;
                exact.completion += record.tokens.completion;
            }
        }
        if status != Status::UpstreamError {
            assert_eq!(record.charged.get(Resource::LlmTokens), record.tokens.total(), "{prompt}");
            assert_eq!(record.charged.get(Resource::Messages), 1, "{prompt}");
            assert_eq!(record.charged.get(Resource::ApiCalls), 1, "{prompt}");
        }
    }
    assert_eq!(platform.books(&tenant).await.len(), ENDS.len(), "one record for each admitted request");
    assert!(exact.prompt > 0 && exact.completion > 0);
}

#[tokio::test]
async fn embeddings_are_metered_by_what_the_upstream_reports() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let body = json!({"model": "text-embedding-3-small", "input": ["one two three", "four"]});
    platform.post("/api/v1/embeddings", &tenant.api_key, body).await.expect(200);
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records[0].tokens.prompt, upstream.reported().prompt_tokens.unsigned_abs());
    assert_eq!(records[0].charged.get(Resource::Messages), 0);
    assert_eq!(records[0].charged.get(Resource::ApiCalls), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_200_parallel_calls_on_a_quota_for_10_at_most_10_reach_the_upstream() {
    let upstream = Upstream::start().await;
    let setup = Setup::default()
        .upstream(&upstream)
        .plan_change("messages = 1_000", "messages = 10")
        .plan_change("requests_per_minute = 10", "requests_per_minute = 60_000")
        .plan_change("in_flight = 2", "in_flight = 1_000");
    let platform = Platform::start(setup).await;
    let tenant = platform.tenant("free").await;
    let calls = (0..200).map(|n| {
        let (platform, key) = (&platform, &tenant.api_key);
        async move { platform.post("/api/v1/chat/completions", key, chat_body("hello", n % 2 == 0)).await }
    });
    let replies = join_all(calls).await;
    platform.quiesce().await;

    let admitted = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(admitted, 10, "all that the quota covers, and no more");
    assert_eq!(upstream.counts().requests, 10);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (429, "quota_exceeded"));
        assert_eq!(reply.header("x-should-retry"), "false");
    }
    assert_eq!(platform.books(&tenant).await.len(), 10);
    let meter = platform.meter(&tenant).await;
    assert_eq!(meter.left.get(Resource::Messages).number(), Some(0));
}

#[tokio::test]
async fn the_rate_is_a_minutes_worth_at_once_and_then_one_per_interval() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    for n in (0..10).rev() {
        let reply = platform.chat(&tenant.api_key, "hello").await.expect(200);
        assert_eq!(reply.header("x-ratelimit-limit-requests"), "10");
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), n.to_string());
    }
    let reply = platform.chat(&tenant.api_key, "hello").await.expect(429);
    assert_eq!((reply.code().as_str(), reply.header("retry-after")), ("rate_limited", "6"));
    platform.clock().advance(5_999);
    platform.chat(&tenant.api_key, "hello").await.expect(429);
    platform.clock().advance(1);
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.chat(&tenant.api_key, "hello").await.expect(429);
    platform.clock().advance(600_000);
    for _ in 0..10 {
        platform.chat(&tenant.api_key, "hello").await.expect(200);
    }
    platform.chat(&tenant.api_key, "hello").await.expect(429);
    assert_eq!(upstream.counts().requests, 21);
    platform.quiesce().await;
    platform.books(&tenant).await;
}

#[tokio::test]
async fn no_more_are_in_flight_than_the_plan_allows() {
    let upstream = Upstream::start().await;
    let platform = std::sync::Arc::new(Platform::start(Setup::default().upstream(&upstream)).await);
    let tenant = platform.tenant("free").await;
    let held: Vec<_> = (0..2)
        .map(|_| {
            let (platform, key) = (platform.clone(), tenant.api_key.clone());
            tokio::spawn(async move { platform.chat(&key, "/hold-headers hello").await })
        })
        .collect();
    upstream.wait_holding(2).await;
    let reply = platform.chat(&tenant.api_key, "hello").await.expect(429);
    assert_eq!((reply.code().as_str(), reply.header("retry-after")), ("too_many_in_flight", "1"));
    upstream.release();
    for call in held {
        call.await.unwrap().expect(200);
    }
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    assert_eq!(platform.books(&tenant).await.len(), 3);
}

#[tokio::test]
async fn a_cap_that_the_client_leaves_open_is_lowered_to_what_is_left_and_forced_upstream() {
    let upstream = Upstream::start().await;
    let setup = Setup::default().upstream(&upstream).plan_change("llm_tokens = 200_000", "llm_tokens = 500");
    let platform = Platform::start(setup).await;
    let tenant = platform.tenant("free").await;
    let mut open = chat_body("hello", false);
    open.as_object_mut().unwrap().remove("max_tokens");
    platform.post("/api/v1/chat/completions", &tenant.api_key, open.clone()).await.expect(200);
    let sent = &upstream.requests()[0].body;
    let cap = sent["max_tokens"].as_u64().or_else(|| sent["max_completion_tokens"].as_u64()).unwrap();
    assert!((400..500).contains(&cap), "{cap}");
    // One that the client names is its own decision.
    let mut fixed = open;
    fixed["max_tokens"] = json!(10_000);
    let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, fixed).await.expect(429);
    assert_eq!(reply.code(), "quota_exceeded");
    assert_eq!(upstream.counts().requests, 1);
    platform.quiesce().await;
    platform.books(&tenant).await;
}

#[tokio::test]
async fn a_priced_model_needs_credits() {
    let upstream = Upstream::start().await;
    let platform =
        Platform::start(Setup::default().upstream(&upstream).variable("CATALOGUE_TOML", crate::credits::PRICED)).await;
    let tenant = platform.tenant("team").await;
    let reply = platform.chat(&tenant.api_key, "hello").await.expect(402);
    assert_eq!(reply.code(), "insufficient_credits");
    assert_eq!(upstream.counts().requests, 0);
    platform.quiesce().await;
    assert!(platform.books(&tenant).await.is_empty());
}

#[tokio::test]
async fn usage_that_exceeds_what_was_held_is_charged_as_held_and_the_rest_is_recorded() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    // The upstream counts every word of the prompt, here many more tokens than were held: spaces in one run.
    let body = json!({"model": "text-embedding-3-small", "input": "a ".repeat(3000)});
    platform.post("/api/v1/embeddings", &tenant.api_key, body).await.expect(200);
    platform.quiesce().await;
    let record = &platform.books(&tenant).await[0];
    assert_eq!(record.tokens.total(), 3000);
    assert_eq!(record.charged.get(Resource::LlmTokens) + record.overrun, 3000);
}

#[tokio::test]
async fn an_event_delivered_again_regrouped_or_late_counts_once() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("team").await;
    for _ in 0..5 {
        platform.chat(&tenant.api_key, "hello").await.expect(200);
    }
    platform.quiesce().await;
    let events = platform.books(&tenant).await;
    let queue = platform.host().queue();
    // Again, twice in one batch, in another order, and beside a message that is none.
    for event in events.iter().rev().chain(&events[1..3]) {
        queue.push(&serde_json::to_string(event).unwrap()).unwrap();
    }
    queue.push("{\"not\": \"an event\"}").unwrap();
    queue.deliver(platform.store()).await.unwrap();
    assert_eq!(platform.books(&tenant).await, events);
    // The poison message fails alone, and is dead after five deliveries.
    assert_eq!(queue.depth().unwrap(), (1, 0));
    platform.quiesce().await;
    assert_eq!(queue.depth().unwrap(), (0, 1));
}

/// How many files this process may have open, sockets among them; 1,024 where that cannot be told.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1_024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_over_http_on_a_quota_for_137_are_admitted_137_times() {
    const CALLS: usize = 1_000;
    let upstream = Upstream::start().await;
    let setup = Setup::default()
        .plan_change("messages = 1_000", "messages = 137")
        .plan_change("requests_per_minute = 10", "requests_per_minute = \"unlimited\"")
        .plan_change("in_flight = 2", "in_flight = 1_000");
    let platform = Platform::start(setup.upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let (url, http) = (platform.listen().await, http());
    // All at once; where so many sockets cannot be had, as many as can.
    let at_once = if open_files() >= 4 * CALLS { CALLS } else { 100 };
    let mut statuses = vec![];
    for _ in 0..CALLS / at_once {
        let calls = (0..at_once).map(|n| chat(&http, &url, &tenant.api_key, "hello", n % 2 == 0));
        statuses.extend(join_all(calls).await.into_iter().map(|answer| answer.expect("an answer").0));
    }
    let count = |status| statuses.iter().filter(|seen| **seen == status).count();
    assert_eq!((count(200), count(429)), (137, CALLS - 137), "{statuses:?}");
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert_eq!((records.len(), upstream.requests().len()), (137, 137));
    assert_eq!(platform.meter(&tenant).await.left.get(Resource::Messages), Limit::Of(0));
}

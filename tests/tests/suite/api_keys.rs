//! Scopes, ends, rotation and test mode of API keys, and what a bad one costs.

use std::sync::Arc;

use axum::body::Body;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tenantry_domain::{KeyId, secret::sha256_hex};
use tenantry_host::dynamodb::Capacity;
use tenantry_tests::{
    accounts::token_in,
    http::{problem, seen, text},
    platform::{Platform, Reply, Setup, Tenant, request},
    upstream::Upstream,
};

const KEYS: &str = "/api/v1/api-keys";
const ORGANIZATIONS: &str = "/api/v1/organizations";
const STATS: &str = "/api/v1/usage/stats";
const MINUTE: i64 = 60_000;

async fn stage(setup: Setup) -> (Platform, Tenant, String) {
    let platform = Platform::start(setup).await;
    let tenant = platform.tenant("team").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    (platform, tenant, token)
}

async fn create(platform: &Platform, token: &str, body: Value) -> Value {
    platform.post(KEYS, token, body).await.expect(201).json()
}

fn path(key: &Value) -> String {
    format!("{KEYS}/{}", text(key, "/id"))
}

async fn patch(platform: &Platform, token: &str, key: &Value, body: Value) -> Reply {
    platform.call(Method::PATCH, &path(key), token, body).await
}

async fn status(platform: &Platform, secret: &str) -> StatusCode {
    platform.get(ORGANIZATIONS, secret).await.status
}

#[tokio::test]
async fn a_key_with_one_character_flipped_is_refused_without_a_read() {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(Setup::default().capacity(&capacity)).await;
    let tenant = platform.tenant("team").await;
    let reads = capacity.read_units();
    for at in 3..tenant.api_key.len() {
        let mut flipped = tenant.api_key.clone().into_bytes();
        flipped[at] = if flipped[at] == b'x' { b'y' } else { b'x' };
        let flipped = String::from_utf8(flipped).unwrap();
        problem(&platform.get(ORGANIZATIONS, &flipped).await, 401, "invalid_api_key");
    }
    assert!((capacity.read_units() - reads).abs() < f64::EPSILON, "something was read");
    platform.get(ORGANIZATIONS, &tenant.api_key).await.expect(200);
    assert!(capacity.read_units() > reads, "reads are counted");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_else() {
    let (platform, _, token) = stage(Setup::default()).await;
    for (scopes, models, usage) in [
        (json!(["models"]), 200, 403),
        (json!(["usage"]), 403, 200),
        (json!(["login"]), 403, 403),
        (json!(["usage", "models"]), 200, 200),
        (Value::Null, 200, 200),
    ] {
        let mut body = json!({"name": "k"});
        if !scopes.is_null() {
            body["scopes"] = scopes.clone();
        }
        let key = create(&platform, &token, body).await;
        let secret = text(&key, "/secret");
        assert_eq!(platform.get("/api/v1/models", secret).await.status, models, "{scopes}");
        assert_eq!(platform.get(STATS, secret).await.status, usage, "{scopes}");
        let chat = json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5});
        assert_eq!(platform.post("/api/v1/chat/completions", secret, chat).await.status, models, "{scopes}");
        problem(&platform.get(KEYS, secret).await, 403, "forbidden");
    }
    let key = create(&platform, &token, json!({"name": "k", "scopes": ["models"]})).await;
    let refused = platform.get(STATS, text(&key, "/secret")).await;
    assert!(text(&problem(&refused, 403, "forbidden"), "/detail").contains("scope"));
    // A change counts at once where it was made.
    let changed = patch(&platform, &token, &key, json!({"scopes": ["usage"]})).await.expect(200).json();
    assert_eq!(changed["scopes"], json!(["usage"]));
    platform.get(STATS, text(&key, "/secret")).await.expect(200);
    platform.get("/api/v1/models", text(&key, "/secret")).await.expect(403);
}

#[tokio::test]
async fn an_end_is_kept_to_the_millisecond_also_from_memory() {
    let (platform, _, token) = stage(Setup::default()).await;
    let key = create(&platform, &token, json!({"name": "k", "expires_at": "2026-11-20T12:00:10+00:00"})).await;
    assert_eq!(key["expires_at"], "2026-11-20T12:00:10.000Z");
    let secret = text(&key, "/secret");
    platform.clock().advance(9_999);
    assert_eq!(status(&platform, secret).await, 200);
    platform.clock().advance(1);
    let expired = platform.get(ORGANIZATIONS, secret).await;
    problem(&expired, 401, "invalid_api_key");
    // An end may be put off, or taken away.
    patch(&platform, &token, &key, json!({"expires_at": "2026-11-20T12:01:00Z"})).await.expect(200);
    assert_eq!(status(&platform, secret).await, 200);
    platform.clock().advance(MINUTE);
    assert_eq!(seen(&platform.get(ORGANIZATIONS, secret).await), seen(&expired));
    let changed = patch(&platform, &token, &key, json!({"expires_at": null})).await.expect(200).json();
    assert_eq!(changed["expires_at"], Value::Null);
    assert_eq!(status(&platform, secret).await, 200);
}

#[tokio::test]
async fn a_key_is_switched_off_and_on() {
    let (platform, _, token) = stage(Setup::default()).await;
    let key = create(&platform, &token, json!({"name": "k"})).await;
    let secret = text(&key, "/secret");
    assert_eq!(status(&platform, secret).await, 200);
    patch(&platform, &token, &key, json!({"disabled": true})).await.expect(200);
    problem(&platform.get(ORGANIZATIONS, secret).await, 401, "invalid_api_key");
    patch(&platform, &token, &key, json!({"disabled": false, "name": "renamed"})).await.expect(200);
    assert_eq!(status(&platform, secret).await, 200);
    let listed = platform.get(KEYS, &token).await.expect(200).json();
    assert_eq!(text(&listed, "/data/1/name"), "renamed");
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_as_long_as_was_said() {
    let (platform, _, token) = stage(Setup::default()).await;
    let key = create(&platform, &token, json!({"name": "k", "scopes": ["usage"]})).await;
    let first = text(&key, "/secret").to_owned();
    let rotate = format!("{}/rotate", path(&key));
    let rotated = platform.post(&rotate, &token, json!({"overlap_seconds": 300})).await.expect(200);
    assert_eq!(rotated.header("cache-control"), "no-store");
    let rotated = rotated.json();
    let second = text(&rotated, "/secret").to_owned();
    assert_eq!((&rotated["id"], &rotated["scopes"]), (&key["id"], &json!(["usage"])));
    assert_eq!(rotated["previous_secret_expires_at"], "2026-11-20T12:05:00.000Z");
    assert_eq!(text(&rotated, "/last4"), &second[second.len() - 4..]);
    for secret in [&first, &second] {
        assert_eq!(status(&platform, secret).await, 200);
        platform.get("/api/v1/models", secret).await.expect(403);
    }
    // Changes count for both.
    patch(&platform, &token, &key, json!({"disabled": true})).await.expect(200);
    assert_eq!(
        (status(&platform, &first).await, status(&platform, &second).await),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    patch(&platform, &token, &key, json!({"disabled": false})).await.expect(200);
    platform.clock().advance(5 * MINUTE - 1);
    assert_eq!((status(&platform, &first).await, status(&platform, &second).await), (StatusCode::OK, StatusCode::OK));
    platform.clock().advance(1);
    assert_eq!(
        (status(&platform, &first).await, status(&platform, &second).await),
        (StatusCode::UNAUTHORIZED, StatusCode::OK)
    );

    // Without an overlap the old one ends, and so does the one before with an overlap of its own.
    let third = platform.post(&rotate, &token, json!({"overlap_seconds": 604_800})).await.expect(200).json();
    let fourth = platform.post(&rotate, &token, Value::Null).await.expect(200).json();
    assert_eq!(fourth["previous_secret_expires_at"], Value::Null);
    assert_eq!(status(&platform, &second).await, 401);
    assert_eq!(status(&platform, text(&third, "/secret")).await, 401);
    assert_eq!(status(&platform, text(&fourth, "/secret")).await, 200);
    platform.post(&rotate, &token, json!({"overlap_seconds": 604_801})).await.expect(422);

    // Revoking ends all.
    let fifth = platform.post(&rotate, &token, json!({"overlap_seconds": 300})).await.expect(200).json();
    platform.delete(&path(&key), &token).await.expect(204);
    for secret in [text(&fourth, "/secret"), text(&fifth, "/secret")] {
        assert_eq!(status(&platform, secret).await, 401);
    }
    problem(&platform.post(&rotate, &token, Value::Null).await, 404, "not_found");
    problem(&patch(&platform, &token, &key, json!({"name": "x"})).await, 404, "not_found");
}

#[tokio::test]
async fn parallel_rotations_leave_the_secrets_that_the_list_shows() {
    let (platform, _, token) = stage(Setup::default()).await;
    let key = create(&platform, &token, json!({"name": "k"})).await;
    let rotate = format!("{}/rotate", path(&key));
    let replies = join_all((0..4).map(|_| platform.post(&rotate, &token, json!({"overlap_seconds": 0})))).await;
    let secrets: Vec<_> = replies
        .iter()
        .filter(|reply| reply.status == 200)
        .map(|reply| text(&reply.json(), "/secret").to_owned())
        .collect();
    let listed = platform.get(KEYS, &token).await.expect(200).json();
    let mut good = vec![];
    for secret in &secrets {
        if status(&platform, secret).await == 200 {
            good.push(secret[secret.len() - 4..].to_owned());
        }
    }
    assert_eq!(good, [text(&listed, "/data/1/last4")]);
    assert_eq!(status(&platform, text(&key, "/secret")).await, 401);
}

#[tokio::test]
async fn a_change_may_be_meant_for_one_version() {
    let (platform, _, token) = stage(Setup::default()).await;
    let reply = platform.post(KEYS, &token, json!({"name": "k"})).await.expect(201);
    let (key, tag) = (reply.json(), reply.header("etag").to_owned());
    let meant = |method: Method, tag: &str, body: &Value| -> Request<Body> {
        let mut request = request(method, &path(&key), &token, body);
        request.headers_mut().insert("if-match", tag.parse().unwrap());
        request
    };
    let renamed = platform.send(meant(Method::PATCH, &tag, &json!({"name": "one"}))).await.expect(200);
    assert_ne!(renamed.header("etag"), tag);
    problem(&platform.send(meant(Method::PATCH, &tag, &json!({"name": "two"}))).await, 412, "precondition_failed");
    problem(&platform.send(meant(Method::DELETE, &tag, &Value::Null)).await, 412, "precondition_failed");
    platform.send(meant(Method::DELETE, renamed.header("etag"), &Value::Null)).await.expect(204);
}

#[tokio::test]
async fn a_key_for_test_mode_reaches_the_sandbox_and_no_vendor() {
    let upstream = Upstream::start().await;
    let (platform, tenant, token) = stage(Setup::default().upstream(&upstream)).await;
    let key = create(&platform, &token, json!({"name": "k", "mode": "test"})).await;
    let secret = text(&key, "/secret");
    assert!(secret.starts_with("wk_test_") && key["test"] == true);
    let models = platform.get("/api/v1/models", secret).await.expect(200).json();
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| text(model, "/id")).collect();
    assert_eq!(ids, ["sandbox/echo"]);
    let body = |model| json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8});
    let answer = platform.post("/api/v1/chat/completions", secret, body("sandbox/echo")).await.expect(200).json();
    assert_eq!(text(&answer, "/choices/0/message/content"), "hello");
    let refused = platform.post("/api/v1/chat/completions", secret, body("gpt-4.1-mini")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (404, "model_not_found".into()));
    // The other way round: where there are vendors, the sandbox is no model of theirs.
    let live = platform.post("/api/v1/chat/completions", &tenant.api_key, body("sandbox/echo")).await;
    assert_eq!((live.status.as_u16(), live.code()), (404, "model_not_found".into()));
    platform.post("/api/v1/chat/completions", &tenant.api_key, body("gpt-4.1-mini")).await.expect(200);
    // It is metered like any other, and stays in test mode when it is rotated.
    platform.quiesce().await;
    assert_eq!(platform.books(&tenant).await.len(), 2);
    let rotated = platform.post(&format!("{}/rotate", path(&key)), &token, Value::Null).await.expect(200).json();
    assert!(text(&rotated, "/secret").starts_with("wk_test_"));
}

#[tokio::test]
async fn a_use_is_noted_about_once_an_hour() {
    let (platform, tenant, token) = stage(Setup::default()).await;
    let last =
        async |token: &str| platform.get(KEYS, token).await.expect(200).json()["data"][0]["last_used_at"].clone();
    let body = json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8});
    let call = async || {
        platform.post("/api/v1/chat/completions", &tenant.api_key, body.clone()).await.expect(200);
        platform.quiesce().await;
    };
    assert_eq!(last(&token).await, Value::Null);
    call().await;
    assert_eq!(last(&token).await, "2026-11-20T12:00:00.000Z");
    platform.clock().advance(59 * MINUTE);
    call().await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    assert_eq!(last(&token).await, "2026-11-20T12:00:00.000Z");
    platform.clock().advance(MINUTE);
    call().await;
    assert_eq!(last(&token).await, "2026-11-20T13:00:00.000Z");
}

#[tokio::test]
async fn no_secret_stands_in_a_list_or_in_the_log() {
    let (platform, tenant, token) = stage(Setup::default()).await;
    let key = create(&platform, &token, json!({"name": "k"})).await;
    let rotate = format!("{}/rotate", path(&key));
    let rotated = platform.post(&rotate, &token, json!({"overlap_seconds": 60})).await.expect(200).json();
    patch(&platform, &token, &key, json!({"name": "n", "scopes": ["login"]})).await.expect(200);
    let shown = [KEYS, "/api/v1/audit-log", &format!("{ORGANIZATIONS}/{}/export", tenant.org)];
    for path in shown {
        let shown = platform.get(path, &token).await.expect(200).text();
        for secret in [text(&key, "/secret"), text(&rotated, "/secret"), &tenant.api_key] {
            assert!(!shown.contains(&secret[12..40]) && !shown.contains(&sha256_hex(secret.as_bytes())), "{path}");
        }
    }
}

#[tokio::test]
async fn a_foreign_key_is_changed_and_rotated_like_one_that_never_existed() {
    let (platform, _, token) = stage(Setup::default()).await;
    let theirs = platform.tenant("team").await;
    let ids = [theirs.key.to_string(), KeyId::new().to_string(), "nonsense".into(), "%ff".into()];
    for (method, tail, body) in [
        (Method::PATCH, "", json!({"name": "mine"})),
        (Method::POST, "/rotate", Value::Null),
        (Method::DELETE, "", Value::Null),
    ] {
        let mut first = None;
        for id in &ids {
            let reply = platform.call(method.clone(), &format!("{KEYS}/{id}{tail}"), &token, body.clone()).await;
            problem(&reply, 404, "not_found");
            assert_eq!(&seen(&reply), first.get_or_insert(seen(&reply)), "{method} {id}");
        }
    }
    assert_eq!(status(&platform, &theirs.api_key).await, 200);
}

#[tokio::test]
async fn who_was_removed_or_demoted_neither_lists_nor_revokes() {
    let (platform, tenant, owner) = stage(Setup::default()).await;
    let key = create(&platform, &owner, json!({"name": "k"})).await;
    let guest = platform.register("guest@example.com").await;
    let members = format!("{ORGANIZATIONS}/{}/members", tenant.org);
    platform.post(&members, &owner, json!({"email": "guest@example.com", "role": "admin"})).await.expect(201);
    let link = json!({"token": token_in(&platform.last_letter_to("guest@example.com").await)});
    let token = text(&guest, "/access_token");
    platform.post("/api/v1/invites/accept", token, link).await.expect(200);
    let switch = json!({"organization_id": tenant.org});
    let inside = platform.post("/api/v1/auth/switch", token, switch).await.expect(200).json();
    let inside = text(&inside, "/access_token");
    platform.get(KEYS, inside).await.expect(200);

    let member = format!("{members}/{}", text(&guest, "/user/id"));
    platform.call(Method::PATCH, &member, &owner, json!({"role": "member"})).await.expect(200);
    for reply in [
        platform.get(KEYS, inside).await,
        platform.delete(&path(&key), inside).await,
        platform.get("/api/v1/tenant-users", inside).await,
    ] {
        problem(&reply, 403, "forbidden");
    }
    platform.delete(&member, &owner).await.expect(204);
    for reply in [
        platform.get(KEYS, inside).await,
        platform.delete(&path(&key), inside).await,
        platform.get("/api/v1/tenant-users", inside).await,
    ] {
        problem(&reply, 401, "unauthenticated");
    }
    assert_eq!(status(&platform, text(&key, "/secret")).await, 200);
}

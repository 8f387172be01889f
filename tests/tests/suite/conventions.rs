//! What holds for all routes: `Idempotency-Key`, `ETag` and `If-Match`, CORS, security headers; and the inbox of
//! a laptop.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use tenantry_domain::{KeyId, budget::Budgets, plans::Limit, roles::KeyScopes, secret::ApiKeySecret};
use tenantry_store::NewApiKey;
use tenantry_tests::{
    http::{problem, text},
    platform::{Platform, Reply, Setup, Tenant, request},
};
use tenantry_web::{
    ApiError, Authenticator, Caller, Code,
    auth::{SigningKey, TokenVerifier},
    idempotency::{Idempotency, LEASE, idempotent},
    mail::{Content, Language, Mail, MailQueue as _},
    router::{BODY_LIMIT, ErrorShape, around},
};
use tokio::sync::Notify;
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;

const KEYS: &str = "/api/v1/api-keys";
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A tenant on a plan without a limit of keys, and its owner's access token. It has one key.
async fn stage() -> (Platform, Tenant, String) {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let token = sign_in(&platform, &tenant).await;
    (platform, tenant, token)
}

async fn sign_in(platform: &Platform, tenant: &Tenant) -> String {
    text(&platform.login(tenant).await, "/access_token").to_owned()
}

/// A POST under a key.
fn keyed(path: &str, token: &str, key: &str, body: &Value) -> Request<Body> {
    let mut request = request(Method::POST, path, token, body);
    request.headers_mut().insert("idempotency-key", HeaderValue::from_str(key).unwrap());
    request
}

async fn create(platform: &Platform, token: &str, key: &str, name: &str) -> Reply {
    platform.send(keyed(KEYS, token, key, &json!({"name": name}))).await
}

/// Names of the tenant's keys but the first, with which it begins.
async fn names(platform: &Platform, tenant: &Tenant) -> Vec<String> {
    let page = platform.store().api_keys(&tenant.scope, 100, None).await.unwrap();
    page.items.into_iter().skip(1).map(|key| key.name).collect()
}

#[tokio::test]
async fn the_same_request_is_carried_out_once_and_answered_alike() {
    let (platform, tenant, token) = stage().await;
    let first = create(&platform, &token, "k-1", "a").await.expect(201);
    assert_eq!(first.header("idempotent-replayed"), "");
    let again = create(&platform, &token, "k-1", "a").await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((again.bytes, again.headers.get("content-type")), (first.bytes, first.headers.get("content-type")));
    assert_ne!(again.headers["x-request-id"], first.headers["x-request-id"]);
    assert_eq!(names(&platform, &tenant).await, ["a"]);
    // A session later it is the same person's key.
    let later = sign_in(&platform, &tenant).await;
    assert_eq!(create(&platform, &later, "k-1", "a").await.expect(201).header("idempotent-replayed"), "true");
    // Without the header, and with another key, it is a request like the first.
    platform.post(KEYS, &token, json!({"name": "a"})).await.expect(201);
    create(&platform, &token, "k-2", "a").await.expect(201);
    assert_eq!(names(&platform, &tenant).await.len(), 3);
}

#[tokio::test]
async fn a_key_stands_for_one_request_of_one_caller_for_a_day() {
    let (platform, tenant, token) = stage().await;
    create(&platform, &token, "k", "a").await.expect(201);
    problem(&create(&platform, &token, "k", "b").await, 422, "idempotency_key_reused");
    let query = platform.send(keyed(&format!("{KEYS}?x=1"), &token, "k", &json!({"name": "a"}))).await;
    problem(&query, 422, "idempotency_key_reused");

    let other = platform.tenant("team").await;
    let reply = create(&platform, &sign_in(&platform, &other).await, "k", "b").await.expect(201);
    assert_eq!(reply.header("idempotent-replayed"), "");

    platform.clock().advance(DAY - 1);
    let token = sign_in(&platform, &tenant).await;
    assert_eq!(create(&platform, &token, "k", "a").await.expect(201).header("idempotent-replayed"), "true");
    // No sweep of expired rows has run, and yet the row counts no more.
    platform.clock().advance(1);
    assert_eq!(create(&platform, &token, "k", "b").await.expect(201).header("idempotent-replayed"), "");
    assert_eq!(names(&platform, &tenant).await, ["a", "b"]);
}

#[tokio::test]
async fn a_malformed_key_is_refused() {
    let (platform, tenant, token) = stage().await;
    let long = "k".repeat(256);
    for key in ["", "a b", "\u{e4}", &long] {
        let reply = create(&platform, &token, key, "a").await;
        problem(&reply, 400, "invalid_parameter");
    }
    create(&platform, &token, &long[1..], "a").await.expect(201);
    assert_eq!(names(&platform, &tenant).await, ["a"]);
}

#[tokio::test]
async fn of_twenty_at_once_one_is_carried_out() {
    let (platform, tenant, token) = stage().await;
    let replies = join_all((0..20).map(|_| create(&platform, &token, "k", "a"))).await;
    let (made, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == StatusCode::CREATED);
    for reply in &refused {
        problem(reply, 409, "idempotency_in_flight");
        assert_eq!(reply.header("retry-after"), "1");
    }
    assert_eq!(made.iter().filter(|reply| reply.header("idempotent-replayed").is_empty()).count(), 1);
    assert!(made.iter().all(|reply| reply.bytes == made[0].bytes));
    for reply in join_all((0..20).map(|_| create(&platform, &token, "k", "a"))).await {
        assert_eq!(reply.expect(201).bytes, made[0].bytes);
    }
    assert_eq!(names(&platform, &tenant).await, ["a"]);
}

#[tokio::test]
async fn a_refusal_leaves_nothing_behind() {
    let (platform, tenant, token) = stage().await;
    problem(&create(&platform, &token, "k", " ").await, 422, "invalid_value");
    create(&platform, &token, "k", "a").await.expect(201);
    // Who may not make keys learns that, and nothing of what others made.
    problem(&create(&platform, &tenant.api_key, "k", "a").await, 403, "forbidden");
    let stranger = create(&platform, "wk_live_nonsense", "k", "a").await;
    problem(&stranger, 401, "invalid_api_key");
    assert_eq!(names(&platform, &tenant).await, ["a"]);
}

#[tokio::test]
async fn the_table_alone_tells_nothing_of_an_answer() {
    let (platform, tenant, token) = stage().await;
    let reply = create(&platform, &token, "client-text", "a").await.expect(201);
    let secret = text(&reply.json(), "/secret").to_owned();
    let rows = platform
        .host()
        .database()
        .query()
        .table_name(tenantry_host::TABLE)
        .key_condition_expression("pk = :pk AND begins_with(sk, :sk)")
        .expression_attribute_values(":pk", aws_sdk_dynamodb::types::AttributeValue::S(format!("T#{}", tenant.org)))
        .expression_attribute_values(":sk", aws_sdk_dynamodb::types::AttributeValue::S("IDEM#".into()))
        .send()
        .await
        .unwrap();
    let [row] = rows.items() else { panic!("{:?}", rows.items()) };
    let answer = row["answer"].as_b().unwrap().as_ref();
    assert!(!answer.windows(8).any(|part| secret.as_bytes().windows(8).any(|of_secret| of_secret == part)));
    assert!(!format!("{row:?}").contains("client-text"));
    assert_eq!(row["org"].as_s().unwrap(), tenant.org.as_str());
    let ttl: i64 = row["ttl"].as_n().unwrap().parse().unwrap();
    assert!((ttl * 1000 - platform.store().now() - DAY).abs() <= 1000);
}

/// Routes of the tests' own, whose handler can be held and made to fail at any place.
struct Workshop {
    platform: Platform,
    tenant: Tenant,
    token: String,
    bench: Arc<Bench>,
    router: Router,
}

struct Bench {
    store: tenantry_store::Store,
    runs: AtomicUsize,
    started: Notify,
    go_on: Notify,
}

#[derive(serde::Deserialize)]
struct Orders {
    #[serde(default)]
    hold: bool,
    #[serde(default)]
    fail: Option<String>,
}

/// Makes a key like the real route.
async fn work(
    State(bench): State<Arc<Bench>>,
    caller: Caller,
    Query(orders): Query<Orders>,
    Json(body): Json<Value>,
) -> Result<Response, ApiError> {
    let run = bench.runs.fetch_add(1, Ordering::SeqCst);
    // Only the first is held: who comes later is to find it at work.
    if orders.hold && run == 0 {
        bench.started.notify_one();
        bench.go_on.notified().await;
    }
    let down = || ApiError::new(Code::Unavailable, "down");
    if orders.fail.as_deref() == Some("before") && run == 0 {
        return Err(down());
    }
    let scope = caller.scope(tenantry_domain::roles::Permission::ManageKeys)?;
    let (id, secret) = (KeyId::new(), ApiKeySecret::generate().unwrap());
    let name = body["name"].as_str().unwrap();
    let (scopes, expires_at) = (KeyScopes::default(), None);
    let new = NewApiKey {
        id: &id,
        name,
        secret: &secret,
        scopes,
        expires_at,
        budgets: Budgets::default(),
        created_by: caller.member(),
    };
    bench.store.create_api_key(scope, &new, Limit::Unlimited, None).await?;
    match orders.fail.as_deref() {
        Some("after") => Err(down()),
        Some("panic") => panic!("as ordered"),
        _ => Ok((StatusCode::CREATED, id.to_string()).into_response()),
    }
}

impl Workshop {
    async fn open() -> Self {
        let (platform, tenant, _) = stage().await;
        let store = platform.store().clone();
        let signing = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "workshop").unwrap();
        let tokens = Arc::new(TokenVerifier::from_jwks(&signing.jwks(), "workshop").unwrap());
        let authenticator = Authenticator { store: store.clone(), tokens };
        let idempotency = Idempotency::new(authenticator.clone(), &[3; 32]);
        let token = signing
            .issue(
                &tenant.user,
                &tenant.org,
                tenantry_domain::roles::Role::Owner,
                &tenantry_domain::SessionId::new(),
                store.now(),
            )
            .unwrap();
        let (runs, started, go_on) = (AtomicUsize::new(0), Notify::new(), Notify::new());
        let bench = Arc::new(Bench { store, runs, started, go_on });
        let state = Stage { bench: bench.clone(), authenticator };
        let routes = OpenApiRouter::new().route("/work", axum::routing::post(work));
        let (routes, _) = idempotent(routes).layer(Extension(idempotency)).split_for_parts();
        let router = around(routes.with_state(state), ErrorShape::Problem, BODY_LIMIT);
        Self { platform, tenant, token, bench, router }
    }

    async fn ask(&self, orders: &str) -> Reply {
        let request = keyed(&format!("/work{orders}"), &self.token, "k", &json!({"name": "made"}));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Reply { status: head.status, headers: head.headers, bytes }
    }

    async fn made(&self) -> usize {
        names(&self.platform, &self.tenant).await.len()
    }
}

#[derive(Clone)]
struct Stage {
    bench: Arc<Bench>,
    authenticator: Authenticator,
}

impl axum::extract::FromRef<Stage> for Arc<Bench> {
    fn from_ref(stage: &Stage) -> Self {
        stage.bench.clone()
    }
}

impl axum::extract::FromRef<Stage> for Authenticator {
    fn from_ref(stage: &Stage) -> Self {
        stage.authenticator.clone()
    }
}

#[tokio::test]
async fn what_failed_before_it_did_anything_is_tried_again() {
    let shop = Workshop::open().await;
    problem(&shop.ask("?fail=before").await, 503, "unavailable");
    assert_eq!(shop.made().await, 0);
    assert_eq!(shop.ask("?fail=before").await.expect(201).header("idempotent-replayed"), "");
    assert_eq!(shop.ask("?fail=before").await.expect(201).header("idempotent-replayed"), "true");
    assert_eq!((shop.made().await, shop.bench.runs.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn what_failed_after_it_was_done_is_not_done_again() {
    for (orders, status, code) in [("?fail=after", 503, "unavailable"), ("?fail=panic", 500, "internal")] {
        let shop = Workshop::open().await;
        problem(&shop.ask(orders).await, status, code);
        // After a panic nobody ended the request; its lease does.
        shop.platform.clock().advance(LEASE);
        let lost = shop.ask(orders).await;
        problem(&lost, 409, "idempotency_answer_lost");
        assert_eq!((lost.header("x-should-retry"), lost.header("retry-after")), ("false", ""));
        assert_eq!((shop.made().await, shop.bench.runs.load(Ordering::SeqCst)), (1, 1), "{orders}");
    }
}

#[tokio::test]
async fn who_took_too_long_changes_nothing_any_more() {
    let shop = Workshop::open().await;
    let slow = shop.ask("?hold=true");
    let others = async {
        shop.bench.started.notified().await;
        let busy = shop.ask("?hold=true").await;
        problem(&busy, 409, "idempotency_in_flight");
        shop.platform.clock().advance(LEASE - 1);
        problem(&shop.ask("?hold=true").await, 409, "idempotency_in_flight");
        shop.platform.clock().advance(1);
        let taken = shop.ask("?hold=true").await.expect(201);
        assert_eq!(shop.made().await, 1);
        shop.bench.go_on.notify_one();
        taken
    };
    let (slow, taken) = tokio::join!(slow, others);
    // The store refused its transaction.
    problem(&slow, 409, "idempotency_in_flight");
    assert_eq!(shop.made().await, 1);
    let replayed = shop.ask("?hold=true").await.expect(201);
    assert_eq!((replayed.header("idempotent-replayed"), &replayed.bytes), ("true", &taken.bytes));
}

#[tokio::test]
async fn a_client_that_leaves_finds_the_answer_when_it_comes_back() {
    let shop = Workshop::open().await;
    tokio::select! {
        _ = shop.ask("?hold=true") => panic!("it is held"),
        () = shop.bench.started.notified() => {}
    }
    problem(&shop.ask("?hold=true").await, 409, "idempotency_in_flight");
    shop.bench.go_on.notify_one();
    let answer = loop {
        let reply = shop.ask("?hold=true").await;
        if reply.status == StatusCode::CREATED {
            break reply;
        }
        problem(&reply, 409, "idempotency_in_flight");
        tokio::task::yield_now().await;
    };
    assert_eq!(answer.header("idempotent-replayed"), "true");
    assert_eq!((shop.made().await, shop.bench.runs.load(Ordering::SeqCst)), (1, 1));
}

const ME: &str = "/api/v1/auth/me";

/// A change of the own name, meant for the versions that `tags` name.
async fn rename(platform: &Platform, token: &str, tags: &str, name: &str) -> Reply {
    let mut request = request(Method::PATCH, ME, token, &json!({"full_name": name}));
    request.headers_mut().insert("if-match", HeaderValue::from_str(tags).unwrap());
    platform.send(request).await
}

#[tokio::test]
async fn of_changes_meant_for_one_version_one_is_made() {
    let (platform, _, token) = stage().await;
    let first = platform.get(ME, &token).await.expect(200).header("etag").to_owned();
    assert!(first.starts_with('"') && first.ends_with('"'), "{first}");
    let replies = join_all((0..5).map(|number| {
        let (platform, token, first, name) = (&platform, &token, &first, format!("Ada {number}"));
        async move { rename(platform, token, first, &name).await }
    }))
    .await;
    let (made, stale): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == StatusCode::OK);
    let [made] = made.as_slice() else { panic!("{} changes of one version", made.len()) };
    for reply in stale {
        problem(reply, 412, "precondition_failed");
    }
    let now = platform.get(ME, &token).await.expect(200);
    assert_eq!(now.header("etag"), made.header("etag"));
    assert_ne!(now.header("etag"), first);
    assert_eq!(now.json(), made.json());
}

#[tokio::test]
async fn a_precondition_is_what_http_says_it_is() {
    let (platform, _, token) = stage().await;
    let tag = platform.get(ME, &token).await.expect(200).header("etag").to_owned();
    for malformed in ["", "1", "\"1", "*, \"1\""] {
        problem(&rename(&platform, &token, malformed, "Ada").await, 400, "invalid_parameter");
    }
    for other in [format!("W/{tag}"), "\"none-of-ours\"".to_owned(), "\"99\", \"0\"".to_owned()] {
        problem(&rename(&platform, &token, &other, "Ada").await, 412, "precondition_failed");
    }
    assert_eq!(platform.get(ME, &token).await.header("etag"), tag, "nothing was changed");
    let next = rename(&platform, &token, &format!("\"99\", {tag}"), "Ada").await.expect(200);
    assert_ne!(next.header("etag"), tag);
    rename(&platform, &token, "*", "Eve").await.expect(200);
    let without = platform.call(Method::PATCH, ME, &token, json!({"full_name": "Mallory"})).await.expect(200);
    assert_eq!(platform.get(ME, &token).await.header("etag"), without.header("etag"));
}

const PAGE: &str = "https://app.example.com";

/// A request as a browser sends it for a page of `origin`.
fn from_page(method: Method, path: &str, origin: &str) -> Request<Body> {
    let mut request = request(method, path, "", &Value::Null);
    request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
    request
}

fn preflight(path: &str, origin: &str) -> Request<Body> {
    let mut request = from_page(Method::OPTIONS, path, origin);
    request.headers_mut().insert("access-control-request-method", HeaderValue::from_static("POST"));
    request
}

fn list(header: &str) -> Vec<&str> {
    header.split(',').map(str::trim).collect()
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_and_no_others() {
    let setup = Setup::default().variable("CORS_ORIGINS", &format!("{PAGE}, http://localhost:3000"));
    let platform = Platform::start(setup).await;
    for origin in [PAGE, "http://localhost:3000"] {
        let allowed = platform.send(preflight("/api/v1/chat/completions", origin)).await.expect(200);
        assert_eq!(allowed.header("access-control-allow-origin"), origin);
        assert_eq!(list(allowed.header("access-control-allow-methods")), ["GET", "POST", "PUT", "PATCH", "DELETE"]);
        for header in ["authorization", "idempotency-key", "if-match", "x-api-key", "x-stainless-retry-count"] {
            assert!(list(allowed.header("access-control-allow-headers")).contains(&header), "{header}");
        }
        assert_eq!(allowed.header("access-control-max-age"), "7200");
        assert_eq!(allowed.header("vary"), "origin");
        assert_eq!(allowed.header("access-control-allow-credentials"), "");
    }
    for origin in ["https://evil.example.com", "https://app.example.com.evil.example", "null", "http://app.example.com"]
    {
        let refused = platform.send(preflight(KEYS, origin)).await;
        assert_eq!(refused.header("access-control-allow-origin"), "", "{origin}");
        assert_eq!(refused.header("vary"), "origin");
    }
}

#[tokio::test]
async fn a_page_can_read_refusals_too() {
    let platform = Platform::start(Setup::default().variable("CORS_ORIGINS", PAGE)).await;
    let large = Request::post("/api/v1/auth/login")
        .header("origin", PAGE)
        .header("content-type", "application/json")
        .body(Body::from(vec![b' '; 1024 * 1024]))
        .unwrap();
    for (request, status) in [
        (from_page(Method::GET, "/nowhere", PAGE), 404),
        (from_page(Method::PUT, "/api/v1/auth/login", PAGE), 405),
        (large, 413),
        (from_page(Method::GET, KEYS, PAGE), 401),
        (from_page(Method::GET, "/healthz", PAGE), 200),
    ] {
        let reply = platform.send(request).await.expect(status);
        assert_eq!(reply.header("access-control-allow-origin"), PAGE, "{status}");
        let exposed = list(reply.header("access-control-expose-headers"));
        for header in ["x-request-id", "etag", "retry-after", "idempotent-replayed", "x-ratelimit-limit-requests"] {
            assert!(exposed.contains(&header), "{header}");
        }
        assert!(!reply.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn without_a_setting_only_development_servers_may_call() {
    let platform = Platform::start(Setup::default()).await;
    let allowed = platform.send(preflight(KEYS, "http://localhost:5173")).await;
    assert_eq!(allowed.header("access-control-allow-origin"), "http://localhost:5173");
    assert_eq!(platform.send(preflight(KEYS, PAGE)).await.header("access-control-allow-origin"), "");

    let everybody = Platform::start(Setup::default().variable("CORS_ORIGINS", "*")).await;
    let reply = everybody.send(from_page(Method::GET, KEYS, PAGE)).await;
    assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), ("*", ""));
}

#[tokio::test]
async fn browsers_are_told_what_an_answer_may_do() {
    let platform = Platform::start(Setup::default()).await;
    for path in ["/healthz", KEYS, "/nowhere", "/api/v1/openapi.json", "/docs", "/_dev/inbox"] {
        let reply = platform.get(path, "").await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin", "{path}");
        // In the clear the header means nothing, and a browser that believed it would never come back.
        assert_eq!(reply.header("strict-transport-security"), "", "{path}");
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';") && policy.ends_with("frame-ancestors 'none'"), "{path}");
        assert_eq!(policy.contains("script-src"), path == "/docs", "{path}");
    }
}

#[tokio::test]
async fn the_reference_may_run_its_own_scripts() {
    let platform = Platform::start(Setup::default()).await;
    let page = platform.get("/docs", "").await.expect(200);
    let policy = page.header("content-security-policy").to_owned();
    let text = page.text();
    let (mut inline, mut loaded) = (0, 0);
    for script in text.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        if let Some(source) = tag.split_once("src=\"").map(|(_, rest)| rest.split('"').next().unwrap()) {
            assert!(policy.contains(source) && tag.contains("integrity="));
            loaded += 1;
        } else {
            let content = rest.split("</script>").next().unwrap();
            let bytes =
                data_encoding::HEXLOWER.decode(tenantry_domain::secret::sha256_hex(content.as_bytes()).as_bytes());
            assert!(policy.contains(&format!("'sha256-{}'", data_encoding::BASE64.encode(&bytes.unwrap()))));
            inline += 1;
        }
    }
    assert_eq!((inline, loaded), (1, 1));
}

#[tokio::test]
async fn the_inbox_shows_what_would_have_been_sent() {
    let platform = Platform::start(Setup::default()).await;
    assert_eq!(platform.get("/_dev/inbox.json", "").await.expect(200).json(), json!({"data": []}));
    let invite = Content::Invite {
        organization: "<b>A & B</b>".into(),
        inviter: "Ada".into(),
        token: "t0ken".into(),
        valid_minutes: 60,
    };
    let reset = Content::PasswordReset { name: "Bob".into(), token: "t1ken".into(), valid_minutes: 30 };
    for (id, content) in [("1", invite), ("2", reset)] {
        let mail = Mail { id: id.into(), language: Language::En, to: "bob@example.com".parse().unwrap(), content };
        platform.host().mail_queue().send(&mail).await.unwrap();
        platform.quiesce().await;
        platform.clock().advance(1000);
    }
    let inbox = platform.get("/_dev/inbox.json", "").await.expect(200).json();
    assert_eq!(inbox["data"].as_array().unwrap().len(), 2);
    assert_eq!(text(&inbox, "/data/0/at"), "2026-11-20T12:00:01.000Z");
    assert_eq!(text(&inbox, "/data/0/to"), "bob@example.com");
    assert_eq!(text(&inbox, "/data/0/links/0/url"), "http://localhost:8787/reset-password#token=t1ken");
    assert_eq!(text(&inbox, "/data/0/links/0/token"), "t1ken");
    assert!(text(&inbox, "/data/0/links/0/curl").contains("/api/v1/auth/password/reset "));
    assert!(text(&inbox, "/data/1/links/0/curl").contains("/api/v1/invites/accept "));
    let page = platform.get("/_dev/inbox", "").await.expect(200);
    let html = page.text();
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(!html.contains("<b>") && html.contains("&lt;b&gt;A &amp;"), "{html}");
    assert!(html.find("t1ken").unwrap() < html.find("t0ken").unwrap());

    let mut rebound = request(Method::GET, "/_dev/inbox.json", "", &Value::Null);
    rebound.headers_mut().insert("host", HeaderValue::from_static("evil.example"));
    platform.send(rebound).await.expect(404);
}

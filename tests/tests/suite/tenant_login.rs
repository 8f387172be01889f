//! Tenant users sign in: keys, names, sessions, and tokens that open nothing of ours.

use futures_util::future::join_all;
use http::Method;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};
use tenantry_store::{Device, TenantSession};
use tenantry_tests::{
    http::{problem, seen, text},
    platform::{NOON, Platform, Reply, Setup, Tenant},
};

const DAY: i64 = 24 * 60 * 60_000;
const PASSWORD: &str = "correct horse battery";

const LOGIN: &str = "/api/v1/auth/login";
const USERS: &str = "/api/v1/tenant-users";

/// A tenant with a user called mike and a key that signs in.
struct Shop {
    platform: Platform,
    tenant: Tenant,
    owner: String,
    key: String,
    mike: Value,
}

impl Shop {
    async fn start() -> Self {
        let platform = Platform::start(Setup::default()).await;
        let tenant = platform.tenant("team").await;
        let owner = text(&platform.login(&tenant).await, "/access_token").to_owned();
        let key = key(&platform, &owner, json!(["login"])).await;
        let body = json!({"username": "mike", "password": PASSWORD, "display_name": "Mike"});
        let mike = platform.post(USERS, &owner, body).await.expect(201).json();
        Self { platform, tenant, owner, key, mike }
    }

    async fn try_password(&self, username: &str, password: &str) -> Reply {
        let body = json!({"api_key": self.key, "username": username, "password": password});
        self.platform.post(LOGIN, "", body).await
    }

    async fn sign_in(&self) -> Value {
        self.try_password("mike", PASSWORD).await.expect(200).json()
    }

    async fn change(&self, body: Value) {
        self.platform.call(Method::PATCH, &format!("{USERS}/mike"), &self.owner, body).await.expect(200);
    }
}

async fn key(platform: &Platform, owner: &str, scopes: Value) -> String {
    let body = json!({"name": "shop", "scopes": scopes});
    text(&platform.post("/api/v1/api-keys", owner, body).await.expect(201).json(), "/secret").to_owned()
}

fn refresh_token(tokens: &Value) -> &str {
    text(tokens, "/refresh_token")
}

#[tokio::test]
async fn a_tenant_user_gets_tokens_for_the_tenants_own_services() {
    let shop = Shop::start().await;
    let tokens = shop.try_password("Mike", PASSWORD).await.expect(200);
    assert_eq!(tokens.header("cache-control"), "no-store");
    let tokens = tokens.json();
    let expected = json!({
        "access_token": tokens["access_token"],
        "refresh_token": tokens["refresh_token"],
        "token_type": "Bearer",
        "expires_in": 600,
        "tenant_user": {"id": shop.mike["id"], "username": "mike", "display_name": "Mike"},
        "organization_id": shop.tenant.org.as_str(),
    });
    assert_eq!(tokens, expected);

    let jwks = shop.platform.get("/.well-known/jwks.json", "").await.expect(200);
    let set: JwkSet = serde_json::from_slice(&jwks.bytes).unwrap();
    let access = text(&tokens, "/access_token");
    let kid = jsonwebtoken::decode_header(access).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["tenantry:tenant_user"]);
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let claims = jsonwebtoken::decode::<Value>(access, &key, &validation).unwrap().claims;
    assert_eq!((&claims["typ"], &claims["sub"]), (&json!("tenant_user"), &shop.mike["id"]));
    assert_eq!(claims["org"], shop.tenant.org.as_str());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);

    for path in ["/api/v1/auth/me", "/api/v1/auth/sessions", "/api/v1/api-keys", "/api/v1/models", USERS] {
        assert_eq!(shop.platform.get(path, access).await.status.as_u16(), 401, "{path}");
        assert_eq!(shop.platform.get(path, refresh_token(&tokens)).await.status.as_u16(), 401, "{path}");
    }
}

#[tokio::test]
async fn a_key_that_signs_in_does_nothing_else_and_no_other_key_signs_in() {
    let shop = Shop::start().await;
    problem(&shop.platform.get("/api/v1/usage/stats", &shop.key).await, 403, "forbidden");
    assert_eq!(shop.platform.chat(&shop.key, "hello").await.status.as_u16(), 403);
    let with = |key: String| {
        let body = json!({"api_key": key, "username": "mike", "password": PASSWORD});
        shop.platform.post(LOGIN, "", body)
    };
    let hashes = shop.platform.host().hasher().done();
    problem(&with(shop.tenant.api_key.clone()).await, 403, "forbidden");
    problem(&with("wk_live_nonsense".into()).await, 401, "invalid_api_key");
    let access = text(&shop.platform.login(&shop.tenant).await, "/access_token").to_owned();
    problem(&with(access).await, 401, "invalid_api_key");
    assert_eq!(shop.platform.host().hasher().done(), hashes + 1, "nothing is hashed but for the owner");

    // The key says whose customers they are.
    let other = shop.platform.tenant("team").await;
    let owner = text(&shop.platform.login(&other).await, "/access_token").to_owned();
    let foreign = key(&shop.platform, &owner, json!(["login"])).await;
    problem(&with(foreign).await, 401, "invalid_credentials");
}

#[tokio::test]
async fn whatever_is_wrong_the_answer_and_the_work_are_the_same() {
    let shop = Shop::start().await;
    let create = |body: Value| shop.platform.post(USERS, &shop.owner, body);
    create(json!({"username": "gone", "password": PASSWORD, "disabled": true})).await.expect(201);
    create(json!({"username": "silent"})).await.expect(201);
    let hashes = shop.platform.host().hasher().done();
    let wrong = shop.try_password("mike", "not his password").await;
    problem(&wrong, 401, "invalid_credentials");
    for (name, password) in
        [("nobody", PASSWORD), ("gone", PASSWORD), ("silent", PASSWORD), ("silent", ""), ("mike", "")]
    {
        assert_eq!(seen(&shop.try_password(name, password).await), seen(&wrong), "{name}");
    }
    assert_eq!(shop.platform.host().hasher().done() - hashes, 6, "one each");

    let replies = join_all((0..20).map(|_| shop.try_password("nobody", PASSWORD))).await;
    let looked_at = replies.iter().filter(|reply| reply.status.as_u16() == 401).count();
    assert_eq!(looked_at, 4, "five in all");
    let refused = replies.iter().find(|reply| reply.status.as_u16() != 401).unwrap();
    problem(refused, 429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "30");
    shop.sign_in().await;
}

#[tokio::test]
async fn their_sessions_follow_the_rules_of_all_sessions() {
    let shop = Shop::start().await;
    let first = shop.sign_in().await;
    let refresh = |tokens: &Value| {
        let (platform, token) = (&shop.platform, refresh_token(tokens).to_owned());
        async move { platform.refresh(&token).await }
    };
    let replies = join_all((0..20).map(|_| refresh(&first))).await;
    let second = replies[0].json();
    assert_eq!(second["tenant_user"], first["tenant_user"]);
    for reply in replies {
        assert_eq!(refresh_token(&reply.expect(200).json()), refresh_token(&second), "one lineage");
    }
    let third = refresh(&second).await.expect(200).json();
    let replayed = refresh(&first).await;
    problem(&replayed, 401, "unauthenticated");
    assert_eq!(seen(&refresh(&third).await), seen(&replayed), "the session has ended");
    assert_eq!(seen(&shop.platform.refresh("rt1t.made.up.by.0.us").await), seen(&replayed));

    let log = shop.platform.get("/api/v1/audit-log?action=session.replayed", &shop.owner).await.expect(200).json();
    assert_eq!(log["data"].as_array().unwrap().len(), 1, "{log}");
    assert!(log.to_string().contains(text(&shop.mike, "/id")), "{log}");

    let tokens = shop.sign_in().await;
    shop.platform.clock().advance(30 * DAY);
    refresh(&tokens).await.expect(401);
}

#[tokio::test]
async fn who_is_disabled_deleted_or_has_another_password_is_out() {
    let shop = Shop::start().await;
    let refresh = |tokens: &Value| {
        let (platform, token) = (&shop.platform, refresh_token(tokens).to_owned());
        async move { platform.refresh(&token).await }
    };
    let tokens = shop.sign_in().await;
    shop.change(json!({"display_name": "Michael"})).await;
    let tokens = refresh(&tokens).await.expect(200).json();
    assert_eq!(tokens["tenant_user"]["display_name"], "Michael");

    shop.change(json!({"disabled": true})).await;
    refresh(&tokens).await.expect(401);
    shop.change(json!({"disabled": false})).await;
    refresh(&tokens).await.expect(401);

    let tokens = shop.sign_in().await;
    shop.change(json!({"password": PASSWORD})).await;
    refresh(&tokens).await.expect(401);

    // The name is taken by somebody else: the session is not theirs.
    let tokens = shop.sign_in().await;
    shop.platform.delete(&format!("{USERS}/mike"), &shop.owner).await.expect(204);
    let body = json!({"username": "mike", "password": PASSWORD});
    shop.platform.post(USERS, &shop.owner, body).await.expect(201);
    refresh(&tokens).await.expect(401);
}

#[tokio::test]
async fn a_login_is_of_one_kind() {
    let shop = Shop::start().await;
    let login = |body: Value| shop.platform.post(LOGIN, "", body);
    for (body, pointer) in [
        (json!({"password": PASSWORD}), "/email"),
        (json!({"username": "mike", "password": PASSWORD}), "/api_key"),
        (json!({"api_key": shop.key, "password": PASSWORD}), "/username"),
    ] {
        assert_eq!(problem(&login(body).await, 400, "invalid_body")["errors"][0]["pointer"], pointer);
    }
    let both = json!({"email": "a@example.com", "api_key": shop.key, "username": "mike", "password": PASSWORD});
    problem(&login(both).await, 400, "invalid_body");
    let name = json!({"api_key": shop.key, "username": "m", "password": PASSWORD});
    assert_eq!(problem(&login(name).await, 422, "invalid_value")["errors"][0]["pointer"], "/username");
}

#[tokio::test]
async fn a_tenant_user_logs_out_with_the_refresh_token() {
    let shop = Shop::start().await;
    let (phone, laptop) = (shop.sign_in().await, shop.sign_in().await);
    let logout = |token: String| {
        let platform = &shop.platform;
        async move { platform.post("/api/v1/auth/logout", "", json!({"refresh_token": token})).await }
    };
    problem(&logout("rt1t.made.up.by.0.us".into()).await, 401, "unauthenticated");
    for _ in 0..2 {
        logout(refresh_token(&phone).to_owned()).await.expect(204);
    }
    shop.platform.refresh(refresh_token(&phone)).await.expect(401);
    shop.platform.refresh(refresh_token(&laptop)).await.expect(200);
    // Their access tokens log nobody out: they open no route of ours.
    let with = shop.platform.post("/api/v1/auth/logout", text(&laptop, "/access_token"), Value::Null).await;
    problem(&with, 401, "invalid_api_key");
}

#[tokio::test]
async fn a_tenant_user_has_a_hundred_sessions_at_most() {
    let shop = Shop::start().await;
    let store = shop.platform.store();
    let user = store.tenant_user(&shop.tenant.scope, &"mike".parse().unwrap()).await.unwrap().unwrap();
    let first = shop.sign_in().await;
    for _ in 0..104 {
        let session = TenantSession::begin(&user, Device::default(), NOON, 30 * DAY);
        store.create_tenant_session(&shop.tenant.scope, &session).await.unwrap();
    }
    assert_eq!(shop.platform.rows(&shop.tenant.scope, "TSES#").await.len(), 100);
    shop.platform.refresh(refresh_token(&first)).await.expect(401);
}

//! Registering, signing in, sessions.

use futures_util::future::join_all;
use http::{Method, Request, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};
use tenantry_domain::{OrgId, UserId};
use tenantry_tests::{
    http::{PASSWORD, Rows, problem, seen, text},
    platform::{NOON, Platform, Setup},
};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/auth/me";

async fn platform() -> Platform {
    Platform::start(Setup::default()).await
}

fn access(tokens: &Value) -> &str {
    text(tokens, "/access_token")
}

fn refresh_token(tokens: &Value) -> &str {
    text(tokens, "/refresh_token")
}

#[tokio::test]
async fn register_login_and_me_have_this_shape() {
    let platform = platform().await;
    let body = json!({
        "email": " Ada@Example.com ", "password": PASSWORD, "full_name": " Ada Lovelace ", "organization_name": "Engines",
    });
    let reply = platform.post(REGISTER, "", body).await.expect(201);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("content-type"), "application/json");
    let registered = reply.json();
    let user = json!({
        "id": text(&registered, "/user/id").parse::<UserId>().unwrap(),
        "email": "ada@example.com",
        "full_name": "Ada Lovelace",
        "email_verified_at": null,
        "avatar_url": null,
        "phone": null,
        "preferred_language": null,
        "theme_preference": null,
        "created_at": "2026-11-20T12:00:00.000Z",
    });
    let organization = json!({
        "id": text(&registered, "/organization/id").parse::<OrgId>().unwrap(),
        "name": "Engines",
        "role": "owner",
    });
    let expected = |tokens: &Value| {
        json!({
            "access_token": access(tokens),
            "refresh_token": refresh_token(tokens),
            "token_type": "Bearer",
            "expires_in": 600,
            "user": user,
            "organization": organization,
        })
    };
    assert_eq!(registered, expected(&registered));

    let reply = platform.post(LOGIN, "", json!({"email": "ada@example.com", "password": PASSWORD})).await.expect(200);
    assert_eq!(reply.header("cache-control"), "no-store");
    let signed_in = reply.json();
    assert_eq!(signed_in, expected(&signed_in));
    assert_ne!(refresh_token(&signed_in), refresh_token(&registered), "a session of its own");

    let me = platform.get(ME, access(&signed_in)).await.expect(200).json();
    let expected =
        json!({"user": user, "organization": organization, "role": "owner", "organizations": [organization]});
    assert_eq!(me, expected);
}

#[tokio::test]
async fn names_may_be_left_out() {
    let platform = platform().await;
    let registered = platform.register("grace@example.com").await;
    assert_eq!(registered["user"]["full_name"], Value::Null);
    assert_eq!(registered["organization"]["name"], "grace's organization");
}

#[tokio::test]
async fn an_address_is_taken_in_every_spelling() {
    let platform = platform().await;
    platform.register("ada@example.com").await;
    for email in ["ada@example.com", " ADA@EXAMPLE.COM", "ＡＤＡ@example.com"] {
        let body = json!({"email": email, "password": "another password"});
        let reply = platform.post(REGISTER, "", body).await;
        let error = problem(&reply, 409, "email_taken");
        assert_eq!(error["errors"][0]["pointer"], "/email");
    }
    let body = json!({"email": "ada@example.com", "password": "another password"});
    platform.post(LOGIN, "", body).await.expect(401);
    platform.post(LOGIN, "", json!({"email": "ＡＤＡ@Example.com", "password": PASSWORD})).await.expect(200);
}

#[tokio::test]
async fn of_twenty_registrations_of_one_address_one_succeeds() {
    let platform = platform().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let replies = join_all((0..20).map(|_| platform.post(REGISTER, "", body.clone()))).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![201], vec![409; 19]].concat());
}

#[tokio::test]
async fn whatever_is_wrong_with_credentials_the_answer_is_the_same() {
    let rows = Rows::start().await;
    rows.register("ada@example.com").await;
    let gone = rows.register("gone@example.com").await;
    rows.disable(&text(&gone, "/user/id").parse().unwrap()).await;
    let login = |email: &str, password: &str| rows.post(LOGIN, json!({"email": email, "password": password}));

    let wrong = login("ada@example.com", "not her password").await;
    let error = problem(&wrong, 401, "invalid_credentials");
    assert_eq!(error["errors"], Value::Null);
    let wrong = seen(&wrong);
    assert_eq!(seen(&login("nobody@example.com", PASSWORD).await), wrong, "unknown address");
    assert_eq!(seen(&login("gone@example.com", PASSWORD).await), wrong, "disabled, right password");
    assert_eq!(seen(&login("gone@example.com", "not the password").await), wrong, "disabled, wrong password");
    assert_eq!(seen(&login("ada@example.com", "").await), wrong, "empty password");
    assert_eq!(seen(&login("ada@example.com", &"x".repeat(5000)).await), wrong, "endless password");
}

#[tokio::test]
async fn a_crowd_is_told_to_come_again() {
    let rows = Rows::with_hasher(tenantry_auth::Hasher::new(1, 1)).await;
    let body = |number| json!({"email": format!("nobody{number}@example.com"), "password": PASSWORD});
    let replies = join_all((0..20).map(|number| rows.post(LOGIN, body(number)))).await;
    let (busy, done): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.as_u16() == 503);
    assert!(!busy.is_empty() && !done.is_empty());
    for reply in busy {
        problem(reply, 503, "unavailable");
        assert_eq!(reply.header("retry-after"), "1");
    }
    for reply in done {
        problem(reply, 401, "invalid_credentials");
    }
    problem(&rows.post(LOGIN, body(20)).await, 401, "invalid_credentials");
}

#[tokio::test]
async fn a_password_is_the_same_however_it_is_composed() {
    let platform = platform().await;
    let body = json!({"email": "ada@example.com", "password": "cafe\u{301} au lait"});
    platform.post(REGISTER, "", body).await.expect(201);
    let login = |password: &str| platform.post(LOGIN, "", json!({"email": "ada@example.com", "password": password}));
    login("caf\u{e9} au lait").await.expect(200);
    login("cafe au lait").await.expect(401);
}

#[tokio::test]
async fn no_password_is_stored_and_each_hash_is_salted() {
    let rows = Rows::start().await;
    let mut salts = vec![];
    for email in ["ada@example.com", "grace@example.com"] {
        let registered = rows.register(email).await;
        let stored = rows.stored_of(&text(&registered, "/user/id").parse().unwrap()).await;
        assert!(!stored.contains(PASSWORD) && !stored.contains(refresh_token(&registered)), "{stored}");
        let (_, hash) = stored.split_once("$argon2id$v=19$m=19456,t=2,p=1$").expect("a hash");
        salts.push(hash.split('$').next().map(ToOwned::to_owned));
    }
    assert_ne!(salts[0], salts[1]);
}

#[tokio::test]
async fn refreshing_rotates_and_forgives_one_lost_answer() {
    let platform = platform().await;
    let first = platform.register("ada@example.com").await;
    let reply = platform.refresh(refresh_token(&first)).await.expect(200);
    assert_eq!(reply.header("cache-control"), "no-store");
    let second = reply.json();
    assert_ne!(refresh_token(&second), refresh_token(&first));
    assert_eq!(second["user"], first["user"]);
    assert_eq!(second["organization"], first["organization"]);
    platform.get(ME, access(&second)).await.expect(200);

    let again = platform.refresh(refresh_token(&first)).await.expect(200).json();
    assert_eq!(refresh_token(&again), refresh_token(&second), "the parent yields the current token");
    let third = platform.refresh(refresh_token(&second)).await.expect(200).json();
    assert_ne!(refresh_token(&third), refresh_token(&second));

    let reply = platform.refresh(refresh_token(&first)).await;
    problem(&reply, 401, "unauthenticated");
    assert_eq!(seen(&platform.refresh(refresh_token(&third)).await), seen(&reply), "the session has ended");
    assert_eq!(seen(&platform.refresh("rt1.made.up.0.token").await), seen(&reply));
    assert_eq!(seen(&platform.refresh("").await), seen(&reply));
}

#[tokio::test]
async fn a_replayed_token_is_written_to_the_audit_log() {
    let rows = Rows::start().await;
    let first = rows.register("ada@example.com").await;
    let refresh = |tokens: &Value| rows.post(REFRESH, json!({"refresh_token": refresh_token(tokens)}));
    let second = refresh(&first).await.expect(200).json();
    refresh(&second).await.expect(200);
    let org = text(&first, "/organization/id").parse().unwrap();
    assert!(rows.tenant_rows(&org, "AUDIT#", "action").await.is_empty());
    refresh(&first).await.expect(401);
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "action").await, ["session.replayed"]);
}

#[tokio::test]
async fn twenty_parallel_refreshes_leave_one_lineage() {
    let platform = platform().await;
    let first = platform.register("ada@example.com").await;
    let replies = join_all((0..20).map(|_| platform.refresh(refresh_token(&first)))).await;
    let mut tokens: Vec<_> =
        replies.into_iter().map(|reply| refresh_token(&reply.expect(200).json()).to_owned()).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 1, "every answer carries the same next token");
    let next = platform.refresh(&tokens[0]).await.expect(200).json();
    platform.refresh(refresh_token(&next)).await.expect(200);
    platform.refresh(&tokens[0]).await.expect(401);
}

#[tokio::test]
async fn a_session_lasts_thirty_days_however_it_is_used() {
    let platform = platform().await;
    let mut tokens = platform.register("ada@example.com").await;
    for _ in 0..29 {
        platform.clock().advance(DAY);
        tokens = platform.refresh(refresh_token(&tokens)).await.expect(200).json();
    }
    platform.clock().advance(DAY - 1);
    tokens = platform.refresh(refresh_token(&tokens)).await.expect(200).json();
    platform.clock().advance(1);
    platform.refresh(refresh_token(&tokens)).await.expect(401);
}

#[tokio::test]
async fn an_access_token_expires_after_ten_minutes() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    platform.clock().advance(10 * MINUTE - 1);
    platform.get(ME, access(&tokens)).await.expect(200);
    platform.clock().advance(1);
    let reply = platform.get(ME, access(&tokens)).await;
    problem(&reply, 401, "invalid_api_key");
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    let fresh = platform.refresh(refresh_token(&tokens)).await.expect(200).json();
    platform.get(ME, access(&fresh)).await.expect(200);
}

#[tokio::test]
async fn logout_ends_the_sessions_it_names() {
    let platform = platform().await;
    platform.register("ada@example.com").await;
    let login = || async {
        platform.post(LOGIN, "", json!({"email": "ada@example.com", "password": PASSWORD})).await.expect(200).json()
    };
    let alive = |tokens: Value| {
        let platform = &platform;
        async move { platform.refresh(refresh_token(&tokens)).await.status.as_u16() == 200 }
    };

    // With no body at all, and with an empty object, it is the session that calls.
    for body in [Value::Null, json!({}), json!({"scope": "local"})] {
        let (one, two) = (login().await, login().await);
        let reply = platform.post(LOGOUT, access(&one), body).await.expect(204);
        assert!(reply.bytes.is_empty());
        assert!(!alive(one.clone()).await && alive(two).await);
        platform.post(LOGOUT, access(&one), Value::Null).await.expect(204);
    }
    let one = login().await;
    let null = Request::post(LOGOUT)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", access(&one)));
    platform.send(null.body("null".into()).unwrap()).await.expect(204);
    assert!(!alive(one).await);
    let (one, two, three) = (login().await, login().await, login().await);
    platform.post(LOGOUT, access(&two), json!({"scope": "others"})).await.expect(204);
    assert!(!alive(one).await && alive(two.clone()).await && !alive(three).await);
    let other = platform.register("grace@example.com").await;
    let four = login().await;
    platform.post(LOGOUT, access(&two), json!({"scope": "global"})).await.expect(204);
    assert!(!alive(two).await && !alive(four).await);
    assert!(alive(other).await, "nobody else is signed out");
}

#[tokio::test]
async fn a_disabled_person_and_a_removed_member_are_refused_at_once() {
    let rows = Rows::start().await;
    let refresh = |tokens: &Value| rows.post(REFRESH, json!({"refresh_token": refresh_token(tokens)}));
    let invalid = seen(&rows.post(REFRESH, json!({"refresh_token": "made up"})).await);

    let ada = rows.register("ada@example.com").await;
    rows.disable(&text(&ada, "/user/id").parse().unwrap()).await;
    assert_eq!(seen(&refresh(&ada).await), invalid);
    rows.call(Method::GET, ME, access(&ada), Value::Null).await.expect(401);

    let grace = rows.register("grace@example.com").await;
    let (user, org) = (text(&grace, "/user/id").parse().unwrap(), text(&grace, "/organization/id").parse().unwrap());
    rows.remove_member(&user, &org).await;
    assert_eq!(seen(&refresh(&grace).await), invalid);
    rows.call(Method::GET, ME, access(&grace), Value::Null).await.expect(401);
    let body = json!({"email": "grace@example.com", "password": PASSWORD});
    // Who belongs to nothing any more signs in to an organization of their own.
    let afresh = rows.post(LOGIN, body).await.expect(200).json();
    assert_ne!(text(&afresh, "/organization/id"), org.as_str());
    rows.set_role(&user, &org, "owner").await;
    assert_eq!(seen(&refresh(&grace).await), invalid, "the session was ended, not skipped");
}

#[tokio::test]
async fn refreshing_takes_the_role_afresh() {
    let rows = Rows::start().await;
    let first = rows.register("ada@example.com").await;
    let (user, org) = (text(&first, "/user/id").parse().unwrap(), text(&first, "/organization/id").parse().unwrap());
    rows.set_role(&user, &org, "member").await;
    let keys = |tokens: Value| {
        let rows = &rows;
        async move { rows.call(Method::GET, "/api/v1/api-keys", access(&tokens), Value::Null).await }
    };
    let second = rows.post(REFRESH, json!({"refresh_token": refresh_token(&first)})).await.expect(200).json();
    assert_eq!(second["organization"]["role"], "member");
    problem(&keys(second.clone()).await, 403, "forbidden");
    rows.set_role(&user, &org, "admin").await;
    let third = rows.post(REFRESH, json!({"refresh_token": refresh_token(&second)})).await.expect(200).json();
    keys(third).await.expect(200);
}

#[tokio::test]
async fn a_session_remembers_its_device() {
    let platform = platform().await;
    let registered = platform.register("ada@example.com").await;
    let device = json!({"id": "d-1", "name": " Ada's phone ", "type": "phone", "app_version": "2.4.1"});
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "device": device});
    let request = Request::post(LOGIN)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, format!("app/{}", "9".repeat(1000)));
    platform.send(request.body(body.to_string().into()).unwrap()).await.expect(200);
    let sessions = platform.store().sessions(&text(&registered, "/user/id").parse().unwrap()).await.unwrap();
    assert_eq!(sessions.len(), 2);
    let device = &sessions[1].device;
    assert_eq!((device.id.as_deref(), device.name.as_deref()), (Some("d-1"), Some("Ada's phone")));
    assert_eq!((device.kind.as_deref(), device.app_version.as_deref()), (Some("phone"), Some("2.4.1")));
    assert_eq!(device.user_agent.as_ref().map(String::len), Some(200));
    assert_eq!(sessions[1].expires_at, NOON + 30 * DAY);
}

#[tokio::test]
async fn the_published_keys_verify_a_token() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    let reply = platform.get("/.well-known/jwks.json", "").await.expect(200);
    assert_eq!(reply.header("cache-control"), "public, max-age=300");
    assert_eq!(reply.header("content-type"), "application/json");
    let key = reply.json()["keys"][0].clone();
    let mut members: Vec<_> = key.as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"], "and no private part");

    // As another service would, with a library and nothing of ours.
    let set: JwkSet = serde_json::from_slice(&reply.bytes).unwrap();
    let header = jsonwebtoken::decode_header(access(&tokens)).unwrap();
    let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["tenantry"]);
    // The platform's clock stands still.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(access(&tokens), &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], tokens["user"]["id"]);
    assert_eq!(claims["org"], tokens["organization"]["id"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let forged = access(&tokens).rsplit_once('.').unwrap().0.to_owned() + "." + &"A".repeat(86);
    platform.get(ME, &forged).await.expect(401);
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let platform = platform().await;
    let long = "x".repeat(101);
    let name = |name: &str| json!({"email": "a@example.com", "password": PASSWORD, "full_name": name});
    let cases = [
        (REGISTER, json!({}), 400, "missing field `email`"),
        (REGISTER, json!({"email": 1, "password": PASSWORD}), 400, "email"),
        (REGISTER, json!({"email": "a@example.com"}), 400, "password"),
        (REGISTER, json!({"email": "a@example.com", "password": PASSWORD, "plan": "team"}), 400, "plan"),
        (REGISTER, json!({"email": "a@example", "password": PASSWORD}), 422, "email: "),
        (REGISTER, json!({"email": "a@example.com", "password": "short"}), 422, "password: must be 8 to 128"),
        (REGISTER, json!({"email": "a@example.com", "password": "x".repeat(129)}), 422, "password: must be 8 to 128"),
        (REGISTER, json!({"email": "a@example.com", "password": "Password123!"}), 422, "password: is one of"),
        (REGISTER, json!({"email": "adalove@example.com", "password": "AdaLove1"}), 422, "password: is too much like"),
        (REGISTER, name(" "), 422, "full_name: must be 1 to 100"),
        (REGISTER, name(&long), 422, "full_name: must be 1 to 100"),
        (REGISTER, name("a\nb"), 422, "full_name: must be one line"),
        (
            REGISTER,
            json!({"email": "a@example.com", "password": PASSWORD, "organization_name": ""}),
            422,
            "organization_name",
        ),
        (LOGIN, json!({"email": "a@example.com", "password": null}), 400, "password"),
        (LOGIN, json!({"email": "a@example.com", "password": PASSWORD, "otp": 1}), 400, "otp"),
        (LOGIN, json!({"email": "nobody", "password": PASSWORD}), 422, "email: "),
        (LOGIN, json!({"email": "a@example.com", "password": PASSWORD, "device": {"os": "x"}}), 400, "os"),
        (LOGIN, json!({"email": "a@example.com", "password": PASSWORD, "device": {"name": long}}), 422, "device.name"),
        (REFRESH, json!({"refresh_token": 1}), 400, "refresh_token"),
        (REFRESH, json!({"token": ""}), 400, "token"),
    ];
    for (path, body, status, says) in cases {
        let reply = platform.post(path, "", body.clone()).await;
        let error = problem(&reply, status, if status == 422 { "invalid_value" } else { "invalid_body" });
        assert!(text(&error, "/detail").contains(says), "{body}: {error}");
        if status == 422 {
            let pointer = text(&error, "/errors/0/pointer");
            assert!(body.pointer(pointer).is_some(), "{pointer} leads nowhere in {body}");
        }
    }

    let tokens = platform.register("ada@example.com").await;
    let reply = platform.post(LOGOUT, access(&tokens), json!({"scope": "everything"})).await;
    assert_eq!(problem(&reply, 422, "invalid_value")["errors"][0]["pointer"], "/scope");
    problem(&platform.post(LOGOUT, access(&tokens), json!({"all": true})).await, 400, "invalid_body");
    problem(&platform.get(LOGIN, "").await, 405, "method_not_allowed");

    let raw = |kind: &str, body: Vec<u8>| {
        platform.send(Request::post(LOGIN).header(header::CONTENT_TYPE, kind).body(body.into()).unwrap())
    };
    problem(&raw("application/json", b"{".to_vec()).await, 400, "invalid_body");
    problem(&raw("application/json", b"{\"email\":\"\xff\"}".to_vec()).await, 400, "invalid_body");
    problem(&raw("application/json", "[".repeat(10_000).into_bytes()).await, 400, "invalid_body");
    problem(&raw("application/json", vec![b' '; 17 * 1024]).await, 413, "body_too_large");
    problem(&raw("text/plain", b"{}".to_vec()).await, 415, "unsupported_media_type");
}

#[tokio::test]
async fn without_a_valid_credential_nothing_is_shown() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    for path in [ME, "/api/v1/organizations", "/api/v1/api-keys", "/api/v1/usage/stats", "/api/v1/usage/records"] {
        problem(&platform.get(path, "").await, 401, "unauthenticated");
        problem(&platform.get(path, "nonsense").await, 401, "invalid_api_key");
        problem(&platform.get(path, refresh_token(&tokens)).await, 401, "invalid_api_key");
    }
    problem(&platform.post(LOGOUT, "", Value::Null).await, 401, "unauthenticated");
}

//! Sessions: devices, revoking, switching, and what a refresh token is good for.

use futures_util::future::join_all;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tenantry_domain::{OrgId, SessionId, UserId};
use tenantry_store::{Device, Session};
use tenantry_tests::{
    http::{PASSWORD, Rows, problem, seen, text},
    platform::{NOON, Platform, Setup},
};

const MINUTE: i64 = 60_000;

const LOGIN: &str = "/api/v1/auth/login";
const LOGOUT: &str = "/api/v1/auth/logout";
const REFRESH: &str = "/api/v1/auth/refresh";
const SESSIONS: &str = "/api/v1/auth/sessions";
const SWITCH: &str = "/api/v1/auth/switch";
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

fn ids(tokens: &Value) -> (UserId, OrgId) {
    (text(tokens, "/user/id").parse().unwrap(), text(tokens, "/organization/id").parse().unwrap())
}

#[tokio::test]
async fn sessions_are_listed_with_their_devices() {
    let platform = platform().await;
    platform.register("ada@example.com").await;
    platform.clock().advance(MINUTE);
    let device = json!({"id": "d-1", "name": "Ada's phone", "type": "phone", "app_version": "2.4.1"});
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "device": device});
    let headers = [("user-agent", "app/2.4.1")];
    let phone = platform.post_from("192.0.2.7", LOGIN, &headers, body).await.expect(200).json();
    platform.clock().advance(MINUTE);
    let phone = platform.refresh(refresh_token(&phone)).await.expect(200).json();

    let reply = platform.get(SESSIONS, access(&phone)).await.expect(200);
    let list = reply.json();
    let sessions = list["data"].as_array().unwrap();
    assert_eq!((sessions.len(), &list["next_cursor"]), (2, &Value::Null));
    let expected = json!({
        "id": text(&list, "/data/0/id").parse::<SessionId>().unwrap(),
        "current": true,
        "organization_id": phone["organization"]["id"],
        "device": {
            "id": "d-1", "name": "Ada's phone", "type": "phone", "app_version": "2.4.1",
            "ip": "192.0.2.7", "user_agent": "app/2.4.1",
        },
        "created_at": "2026-11-20T12:01:00.000Z",
        "last_used_at": "2026-11-20T12:02:00.000Z",
        "expires_at": "2026-12-20T12:01:00.000Z",
    });
    assert_eq!(sessions[0], expected);
    assert_eq!(sessions[1]["current"], false);
    assert_eq!(sessions[1]["last_used_at"], "2026-11-20T12:00:00.000Z");
    assert!(!reply.text().contains("rt1.") && !reply.text().contains("counter"), "no tokens");

    // Page by page.
    let first = platform.get(&format!("{SESSIONS}?limit=1"), access(&phone)).await.expect(200).json();
    assert_eq!(first["data"], json!([sessions[0]]));
    let next = format!("{SESSIONS}?limit=1&cursor={}", text(&first, "/next_cursor"));
    let second = platform.get(&next, access(&phone)).await.expect(200).json();
    assert_eq!((&second["data"], &second["next_cursor"]), (&json!([sessions[1]]), &Value::Null));
    let grace = platform.register("grace@example.com").await;
    problem(&platform.get(&next, access(&grace)).await, 400, "invalid_parameter");
}

#[tokio::test]
async fn a_session_is_ended_by_its_owner_alone() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let (_, org) = ids(&ada);
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let phone = rows.post(LOGIN, body).await.expect(200).json();
    let grace = rows.register("grace@example.com").await;
    let list = rows.call(Method::GET, SESSIONS, access(&ada), Value::Null).await.expect(200).json();
    let id = list["data"].as_array().unwrap().iter().find(|session| session["current"] == false).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let end = |credential: String, id: String| {
        let rows = &rows;
        async move { rows.call(Method::DELETE, &format!("{SESSIONS}/{id}"), &credential, Value::Null).await }
    };

    let foreign = end(access(&grace).into(), id.clone()).await;
    problem(&foreign, 404, "not_found");
    for unknown in [SessionId::new().to_string(), "nonsense".into(), ids(&ada).0.to_string()] {
        assert_eq!(seen(&end(access(&grace).into(), unknown).await), seen(&foreign));
    }
    rows.post(REFRESH, json!({"refresh_token": refresh_token(&phone)})).await.expect(200);

    end(access(&ada).into(), id.clone()).await.expect(204);
    rows.post(REFRESH, json!({"refresh_token": refresh_token(&phone)})).await.expect(401);
    assert_eq!(seen(&end(access(&ada).into(), id.clone()).await), seen(&foreign), "it is gone");
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "action").await, ["session.revoked"]);
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "target").await, [id]);
    rows.post(REFRESH, json!({"refresh_token": refresh_token(&ada)})).await.expect(200);
}

#[tokio::test]
async fn an_api_key_has_no_sessions() {
    let platform = platform().await;
    let key = platform.api_key("pro").await;
    problem(&platform.get(SESSIONS, &key).await, 403, "forbidden");
    for id in ["nonsense".to_owned(), SessionId::new().to_string()] {
        problem(&platform.delete(&format!("{SESSIONS}/{id}"), &key).await, 403, "forbidden");
    }
    problem(&platform.post(SWITCH, &key, json!({"organization_id": "nonsense"})).await, 403, "forbidden");
    problem(&platform.call(Method::PATCH, ME, &key, json!({})).await, 403, "forbidden");
}

#[tokio::test]
async fn of_a_lineage_the_parent_is_forgiven_and_the_grandparent_is_not() {
    let rows = Rows::start().await;
    let first = rows.register("ada@example.com").await;
    let (_, org) = ids(&first);
    let refresh = |token: &str| rows.post(REFRESH, json!({"refresh_token": token}));
    let replies = join_all((0..20).map(|_| refresh(refresh_token(&first)))).await;
    let tokens: Vec<_> = replies.into_iter().map(|reply| reply.expect(200).json()).collect();
    let current = refresh_token(&tokens[0]).to_owned();
    assert!(tokens.iter().all(|tokens| refresh_token(tokens) == current), "one lineage");

    // The answer was lost: the parent yields the current token, however often.
    for _ in 0..3 {
        assert_eq!(refresh_token(&refresh(refresh_token(&first)).await.expect(200).json()), current);
    }
    let next = refresh(&current).await.expect(200).json();
    // The grandparent: somebody else has a copy.
    refresh(refresh_token(&first)).await.expect(401);
    for token in [refresh_token(&next), &current, refresh_token(&first)] {
        refresh(token).await.expect(401);
    }
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "action").await, ["session.replayed"], "once");
}

#[tokio::test]
async fn a_session_switches_between_the_organizations_of_its_person() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let grace = rows.register("grace@example.com").await;
    let (user, own) = ids(&ada);
    let (_, other) = ids(&grace);
    let switch = |tokens: &Value, org: String| {
        let (rows, token) = (&rows, access(tokens).to_owned());
        async move { rows.call(Method::POST, SWITCH, &token, json!({"organization_id": org})).await }
    };

    let foreign = switch(&ada, other.to_string()).await;
    problem(&foreign, 404, "not_found");
    for unknown in [OrgId::new().to_string(), "nonsense".into()] {
        assert_eq!(seen(&switch(&ada, unknown).await), seen(&foreign));
    }

    rows.set_role(&user, &other, "member").await;
    let body = json!({"organization_id": other.as_str(), "refresh_token": refresh_token(&ada)});
    let reply = rows.call(Method::POST, SWITCH, access(&ada), body).await.expect(200);
    assert_eq!(reply.header("cache-control"), "no-store");
    let switched = reply.json();
    assert_eq!(switched["organization"]["id"], other.as_str());
    assert_eq!(switched["organization"]["role"], "member");
    assert_eq!(switched["expires_in"], 600);
    let me = rows.call(Method::GET, ME, access(&switched), Value::Null).await.expect(200).json();
    assert_eq!(me["organization"]["id"], other.as_str());
    let sessions = rows.call(Method::GET, SESSIONS, access(&switched), Value::Null).await.expect(200).json();
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1, "it is the same session");

    // The answer was lost: the token of before leads to the one of now.
    let refresh = |token: &str| rows.post(REFRESH, json!({"refresh_token": token}));
    let again = refresh(refresh_token(&ada)).await.expect(200).json();
    assert_eq!(refresh_token(&again), refresh_token(&switched));
    assert_eq!(again["organization"]["id"], other.as_str());

    // Whoever is removed is out with the next refresh.
    rows.remove_member(&user, &other).await;
    refresh(refresh_token(&again)).await.expect(401);
    problem(&switch(&ada, own.to_string()).await, 401, "unauthenticated");
}

#[tokio::test]
async fn twenty_switches_leave_one_session_in_one_of_the_organizations() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let grace = rows.register("grace@example.com").await;
    let (user, own) = ids(&ada);
    let (_, other) = ids(&grace);
    rows.set_role(&user, &other, "member").await;
    let switches = (0..20).map(|number| {
        let org = if number % 2 == 0 { &own } else { &other };
        rows.call(Method::POST, SWITCH, access(&ada), json!({"organization_id": org.as_str()}))
    });
    let answers: Vec<_> = join_all(switches).await.into_iter().map(|reply| reply.expect(200).json()).collect();
    assert!(answers.iter().all(|answer| answer.get("refresh_token").is_none()), "none was shown, none is given");
    let refreshed = rows.post(REFRESH, json!({"refresh_token": refresh_token(&ada)})).await.expect(200).json();
    assert!([own.as_str(), other.as_str()].contains(&text(&refreshed, "/organization/id")));
    let sessions = rows.call(Method::GET, SESSIONS, access(&ada), Value::Null).await.expect(200).json();
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn logging_out_elsewhere_is_written_down() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let (_, org) = ids(&ada);
    rows.post(LOGIN, json!({"email": "ada@example.com", "password": PASSWORD})).await.expect(200);
    rows.call(Method::POST, LOGOUT, access(&ada), json!({"scope": "others"})).await.expect(204);
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "action").await, ["session.revoked"]);
    rows.post(REFRESH, json!({"refresh_token": refresh_token(&ada)})).await.expect(200);
}

#[tokio::test]
async fn a_new_device_is_told_to_the_owner() {
    let platform = platform().await;
    platform.register("ada@example.com").await;
    let login = |device: &'static str| {
        let platform = &platform;
        async move {
            let body =
                json!({"email": "ada@example.com", "password": PASSWORD, "device": {"id": device, "name": device}});
            let headers = [("user-agent", "app/1"), ("accept-language", "zh-CN")];
            platform.post_from("192.0.2.7", LOGIN, &headers, body).await.expect(200).json()
        }
    };
    let warnings = || async {
        let letters = platform.letters_to("ada@example.com").await;
        letters.into_iter().filter(|letter| letter.text.contains("192.0.2.7")).collect::<Vec<_>>()
    };
    login("phone").await;
    login("phone").await;
    assert!(warnings().await.is_empty(), "the first device needs no warning");
    let tokens = login("laptop").await;
    let letters = warnings().await;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].text.contains("laptop") && letters[0].subject.contains("新设备"), "{}", letters[0].text);
    login("laptop").await;
    assert_eq!(warnings().await.len(), 1, "once");

    // The person's own language goes before that of the client.
    let patch = json!({"preferred_language": "en"});
    platform.call(Method::PATCH, ME, access(&tokens), patch).await.expect(200);
    login("tablet").await;
    let letters = warnings().await;
    assert!(letters[1].subject.starts_with("New sign-in"), "{}", letters[1].subject);
}

#[tokio::test]
async fn a_new_device_is_written_to_the_audit_log() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let (user, org) = ids(&ada);
    for device in ["phone", "phone", "laptop"] {
        let body = json!({"email": "ada@example.com", "password": PASSWORD, "device": {"id": device}});
        rows.post(LOGIN, body).await.expect(200);
    }
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "action").await, ["device.added"]);
    assert_eq!(rows.tenant_rows(&org, "AUDIT#", "actor").await, [user.to_string()]);
}

#[tokio::test]
async fn a_profile_is_changed_field_by_field() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    let patch = |body: Value| platform.call(Method::PATCH, ME, access(&tokens), body);
    let full = json!({
        "full_name": " Ada ", "avatar_url": "https://example.com/ada.png", "phone": "+441632960961",
        "preferred_language": "zh", "theme_preference": "dark",
    });
    let reply = patch(full).await.expect(200);
    let user = reply.json()["user"].clone();
    assert_eq!((&user["full_name"], &user["phone"]), (&json!("Ada"), &json!("+441632960961")));
    assert_eq!(user["avatar_url"], "https://example.com/ada.png");
    assert_eq!((&user["preferred_language"], &user["theme_preference"]), (&json!("zh"), &json!("dark")));
    let me = platform.get(ME, access(&tokens)).await.expect(200);
    assert_eq!((me.json(), me.header("etag")), (reply.json(), reply.header("etag")));

    let user = patch(json!({"phone": null})).await.expect(200).json()["user"].clone();
    assert_eq!((&user["phone"], &user["full_name"]), (&Value::Null, &json!("Ada")), "the others stay");
    for (body, pointer) in [
        (json!({"avatar_url": "http://example.com/ada.png"}), "/avatar_url"),
        (json!({"phone": "01632 960961"}), "/phone"),
        (json!({"full_name": ""}), "/full_name"),
        (json!({"preferred_language": "fr"}), "/preferred_language"),
        (json!({"theme_preference": "blue"}), "/theme_preference"),
    ] {
        assert_eq!(problem(&patch(body).await, 422, "invalid_value")["errors"][0]["pointer"], pointer);
    }
    for unknown in ["email", "password_hash", "disabled", "epoch", "email_verified_at"] {
        problem(&patch(json!({unknown: "x"})).await, 400, "invalid_body");
    }
}

#[tokio::test]
async fn of_two_who_saw_one_version_one_changes_it() {
    let platform = platform().await;
    let tokens = platform.register("ada@example.com").await;
    let tag = platform.get(ME, access(&tokens)).await.expect(200).header("etag").to_owned();
    assert_eq!(tag, "\"1\"");
    let patch = |name: String| {
        let request = Request::patch(ME)
            .header(header::AUTHORIZATION, format!("Bearer {}", access(&tokens)))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, &tag)
            .body(json!({"full_name": name}).to_string().into())
            .unwrap();
        platform.send(request)
    };
    let replies = join_all((0..10).map(|number| patch(format!("Ada {number}")))).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.as_u16() == 200);
    assert_eq!((won.len(), lost.len()), (1, 9));
    assert_eq!(won[0].header("etag"), "\"2\"");
    for reply in lost {
        problem(reply, 412, "precondition_failed");
    }
    assert_eq!(platform.get(ME, access(&tokens)).await.json(), won[0].json());
}

#[tokio::test]
async fn a_stolen_access_token_never_becomes_a_longer_session() {
    let platform = platform().await;
    let ada = platform.register("ada@example.com").await;
    let second = platform.post("/api/v1/organizations", access(&ada), json!({"name": "Second"})).await.expect(201);
    let (own, second) = (ids(&ada).1.to_string(), text(&second.json(), "/id").to_owned());
    let switch = |token: String, org: String| {
        let platform = &platform;
        async move { platform.post(SWITCH, &token, json!({"organization_id": org})).await }
    };
    // However often it is switched, it ends when it would have ended.
    let mut stolen = access(&ada).to_owned();
    for turn in 1..5_i64 {
        platform.clock().advance(2 * MINUTE);
        let org = if turn % 2 == 0 { &own } else { &second };
        let answer = switch(stolen, org.clone()).await.expect(200).json();
        assert!(answer.get("refresh_token").is_none(), "{answer}");
        assert_eq!(answer["expires_in"], 600 - turn * 120);
        stolen = access(&answer).to_owned();
    }
    platform.clock().advance(2 * MINUTE - 1);
    platform.get(ME, &stolen).await.expect(200);
    platform.clock().advance(1);
    platform.get(ME, &stolen).await.expect(401);
    problem(&switch(stolen, second.clone()).await, 401, "invalid_api_key");

    // The owner's refresh token was not touched by any of it. With it, the session goes on, by the rules of its lineage.
    let ada = platform.refresh(refresh_token(&ada)).await.expect(200).json();
    let grace = platform.register("grace@example.com").await;
    let with = |tokens: &Value, refresh: String| {
        let (platform, token) = (&platform, access(tokens).to_owned());
        let body = json!({"organization_id": second, "refresh_token": refresh});
        async move { platform.post(SWITCH, &token, body).await }
    };
    for wrong in ["", "rt1.x", refresh_token(&grace)] {
        problem(&with(&ada, wrong.to_owned()).await, 401, "unauthenticated");
    }
    let other = platform.sign_in("ada@example.com", None).await.expect(200).json();
    problem(&with(&ada, refresh_token(&other).to_owned()).await, 401, "unauthenticated");
    let switched = with(&ada, refresh_token(&ada).to_owned()).await.expect(200).json();
    let again = with(&ada, refresh_token(&ada).to_owned()).await.expect(200).json();
    assert_eq!(refresh_token(&again), refresh_token(&switched), "the answer was lost");
    let next = platform.refresh(refresh_token(&switched)).await.expect(200).json();
    problem(&with(&ada, refresh_token(&ada).to_owned()).await, 401, "unauthenticated");
    platform.refresh(refresh_token(&next)).await.expect(401);
}

#[tokio::test]
async fn a_refresh_token_logs_its_session_out() {
    let platform = platform().await;
    let ada = platform.register("ada@example.com").await;
    let phone = platform.sign_in("ada@example.com", None).await.expect(200).json();
    let logout = |body: Value| platform.post(LOGOUT, "", body);
    // The access token may have expired long ago.
    platform.clock().advance(11 * MINUTE);
    for scope in ["others", "global"] {
        let body = json!({"refresh_token": refresh_token(&phone), "scope": scope});
        problem(&logout(body).await, 400, "invalid_body");
    }
    for wrong in ["", "rt1.x.y.0.z", &refresh_token(&phone).replace(".0.", ".1.")] {
        problem(&logout(json!({"refresh_token": wrong})).await, 401, "unauthenticated");
    }
    logout(json!({"refresh_token": refresh_token(&phone)})).await.expect(204);
    logout(json!({"refresh_token": refresh_token(&phone)})).await.expect(204);
    platform.refresh(refresh_token(&phone)).await.expect(401);
    platform.refresh(refresh_token(&ada)).await.expect(200);
}

#[tokio::test]
async fn a_session_that_was_ended_ends_no_other_and_changes_nothing() {
    let platform = platform().await;
    let ada = platform.register("ada@example.com").await;
    let thief = platform.sign_in("ada@example.com", None).await.expect(200).json();
    let list = platform.get(SESSIONS, access(&ada)).await.expect(200).json();
    let id = |current: bool| {
        let sessions = list["data"].as_array().unwrap();
        text(sessions.iter().find(|session| session["current"] == current).unwrap(), "/id").to_owned()
    };
    platform.delete(&format!("{SESSIONS}/{}", id(false)), access(&ada)).await.expect(204);
    for scope in ["others", "global"] {
        problem(&platform.post(LOGOUT, access(&thief), json!({"scope": scope})).await, 401, "unauthenticated");
    }
    problem(&platform.delete(&format!("{SESSIONS}/{}", id(true)), access(&thief)).await, 401, "unauthenticated");
    let patch = platform.call(Method::PATCH, ME, access(&thief), json!({"full_name": "Mallory"})).await;
    problem(&patch, 401, "unauthenticated");
    platform.refresh(refresh_token(&ada)).await.expect(200);
}

#[tokio::test]
async fn nobody_has_more_than_a_hundred_sessions() {
    let platform = platform().await;
    let ada = platform.register("ada@example.com").await;
    let (user, org) = ids(&ada);
    let session = |number: i64| Session {
        id: SessionId::new(),
        user: user.clone(),
        org: org.clone(),
        counter: 0,
        expires_at: NOON + 30 * 24 * 60 * MINUTE,
        created_at: NOON + number,
        last_used_at: None,
        epoch: 0,
        device: Device::default(),
    };
    for number in 0..104 {
        platform.store().create_session(&session(number)).await.unwrap();
    }
    let newest = platform.sign_in("ada@example.com", None).await.expect(200).json();
    assert_eq!(platform.store().sessions(&user).await.unwrap().len(), 100);
    platform.refresh(refresh_token(&newest)).await.expect(200);
    platform.refresh(refresh_token(&ada)).await.expect(401);
}

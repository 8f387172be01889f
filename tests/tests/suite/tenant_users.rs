//! Tenant users: the end customers of a tenant.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_tests::{
    http::{problem, seen, text},
    platform::{Platform, Reply, Setup, Tenant, request},
};

const USERS: &str = "/api/v1/tenant-users";

async fn stage() -> (Platform, Tenant, String) {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("free").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    (platform, tenant, token)
}

async fn create(platform: &Platform, token: &str, body: Value) -> Reply {
    platform.post(USERS, token, body).await
}

async fn patch(platform: &Platform, token: &str, name: &str, body: Value) -> Reply {
    platform.call(Method::PATCH, &format!("{USERS}/{name}"), token, body).await
}

#[tokio::test]
async fn a_tenant_user_is_created_changed_and_deleted() {
    let (platform, tenant, token) = stage().await;
    let body = json!({"username": "Mike+1@Shop.example", "password": "zq7-xkmp-vw", "display_name": " Mike ",
        "metadata": {"tier": "gold", "n": 1}});
    let made = create(&platform, &token, body).await.expect(201);
    assert_eq!(made.header("etag"), "\"1\"");
    let made = made.json();
    let expected = json!({
        "id": made["id"], "username": "mike+1@shop.example", "display_name": "Mike",
        "metadata": {"tier": "gold", "n": 1}, "has_password": true, "disabled": false,
        "created_at": "2026-11-20T12:00:00.000Z",
    });
    assert_eq!(made, expected);
    let listed = platform.get(USERS, &token).await.expect(200);
    assert_eq!(listed.json(), json!({"data": [expected], "next_cursor": null}));
    assert!(!listed.text().contains("argon2"));

    let changed = patch(
        &platform,
        &token,
        "MIKE+1@shop.example",
        json!({"display_name": null, "disabled": true, "metadata": null, "password": null}),
    );
    let changed = changed.await.expect(200).json();
    assert_eq!((&changed["display_name"], &changed["disabled"]), (&Value::Null, &json!(true)));
    assert_eq!((&changed["metadata"], &changed["has_password"]), (&json!({}), &json!(false)));
    let log = platform.get("/api/v1/audit-log?action=tenant_user", &token).await.expect(200).text();
    assert!(
        !log.contains("mike") && !log.contains("Mike") && !log.contains("gold") && !log.contains("argon2"),
        "{log}"
    );
    assert!(log.contains(text(&made, "/id")), "{log}");

    let path = format!("{USERS}/mike+1@shop.example");
    platform.delete(&path, &token).await.expect(204);
    problem(&platform.delete(&path, &token).await, 404, "not_found");
    problem(&patch(&platform, &token, "mike+1@shop.example", json!({})).await, 404, "not_found");
    // The name is free, for somebody else.
    let again = create(&platform, &token, json!({"username": "mike+1@shop.example"})).await.expect(201).json();
    assert_ne!(again["id"], made["id"]);
    let stored = format!("{:?}", platform.rows(&tenant.scope, "TUSER#").await);
    assert!(!stored.contains("zq7-xkmp"), "{stored}");
}

#[tokio::test]
async fn a_name_is_taken_once_in_a_tenant_whatever_its_spelling() {
    let (platform, _, token) = stage().await;
    let other = platform.tenant("free").await;
    let other = text(&platform.login(&other).await, "/access_token").to_owned();
    let replies = join_all((0..8).map(|_| create(&platform, &token, json!({"username": "mike"})))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    for name in ["MIKE", "ｍｉｋｅ", "mi\u{212a}e"] {
        problem(&create(&platform, &token, json!({"username": name})).await, 409, "conflict");
    }
    for name in ["m\u{456}ke", "mi", "a b c", "a#b", "", "mike\u{200b}", &"a".repeat(65)] {
        let error = problem(&create(&platform, &token, json!({"username": name})).await, 422, "invalid_value");
        assert_eq!(error["errors"][0]["pointer"], "/username", "{name}");
    }
    create(&platform, &other, json!({"username": "mike"})).await.expect(201);
}

#[tokio::test]
async fn bad_values_name_the_field() {
    let (platform, _, token) = stage().await;
    for (body, status, says) in [
        (json!({"username": "mike", "password": "short"}), 422, "password: must be 8"),
        (json!({"username": "mike", "password": "password1"}), 422, "password: is one of"),
        (
            json!({"username": "bartholomew", "password": "bartholomew7"}),
            422,
            "password: is too much like the username",
        ),
        (json!({"username": "mike", "metadata": {"x": "y".repeat(4096)}}), 422, "metadata: must be 4096"),
        (json!({"username": "mike", "metadata": [1]}), 400, "metadata"),
        (json!({"username": "mike", "role": "admin"}), 400, "role"),
        (json!({}), 400, "username"),
    ] {
        let reply = create(&platform, &token, body.clone()).await;
        let error = problem(&reply, status, if status == 422 { "invalid_value" } else { "invalid_body" });
        assert!(text(&error, "/detail").contains(says), "{body}: {error}");
    }
    assert_eq!(platform.get(USERS, &token).await.expect(200).json()["data"], json!([]));
}

#[tokio::test]
async fn another_tenants_user_is_one_that_never_existed() {
    let (platform, _, token) = stage().await;
    let other = platform.tenant("free").await;
    let other = text(&platform.login(&other).await, "/access_token").to_owned();
    create(&platform, &other, json!({"username": "mike"})).await.expect(201);
    let mut first = None;
    for name in ["mike", "nobody", "x", "%ff", "m%23ke"] {
        let reply = patch(&platform, &token, name, json!({"disabled": true})).await;
        problem(&reply, 404, "not_found");
        assert_eq!(&seen(&reply), first.get_or_insert(seen(&reply)), "{name}");
        assert_eq!(platform.delete(&format!("{USERS}/{name}"), &token).await.status, 404, "{name}");
    }
    assert_eq!(platform.get(USERS, &other).await.json()["data"][0]["disabled"], false);
}

#[tokio::test]
async fn the_list_has_pages_and_changes_have_versions() {
    let (platform, _, token) = stage().await;
    for name in ["dora", "anna", "carl", "bert", "emil"] {
        create(&platform, &token, json!({"username": name})).await.expect(201);
    }
    let (mut names, mut cursor) = (vec![], String::new());
    loop {
        let page = platform.get(&format!("{USERS}?limit=2{cursor}"), &token).await.expect(200).json();
        names.extend(page["data"].as_array().unwrap().iter().map(|user| text(user, "/username").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["anna", "bert", "carl", "dora", "emil"]);
    let meant = |method, tag: &str, body: &Value| {
        let mut request = request(method, &format!("{USERS}/anna"), &token, body);
        request.headers_mut().insert("if-match", tag.parse().unwrap());
        request
    };
    let changed = platform.send(meant(Method::PATCH, "\"1\"", &json!({"disabled": true}))).await.expect(200);
    assert_eq!(changed.header("etag"), "\"2\"");
    problem(
        &platform.send(meant(Method::PATCH, "\"1\"", &json!({"disabled": false}))).await,
        412,
        "precondition_failed",
    );
    problem(&platform.send(meant(Method::DELETE, "\"1\"", &Value::Null)).await, 412, "precondition_failed");
    platform.send(meant(Method::DELETE, "\"2\"", &Value::Null)).await.expect(204);
}

#[tokio::test]
async fn the_same_request_creates_once() {
    let (platform, _, token) = stage().await;
    let keyed = || {
        let mut request = request(Method::POST, USERS, &token, &json!({"username": "mike", "password": "zq7-xkmp-vw"}));
        request.headers_mut().insert("idempotency-key", "once".parse().unwrap());
        request
    };
    let first = platform.send(keyed()).await.expect(201);
    let again = platform.send(keyed()).await.expect(201);
    assert_eq!((again.header("idempotent-replayed"), again.json()), ("true", first.json()));
}

#[tokio::test]
async fn metadata_comes_back_as_it_went_in() {
    let (platform, tenant, token) = stage().await;
    // A key that some JSON libraries take for a sign to look into the text beside it.
    let magic = json!({"x": {"$serde_json::private::RawValue": "[[1]]"}, "deep": [[[[{"n": 1.5}]]]]});
    // As text: this program's own JSON has the same habit.
    let whole = magic.to_string();
    let made = create(&platform, &token, json!({"username": "mike", "metadata": magic})).await.expect(201);
    let listed = platform.get(USERS, &token).await.expect(200);
    let changed = patch(&platform, &token, "mike", json!({"metadata": magic})).await.expect(200);
    for reply in [made, listed, changed] {
        assert!(reply.text().contains(&whole), "{}", reply.text());
    }
    let export = platform.get(&format!("/api/v1/organizations/{}/export", tenant.org), &token).await.expect(200);
    assert!(export.text().contains("$serde_json::private::RawValue"), "{}", export.text());

    let nested = |levels: usize| {
        format!("{{\"username\":\"anna\",\"metadata\":{{\"x\":{}{}}}}}", "[".repeat(levels), "]".repeat(levels))
    };
    let send = async |body: String| {
        let mut request = request(Method::POST, USERS, &token, &json!({}));
        *request.body_mut() = body.into();
        platform.send(request).await
    };
    send(nested(64)).await.expect(422);
    send(nested(63)).await.expect(201);
    for wrong in [json!([]), json!("x"), json!(1), Value::Null] {
        create(&platform, &token, json!({"username": "otto", "metadata": wrong})).await.expect(400);
    }
}

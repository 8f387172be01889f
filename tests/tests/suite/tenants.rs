//! Organizations and API keys.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{KeyId, OrgId, secret::sha256_hex};
use tenantry_tests::{
    http::{Rows, problem, seen, text},
    platform::{Platform, Setup, Tenant},
};

const KEYS: &str = "/api/v1/api-keys";
const ORGANIZATIONS: &str = "/api/v1/organizations";

async fn platform() -> Platform {
    Platform::start(Setup::default()).await
}

/// A tenant on a plan without a limit of keys, and its owner's access token. It has one key.
async fn tenant(platform: &Platform) -> (Tenant, String) {
    let tenant = platform.tenant("team").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    (tenant, token)
}

async fn create(platform: &Platform, token: &str, name: &str) -> Value {
    platform.post(KEYS, token, json!({"name": name})).await.expect(201).json()
}

#[tokio::test]
async fn a_caller_sees_their_organization() {
    let platform = platform().await;
    let (tenant, token) = tenant(&platform).await;
    let mut expected = json!({
        "id": tenant.org,
        "name": text(&platform.login(&tenant).await, "/organization/name"),
        "plan": "team",
        "settings": {"support_email": null, "default_language": null},
        "model_budgets": null, "deletes_at": null,
        "created_at": "2026-11-20T12:00:00.000Z",
        "role": "owner",
    });
    let path = format!("{ORGANIZATIONS}/{}", tenant.org);
    let list = |organization: &Value| json!({"data": [organization], "next_cursor": null});
    assert_eq!(platform.get(&path, &token).await.expect(200).json(), expected);
    assert_eq!(platform.get(ORGANIZATIONS, &token).await.expect(200).json(), list(&expected));
    // A program has no role.
    expected["role"] = Value::Null;
    assert_eq!(platform.get(&path, &tenant.api_key).await.expect(200).json(), expected);
    assert_eq!(platform.get(ORGANIZATIONS, &tenant.api_key).await.expect(200).json(), list(&expected));
}

#[tokio::test]
async fn organizations_are_listed_page_by_page_and_shown_to_members_alone() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let user = text(&ada, "/user/id").parse().unwrap();
    let mut ids = vec![text(&ada, "/organization/id").to_owned()];
    for number in 0..4 {
        let other = rows.register(&format!("{number}@example.com")).await;
        let org: OrgId = text(&other, "/organization/id").parse().unwrap();
        rows.set_role(&user, &org, "member").await;
        ids.push(org.to_string());
    }
    let token = text(&ada, "/access_token");
    let get = async |path: String| rows.call(Method::GET, &path, token, Value::Null).await;

    let (mut listed, mut cursor) = (vec![], String::new());
    for _ in 0..3 {
        let page = get(format!("{ORGANIZATIONS}?limit=2{cursor}")).await.expect(200).json();
        listed.extend(page["data"].as_array().unwrap().iter().map(|row| text(row, "/id").to_owned()));
        cursor = page["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    }
    assert_eq!((listed, cursor), (ids.clone(), String::new()));

    let shown = get(format!("{ORGANIZATIONS}/{}", ids[2])).await.expect(200).json();
    assert_eq!(shown["role"], "member");
    let unknown = seen(&get(format!("{ORGANIZATIONS}/{}", OrgId::new())).await);
    rows.remove_member(&user, &ids[2].parse().unwrap()).await;
    assert_eq!(seen(&get(format!("{ORGANIZATIONS}/{}", ids[2])).await), unknown);
    let me = get("/api/v1/auth/me".into()).await.expect(200).json();
    assert_eq!(me["organizations"].as_array().unwrap().len(), 4);
    assert_eq!(me["organizations"][1]["role"], "member");
}

#[tokio::test]
async fn a_key_is_shown_once_listed_and_revoked() {
    let platform = platform().await;
    let (tenant, token) = tenant(&platform).await;
    let reply = platform.post(KEYS, &token, json!({"name": "  production "})).await.expect(201);
    assert_eq!(reply.header("cache-control"), "no-store");
    let created = reply.json();
    let secret = text(&created, "/secret").to_owned();
    let listed = json!({
        "id": text(&created, "/id").parse::<KeyId>().unwrap(),
        "name": "production",
        "prefix": &secret[..12],
        "last4": &secret[secret.len() - 4..],
        "scopes": ["models", "usage"],
        "test": false,
        "disabled": false,
        "budget": null,
        "requests_per_minute": null,
        "expires_at": null,
        "previous_secret_expires_at": null,
        "last_used_at": null,
        "created_at": "2026-11-20T12:00:00.000Z",
        "created_by": tenant.user,
    });
    let mut expected = listed.clone();
    expected["secret"] = json!(secret);
    assert_eq!(created, expected);

    let reply = platform.get(KEYS, &token).await.expect(200);
    assert_eq!(reply.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(reply.json()["data"][1], listed);
    assert_eq!(reply.json()["next_cursor"], Value::Null);
    for hidden in [&secret, &secret[12..40], &sha256_hex(secret.as_bytes()), "hash", "\"secret\""] {
        assert!(!reply.text().contains(hidden), "{hidden}: {}", reply.text());
    }

    platform.get(ORGANIZATIONS, &secret).await.expect(200);
    let path = format!("{KEYS}/{}", text(&created, "/id"));
    let reply = platform.delete(&path, &token).await.expect(204);
    assert!(reply.bytes.is_empty());
    problem(&platform.get(ORGANIZATIONS, &secret).await, 401, "invalid_api_key");
    assert_eq!(platform.get(KEYS, &token).await.json()["data"].as_array().unwrap().len(), 1);
    problem(&platform.delete(&path, &token).await, 404, "not_found");
    platform.get(ORGANIZATIONS, &tenant.api_key).await.expect(200);
}

#[tokio::test]
async fn the_secret_is_not_stored() {
    let rows = Rows::start().await;
    let ada = rows.register("ada@example.com").await;
    let token = text(&ada, "/access_token");
    let created = rows.call(Method::POST, KEYS, token, json!({"name": "one"})).await.expect(201).json();
    let secret = text(&created, "/secret");
    let stored = rows.stored_of_tenant(&text(&ada, "/organization/id").parse().unwrap()).await;
    assert!(stored.contains(&sha256_hex(secret.as_bytes())) && !stored.contains(&secret[12..40]), "{stored}");
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let platform = platform().await;
    let (tenant, token) = tenant(&platform).await;
    let mut ids = vec![tenant.key.to_string()];
    for name in ["b", "c", "d", "e", "f"] {
        ids.push(text(&create(&platform, &token, name).await, "/id").to_owned());
    }
    for limit in [1, 2, 3, 4, 6, 7, 100] {
        let (mut listed, mut cursor, mut pages) = (vec![], String::new(), 0);
        loop {
            let page = platform.get(&format!("{KEYS}?limit={limit}{cursor}"), &token).await.expect(200).json();
            let rows = page["data"].as_array().unwrap();
            assert!((1..=limit).contains(&rows.len()), "an empty page at limit {limit}");
            listed.extend(rows.iter().map(|row| text(row, "/id").to_owned()));
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(listed, ids, "limit {limit}");
        assert_eq!(pages, ids.len().div_ceil(limit), "no page is in vain");
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_list_alone() {
    let platform = platform().await;
    let (_, token) = tenant(&platform).await;
    let (_, other) = tenant(&platform).await;
    create(&platform, &token, "b").await;
    create(&platform, &other, "b").await;
    let page = platform.get(&format!("{KEYS}?limit=1"), &token).await.expect(200).json();
    let cursor = text(&page, "/next_cursor");
    let garbage = seen(&platform.get(&format!("{KEYS}?cursor=AAAA"), &token).await);
    assert_eq!(garbage.0, 400);
    let foreign = platform.get(&format!("{KEYS}?cursor={cursor}"), &other).await;
    assert_eq!(problem(&foreign, 400, "invalid_parameter")["detail"], "cursor: not one that this list handed out");
    assert_eq!(seen(&foreign), garbage);
    for path in [ORGANIZATIONS, "/api/v1/usage/records"] {
        assert_eq!(seen(&platform.get(&format!("{path}?cursor={cursor}"), &token).await), garbage, "{path}");
    }
}

#[tokio::test]
async fn twenty_parallel_creations_fill_a_plan_of_two_exactly() {
    let platform = platform().await;
    let registered = platform.register("ada@example.com").await;
    let token = text(&registered, "/access_token");
    let replies = join_all((0..20).map(|n| platform.post(KEYS, token, json!({"name": format!("key {n}")})))).await;
    let created: Vec<_> =
        replies.iter().filter(|reply| reply.status.as_u16() == 201).map(|reply| reply.json()).collect();
    assert_eq!(created.len(), 2);
    for refused in replies.iter().filter(|reply| reply.status.as_u16() != 201) {
        let error = problem(refused, 403, "upgrade_required");
        let detail = text(&error, "/detail");
        assert!(detail.contains("Free") && detail.contains("2 API keys"), "{detail}");
    }
    let listed = platform.get(KEYS, token).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);

    platform.delete(&format!("{KEYS}/{}", text(&created[0], "/id")), token).await.expect(204);
    create(&platform, token, "another").await;
    platform.post(KEYS, token, json!({"name": "one too many"})).await.expect(403);
}

#[tokio::test]
async fn of_parallel_revocations_one_frees_a_place() {
    let platform = platform().await;
    let registered = platform.register("ada@example.com").await;
    let token = text(&registered, "/access_token");
    create(&platform, token, "stays").await;
    let path = format!("{KEYS}/{}", text(&create(&platform, token, "goes").await, "/id"));
    let replies = join_all((0..10).map(|_| platform.delete(&path, token))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status.as_u16() == 204).count(), 1);
    create(&platform, token, "in its place").await;
    platform.post(KEYS, token, json!({"name": "one too many"})).await.expect(403);
}

#[tokio::test]
async fn a_foreign_id_is_an_id_that_never_existed() {
    let platform = platform().await;
    let (mine, token) = tenant(&platform).await;
    let (theirs, their_token) = tenant(&platform).await;
    let deleted = text(&create(&platform, &token, "deleted").await, "/id").to_owned();
    platform.delete(&format!("{KEYS}/{deleted}"), &token).await.expect(204);

    let organizations =
        [theirs.org.to_string(), OrgId::new().to_string(), "org_x".into(), mine.key.to_string(), "%ff".into()];
    for credential in [&token, &mine.api_key] {
        let replies = join_all(organizations.iter().map(|id| {
            let path = format!("{ORGANIZATIONS}/{id}");
            let platform = &platform;
            async move { platform.get(&path, credential).await }
        }))
        .await;
        problem(&replies[0], 404, "not_found");
        for (id, reply) in organizations.iter().zip(&replies) {
            assert_eq!(seen(reply), seen(&replies[0]), "{id}");
        }
    }
    let keys =
        [theirs.key.to_string(), deleted, KeyId::new().to_string(), "key_x".into(), mine.org.to_string(), "%ff".into()];
    let mut first = None;
    for id in keys {
        let reply = platform.delete(&format!("{KEYS}/{id}"), &token).await;
        problem(&reply, 404, "not_found");
        assert_eq!(&seen(&reply), first.get_or_insert(seen(&reply)), "{id}");
    }
    // And nothing happened to it.
    platform.get(ORGANIZATIONS, &theirs.api_key).await.expect(200);
    let listed = platform.get(KEYS, &their_token).await.expect(200).json();
    assert_eq!(listed["data"][0]["id"], json!(theirs.key));
    assert!(!platform.get(KEYS, &token).await.text().contains(theirs.key.as_str()));
}

#[tokio::test]
async fn a_key_manages_nothing_and_is_no_person() {
    let platform = platform().await;
    let (tenant, _) = tenant(&platform).await;
    let key = &tenant.api_key;
    problem(&platform.get(KEYS, key).await, 403, "forbidden");
    problem(&platform.post(KEYS, key, json!({"name": "mine"})).await, 403, "forbidden");
    let refused = platform.delete(&format!("{KEYS}/{}", tenant.key), key).await;
    problem(&refused, 403, "forbidden");
    assert_eq!(seen(&platform.delete(&format!("{KEYS}/nonsense"), key).await), seen(&refused));
    problem(&platform.get("/api/v1/auth/me", key).await, 403, "forbidden");
    problem(&platform.post("/api/v1/auth/logout", key, json!({"scope": "global"})).await, 403, "forbidden");
    platform.get("/api/v1/usage/stats", key).await.expect(200);
}

#[tokio::test]
async fn a_key_is_taken_in_both_headers() {
    let platform = platform().await;
    let (tenant, _) = tenant(&platform).await;
    let request = http::Request::get(ORGANIZATIONS).header("x-api-key", &tenant.api_key);
    platform.send(request.body(axum::body::Body::empty()).unwrap()).await.expect(200);
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let platform = platform().await;
    let (_, token) = tenant(&platform).await;
    for (body, status, says) in [
        (json!({}), 400, "name"),
        (json!({"name": null}), 400, "name"),
        (json!({"name": "a", "color": "red"}), 400, "color"),
        (json!({"name": "a", "scopes": ["everything"]}), 422, "scopes"),
        (json!({"name": "a", "scopes": []}), 422, "scopes: must name one at least"),
        (json!({"name": "a", "expires_at": "tomorrow"}), 422, "expires_at: must be a time"),
        (json!({"name": "a", "expires_at": "2026-11-20T12:00:00Z"}), 422, "expires_at: must be in the future"),
        (json!(["a"]), 400, "must be a JSON object"),
        (json!({"name": "   "}), 422, "name: must be 1 to 100 characters"),
        (json!({"name": "ä".repeat(101)}), 422, "name: must be 1 to 100 characters"),
        (json!({"name": "a\u{0}b"}), 422, "name: must be one line"),
    ] {
        let reply = platform.post(KEYS, &token, body.clone()).await;
        let error = problem(&reply, status, if status == 422 { "invalid_value" } else { "invalid_body" });
        assert!(text(&error, "/detail").contains(says), "{body}: {error}");
    }
    for (query, says) in [
        ("limit=0", "query: limit: must be a whole number from 1 to 100"),
        ("limit=101", "query: limit: must be a whole number from 1 to 100"),
        ("limit=-1", "query: limit: must be a whole number from 1 to 100"),
        ("limit=many", "query: limit: must be a whole number from 1 to 100"),
        ("limit=1&limit=2", "duplicate field `limit`"),
        ("page=2", "unknown field `page`"),
        ("cursor=%21", "cursor: "),
        ("cursor=", "cursor: "),
    ] {
        for path in [KEYS, ORGANIZATIONS] {
            let error = problem(&platform.get(&format!("{path}?{query}"), &token).await, 400, "invalid_parameter");
            assert!(text(&error, "/detail").contains(says), "{query}: {error}");
        }
    }
    let listed = platform.get(KEYS, &token).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "nothing was created");
    create(&platform, &token, &"ä".repeat(100)).await;
}

#[tokio::test]
async fn an_access_token_makes_no_key_once_its_session_has_ended() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let tokens = platform.login(&tenant).await;
    let access = tokens["access_token"].as_str().unwrap();
    platform.post("/api/v1/api-keys", access, json!({"name": "before"})).await.expect(201);
    platform.post("/api/v1/auth/logout", access, json!({"scope": "global"})).await.expect(204);
    let reply = platform.post("/api/v1/api-keys", access, json!({"name": "after"})).await.expect(401);
    assert_eq!(reply.code(), "unauthenticated");
}

#[tokio::test]
async fn a_name_is_one_line_in_one_direction() {
    let platform = platform().await;
    let (_, token) = tenant(&platform).await;
    for name in ["a\u{2028}b", "a\u{2029}b", "a\u{202e}b", "a\u{2066}b", "a\u{85}b", "a\r\nBcc: b"] {
        for path in [KEYS, ORGANIZATIONS] {
            problem(&platform.post(path, &token, json!({"name": name})).await, 422, "invalid_value");
        }
    }
}

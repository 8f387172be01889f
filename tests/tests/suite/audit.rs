//! The audit log: what is written, who may read it, and how.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use tenantry_tests::{
    accounts::token_in,
    http::{no_formulas, problem, text},
    platform::{Platform, Setup, Tenant, request},
};

const LOG: &str = "/api/v1/audit-log";
const KEYS: &str = "/api/v1/api-keys";
const ORGANIZATIONS: &str = "/api/v1/organizations";
const DAY: i64 = 24 * 60 * 60 * 1000;

async fn stage() -> (Platform, Tenant, String) {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let token = access(&platform, &tenant).await;
    (platform, tenant, token)
}

async fn access(platform: &Platform, tenant: &Tenant) -> String {
    text(&platform.login(tenant).await, "/access_token").to_owned()
}

async fn log(platform: &Platform, token: &str, query: &str) -> Vec<Value> {
    let page = platform.get(&format!("{LOG}{query}"), token).await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

fn actions(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| text(row, "/action")).collect()
}

#[tokio::test]
async fn every_change_has_its_row_with_who_what_and_where_from() {
    let (platform, tenant, token) = stage().await;
    let org = format!("{ORGANIZATIONS}/{}", tenant.org);
    let guest = platform.register("guest@example.com").await;
    let body = json!({"name": "Engines", "settings": {"support_email": "help@example.com", "default_language": "zh"}});
    platform.call(Method::PATCH, &org, &token, body).await.expect(200);
    let key = platform.post(KEYS, &token, json!({"name": "k"})).await.expect(201).json();
    let key_path = format!("{KEYS}/{}", text(&key, "/id"));
    platform.call(Method::PATCH, &key_path, &token, json!({"name": "n", "disabled": false})).await.expect(200);
    platform.post(&format!("{key_path}/rotate"), &token, Value::Null).await.expect(200);
    platform.delete(&key_path, &token).await.expect(204);
    let invite = json!({"email": "guest@example.com", "role": "member"});
    platform.post(&format!("{org}/members"), &token, invite.clone()).await.expect(201);
    let invites = platform.get(&format!("{org}/invites"), &token).await.expect(200).json();
    platform.delete(&format!("{org}/invites/{}", text(&invites, "/data/0/id")), &token).await.expect(204);
    platform.post(&format!("{org}/members"), &token, invite).await.expect(201);
    let link = token_in(&platform.last_letter_to("guest@example.com").await);
    let guest_token = text(&guest, "/access_token");
    platform.post("/api/v1/invites/accept", guest_token, json!({"token": link})).await.expect(200);
    let member = format!("{org}/members/{}", text(&guest, "/user/id"));
    platform.call(Method::PATCH, &member, &token, json!({"role": "admin"})).await.expect(200);
    platform.delete(&member, &token).await.expect(204);
    platform.post("/api/v1/tenant-users", &token, json!({"username": "mike"})).await.expect(201);
    platform.delete("/api/v1/tenant-users/mike", &token).await.expect(204);

    let mut request: Request<Body> = request(Method::DELETE, &org, &token, &Value::Null);
    request.headers_mut().insert("user-agent", "engine/1".parse().unwrap());
    request.headers_mut().insert("x-request-id", "the-request".parse().unwrap());
    request.headers_mut().insert("x-forwarded-for", "198.51.100.1".parse().unwrap());
    platform.send(request).await.expect(202);
    platform.post(&format!("{org}/restore"), &token, Value::Null).await.expect(200);

    let rows = log(&platform, &token, "").await;
    assert_eq!(
        actions(&rows),
        [
            "organization.restored",
            "organization.deleted",
            "tenant_user.deleted",
            "tenant_user.created",
            "member.removed",
            "member.role_changed",
            "member.joined",
            "member.invited",
            "invite.revoked",
            "member.invited",
            "api_key.revoked",
            "api_key.rotated",
            "api_key.updated",
            "api_key.created",
            "organization.updated",
        ]
    );
    let deleted = &rows[1];
    assert_eq!((text(deleted, "/actor"), text(deleted, "/target")), (tenant.user.as_str(), tenant.org.as_str()));
    assert_eq!((text(deleted, "/user_agent"), text(deleted, "/request_id")), ("engine/1", "the-request"));
    assert_eq!((&deleted["ip"], text(deleted, "/at")), (&Value::Null, "2026-11-20T12:00:00.000Z"));
    assert_eq!(deleted["changes"], json!([{"field": "deletes_at", "old": null, "new": "2026-12-20T12:00:00.000Z"}]));
    assert_eq!(rows[5]["changes"], json!([{"field": "role", "old": "member", "new": "admin"}]));
    assert_eq!(rows[12]["changes"], json!([{"field": "name", "old": "k", "new": "n"}]));
    assert_eq!(
        rows[14]["changes"][1],
        json!({"field": "settings.support_email", "old": null, "new": "(set)"}),
        "an address is a person's"
    );
    // What was refused changed nothing, and addresses, names and tokens are not in it.
    let whole = format!("{rows:?}");
    for hidden in ["@example.com", &link, "mike", &text(&key, "/secret")[12..]] {
        assert!(!whole.contains(hidden), "{hidden}: {whole}");
    }
}

#[tokio::test]
async fn a_refused_change_leaves_no_row() {
    let (platform, tenant, token) = stage().await;
    let org = format!("{ORGANIZATIONS}/{}", tenant.org);
    let own = format!("{org}/members/{}", tenant.user);
    platform.call(Method::PATCH, &own, &token, json!({"role": "member"})).await.expect(409);
    platform.delete(&own, &token).await.expect(409);
    platform.post("/api/v1/tenant-users", &token, json!({"username": "mike"})).await.expect(201);
    platform.post("/api/v1/tenant-users", &token, json!({"username": "mike"})).await.expect(409);
    let mut stale = request(Method::PATCH, &org, &token, &json!({"name": "x"}));
    stale.headers_mut().insert("if-match", "\"9\"".parse().unwrap());
    problem(&platform.send(stale).await, 412, "precondition_failed");
    assert_eq!(actions(&log(&platform, &token, "").await), ["tenant_user.created"]);
}

#[tokio::test]
async fn owners_alone_read_it_by_the_role_they_have_now() {
    let (platform, tenant, token) = stage().await;
    let guest = platform.register("guest@example.com").await;
    let invite = json!({"email": "guest@example.com", "role": "owner"});
    let members = format!("{ORGANIZATIONS}/{}/members", tenant.org);
    platform.post(&members, &token, invite).await.expect(201);
    let link = token_in(&platform.last_letter_to("guest@example.com").await);
    platform.post("/api/v1/invites/accept", text(&guest, "/access_token"), json!({"token": link})).await.expect(200);
    let switch = json!({"organization_id": tenant.org});
    let switched = platform.post("/api/v1/auth/switch", text(&guest, "/access_token"), switch).await.expect(200).json();
    let owner = text(&switched, "/access_token");
    let export = format!("{ORGANIZATIONS}/{}/export", tenant.org);
    for path in [LOG, &export] {
        platform.get(path, owner).await.expect(200);
    }
    let member = format!("{members}/{}", text(&guest, "/user/id"));
    for role in ["admin", "member"] {
        platform.call(Method::PATCH, &member, &token, json!({"role": role})).await.expect(200);
        for path in [LOG, &export] {
            problem(&platform.get(path, owner).await, 403, "forbidden");
        }
        problem(&platform.get(LOG, &tenant.api_key).await, 403, "forbidden");
    }
    // Another tenant's rows are not in it.
    let other = platform.tenant("team").await;
    let other = access(&platform, &other).await;
    assert_eq!(log(&platform, &other, "").await, Vec::<Value>::new());
}

#[tokio::test]
async fn it_is_filtered_and_has_pages() {
    let (platform, tenant, token) = stage().await;
    let mut ids = vec![];
    for number in 0..5 {
        let key = platform.post(KEYS, &token, json!({"name": format!("{number}")})).await.expect(201).json();
        ids.push(text(&key, "/id").to_owned());
        let user = json!({"username": format!("user{number}")});
        platform.post("/api/v1/tenant-users", &token, user).await.expect(201);
    }
    platform.clock().advance(2 * DAY);
    let token = access(&platform, &tenant).await;
    platform.delete(&format!("{KEYS}/{}", ids[0]), &token).await.expect(204);

    let count = async |query: &str| log(&platform, &token, query).await.len();
    assert_eq!(count("").await, 11);
    assert_eq!(count("?action=api_key").await, 6);
    assert_eq!(count("?action=api_key.created").await, 5);
    assert_eq!(count("?action=api").await, 0, "a part of a word is another word");
    assert_eq!(count(&format!("?target={}", ids[0])).await, 2);
    assert_eq!(count(&format!("?actor={}&action=tenant_user", tenant.user)).await, 5);
    assert_eq!(count("?actor=system").await, 0);
    assert_eq!(count("?from=2026-11-21").await, 1);
    assert_eq!(count("?to=2026-11-20").await, 10);
    assert_eq!(count("?to=2026-11-19").await, 0);
    assert_eq!(count("?from=2026-11-20T12:00:00Z&to=2026-11-20T12:00:00.001Z").await, 10);
    assert_eq!(count("?from=2026-11-23&to=2026-11-20").await, 0);

    let whole = log(&platform, &token, "?action=api_key").await;
    for limit in [1, 2, 3, 5, 6] {
        let (mut rows, mut cursor, mut pages) = (vec![], String::new(), 0);
        loop {
            let path = format!("{LOG}?action=api_key&limit={limit}{cursor}");
            let page = platform.get(&path, &token).await.expect(200).json();
            rows.extend(page["data"].as_array().unwrap().clone());
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(rows, whole, "limit {limit}");
        assert!(pages <= 6 / limit + 1, "limit {limit}: {pages} pages");
    }
    let page = platform.get(&format!("{LOG}?limit=1"), &token).await.expect(200).json();
    let cursor = text(&page, "/next_cursor");
    for query in [format!("?limit=1&action=member&cursor={cursor}"), "?from=yesterday".into(), "?action=".into()] {
        problem(&platform.get(&format!("{LOG}{query}"), &token).await, 400, "invalid_parameter");
    }
}

#[tokio::test]
async fn it_comes_as_csv_without_formulas() {
    let (platform, _, token) = stage().await;
    for agent in ["a", "=cmd", "x; =HYPERLINK(A1);"] {
        let mut adding = request(Method::POST, KEYS, &token, &json!({"name": "=1+1"}));
        adding.headers_mut().insert("user-agent", agent.parse().unwrap());
        platform.send(adding).await.expect(201);
    }
    let mut asking = request(Method::GET, &format!("{LOG}?limit=2"), &token, &Value::Null);
    asking.headers_mut().insert("accept", "text/csv".parse().unwrap());
    let reply = platform.send(asking).await.expect(200);
    assert_eq!(reply.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert!(!reply.header("x-next-cursor").is_empty());
    let csv = reply.text();
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines[0], "id,at,action,actor,target,changes,ip,user_agent,request_id");
    assert!(lines.len() == 3 && lines[1].contains("api_key.created"), "{csv}");
    assert!(csv.contains(",x;' =HYPERLINK(A1);,") && csv.contains(",'=cmd,"), "{csv}");
    no_formulas(&csv);
}

#[tokio::test]
async fn a_row_is_kept_for_400_days() {
    let (platform, tenant, token) = stage().await;
    platform.post(KEYS, &token, json!({"name": "k"})).await.expect(201);
    let rows = platform.rows(&tenant.scope, "AUDIT#").await;
    let ends = rows[0]["ttl"].as_n().unwrap().parse::<i64>().unwrap();
    assert_eq!(ends, (tenantry_tests::platform::NOON + 400 * DAY) / 1000);
}

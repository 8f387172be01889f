//! Organizations that come and go: creating, changing, deleting, restoring, taking the data out, and erasing it.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{
    OrderId, RequestId,
    orders::{Goods, NewOrder, Provider},
    secret::sha256_hex,
    usage::UsageEvent,
};
use tenantry_quota_reset::Job;
use tenantry_store::{AuditActor, NewAudit, Origin};
use tenantry_tests::{
    accounts::token_in,
    http::{problem, text},
    jobs::Jobs,
    log::Log,
    platform::{Platform, Setup, Tenant, request},
};
use tenantry_usage_aggregator::aggregate;
use tenantry_web::queue::Message;

const ORGANIZATIONS: &str = "/api/v1/organizations";
const KEYS: &str = "/api/v1/api-keys";
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

fn path(tenant: &Tenant) -> String {
    format!("{ORGANIZATIONS}/{}", tenant.org)
}

/// The keys of all rows that have `word` in them, read past the store.
fn mentions(platform: &Platform, word: &str) -> Vec<String> {
    let rows = platform.host().all_items().unwrap();
    let rows = rows.iter().filter(|row| row.to_string().contains(word));
    rows.map(|row| format!("{} {}", text(row, "/pk/S"), text(row, "/sk/S"))).collect()
}

/// An address that has nothing of the organization's id.
fn guest_of(tenant: &Tenant) -> String {
    format!("guest-{}@example.com", &sha256_hex(tenant.org.as_str().as_bytes())[..12])
}

/// A tenant with something of everything.
async fn furnish(platform: &Platform, tenant: &Tenant, token: &str) -> String {
    let key = platform.post(KEYS, token, json!({"name": "k"})).await.expect(201).json();
    let rotate = format!("{KEYS}/{}/rotate", text(&key, "/id"));
    platform.post(&rotate, token, json!({"overlap_seconds": 600})).await.expect(200);
    let email = guest_of(tenant);
    platform.register(&email).await;
    let members = format!("{}/members", path(tenant));
    platform.post(&members, token, json!({"email": email, "role": "member"})).await.expect(201);
    let link = token_in(&platform.last_letter_to(&email).await);
    let guest = platform.sign_in(&email, None).await.expect(200).json();
    let guest_token = text(&guest, "/access_token");
    platform.post("/api/v1/invites/accept", guest_token, json!({"token": link})).await.expect(200);
    let switch = json!({"organization_id": tenant.org, "refresh_token": text(&guest, "/refresh_token")});
    let switched = platform.post("/api/v1/auth/switch", guest_token, switch).await.expect(200).json();
    platform.post(&members, token, json!({"email": "open@example.com", "role": "member"})).await.expect(201);
    let user = json!({"username": "mike", "password": "zq7-xkmp-vw", "metadata": {"tier": "gold"}});
    let mut keyed = request(Method::POST, "/api/v1/tenant-users", token, &user);
    keyed.headers_mut().insert("idempotency-key", "once".parse().unwrap());
    platform.send(keyed).await.expect(201);
    let chat = json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5});
    for _ in 0..3 {
        platform.post("/api/v1/chat/completions", &tenant.api_key, chat.clone()).await.expect(200);
    }
    let mut own = request(Method::POST, "/api/v1/usage/record", token, &json!({"resource": "pages", "amount": 5}));
    own.headers_mut().insert("idempotency-key", "once".parse().unwrap());
    platform.send(own).await.expect(201);
    platform.quiesce().await;
    let order = NewOrder {
        id: OrderId::at(platform.store().now()),
        provider: Provider::Alipay,
        goods: Goods::Months { plan: "pro".to_owned(), months: 1 },
        amount: 19_900,
        currency: "cny".to_owned(),
        expires_at: platform.store().now() + 900_000,
        created_by: tenant.user.clone(),
    };
    let (actor, origin) = (AuditActor::User(tenant.user.clone()), Origin::default());
    let audit = NewAudit { action: "order.created", actor, target: None, changes: vec![], origin: &origin };
    platform.store().create_order(&tenant.scope, &order, &audit).await.unwrap();
    text(&switched, "/refresh_token").to_owned()
}

#[tokio::test]
async fn a_person_creates_further_organizations_with_a_meter_of_their_own() {
    let (platform, tenant, token) = stage().await;
    let made = platform.post(ORGANIZATIONS, &token, json!({"name": " Second "})).await.expect(201);
    assert_eq!(made.header("etag"), "\"1\"");
    let made = made.json();
    assert_eq!((text(&made, "/name"), text(&made, "/plan"), text(&made, "/role")), ("Second", "free", "owner"));
    let listed = platform.get(ORGANIZATIONS, &token).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let scope = platform.store().tenant(&text(&made, "/id").parse().unwrap()).await.unwrap().expect("it is registered");
    assert_eq!(platform.store().meter(&scope).await.unwrap().plan, "free");
    // Its token acts for the first one; managing the second takes no other.
    let renamed = format!("{ORGANIZATIONS}/{}", text(&made, "/id"));
    platform.call(Method::PATCH, &renamed, &token, json!({"name": "Renamed"})).await.expect(200);
    problem(&platform.post(ORGANIZATIONS, &tenant.api_key, json!({"name": "x"})).await, 403, "forbidden");
    problem(&platform.post(ORGANIZATIONS, &token, json!({"name": ""})).await, 422, "invalid_value");

    let replies =
        join_all((0..25).map(|n| platform.post(ORGANIZATIONS, &token, json!({"name": format!("{n}")})))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 19, "20 with the second");
    assert!(replies.iter().all(|reply| matches!(reply.status.as_u16(), 201 | 403)));
}

#[tokio::test]
async fn name_and_settings_are_changed_in_the_version_that_is_meant() {
    let (platform, tenant, token) = stage().await;
    let shown = platform.get(&path(&tenant), &token).await.expect(200);
    let meant = |tag: &str, body: Value| {
        let mut request = request(Method::PATCH, &path(&tenant), &token, &body);
        request.headers_mut().insert("if-match", tag.parse().unwrap());
        request
    };
    let settings = json!({"support_email": "Help@Example.com", "default_language": "zh"});
    let changed =
        platform.send(meant(shown.header("etag"), json!({"name": "One", "settings": settings}))).await.expect(200);
    assert_eq!(changed.json()["settings"], json!({"support_email": "help@example.com", "default_language": "zh"}));
    problem(&platform.send(meant(shown.header("etag"), json!({"name": "Two"}))).await, 412, "precondition_failed");
    let partly =
        platform.send(meant(changed.header("etag"), json!({"settings": {"support_email": null}}))).await.expect(200);
    assert_eq!(partly.json()["settings"], json!({"support_email": null, "default_language": "zh"}));
    assert_eq!(text(&platform.get(&path(&tenant), &token).await.json(), "/name"), "One");
    for (body, status) in [
        (json!({"name": null}), 400),
        (json!({"plan": "team"}), 400),
        (json!({"settings": {"color": "red"}}), 400),
        (json!({"settings": {"support_email": "nobody"}}), 422),
        (json!({"settings": {"default_language": "fr"}}), 422),
        (json!({"name": "a\nb"}), 422),
    ] {
        platform.call(Method::PATCH, &path(&tenant), &token, body).await.expect(status);
    }
    // Invitations are written in it.
    let members = format!("{}/members", path(&tenant));
    platform.post(&members, &token, json!({"email": "g@example.com", "role": "member"})).await.expect(201);
    assert!(platform.last_letter_to("g@example.com").await.html.contains("zh-Hans"));
}

#[tokio::test]
async fn a_deleted_organization_stops_at_once_and_comes_back() {
    let (platform, tenant, token) = stage().await;
    let refresh = furnish(&platform, &tenant, &token).await;
    let second = platform.post(ORGANIZATIONS, &token, json!({"name": "Second"})).await.expect(201).json();
    let tokens = platform.login(&tenant).await;
    platform.get(ORGANIZATIONS, &tenant.api_key).await.expect(200);
    problem(&platform.post(&format!("{}/restore", path(&tenant)), &token, Value::Null).await, 409, "conflict");
    let deleted = platform.delete(&path(&tenant), &token).await.expect(202).json();
    assert_eq!(deleted["deletes_at"], "2026-12-20T12:00:00.000Z");
    problem(&platform.delete(&path(&tenant), &token).await, 409, "conflict");

    // What changes it asks the store; what reads with a token goes on for ten minutes at most, keys for half a one.
    for (method, path, body) in [
        (Method::GET, format!("{}/members", path(&tenant)), Value::Null),
        (Method::PATCH, path(&tenant), json!({"name": "x"})),
        (Method::POST, format!("{}/members", path(&tenant)), json!({"email": "x@example.com", "role": "member"})),
        (Method::GET, format!("{}/export", path(&tenant)), Value::Null),
    ] {
        problem(&platform.call(method, &path, &token, body).await, 404, "not_found");
    }
    problem(&platform.post(KEYS, &token, json!({"name": "k"})).await, 401, "unauthenticated");
    problem(&platform.post("/api/v1/tenant-users", &token, json!({"username": "new"})).await, 401, "unauthenticated");
    platform.clock().advance(30_000);
    problem(&platform.get(ORGANIZATIONS, &tenant.api_key).await, 401, "invalid_api_key");
    problem(&platform.refresh(&refresh).await, 401, "unauthenticated");
    problem(&platform.refresh(text(&tokens, "/refresh_token")).await, 401, "unauthenticated");
    let switch = json!({"organization_id": tenant.org});
    problem(&platform.post("/api/v1/auth/switch", &token, switch).await, 404, "not_found");

    // Its owner signs in to what they have beside it, sees it, and brings it back.
    let later = platform.login(&tenant).await;
    assert_eq!(later["organization"]["id"], second["id"]);
    let token = text(&later, "/access_token");
    assert_eq!(platform.get(&path(&tenant), token).await.expect(200).json()["deletes_at"], deleted["deletes_at"]);
    let guest = platform.sign_in(&guest_of(&tenant), None).await.expect(200).json();
    let restore = format!("{}/restore", path(&tenant));
    let refused = platform.post(&restore, text(&guest, "/access_token"), Value::Null).await;
    problem(&refused, 403, "forbidden");
    let restored = platform.post(&restore, token, Value::Null).await.expect(200).json();
    assert_eq!(restored["deletes_at"], Value::Null);
    platform.get(ORGANIZATIONS, &tenant.api_key).await.expect(200);
    assert_eq!(platform.login(&tenant).await["organization"]["id"], json!(tenant.org));
}

#[tokio::test]
async fn it_comes_back_until_its_last_moment_and_not_after() {
    let (platform, tenant, token) = stage().await;
    platform.post(ORGANIZATIONS, &token, json!({"name": "Second"})).await.expect(201);
    let restore = format!("{}/restore", path(&tenant));
    for (wait, status) in [(30 * DAY - 1, 200), (30 * DAY, 409)] {
        let token = access(&platform, &tenant).await;
        platform.delete(&path(&tenant), &token).await.expect(202);
        platform.clock().advance(wait);
        let token = access(&platform, &tenant).await;
        platform.post(&restore, &token, Value::Null).await.expect(status);
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_organization_when_its_grace_is_over() {
    let (platform, tenant, token) = stage().await;
    let other = platform.tenant("team").await;
    let other_token = access(&platform, &other).await;
    furnish(&platform, &tenant, &token).await;
    furnish(&platform, &other, &other_token).await;
    let untouched = mentions(&platform, other.org.as_str());
    platform.delete(&path(&tenant), &token).await.expect(202);

    platform.clock().advance(30 * DAY - 1);
    platform.host().run_job(Job::Erase).await;
    assert!(mentions(&platform, tenant.org.as_str()).len() > 15, "its grace is not over");
    platform.clock().advance(1);
    platform.host().run_job(Job::Erase).await;
    assert_eq!(mentions(&platform, tenant.org.as_str()), Vec::<String>::new());
    assert_eq!(mentions(&platform, tenant.org.short()), Vec::<String>::new());
    assert_eq!(mentions(&platform, &sha256_hex(tenant.api_key.as_bytes())), Vec::<String>::new());
    assert_eq!(mentions(&platform, other.org.as_str()), untouched, "the others have what they had");
    platform.get(ORGANIZATIONS, &other.api_key).await.expect(200);
    problem(&platform.get(ORGANIZATIONS, &tenant.api_key).await, 401, "invalid_api_key");
    // The person is still there, and begins afresh.
    let afresh = platform.sign_in(&tenant.email, None).await.expect(200).json();
    assert_ne!(afresh["organization"]["id"], json!(tenant.org));
    // And there is nothing to do a second time.
    platform.host().run_job(Job::Erase).await;
}

#[tokio::test]
async fn an_erasure_that_is_cut_off_at_every_page_goes_on() {
    let (platform, tenant, token) = stage().await;
    furnish(&platform, &tenant, &token).await;
    for number in 0..200 {
        let mut row = platform.rows(&tenant.scope, "AUDIT#").await.swap_remove(0);
        row.insert("sk".into(), aws_sdk_dynamodb::types::AttributeValue::S(format!("AUDIT#{number:015}#x")));
        platform.put_row(row).await;
    }
    platform.delete(&path(&tenant), &token).await.expect(202);
    platform.clock().advance(30 * DAY);
    let jobs = Jobs::new(platform.store());
    let tallies = jobs.all(Job::Erase, true).await;
    assert_eq!(tallies.iter().map(|tally| tally.changed).sum::<u64>(), 1);
    assert!(tallies.len() > 17, "{} messages: it was cut off", tallies.len());
    assert_eq!(mentions(&platform, tenant.org.as_str()), Vec::<String>::new());
}

#[tokio::test]
async fn the_export_has_everything_but_secrets() {
    let (platform, tenant, token) = stage().await;
    furnish(&platform, &tenant, &token).await;
    let token = access(&platform, &tenant).await;
    let (mut lines, mut cursor) = (vec![], String::new());
    let mut whole = String::new();
    loop {
        let page = platform.get(&format!("{}/export{cursor}", path(&tenant)), &token).await.expect(200);
        assert_eq!(page.header("content-type"), "application/jsonl");
        whole.push_str(&page.text());
        lines.extend(page.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        match page.header("x-next-cursor") {
            "" => break,
            next => cursor = format!("?cursor={next}"),
        }
    }
    let count = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert_eq!(
        ["organization", "member", "invite", "api_key", "tenant_user", "meter", "usage_record", "usage_roll_up"]
            .map(count),
        [1, 2, 1, 2, 1, 1, 4, 2]
    );
    assert!(count("audit_entry") >= 5);
    let user = lines.iter().find(|line| line["type"] == "tenant_user").unwrap();
    assert_eq!((text(user, "/username"), &user["metadata"]["tier"]), ("mike", &json!("gold")));
    let hash = sha256_hex(tenant.api_key.as_bytes());
    for hidden in ["argon2", "hash", &hash, &tenant.api_key[12..40]] {
        assert!(!whole.contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn of_a_page_of_many_the_next_cursor_is_the_tenants_own() {
    let (platform, tenant, token) = stage().await;
    let row = {
        platform.post(KEYS, &token, json!({"name": "k"})).await.expect(201);
        platform.rows(&tenant.scope, "AUDIT#").await.swap_remove(0)
    };
    for number in 0..600 {
        let mut row = row.clone();
        row.insert("sk".into(), aws_sdk_dynamodb::types::AttributeValue::S(format!("AUDIT#{number:015}#x")));
        platform.put_row(row).await;
    }
    let first = platform.get(&format!("{}/export", path(&tenant)), &token).await.expect(200);
    assert_eq!(first.text().lines().count(), 500);
    let cursor = first.header("x-next-cursor");
    let second = platform.get(&format!("{}/export?cursor={cursor}", path(&tenant)), &token).await.expect(200);
    assert!(second.text().lines().count() > 100 && second.header("x-next-cursor").is_empty());
    let other = platform.tenant("team").await;
    let other_token = access(&platform, &other).await;
    let foreign = platform.get(&format!("{}/export?cursor={cursor}", path(&other)), &other_token).await;
    problem(&foreign, 400, "invalid_parameter");
}

#[tokio::test]
async fn an_owner_without_another_organization_signs_in_to_bring_it_back_and_for_nothing_else() {
    let (platform, tenant, token) = stage().await;
    platform.delete(&path(&tenant), &token).await.expect(202);
    platform.clock().advance(10 * DAY);
    let waiting = platform.login(&tenant).await;
    assert_eq!(waiting["organization"]["id"], json!(tenant.org));
    assert_eq!(waiting["organization"]["deletes_at"], "2026-12-20T12:00:00.000Z");
    let token = text(&waiting, "/access_token");
    // It sees the organization and the person.
    let listed = platform.get(ORGANIZATIONS, token).await.expect(200).json();
    assert_eq!(listed["data"][0]["deletes_at"], "2026-12-20T12:00:00.000Z");
    platform.get(&path(&tenant), token).await.expect(200);
    let me = platform.get("/api/v1/auth/me", token).await.expect(200).json();
    assert_eq!((text(&me, "/organization/id"), &me["organizations"]), (tenant.org.as_str(), &json!([])));
    platform.get("/api/v1/auth/sessions", token).await.expect(200);

    // And uses nothing of it.
    let chat = json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5});
    for (method, path, body) in [
        (Method::POST, "/api/v1/chat/completions".to_owned(), chat),
        (Method::GET, "/api/v1/models".to_owned(), Value::Null),
        (Method::GET, "/api/v1/usage/stats".to_owned(), Value::Null),
        (Method::GET, "/api/v1/usage/records".to_owned(), Value::Null),
        (Method::GET, "/api/v1/audit-log".to_owned(), Value::Null),
        (Method::GET, KEYS.to_owned(), Value::Null),
        (Method::POST, KEYS.to_owned(), json!({"name": "k"})),
        (Method::DELETE, format!("{KEYS}/{}", tenant.key), Value::Null),
        (Method::GET, "/api/v1/tenant-users".to_owned(), Value::Null),
        (Method::POST, "/api/v1/tenant-users".to_owned(), json!({"username": "new"})),
    ] {
        let reply = platform.call(method, &path, token, body).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (403, "forbidden"), "{path}: {}", reply.text());
    }
    for (method, path, body) in [
        (Method::GET, format!("{}/members", path(&tenant)), Value::Null),
        (Method::GET, format!("{}/export", path(&tenant)), Value::Null),
        (Method::PATCH, path(&tenant), json!({"name": "x"})),
        (Method::POST, "/api/v1/auth/switch".to_owned(), json!({"organization_id": tenant.org})),
    ] {
        problem(&platform.call(method, &path, token, body).await, 404, "not_found");
    }

    // The token says nothing of a role; and it says what it says once the organization is back.
    let restore = format!("{}/restore", path(&tenant));
    platform.post(&restore, token, Value::Null).await.expect(200);
    problem(&platform.get(KEYS, token).await, 403, "forbidden");
    let whole = platform.refresh(text(&waiting, "/refresh_token")).await.expect(200).json();
    assert_eq!(whole["organization"].get("deletes_at"), None);
    platform.get(KEYS, text(&whole, "/access_token")).await.expect(200);
}

#[tokio::test]
async fn while_it_is_being_deleted_its_refresh_tokens_are_refused() {
    let (platform, tenant, token) = stage().await;
    platform.delete(&path(&tenant), &token).await.expect(202);
    let waiting = platform.login(&tenant).await;
    problem(&platform.refresh(text(&waiting, "/refresh_token")).await, 401, "unauthenticated");
}

#[tokio::test]
async fn who_belongs_to_nothing_any_more_gets_an_organization_and_accepts_an_invitation() {
    let (platform, tenant, _) = stage().await;
    let email = guest_of(&tenant);
    let guest = platform.register(&email).await;
    let members = format!("{}/members", path(&tenant));
    let own = format!("{ORGANIZATIONS}/{}", text(&guest, "/organization/id"));
    platform.delete(&own, text(&guest, "/access_token")).await.expect(202);
    platform.clock().advance(30 * DAY);
    platform.host().run_job(Job::Erase).await;
    let owner = access(&platform, &tenant).await;
    platform.post(&members, &owner, json!({"email": email, "role": "member"})).await.expect(201);
    let link = json!({"token": token_in(&platform.last_letter_to(&email).await)});

    let afresh = platform.sign_in(&email, None).await.expect(200).json();
    assert_eq!(afresh["organization"]["role"], "owner");
    platform.post("/api/v1/invites/accept", text(&afresh, "/access_token"), link).await.expect(200);
    let again = platform.sign_in(&email, None).await.expect(200).json();
    let listed = platform.get(ORGANIZATIONS, text(&again, "/access_token")).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2, "the invitation's and one of their own: {listed}");
    let log = platform.get("/api/v1/audit-log", text(&afresh, "/access_token")).await.expect(200).json();
    assert!(log.to_string().contains("organization.created"), "{log}");
}

#[tokio::test]
async fn usage_that_comes_when_its_organization_is_gone_is_dropped() {
    let log = Log::capture();
    let (platform, tenant, token) = stage().await;
    let chat = json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5});
    platform.post("/api/v1/chat/completions", &tenant.api_key, chat).await.expect(200);
    platform.quiesce().await;
    let event = platform.records(&tenant).await.swap_remove(0);
    let late = UsageEvent { id: RequestId::new(), ..event };
    let redriven = [Message { id: "1".into(), body: serde_json::to_string(&late).unwrap() }];

    platform.delete(&path(&tenant), &token).await.expect(202);
    // It is being deleted, and may come back: its books go on.
    let failures = aggregate(platform.store(), &redriven).await;
    assert!(failures.again.is_empty() && failures.poison.is_empty());
    assert_eq!(platform.records(&tenant).await.len(), 2);
    platform.clock().advance(30 * DAY);
    platform.host().run_job(Job::Erase).await;
    assert_eq!(mentions(&platform, tenant.org.as_str()), Vec::<String>::new());
    assert!(!log.text().contains("was dropped"));
    let failures = aggregate(platform.store(), &redriven).await;
    assert!(failures.again.is_empty() && failures.poison.is_empty(), "it is dealt with");
    assert_eq!(mentions(&platform, tenant.org.as_str()), Vec::<String>::new());
    let lines = log.text();
    let dropped = lines.lines().find(|line| line.contains("was dropped")).expect("a line about it");
    assert!(dropped.contains(tenant.org.as_str()) && dropped.contains("\"events\":1"), "{dropped}");
}

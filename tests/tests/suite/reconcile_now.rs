//! `POST /_dev/reconcile`, which `cargo xtask reconcile` asks and tells of: books that were broken by hand are found at
//! once, sums are repaired, and what is on its way is waited for.

use aws_sdk_dynamodb::types::AttributeValue;
use http::{Method, header};
use serde_json::{Value, json};
use tenantry_tests::{
    http::problem,
    platform::{Platform, Setup, Tenant, chat_body, request},
};

const RECONCILE: &str = "/_dev/reconcile";
const MINUTE: i64 = 60_000;

async fn stage() -> (Platform, Tenant) {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("pro").await;
    for _ in 0..3 {
        call(&platform, &tenant).await;
    }
    (platform, tenant)
}

async fn call(platform: &Platform, tenant: &Tenant) {
    let mut body = chat_body("hello", false);
    body["model"] = json!("sandbox/echo");
    platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200);
}

async fn reconcile(platform: &Platform) -> Value {
    platform.post(RECONCILE, "", Value::Null).await.expect(200).json()
}

fn clean(organizations: u64) -> Value {
    json!({"organizations": organizations, "differences": [], "failed": [], "unwritten": 0, "dead_letters": 0})
}

#[tokio::test]
async fn what_is_on_its_way_is_waited_for_and_agrees() {
    let (platform, tenant) = stage().await;
    let others = [platform.tenant("free").await, platform.tenant("free").await];
    platform.clock().advance(2 * MINUTE);
    // Charged, and in the queue.
    assert!(platform.records(&tenant).await.is_empty());
    assert_eq!(reconcile(&platform).await, clean(1 + others.len() as u64));
    assert_eq!(platform.books(&tenant).await.len(), 3);
}

#[tokio::test]
async fn broken_books_are_told_of_and_sums_are_repaired() {
    let (platform, tenant) = stage().await;
    platform.quiesce().await;
    let right = platform.roll_ups(&tenant).await;
    let mut row = platform.rows(&tenant.scope, "ROLL#").await.remove(0);
    row.insert("requests".into(), AttributeValue::N("99".into()));
    platform.put_row(row).await;
    let mut meter = platform.rows(&tenant.scope, "METER").await.remove(0);
    let Some(AttributeValue::M(left)) = meter.get_mut("left") else { panic!("{meter:?}") };
    left.insert("images".into(), AttributeValue::N("990".into()));
    platform.put_row(meter.clone()).await;
    platform.clock().advance(2 * MINUTE);

    let broken_meter = json!({
        "kind": "meter", "organization": tenant.org, "period": "2026-11", "resource": "images", "charged": 10, "recorded": 0,
        "repaired": false,
    });
    let found = reconcile(&platform).await;
    let roll_up = json!({
        "kind": "roll_up", "organization": tenant.org, "day": "2026-11-20", "of": "sandbox/echo", "operation": "chat",
        "changes": [{"name": "requests", "stored": 99, "recorded": 3}], "repaired": true,
    });
    assert_eq!(found["differences"], json!([broken_meter, roll_up]));
    assert_eq!(platform.roll_ups(&tenant).await, right);
    // The meter is money: it stays as it is until somebody looks into it, and is told of until then.
    assert_eq!(reconcile(&platform).await["differences"], json!([broken_meter]));
    assert_eq!(platform.rows(&tenant.scope, "METER").await, [meter]);
}

#[tokio::test]
async fn usage_that_cannot_be_written_is_told_of() {
    let (platform, tenant) = stage().await;
    platform.host().queue().push("no usage event").unwrap();
    assert_eq!(reconcile(&platform).await, {
        let mut report = clean(1);
        report["dead_letters"] = json!(1);
        report
    });
    assert_eq!(platform.books(&tenant).await.len(), 3, "what can be written is");
}

#[tokio::test]
async fn books_that_cannot_be_read_are_told_of_and_keep_nobody_else_from_being_checked() {
    let (platform, tenant) = stage().await;
    let other = platform.tenant("free").await;
    platform.quiesce().await;
    platform.delete_row(&platform.rows(&other.scope, "METER").await[0]).await;
    let mut row = platform.rows(&tenant.scope, "ROLL#").await.remove(0);
    row.insert("errors".into(), AttributeValue::N("1".into()));
    platform.put_row(row).await;
    let report = reconcile(&platform).await;
    assert_eq!(report["organizations"], 2);
    assert_eq!(report["failed"][0]["organization"], json!(other.org));
    assert_eq!((report["failed"].as_array().unwrap().len(), report["differences"].as_array().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn a_page_in_the_browser_is_not_answered() {
    let (platform, _) = stage().await;
    let asked_by = async |name: header::HeaderName, value: &str| {
        let mut request = request(Method::POST, RECONCILE, "", &Value::Null);
        request.headers_mut().insert(name, value.parse().unwrap());
        platform.send(request).await
    };
    problem(&asked_by(header::ORIGIN, "https://evil.example").await, 403, "forbidden");
    problem(&asked_by(header::HeaderName::from_static("sec-fetch-site"), "cross-site").await, 403, "forbidden");
    problem(&asked_by(header::HOST, "evil.example:8787").await, 404, "not_found");
    asked_by(header::HOST, "127.0.0.1:8787").await.expect(200);
    platform.get(RECONCILE, "").await.expect(405);
}

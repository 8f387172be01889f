//! Changes that cannot be made, and how that is said.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_sandbox::stripe::{Card, Fault};
use tenantry_tests::{
    http::{problem, text},
    platform::request,
};

use super::Stage;

/// The plans that the audit log says were changed to.
async fn changes_told(stage: &Stage) -> Vec<String> {
    let log = stage.get("/audit-log?action=subscription.plan_changed").await;
    log["data"].as_array().unwrap().iter().map(|row| text(row, "/changes/0/new").to_owned()).collect()
}

#[tokio::test]
async fn without_a_subscription_there_is_nothing_to_change() {
    let stage = Stage::set().await;
    let price = stage.price("pro", "month").await;
    for (path, body) in [
        ("/subscriptions/upgrade", json!({"price_id": price})),
        ("/subscriptions/cancel", Value::Null),
        ("/subscriptions/resume", Value::Null),
        ("/subscriptions/portal", Value::Null),
    ] {
        problem(&stage.post(path, body).await, 409, "conflict");
    }
    let wrong = json!({"price_id": "price_of_nothing"});
    let error = problem(&stage.post("/subscriptions/checkout", wrong).await, 422, "invalid_value");
    assert_eq!(text(&error, "/errors/0/pointer"), "/price_id");
}

#[tokio::test]
async fn a_subscription_is_not_bought_twice_and_ends_once() {
    let stage = Stage::set().await;
    stage.subscribe("pro").await;
    let (pro, team) = (stage.price("pro", "month").await, stage.price("team", "month").await);
    for price in [&pro, &team] {
        problem(&stage.post("/subscriptions/checkout", json!({"price_id": price})).await, 409, "conflict");
    }
    // To the price that it has there is nothing to change, and nothing to pay.
    let same = stage.post("/subscriptions/upgrade", json!({"price_id": pro})).await.expect(200).json();
    assert_eq!((&same["success"], &same["proration_preview"]["proration"]["amount"]), (&json!(true), &json!(0)));
    assert_eq!(changes_told(&stage).await, Vec::<String>::new(), "nothing was changed, so nothing is told");
    problem(&stage.post("/subscriptions/resume", Value::Null).await, 409, "conflict");
    let portal = stage.post("/subscriptions/portal", Value::Null).await.expect(200).json();
    assert!(text(&portal, "/portal_url").starts_with("http"), "{portal}");
    let now = json!({"at_period_end": false});
    assert_eq!(stage.post("/subscriptions/cancel", now.clone()).await.expect(200).json()["status"], "canceled");
    assert_eq!(stage.standing().await.0, "free", "before Stripe tells");
    problem(&stage.post("/subscriptions/cancel", now).await, 409, "conflict");
}

#[tokio::test]
async fn of_pages_that_are_opened_one_can_be_paid() {
    let stage = Stage::set().await;
    let (pro, team) = (stage.price("pro", "month").await, stage.price("team", "month").await);
    let owner = stage.owner().await;
    let open = async |price: &str| {
        let body = json!({"price_id": price});
        stage.platform.post("/api/v1/subscriptions/checkout", &owner, body).await
    };
    // One after the other, and several at the same moment.
    let mut pages = vec![open(&pro).await.expect(200).json()];
    for reply in join_all([&team, &pro, &team].map(|price| open(price))).await {
        match reply.status.as_u16() {
            200 => pages.push(reply.json()),
            _ => drop(problem(&reply, 503, "unavailable")),
        }
    }
    assert!(pages.len() >= 2, "{pages:?}");
    let paid = pages.iter().filter(|page| stage.stripe().pay(text(page, "/session_id")).is_ok()).count();
    assert_eq!(paid, 1, "{pages:?}");
    // Stripe has not told yet; who looks again is told that there is a subscription.
    problem(&open(&pro).await, 409, "conflict");
    let standing = stage.standing().await;
    assert_eq!(standing.1, "active");
    stage.hear().await;
    assert_eq!(stage.standing().await, standing);
    let customer = stage.platform.store().account(&stage.tenant.scope).await.unwrap().customer.unwrap();
    let stripe = stage.platform.host().commerce().stripe().unwrap();
    assert_eq!(stripe.subscriptions_of(&customer).await.unwrap().len(), 1);
    // When it has ended, another one is subscribed to.
    stage.post("/subscriptions/cancel", json!({"at_period_end": false})).await.expect(200);
    stage.subscribe("team").await;
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
}

#[tokio::test]
async fn no_page_is_opened_before_the_one_before_is_known_to_be_closed() {
    let stage = Stage::set().await;
    let body = json!({"price_id": stage.price("pro", "month").await});
    let first = stage.post("/subscriptions/checkout", body.clone()).await.expect(200).json();
    // Stripe closes it, and nobody hears of it.
    stage.stripe().lose_answers(Some("/v1/checkout/sessions/"));
    problem(&stage.post("/subscriptions/checkout", body.clone()).await, 503, "unavailable");
    stage.stripe().lose_answers(None);
    stage.stripe().pay(text(&first, "/session_id")).unwrap_err();
    let second = stage.post("/subscriptions/checkout", body).await.expect(200).json();
    stage.stripe().pay(text(&second, "/session_id")).unwrap();
    stage.hear().await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
}

#[tokio::test]
async fn an_upgrade_that_is_not_paid_is_not_made() {
    let stage = Stage::set().await;
    stage.subscribe("pro").await;
    stage.days(5).await;
    let team = stage.price("team", "month").await;
    stage.cards(Card::Declines).await;
    let pending = stage.post("/subscriptions/upgrade", json!({"price_id": team})).await.expect(200).json();
    assert_eq!(pending["success"], false);
    assert!(text(&pending, "/payment_url").starts_with("http"), "{pending}");
    stage.hear().await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    assert_eq!(stage.left("messages").await, Some(50_000));
    // Not agreed to any more: half an hour is over.
    stage.cards(Card::Pays).await;
    let preview = stage.get(&format!("/subscriptions/upgrade/preview?price_id={team}")).await;
    stage.days(2).await;
    let late = json!({"price_id": team, "as_of": preview["as_of"]});
    problem(&stage.post("/subscriptions/upgrade", late).await, 422, "invalid_value");
    // Nor to a moment before the subscription began.
    let fresh = Stage::set().await;
    fresh.subscribe("pro").await;
    let before = json!({"price_id": fresh.price("team", "month").await, "as_of": "2026-11-20T11:59:00Z"});
    let error = problem(&fresh.post("/subscriptions/upgrade", before).await, 422, "invalid_value");
    assert_eq!(text(&error, "/errors/0/pointer"), "/as_of");
    assert_eq!(
        stage.post("/subscriptions/upgrade", json!({"price_id": team})).await.expect(200).json()["success"],
        true
    );
    assert_eq!(stage.standing().await.0, "team");
}

#[tokio::test]
async fn a_lost_answer_of_stripes_is_asked_for_again_with_the_same_key() {
    let stage = Stage::set().await;
    let price = stage.price("pro", "month").await;
    let owner = stage.owner().await;
    let send = async || {
        let mut request =
            request(http::Method::POST, "/api/v1/subscriptions/checkout", &owner, &json!({"price_id": price}));
        request.headers_mut().insert("idempotency-key", "one-purchase".parse().unwrap());
        stage.platform.send(request).await
    };
    stage.stripe().fail_next(Fault::AnswerLost);
    let first = send().await.expect(200).json();
    let again = send().await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.json(), first);
}

#[tokio::test]
async fn an_upgrade_whose_answer_was_lost_is_repeated_and_made_once() {
    let stage = Stage::set().await;
    stage.subscribe("pro").await;
    stage.days(4).await;
    let (team, owner) = (stage.price("team", "month").await, stage.owner().await);
    let send = async || {
        let (path, body) = ("/api/v1/subscriptions/upgrade", json!({"price_id": team}));
        let mut request = request(http::Method::POST, path, &owner, &body);
        request.headers_mut().insert("idempotency-key", "one-upgrade".parse().unwrap());
        stage.platform.send(request).await
    };
    // Stripe does it, and nobody hears of it, however often it is asked for.
    stage.stripe().lose_answers(Some("/v1/subscriptions/"));
    send().await.expect(503);
    stage.stripe().lose_answers(None);
    // The same request, half a minute later, is the same one to Stripe.
    stage.stripe().advance(30_000);
    assert_eq!(send().await.expect(200).json()["success"], true);
    stage.hear().await;
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
    let invoices = stage.get("/billing/invoices").await;
    assert_eq!(invoices["data"].as_array().unwrap().len(), 2, "charged once: {invoices}");
    assert_eq!(changes_told(&stage).await, ["team"], "and told once");
}

#[tokio::test]
async fn members_and_keys_see_the_plan_and_buy_nothing() {
    let stage = Stage::set().await;
    let key = &stage.tenant.api_key;
    stage.platform.get("/api/v1/subscriptions/current", key).await.expect(200);
    stage.platform.get("/api/v1/credits", key).await.expect(200);
    for path in ["/subscriptions/history", "/billing/invoices", "/payments/orders", "/credits/ledger"] {
        problem(&stage.platform.get(&format!("/api/v1{path}"), key).await, 403, "forbidden");
    }
    let price = stage.price("pro", "month").await;
    let buy = stage.platform.post("/api/v1/subscriptions/checkout", key, json!({"price_id": price})).await;
    problem(&buy, 403, "forbidden");
}

#[tokio::test]
async fn top_up_needs_a_card_a_cap_and_a_package() {
    let stage = Stage::set().await;
    let rule = |package: &str, cap: u64| json!({"notify_below": 5, "top_up": {"enabled": true, "below": 1_000, "package_id": package, "monthly_cap": cap}});
    assert_eq!(stage.get("/credits/auto-top-up").await["top_up"], Value::Null, "off by default");
    let path = "/credits/auto-top-up";
    problem(&stage.put(path, rule("small", 5_000)).await, 409, "conflict");
    stage.subscribe("pro").await;
    problem(&stage.put(path, rule("small", 500)).await, 409, "conflict");
    problem(&stage.put(path, rule("none", 5_000)).await, 422, "invalid_value");
    let set = stage.put(path, rule("small", 5_000)).await.expect(200).json();
    assert_eq!((&set["top_up"]["enabled"], &set["spent_this_month"]["amount"]), (&json!(true), &json!(0)));
    stage.platform.host().sweep().await;
    stage.hear().await;
    assert_eq!(stage.get("/credits").await["balance"], 10_000_000);
    assert_eq!(stage.get(path).await["spent_this_month"]["amount"], 1_000);
    let off = stage.put(path, json!({})).await.expect(200).json();
    assert_eq!((&off["top_up"], &off["notify_below"]), (&Value::Null, &Value::Null));
    stage.platform.books(&stage.tenant).await;
}

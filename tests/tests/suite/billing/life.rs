//! Whole lives of subscriptions.

use serde_json::{Value, json};
use tenantry_domain::plans::Limit;
use tenantry_sandbox::stripe::Card;
use tenantry_tests::{http::text, platform::Setup};

use super::Stage;

#[tokio::test]
async fn from_free_to_team_through_a_payment_that_failed_and_back() {
    let stage = Stage::set().await;
    assert_eq!(stage.standing().await, ("free".into(), "none".into()));
    assert_eq!(stage.left("messages").await, Some(1_000));

    // The quota is raised as soon as Stripe tells.
    stage.subscribe("pro").await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    assert_eq!(stage.left("messages").await, Some(50_000));

    // In the middle of the month to a larger plan: the preview is what is charged, and the difference is added once.
    stage.days(10).await;
    let team = stage.price("team", "month").await;
    let preview = stage.get(&format!("/subscriptions/upgrade/preview?price_id={team}")).await;
    let due = preview["amount_due"]["amount"].as_i64().unwrap();
    assert!((1..9_900 - 1_900).contains(&due), "a part of the difference: {preview}");
    let body = json!({"price_id": team, "as_of": preview["as_of"]});
    let upgraded = stage.post("/subscriptions/upgrade", body).await.expect(200).json();
    assert_eq!((&upgraded["success"], &upgraded["payment_url"]), (&json!(true), &Value::Null));
    assert_eq!(upgraded["proration_preview"]["amount_due"]["amount"], due);
    let tokens = stage.left("llm_tokens").await;
    assert_eq!(tokens, Some(100_000_000));
    stage.hear().await;
    assert_eq!(stage.left("llm_tokens").await, tokens, "once");
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
    let invoices = stage.get("/billing/invoices").await;
    assert_eq!(invoices["data"][0]["amount_paid"]["amount"], due);
    assert!(text(&invoices, "/data/0/hosted_url").starts_with("http"), "{invoices}");

    // The next payment fails: the plan stays for the grace, and the owner is told.
    stage.cards(Card::Declines).await;
    stage.days(22).await;
    assert_eq!(stage.standing().await, ("team".into(), "past_due".into()));
    assert!(stage.current().await["plan_until"].is_string());
    let told = stage.letters().await;
    assert!(told.iter().any(|subject| subject.contains("payment")), "{told:?}");

    // The card works again, and Stripe tries again.
    stage.cards(Card::Pays).await;
    stage.days(3).await;
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
    assert_eq!(stage.current().await["plan_until"], Value::Null);

    // Canceled, thought better of, and canceled for good.
    let canceled = stage.post("/subscriptions/cancel", json!({"reason": "too dear"})).await.expect(200).json();
    assert_eq!(canceled["cancel_at_period_end"], true);
    let resumed = stage.post("/subscriptions/resume", Value::Null).await.expect(200).json();
    assert_eq!((&resumed["cancel_at_period_end"], &resumed["ends_at"]), (&json!(false), &Value::Null));
    stage.post("/subscriptions/cancel", Value::Null).await.expect(200);
    assert_eq!(stage.standing().await, ("team".into(), "active".into()), "what is paid for stays");
    stage.days(32).await;
    assert_eq!(stage.standing().await, ("free".into(), "canceled".into()));
    assert_eq!(stage.left("messages").await, Some(1_000));

    // All of it can be read afterwards, the newest first, and a customer who comes back gets another subscription.
    let history = stage.get("/subscriptions/history?limit=100").await;
    let kinds: Vec<_> =
        history["data"].as_array().unwrap().iter().map(|event| text(event, "/kind").to_owned()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("customer.subscription.deleted"), "{kinds:?}");
    // Stripe reckons in seconds, and the first two fall into one.
    assert!(kinds[kinds.len() - 2..].contains(&"customer.subscription.created".to_owned()), "{kinds:?}");
    stage.subscribe("pro").await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    stage.platform.books(&stage.tenant).await;
}

#[tokio::test]
async fn a_payment_that_stays_away_ends_the_plan_and_loses_no_data() {
    let stage = Stage::set().await;
    stage.subscribe("pro").await;
    let owner = stage.owner().await;
    let key = stage.platform.post("/api/v1/api-keys", &owner, json!({"name": "kept"})).await.expect(201).json();
    stage.cards(Card::Declines).await;
    stage.days(32).await;
    assert_eq!(stage.standing().await, ("pro".into(), "past_due".into()));
    // A week of grace, then the smallest plan: by the sweep, whatever Stripe still does.
    stage.stripe().advance(8 * super::DAY);
    let _ = stage.stripe().take_events();
    stage.platform.host().sweep().await;
    let (plan, _) = stage.standing().await;
    assert_eq!(plan, "free");
    let keys = stage.get("/api-keys").await;
    assert!(keys["data"].as_array().unwrap().iter().any(|listed| listed["id"] == key["id"]), "{keys}");
    // Paid after all, on the invoice's page: everything is as it was.
    stage.cards(Card::Pays).await;
    let open = stage.get("/billing/invoices").await;
    let open: Vec<_> = open["data"].as_array().unwrap().iter().filter(|invoice| invoice["status"] == "open").collect();
    let [invoice] = open[..] else { panic!("{open:?}") };
    stage.stripe().pay_invoice(text(invoice, "/id")).unwrap();
    stage.hear().await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    stage.platform.books(&stage.tenant).await;
}

#[tokio::test]
async fn a_trial_costs_nothing_is_announced_and_is_had_once() {
    let trial = "price = { usd_month = 1_900, usd_year = 19_000, cny_month = 19_900 }\ntrial_days = 14";
    let plans =
        Setup::default().plan_change("price = { usd_month = 1_900, usd_year = 19_000, cny_month = 19_900 }", trial);
    let stage = Stage::with(plans).await;
    stage.subscribe("pro").await;
    assert_eq!(stage.standing().await, ("pro".into(), "trialing".into()));
    assert!(stage.current().await["subscription"]["trial_end"].is_string());
    stage.days(12).await;
    let told = stage.letters().await;
    assert!(told.iter().any(|subject| subject.contains("trial ends soon")), "{told:?}");
    stage.days(3).await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    let invoices = stage.get("/billing/invoices").await;
    assert_eq!(invoices["data"][0]["amount_paid"]["amount"], 1_900);
    // Whoever had a trial has no second one.
    stage.post("/subscriptions/cancel", json!({"at_period_end": false})).await.expect(200);
    stage.hear().await;
    assert_eq!(stage.standing().await, ("free".into(), "canceled".into()));
    stage.subscribe("pro").await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
}

#[tokio::test]
async fn a_trial_is_of_one_plan_and_ends_when_another_is_wanted() {
    let trial = "price = { usd_month = 1_900, usd_year = 19_000, cny_month = 19_900 }\ntrial_days = 14";
    let plans =
        Setup::default().plan_change("price = { usd_month = 1_900, usd_year = 19_000, cny_month = 19_900 }", trial);
    let stage = Stage::with(plans).await;
    stage.subscribe("pro").await;
    stage.days(3).await;
    let team = stage.price("team", "month").await;
    let preview = stage.get(&format!("/subscriptions/upgrade/preview?price_id={team}")).await;
    assert_eq!((&preview["amount_due"]["amount"], &preview["proration"]["amount"]), (&json!(9_900), &json!(0)));
    // What is not paid is not made, and the trial goes on.
    stage.cards(Card::Declines).await;
    let body = json!({"price_id": team, "as_of": preview["as_of"]});
    let waits = stage.post("/subscriptions/upgrade", body).await.expect(200).json();
    assert_eq!(waits["success"], false);
    stage.hear().await;
    assert_eq!(stage.standing().await, ("pro".into(), "trialing".into()));
    stage.days(1).await;
    stage.cards(Card::Pays).await;
    let changed = stage.post("/subscriptions/upgrade", json!({"price_id": team})).await.expect(200).json();
    assert_eq!(
        (&changed["success"], &changed["proration_preview"]["amount_due"]["amount"]),
        (&json!(true), &json!(9_900))
    );
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
    stage.hear().await;
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
    let invoices = stage.get("/billing/invoices").await;
    assert_eq!(invoices["data"][0]["amount_paid"]["amount"], 9_900);
    // A month is paid for from that day on, and the next one after it.
    stage.days(29).await;
    assert_eq!(stage.get("/billing/invoices").await["data"][0]["id"], invoices["data"][0]["id"]);
    stage.days(3).await;
    assert_eq!(stage.get("/billing/invoices").await["data"][0]["amount_paid"]["amount"], 9_900);
    assert_ne!(stage.get("/billing/invoices").await["data"][0]["id"], invoices["data"][0]["id"]);
}

#[tokio::test]
async fn what_was_declined_or_left_gives_nothing() {
    let stage = Stage::set().await;
    let price = stage.price("pro", "year").await;
    let checkout = stage.post("/subscriptions/checkout", json!({"price_id": price})).await.expect(200).json();
    let session = text(&checkout, "/session_id");
    stage.stripe().decline(session).unwrap();
    stage.hear().await;
    assert_eq!(stage.standing().await.0, "free");
    // The page is still there, until its time is up.
    stage.days(2).await;
    assert_eq!(stage.standing().await.0, "free");
    stage.stripe().pay(session).unwrap_err();
    // Another one may be begun, and paid by the year.
    let again = stage.post("/subscriptions/checkout", json!({"price_id": price})).await.expect(200).json();
    stage.stripe().pay(text(&again, "/session_id")).unwrap();
    stage.hear().await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    let invoices = stage.get("/billing/invoices").await;
    assert_eq!(invoices["data"][0]["amount_paid"]["amount"], 19_000);
}

#[tokio::test]
async fn credits_that_come_with_a_plan_come_with_each_invoice_and_go_with_the_month() {
    let stage =
        Stage::with(Setup::default().plan_change("id = \"pro\"", "id = \"pro\"\ncredits_month = 5_000_000")).await;
    stage.subscribe("pro").await;
    assert_eq!(stage.get("/credits").await["balance"], 5_000_000);
    stage.days(32).await;
    stage.platform.host().sweep().await;
    assert_eq!(stage.get("/credits").await["balance"], 5_000_000, "the old ones are over, new ones came");
    let ledger = stage.get("/credits/ledger").await;
    let kinds: Vec<_> = ledger["data"].as_array().unwrap().iter().map(|row| text(row, "/kind").to_owned()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "grant").count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "expiry").count(), 1, "{kinds:?}");
    stage.platform.books(&stage.tenant).await;
}

#[tokio::test]
async fn bought_credits_outlive_the_plan_and_go_back_with_their_money() {
    let stage = Stage::set().await;
    let body = json!({"provider": "stripe"});
    let order = stage.post("/billing/packages/small/checkout", body.clone()).await.expect(201).json();
    assert_eq!((text(&order, "/state"), text(&order, "/pay/type")), ("pending", "redirect"));
    let id = text(&order, "/id").to_owned();
    // Stripe tells nothing of a page that is made; its address has its name.
    let session = text(&order, "/pay/url").rsplit('/').next().unwrap().to_owned();
    assert!(session.starts_with("cs_"), "{session}");
    stage.stripe().pay(&session).unwrap();
    // Whoever asks for the order before Stripe tells is told as much.
    let paid = stage.get(&format!("/payments/orders/{id}")).await;
    assert_eq!((text(&paid, "/state"), &paid["fulfilled"], &paid["pay"]), ("paid", &json!(true), &Value::Null));
    stage.hear().await;
    assert_eq!(stage.get("/credits").await["balance"], 10_000_000, "once");
    let meter = stage.platform.meter(&stage.tenant).await;
    assert_eq!(meter.given.get(tenantry_domain::Resource::Messages), Limit::Of(1_000), "the plan is another matter");

    // The month turns; what was bought stays.
    stage.days(31).await;
    stage.platform.host().run_job(tenantry_quota_reset::Job::Reset).await;
    assert_eq!(stage.get("/credits").await["balance"], 10_000_000);

    // A part goes back, and the bank takes the rest.
    let intent = stage.stripe().object(&session).unwrap()["payment_intent"].as_str().unwrap().to_owned();
    let charge = stage.stripe().object(&intent).unwrap()["latest_charge"].as_str().unwrap().to_owned();
    stage.stripe().refund(&charge, Some(250)).unwrap();
    stage.hear().await;
    assert_eq!(stage.get("/credits").await["balance"], 7_500_000);
    assert_eq!(text(&stage.get(&format!("/payments/orders/{id}")).await, "/state"), "partially_refunded");
    let dispute = stage.stripe().open_dispute(&charge, Some(750), "fraudulent").unwrap();
    stage.hear().await;
    assert_eq!(stage.get("/credits").await["balance"], 0);
    stage.stripe().close_dispute(&dispute, true).unwrap();
    stage.hear().await;
    assert_eq!(stage.get("/credits").await["balance"], 7_500_000, "won");
    stage.platform.books(&stage.tenant).await;

    // All of it can be taken along.
    let path = format!("/api/v1/organizations/{}/export", stage.tenant.org);
    let export = stage.platform.get(&path, &stage.owner().await).await.expect(200).text();
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((count("order"), count("billing_account"), count("ledger_entry")), (1, 1, 4), "{export}");
}

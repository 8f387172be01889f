//! Changes that pay nothing back: what a period has given would stay. A smaller plan comes with the next one, and of a year there
//! is no way back to the month.

use serde_json::{Value, json};
use tenantry_commerce::CheckoutPages;
use tenantry_payments::stripe::{BillingInterval, PriceSpec};
use tenantry_sandbox::stripe::Card;
use tenantry_tests::{
    http::{problem, text},
    platform::{Setup, request},
};

use super::{DAY, Stage};

const MINUTE: i64 = 60_000;
/// Of `pro`, each month.
const MONTHLY: u64 = 5_000_000;

/// A catalogue in which `pro` comes with credits.
fn with_credits() -> Setup {
    Setup::default().plan_change("id = \"pro\"", "id = \"pro\"\ncredits_month = 5_000_000")
}

/// One with a plan between `pro` and `team`, and `team` by the year as well.
fn with_more_plans() -> Setup {
    let crew = "[[plan]]\nid = \"crew\"\nname = \"Crew\"\nfeatures = [\"all\"]\nprice = { usd_month = 4_900 }\n\
                [plan.limits]\nmessages = 100_000\nllm_tokens = 50_000_000\nimages = 5_000\napi_calls = 2_000_000\n\
                requests_per_minute = 100\nin_flight = 50\nbots = 20\nmembers = 10\nkeys = 40\n\n\
                [[plan]]\nid = \"team\"";
    let team = "price = { usd_month = 9_900, usd_year = 99_000, cny_month = 99_900 }";
    Setup::default()
        .plan_change("[[plan]]\nid = \"team\"", crew)
        .plan_change("price = { usd_month = 9_900, cny_month = 99_900 }", team)
}

impl Stage {
    /// What a change to a plan would do, and what it does: both say the same.
    async fn change(&self, plan: &str, interval: &str) -> Value {
        let price = self.price(plan, interval).await;
        let preview = self.get(&format!("/subscriptions/upgrade/preview?price_id={price}")).await;
        let body = json!({"price_id": price, "as_of": preview["as_of"]});
        let changed = self.post("/subscriptions/upgrade", body).await.expect(200).json();
        assert_eq!((&changed["success"], &changed["proration_preview"]), (&json!(true), &preview));
        preview
    }

    /// Why a change is refused, before it and when it is asked for.
    async fn refused(&self, plan: &str, interval: &str) -> String {
        let price = self.price(plan, interval).await;
        let path = format!("/api/v1/subscriptions/upgrade/preview?price_id={price}");
        let preview = problem(&self.platform.get(&path, &self.owner().await).await, 409, "conflict");
        let change = problem(&self.post("/subscriptions/upgrade", json!({"price_id": price})).await, 409, "conflict");
        assert_eq!(preview["detail"], change["detail"]);
        text(&change, "/detail").to_owned()
    }

    /// What each invoice was paid with, the newest first.
    async fn paid(&self) -> Vec<i64> {
        let invoices = self.get("/billing/invoices").await;
        invoices["data"].as_array().unwrap().iter().map(|one| one["amount_paid"]["amount"].as_i64().unwrap()).collect()
    }

    /// What the customer has with Stripe, in cents; negative when it is the customer's.
    async fn balance(&self) -> i64 {
        let customer = self.platform.store().account(&self.tenant.scope).await.unwrap().customer.unwrap();
        self.stripe().object(&customer).unwrap()["balance"].as_i64().unwrap()
    }

    /// The subscription's words at Stripe.
    async fn words(&self) -> Value {
        let id = text(&self.current().await, "/subscription/id").to_owned();
        self.stripe().object(&id).unwrap()["metadata"].clone()
    }

    async fn grants(&self) -> Vec<u64> {
        let ledger = self.get("/credits/ledger?limit=100").await;
        let rows = ledger["data"].as_array().unwrap().iter().filter(|row| row["kind"] == "grant");
        rows.map(|row| row["amount"].as_u64().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_smaller_plan_comes_with_the_next_period_and_the_larger_one_stays_until_then() {
    let stage = Stage::with(with_credits()).await;
    stage.subscribe("team").await;
    stage.days(3).await;
    let end = stage.current().await["subscription"]["period_end"].clone();
    let change = stage.change("pro", "month").await;
    assert_eq!((&change["starts_at"], &change["amount_due"]["amount"]), (&end, &json!(0)));
    assert_eq!((&change["proration"]["amount"], &change["lines"]), (&json!(0), &json!([])));
    for _ in 0..2 {
        let current = stage.current().await;
        assert_eq!((text(&current, "/plan/id"), &current["plan_until"]), ("team", &end));
        let subscription = &current["subscription"];
        assert_eq!((&subscription["plan"], &subscription["status"]), (&json!("team"), &json!("active")));
        assert_eq!(subscription["next_plan"], json!({"plan": "pro", "starts_at": end}));
        assert_eq!(subscription["price_id"], stage.price("pro", "month").await);
        stage.hear().await;
    }
    assert_eq!((stage.paid().await, stage.balance().await), (vec![9_900], 0));
    // Asked for again, it is what it is.
    assert_eq!(stage.change("pro", "month").await["starts_at"], end);
    stage.days(27).await;
    let current = stage.current().await;
    assert_eq!((text(&current, "/plan/id"), &current["plan_until"]), ("pro", &Value::Null));
    assert_eq!(
        (&current["subscription"]["plan"], &current["subscription"]["next_plan"]),
        (&json!("pro"), &Value::Null)
    );
    stage.days(1).await;
    assert_eq!((stage.paid().await, stage.balance().await), (vec![1_900, 9_900], 0));
    assert_eq!(stage.grants().await, [MONTHLY], "of the month that was paid for");
    // What is written at Stripe is of a period that is over.
    assert_eq!(stage.words().await["paid_plan"], "team");
    let upgraded = stage.change("team", "month").await;
    assert!((1..=8_000).contains(&upgraded["amount_due"]["amount"].as_i64().unwrap()), "{upgraded}");
    assert_eq!(stage.standing().await, ("team".into(), "active".into()));
    stage.platform.books(&stage.tenant).await;
}

#[tokio::test]
async fn the_larger_plan_ends_with_its_period_whatever_stripe_tells() {
    let stage = Stage::set().await;
    stage.subscribe("team").await;
    stage.change("pro", "month").await;
    // Nothing of it is heard, and the account has it all the same.
    let until = stage.platform.store().account(&stage.tenant.scope).await.unwrap().plan_until.unwrap();
    let _ = stage.stripe().take_events();
    stage.stripe().advance(until - stage.platform.store().now() - 1);
    stage.platform.host().sweep().await;
    assert_eq!(stage.standing().await.0, "team");
    stage.stripe().advance(1);
    let _ = stage.stripe().take_events();
    stage.platform.host().sweep().await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
}

#[tokio::test]
async fn to_and_fro_costs_nothing_and_gives_nothing() {
    let stage = Stage::set().await;
    stage.subscribe("team").await;
    stage.days(10).await;
    let left = stage.left("llm_tokens").await;
    for _ in 0..3 {
        let end = stage.current().await["subscription"]["period_end"].clone();
        assert_eq!(stage.change("pro", "month").await["starts_at"], end);
        assert_eq!(stage.words().await["paid_plan"], "team");
        stage.hear().await;
        let back = stage.change("team", "month").await;
        assert_eq!((&back["starts_at"], &back["amount_due"]["amount"]), (&back["as_of"], &json!(0)));
        assert_eq!(
            (&stage.words().await["paid_plan"], &stage.words().await["paid_until"]),
            (&Value::Null, &Value::Null)
        );
        let current = stage.current().await;
        assert_eq!((text(&current, "/plan/id"), &current["plan_until"]), ("team", &Value::Null));
        assert_eq!(current["subscription"]["next_plan"], Value::Null);
        stage.hear().await;
        assert_eq!(stage.left("llm_tokens").await, left);
    }
    assert_eq!((stage.paid().await, stage.balance().await), (vec![9_900], 0));
    stage.days(22).await;
    assert_eq!((stage.paid().await, stage.standing().await.0), (vec![9_900, 9_900], "team".to_owned()));
}

#[tokio::test]
async fn while_a_smaller_plan_is_to_come_only_plans_up_to_the_paid_one_are_to_be_had() {
    let stage = Stage::with(with_more_plans()).await;
    stage.subscribe("crew").await;
    stage.change("pro", "month").await;
    for (plan, interval) in [("team", "month"), ("team", "year"), ("pro", "year")] {
        let why = stage.refused(plan, interval).await;
        assert!(why.contains("change back to Crew first"), "{why}");
    }
    stage.change("crew", "month").await;
    assert!(stage.change("team", "month").await["amount_due"]["amount"].as_i64().unwrap() > 4_900);
    // Down by two, up by one of them: all of it for the next period.
    stage.change("pro", "month").await;
    let end = stage.current().await["subscription"]["period_end"].clone();
    assert_eq!(stage.change("crew", "month").await["starts_at"], end);
    let current = stage.current().await;
    assert_eq!((text(&current, "/plan/id"), &current["subscription"]["next_plan"]["plan"]), ("team", &json!("crew")));
    let why = stage.refused("team", "year").await;
    assert!(why.contains("change back to Team first"), "{why}");
    stage.hear().await;
    stage.days(32).await;
    assert_eq!(stage.standing().await, ("crew".into(), "active".into()));
    assert_eq!(stage.paid().await[0], 4_900);
}

#[tokio::test]
async fn a_year_is_not_changed_for_a_month_and_brings_its_credits_once() {
    let stage = Stage::with(with_credits()).await;
    stage.subscribe_by("pro", "year").await;
    assert_eq!(stage.grants().await, [12 * MONTHLY]);
    stage.days(1).await;
    let year = stage.current().await["subscription"]["period_end"].as_str().unwrap().to_owned();
    for plan in ["pro", "team"] {
        let why = stage.refused(plan, "month").await;
        assert!(why.contains(&year) && why.contains("cancel the subscription with that period"), "{why}");
    }
    stage.hear().await;
    assert_eq!((stage.paid().await, stage.balance().await), (vec![19_000], 0));
    assert_eq!(stage.grants().await, [12 * MONTHLY]);
}

#[tokio::test]
async fn from_the_month_to_the_year_is_paid_for_and_once() {
    let stage = Stage::with(with_credits()).await;
    stage.subscribe("pro").await;
    stage.days(15).await;
    let change = stage.change("pro", "year").await;
    let due = change["amount_due"]["amount"].as_i64().unwrap();
    assert!((19_000 - 1_900..19_000).contains(&due), "{change}");
    assert_eq!(change["starts_at"], change["as_of"]);
    stage.hear().await;
    assert_eq!((stage.paid().await, stage.balance().await), (vec![due, 1_900], 0));
    assert_eq!(stage.grants().await, [12 * MONTHLY, MONTHLY]);
    stage.refused("pro", "month").await;
    // A smaller plan by the year, in one, would take back what the month has given.
    let stage = Stage::with(with_credits()).await;
    stage.subscribe("team").await;
    let why = stage.refused("pro", "year").await;
    assert!(why.contains("A smaller plan comes by the month"), "{why}");
}

#[tokio::test]
async fn nothing_is_changed_that_is_not_paid_or_is_about_to_end() {
    let stage = Stage::set().await;
    stage.subscribe("team").await;
    // A smaller plan has no next period to come with.
    stage.post("/subscriptions/cancel", Value::Null).await.expect(200);
    assert!(stage.refused("pro", "month").await.contains("resume it first"));
    stage.post("/subscriptions/resume", Value::Null).await.expect(200);
    // Whoever asks as a period ends could be heard in the next one, which is to be paid by another price.
    let end = stage.platform.store().account(&stage.tenant.scope).await.unwrap().subscription.unwrap().period_end;
    stage.stripe().advance(end - stage.platform.store().now() - 5 * MINUTE);
    stage.change("pro", "month").await;
    stage.stripe().advance(1);
    assert!(stage.refused("team", "month").await.contains("ends in this moment"));
    // A payment that is late is made first.
    stage.cards(Card::Declines).await;
    stage.days(2).await;
    assert_eq!(stage.standing().await, ("pro".into(), "past_due".into()));
    assert!(stage.refused("team", "month").await.contains("not paid for"));
    stage.cards(Card::Pays).await;
    stage.days(3).await;
    assert_eq!(stage.standing().await, ("pro".into(), "active".into()));
    // And a change that waits for its payment comes before any other one.
    stage.cards(Card::Declines).await;
    let team = json!({"price_id": stage.price("team", "month").await});
    assert_eq!(stage.post("/subscriptions/upgrade", team.clone()).await.expect(200).json()["success"], false);
    let error = problem(&stage.post("/subscriptions/upgrade", team).await, 409, "conflict");
    assert!(text(&error, "/detail").contains("waits for its payment"), "{error}");
}

#[tokio::test]
async fn a_subscription_that_ends_ends_for_a_smaller_plan_to_come_as_well() {
    let stage = Stage::set().await;
    stage.subscribe("team").await;
    stage.change("pro", "month").await;
    stage.post("/subscriptions/cancel", Value::Null).await.expect(200);
    stage.days(29).await;
    assert_eq!(stage.standing().await.0, "team");
    stage.days(2).await;
    assert_eq!(stage.standing().await, ("free".into(), "canceled".into()));
    assert_eq!(stage.paid().await, [9_900]);
    // Now, it ends now.
    let stage = Stage::set().await;
    stage.subscribe("team").await;
    stage.change("pro", "month").await;
    stage.post("/subscriptions/cancel", json!({"at_period_end": false})).await.expect(200);
    assert_eq!(stage.standing().await, ("free".into(), "canceled".into()));
}

#[tokio::test]
async fn a_change_for_later_whose_answer_was_lost_is_repeated_and_made_once() {
    let stage = Stage::set().await;
    stage.subscribe("team").await;
    stage.days(4).await;
    let (pro, owner) = (stage.price("pro", "month").await, stage.owner().await);
    let send = async || {
        let (path, body) = ("/api/v1/subscriptions/upgrade", json!({"price_id": pro}));
        let mut request = request(http::Method::POST, path, &owner, &body);
        request.headers_mut().insert("idempotency-key", "one-change".parse().unwrap());
        stage.platform.send(request).await
    };
    stage.stripe().lose_answers(Some("/v1/subscriptions/"));
    send().await.expect(503);
    stage.stripe().lose_answers(None);
    assert_eq!(send().await.expect(200).json()["success"], true);
    stage.hear().await;
    let current = stage.current().await;
    assert_eq!((text(&current, "/plan/id"), &current["subscription"]["next_plan"]["plan"]), ("team", &json!("pro")));
    let log = stage.get("/audit-log?action=subscription.plan_changed").await;
    assert_eq!(log["data"].as_array().unwrap().len(), 1, "{log}");
}

#[tokio::test]
async fn another_price_of_the_same_plan_counts_from_the_next_invoice_on() {
    let stage = Stage::set().await;
    let commerce = stage.platform.host().commerce();
    // What it cost when they subscribed.
    let before = PriceSpec {
        lookup_key: "pro_usd_month",
        product: "tenantry_pro",
        currency: "usd",
        unit_amount: 2_900,
        interval: Some(BillingInterval::Month),
    };
    let before = commerce.stripe().unwrap().ensure_price(&before).await.unwrap();
    let scope = &stage.tenant.scope;
    let customer = commerce.customer(scope, &stage.tenant.email, "Acme").await.unwrap();
    let pages = CheckoutPages { success_url: "https://s.example", cancel_url: "https://c.example" };
    let page = commerce.subscribe(scope, &customer, &before.id, None, pages, "1").await.unwrap();
    stage.stripe().pay(&page.id).unwrap();
    stage.hear().await;
    commerce.put_up_for_sale().await.unwrap();
    stage.stripe().advance(DAY);
    let change = stage.change("pro", "month").await;
    assert_eq!((&change["starts_at"], &change["amount_due"]["amount"]), (&change["as_of"], &json!(0)));
    assert_eq!((stage.standing().await.0, stage.balance().await), ("pro".to_owned(), 0));
    stage.days(31).await;
    assert_eq!((stage.paid().await, stage.balance().await), (vec![1_900, 2_900], 0));
}

//! What Stripe tells of payments and subscriptions, and what becomes of it: late, twice, in the wrong order and of others.

use serde_json::{Value, json};
use tenantry_commerce::{Buyer, CheckoutPages, Commerce, CommerceError, Handled};
use tenantry_domain::{
    Period,
    orders::{Order, OrderState, RefundWanted},
};
use tenantry_payments::stripe::EventObject;
use tenantry_store::{Origin, Store};
use tenantry_tests::{
    platform::{NOON, Platform, Setup, Tenant},
    stripe::{Scripted, event},
};

const CREDITS: u64 = 10_000_000;
const SECOND: i64 = NOON / 1_000;

struct Stage {
    platform: Platform,
    tenant: Tenant,
    stripe: Scripted,
    commerce: Commerce,
}

impl Stage {
    async fn set() -> Self {
        let plans = Setup::default().plan_change("id = \"pro\"", "id = \"pro\"\ncredits_month = 3_000");
        let platform = Platform::start(plans).await;
        let tenant = platform.tenant("free").await;
        let stripe = Scripted::start().await;
        let commerce = Commerce::new(platform.store().clone()).with_stripe(stripe.client(), false);
        let stage = Self { platform, tenant, stripe, commerce };
        stage.stripe.set("customers", json!({"id": "cus_1", "metadata": {"org": stage.tenant.org}}));
        stage.stripe.set("customers/cus_1", json!({"id": "cus_1"}));
        let customer = stage.commerce.customer(&stage.tenant.scope, "a@example.com", "A").await.unwrap();
        assert_eq!(customer, "cus_1");
        stage
    }

    async fn order(&self) -> Order {
        self.stripe.set("checkout/sessions", self.session("open", "unpaid", &json!({})));
        let (origin, pages) = (Origin::default(), CheckoutPages { success_url: "https://s", cancel_url: "https://c" });
        let buyer = Buyer { user: &self.tenant.user, origin: &origin };
        let scope = &self.tenant.scope;
        let (order, session) = self.commerce.order_package(scope, "cus_1", "small", &buyer, pages).await.unwrap();
        assert_eq!((session.id.as_str(), order.state()), ("cs_1", OrderState::Pending));
        let sent = self.stripe.writes("checkout/sessions").join("&");
        assert!(sent.contains(order.id.as_str()) && sent.contains("=1000"), "{sent}");
        self.is("open", "unpaid", &order);
        order
    }

    fn session(&self, status: &str, payment: &str, metadata: &Value) -> Value {
        json!({
            "id": "cs_1", "mode": "payment", "status": status, "payment_status": payment, "customer": "cus_1",
            "payment_intent": (status == "complete").then_some("pi_1"), "amount_subtotal": 1_000, "amount_total": 1_200,
            "currency": "usd", "metadata": metadata, "expires_at": SECOND + 3_600, "created": SECOND,
            "livemode": false, "url": "https://checkout.stripe.com/c/pay/cs_1",
        })
    }

    fn words(&self, order: &Order) -> Value {
        json!({"org": self.tenant.org, "order": order.id})
    }

    /// The session is so from now on, and its payment with taxes.
    fn is(&self, status: &str, payment: &str, order: &Order) {
        self.stripe.set("checkout/sessions/cs_1", self.session(status, payment, &self.words(order)));
        let status = if payment == "paid" { "succeeded" } else { "processing" };
        self.stripe.set("payment_intents/pi_1", json!({
            "id": "pi_1", "status": status, "amount": 1_200, "amount_received": if payment == "paid" { 1_200 } else { 0 },
            "currency": "usd", "customer": "cus_1", "metadata": self.words(order), "created": SECOND, "livemode": false,
        }));
    }

    async fn told_of_session(&self) -> Result<Handled, CommerceError> {
        // What the event says of it is not believed.
        let stale = self.session("open", "unpaid", &json!({}));
        let object = EventObject::CheckoutSession(Box::new(serde_json::from_value(stale).unwrap()));
        self.commerce.handle(&event("checkout.session.completed", object)).await
    }

    async fn told_of_charge(&self) {
        let charge = json!({
            "id": "ch_1", "status": "succeeded", "amount": 1_200, "amount_captured": 1_200, "amount_refunded": 0,
            "currency": "usd", "customer": "cus_1", "payment_intent": "pi_1", "paid": true, "refunded": false,
            "disputed": false, "created": SECOND, "livemode": false,
        });
        let object = EventObject::Charge(Box::new(serde_json::from_value(charge).unwrap()));
        self.commerce.handle(&event("charge.refunded", object)).await.unwrap();
    }

    fn refunds(&self, refunds: &[(&str, i64, &str)]) {
        let refund = |(place, (id, amount, status)): (usize, &(&str, i64, &str))| {
            let created = SECOND + i64::try_from(place).unwrap();
            json!({"id": id, "amount": amount, "status": status, "currency": "usd", "created": created})
        };
        self.stripe.set("refunds", refunds.iter().enumerate().map(refund).collect());
    }

    fn dispute(&self, status: &str, amount: i64) {
        self.stripe.set("disputes", json!([{
            "id": "dp_1", "status": status, "amount": amount, "currency": "usd", "charge": "ch_1", "reason": "fraudulent",
            "created": SECOND, "livemode": false,
        }]));
    }

    async fn now(&self, order: &Order) -> Order {
        self.commerce.order(&self.tenant.scope, &order.id).await.unwrap()
    }

    async fn credits(&self) -> u64 {
        self.platform.books(&self.tenant).await;
        self.platform.meter(&self.tenant).await.credits
    }
}

#[tokio::test]
async fn a_package_is_credited_when_its_checkout_is_paid_and_once() {
    let stage = Stage::set().await;
    let order = stage.order().await;
    assert_eq!(order.show.as_deref(), Some("https://checkout.stripe.com/c/pay/cs_1"));
    for (status, payment, state) in [
        ("open", "unpaid", OrderState::Pending),
        ("complete", "unpaid", OrderState::Pending),
        ("complete", "paid", OrderState::Paid),
        ("complete", "paid", OrderState::Paid),
    ] {
        stage.is(status, payment, &order);
        assert_eq!(stage.told_of_session().await.unwrap().org.as_ref(), Some(&stage.tenant.org));
        stage.commerce.look(&stage.tenant.scope, stage.now(&order).await).await.unwrap();
        assert_eq!(stage.now(&order).await.state(), state, "{status} {payment}");
        assert_eq!(stage.credits().await, if state == OrderState::Paid { CREDITS } else { 0 });
    }
    assert_eq!(stage.platform.ledger(&stage.tenant).await.len(), 1);
}

#[tokio::test]
async fn what_is_not_the_tenants_or_not_what_was_ordered_is_refused() {
    let stage = Stage::set().await;
    let order = stage.order().await;
    let good = stage.session("complete", "paid", &stage.words(&order));
    let other = stage.platform.tenant("free").await;
    for (member, value) in [
        ("amount_subtotal", json!(999)),
        ("currency", json!("cny")),
        ("customer", json!("cus_2")),
        ("customer", json!(null)),
        ("metadata", json!({"org": other.org, "order": order.id})),
        ("metadata", json!({"org": stage.tenant.org, "order": tenantry_domain::OrderId::new()})),
        ("metadata", json!({"org": stage.tenant.org, "order": "ord_1"})),
    ] {
        let mut wrong = good.clone();
        wrong[member] = value;
        stage.stripe.set("checkout/sessions/cs_1", wrong.clone());
        let error = stage.told_of_session().await.unwrap_err();
        assert!(matches!(error, CommerceError::Mismatch(_)), "{wrong}: {error}");
        assert_eq!((stage.now(&order).await, stage.credits().await), (order.clone(), 0));
    }
    // Somebody else's who shares the account.
    let mut others = good.clone();
    (others["customer"], others["metadata"]) = (json!("cus_2"), json!({}));
    stage.stripe.set("checkout/sessions/cs_1", others);
    assert_eq!(stage.told_of_session().await.unwrap(), Handled::default());
    assert_eq!(stage.now(&order).await, order);
}

#[tokio::test]
async fn what_goes_back_takes_its_share_whatever_is_told_first() {
    let stage = Stage::set().await;
    let order = stage.order().await;
    stage.is("complete", "paid", &order);
    // Half of it went back before anybody told that it was paid. The payment had taxes in it.
    stage.refunds(&[("re_1", 600, "succeeded")]);
    for _ in 0..2 {
        stage.told_of_charge().await;
        stage.told_of_session().await.unwrap();
        assert_eq!(stage.now(&order).await.state(), OrderState::PartiallyRefunded);
        assert_eq!(stage.credits().await, CREDITS / 2);
    }
    // A dispute over everything takes what is left and no more.
    stage.dispute("needs_response", 1_200);
    stage.platform.store().add_credits(&stage.tenant.scope, &others()).await.unwrap();
    for _ in 0..2 {
        stage.told_of_charge().await;
        assert_eq!(stage.credits().await, 77);
    }
    stage.dispute("won", 1_200);
    for _ in 0..2 {
        stage.told_of_charge().await;
        assert_eq!(stage.credits().await, CREDITS / 2 + 77);
    }
    stage.refunds(&[("re_1", 600, "succeeded"), ("re_2", 600, "pending")]);
    stage.told_of_charge().await;
    assert_eq!((stage.now(&order).await.state(), stage.credits().await), (OrderState::Refunded, 77));
}

const fn others<'a>() -> tenantry_store::NewLedgerRow<'a> {
    let kind = tenantry_domain::ledger::LedgerKind::Grant;
    tenantry_store::NewLedgerRow { kind, amount: 77, key: "present", reference: None, expires_at: None }
}

#[tokio::test]
async fn a_page_that_nobody_paid_on_is_closed_and_a_bank_that_takes_days_is_waited_for() {
    let stage = Stage::set().await;
    let order = stage.order().await;
    let sweep = || async {
        for shard in 0..Store::shards() {
            assert_eq!(stage.commerce.sweep_orders(shard, &|| false).await.unwrap().failed, 0);
        }
        stage.now(&order).await.state()
    };
    stage.is("complete", "unpaid", &order);
    stage.platform.clock().advance(2 * 3_600_000);
    assert_eq!(sweep().await, OrderState::Pending);
    assert!(stage.stripe.writes("checkout/sessions/cs_1/expire").is_empty());
    // The bank says no, and the customer begins again.
    let mut failed = stage.session("complete", "unpaid", &stage.words(&order));
    failed["payment_intent"] = json!("pi_2");
    stage.stripe.set("checkout/sessions/cs_1", failed);
    stage.stripe.set(
        "payment_intents/pi_2",
        json!({
            "id": "pi_2", "status": "requires_payment_method", "amount": 1_200, "currency": "usd", "created": SECOND,
            "livemode": false,
        }),
    );
    assert_eq!(sweep().await, OrderState::Failed);
    let order = stage.order().await;
    stage.is("expired", "unpaid", &order);
    assert!(stage.commerce.reconcile_order(&stage.tenant.scope, &order.id).await.unwrap());
    assert_eq!(stage.now(&order).await.state(), OrderState::Closed);
}

#[tokio::test]
async fn an_operators_refund_is_made_once_and_takes_the_credits() {
    let stage = Stage::set().await;
    let order = stage.order().await;
    stage.is("complete", "paid", &order);
    stage.told_of_session().await.unwrap();
    let origin = Origin::default();
    let actor = tenantry_store::AuditActor::System;
    let audit = tenantry_store::NewAudit {
        action: "order.refund_begun",
        actor,
        target: None,
        changes: vec![],
        origin: &origin,
    };
    let refund = async |operation, amount| {
        let wanted = RefundWanted { operation, amount, reason: "late" };
        stage.commerce.refund(&stage.tenant.scope, &order.id, &wanted, &audit).await
    };
    // Stripe has no answer for it, so it says no.
    assert!(matches!(refund("a", None).await, Err(CommerceError::RefundRefused(_))));
    assert_eq!((stage.now(&order).await.refund, stage.credits().await), (None, CREDITS));
    // An amount is what it says, of what was paid with taxes: all is what is left of that, and Stripe knows how much.
    for (operation, amount) in [("b", 1_000), ("c", 1_200)] {
        assert!(matches!(refund(operation, Some(amount)).await, Err(CommerceError::RefundRefused(_))));
    }
    let sent = stage.stripe.writes("refunds");
    let amounts: Vec<_> = sent.iter().map(|sent| sent.split('&').find(|pair| pair.starts_with("amount="))).collect();
    assert_eq!(amounts, [None, Some("amount=1000"), Some("amount=1200")], "{sent:?}");
    // It was made before, and the answer was lost.
    stage.stripe.set(
        "refunds",
        json!([{
            "id": "re_1", "amount": 1_200, "status": "succeeded", "currency": "usd", "created": SECOND,
            "metadata": {"order": order.id, "refund": "4"},
        }]),
    );
    let refunded = refund("d", None).await.unwrap();
    assert_eq!((refunded.state(), refunded.refund, stage.credits().await), (OrderState::Refunded, None, 0));
    assert_eq!(refunded.refunds_asked["d"].amount, 1_200, "what went back");
    assert_eq!(stage.stripe.writes("refunds").len(), 3, "it was found, not made again");
}

#[tokio::test]
async fn a_subscription_gives_its_plan_and_each_paid_invoice_its_credits() {
    let stage = Stage::set().await;
    let words = json!({"org": stage.tenant.org});
    let subscription = |status: &str| {
        let price = json!({"id": "price_1", "product": "tenantry_pro", "active": true, "currency": "usd"});
        json!({
            "id": "sub_1", "customer": "cus_1", "status": status, "currency": "usd", "cancel_at_period_end": false,
            "items": {"data": [{
                "id": "si_1", "price": price, "current_period_start": SECOND, "current_period_end": SECOND + 2_592_000,
            }]},
            "latest_invoice": "in_1", "metadata": words, "created": SECOND, "livemode": false,
        })
    };
    let invoice = |status: &str| {
        json!({
            "id": "in_1", "status": status, "customer": "cus_1", "currency": "usd", "subtotal": 1_900, "total": 1_900,
            "amount_due": 1_900, "amount_paid": if status == "paid" { 1_900 } else { 0 }, "amount_remaining": 0,
            "parent": {"subscription_details": {"subscription": "sub_1", "metadata": words}},
            "created": SECOND, "period_start": SECOND, "period_end": SECOND, "livemode": false,
            "lines": {"data": [{
                "amount": 1_900, "currency": "usd", "period": {"start": SECOND, "end": SECOND + 2_592_000},
                "pricing": {"price_details": {"price": "price_1", "product": "tenantry_pro"}},
            }]},
        })
    };
    let set = |status: &str, paid: &str| {
        stage.stripe.set("subscriptions/sub_1", subscription(status));
        stage.stripe.set("invoices/in_1", invoice(paid));
    };
    let tell = || async {
        let told = EventObject::Invoice(Box::new(serde_json::from_value(invoice("open")).unwrap()));
        let handled = stage.commerce.handle(&event("invoice.payment_failed", told)).await.unwrap();
        let told = EventObject::Subscription(Box::new(serde_json::from_value(subscription("incomplete")).unwrap()));
        stage.commerce.handle(&event("customer.subscription.updated", told)).await.unwrap();
        (stage.platform.meter(&stage.tenant).await.plan, stage.credits().await, handled.notices.len())
    };
    set("incomplete", "open");
    assert_eq!(tell().await, ("free".into(), 0, 0), "a plan that never began does not end");
    set("active", "paid");
    for _ in 0..2 {
        assert_eq!(tell().await, ("pro".into(), 3_000, 0));
    }
    set("past_due", "open");
    assert_eq!(tell().await, ("pro".into(), 3_000, 1));
    stage.platform.clock().set(NOON + tenantry_commerce::DEFAULT_GRACE);
    assert_eq!(stage.commerce.entitle(&stage.tenant.scope).await.unwrap().plan, "free");
    set("active", "paid");
    assert_eq!(tell().await, ("pro".into(), 3_000, 0), "the same invoice grants once");
    // A refund of the invoice takes its credits; one that fails gives them back.
    stage.stripe.set(
        "payment_intents/pi_1",
        json!({
            "id": "pi_1", "status": "succeeded", "amount": 1_900, "amount_received": 1_900, "currency": "usd",
            "customer": "cus_1", "created": SECOND, "livemode": false,
        }),
    );
    stage.stripe.set(
        "invoice_payments",
        json!([{
            "id": "inpay_1", "invoice": "in_1", "status": "paid", "amount_paid": 1_900, "amount_requested": 1_900,
            "currency": "usd", "payment": {"payment_intent": "pi_1"},
        }]),
    );
    stage.refunds(&[("re_1", 950, "succeeded"), ("re_2", 190, "succeeded")]);
    for _ in 0..2 {
        stage.told_of_charge().await;
        assert_eq!(stage.credits().await, 1_200);
    }
    stage.refunds(&[("re_1", 950, "failed"), ("re_2", 190, "succeeded")]);
    for _ in 0..2 {
        stage.told_of_charge().await;
        assert_eq!(stage.credits().await, 2_700);
    }
    set("canceled", "paid");
    assert_eq!(tell().await.0, "free");
    set("active", "paid");
    assert_eq!(tell().await.0, "free", "what has ended does not come back");
    assert_eq!(stage.platform.meter(&stage.tenant).await.period, Period::of(NOON));
}

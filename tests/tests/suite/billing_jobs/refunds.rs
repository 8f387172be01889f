//! Refunds that the operator asks for: each made once by its name, whatever is lost on the way, and refused in words.

use futures_util::future::join_all;
use http::Method;
use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};
use tenantry_commerce::{Buyer, ChinaOrder, Wanted};
use tenantry_domain::{
    ledger::LedgerKind,
    orders::{Order, OrderState, Provider},
};
use tenantry_payments::{Show, Vendor, stripe::PaymentRef};
use tenantry_quota_reset::handle;
use tenantry_sandbox::china::{self, ChinaSandbox};
use tenantry_store::{AuditFilter, NewLedgerRow, Origin};
use tenantry_tests::{
    http::text,
    jobs::Jobs,
    platform::{Platform, Setup, TestClock},
};

use super::Stage;

/// Credits of the package that is refunded here.
const CREDITS: u64 = 10_000_000;
/// More calls than a client makes of one.
const TRIES: usize = 12;

/// A stage with all vendors, and what the operator calls.
struct Desk {
    stage: Stage,
    china: ChinaSandbox,
    jobs: Jobs,
}

impl Desk {
    async fn open() -> Self {
        let clock = std::sync::Arc::<TestClock>::default();
        let china = ChinaSandbox::start(clock.clone(), "https://shop.example").await.unwrap();
        let vendors = [("WECHAT_PAY", china.wechat().to_json()), ("ALIPAY", china.alipay().to_json())];
        let vendors = vendors.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let stage = Stage::with(vendors, clock).await;
        let jobs = Jobs::with(stage.commerce.clone());
        Self { stage, china, jobs }
    }

    /// An order that waits for its payer.
    async fn order(&self, provider: Provider) -> (Order, String) {
        let vendor = match provider {
            Provider::Stripe => return self.stage.package().await,
            Provider::WeChat => Vendor::WeChat,
            Provider::Alipay => Vendor::Alipay,
        };
        let origin = Origin::default();
        let buyer = Buyer { user: &self.stage.tenant.user, origin: &origin };
        let wanted = ChinaOrder { vendor, wanted: Wanted::Package("small"), show: Show::QrCode };
        let made = self.stage.commerce.order_in_china(&self.stage.tenant.scope, &wanted, &buyer).await;
        let (order, _) = made.unwrap();
        let number = order.id.to_string();
        (order, number)
    }

    /// An order that is paid, of which nobody has told us.
    async fn paid(&self, provider: Provider) -> Order {
        let (order, at_vendor) = self.order(provider).await;
        match provider {
            Provider::Stripe => self.stage.stripe.pay(&at_vendor).unwrap(),
            Provider::WeChat => drop(self.china.pay(china::Vendor::WeChat, &at_vendor).unwrap()),
            Provider::Alipay => drop(self.china.pay(china::Vendor::Alipay, &at_vendor).unwrap()),
        }
        order
    }

    /// And now we know.
    async fn known(&self, provider: Provider) -> Order {
        let order = self.paid(provider).await;
        self.stage.commerce.look(&self.stage.tenant.scope, order).await.unwrap()
    }

    async fn now(&self, order: &Order) -> Order {
        self.stage.commerce.order(&self.stage.tenant.scope, &order.id).await.unwrap()
    }

    async fn asked(&self, payload: Value) -> Value {
        let mut context = Context::default();
        context.request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned();
        let answer = handle(&self.jobs.state, LambdaEvent::new(payload, context)).await.unwrap();
        serde_json::to_value(answer).unwrap()
    }

    async fn ask(&self, id: &str, order: &Order, amount: impl Into<Value>) -> Value {
        let amount: Value = amount.into();
        self.asked(json!({"job": "refund", "id": id, "order": order.id, "amount": amount, "operator": "ada"})).await
    }

    /// Asks until it is made: WeChat Pay says at first that it is at it.
    async fn made(&self, id: &str, order: &Order, amount: impl Into<Value>) -> Value {
        let amount: Value = amount.into();
        let mut answer = self.ask(id, order, amount.clone()).await;
        if order.provider == Provider::WeChat {
            assert_eq!(answer["outcome"], "under_way", "{answer}");
            answer = self.ask(id, order, amount).await;
        }
        assert_eq!(answer["outcome"], "made", "{answer}");
        answer
    }

    /// Asks, and says what came of it alone.
    async fn outcome(&self, id: &str, order: &Order, amount: impl Into<Value>) -> (String, String) {
        let answer = self.ask(id, order, amount).await;
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text("outcome"), text("message"))
    }

    /// All answers of the vendor to refunds are lost, or none.
    fn lose(&self, provider: Provider, lost: bool) {
        let faults = match provider {
            Provider::Stripe => return self.stage.stripe.lose_answers(lost.then_some("/v1/refunds")),
            Provider::WeChat => self.china.faults(china::Vendor::WeChat),
            Provider::Alipay => self.china.faults(china::Vendor::Alipay),
        };
        faults.clear();
        faults.order(vec![china::Fault::Error500Applied; if lost { TRIES } else { 0 }]);
    }

    /// What was refunded of an order at Stripe, and whether that failed later.
    async fn at_stripe(&self, order: &Order) -> Vec<(String, i64, bool)> {
        let stripe = self.stage.commerce.stripe().unwrap();
        let payment = &order.paid.as_ref().unwrap().payment;
        let refunds = stripe.refunds_of(PaymentRef::Intent(payment)).await.unwrap();
        let mut refunds: Vec<_> = refunds.into_iter().map(|r| (r.id.clone(), r.amount, r.took_money())).collect();
        refunds.sort();
        refunds
    }

    /// Asks for a refund that is under way and comes to no answer; another one is not begun meanwhile.
    async fn stays(&self, id: &str, order: &Order, amount: u64) {
        let (outcome, message) = self.outcome(id, order, amount).await;
        assert_eq!(outcome, "unknown", "{message}");
        assert!(message.contains(&format!("Ask again with the same `id`, `{id}`")), "{message}");
        let (outcome, message) = self.outcome("other", order, amount).await;
        assert!(outcome == "refused" && message.contains("Ask again once that has ended"), "{message}");
    }

    /// How much the tenant's order has given back, as its own page says.
    async fn shown(&self, order: &Order) -> (String, u64) {
        let owner = text(&self.stage.platform.login(&self.stage.tenant).await, "/access_token").to_owned();
        let path = format!("/api/v1/payments/orders/{}", order.id);
        let shown = self.stage.platform.get(&path, &owner).await.expect(200).json();
        (shown["state"].as_str().unwrap().to_owned(), shown["refunded"]["amount"].as_u64().unwrap())
    }

    async fn audited(&self) -> Vec<(String, Vec<Option<String>>)> {
        let filter = AuditFilter { action: Some("order.refund_begun".to_owned()), ..AuditFilter::default() };
        let log = self.stage.platform.store().audit_log(&self.stage.tenant.scope, &filter, 100, None).await.unwrap();
        log.items.into_iter().map(|row| (row.actor, row.changes.into_iter().map(|change| change.2).collect())).collect()
    }
}

#[tokio::test]
async fn a_part_and_the_rest_of_an_order_go_back_each_once_at_every_vendor() {
    let desk = Desk::open().await;
    for provider in Provider::ALL {
        // The operator may be quicker than the vendor's message.
        let order = desk.paid(provider).await;
        let part = order.amount / 4;
        let answer = desk.made("a", &order, part).await;
        assert_eq!(answer["order"]["refunded"], part, "{answer}");
        assert_eq!(answer["order"]["organization"], desk.stage.tenant.org.as_str());
        assert_eq!(desk.stage.credits().await, CREDITS - CREDITS / 4, "{provider:?}");
        // The same again is the same, and says so.
        assert_eq!(desk.ask("a", &order, part).await, answer);
        assert_eq!(desk.shown(&order).await, ("partially_refunded".to_owned(), part));
        let (outcome, message) = desk.outcome("a", &order, part + 1).await;
        assert!(outcome == "refused" && message.contains("another `id`"), "{message}");
        // Made twice, the part would leave too little for this.
        let rest = desk.made("b", &order, "all").await;
        assert_eq!(rest["order"]["refunded"], order.amount, "{rest}");
        assert_eq!((desk.stage.credits().await, desk.now(&order).await.state()), (0, OrderState::Refunded));
        let (outcome, message) = desk.outcome("c", &order, "all").await;
        assert!(outcome == "refused" && message.contains("nothing left to do"), "{message}");
        assert_eq!(desk.outcome("a", &order, part).await.0, "made");
        desk.stage.platform.books(&desk.stage.tenant).await;
    }
    // One row for each that was begun, which names who asked.
    let rows = desk.audited().await;
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert!(rows.iter().all(|(actor, _)| actor == "operator:ada"), "{rows:?}");
    assert_eq!(rows[0].1, ["b", "all", "Refund"].map(|text| Some(text.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_refund_asked_for_at_the_same_moment_is_made_once() {
    let desk = Desk::open().await;
    for provider in Provider::ALL {
        let order = desk.known(provider).await;
        let part = order.amount / 2;
        let answers = join_all((0..6).map(|_| desk.ask("a", &order, part))).await;
        assert!(answers.iter().all(|answer| answer["outcome"] != "refused"), "{answers:?}");
        assert_eq!(desk.outcome("a", &order, part).await.0, "made");
        // Of two that are not the same, one is made at a time.
        let ids = ["b", "c"];
        let answers = join_all(ids.map(|id| desk.ask(id, &order, part))).await;
        let begun: Vec<_> = ids.iter().zip(&answers).filter(|(_, answer)| answer["outcome"] != "refused").collect();
        let [(id, _)] = begun[..] else { panic!("{answers:?}") };
        assert_eq!(desk.outcome(id, &order, part).await.0, "made");
        let now = desk.now(&order).await;
        assert_eq!((now.state(), now.refunded(), now.refund), (OrderState::Refunded, order.amount, None));
        assert_eq!(desk.stage.credits().await, 0);
        if provider == Provider::Stripe {
            let payment = now.paid.unwrap().payment;
            let stripe = desk.stage.commerce.stripe().unwrap();
            let refunds = stripe.refunds_of(PaymentRef::Intent(&payment)).await.unwrap();
            assert_eq!(refunds.len(), 2, "{refunds:?}");
        }
    }
}

#[tokio::test]
async fn a_refund_whose_answer_was_lost_is_made_once_when_it_is_asked_for_again_or_swept() {
    let desk = Desk::open().await;
    for provider in Provider::ALL {
        let order = desk.known(provider).await;
        let part = order.amount / 2;
        for (id, swept) in [("a", false), ("b", true)] {
            desk.lose(provider, true);
            let (outcome, message) = desk.outcome(id, &order, part).await;
            assert_eq!(outcome, "unknown", "{message}");
            assert!(message.contains(&format!("Ask again with the same `id`, `{id}`")), "{message}");
            let (outcome, message) = desk.outcome("other", &order, "all").await;
            assert!(outcome == "refused" && message.contains("Ask again once that has ended"), "{message}");
            desk.lose(provider, false);
            if swept {
                let changed = desk.stage.commerce.reconcile_order(&desk.stage.tenant.scope, &order.id).await.unwrap();
                assert!(changed, "{provider:?}");
            }
            assert_eq!(desk.outcome(id, &order, part).await.0, "made", "{provider:?}");
        }
        let now = desk.now(&order).await;
        assert_eq!((now.refunded(), now.taken_back), (order.amount, order.amount), "{provider:?}");
        assert_eq!(desk.stage.credits().await, 0);
    }
}

#[tokio::test]
async fn what_stripe_refuses_around_a_refund_is_no_end_of_it() {
    let desk = Desk::open().await;
    // A key that lacks a permission; and one that was exchanged after the refund was made and its answer lost.
    for (below, lost) in
        [("/v1/disputes", false), ("/v1/payment_intents", false), ("/v1/refunds", false), ("/v1/refunds", true)]
    {
        let order = desk.known(Provider::Stripe).await;
        if lost {
            desk.lose(Provider::Stripe, true);
            desk.stays("a", &order, 300).await;
            desk.lose(Provider::Stripe, false);
        }
        desk.stage.stripe.deny(Some(below));
        for _ in 0..2 {
            desk.stays("a", &order, 300).await;
            assert!(desk.stage.commerce.reconcile_order(&desk.stage.tenant.scope, &order.id).await.is_err());
        }
        desk.stage.stripe.deny(None);
        assert_eq!(desk.outcome("a", &order, 300).await.0, "made", "{below}");
        let [(_, 300, true)] = desk.at_stripe(&order).await[..] else { panic!("{below}: {order:?}") };
    }
}

#[tokio::test]
async fn what_a_vendor_in_china_refuses_of_us_is_no_end_of_a_refund() {
    use china::{Fault, Vendor};
    let desk = Desk::open().await;
    for (provider, vendor) in [(Provider::WeChat, Vendor::WeChat), (Provider::Alipay, Vendor::Alipay)] {
        let order = desk.known(provider).await;
        let (part, faults) = (order.amount / 4, desk.china.faults(vendor));
        // The key is exchanged, before the vendor has heard of it, and while it is at it.
        faults.order([Fault::Denied]);
        desk.stays("a", &order, part).await;
        if provider == Provider::WeChat {
            assert_eq!(desk.outcome("a", &order, part).await.0, "under_way");
            faults.order([Fault::Denied]);
            desk.stays("a", &order, part).await;
        }
        assert_eq!(desk.outcome("a", &order, part).await.0, "made");
        // A no to the refund itself is the end of it.
        faults.order([Fault::Refused]);
        let (outcome, message) = desk.outcome("b", &order, part).await;
        assert!(outcome == "refused" && message.contains("Nothing went back"), "{message}");
        assert_eq!((desk.outcome("b", &order, part).await.0, desk.now(&order).await.refund), ("refused".into(), None));
        // It was made and nobody heard; then Alipay says only that it was, and is asked when.
        desk.lose(provider, true);
        desk.stays("c", &order, part).await;
        desk.lose(provider, false);
        if provider == Provider::Alipay {
            faults.order([Fault::None, Fault::Refused]);
            desk.stays("c", &order, part).await;
            faults.order([Fault::None, Fault::Denied]);
            desk.stays("c", &order, part).await;
        }
        assert_eq!(desk.outcome("c", &order, part).await.0, "made");
        assert_eq!(desk.shown(&order).await, ("partially_refunded".to_owned(), 2 * part));
    }
}

#[tokio::test]
async fn an_amount_is_what_goes_back_whatever_is_left() {
    let desk = Desk::open().await;
    let order = desk.known(Provider::Stripe).await;
    desk.made("a", &order, 600).await;
    let [(refund, ..)] = &desk.at_stripe(&order).await[..] else { panic!() };
    // The bank sends it back: what is left there is more than what is left of the order.
    desk.stage.stripe.fail_refund(refund).unwrap();
    let left = order.amount - 600;
    let answer = desk.made("b", &order, left).await;
    assert!(answer["message"].as_str().unwrap().starts_with(&format!("{left} usd")), "{answer}");
    let refunds: Vec<_> = desk.at_stripe(&order).await.into_iter().map(|(_, amount, took)| (amount, took)).collect();
    assert_eq!(refunds, [(600, false), (i64::try_from(left).unwrap(), true)]);
    // All is all that is there, and the answer says how much that was.
    let answer = desk.made("c", &order, "all").await;
    assert!(answer["message"].as_str().unwrap().starts_with("600 usd"), "{answer}");
    assert_eq!(desk.ask("c", &order, "all").await, answer);
    // More than there is, Stripe refuses.
    let order = desk.known(Provider::Stripe).await;
    let (outcome, message) = desk.outcome("a", &order, order.amount + 1).await;
    assert!(outcome == "refused" && message.contains("Nothing went back"), "{message}");
    assert_eq!((desk.now(&order).await.refund, desk.at_stripe(&order).await), (None, vec![]));
}

#[tokio::test]
async fn what_was_spent_is_not_taken_from_another_order() {
    let desk = Desk::open().await;
    for provider in Provider::ALL {
        let (store, scope) = (desk.stage.platform.store(), &desk.stage.tenant.scope);
        let spent = desk.known(provider).await;
        let (kind, key) = (LedgerKind::Adjustment, format!("spent {}", spent.id));
        let used = NewLedgerRow { kind, amount: CREDITS, key: &key, reference: None, expires_at: None };
        store.take_credits(scope, &used).await.unwrap();
        let other = desk.known(provider).await;
        desk.made("a", &spent, "all").await;
        assert_eq!(desk.stage.credits().await, CREDITS, "{provider:?}");
        let row = store.ledger(scope, 1, None).await.unwrap().items.remove(0);
        assert_eq!((row.kind, row.amount, row.short), (LedgerKind::Refund, 0, CREDITS));
        desk.made("a", &other, "all").await;
        assert_eq!(desk.stage.credits().await, 0);
        desk.stage.platform.books(&desk.stage.tenant).await;
    }
}

#[tokio::test]
async fn what_cannot_be_refunded_is_refused_with_what_to_do() {
    let desk = Desk::open().await;
    let (order, _) = desk.order(Provider::WeChat).await;
    let refused = async |id: &str, order: &Order, amount: Value, words: &str| {
        let (outcome, message) = desk.outcome(id, order, amount).await;
        assert_eq!(outcome, "refused", "{message}");
        assert!(message.contains(words), "{message}");
    };
    refused("a", &order, json!("all"), "nothing to give back").await;
    desk.china.pay(china::Vendor::WeChat, order.id.as_str()).unwrap();
    refused("a", &order, json!(order.amount + 1), &format!("Only {} of it are left", order.amount)).await;
    for payload in [
        json!({"job": "refund"}),
        json!({"job": "refund", "id": "a", "order": order.id, "amount": 1, "operator": "ada", "org": "x"}),
        json!({"job": "refund", "id": "a", "order": order.id, "operator": "ada"}),
        json!({"job": "refund", "id": "a", "order": order.id, "amount": null, "operator": "ada"}),
    ] {
        let answer = desk.asked(payload).await;
        assert_eq!(answer["outcome"], "refused", "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("Nothing was done"), "{answer}");
    }
    let unknown = Order { id: tenantry_domain::OrderId::new(), ..order.clone() };
    refused("a", &unknown, json!(1), "There is no such order").await;
    assert_eq!((desk.audited().await, desk.now(&order).await.refunded()), (vec![], 0));

    // The money went back at the vendor's own site, of which nobody has told us: the vendor has less left than we think.
    let order = desk.known(Provider::Stripe).await;
    let payment = order.paid.as_ref().unwrap().payment.clone();
    let charge = desk.stage.stripe.object(&payment).unwrap()["latest_charge"].as_str().unwrap().to_owned();
    desk.stage.stripe.refund(&charge, None).unwrap();
    refused("a", &order, json!(100), "ask again with a new `id`").await;
    refused("a", &order, json!(100), "The vendor refused the refund `a`").await;
    assert_eq!(desk.now(&order).await.refund, None, "it is not asked for again");
    // Somebody who cannot reach the vendor begins nothing.
    let bare = Jobs::new(desk.stage.platform.store());
    let other = desk.known(Provider::Alipay).await;
    let payload = json!({"job": "refund", "id": "a", "order": other.id, "amount": 1, "operator": "ada"});
    let answer = handle(&bare.state, LambdaEvent::new(payload, Context::default())).await.unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    assert!(answer["message"].as_str().unwrap().contains("Alipay is not configured"), "{answer}");
    assert_eq!(desk.now(&other).await.refunds_begun, 0);
}

#[tokio::test]
async fn a_laptop_has_the_same_at_a_route_of_its_own() {
    let platform = Platform::start(Setup::default()).await;
    let ask = async |payload| platform.call(Method::POST, "/_dev/refund", "", payload).await.expect(200).json();
    let order = tenantry_domain::OrderId::new();
    let answer = ask(json!({"id": "a", "order": order, "amount": "all", "operator": "ada"})).await;
    assert_eq!(answer["outcome"], "refused");
    assert!(answer["message"].as_str().unwrap().contains("There is no such order"), "{answer}");
    assert_eq!(ask(json!({"job": "reset"})).await["outcome"], "refused");
    let foreign =
        http::Request::post("/_dev/refund").header("host", "evil.example").header("content-type", "application/json");
    assert_eq!(platform.send(foreign.body("{}".into()).unwrap()).await.status, 404);
}

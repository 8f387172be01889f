//! Orders: what they are told in any order, given once, and taken back as far as the money went back.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use serde_json::Value;
use tenantry_commerce::{Buyer, ChinaOrder, Commerce, CommerceError, Wanted};
use tenantry_domain::{
    OrderId,
    orders::{Fact, Goods, NewOrder, NoRefund, Order, OrderState, Provider, RefundEnd, RefundWanted},
    time::months_later,
};
use tenantry_payments::{
    Event, Notification, Presentation, Receipt, RefundNotice, RefundState, Show, Trade, TradeState, Vendor,
};
use tenantry_store::{AuditActor, AuditFilter, NewAudit, NewLedgerRow, Origin, Store};
use tenantry_tests::{
    alipay::{APP, Alipay, MERCHANT, SELLER, WECHAT_APP},
    http::text,
    platform::{NOON, Platform, Setup, Tenant},
};

/// What the default catalogue says of the package that is ordered here.
const PRICE: u64 = 6_900;
const CREDITS: u64 = 10_000_000;
const MINUTE: i64 = 60_000;
const PACKAGE: Wanted<'_> = Wanted::Package("small");

struct Stage {
    platform: Platform,
    tenant: Tenant,
    alipay: Alipay,
    commerce: Commerce,
    origin: Origin,
}

impl Stage {
    async fn set() -> Self {
        let platform = Platform::start(Setup::default()).await;
        let tenant = platform.tenant("free").await;
        let alipay = Alipay::start().await;
        let store = platform.store();
        let commerce =
            Commerce::new(store.clone()).with_payment(alipay.client(store)).with_payment(alipay.wechat_client(store));
        Self { platform, tenant, alipay, commerce, origin: Origin::default() }
    }

    fn store(&self) -> &Store {
        self.platform.store()
    }

    async fn order(&self, wanted: Wanted<'_>) -> Order {
        let buyer = Buyer { user: &self.tenant.user, origin: &self.origin };
        let order = ChinaOrder { vendor: Vendor::Alipay, wanted, show: Show::QrCode };
        self.commerce.order_in_china(&self.tenant.scope, &order, &buyer).await.unwrap().0
    }

    /// An order that the vendor knows nothing of yet.
    async fn bare_order(&self, provider: Provider) -> Order {
        let new = NewOrder {
            id: OrderId::at(self.store().now()),
            provider,
            goods: Goods::Package { id: "small".into(), credits: CREDITS, expires_after_days: None },
            amount: PRICE,
            currency: "cny".into(),
            expires_at: self.store().now() + 15 * MINUTE,
            created_by: self.tenant.user.clone(),
        };
        self.store().create_order(&self.tenant.scope, &new, &self.audit("order.created")).await.unwrap()
    }

    fn audit(&self, action: &'static str) -> NewAudit<'_> {
        NewAudit { action, actor: AuditActor::System, target: None, changes: vec![], origin: &self.origin }
    }

    async fn now(&self, order: &Order) -> Order {
        self.commerce.order(&self.tenant.scope, &order.id).await.unwrap()
    }

    async fn refund(&self, order: &Order, operation: &str, amount: Option<u64>) -> Result<Order, CommerceError> {
        let wanted = RefundWanted { operation, amount, reason: "late" };
        self.commerce.refund(&self.tenant.scope, &order.id, &wanted, &self.audit("order.refund_begun")).await
    }

    async fn hear(&self, event: Event) -> Result<tenantry_commerce::Handled, CommerceError> {
        let vendor = match &event {
            Event::Trade(trade) => trade.vendor,
            Event::Refund(notice) => notice.vendor,
            Event::Other(_) => Vendor::Alipay,
        };
        self.commerce.hear(vendor, &Notification { id: "n".into(), sent_at: NOON, event }).await
    }

    /// The balance, once the books were checked.
    async fn credits(&self) -> u64 {
        self.platform.books(&self.tenant).await;
        self.platform.meter(&self.tenant).await.credits
    }

    async fn sweep(&self) -> u64 {
        let mut changed = 0;
        for shard in 0..Store::shards() {
            let swept = self.commerce.sweep_orders(shard, &|| false).await.unwrap();
            assert_eq!((swept.failed, swept.unfinished), (0, false));
            changed += swept.changed;
        }
        changed
    }

    /// Orders with something left to do, whether due or not.
    fn open(&self) -> usize {
        self.rows().keys().filter(|key| key.starts_with("DUE#")).count()
    }

    /// All that is stored, by its key.
    fn rows(&self) -> BTreeMap<String, Value> {
        let rows = self.platform.host().all_items().unwrap();
        rows.into_iter().map(|row| (format!("{} {}", text(&row, "/pk/S"), text(&row, "/sk/S")), row)).collect()
    }
}

fn paid(order: &Order) -> Trade {
    Trade {
        vendor: Vendor::Alipay,
        app_id: Some(APP.into()),
        merchant: Some(SELLER.into()),
        out_trade_no: order.id.to_string(),
        amount: Some(order.amount),
        currency: "CNY".into(),
        state: TradeState::Paid(Receipt { vendor_transaction: format!("t_{}", order.id), paid_at: Some(NOON + 1_000) }),
    }
}

#[tokio::test]
async fn an_order_is_listed_found_by_its_number_and_the_tenants_own() {
    let stage = Stage::set().await;
    let mut orders = vec![];
    for _ in 0..3 {
        orders.push(stage.bare_order(Provider::WeChat).await);
        stage.platform.clock().advance(1);
    }
    let (store, scope) = (stage.store(), &stage.tenant.scope);
    let page = store.orders(scope, 2, None).await.unwrap();
    assert_eq!(page.items, [orders[2].clone(), orders[1].clone()], "newest first");
    let rest = store.orders(scope, 2, page.next.as_deref()).await.unwrap();
    assert_eq!((rest.items, rest.next), (vec![orders[0].clone()], None));
    assert_eq!(store.tenant_of_order(&orders[0].id).await.unwrap().as_ref(), Some(scope));
    assert_eq!(store.tenant_of_order(&OrderId::new()).await.unwrap(), None);
    let other = stage.platform.tenant("free").await;
    assert_eq!(store.order(&other.scope, &orders[0].id).await.unwrap(), None);
    assert!(store.orders(&other.scope, 2, None).await.unwrap().items.is_empty());
    let log = store.audit_log(scope, &AuditFilter::default(), 10, None).await.unwrap();
    assert_eq!(log.items.iter().filter(|row| row.action == "order.created").count(), 3);
    // Every state is written and read as it is.
    let facts = [
        Fact::Opened { vendor_id: Some("cs_1".into()), show: "https://pay".into() },
        Fact::Closed,
        Fact::Paid { payment: "t1".into(), at: NOON },
        Fact::Refund { number: "r1".into(), amount: 100 },
        Fact::RefundedTo { total: 200 },
    ];
    let mut order = orders[0].clone();
    for fact in &facts {
        let changed = store.order_fact(scope, &order.id, fact).await.unwrap();
        assert_eq!(changed.before.as_deref(), Some(&order));
        assert_eq!(changed.order, Order { version: order.version + 1, ..order.with(fact) });
        let again = store.order_fact(scope, &changed.order.id, fact).await.unwrap();
        assert_eq!((&again.order, again.before), (&changed.order, None), "the same changes nothing");
        order = store.order(scope, &changed.order.id).await.unwrap().unwrap();
        assert_eq!(order, changed.order);
    }
    assert_eq!(order.state(), OrderState::PartiallyRefunded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_payment_told_of_by_everybody_at_once_is_credited_once() {
    let stage = Stage::set().await;
    let order = stage.order(PACKAGE).await;
    assert_eq!(order.state(), OrderState::Pending);
    assert!(stage.alipay.pay(order.id.as_str()));
    let told = join_all((0..20).map(|_| stage.hear(Event::Trade(paid(&order)))));
    let asked = join_all((0..5).map(|_| stage.commerce.look(&stage.tenant.scope, order.clone())));
    let (told, asked) = join(told, asked).await;
    assert!(told.iter().all(|handled| handled.as_ref().unwrap().org.as_ref() == Some(&stage.tenant.org)));
    assert!(asked.iter().all(|order| order.as_ref().unwrap().state() == OrderState::Paid));
    stage.hear(Event::Trade(paid(&order))).await.unwrap();
    assert_eq!((stage.credits().await, stage.open()), (CREDITS, 0));
    let ledger = stage.platform.ledger(&stage.tenant).await;
    assert_eq!(ledger.len(), 1);
    let year = NOON + 1_000 + 365 * 24 * 60 * MINUTE;
    assert_eq!((ledger[0].reference.as_deref(), ledger[0].expires_at), (Some(order.id.as_str()), Some(year)));
    assert!(stage.now(&order).await.fulfilled);
}

#[tokio::test]
async fn what_differs_from_what_was_ordered_changes_nothing() {
    let stage = Stage::set().await;
    let (order, wechat) = (stage.order(PACKAGE).await, stage.bare_order(Provider::WeChat).await);
    let (good, before) = (paid(&order), stage.rows());
    let wrong = [
        Trade { amount: Some(PRICE - 1), ..good.clone() },
        Trade { amount: None, ..good.clone() },
        Trade { currency: "USD".into(), ..good.clone() },
        Trade { merchant: Some("2088000000000002".into()), ..good.clone() },
        Trade { app_id: Some("2021000000000002".into()), ..good.clone() },
        Trade { out_trade_no: OrderId::new().to_string(), ..good.clone() },
        Trade { out_trade_no: "somebody_elses".into(), ..good.clone() },
        Trade { out_trade_no: wechat.id.to_string(), ..good.clone() },
        Trade { vendor: Vendor::WeChat, ..good.clone() },
    ];
    for trade in wrong {
        let error = stage.hear(Event::Trade(trade.clone())).await.unwrap_err();
        assert!(matches!(error, CommerceError::Mismatch(_)) && !error.is_transient(), "{trade:?}: {error}");
    }
    assert_eq!(stage.rows(), before);
    // A vendor whose own answer is about another amount is not believed either.
    let cheap = Order { amount: 1, ..order.clone() };
    let cheap = Order { id: stage.bare_order(Provider::Alipay).await.id, ..cheap };
    stage.commerce.present(&stage.tenant.scope, cheap.clone(), Show::QrCode).await.unwrap();
    assert!(stage.alipay.pay(cheap.id.as_str()));
    let before = stage.rows();
    let error = stage.commerce.look(&stage.tenant.scope, stage.now(&cheap).await).await.unwrap_err();
    assert!(matches!(error, CommerceError::Mismatch(_)), "{error}");
    assert_eq!(stage.rows(), before);
    assert_eq!(stage.credits().await, 0);
}

#[tokio::test]
async fn a_payment_after_the_end_is_credited_because_the_money_was_taken() {
    let stage = Stage::set().await;
    let order = stage.order(PACKAGE).await;
    assert_eq!(stage.sweep().await, 0, "the payer has time");
    stage.platform.clock().advance(16 * MINUTE);
    assert_eq!((stage.sweep().await, stage.open()), (1, 0));
    assert_eq!(stage.now(&order).await.state(), OrderState::Closed);
    assert!(stage.alipay.pay(order.id.as_str()), "the QR code could not be called back");
    stage.hear(Event::Trade(paid(&order))).await.unwrap();
    assert_eq!(stage.now(&order).await.state(), OrderState::Paid);
    stage.hear(Event::Trade(Trade { state: TradeState::Closed, ..paid(&order) })).await.unwrap();
    assert_eq!(stage.now(&order).await.state(), OrderState::Paid);
    assert_eq!((stage.credits().await, stage.open()), (CREDITS, 0));
    // One that nobody scanned stays open as long as it can be paid.
    let unscanned = stage.order(PACKAGE).await;
    let open = stage.commerce.close(&stage.tenant.scope, unscanned.clone()).await.unwrap();
    assert_eq!((open.state(), stage.open()), (OrderState::Pending, 1));
    // Where the vendor knows the trade, it closes it, and nobody can pay any more.
    let scanned = stage.order(PACKAGE).await;
    stage.alipay.scan(scanned.id.as_str());
    let closed = stage.commerce.close(&stage.tenant.scope, scanned.clone()).await.unwrap();
    assert_eq!(closed.state(), OrderState::Closed);
    assert!(!stage.alipay.pay(scanned.id.as_str()));
    let gone = stage.commerce.present(&stage.tenant.scope, closed, Show::QrCode).await.unwrap_err();
    assert!(matches!(gone, CommerceError::Impossible(_)));
}

#[tokio::test]
async fn a_crash_anywhere_is_mended_by_the_next_look() {
    let stage = Stage::set().await;
    let (store, scope) = (stage.store(), &stage.tenant.scope);
    // Before the vendor was reached; after, and before that was written down; after the payment; after the credits.
    let bare = stage.bare_order(Provider::Alipay).await;
    let asked = stage.bare_order(Provider::Alipay).await;
    stage.alipay.lose_answers(true);
    let lost = stage.commerce.present(scope, asked.clone(), Show::QrCode).await.unwrap_err();
    assert!(lost.is_transient(), "{lost}");
    stage.alipay.lose_answers(false);
    let (_, shown) = stage.commerce.present(scope, asked.clone(), Show::QrCode).await.unwrap();
    assert!(matches!(shown, Presentation::QrCode(text) if text.contains(asked.id.as_str())));
    assert!(stage.alipay.pay(asked.id.as_str()));
    let paid = stage.order(PACKAGE).await;
    store.order_fact(scope, &paid.id, &Fact::Paid { payment: "t".into(), at: NOON }).await.unwrap();
    let given = stage.order(PACKAGE).await;
    store.order_fact(scope, &given.id, &Fact::Paid { payment: "t".into(), at: NOON }).await.unwrap();
    let key = format!("order:{}", given.id);
    let kind = tenantry_domain::ledger::LedgerKind::Purchase;
    let row = NewLedgerRow { kind, amount: CREDITS, key: &key, reference: None, expires_at: None };
    store.add_credits(scope, &row).await.unwrap();

    assert_eq!((stage.credits().await, stage.open()), (CREDITS, 4));
    stage.platform.clock().advance(16 * MINUTE);
    // While the vendor is away nothing is decided.
    stage.alipay.lose_answers(true);
    let mut failed = 0;
    for shard in 0..Store::shards() {
        failed += stage.commerce.sweep_orders(shard, &|| false).await.unwrap().failed;
    }
    assert_eq!((failed, stage.open()), (2, 2));
    stage.alipay.lose_answers(false);
    assert_eq!(stage.sweep().await, 2);
    assert_eq!((stage.sweep().await, stage.open()), (0, 0));
    assert_eq!(stage.now(&bare).await.state(), OrderState::Closed);
    for order in [&asked, &paid, &given] {
        let order = stage.now(order).await;
        assert_eq!((order.state(), order.fulfilled), (OrderState::Paid, true));
    }
    assert_eq!(stage.credits().await, 3 * CREDITS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refund_takes_back_its_share_once_whatever_is_lost_on_the_way() {
    let stage = Stage::set().await;
    let order = stage.order(PACKAGE).await;
    let refused = async |operation, amount| match stage.refund(&order, operation, amount).await {
        Err(CommerceError::NoRefund(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("a", None).await, NoRefund::NotPaid);
    assert!(stage.alipay.pay(order.id.as_str()));
    // The vendor gives the money back, and nobody hears of it. That it was paid is found out first.
    assert_eq!(refused("a", Some(PRICE + 1)).await, NoRefund::TooMuch { left: PRICE });
    stage.alipay.lose_answers(true);
    assert!(stage.refund(&order, "a", Some(2_300)).await.unwrap_err().is_transient());
    assert_eq!((stage.credits().await, stage.open()), (CREDITS, 1));
    stage.alipay.lose_answers(false);
    assert_eq!(refused("b", Some(1)).await, NoRefund::Busy { amount: 2_300 });
    // All at once, and once more: the same refund.
    let refunds = join_all((0..6).map(|_| stage.refund(&order, "a", Some(2_300)))).await;
    assert!(refunds.iter().any(Result::is_ok), "{refunds:?}");
    let now = stage.refund(&order, "a", Some(2_300)).await.unwrap();
    assert_eq!(now.refunds_asked["a"].end, Some(RefundEnd::Made));
    assert_eq!(stage.alipay.refunds(order.id.as_str()), [2_300]);
    assert_eq!((now.refunded(), now.taken_back, stage.open()), (2_300, 2_300, 0));
    assert_eq!(stage.credits().await, CREDITS - now.share(CREDITS, 0, 2_300));
    assert_eq!(refused("a", Some(2_000)).await, NoRefund::OtherAmount { amount: 2_300 });
    // The rest.
    let all = stage.refund(&order, "b", None).await.unwrap();
    assert_eq!((all.state(), stage.credits().await, stage.open()), (OrderState::Refunded, 0, 0));
    assert_eq!(stage.refund(&order, "b", None).await.unwrap(), all);
    assert_eq!(refused("c", None).await, NoRefund::AllBack);
    assert_eq!(stage.alipay.refunds(order.id.as_str()).iter().sum::<u64>(), PRICE);
}

#[tokio::test]
async fn what_goes_back_is_taken_once_wherever_a_crash_cuts_it_off() {
    let stage = Stage::set().await;
    let (store, scope) = (stage.store(), &stage.tenant.scope);
    let order = stage.bare_order(Provider::Alipay).await;
    let look = || stage.commerce.reconcile_order(scope, &order.id);
    store.order_fact(scope, &order.id, &Fact::Paid { payment: "t".into(), at: NOON }).await.unwrap();
    // Told of, and nothing done about it.
    store.order_fact(scope, &order.id, &Fact::RefundedTo { total: PRICE / 10 }).await.unwrap();
    look().await.unwrap();
    assert_eq!((stage.credits().await, stage.open()), (CREDITS * 9 / 10, 0));
    // Begun; and while it was cut off, more went back.
    store.order_fact(scope, &order.id, &Fact::RefundedTo { total: PRICE / 5 }).await.unwrap();
    let begun = store.begin_taking_back(scope, &order.id).await.unwrap();
    assert_eq!((begun.taken_back, begun.taking_back), (PRICE / 10, Some(PRICE / 5)));
    store.order_fact(scope, &order.id, &Fact::RefundedTo { total: PRICE / 2 }).await.unwrap();
    // Taken, and not written down.
    let kind = tenantry_domain::ledger::LedgerKind::Refund;
    let key = format!("order_back:{}:{}", order.id, PRICE / 10);
    let row = NewLedgerRow { kind, amount: CREDITS / 10, key: &key, reference: None, expires_at: None };
    store.take_credits(scope, &row).await.unwrap();
    for changed in [true, false] {
        assert_eq!(look().await.unwrap(), changed);
        assert_eq!((stage.credits().await, stage.open()), (CREDITS / 2, 0));
    }
}

#[tokio::test]
async fn a_refund_that_the_vendor_refuses_did_not_happen() {
    let stage = Stage::set().await;
    let order = stage.bare_order(Provider::Alipay).await;
    let scope = &stage.tenant.scope;
    // Paid as far as we know, and unknown to the vendor.
    stage.store().order_fact(scope, &order.id, &Fact::Paid { payment: "t".into(), at: NOON }).await.unwrap();
    let refused = stage.refund(&order, "a", Some(100)).await.unwrap_err();
    assert!(matches!(refused, CommerceError::RefundRefused(_)) && !refused.is_transient(), "{refused}");
    let now = stage.now(&order).await;
    assert_eq!((now.state(), now.refund, now.refunds_begun), (OrderState::Paid, None, 1));
    assert_eq!((stage.credits().await, stage.open()), (CREDITS, 0));
    let again = stage.refund(&order, "a", Some(100)).await;
    assert!(matches!(again, Err(CommerceError::NoRefund(NoRefund::Refused))), "{again:?}");
}

#[tokio::test]
async fn refunds_made_by_hand_at_the_vendors_are_heard_of() {
    let stage = Stage::set().await;
    let order = stage.bare_order(Provider::WeChat).await;
    let notice = |number: &str, amount, state| RefundNotice {
        vendor: Vendor::WeChat,
        app_id: None,
        merchant: MERCHANT.into(),
        out_trade_no: order.id.to_string(),
        vendor_transaction: "4200".into(),
        out_refund_no: Some(number.into()),
        order_amount: PRICE,
        amount: Some(amount),
        refunded_in_all: None,
        state,
        refunded_at: Some(NOON),
    };
    let wrong = RefundNotice { order_amount: 1, ..notice("r1", 1, RefundState::Succeeded) };
    assert!(matches!(stage.hear(Event::Refund(wrong)).await, Err(CommerceError::Mismatch(_))));
    // That it was paid is said by the refund first.
    for _ in 0..2 {
        stage.hear(Event::Refund(notice("r1", 690, RefundState::Succeeded))).await.unwrap();
        assert_eq!(stage.credits().await, CREDITS * 9 / 10);
    }
    stage.hear(Event::Refund(notice("r2", 690, RefundState::Abnormal))).await.unwrap();
    assert_eq!(stage.credits().await, CREDITS * 9 / 10, "that money did not go back");
    stage.hear(Event::Refund(notice("r3", 1_380, RefundState::Succeeded))).await.unwrap();
    let trade = Trade {
        app_id: Some(WECHAT_APP.into()),
        merchant: Some(MERCHANT.into()),
        vendor: Vendor::WeChat,
        ..paid(&order)
    };
    stage.hear(Event::Trade(trade)).await.unwrap();
    assert_eq!((stage.credits().await, stage.open()), (CREDITS * 7 / 10, 0));
    assert_eq!(stage.now(&order).await.state(), OrderState::PartiallyRefunded);
}

#[tokio::test]
async fn months_give_the_plan_while_they_last_and_go_from_their_end() {
    let stage = Stage::set().await;
    let (scope, store) = (&stage.tenant.scope, stage.store());
    let months = |plan, months| Wanted::Months { plan, months };
    let until = |account: tenantry_domain::account::Account| account.prepaid.map(|prepaid| prepaid.until);
    let order = stage.order(months("pro", 2)).await;
    assert_eq!(order.amount, 2 * 19_900);
    assert!(stage.alipay.pay(order.id.as_str()));
    for _ in 0..3 {
        stage.hear(Event::Trade(paid(&order))).await.unwrap();
    }
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "pro");
    let end = months_later(NOON, 2);
    assert_eq!(until(store.account(scope).await.unwrap()), Some(end));
    let buyer = Buyer { user: &stage.tenant.user, origin: &stage.origin };
    for (wanted, unknown) in [(months("pro", 0), false), (months("gone", 1), true), (months("free", 1), false)] {
        let order = ChinaOrder { vendor: Vendor::Alipay, wanted, show: Show::QrCode };
        let error = stage.commerce.order_in_china(scope, &order, &buyer).await.unwrap_err();
        assert_eq!(matches!(error, CommerceError::Unknown(_)), unknown, "{error}");
        assert!(unknown || matches!(error, CommerceError::Impossible(_)), "{error}");
    }
    // Half of the money is half of the time.
    stage.refund(&order, "half", Some(19_900)).await.unwrap();
    let half = months_later(NOON + 1_000, 2) - (NOON + 1_000);
    assert_eq!(until(store.account(scope).await.unwrap()), Some(end - half / 2));
    stage.refund(&order, "rest", None).await.unwrap();
    assert_eq!(until(store.account(scope).await.unwrap()), Some(NOON));
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "free");
    assert_eq!((stage.credits().await, stage.open()), (0, 0));
    // And when the time is over.
    let order = stage.order(months("pro", 1)).await;
    assert!(stage.alipay.pay(order.id.as_str()));
    stage.commerce.look(scope, order).await.unwrap();
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "pro");
    let larger = stage.order(months("team", 1)).await;
    assert!(stage.alipay.pay(larger.id.as_str()));
    stage.commerce.look(scope, larger).await.unwrap();
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "team");
    let smaller = ChinaOrder { vendor: Vendor::Alipay, wanted: months("pro", 1), show: Show::QrCode };
    let error = stage.commerce.order_in_china(scope, &smaller, &buyer).await.unwrap_err();
    assert!(matches!(error, CommerceError::Impossible(_)), "{error}");
    let end = until(store.account(scope).await.unwrap()).unwrap();
    assert!(end > months_later(NOON, 1) + 5 * 24 * 60 * MINUTE, "what was left of the smaller one is not lost");
    stage.platform.clock().set(end);
    assert_eq!(stage.commerce.entitle(scope).await.unwrap().plan, "free");
}

#[tokio::test]
async fn months_that_go_back_are_none_of_another_orders() {
    let stage = Stage::set().await;
    let (scope, store) = (&stage.tenant.scope, stage.store());
    let until = async || store.account(scope).await.unwrap().prepaid.unwrap().until;
    let order = async || {
        let order = stage.order(Wanted::Months { plan: "pro", months: 1 }).await;
        assert!(stage.alipay.pay(order.id.as_str()));
        stage.commerce.look(scope, order).await.unwrap()
    };
    let used = order().await;
    let first = until().await;
    stage.platform.clock().advance(20 * 24 * 60 * MINUTE);
    let whole = order().await;
    let month = until().await - first;
    // A third of the time is left: a quarter of the money takes a quarter of it all, and the rest what is left then.
    let paid_for = months_later(NOON + 1_000, 1) - NOON - 1_000;
    stage.refund(&used, "quarter", Some(19_900 / 4)).await.unwrap();
    assert_eq!(until().await, first + month - paid_for / 4);
    stage.refund(&used, "rest", None).await.unwrap();
    assert_eq!(until().await, store.now() + month, "the other month begins now, and is whole");
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "pro");
    stage.refund(&whole, "all", None).await.unwrap();
    assert_eq!((until().await, stage.open()), (store.now() + month - paid_for, 0));
}

#[tokio::test]
async fn a_vendor_that_does_not_take_an_order_ends_it() {
    let stage = Stage::set().await;
    let commerce = Commerce::new(stage.store().clone());
    let buyer = Buyer { user: &stage.tenant.user, origin: &stage.origin };
    let order = ChinaOrder { vendor: Vendor::Alipay, wanted: PACKAGE, show: Show::QrCode };
    let before = stage.rows();
    let error = commerce.order_in_china(&stage.tenant.scope, &order, &buyer).await.unwrap_err();
    assert!(matches!(error, CommerceError::NotConfigured("Alipay")));
    assert_eq!((stage.rows(), stage.alipay.calls()), (before, 0));
    // WeChat Pay has no page here, so its client refuses the order.
    let page = Show::Page { return_url: None };
    let order = ChinaOrder { vendor: Vendor::WeChat, wanted: PACKAGE, show: page };
    let error = stage.commerce.order_in_china(&stage.tenant.scope, &order, &buyer).await.unwrap_err();
    assert!(matches!(error, CommerceError::Payment(_)), "{error}");
    let failed = stage.store().orders(&stage.tenant.scope, 10, None).await.unwrap().items;
    assert_eq!(failed.iter().map(Order::state).collect::<Vec<_>>(), [OrderState::Failed]);
    assert_eq!(stage.open(), 0);
}

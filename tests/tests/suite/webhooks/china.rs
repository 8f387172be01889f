//! Notifications of WeChat Pay and Alipay.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::join_all};
use serde_json::{Value, json};
use tenantry_commerce::{Buyer, ChinaOrder, Wanted};
use tenantry_domain::{
    OrderId,
    orders::{Goods, NewOrder, Order, OrderState, Provider},
};
use tenantry_host::dynamodb::Capacity;
use tenantry_payments::{NewOrder as AtVendor, Show, Vendor};
use tenantry_sandbox::china::{self, ChinaSandbox, Disguise, SignedNotification};
use tenantry_store::{AuditActor, EventClaim, NewAudit, Origin};
use tenantry_tests::{
    http::{problem, text},
    platform::{NOON, Platform, Reply, Setup, Tenant, TestClock},
};

use super::{CREDITS, MINUTE, kept, post, tenants_rows, without_a_trace};

const PRICE: u64 = 6_900;
const BOTH: [(Vendor, china::Vendor, Provider); 2] = [
    (Vendor::WeChat, china::Vendor::WeChat, Provider::WeChat),
    (Vendor::Alipay, china::Vendor::Alipay, Provider::Alipay),
];

struct Shop {
    platform: Platform,
    china: ChinaSandbox,
    capacity: Arc<Capacity>,
    tenant: Tenant,
}

impl Shop {
    async fn open() -> Self {
        Self::changed(|_, _| {}).await
    }

    /// With other settings than the vendors know.
    async fn changed(change: impl FnOnce(&mut Value, &mut Value)) -> Self {
        let (clock, capacity) = (Arc::<TestClock>::default(), Arc::new(Capacity::default()));
        let china = ChinaSandbox::start(clock.clone(), "https://shop.example").await.unwrap();
        let mut wechat: Value = serde_json::from_str(&china.wechat().to_json()).unwrap();
        let mut alipay: Value = serde_json::from_str(&china.alipay().to_json()).unwrap();
        change(&mut wechat, &mut alipay);
        let setup =
            Setup::default().variable("WECHAT_PAY", &wechat.to_string()).variable("ALIPAY", &alipay.to_string());
        let platform = Platform::start(setup.clock(&clock).capacity(&capacity)).await;
        let tenant = platform.tenant("free").await;
        Self { platform, china, capacity, tenant }
    }

    async fn order(&self, vendor: Vendor) -> Order {
        let origin = Origin::default();
        let buyer = Buyer { user: &self.tenant.user, origin: &origin };
        let wanted = ChinaOrder { vendor, wanted: Wanted::Package("small"), show: Show::QrCode };
        self.platform.host().commerce().order_in_china(&self.tenant.scope, &wanted, &buyer).await.unwrap().0
    }

    /// An order that the vendor knows nothing of.
    async fn bare_order(&self, provider: Provider) -> OrderId {
        let store = self.platform.store();
        let goods = Goods::Package { id: "small".into(), credits: CREDITS, expires_after_days: None };
        let new = NewOrder {
            id: OrderId::at(store.now()),
            provider,
            goods,
            amount: PRICE,
            currency: "cny".into(),
            expires_at: store.now() + 15 * MINUTE,
            created_by: self.tenant.user.clone(),
        };
        let origin = Origin::default();
        let audit = NewAudit {
            action: "order.created",
            actor: AuditActor::System,
            target: None,
            changes: vec![],
            origin: &origin,
        };
        store.create_order(&self.tenant.scope, &new, &audit).await.unwrap().id
    }

    /// Somebody pays `amount` at `vendor` for an order of this number; what the vendor tells of it.
    async fn pays(&self, vendor: china::Vendor, number: &OrderId, amount: u64) -> SignedNotification {
        let at_vendor = match vendor {
            china::Vendor::WeChat => Vendor::WeChat,
            china::Vendor::Alipay => Vendor::Alipay,
        };
        let order = AtVendor {
            out_trade_no: number.as_str(),
            amount,
            description: "credits",
            expires_at: NOON + 15 * MINUTE,
            show: Show::QrCode,
        };
        self.platform.host().commerce().payment(at_vendor).unwrap().create(&order).await.unwrap();
        self.china.pay(vendor, number.as_str()).unwrap();
        self.told()
    }

    fn told(&self) -> SignedNotification {
        let mut told = self.china.take_notifications();
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    async fn tell(&self, told: &SignedNotification) -> Reply {
        let path = told.url.strip_prefix("https://shop.example").unwrap();
        post(self.platform.router(), path, &told.headers, told.body.clone()).await
    }

    async fn state(&self, order: &Order) -> OrderState {
        self.platform.host().commerce().order(&self.tenant.scope, &order.id).await.unwrap().state()
    }

    async fn credits(&self) -> (u64, usize) {
        self.platform.books(&self.tenant).await;
        (self.platform.meter(&self.tenant).await.credits, self.platform.ledger(&self.tenant).await.len())
    }
}

/// What ends the vendor's repetitions.
fn is_taken(vendor: Vendor, reply: &Reply) -> bool {
    match vendor {
        Vendor::WeChat => reply.status == 204 && reply.bytes.is_empty(),
        Vendor::Alipay => reply.status == 200 && reply.bytes == b"success",
    }
}

#[tokio::test]
async fn a_payment_is_credited_once_however_often_it_is_told_and_asked_after() {
    let shop = Shop::open().await;
    for (bought, (vendor, at, _)) in BOTH.into_iter().enumerate() {
        let order = shop.order(vendor).await;
        shop.china.pay(at, order.id.as_str()).unwrap();
        let told = shop.told();
        let commerce = shop.platform.host().commerce();
        let look = async |order: Order| {
            commerce.look(&shop.tenant.scope, order).await.unwrap();
        };
        // Told three times while two pages wait for it.
        let telling = join_all((0..3).map(|_| shop.tell(&told)));
        let (replies, (), ()) = tokio::join!(telling, look(order.clone()), look(order.clone()));
        assert!(replies.iter().any(|reply| is_taken(vendor, reply)), "{vendor}: {replies:?}");
        assert!(replies.iter().all(|reply| is_taken(vendor, reply) || reply.status == 409), "{vendor}: {replies:?}");
        assert_eq!(shop.state(&order).await, OrderState::Paid);
        let bought = bought + 1;
        assert_eq!(shop.credits().await, (CREDITS * bought as u64, bought), "{vendor}");
        // And signed anew, as repetitions are.
        let again = shop.china.notification(&told.id, Disguise::Genuine).unwrap();
        assert!(is_taken(vendor, &shop.tell(&again).await));
        assert_eq!(shop.credits().await.1, bought);
    }
}

#[tokio::test]
async fn what_a_vendor_did_not_sign_reads_and_writes_nothing() {
    let shop = Shop::open().await;
    for (vendor, at, _) in BOTH {
        let order = shop.order(vendor).await;
        shop.china.pay(at, order.id.as_str()).unwrap();
        let told = shop.told();
        let mut forged = vec![];
        for disguise in [Disguise::Probe, Disguise::WrongKey, Disguise::Stale, Disguise::Altered] {
            forged.push((format!("{disguise:?}"), shop.china.notification(&told.id, disguise).unwrap()));
        }
        if vendor == Vendor::WeChat {
            let unknown = shop.china.notification(&told.id, Disguise::UnknownSerial).unwrap();
            forged.push(("a key that does not exist".to_owned(), unknown));
            let mut unsigned = told.clone();
            unsigned.headers.clear();
            forged.push(("without headers".to_owned(), unsigned));
        }
        let mut empty = told.clone();
        empty.body = bytes::Bytes::new();
        forged.push(("empty".to_owned(), empty));
        without_a_trace(&shop.platform, &shop.capacity, async {
            for (what, forged) in &forged {
                let reply = shop.tell(forged).await;
                assert_eq!(reply.status, 400, "{vendor}, {what}: {}", reply.text());
                problem(&reply, 400, "invalid_parameter");
            }
        })
        .await;
        assert_eq!(shop.state(&order).await, OrderState::Pending);
        assert!(is_taken(vendor, &shop.tell(&told).await), "the genuine one");
        assert_eq!(shop.state(&order).await, OrderState::Paid);
    }
}

#[tokio::test]
async fn what_was_not_ordered_so_is_refused_for_good_and_kept() {
    let shop = Shop::open().await;
    let mut refused = 0;
    for (vendor, at, provider) in BOTH {
        let others = if provider == Provider::WeChat { Provider::Alipay } else { Provider::WeChat };
        for (number, amount, why) in [
            (shop.bare_order(provider).await, PRICE - 1, "amount"),
            (shop.bare_order(provider).await, PRICE + 1, "amount"),
            (shop.bare_order(others).await, PRICE, "another vendor"),
            (OrderId::at(NOON), PRICE, "no order of ours"),
        ] {
            let before = tenants_rows(&shop.platform);
            let told = shop.pays(at, &number, amount).await;
            for _ in 0..2 {
                let reply = shop.tell(&told).await;
                assert!(is_taken(vendor, &reply), "{vendor}, {why}: {} {}", reply.status, reply.text());
            }
            assert_eq!(tenants_rows(&shop.platform), before, "{vendor}, {why}");
            refused += 1;
            let kept = kept(&shop.platform, " REFUSED");
            assert_eq!(kept.len(), refused, "{vendor}, {why}");
            let whys: Vec<_> = kept.iter().map(|row| text(row, "/why/S")).collect();
            assert!(whys.iter().any(|said| said.contains(number.as_str()) && said.contains(why)), "{whys:?}");
        }
    }
    assert_eq!(shop.credits().await, (0, 0));
}

#[tokio::test]
async fn a_payment_to_another_merchant_or_app_is_refused() {
    // The vendors sign for the merchant and the app that they know, and the platform expects others.
    let shop = Shop::changed(|wechat, alipay| {
        wechat["app_id"] = json!("wx0000000000000000");
        alipay["seller_id"] = json!("2088000000000000");
    })
    .await;
    for (vendor, at, provider) in BOTH {
        let number = shop.bare_order(provider).await;
        // Ordered by the app and for the merchant that the vendor knows.
        let known = Shop::client(&shop.china, vendor, shop.platform.clock());
        let order = AtVendor {
            out_trade_no: number.as_str(),
            amount: PRICE,
            description: "credits",
            expires_at: NOON + 15 * MINUTE,
            show: Show::QrCode,
        };
        known.create(&order).await.unwrap();
        shop.china.pay(at, number.as_str()).unwrap();
        let before = tenants_rows(&shop.platform);
        assert!(is_taken(vendor, &shop.tell(&shop.told()).await));
        assert_eq!(tenants_rows(&shop.platform), before, "{vendor}");
    }
    assert_eq!(kept(&shop.platform, " REFUSED").len(), 2);
}

#[tokio::test]
async fn who_dies_over_a_notification_keeps_it_from_nobody() {
    let shop = Shop::open().await;
    for (vendor, at, _) in BOTH {
        let order = shop.order(vendor).await;
        shop.china.pay(at, order.id.as_str()).unwrap();
        let told = shop.told();
        let claimed = shop.platform.store().claim_event(vendor.as_str(), &told.id).await.unwrap();
        assert!(matches!(claimed, EventClaim::Mine(_)));
        problem(&shop.tell(&told).await, 409, "conflict");
        shop.platform.clock().advance(2 * MINUTE);
        assert!(is_taken(vendor, &shop.tell(&told).await));
        assert_eq!(shop.state(&order).await, OrderState::Paid);
    }
}

#[tokio::test]
async fn what_does_not_decrypt_is_kept_and_comes_again() {
    let shop = Shop::changed(|wechat, _| wechat["api_v3_key"] = json!("0".repeat(32))).await;
    let order = shop.order(Vendor::WeChat).await;
    shop.china.pay(china::Vendor::WeChat, order.id.as_str()).unwrap();
    let told = shop.told();
    problem(&shop.tell(&told).await, 500, "internal");
    let kept = kept(&shop.platform, " UNREADABLE");
    assert_eq!(kept.len(), 1);
    assert_eq!(text(&kept[0], "/body/S").as_bytes(), told.body);
    assert_eq!(shop.state(&order).await, OrderState::Pending);
    // Who asks the vendor needs no such key.
    shop.platform.host().commerce().look(&shop.tenant.scope, order).boxed().await.unwrap();
    assert_eq!(shop.credits().await, (CREDITS, 1));
}

impl Shop {
    /// A client with the settings that the double knows.
    fn client(china: &ChinaSandbox, vendor: Vendor, clock: &TestClock) -> tenantry_payments::Payment {
        use tenantry_domain::Clock as _;
        use tenantry_payments::{HttpClient, Payment, alipay, wechat};
        let standing = Arc::new(TestClock::default());
        standing.set(clock.now());
        match vendor {
            Vendor::WeChat => {
                let config = wechat::WeChatConfig::from_json(&china.wechat().to_json()).unwrap();
                Payment::WeChat(wechat::WeChatPay::new(config, HttpClient::new(), standing).unwrap())
            }
            Vendor::Alipay => {
                let config = alipay::AlipayConfig::from_json(&china.alipay().to_json()).unwrap();
                Payment::Alipay(alipay::Alipay::new(config, HttpClient::new(), standing).unwrap())
            }
        }
    }
}

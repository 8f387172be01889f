//! Lives that are led at Stripe's double, act by act, while nobody is told of anything.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use serde_json::Value;
use tenantry_commerce::{Buyer, CheckoutPages};
use tenantry_payments::stripe::{self, OperationKey, PaymentBehavior, PriceChange, Proration, SubscriptionCheckout};
use tenantry_sandbox::{
    AheadClock,
    stripe::{Card, Sandbox, Settings, StripeSandbox},
};
use tenantry_store::Origin;
use tenantry_tests::platform::{Platform, Setup, Tenant, TestClock};

use super::{
    crash::Worker,
    world::{Act, World},
};

/// Of every double.
pub(super) const WEBHOOK_SECRET: &str = "whsec_sandbox";

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const PAGES: CheckoutPages<'_> = CheckoutPages { success_url: "https://s.example", cancel_url: "https://c.example" };

/// What the endpoint at Stripe asks to be told of.
const TOLD_OF: [&str; 9] = [
    "checkout.session.",
    "customer.subscription.",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.finalized",
    "invoice.voided",
    "charge.refunded",
    "refund.",
    "charge.dispute.",
];

/// How a dispute ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Won,
    Lost,
}

/// An event of a life.
pub(super) struct Told {
    pub(super) kind: String,
    pub(super) body: String,
    /// In which act it happened.
    pub(super) act: usize,
}

type Row = HashMap<String, AttributeValue>;

/// A life that was led.
pub(super) struct Life {
    pub(super) platform: Platform,
    pub(super) tenant: Tenant,
    pub(super) clock: Arc<TestClock>,
    pub(super) told: Vec<Told>,
    pub(super) acts: usize,
    pub(super) world: World,
    /// Two, who may be at it at the same time.
    pub(super) workers: [Worker; 2],
    /// What the tenant's own requests wrote, as the database shows it and as it takes it.
    snapshot: BTreeMap<(String, String), (Value, Row)>,
}

/// A life that is being led.
struct Stage {
    platform: Platform,
    tenant: Tenant,
    clock: Arc<TestClock>,
    stripe: Sandbox,
    customer: String,
    told: Vec<Told>,
    acts: Vec<Act>,
}

impl Life {
    /// Subscribes to `pro`, goes up to `team` in the middle of the month, is late with the second month and makes up for
    /// it, has part of that refunded, buys a package of credits, has part of it refunded and disputes the rest, and cancels.
    pub(super) async fn of_a_subscriber(dispute: Ending) -> Self {
        let mut stage = Stage::set().await;
        let subscription = stage.subscribes("pro", None).await;
        stage.next_act();
        stage.waits(10 * DAY);
        stage.changes(&subscription, "team").await;
        stage.next_act();
        stage.stripe.set_cards(&stage.customer, Card::Declines).unwrap();
        // To the end of the month that was paid, and the hour after which its invoice is collected.
        stage.waits(21 * DAY);
        assert_eq!(stage.status(&subscription), "past_due");
        stage.next_act();
        stage.stripe.set_cards(&stage.customer, Card::Pays).unwrap();
        stage.waits(3 * DAY);
        assert_eq!(stage.status(&subscription), "active");
        let month = stage.newest_charge();
        stage.next_act();
        let refund = stage.stripe.refund(&month, Some(3_000)).unwrap();
        stage.next_act();
        // A part of what was refunded comes back: the bank did not take it.
        let other = stage.stripe.refund(&month, Some(1_234)).unwrap();
        assert_ne!(refund, other);
        stage.next_act();
        stage.stripe.fail_refund(&other).unwrap();
        stage.next_act();
        let package = stage.buys("small").await;
        stage.next_act();
        stage.stripe.refund(&package, Some(333)).unwrap();
        stage.next_act();
        let disputed = stage.stripe.open_dispute(&package, Some(667), "fraudulent").unwrap();
        stage.next_act();
        stage.waits(5 * DAY);
        stage.stripe.close_dispute(&disputed, dispute == Ending::Won).unwrap();
        stage.next_act();
        let key = OperationKey::new("cancel", &[&subscription]);
        stage
            .platform
            .host()
            .commerce()
            .stripe()
            .unwrap()
            .cancel_at_period_end(&subscription, None, &key)
            .await
            .unwrap();
        stage.next_act();
        stage.waits(31 * DAY);
        assert_eq!(stage.status(&subscription), "canceled");
        stage.next_act();
        stage.ends().await
    }

    /// Buys two packages, has one refunded in two parts, and disputes what is left of it.
    pub(super) async fn of_a_buyer(dispute: Ending) -> Self {
        let mut stage = Stage::set().await;
        let first = stage.buys("small").await;
        stage.next_act();
        stage.waits(HOUR);
        stage.stripe.refund(&first, Some(333)).unwrap();
        stage.next_act();
        stage.buys("medium").await;
        stage.next_act();
        stage.stripe.refund(&first, Some(200)).unwrap();
        stage.next_act();
        let disputed = stage.stripe.open_dispute(&first, Some(467), "fraudulent").unwrap();
        stage.next_act();
        stage.waits(5 * DAY);
        stage.stripe.close_dispute(&disputed, dispute == Ending::Won).unwrap();
        stage.next_act();
        stage.ends().await
    }

    /// Tries `team`, pays for it, cancels at once, and subscribes to `pro` later; and disputes and leaves that as
    /// well, or stays.
    pub(super) async fn of_a_returner(leaves: bool) -> Self {
        let mut stage = Stage::set().await;
        let trial = stage.subscribes("team", Some(14)).await;
        stage.next_act();
        stage.waits(14 * DAY + 2 * HOUR);
        assert_eq!(stage.status(&trial), "active");
        stage.next_act();
        stage.waits(DAY);
        stage.cancels(&trial).await;
        stage.next_act();
        stage.waits(DAY);
        let second = stage.subscribes("pro", None).await;
        stage.next_act();
        if leaves {
            stage.waits(DAY);
            let disputed = stage.stripe.open_dispute(&stage.newest_charge(), None, "fraudulent").unwrap();
            stage.next_act();
            stage.cancels(&second).await;
            stage.stripe.close_dispute(&disputed, false).unwrap();
            stage.next_act();
        }
        stage.ends().await
    }

    /// Subscribes to `team`, changes to `pro` for the next month, thinks better of it, and changes again; pays for that
    /// month, and cancels in it.
    pub(super) async fn of_a_saver() -> Self {
        let mut stage = Stage::set().await;
        let subscription = stage.subscribes("team", None).await;
        stage.next_act();
        stage.waits(10 * DAY);
        stage.changes_later(&subscription, "pro", Some("team")).await;
        stage.next_act();
        stage.waits(DAY);
        stage.changes_later(&subscription, "team", None).await;
        stage.next_act();
        stage.waits(DAY);
        stage.changes_later(&subscription, "pro", Some("team")).await;
        stage.next_act();
        // To the end of the month that was paid, and the hour after which the next one's invoice is collected.
        stage.waits(19 * DAY);
        assert_eq!(stage.status(&subscription), "active");
        stage.next_act();
        stage.waits(DAY);
        stage.cancels(&subscription).await;
        stage.next_act();
        stage.ends().await
    }

    pub(super) fn events(&self) -> usize {
        self.told.len()
    }

    pub(super) fn name(&self, event: usize) -> String {
        let Told { kind, act, .. } = &self.told[event];
        format!("event {event}, {kind} of act {act}")
    }

    /// Everything as it was before anybody was told of anything; the life ends after so many acts.
    pub(super) async fn begin(&self, acts: usize) {
        self.world.begin(acts);
        let mut missing: BTreeMap<_, _> = self.snapshot.iter().collect();
        let mut writes = vec![];
        for row in self.platform.host().all_items().unwrap() {
            let name = name(&row);
            match missing.remove(&name) {
                Some((before, _)) if *before == row => {}
                Some((_, item)) => writes.push(put(item)),
                None => writes.push(delete(&name)),
            }
        }
        writes.extend(missing.values().map(|(_, item)| put(item)));
        let database = self.platform.host().database();
        for some in writes.chunks(100) {
            database.transact_write_items().set_transact_items(Some(some.to_vec())).send().await.unwrap();
        }
    }
}

impl Stage {
    async fn set() -> Self {
        let clock = Arc::<TestClock>::default();
        let ahead = Arc::new(AheadClock::new(clock.clone(), 0));
        let stripe = StripeSandbox::start(ahead, Settings::default()).await.unwrap();
        assert_eq!(stripe.webhook_secret, WEBHOOK_SECRET);
        let setup = Setup::default()
            .plan_change("id = \"pro\"", "id = \"pro\"\ncredits_month = 3_000")
            .plan_change("id = \"team\"", "id = \"team\"\ncredits_month = 20_000")
            .variable("STRIPE_WEBHOOK_SECRETS", &stripe.webhook_secret)
            .variable("STRIPE_SECRET_KEY", &stripe.secret_key)
            .variable("STRIPE_BASE_URL", &stripe.base_url);
        let platform = Platform::start(setup.clock(&clock)).await;
        let tenant = platform.tenant("free").await;
        let commerce = platform.host().commerce();
        commerce.put_up_for_sale().await.unwrap();
        let customer = commerce.customer(&tenant.scope, &tenant.email, "Acme").await.unwrap();
        let _ = stripe.take_events();
        Self { platform, tenant, clock, stripe, customer, told: vec![], acts: vec![] }
    }

    /// Time passes, for the vendor and for us.
    fn waits(&self, millis: i64) {
        self.clock.advance(millis);
        // It does what is due when it is asked.
        let _ = self.stripe.now();
    }

    /// What happened since the act before is told of from now on.
    fn next_act(&mut self) {
        let act = self.acts.len();
        let events = self.stripe.take_events().into_iter();
        let events = events.filter(|event| TOLD_OF.iter().any(|kind| event.kind.starts_with(kind)));
        let before = self.told.len();
        self.told.extend(events.map(|event| Told { kind: event.kind, body: event.body, act }));
        assert!(self.told.len() > before, "nothing happened in act {act}");
        self.acts.push(Act { at: self.stripe.now() * 1_000, saved: self.stripe.saved() });
    }

    async fn subscribes(&self, plan: &str, trial_days: Option<u32>) -> String {
        let commerce = self.platform.host().commerce();
        let (scope, price) = (&self.tenant.scope, self.price(plan).await);
        // By the vendor's own call: ours would look at what became of the page before, and nobody is to know yet.
        let checkout = SubscriptionCheckout {
            pages: stripe::CheckoutPages {
                customer: &self.customer,
                org: scope.org().as_str(),
                metadata: &[],
                success_url: PAGES.success_url,
                cancel_url: PAGES.cancel_url,
                expires_at: None,
            },
            price: &price,
            trial_days,
            promotion_codes: true,
            automatic_tax: false,
        };
        let key = OperationKey::new("subscribe", &[plan]);
        let opened = commerce.stripe().unwrap().subscription_checkout(&checkout, &key).await.unwrap();
        self.stripe.pay(&opened.id).unwrap();
        let session = self.stripe.object(&opened.id).unwrap();
        session["subscription"].as_str().unwrap().to_owned()
    }

    async fn price(&self, plan: &str) -> String {
        let offers = self.platform.host().commerce().offers().await.unwrap();
        offers.into_iter().find(|offer| offer.plan.id == plan).unwrap().price.id
    }

    async fn changes(&self, subscription: &str, plan: &str) {
        self.changes_price(subscription, plan, Proration::Now, &[]).await;
    }

    /// With the next invoice; until then that other plan is paid for, if one is.
    async fn changes_later(&self, subscription: &str, plan: &str, paid: Option<&str>) {
        let seen = self.platform.host().commerce().stripe().unwrap().subscription(subscription).await.unwrap();
        let until = paid.map_or_else(String::new, |_| (seen.items[0].period_end / 1_000).to_string());
        let metadata = [("paid_plan", paid.unwrap_or_default()), ("paid_until", &*until)];
        self.changes_price(subscription, plan, Proration::None, &metadata).await;
    }

    async fn changes_price(&self, subscription: &str, plan: &str, proration: Proration, metadata: &[(&str, &str)]) {
        let stripe = self.platform.host().commerce().stripe().unwrap();
        let (price, seen) = (self.price(plan).await, stripe.subscription(subscription).await.unwrap());
        let item = &seen.items[0].id;
        let change = PriceChange {
            subscription,
            item,
            price: &price,
            proration,
            proration_date: None,
            ends_trial: false,
            metadata,
        };
        let key = OperationKey::new("change", &[subscription, plan, &self.acts.len().to_string()]);
        let payment = if metadata.is_empty() { PaymentBehavior::Pending } else { PaymentBehavior::Allow };
        let changed = stripe.change_price(&change, payment, &key).await.unwrap();
        assert_eq!(changed.items[0].price.id, price);
    }

    async fn cancels(&self, subscription: &str) {
        let stripe = self.platform.host().commerce().stripe().unwrap();
        stripe.cancel_now(subscription, &OperationKey::new("cancel_now", &[subscription])).await.unwrap();
        assert_eq!(self.status(subscription), "canceled");
    }

    /// Buys a package; returns the charge.
    async fn buys(&self, package: &str) -> String {
        let commerce = self.platform.host().commerce();
        let origin = Origin::default();
        let buyer = Buyer { user: &self.tenant.user, origin: &origin };
        let scope = &self.tenant.scope;
        let (_, opened) = commerce.order_package(scope, &self.customer, package, &buyer, PAGES).await.unwrap();
        self.stripe.pay(&opened.id).unwrap();
        self.newest_charge()
    }

    fn newest_charge(&self) -> String {
        let events = self.stripe.events();
        let paid = events.iter().rev().find(|event| event["type"] == "charge.succeeded").unwrap();
        paid["data"]["object"]["id"].as_str().unwrap().to_owned()
    }

    fn status(&self, subscription: &str) -> String {
        self.stripe.object(subscription).unwrap()["status"].as_str().unwrap().to_owned()
    }

    async fn ends(self) -> Life {
        let Self { platform, tenant, clock, told, acts, .. } = self;
        let mut snapshot = BTreeMap::new();
        let database = platform.host().database();
        for row in platform.host().all_items().unwrap() {
            let name = name(&row);
            let got = database.get_item().table_name(tenantry_host::TABLE).set_key(Some(key(&name)));
            snapshot.insert(name, (row, got.send().await.unwrap().item.unwrap()));
        }
        let world = World::new(&acts, &clock).await;
        let workers = [(); 2].map(|()| Worker::new(&platform, world.stripe()));
        Life { platform, tenant, clock, told, acts: acts.len(), world, workers, snapshot }
    }
}

fn name(row: &Value) -> (String, String) {
    let part = |name: &str| row[name]["S"].as_str().unwrap().to_owned();
    (part("pk"), part("sk"))
}

fn key((pk, sk): &(String, String)) -> Row {
    let part = |name: &str, value: &String| (name.to_owned(), AttributeValue::S(value.clone()));
    HashMap::from([part("pk", pk), part("sk", sk)])
}

fn put(item: &Row) -> TransactWriteItem {
    let put = Put::builder().table_name(tenantry_host::TABLE).set_item(Some(item.clone()));
    TransactWriteItem::builder().put(put.build().unwrap()).build()
}

fn delete(name: &(String, String)) -> TransactWriteItem {
    let delete = Delete::builder().table_name(tenantry_host::TABLE).set_key(Some(key(name)));
    TransactWriteItem::builder().delete(delete.build().unwrap()).build()
}

//! What is done about payments on a schedule: plans whose time is over, orders that nobody told the end of, the nightly
//! comparison with Stripe, and the end of a customer who is erased.

mod refunds;
mod top_up;

use std::sync::Arc;

use serde_json::Value;
use tenantry_commerce::{Buyer, CheckoutPages, ChinaOrder, Commerce, Wanted};
use tenantry_domain::{
    Clock as _, SubscriptionStatus,
    orders::{Order, OrderState},
};
use tenantry_payments::{
    Show, Vendor,
    stripe::{Delivery, OperationKey},
};
use tenantry_quota_reset::{Job, Message, Tally, fan_out, run};
use tenantry_sandbox::{
    AheadClock, china,
    stripe::{Card, Fault, Sandbox, Settings, StripeSandbox},
};
use tenantry_store::Origin;
use tenantry_tests::{
    http::text,
    jobs::Jobs,
    log::Log,
    platform::{Platform, Setup, Tenant, TestClock},
};
use tenantry_web::config::Env;

const DAY: i64 = 24 * 60 * 60 * 1000;
const HOUR: i64 = 3_600_000;
const PAGES: CheckoutPages<'static> =
    CheckoutPages { success_url: "https://app.example.com/done", cancel_url: "https://app.example.com/plans" };
/// Credits with every month of the plan `pro`.
const MONTHLY: u64 = 5_000_000;

/// A platform whose payments go to doubles that share its clock.
struct Stage {
    platform: Platform,
    stripe: Sandbox,
    commerce: Commerce,
    tenant: Tenant,
}

fn env(stripe: &Sandbox) -> Vec<(String, String)> {
    [
        ("STRIPE_SECRET_KEY", &*stripe.secret_key),
        ("STRIPE_WEBHOOK_SECRETS", &*stripe.webhook_secret),
        ("STRIPE_BASE_URL", &*stripe.base_url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

impl Stage {
    async fn new() -> Self {
        Self::with(vec![], Arc::default()).await
    }

    async fn with(more: Vec<(String, String)>, clock: Arc<TestClock>) -> Self {
        let ahead = Arc::new(AheadClock::new(clock.clone(), 0));
        let stripe = StripeSandbox::start(ahead, Settings::default()).await.unwrap();
        let env: Vec<_> = env(&stripe).into_iter().chain(more).collect();
        let month = format!("cny_month = 19_900 }}\ncredits_month = {MONTHLY}");
        let setup = Setup::default().plan_change("cny_month = 19_900 }", &month);
        let setup = env.iter().fold(setup, |setup, (name, value)| setup.variable(name, value));
        let platform = Platform::start(setup.clock(&clock)).await;
        let commerce = Commerce::from_env(&env.into_iter().collect::<Env>(), platform.store().clone()).unwrap();
        let tenant = platform.tenant("free").await;
        Self { platform, stripe, commerce, tenant }
    }

    /// Subscribes to `pro`, of which nobody tells us.
    async fn subscribe(&self) -> String {
        let price = self.commerce.put_up_for_sale().await.unwrap()[0].price.id.clone();
        let scope = &self.tenant.scope;
        let customer = self.commerce.customer(scope, &self.tenant.email, "test").await.unwrap();
        let session = self.commerce.subscribe(scope, &customer, &price, None, PAGES, "1").await.unwrap();
        self.stripe.pay(&session.id).unwrap();
        let session = self.commerce.stripe().unwrap().checkout(&session.id).await.unwrap();
        session.subscription.unwrap()
    }

    /// The same, and we were told everything.
    async fn subscribed(&self) -> String {
        let subscription = self.subscribe().await;
        self.tell().await;
        assert_eq!(self.plan().await, "pro");
        subscription
    }

    /// Handles all that Stripe tells, as the webhook does.
    async fn tell(&self) {
        let stripe = self.commerce.stripe().unwrap();
        for told in self.stripe.take_events() {
            let read = stripe.webhooks().verify(told.body.as_bytes(), told.signature(), self.platform.clock().now());
            let Ok(Delivery::Event(event)) = read else { panic!("{read:?}") };
            self.commerce.handle(&event).await.unwrap();
            self.stripe.acknowledge(&told);
        }
    }

    /// Stripe tells, and nobody hears it.
    fn lose(&self) {
        for told in self.stripe.take_events() {
            self.stripe.acknowledge(&told);
        }
    }

    fn advance(&self, millis: i64) {
        self.platform.clock().advance(millis);
        // It does what is due by then.
        self.stripe.advance(0);
    }

    async fn plan(&self) -> String {
        self.platform.meter(&self.tenant).await.plan
    }

    async fn credits(&self) -> u64 {
        self.platform.meter(&self.tenant).await.credits
    }

    async fn status_at_stripe(&self, subscription: &str) -> SubscriptionStatus {
        self.commerce.stripe().unwrap().subscription(subscription).await.unwrap().status
    }

    async fn package(&self) -> (Order, String) {
        let origin = Origin::default();
        let buyer = Buyer { user: &self.tenant.user, origin: &origin };
        let customer = self.commerce.customer(&self.tenant.scope, &self.tenant.email, "test").await.unwrap();
        let (order, session) =
            self.commerce.order_package(&self.tenant.scope, &customer, "small", &buyer, PAGES).await.unwrap();
        (order, session.id)
    }

    async fn state(&self, order: &Order) -> OrderState {
        self.commerce.order(&self.tenant.scope, &order.id).await.unwrap().state()
    }

    async fn night(&self) -> Tally {
        sum(Jobs::with(self.commerce.clone()).all(Job::Payments, false).await)
    }

    async fn sweep(&self) -> Tally {
        sum(Jobs::with(self.commerce.clone()).all(Job::Sweep, false).await)
    }

    /// The sweep of a deployment that cannot reach any vendor.
    async fn sweep_alone(&self) -> Tally {
        sum(Jobs::new(self.platform.store()).all(Job::Sweep, false).await)
    }
}

fn sum(tallies: Vec<Tally>) -> Tally {
    tallies.into_iter().fold(Tally::default(), |sum, tally| Tally {
        visited: sum.visited + tally.visited,
        changed: sum.changed + tally.changed,
        repaired: sum.repaired + tally.repaired,
        mismatches: sum.mismatches + tally.mismatches,
        orders_failed: sum.orders_failed + tally.orders_failed,
        ..sum
    })
}

/// Pays for a month of `pro` in advance, by WeChat Pay, and returns the double.
async fn prepaid_stage() -> (Stage, china::ChinaSandbox, Order) {
    let clock = Arc::<TestClock>::default();
    let china = china::ChinaSandbox::start(clock.clone(), "https://shop.example").await.unwrap();
    let stage = Stage::with(vec![("WECHAT_PAY".to_owned(), china.wechat().to_json())], clock).await;
    let origin = Origin::default();
    let buyer = Buyer { user: &stage.tenant.user, origin: &origin };
    let wanted =
        ChinaOrder { vendor: Vendor::WeChat, wanted: Wanted::Months { plan: "pro", months: 1 }, show: Show::QrCode };
    let (order, _) = stage.commerce.order_in_china(&stage.tenant.scope, &wanted, &buyer).await.unwrap();
    (stage, china, order)
}

#[tokio::test]
async fn months_that_were_paid_for_end_by_themselves_and_take_nothing_along() {
    let (stage, china, order) = prepaid_stage().await;
    china.pay(china::Vendor::WeChat, order.id.as_str()).unwrap();
    // Nobody told us: the sweep asks once the payer's time is over.
    stage.advance(10 * 60_000);
    assert_eq!(stage.sweep().await.changed, 0);
    stage.advance(10 * 60_000);
    assert_eq!((stage.sweep().await.changed, stage.plan().await.as_str()), (1, "pro"));
    let until = stage.commerce.store().account(&stage.tenant.scope).await.unwrap().plan_until.unwrap();
    stage.advance(until - stage.platform.clock().now() - 1);
    assert_eq!((stage.sweep_alone().await.changed, stage.plan().await.as_str()), (0, "pro"));
    let rows = stage.platform.host().all_items().unwrap().len();
    stage.advance(1);
    assert_eq!(stage.sweep_alone().await.changed, 1);
    assert_eq!(stage.plan().await, "free");
    assert_eq!(stage.platform.host().all_items().unwrap().len(), rows);
    stage.platform.get("/api/v1/organizations", &stage.tenant.api_key).await.expect(200);
    assert_eq!(stage.sweep_alone().await.changed, 0, "it is not due any more");
}

#[tokio::test]
async fn a_payment_that_stays_late_ends_the_plan_when_its_grace_is_over_and_no_data() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let customer = stage.commerce.stripe().unwrap().subscription(&subscription).await.unwrap().customer;
    stage.stripe.set_cards(&customer, Card::NoFunds).unwrap();
    stage.advance(30 * DAY + 2 * HOUR);
    stage.tell().await;
    let account = stage.commerce.store().account(&stage.tenant.scope).await.unwrap();
    let standing = account.subscription.unwrap().standing;
    assert_eq!((&standing.status, stage.plan().await.as_str()), (&SubscriptionStatus::PastDue, "pro"));
    // From when the invoice was made.
    let over = standing.past_due_since.unwrap() + 7 * DAY;
    assert_eq!(account.plan_until, Some(over));
    stage.advance(over - stage.platform.clock().now() - 1);
    assert_eq!(stage.sweep_alone().await.changed, 1, "the credits of the month that was paid for are over");
    assert_eq!((stage.sweep_alone().await.changed, stage.plan().await.as_str()), (0, "pro"));
    let rows = stage.platform.host().all_items().unwrap().len();
    stage.advance(1);
    assert_eq!((stage.sweep_alone().await.changed, stage.plan().await.as_str()), (1, "free"));
    assert_eq!(stage.platform.host().all_items().unwrap().len(), rows);
    // Whoever pays after all has the plan again.
    stage.stripe.set_cards(&customer, Card::Pays).unwrap();
    let seen = stage.commerce.stripe().unwrap().subscription(&subscription).await.unwrap();
    stage.stripe.pay_invoice(&seen.latest_invoice.unwrap()).unwrap();
    stage.tell().await;
    assert_eq!(stage.plan().await, "pro");
}

#[tokio::test]
async fn orders_that_nobody_told_the_end_of_get_one() {
    let stage = Stage::new().await;
    let (left, _) = stage.package().await;
    let (paid, session) = stage.package().await;
    stage.stripe.pay(&session).unwrap();
    stage.lose();
    assert_eq!((stage.sweep().await.changed, stage.credits().await), (0, 0), "their payers have time left");
    stage.advance(HOUR + 1);
    // While Stripe is away nothing is known, so nothing is closed.
    for _ in 0..20 {
        stage.stripe.fail_next(Fault::Refused);
    }
    let away = stage.sweep().await;
    assert_eq!((away.changed, away.orders_failed), (0, 2));
    assert_eq!((stage.state(&left).await, stage.state(&paid).await), (OrderState::Pending, OrderState::Pending));
    clear_faults(&stage).await;
    let swept = stage.sweep().await;
    assert_eq!((swept.changed, swept.orders_failed), (2, 0));
    assert_eq!((stage.state(&left).await, stage.state(&paid).await), (OrderState::Closed, OrderState::Paid));
    assert_eq!(stage.credits().await, 10_000_000);
    assert_eq!(stage.sweep().await, stage.sweep().await);
    assert_eq!(stage.credits().await, 10_000_000, "once");
}

/// Asks until the faults that were ordered are used up.
async fn clear_faults(stage: &Stage) {
    while stage.commerce.stripe().unwrap().customer("cus_nobody").await.is_err_and(|error| error.is_transient()) {}
}

#[tokio::test]
async fn what_stripe_could_not_deliver_is_handled_at_night_once() {
    let stage = Stage::new().await;
    let subscription = stage.subscribe().await;
    // They wait at Stripe, and nobody takes them.
    let events = stage.stripe.take_events();
    assert!(events.len() > 3, "{}", events.len());
    stage.advance(DAY);
    let jobs = Jobs::with(stage.commerce.clone());
    assert_eq!(fan_out(&jobs.state, Job::Payments).await.unwrap(), 17);
    // The events alone, without the look at each tenant.
    let mut caught_up = Tally::default();
    while let Some((message, _)) = jobs.next() {
        if let Message::Events { .. } = message {
            caught_up = run(&jobs.state, &message, &|| false).await.unwrap();
        }
    }
    assert!(caught_up.repaired > 0 && caught_up.mismatches == 0, "{caught_up:?}");
    assert_eq!((stage.plan().await.as_str(), stage.credits().await), ("pro", MONTHLY));
    assert_eq!(stage.status_at_stripe(&subscription).await, SubscriptionStatus::Active);
    // The endpoint is back, and is told what was done; the next night has nothing to do.
    let again = stage.night().await;
    assert_eq!((again.repaired, again.mismatches), (0, 0));
    assert_eq!(stage.credits().await, MONTHLY);
}

#[tokio::test]
async fn a_night_that_runs_out_of_time_goes_on_behind_the_last_event() {
    let stage = Stage::new().await;
    stage.subscribe().await;
    let events = stage.stripe.take_events().len();
    let jobs = Jobs::with(stage.commerce.clone());
    fan_out(&jobs.state, Job::Payments).await.unwrap();
    let mut messages = 0;
    while let Some((message, _)) = jobs.next() {
        if let Message::Events { .. } = message {
            run(&jobs.state, &message, &|| true).await.unwrap();
            messages += 1;
        }
    }
    assert_eq!(messages, events, "an event each");
    assert_eq!((stage.plan().await.as_str(), stage.credits().await), ("pro", MONTHLY));
}

#[tokio::test]
async fn what_changed_behind_our_back_is_repaired_at_night() {
    let stage = Stage::new().await;
    let subscription = stage.subscribe().await;
    stage.lose();
    assert_eq!((stage.plan().await.as_str(), stage.credits().await), ("free", 0));
    let night = stage.night().await;
    // The subscription, and the credits of an invoice that was paid.
    assert_eq!((night.repaired, night.mismatches), (2, 0));
    assert_eq!((stage.plan().await.as_str(), stage.credits().await), ("pro", MONTHLY));
    assert_eq!(stage.night().await.repaired, 0, "there is nothing left");

    let key = OperationKey::new("test", &[&subscription]);
    stage.commerce.stripe().unwrap().cancel_now(&subscription, &key).await.unwrap();
    stage.lose();
    assert_eq!(stage.plan().await, "pro");
    assert_eq!((stage.night().await.repaired, stage.plan().await.as_str()), (1, "free"));

    // What was written down and did not get to the meter.
    let store = stage.platform.store();
    let version = stage.platform.meter(&stage.tenant).await.plan_version;
    store.put_on_plan(&stage.tenant.scope, "team", version, None).await.unwrap();
    assert_eq!((stage.night().await.repaired, stage.plan().await.as_str()), (1, "free"));
}

#[tokio::test]
async fn a_tenant_that_fails_at_night_holds_up_nobody_and_comes_again() {
    let stage = Stage::new().await;
    let subscription = stage.subscribe().await;
    stage.lose();
    assert_eq!((stage.night().await.repaired, stage.plan().await.as_str()), (2, "pro"));
    // Another tenant's subscription is one that Stripe does not have, so nobody can tell what is right.
    let (store, stranger) = (stage.platform.store(), stage.platform.tenant("free").await);
    assert!(store.link_customer(&stranger.scope, "cus_unknown").await.unwrap());
    let mut account = store.account(&stranger.scope).await.unwrap();
    account.subscription = store.account(&stage.tenant.scope).await.unwrap().subscription;
    account.subscription.as_mut().unwrap().id = "sub_unknown".to_owned();
    assert!(store.write_account(&stranger.scope, account).await.unwrap().is_some());
    let night = stage.night().await;
    assert_eq!((night.mismatches, stage.plan().await.as_str()), (1, "pro"));

    // Stripe is away: that is a failure and no result, for each that it is about.
    stage.commerce.stripe().unwrap().cancel_now(&subscription, &OperationKey::new("test", &["x"])).await.unwrap();
    stage.lose();
    for _ in 0..60 {
        stage.stripe.fail_next(Fault::Refused);
    }
    let jobs = Jobs::with(stage.commerce.clone());
    fan_out(&jobs.state, Job::Payments).await.unwrap();
    let mut failed = vec![];
    while let Some((message, _)) = jobs.next() {
        if run(&jobs.state, &message, &|| false).await.is_err() {
            failed.push(message);
        }
    }
    assert_eq!(failed.len(), 3, "two tenants and the events: {failed:?}");
    assert_eq!(stage.plan().await, "pro");
    clear_faults(&stage).await;
    for message in failed {
        run(&jobs.state, &message, &|| false).await.unwrap();
    }
    assert_eq!(stage.plan().await, "free");
}

async fn delete(stage: &Stage) {
    let login = stage.platform.login(&stage.tenant).await;
    let path = format!("/api/v1/organizations/{}", stage.tenant.org);
    stage.platform.delete(&path, text(&login, "/access_token")).await.expect(202);
}

/// All rows that have the tenant's name in them.
fn left(stage: &Stage) -> usize {
    let rows: Vec<Value> = stage.platform.host().all_items().unwrap();
    rows.iter().filter(|row| row.to_string().contains(stage.tenant.org.short())).count()
}

#[tokio::test]
async fn who_is_erased_does_not_go_on_paying() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let (order, session) = stage.package().await;
    delete(&stage).await;
    stage.advance(30 * DAY - HOUR);
    stage.platform.host().run_job(Job::Erase).await;
    assert_eq!(stage.status_at_stripe(&subscription).await, SubscriptionStatus::Active, "its grace is not over");

    stage.advance(HOUR);
    // Stripe is away, so nothing goes that says who pays.
    let before = left(&stage);
    for _ in 0..60 {
        stage.stripe.fail_next(Fault::Refused);
    }
    let jobs = Jobs::with(stage.commerce.clone());
    fan_out(&jobs.state, Job::Erase).await.unwrap();
    let mut failed = vec![];
    while let Some((message, _)) = jobs.next() {
        if run(&jobs.state, &message, &|| false).await.is_err() {
            failed.push(message);
        }
    }
    assert_eq!((failed.len(), left(&stage)), (1, before), "{failed:?}");
    // Who waits for that cannot be brought back.
    let login = stage.platform.login(&stage.tenant).await;
    let restore = format!("/api/v1/organizations/{}/restore", stage.tenant.org);
    stage.platform.post(&restore, text(&login, "/access_token"), Value::Null).await.expect(409);
    clear_faults(&stage).await;

    run(&jobs.state, &failed[0], &|| false).await.unwrap();
    assert_eq!(stage.status_at_stripe(&subscription).await, SubscriptionStatus::Canceled);
    let session = stage.commerce.stripe().unwrap().checkout(&session).await.unwrap();
    assert_eq!(session.status, Some(tenantry_payments::stripe::CheckoutStatus::Expired), "{order:?}");
    assert_eq!(left(&stage), 0);
    // Again, there is nothing to do; and a month later nothing was paid.
    stage.platform.host().run_job(Job::Erase).await;
    // Its last words are about nobody: they are taken, change nothing, and wake nobody.
    let log = Log::capture();
    stage.tell().await;
    assert_eq!(left(&stage), 0);
    assert!(log.text().contains("the last word of a tenant that was erased"), "{}", log.text());
    stage.advance(40 * DAY);
    let kinds: Vec<_> = stage.stripe.take_events().into_iter().map(|told| told.kind).collect();
    assert!(!kinds.iter().any(|kind| kind.starts_with("invoice")), "{kinds:?}");
}

#[tokio::test]
async fn without_the_vendor_that_takes_money_nobody_is_erased_who_pays_it() {
    let stage = Stage::new().await;
    stage.subscribed().await;
    delete(&stage).await;
    stage.advance(30 * DAY);
    let before = left(&stage);
    let jobs = Jobs::new(stage.platform.store());
    fan_out(&jobs.state, Job::Erase).await.unwrap();
    let mut failed = 0;
    while let Some((message, _)) = jobs.next() {
        failed += usize::from(run(&jobs.state, &message, &|| false).await.is_err());
    }
    assert_eq!((failed, left(&stage)), (1, before));
}

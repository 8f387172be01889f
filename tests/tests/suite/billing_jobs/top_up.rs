//! Credits that run out: who is told, and what is bought without anybody there.

use futures_util::future::join_all;
use serde_json::Value;
use tenantry_commerce::{Buyer, CommerceError, CreditRules, TopUpRule};
use tenantry_domain::{
    OrderId,
    credit_watch::CreditWatch,
    ledger::LedgerKind,
    orders::{Goods, NewOrder, OrderState, Provider},
    time::Period,
};
use tenantry_payments::stripe::{OperationKey, SavedMethodCharge};
use tenantry_quota_reset::Job;
use tenantry_sandbox::stripe::{Card, Fault};
use tenantry_store::{AuditActor, NewAudit, NewLedgerRow, Origin};
use tenantry_tests::{http::text, jobs::Jobs};

use super::{DAY, HOUR, MONTHLY, Stage, clear_faults, delete, left, sum};
use crate::webhooks::confirm_address;

const MILLION: u64 = 1_000_000;
/// Cents.
const SMALL: u64 = 1_000;
const RULE: TopUpRule<'static> =
    TopUpRule { enabled: true, below: 3 * MILLION, package: "small", monthly_cap: 2 * SMALL + 500 };

impl Stage {
    async fn rules(
        &self,
        notify_below: Option<u64>,
        top_up: Option<TopUpRule<'_>>,
    ) -> Result<CreditWatch, CommerceError> {
        let origin = Origin::default();
        let buyer = Buyer { user: &self.tenant.user, origin: &origin };
        let rules = CreditRules { notify_below, top_up };
        self.commerce.set_auto_top_up(&self.tenant.scope, rules, &buyer).await
    }

    async fn watch(&self) -> CreditWatch {
        self.commerce.auto_top_up(&self.tenant.scope).await.unwrap()
    }

    /// Leaves a million micro-credits.
    async fn spend(&self) {
        let (amount, key) = (self.credits().await - MILLION, OrderId::new().to_string());
        let new = NewLedgerRow { kind: LedgerKind::Adjustment, amount, key: &key, reference: None, expires_at: None };
        self.platform.store().take_credits(&self.tenant.scope, &new).await.unwrap();
    }

    /// What the banks were asked for, and gave, of which we were not told yet.
    fn charges(&self) -> usize {
        self.stripe.take_events().into_iter().filter(|told| told.kind == "charge.succeeded").count()
    }

    /// A subscriber with a saved card, at a million micro-credits, who wants more when they run out.
    async fn running_out() -> Self {
        let stage = Self::new().await;
        stage.subscribed().await;
        confirm_address(&stage.platform, &stage.tenant).await;
        stage.rules(None, Some(RULE)).await.unwrap();
        assert_eq!(stage.credits().await, MONTHLY);
        assert_eq!((stage.sweep().await.changed, stage.charges()), (0, 0), "there is enough");
        stage.spend().await;
        stage
    }

    /// An order that was begun by somebody who died then.
    async fn begun(&self) -> (NewOrder, String) {
        let (new, method, is_begun) = self.begins().await;
        assert!(is_begun);
        (new, method)
    }

    /// Begins an order, whatever is left. Whether that was possible.
    async fn begins(&self) -> (NewOrder, String, bool) {
        let (store, now) = (self.platform.store(), self.stripe.now() * 1000);
        let new = NewOrder {
            id: OrderId::at(now),
            provider: Provider::Stripe,
            goods: Goods::of(store.plans().package("small").unwrap()),
            amount: SMALL,
            currency: "usd".to_owned(),
            expires_at: now + HOUR,
            created_by: self.tenant.user.clone(),
        };
        let customer = store.account(&self.tenant.scope).await.unwrap().customer.unwrap();
        let methods = self.commerce.stripe().unwrap().payment_methods(&customer).await.unwrap();
        let method = methods[0].id.clone();
        let watch = self.watch().await.with_order(&new.id, SMALL, Period::of(now)).unwrap();
        let origin = Origin::default();
        let (action, actor) = ("order.created", AuditActor::System);
        let audit = NewAudit { action, actor, target: Some(new.id.as_str()), changes: vec![], origin: &origin };
        let begun = store.begin_top_up(&self.tenant.scope, watch, &new, &method, &audit).await.unwrap();
        (new, method, begun.is_some())
    }

    /// Charges that order as the commerce does.
    async fn charge(&self, order: &NewOrder, method: &str) {
        let customer = self.platform.store().account(&self.tenant.scope).await.unwrap().customer.unwrap();
        let charge = SavedMethodCharge {
            customer: &customer,
            payment_method: method,
            org: self.tenant.org.as_str(),
            metadata: &[("order", order.id.as_str())],
            amount: i64::try_from(order.amount).unwrap(),
            currency: "usd",
            description: "Credits",
        };
        let key = OperationKey::new("top_up", &[order.id.as_str()]);
        self.commerce.stripe().unwrap().charge_saved_method(&charge, &key).await.unwrap();
    }

    async fn state_of(&self, order: &NewOrder) -> OrderState {
        self.commerce.order(&self.tenant.scope, &order.id).await.unwrap().state()
    }
}

#[tokio::test]
async fn owners_are_told_once_each_time_that_credits_run_out() {
    let stage = Stage::new().await;
    stage.subscribed().await;
    confirm_address(&stage.platform, &stage.tenant).await;
    stage.rules(Some(2 * MILLION), None).await.unwrap();
    let jobs = Jobs::with(stage.commerce.clone());
    let mut told = vec![];
    for (spends, mails) in [(false, 0), (true, 1), (false, 0), (false, 0)] {
        if spends {
            stage.spend().await;
        }
        jobs.all(Job::Sweep, false).await;
        let new = jobs.mails();
        assert_eq!(new.len(), mails, "{new:?}");
        told.extend(new);
    }
    assert_eq!((told[0].content.template(), told[0].to.as_str()), ("low_balance", &*stage.tenant.email));
    // There is enough again, and again there is not.
    let key = OrderId::new().to_string();
    let new = NewLedgerRow {
        kind: LedgerKind::Adjustment,
        amount: 4 * MILLION,
        key: &key,
        reference: None,
        expires_at: None,
    };
    stage.platform.store().add_credits(&stage.tenant.scope, &new).await.unwrap();
    jobs.all(Job::Sweep, false).await;
    stage.spend().await;
    let both = join_all((0..3).map(|_| jobs.all(Job::Sweep, false))).await;
    assert!(!both.is_empty());
    let again = jobs.mails();
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].id, told[0].id);
    stage.rules(None, None).await.unwrap();
    assert_eq!(stage.sweep().await.changed, 0);
}

#[tokio::test]
async fn more_is_bought_until_the_months_cap_and_again_in_the_next_month() {
    let stage = Stage::running_out().await;
    for bought in 1..=2 {
        assert_eq!(stage.sweep().await.changed, 1);
        assert_eq!((stage.credits().await, stage.charges()), (11 * MILLION, 1));
        assert_eq!(stage.sweep().await.changed, 0, "there is enough");
        assert_eq!(stage.watch().await.spent, bought * SMALL);
        stage.spend().await;
    }
    assert_eq!((stage.sweep().await.changed, stage.charges()), (0, 0), "a third would be more than the cap");
    let watch = stage.watch().await;
    assert_eq!((watch.on().is_some(), watch.order), (true, None));
    // What was bought are orders like all others.
    let orders = stage.platform.store().orders(&stage.tenant.scope, 10, None).await.unwrap().items;
    assert_eq!(orders.iter().map(|order| order.state()).collect::<Vec<_>>(), [OrderState::Paid; 2]);
    assert!(orders.iter().all(|order| order.is_settled()));
    stage.advance(Period::of(stage.stripe.now() * 1000).end() - stage.stripe.now() * 1000);
    assert_eq!((stage.sweep().await.changed, stage.charges()), (1, 1));
    assert_eq!(stage.watch().await.spent, SMALL);
    stage.platform.books(&stage.tenant).await;
}

#[tokio::test]
async fn sweeps_at_the_same_time_buy_once() {
    let stage = Stage::running_out().await;
    let commerce = &stage.commerce;
    join_all((0..5).map(|_| async move {
        for (message, _) in std::iter::from_fn({
            let jobs = Jobs::with(commerce.clone());
            tenantry_quota_reset::fan_out(&jobs.state, Job::Sweep).await.unwrap();
            move || jobs.next()
        }) {
            // One that meets another on the same rows may have to come again.
            let _ = tenantry_quota_reset::run(&Jobs::with(commerce.clone()).state, &message, &|| false).await;
        }
    }))
    .await;
    stage.sweep().await;
    assert_eq!((stage.charges(), stage.credits().await), (1, 11 * MILLION));
    let watch = stage.watch().await;
    assert_eq!((watch.spent, watch.order, watch.failed_at), (SMALL, None, None));
}

#[tokio::test]
async fn a_card_that_declines_switches_it_off_and_the_owners_are_told() {
    let stage = Stage::running_out().await;
    let customer = stage.platform.store().account(&stage.tenant.scope).await.unwrap().customer.unwrap();
    stage.stripe.set_cards(&customer, Card::NoFunds).unwrap();
    let jobs = Jobs::with(stage.commerce.clone());
    jobs.all(Job::Sweep, false).await;
    let mails = jobs.mails();
    assert_eq!(mails.iter().map(|mail| mail.content.template()).collect::<Vec<_>>(), ["top_up_failed"]);
    let watch = stage.watch().await;
    assert_eq!((watch.on(), watch.spent, watch.order.as_ref()), (None, 0, None));
    assert!(watch.failed_at.is_some());
    stage.stripe.set_cards(&customer, Card::Pays).unwrap();
    stage.advance(2 * HOUR);
    jobs.all(Job::Sweep, false).await;
    assert_eq!((stage.charges(), stage.credits().await, jobs.mails().len()), (0, MILLION, 0), "it stays off");
    assert_eq!(stage.rules(None, Some(RULE)).await.unwrap().failed_at, None);
    assert_eq!((stage.sweep().await.changed, stage.charges()), (1, 1));
}

#[tokio::test]
async fn whoever_dies_over_it_is_followed_by_somebody_who_charges_nothing_twice() {
    // Before the charge, and after it.
    for charged in [false, true] {
        let stage = Stage::running_out().await;
        let (order, method) = stage.begun().await;
        if charged {
            stage.charge(&order, &method).await;
        }
        stage.sweep().await;
        assert_eq!((stage.charges(), stage.state_of(&order).await), (1, OrderState::Paid));
        assert_eq!((stage.credits().await, stage.watch().await.order), (11 * MILLION, None));
    }
    // So late that Stripe has forgotten the key: what was charged is found, and nothing else is charged.
    for charged in [false, true] {
        let stage = Stage::running_out().await;
        let (order, method) = stage.begun().await;
        if charged {
            stage.charge(&order, &method).await;
        }
        stage.advance(2 * DAY);
        stage.sweep().await;
        let (state, credits) = if charged { (OrderState::Paid, 11 * MILLION) } else { (OrderState::Failed, MILLION) };
        assert_eq!((stage.charges(), stage.state_of(&order).await), (usize::from(charged), state));
        assert_eq!((stage.credits().await, stage.watch().await.on().is_some()), (credits, charged));
    }
}

#[tokio::test]
async fn while_stripe_is_away_the_sweep_goes_on_and_comes_again() {
    let stage = Stage::running_out().await;
    for _ in 0..9 {
        stage.stripe.fail_next(Fault::Refused);
    }
    let jobs = Jobs::with(stage.commerce.clone());
    let away = sum(jobs.all(Job::Sweep, false).await);
    assert_eq!((away.orders_failed, away.changed, jobs.mails().len()), (1, 0, 0));
    assert_eq!(jobs.waiting(), 0, "it waits for the next sweep");
    clear_faults(&stage).await;
    assert_eq!((stage.charges(), stage.watch().await.on().is_some()), (0, true));
    // The answer to a charge that was made is lost.
    let (order, _) = stage.begun().await;
    for _ in 0..3 {
        stage.stripe.fail_next(Fault::AnswerLost);
    }
    assert_eq!(stage.sweep().await.orders_failed, 1);
    assert_eq!((stage.state_of(&order).await, stage.credits().await), (OrderState::Created, MILLION));
    assert_eq!(stage.sweep().await.changed, 1);
    assert_eq!((stage.charges(), stage.credits().await), (1, 11 * MILLION));
}

async fn restore(stage: &Stage) {
    let login = stage.platform.login(&stage.tenant).await;
    let path = format!("/api/v1/organizations/{}/restore", stage.tenant.org);
    stage.platform.post(&path, text(&login, "/access_token"), Value::Null).await.expect(200);
}

#[tokio::test]
async fn nothing_is_bought_for_an_organization_that_was_deleted_unless_it_comes_back() {
    let stage = Stage::running_out().await;
    delete(&stage).await;
    let orders = async || stage.platform.store().orders(&stage.tenant.scope, 10, None).await.unwrap().items.len();
    assert_eq!((stage.sweep().await.changed, stage.charges(), orders().await), (0, 0, 0));
    // Nor by one who saw it before it was deleted.
    let watch = stage.watch().await;
    assert_eq!((stage.begins().await.2, stage.watch().await, orders().await), (false, watch, 0));
    stage.advance(DAY);
    restore(&stage).await;
    assert_eq!((stage.sweep().await.changed, stage.charges(), orders().await), (1, 1, 1));
    assert_eq!(stage.credits().await, 11 * MILLION);
}

#[tokio::test]
async fn what_was_ordered_before_the_organization_was_deleted_is_not_charged_after() {
    // Nobody had charged it by then, and somebody had.
    for charged in [false, true] {
        let stage = Stage::running_out().await;
        let (order, method) = stage.begun().await;
        if charged {
            stage.charge(&order, &method).await;
        }
        delete(&stage).await;
        for _ in 0..2 {
            stage.sweep().await;
            stage.advance(HOUR / 3);
        }
        assert_eq!((stage.charges(), stage.state_of(&order).await), (usize::from(charged), OrderState::Created));
        stage.advance(HOUR);
        assert_eq!(stage.sweep().await.orders_failed, 0);
        let (state, credits) = if charged { (OrderState::Paid, 11 * MILLION) } else { (OrderState::Failed, MILLION) };
        assert_eq!((stage.charges(), stage.state_of(&order).await, stage.credits().await), (0, state, credits));
    }
    // And it holds up no erasure.
    let stage = Stage::running_out().await;
    stage.begun().await;
    delete(&stage).await;
    stage.advance(30 * DAY);
    stage.lose();
    sum(Jobs::with(stage.commerce.clone()).all(Job::Erase, false).await);
    assert_eq!((stage.charges(), left(&stage)), (0, 0));
}

#[tokio::test]
async fn only_what_can_be_paid_can_be_switched_on() {
    let stage = Stage::new().await;
    assert_eq!(stage.watch().await, CreditWatch::default());
    let refused = async |rule| stage.rules(None, Some(rule)).await.unwrap_err().to_string();
    assert_eq!(refused(RULE).await, "there is no saved payment method");
    assert_eq!(refused(TopUpRule { package: "gone", ..RULE }).await, "there is no such package");
    let poor = TopUpRule { monthly_cap: SMALL - 1, ..RULE };
    assert_eq!(refused(poor).await, "the package costs more than the monthly cap");
    let off = stage.rules(Some(5), Some(TopUpRule { enabled: false, ..poor })).await.unwrap();
    assert_eq!((off.on(), off.notify_below, off.version), (None, Some(5), 1));
    assert_eq!(stage.watch().await, off);
}

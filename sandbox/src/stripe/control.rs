//! What people, banks and time do to an account: the handles that tests and pages turn.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Map, Value, json};
use tenantry_domain::{Clock as _, Millis};

use super::{
    StripeSandbox, calendar, checkout, checkout_payment, disputes,
    error::{Answer, StripeError},
    events::{Queued, SignedDelivery},
    intents::{self, Outcome},
    invoice_payments, invoices,
    object::{Kind, text},
    params::Params,
    refunds,
    settings::{Card, Fault, Payer, Settings},
    state::State,
};
use crate::AheadClock;

impl StripeSandbox {
    /// The clock's time in seconds since the epoch, once everything is done that was due by then.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.lock().now
    }

    /// Turns the clock, and does what was due meanwhile.
    pub fn advance(&self, millis: Millis) {
        self.clock().advance(millis.max(0));
        drop(self.lock());
    }

    /// Turns the clock by calendar months.
    pub fn advance_months(&self, months: i64) {
        let now = self.now();
        self.advance((calendar::after(now, calendar::Unit::Month, months) - now).saturating_mul(1000));
    }

    /// Somebody pays at a checkout session, with a card that pays.
    ///
    /// # Errors
    /// When the session is not open.
    pub fn pay(&self, session: &str) -> Result<(), StripeError> {
        self.pay_as(session, &Payer::default())
    }

    /// Somebody pays at a checkout session.
    ///
    /// # Errors
    /// When the session is not open, or the card declines: then another can be tried.
    pub fn pay_as(&self, session: &str, payer: &Payer) -> Result<(), StripeError> {
        checkout_payment::complete(&mut self.lock(), session, payer)
    }

    /// Somebody tries to pay at a checkout session with a card that declines.
    ///
    /// # Errors
    /// When the session is not open.
    pub fn decline(&self, session: &str) -> Result<(), StripeError> {
        let payer = Payer { card: Card::Declines, ..Payer::default() };
        match self.pay_as(session, &payer) {
            Err(error) if error.kind != "card_error" => Err(error),
            _ => Ok(()),
        }
    }

    /// A checkout session expires before its time.
    ///
    /// # Errors
    /// When the session is not open.
    pub fn expire(&self, session: &str) -> Result<(), StripeError> {
        let mut s = self.lock();
        checkout::open(&s, session, "expired")?;
        checkout::expired(&mut s, session);
        Ok(())
    }

    /// A payment that was [delayed](Payer::delayed) ends.
    ///
    /// # Errors
    /// When the session waits for none.
    pub fn settle(&self, session: &str, paid: bool) -> Result<(), StripeError> {
        checkout_payment::settle(&mut self.lock(), session, paid)
    }

    /// From now on every card of a customer behaves so.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn set_cards(&self, customer: &str, card: Card) -> Result<(), StripeError> {
        let mut s = self.lock();
        s.named(Kind::Customer, customer)?;
        let of_customer = |method: &Value| method["customer"].as_str() == Some(customer);
        for method in s.ids(Kind::PaymentMethod, of_customer) {
            s.cards.insert(method, card);
        }
        Ok(())
    }

    /// The holder of a card confirms a payment intent, or refuses to.
    ///
    /// # Errors
    /// When the intent waits for nobody.
    pub fn authenticate(&self, intent: &str, confirmed: bool) -> Result<(), StripeError> {
        let mut s = self.lock();
        let outcome = intents::authenticated(&mut s, intent, confirmed)?;
        match (outcome, invoice_payments::invoice_of(&s, intent)) {
            (Outcome::Succeeded, Some(invoice)) => invoices::mark_paid(&mut s, &invoice, false),
            (Outcome::Succeeded, None) => intents::save_method(&mut s, intent)?,
            _ => {}
        }
        Ok(())
    }

    /// Somebody pays an invoice on its page.
    ///
    /// # Errors
    /// When the invoice is not open, or the card declines.
    pub fn pay_invoice(&self, invoice: &str) -> Result<(), StripeError> {
        let by_hand = Map::from_iter([("off_session".to_owned(), json!("false"))]);
        invoices::pay(&mut self.lock(), invoice, Params::new(by_hand)).map(drop)
    }

    /// The merchant refunds a charge in the dashboard: `amount` of it, or all that is left.
    ///
    /// # Errors
    /// When there is not so much left.
    pub fn refund(&self, charge: &str, amount: Option<i64>) -> Result<String, StripeError> {
        let mut params = Map::from_iter([("charge".to_owned(), json!(charge))]);
        params.extend(amount.map(|amount| ("amount".to_owned(), json!(amount.to_string()))));
        let refund = refunds::create(&mut self.lock(), Params::new(params))?;
        Ok(text(&refund, "id").to_owned())
    }

    /// A bank opens a dispute about a charge, about all of it when no amount is given, and says why (`fraudulent`).
    ///
    /// # Errors
    /// When the charge is not paid, or disputed.
    pub fn open_dispute(&self, charge: &str, amount: Option<i64>, reason: &str) -> Result<String, StripeError> {
        disputes::open(&mut self.lock(), charge, amount, reason)
    }

    /// A bank closes a dispute.
    ///
    /// # Errors
    /// When it is closed.
    pub fn close_dispute(&self, dispute: &str, won: bool) -> Result<(), StripeError> {
        disputes::close(&mut self.lock(), dispute, won)
    }

    /// A bank sends the money of a refund back.
    ///
    /// # Errors
    /// When the refund has failed before.
    pub fn fail_refund(&self, refund: &str) -> Result<(), StripeError> {
        refunds::fail(&mut self.lock(), refund)
    }

    /// One of the next calls suffers this; faults are served one by one.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// From now on the answers to writes below this path (`/v1/subscriptions`) are lost: they are done, and nobody hears of
    /// it. Until another path is set, or none.
    pub fn lose_answers(&self, below: Option<&str>) {
        self.lock().losing = below.map(str::to_owned);
    }

    /// From now on the key may not call what is below this path (`/v1/disputes`), like a restricted one that lacks the
    /// permission. Until another path is set, or none.
    pub fn deny(&self, below: Option<&str>) {
        self.lock().denied = below.map(str::to_owned);
    }

    /// An object as the API would answer it.
    #[must_use]
    pub fn object(&self, id: &str) -> Option<Value> {
        self.lock().any(id).cloned()
    }

    /// Every event, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.lock().all(Kind::Event).cloned().collect()
    }

    /// Takes every delivery that waits, in the order of the events, signed now. They count as made only when
    /// [`acknowledge`](Self::acknowledge) says so, and are not made again by themselves.
    #[must_use]
    pub fn take_events(&self) -> Vec<SignedDelivery> {
        let mut s = self.lock();
        let queued = std::mem::take(&mut s.queue);
        queued.iter().filter_map(|queued| self.sealed(&s, queued)).collect()
    }

    /// A delivery, signed now.
    pub(super) fn sealed(&self, s: &State, queued: &Queued) -> Option<SignedDelivery> {
        let event = s.get(Kind::Event, &queued.event)?;
        Some(SignedDelivery::new(event, queued.attempts, &s.settings.webhook_secret, self.seconds()))
    }

    /// The delivery once more, signed now: Stripe signs every attempt anew.
    #[must_use]
    pub fn signed_again(&self, delivery: &SignedDelivery) -> SignedDelivery {
        let mut again = delivery.clone();
        again.sign(&self.lock().settings.webhook_secret, self.seconds());
        again
    }

    fn seconds(&self) -> i64 {
        self.clock().now().div_euclid(1000)
    }

    /// The endpoint took the delivery.
    pub fn acknowledge(&self, delivery: &SignedDelivery) {
        self.lock().delivered(&delivery.event);
    }

    /// Delivers an event once more, whatever became of it.
    ///
    /// # Errors
    /// When there is no such event.
    pub fn repeat(&self, event: &str) -> Result<(), StripeError> {
        self.lock().repeat(event)
    }

    /// Holds deliveries back, or lets them go.
    pub fn hold(&self, held: bool) {
        self.lock().held = held;
    }

    /// Delays what waits now by so many milliseconds.
    pub fn delay(&self, millis: Millis) {
        let due = self.clock().now().saturating_add(millis);
        self.lock().queue.iter_mut().for_each(|queued| queued.due = queued.due.max(due));
    }

    /// Turns the order of the waiting deliveries around.
    pub fn reverse(&self) {
        self.lock().queue.reverse();
    }

    /// Everything the account holds, for [`restored`](Self::restored).
    #[must_use]
    pub fn saved(&self) -> String {
        serde_json::to_string::<State>(&self.lock()).unwrap_or_default()
    }

    /// An account that [`saved`](Self::saved) wrote.
    ///
    /// # Errors
    /// When `saved` is nothing that was written so.
    pub fn restored(clock: Arc<AheadClock>, settings: Settings, saved: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::with_state(clock, settings, serde_json::from_str(saved)?))
    }

    /// Counts up with every change, so that one knows when to save.
    #[must_use]
    pub fn changes(&self) -> u64 {
        drop(self.lock());
        self.inner.changes.load(Ordering::SeqCst)
    }

    /// Does something that a page asks for, and says why not.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> Answer<T>) -> Answer<T> {
        f(&mut self.lock())
    }
}

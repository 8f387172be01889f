//! What people, banks and time do to an account: the handles that tests and pages turn.

use serde_json::Value;

use super::{
    Stripe, calendar, checkout, checkout_payment,
    deliverer::delay,
    disputes,
    error::{Answer, StripeError},
    events::{Delivery, Queued, sign},
    intents::{self, Outcome},
    invoice_payments, invoices, lifecycle,
    object::Kind,
    refunds,
    settings::{Card, Fault, Payer, Settings},
    state::State,
};

impl Stripe {
    /// The double's time, in seconds since the epoch.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.lock().now
    }

    /// Puts the double ahead of its clock by so many seconds more, and does what was due meanwhile. Signatures keep to
    /// the clock, as they do with Stripe's test clocks.
    pub fn advance(&self, seconds: i64) {
        let mut s = self.lock();
        s.ahead += seconds.max(0);
        let until = s.now + seconds.max(0);
        lifecycle::run(&mut s, until);
    }

    /// Puts the double ahead by calendar months.
    pub fn advance_months(&self, months: i64) {
        let now = self.now();
        self.advance(calendar::after(now, calendar::Unit::Month, months) - now);
    }

    /// Somebody pays at a checkout session.
    ///
    /// # Errors
    /// When the session is not open, or the card declines: then another can be tried.
    pub fn complete(&self, session: &str, payer: &Payer) -> Result<(), StripeError> {
        checkout_payment::complete(&mut self.lock(), session, payer)
    }

    /// Somebody tries to pay at a checkout session with a card that declines.
    ///
    /// # Errors
    /// When the session is not open.
    pub fn decline(&self, session: &str) -> Result<(), StripeError> {
        let payer = Payer { card: Card::Declines, ..Payer::default() };
        match self.complete(session, &payer) {
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
    pub fn take(&self) -> Vec<Delivery> {
        let mut s = self.lock();
        let queued = std::mem::take(&mut s.queue);
        queued.iter().filter_map(|queued| self.sealed(&s, queued)).collect()
    }

    /// A delivery, signed now.
    pub(super) fn sealed(&self, s: &State, queued: &Queued) -> Option<Delivery> {
        s.delivery(queued, &self.settings().endpoints, self.settings().clock.now().div_euclid(1000))
    }

    /// The delivery once more, signed now: Stripe signs every attempt anew.
    #[must_use]
    pub fn signed_again(&self, delivery: &Delivery) -> Delivery {
        let now = self.settings().clock.now().div_euclid(1000);
        let secret = self.settings().endpoints.get(delivery.endpoint).map_or("", |endpoint| endpoint.secret.as_str());
        Delivery { signature: sign(&delivery.body, secret, now), ..delivery.clone() }
    }

    /// The endpoint took the delivery.
    pub fn acknowledge(&self, delivery: &Delivery) {
        self.lock().delivered(&delivery.event);
    }

    /// The endpoint did not take the delivery: it waits for its next attempt.
    pub(super) fn put_back(&self, delivery: &Delivery) {
        let attempts = delivery.attempts + 1;
        let Some(delay) = delay(attempts) else { return };
        let due = self.settings().clock.now() + delay;
        let again = Queued { event: delivery.event.clone(), endpoint: delivery.endpoint, attempts, due };
        self.lock().queue.push(again);
    }

    /// Delivers an event once more, whatever became of it.
    ///
    /// # Errors
    /// When there is no such event.
    pub fn repeat(&self, event: &str) -> Result<(), StripeError> {
        self.lock().repeat(event, &self.settings().endpoints)
    }

    /// Holds deliveries back, or lets them go.
    pub fn hold(&self, held: bool) {
        self.lock().held = held;
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
    pub fn restored(settings: Settings, saved: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::with_state(settings, serde_json::from_str(saved)?))
    }

    /// Does something that a page asks for, and says why not.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> Answer<T>) -> Answer<T> {
        f(&mut self.lock())
    }
}

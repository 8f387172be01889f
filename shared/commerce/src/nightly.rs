//! What is held against Stripe every night, so that nothing that was missed stays missed: the events that no endpoint took,
//! and for each tenant its subscriptions and the invoices that it has paid.
//!
//! What differs is repaired where it is clear what is right, which is what Stripe says. The rest is counted as a mismatch,
//! and somebody has to look.

use tenantry_domain::{Millis, SubscriptionStatus, account::Account};
use tenantry_payments::stripe::{Delivery, Event, InvoiceStatus, Stripe, Subscription};
use tenantry_store::{EventClaim, TenantScope, TimeIsUp};
use tenantry_web::mail::MailQueue;

use crate::{Commerce, CommerceError};

/// How far back invoices are looked at: a month, and what a late payment of it may take.
const INVOICES_OF: Millis = 45 * 24 * 3_600_000;

/// The name of Stripe in claims of events.
const STRIPE: &str = "stripe";

/// What came of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Differences that were repaired.
    pub repaired: u64,
    /// Differences that were not; the log says which.
    pub mismatches: u64,
}

impl Compared {
    fn mismatch(&mut self, scope: &TenantScope, object: &str, why: &str) {
        tracing::error!(org = %scope.org(), object, why, "Stripe and we do not agree, and somebody has to look");
        self.mismatches += 1;
    }

    /// Counts what came of one thing; what has to be looked at by somebody keeps nothing else up.
    fn count(
        &mut self,
        scope: &TenantScope,
        object: &str,
        done: Result<bool, CommerceError>,
    ) -> Result<(), CommerceError> {
        match done {
            Ok(repaired) => self.repaired += u64::from(repaired),
            Err(error @ CommerceError::Mismatch(_)) => self.mismatch(scope, object, &error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What came of some events that were not delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Events that had an effect on one of our tenants.
    pub repaired: u64,
    /// Events that nobody can handle.
    pub mismatches: u64,
    /// Events that could not be handled now.
    pub failed: u64,
    /// The event behind which to go on; none when that was all.
    pub next: Option<String>,
}

impl Commerce {
    /// Holds everything that Stripe has of this tenant against what we have.
    ///
    /// # Errors
    /// [`CommerceError`]; a part may have been repaired, and the next call goes on. A tenant that is a customer of Stripe's
    /// while Stripe is not configured is an error: not to look is no result.
    pub async fn compare(&self, scope: &TenantScope) -> Result<Compared, CommerceError> {
        let mut compared = Compared::default();
        let account = self.store.account(scope).await?;
        if let Some(customer) = &account.customer {
            let stripe = self.stripe()?;
            match stripe.subscriptions_of(customer).await {
                Ok(seen) => {
                    self.compare_subscriptions(scope, &seen, &mut compared).await?;
                    self.compare_invoices(scope, stripe, customer, &mut compared).await?;
                }
                Err(error) if error.is_missing() => compared.mismatch(scope, customer, "the customer is not there"),
                Err(error) => return Err(error.into()),
            }
        }
        // What was bought anywhere and is written down, and did not get to the meter.
        if account.version > 0 {
            compared.repaired += u64::from(self.entitle(scope).await?.before.is_some());
        }
        Ok(compared)
    }

    async fn compare_subscriptions(
        &self,
        scope: &TenantScope,
        seen: &[Subscription],
        compared: &mut Compared,
    ) -> Result<(), CommerceError> {
        for seen in seen {
            let before = self.store.account(scope).await?.subscription;
            let synced = match self.sync_subscription(&seen.id).await {
                Ok(Some(planned)) => {
                    let after = self.store.account(scope).await?.subscription;
                    Ok(planned.before.is_some() || before != after)
                }
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            compared.count(scope, &seen.id, synced)?;
        }
        let Account { subscription: Some(known), .. } = self.store.account(scope).await? else { return Ok(()) };
        if let SubscriptionStatus::Unknown(_) = known.standing.status {
            compared.mismatch(scope, &known.id, "it has a status that is not known here");
        }
        if !known.standing.status.is_terminal() && !seen.iter().any(|seen| seen.id == known.id) {
            compared.mismatch(scope, &known.id, "Stripe does not have it among the customer's");
        }
        for other in seen.iter().filter(|seen| seen.id != known.id && pays(&seen.status)) {
            compared.mismatch(scope, &other.id, "it is paid for beside the one that counts");
        }
        Ok(())
    }

    /// Invoices that were paid and whose credits were not granted.
    async fn compare_invoices(
        &self,
        scope: &TenantScope,
        stripe: &Stripe,
        customer: &str,
        compared: &mut Compared,
    ) -> Result<(), CommerceError> {
        let since = self.store.now() - INVOICES_OF;
        for invoice in stripe.invoices_of(customer, 100, None).await?.items {
            let paid = invoice.status == Some(InvoiceStatus::Paid) && invoice.subscription.is_some();
            let key = invoice_key(&invoice.id);
            if !paid || invoice.created < since || self.store.is_booked(scope, &key).await? {
                continue;
            }
            let granted = match self.grant_for_invoice(scope, &invoice).await {
                Ok(()) => Ok(self.store.is_booked(scope, &key).await?),
                Err(error) => Err(error),
            };
            compared.count(scope, &invoice.id, granted)?;
        }
        Ok(())
    }

    /// Handles a page of the events since `since` that some endpoint has not taken, those behind the event `after`, as the
    /// endpoint would have.
    ///
    /// # Errors
    /// [`CommerceError`] when it cannot be found out which these are. One event that fails keeps up none of the others.
    pub async fn catch_up(
        &self,
        since: Millis,
        after: Option<&str>,
        mails: &dyn MailQueue,
        time_is_up: TimeIsUp<'_>,
    ) -> Result<CaughtUp, CommerceError> {
        let page = self.stripe()?.undelivered_events(since, after).await?;
        let mut caught_up = CaughtUp { next: page.next, ..CaughtUp::default() };
        let mut last = None::<String>;
        for delivery in &page.items {
            if last.is_some() && time_is_up() {
                caught_up.next = last;
                return Ok(caught_up);
            }
            let Some(id) = delivery.id() else {
                tracing::error!("an event without an id was not delivered");
                caught_up.mismatches += 1;
                continue;
            };
            if let Err(error) = self.take_undelivered(id, delivery, mails, &mut caught_up).await {
                tracing::error!(event = id, %error, "an event that was not delivered was not handled");
                caught_up.failed += 1;
            }
            last = Some(id.to_owned());
        }
        Ok(caught_up)
    }

    async fn take_undelivered(
        &self,
        id: &str,
        delivery: &Delivery,
        mails: &dyn MailQueue,
        caught_up: &mut CaughtUp,
    ) -> Result<(), CommerceError> {
        let EventClaim::Mine(claim) = self.store.claim_event(STRIPE, id).await? else { return Ok(()) };
        let done = match delivery {
            Delivery::Event(event) => self.take_event(event, mails, caught_up).await,
            Delivery::Unreadable(unreadable) => {
                tracing::error!(event = id, why = unreadable.why, "an event that was not delivered cannot be read");
                caught_up.mismatches += 1;
                let kind = unreadable.kind.as_deref().unwrap_or("?");
                Ok(self.store.keep_unreadable_event(STRIPE, id, kind).await?)
            }
        };
        match done {
            Ok(()) => Ok(self.store.finish_event(&claim).await?),
            Err(error) => {
                self.store.release_event(&claim).await?;
                Err(error)
            }
        }
    }

    async fn take_event(
        &self,
        event: &Event,
        mails: &dyn MailQueue,
        caught_up: &mut CaughtUp,
    ) -> Result<(), CommerceError> {
        match self.handle(event).await {
            Ok(handled) => {
                for mail in self.mails(&event.id, &handled).await? {
                    mails.send(&mail).await?;
                }
                caught_up.repaired += u64::from(handled.org.is_some());
                Ok(())
            }
            Err(CommerceError::Mismatch(mismatch)) => {
                let why = mismatch.to_string();
                tracing::error!(event = event.id, kind = event.kind, why, "an event that was not delivered is refused");
                caught_up.mismatches += 1;
                Ok(self.store.keep_refused_event(STRIPE, &event.id, &why, &event.kind).await?)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether money is taken for it.
const fn pays(status: &SubscriptionStatus) -> bool {
    matches!(status, SubscriptionStatus::Trialing | SubscriptionStatus::Active | SubscriptionStatus::PastDue)
}

/// The key of what comes with an invoice.
pub(crate) fn invoice_key(invoice: &str) -> String {
    format!("invoice:{invoice}")
}

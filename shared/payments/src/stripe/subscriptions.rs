//! Subscriptions (<https://docs.stripe.com/api/subscriptions>).

use std::collections::HashMap;

use serde::Deserialize;
use stripe_billing::subscription::{
    CancelSubscription, ListSubscription, ListSubscriptionStatus, RetrieveSubscription, UpdateSubscription,
    UpdateSubscriptionCancellationDetails, UpdateSubscriptionItems, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior, UpdateSubscriptionTrialEnd,
};
use stripe_client_core::{RequestBuilder, StripeMethod};
use tenantry_domain::{Millis, SubscriptionStatus};

use super::{
    OperationKey, Price, Stripe, StripeError,
    wire::{self, Listed, Metadata, path_id, seconds},
};

/// Pages of a customer's subscriptions that are read at most; a hundred each.
const MAX_PAGES: usize = 10;

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscription {
    /// `sub_…`
    pub id: String,
    /// Who pays.
    #[serde(deserialize_with = "wire::id")]
    pub customer: String,
    /// How it stands.
    pub status: SubscriptionStatus,
    /// What is subscribed. Ours have one.
    #[serde(deserialize_with = "wire::list")]
    pub items: Vec<SubscriptionItem>,
    /// `usd`
    pub currency: String,
    /// Whether it ends with the period.
    pub cancel_at_period_end: bool,
    /// When it will end by itself.
    #[serde(default, deserialize_with = "wire::opt_millis")]
    pub cancel_at: Option<Millis>,
    /// When it was said that it shall end.
    #[serde(default, deserialize_with = "wire::opt_millis")]
    pub canceled_at: Option<Millis>,
    /// When it ended.
    #[serde(default, deserialize_with = "wire::opt_millis")]
    pub ended_at: Option<Millis>,
    /// When the trial ends or ended.
    #[serde(default, deserialize_with = "wire::opt_millis")]
    pub trial_end: Option<Millis>,
    /// The newest invoice.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub latest_invoice: Option<String>,
    /// What it is paid with, when not with the customer's default.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub default_payment_method: Option<String>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// A change that waits for its payment.
    #[serde(default)]
    pub pending_update: Option<PendingUpdate>,
    /// When it was made.
    #[serde(deserialize_with = "wire::millis")]
    pub created: Millis,
    /// Whether it is about real money.
    pub livemode: bool,
}

/// One thing that is subscribed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SubscriptionItem {
    /// `si_…`
    pub id: String,
    /// What a period costs.
    pub price: Price,
    /// How many.
    #[serde(default)]
    pub quantity: Option<u64>,
    /// When the current period began. Older versions of the API have it elsewhere; such a subscription is unreadable.
    #[serde(rename = "current_period_start", deserialize_with = "wire::millis")]
    pub period_start: Millis,
    /// When the current period ends, and the next begins.
    #[serde(rename = "current_period_end", deserialize_with = "wire::millis")]
    pub period_end: Millis,
}

/// A change that is made once it is paid, or forgotten (<https://docs.stripe.com/billing/subscriptions/pending-updates>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PendingUpdate {
    /// When it is forgotten.
    #[serde(deserialize_with = "wire::millis")]
    pub expires_at: Millis,
}

/// What becomes of the rest of a period when the price changes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proration {
    /// Settled now, by an invoice of its own.
    Now,
    /// Settled by the next invoice.
    NextInvoice,
    /// Not settled.
    None,
}

/// What becomes of a change whose payment fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentBehavior {
    /// It waits for the payment, 23 hours at most: nobody gets a plan that is not paid.
    Pending,
    /// It is refused.
    Refuse,
    /// It is made, and the subscription is past due.
    Allow,
}

/// Another price for a subscription.
#[derive(Debug, Clone, Copy)]
pub struct PriceChange<'a> {
    /// `sub_…`
    pub subscription: &'a str,
    /// The item whose price changes, `si_…`; without it the new price would come on top.
    pub item: &'a str,
    /// `price_…`
    pub price: &'a str,
    /// What becomes of the rest of the period.
    pub proration: Proration,
    /// From when the rest is reckoned: that of a preview, so that what was shown is what is charged.
    pub proration_date: Option<Millis>,
    /// Whether the trial is over with it: a period that is paid for begins then. Of one that is not in its trial, no matter.
    pub ends_trial: bool,
    /// Words of ours that are set by the same call, or taken away where they are empty. Stripe takes none along with
    /// [`PaymentBehavior::Pending`].
    pub metadata: &'a [(&'a str, &'a str)],
}

impl PriceChange<'_> {
    fn items(&self) -> Result<UpdateSubscriptionItems, StripeError> {
        let mut item = UpdateSubscriptionItems::new();
        item.id = Some(path_id("items", self.item)?.to_owned());
        item.price = Some(self.price.to_owned());
        Ok(item)
    }
}

impl Stripe {
    /// A subscription as it stands now; an ended one too.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn subscription(&self, id: &str) -> Result<Subscription, StripeError> {
        self.get(RetrieveSubscription::new(path_id("subscription", id)?)).await
    }

    /// All subscriptions of a customer, ended ones too, newest first.
    ///
    /// # Errors
    /// [`StripeError`]; `Malformed` for more than a thousand, because some would be missing.
    pub async fn subscriptions_of(&self, customer: &str) -> Result<Vec<Subscription>, StripeError> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let mut request = ListSubscription::new().customer(customer).status(ListSubscriptionStatus::All).limit(100);
            if let Some(after) = after {
                request = request.starting_after(after);
            }
            let page = self.get::<Listed<Subscription>>(request).await?.page(|item| Some(&item.id))?;
            all.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
        Err(StripeError::Malformed("a customer with more than a thousand subscriptions".to_owned()))
    }

    /// Changes the price. The day of the month on which invoices are written stays, unless the new price has another
    /// interval: then a new period begins now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn change_price(
        &self,
        change: &PriceChange<'_>,
        payment: PaymentBehavior,
        key: &OperationKey,
    ) -> Result<Subscription, StripeError> {
        let mut request = UpdateSubscription::new(path_id("subscription", change.subscription)?)
            .items([change.items()?])
            .proration_behavior(match change.proration {
                Proration::Now => UpdateSubscriptionProrationBehavior::AlwaysInvoice,
                Proration::NextInvoice => UpdateSubscriptionProrationBehavior::CreateProrations,
                Proration::None => UpdateSubscriptionProrationBehavior::None,
            })
            .payment_behavior(match payment {
                PaymentBehavior::Pending => UpdateSubscriptionPaymentBehavior::PendingIfIncomplete,
                PaymentBehavior::Refuse => UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete,
                PaymentBehavior::Allow => UpdateSubscriptionPaymentBehavior::AllowIncomplete,
            });
        if let Some(at) = change.proration_date {
            request = request.proration_date(seconds(at));
        }
        if change.ends_trial {
            request = request.trial_end(UpdateSubscriptionTrialEnd::Now);
        }
        if !change.metadata.is_empty() {
            let words = change.metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            request = request.metadata(words.collect::<HashMap<_, _>>());
        }
        self.change(request, key).await
    }

    /// Lets the subscription end with its period. `comment` is what the customer said, for the statistics.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn cancel_at_period_end(
        &self,
        id: &str,
        comment: Option<&str>,
        key: &OperationKey,
    ) -> Result<Subscription, StripeError> {
        let mut request = UpdateSubscription::new(path_id("subscription", id)?).cancel_at_period_end(true);
        if let Some(comment) = comment {
            let mut details = UpdateSubscriptionCancellationDetails::new();
            details.comment = Some(comment.to_owned());
            request = request.cancellation_details(details);
        }
        self.change(request, key).await
    }

    /// Takes a cancellation back that has not come true. One for a stated day, as the portal may make it, is taken back by
    /// another parameter than one for the period's end; hence the subscription as it stands.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn resume(&self, subscription: &Subscription, key: &OperationKey) -> Result<Subscription, StripeError> {
        let id = path_id("subscription", &subscription.id)?;
        if subscription.cancel_at.is_some() && !subscription.cancel_at_period_end {
            // Empty means none; the builder has no way to say so.
            let mut request = RequestBuilder::new(StripeMethod::Post, format!("/subscriptions/{id}"));
            request.body = Some("cancel_at=".to_owned());
            return self.call(request, Some(key)).await;
        }
        self.change(UpdateSubscription::new(id).cancel_at_period_end(false), key).await
    }

    /// Ends the subscription now. What was paid for the rest of the period is not given back; a refund is another call.
    /// Done again, it is done: Stripe refuses to end what has ended, and then the ended subscription is the answer.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn cancel_now(&self, id: &str, key: &OperationKey) -> Result<Subscription, StripeError> {
        let ended = self.change(CancelSubscription::new(path_id("subscription", id)?), key).await;
        match ended {
            Err(StripeError::Refused(refusal)) => match self.subscription(id).await {
                Ok(subscription) if subscription.status.is_terminal() => Ok(subscription),
                _ => Err(StripeError::Refused(refusal)),
            },
            other => other,
        }
    }
}

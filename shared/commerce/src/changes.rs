//! Changes of a subscription to another price, which are charged and never pay back within a period: what a period has given,
//! its allowances and credits, would stay.
//!
//! A larger plan, or a longer interval, is to be had now, for the difference. A smaller plan comes with the next period: its
//! price is at Stripe at once, so that the next invoice is for it, and the subscription's metadata say, in the same call, which
//! plan is paid for and until when. So what a tenant has follows from the subscription as Stripe shows it, whatever is told
//! first.

use tenantry_domain::{
    Millis, SubscriptionStatus,
    account::PaidPlan,
    plans::{Interval, Plan, plan_product_id},
    time::rfc3339,
};
use tenantry_payments::stripe::{
    self, OperationKey, PaymentBehavior, Preview, PriceChange, Proration, StripeError, Subscription,
};
use tenantry_store::{Store, TenantScope};

use crate::{Commerce, CommerceError, Mismatch, Offer};

/// Our word in a subscription's metadata for the plan that is paid for, while its price is a smaller one's.
const METADATA_PAID_PLAN: &str = "paid_plan";

/// And until when, in seconds.
const METADATA_PAID_UNTIL: &str = "paid_until";

/// How long before the end of a period nothing is changed: what is asked for by then may arrive in the next one, which is
/// another one's to pay. Much longer than a call of Stripe's takes, and than clocks differ.
const CLOSED_FOR: Millis = 5 * 60_000;

/// A change of price that a tenant wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The price, and what it is for.
    pub offer: &'a Offer,
    /// From when the rest of the period is reckoned: the moment of the preview that the tenant agreed to.
    pub as_of: Option<Millis>,
}

/// What a change would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previewed {
    /// What it would cost now.
    pub cost: Preview,
    /// From when the plan counts; none for now.
    pub starts_at: Option<Millis>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Upgraded {
    /// The subscription after it.
    pub subscription: Subscription,
    /// Whether it is for another price than it was as far as we knew.
    pub is_news: bool,
}

/// Why a change is not made; the text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoChange {
    /// From the year to the month.
    #[error(
        "the year is paid for until {}; cancel the subscription with that period, and subscribe by the month then",
        rfc3339(*.until)
    )]
    Shorter {
        /// When the period ends.
        until: Millis,
    },
    /// To a smaller plan and from the month to the year, in one.
    #[error("a smaller plan comes by the month, at {}; it can be changed to the year then", rfc3339(*.until))]
    SmallerAndLonger {
        /// When the period ends.
        until: Millis,
    },
    /// Another one was agreed on before.
    #[error(
        "a smaller plan than {paid} is to come at {}; change back to {paid} first, which costs nothing",
        rfc3339(*.until)
    )]
    SmallerToCome {
        /// The plan that is paid for.
        paid: String,
        /// When the other one comes.
        until: Millis,
    },
    /// There is no next period for a smaller plan to come with.
    #[error("the subscription is going to end; resume it first")]
    Ends,
    /// The next period may begin in the middle of it.
    #[error("the period ends in this moment; try again in some minutes")]
    PeriodEnds,
    /// A change before it is not paid yet.
    #[error("another change waits for its payment; pay it, or wait for a day until it is forgotten")]
    Waits,
    /// What is not paid for cannot be changed for something else.
    #[error("the subscription is not paid for; a payment is late, or has to be made first")]
    NotPaid,
}

/// How a change is made.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It is made.
    None,
    /// Now, and the difference is charged.
    Difference,
    /// Now, and a whole period is charged: the trial is over with it.
    EndOfTrial,
    /// Nothing is charged now. What was paid for until the end of the period is written down, or that there is no such thing.
    NextInvoice(Option<PaidPlan>),
}

/// The plan of the catalogue that a subscription's price is for.
///
/// # Errors
/// [`Mismatch`].
pub(crate) fn plan_of<'a>(store: &'a Store, seen: &Subscription) -> Result<&'a Plan, Mismatch> {
    let product = &only_item(seen)?.price.product;
    let plan = store.plans().all().iter().find(|plan| plan_product_id(&plan.id) == *product);
    plan.ok_or_else(|| Mismatch::of(&seen.id, "is for no plan of the catalogue"))
}

/// What the metadata of a subscription say is paid for beyond its price.
///
/// # Errors
/// [`Mismatch`] for what we did not write.
pub(crate) fn paid_for(seen: &Subscription) -> Result<Option<PaidPlan>, Mismatch> {
    let word = |name| seen.metadata.get(name);
    let Some(plan) = word(METADATA_PAID_PLAN) else { return Ok(None) };
    let until = word(METADATA_PAID_UNTIL).and_then(|until| until.parse::<Millis>().ok()?.checked_mul(1_000));
    let until = until.ok_or_else(|| Mismatch::of(&seen.id, "does not say until when its plan is paid for"))?;
    Ok(Some(PaidPlan { plan: plan.clone(), until }))
}

/// Ours have one item; a second one was put there by hand.
pub(crate) fn only_item(seen: &Subscription) -> Result<&stripe::SubscriptionItem, Mismatch> {
    match seen.items.as_slice() {
        [item] => Ok(item),
        _ => Err(Mismatch::of(&seen.id, "has not one item")),
    }
}

fn interval_of(seen: &Subscription) -> Result<Interval, Mismatch> {
    let recurring = only_item(seen)?.price.recurring.as_ref().filter(|every| every.interval_count == 1);
    match recurring.map(|every| &every.interval) {
        Some(stripe::Interval::Month) => Ok(Interval::Month),
        Some(stripe::Interval::Year) => Ok(Interval::Year),
        _ => Err(Mismatch::of(&seen.id, "is paid neither by the month nor by the year")),
    }
}

impl Commerce {
    /// What a change would do now. It is refused like the change.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn preview(&self, scope: &TenantScope, change: &Change<'_>) -> Result<Previewed, CommerceError> {
        let seen = self.subscription(scope).await?;
        let way = self.way(&seen, change)?;
        let starts_at = self.starts_at(&seen, change, &way)?;
        let cost = match &way {
            Way::Difference | Way::EndOfTrial => {
                self.stripe()?.preview_change(&price_change(&seen, change, &way, &[])?).await?
            }
            Way::None | Way::NextInvoice(_) => Preview {
                currency: seen.currency.clone(),
                proration_total: Some(0),
                total: 0,
                amount_due: 0,
                lines: vec![],
            },
        };
        Ok(Previewed { cost, starts_at })
    }

    /// Changes the plan: now where something is charged for it, which is not made when it is not paid; else with the next
    /// invoice.
    ///
    /// # Errors
    /// [`CommerceError`]; `attempt` tells tries of the caller apart, so that one that got no answer can be repeated.
    pub async fn upgrade(
        &self,
        scope: &TenantScope,
        change: &Change<'_>,
        attempt: &str,
    ) -> Result<Upgraded, CommerceError> {
        let known = self.store.account(scope).await?.subscription;
        let seen = self.subscription(scope).await?;
        let (way, price) = (self.way(&seen, change)?, change.offer.price.id.as_str());
        let (paid, until) = match &way {
            // It was asked for before, and the answer was lost: it may be repeated, like everything here.
            Way::None => {
                self.sync_subscription(&seen.id).await?;
                let is_news = known.is_some_and(|known| known.price != price);
                return Ok(Upgraded { subscription: seen, is_news });
            }
            Way::NextInvoice(Some(paid)) => (paid.plan.clone(), paid.until.div_euclid(1_000).to_string()),
            Way::Difference | Way::EndOfTrial | Way::NextInvoice(None) => Default::default(),
        };
        let (payment, metadata) = match &way {
            Way::NextInvoice(_) => {
                (PaymentBehavior::Allow, &[(METADATA_PAID_PLAN, &*paid), (METADATA_PAID_UNTIL, &*until)][..])
            }
            Way::None | Way::Difference | Way::EndOfTrial => (PaymentBehavior::Pending, &[][..]),
        };
        let key = OperationKey::new("upgrade", &[&seen.id, price, attempt, way.word(), &paid, &until]);
        let changed = self.stripe()?.change_price(&price_change(&seen, change, &way, metadata)?, payment, &key).await;
        let changed = match changed {
            Err(StripeError::Refused(refusal)) if refusal.status == 400 && seen.pending_update.is_some() => {
                tracing::info!(org = %scope.org(), ?refusal, "a change before this one waits");
                return Err(NoChange::Waits.into());
            }
            changed => changed?,
        };
        self.sync_subscription(&changed.id).await?;
        Ok(Upgraded { is_news: changed.pending_update.is_none(), subscription: changed })
    }

    /// How a change of a subscription as it is seen is made.
    fn way(&self, seen: &Subscription, change: &Change<'_>) -> Result<Way, CommerceError> {
        let (plans, now) = (self.store.plans(), self.store.now());
        let (item, had, had_every) = (only_item(seen)?, plan_of(&self.store, seen)?, interval_of(seen)?);
        let (wanted, every) = (&change.offer.plan, change.offer.interval);
        let (until, is_longer) = (item.period_end, every > had_every);
        if item.price.id == change.offer.price.id && seen.pending_update.is_none() {
            return Ok(Way::None);
        }
        if !matches!(seen.status, SubscriptionStatus::Trialing | SubscriptionStatus::Active) {
            return Err(NoChange::NotPaid.into());
        }
        if until - now < CLOSED_FOR {
            return Err(NoChange::PeriodEnds.into());
        }
        // Nothing was paid for yet, so nothing can be lost.
        if seen.status == SubscriptionStatus::Trialing {
            return Ok(Way::EndOfTrial);
        }
        if every < had_every {
            return Err(NoChange::Shorter { until }.into());
        }
        let is_larger = |one: &str, than: &str| one != than && plans.larger(than, one) == one;
        let to_come = paid_for(seen)?.filter(|paid| paid.until > now && is_larger(&paid.plan, &had.id));
        let way = match to_come {
            Some(paid) if is_longer || is_larger(&wanted.id, &paid.plan) => {
                let called = plans.find(&paid.plan).map_or_else(|| paid.plan.clone(), |plan| plan.name.clone());
                return Err(NoChange::SmallerToCome { paid: called, until: paid.until }.into());
            }
            // Thought better of it.
            Some(paid) if paid.plan == wanted.id => Way::NextInvoice(None),
            Some(paid) => Way::NextInvoice(Some(paid)),
            None if is_larger(&had.id, &wanted.id) && is_longer => {
                return Err(NoChange::SmallerAndLonger { until }.into());
            }
            None if is_larger(&had.id, &wanted.id) => Way::NextInvoice(Some(PaidPlan { plan: had.id.clone(), until })),
            None if is_longer => Way::Difference,
            // Another price of the same plan, or a larger plan that costs no more.
            None if wanted.id == had.id || change.offer.price.unit_amount <= item.price.unit_amount => {
                Way::NextInvoice(None)
            }
            None => Way::Difference,
        };
        match &way {
            Way::NextInvoice(_) if seen.pending_update.is_some() => Err(NoChange::Waits.into()),
            Way::NextInvoice(Some(_)) if seen.cancel_at_period_end || seen.cancel_at.is_some() => {
                Err(NoChange::Ends.into())
            }
            _ => Ok(way),
        }
    }

    /// From when the plan of a change counts; none for now.
    fn starts_at(&self, seen: &Subscription, change: &Change<'_>, way: &Way) -> Result<Option<Millis>, CommerceError> {
        let paid = match way {
            Way::None => paid_for(seen)?,
            Way::NextInvoice(paid) => paid.clone(),
            Way::Difference | Way::EndOfTrial => None,
        };
        let (plans, now, wanted) = (self.store.plans(), self.store.now(), &change.offer.plan.id);
        let paid = paid.filter(|paid| paid.until > now && paid.plan != *wanted);
        Ok(paid.filter(|paid| plans.larger(wanted, &paid.plan) == paid.plan).map(|paid| paid.until))
    }
}

impl Way {
    /// What tells it from the others in the key of the call.
    const fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Difference => "difference",
            Self::EndOfTrial => "end_of_trial",
            Self::NextInvoice(_) => "next_invoice",
        }
    }
}

fn price_change<'a>(
    seen: &'a Subscription,
    change: &Change<'a>,
    way: &Way,
    metadata: &'a [(&'a str, &'a str)],
) -> Result<PriceChange<'a>, CommerceError> {
    let is_difference = *way == Way::Difference;
    Ok(PriceChange {
        subscription: &seen.id,
        item: &only_item(seen)?.id,
        price: &change.offer.price.id,
        proration: if matches!(way, Way::NextInvoice(_)) { Proration::None } else { Proration::Now },
        // What comes after a trial is paid for whole, so no moment matters; nor where nothing is charged.
        proration_date: change.as_of.filter(|_| is_difference),
        ends_trial: *way == Way::EndOfTrial,
        metadata,
    })
}

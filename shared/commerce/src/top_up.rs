//! Credits that run out: the owners are told, and more are bought with a saved payment method, where that is wanted.
//!
//! What is bought is an order like any other, so it is given once, refunded and booked like any other. The order is made in
//! one transaction with the state that says it is under way and how much of the month's cap it takes, so two who are at it
//! at the same time make one; and it is charged under a key made from its id, so it is charged once. Stripe remembers the
//! key for a day; an order whose time is over is not charged any more, but looked for.

use tenantry_domain::{
    Millis, OrderId,
    credit_watch::{CreditWatch, TopUp},
    orders::{Fact, Goods, NewOrder, Order, OrderState, Provider},
    time::Period,
};
use tenantry_payments::stripe::{OperationKey, PaymentIntent, PaymentIntentStatus, SavedMethodCharge, StripeError};
use tenantry_store::{AuditActor, Change, NewAudit, Origin, TenantScope};
use tenantry_web::mail::MailQueue;

use crate::{Buyer, Commerce, CommerceError, Handled, Mismatch, Notice, TRIES, checkout::METADATA_ORDER};

/// How long an order is charged: well below the day for which Stripe remembers keys.
const OPEN_FOR: Millis = 3_600_000;

/// How far before the order its payment is looked for, because clocks differ.
const BEFORE: Millis = 3_600_000;

/// How Stripe's ids of payment methods begin: an order with one is charged by us, and has no page.
const METHOD: &str = "pm_";

/// What a tenant wants when its credits run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditRules<'a> {
    /// The owners are told when there are fewer micro-credits than this; nobody is when none.
    pub notify_below: Option<u64>,
    /// Buying by itself; off when none.
    pub top_up: Option<TopUpRule<'a>>,
}

/// How credits are bought by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopUpRule<'a> {
    /// Whether they are.
    pub enabled: bool,
    /// While there are fewer micro-credits than this.
    pub below: u64,
    /// The package of the catalogue.
    pub package: &'a str,
    /// The most that is spent in a month (UTC), in cents.
    pub monthly_cap: u64,
}

impl Commerce {
    /// What the tenant wants when its credits run out, and what came of it.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn auto_top_up(&self, scope: &TenantScope) -> Result<CreditWatch, CommerceError> {
        Ok(self.store.credit_watch(scope).await?)
    }

    /// Sets what the tenant wants, and writes the row of the audit log that says so.
    ///
    /// # Errors
    /// [`CommerceError::Unknown`] for a package that there is not. [`CommerceError::Impossible`] for one that is not sold
    /// for US dollars or costs more than the cap, where taxes have to be computed, which needs the customer's presence, and
    /// without a saved payment method.
    pub async fn set_auto_top_up(
        &self,
        scope: &TenantScope,
        rules: CreditRules<'_>,
        buyer: &Buyer<'_>,
    ) -> Result<CreditWatch, CommerceError> {
        if let Some(rule) = &rules.top_up {
            let price = self.price_of(rule.package)?;
            if rule.enabled {
                if price > rule.monthly_cap {
                    return Err(CommerceError::Impossible("the package costs more than the monthly cap"));
                }
                if self.automatic_tax {
                    return Err(CommerceError::Impossible("taxes cannot be computed without the customer"));
                }
                if self.saved_method(scope).await?.is_none() {
                    return Err(CommerceError::Impossible("there is no saved payment method"));
                }
            }
        }
        for _ in 0..TRIES {
            let watch = self.store.credit_watch(scope).await?;
            let was_on = watch.on().is_some();
            let next = CreditWatch {
                notify_below: rules.notify_below,
                notified: watch.notified && rules.notify_below == watch.notify_below,
                top_up: rules.top_up.map(|rule| TopUp {
                    enabled: rule.enabled,
                    below: rule.below,
                    package: rule.package.to_owned(),
                    monthly_cap: rule.monthly_cap,
                    set_by: buyer.user.clone(),
                }),
                failed_at: watch.failed_at.filter(|_| rules.top_up.is_none_or(|rule| !rule.enabled)),
                ..watch
            };
            let word = |on: bool| Some(if on { "on" } else { "off" }.to_owned());
            let audit = NewAudit {
                action: "credits.top_up_changed",
                actor: AuditActor::User(buyer.user.clone()),
                target: None,
                changes: vec![Change { field: "enabled", old: word(was_on), new: word(next.on().is_some()) }],
                origin: buyer.origin,
            };
            if let Some(written) = self.store.write_credit_watch(scope, next, Some(&audit)).await? {
                return Ok(written);
            }
        }
        Err(CommerceError::Contention)
    }

    /// Does what the tenant wants at the credits that it has now. Returns whether there was anything to do. Who deleted the
    /// organization wants nothing any more.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn watch_credits(&self, scope: &TenantScope, mails: &dyn MailQueue) -> Result<bool, CommerceError> {
        if !self.lives(scope).await? {
            return Ok(false);
        }
        let meter = self.store.meter(scope).await?;
        let credits = meter.credits.saturating_add(meter.credits_held());
        let told = self.tell_low(scope, credits, mails).await?;
        let watch = self.store.credit_watch(scope).await?;
        let order = match &watch.order {
            Some(order) => order.clone(),
            None => match self.begin_top_up(scope, watch, credits, mails).await? {
                Some(order) => order,
                None => return Ok(told),
            },
        };
        self.end_top_up(scope, &order, mails).await
    }

    /// Whether the organization is there, and nobody has deleted it.
    async fn lives(&self, scope: &TenantScope) -> Result<bool, CommerceError> {
        Ok(self.store.organization(scope).await?.is_some_and(|found| found.deletes_at.is_none()))
    }

    /// Once for each time that the credits fall below what is watched.
    async fn tell_low(&self, scope: &TenantScope, credits: u64, mails: &dyn MailQueue) -> Result<bool, CommerceError> {
        let watch = self.store.credit_watch(scope).await?;
        let Some(below) = watch.notify_below else { return Ok(false) };
        let low = credits < below;
        if low == watch.notified {
            return Ok(false);
        }
        if low {
            // Before it is noted, under a name that is the same until then.
            let event = format!("low:{}:{}", scope.org(), watch.version);
            self.tell(scope, &event, Notice::LowBalance { credits }, mails).await?;
        }
        let next = CreditWatch { notified: low, ..watch };
        Ok(self.store.write_credit_watch(scope, next, None).await?.is_some())
    }

    /// Orders the mails that `notice` calls for, under names that are those of `event` each time.
    pub(crate) async fn tell(
        &self,
        scope: &TenantScope,
        event: &str,
        notice: Notice,
        mails: &dyn MailQueue,
    ) -> Result<(), CommerceError> {
        for mail in self.mails(event, &Handled::of(scope.clone(), vec![notice])).await? {
            mails.send(&mail).await?;
        }
        Ok(())
    }

    /// Makes an order, if one is wanted and the cap has room for it.
    async fn begin_top_up(
        &self,
        scope: &TenantScope,
        watch: CreditWatch,
        credits: u64,
        mails: &dyn MailQueue,
    ) -> Result<Option<OrderId>, CommerceError> {
        let Some(rule) = watch.on().filter(|rule| credits < rule.below) else { return Ok(None) };
        let (package, method) = (self.store.plans().package(&rule.package), self.saved_method(scope).await?);
        let (Some(package), Some((_, method))) = (package, method) else {
            return self.switch_off(scope, &watch, mails).await.map(|()| None);
        };
        let Some(amount) = package.price.usd else {
            return self.switch_off(scope, &watch, mails).await.map(|()| None);
        };
        let now = self.store.now();
        let new = NewOrder {
            id: OrderId::at(now),
            provider: Provider::Stripe,
            goods: Goods::of(package),
            amount,
            currency: "usd".to_owned(),
            expires_at: now + OPEN_FOR,
            created_by: rule.set_by.clone(),
        };
        let Some(next) = watch.with_order(&new.id, amount, Period::of(now)) else {
            tracing::info!(org = %scope.org(), "credits are low, and the month's cap of buying more is reached");
            return Ok(None);
        };
        let origin = Origin::default();
        let buyer = Buyer { user: &new.created_by, origin: &origin };
        let audit = NewAudit { actor: AuditActor::System, ..buyer.ordered(&new) };
        // Whoever was quicker goes on with theirs.
        let begun = self.store.begin_top_up(scope, next, &new, &method, &audit).await?;
        Ok(begun.map(|order| order.id))
    }

    /// What cannot be bought is not tried every five minutes.
    async fn switch_off(
        &self,
        scope: &TenantScope,
        watch: &CreditWatch,
        mails: &dyn MailQueue,
    ) -> Result<(), CommerceError> {
        let event = format!("top_up_off:{}:{}", scope.org(), watch.version);
        self.tell(scope, &event, Notice::TopUpFailed, mails).await?;
        self.store.write_credit_watch(scope, watch.switched_off(self.store.now()), None).await?;
        Ok(())
    }

    /// Brings the order that is under way to its end, if it has one by now.
    async fn end_top_up(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        mails: &dyn MailQueue,
    ) -> Result<bool, CommerceError> {
        let order = self.order(scope, order).await?;
        let order = self.look(scope, order).await?;
        let failed = match order.state() {
            OrderState::Created | OrderState::Pending => return Ok(false),
            OrderState::Closed | OrderState::Failed => true,
            OrderState::Paid | OrderState::PartiallyRefunded | OrderState::Refunded => false,
        };
        if failed {
            self.tell(scope, &format!("top_up:{}", order.id), Notice::TopUpFailed, mails).await?;
        }
        for _ in 0..TRIES {
            let watch = self.store.credit_watch(scope).await?;
            let next = if failed {
                let month = Period::of(order.created_at);
                watch.with_order_failed(&order.id, order.amount, month, self.store.now())
            } else {
                watch.with_order_paid(&order.id)
            };
            let Some(next) = next else { return Ok(true) };
            if self.store.write_credit_watch(scope, next, None).await?.is_some() {
                return Ok(true);
            }
        }
        Err(CommerceError::Contention)
    }

    /// Charges an order that is paid with a saved payment method, or finds out what became of it.
    pub(crate) async fn charge(&self, scope: &TenantScope, order: Order, method: &str) -> Result<Order, CommerceError> {
        let stripe = self.stripe()?;
        // Of an organization that was deleted nothing is charged any more. Whether it had been by then is looked for when the
        // time is up: until then somebody may be at it still.
        if self.store.now() < order.expires_at && !self.lives(scope).await? {
            return Ok(order);
        }
        let customer = self.store.account(scope).await?.customer;
        let customer = customer.ok_or_else(|| Mismatch::of(order.id.as_str(), "has no customer to be charged"))?;
        let words = [(METADATA_ORDER, order.id.as_str())];
        let paid = if self.store.now() < order.expires_at {
            let charge = SavedMethodCharge {
                customer: &customer,
                payment_method: method,
                org: scope.org().as_str(),
                metadata: &words,
                amount: i64::try_from(order.amount).unwrap_or(i64::MAX),
                currency: &order.currency,
                description: "Credits",
            };
            match stripe.charge_saved_method(&charge, &OperationKey::new("top_up", &[order.id.as_str()])).await {
                Ok(intent) => Some(intent),
                Err(error) if is_no(&error) => None,
                Err(error) => return Err(error.into()),
            }
        } else {
            let made = stripe.payments_of(&customer, order.created_at - BEFORE).await?;
            let ours = made.into_iter().filter(|made| made.metadata.get(METADATA_ORDER) == Some(&order.id.to_string()));
            ours.max_by_key(|made| (made.status == PaymentIntentStatus::Succeeded, made.created))
        };
        self.charged(scope, order, paid).await
    }

    async fn charged(
        &self,
        scope: &TenantScope,
        order: Order,
        paid: Option<PaymentIntent>,
    ) -> Result<Order, CommerceError> {
        match paid {
            Some(intent) if intent.status == PaymentIntentStatus::Succeeded => {
                if u64::try_from(intent.amount).ok() != Some(order.amount) || intent.currency != order.currency {
                    return Err(Mismatch::of(&intent.id, "is of another amount or currency than its order").into());
                }
                self.order_paid(scope, &order.id, &intent.id, intent.created).await
            }
            Some(intent) if intent.status == PaymentIntentStatus::Processing => Ok(order),
            _ => Ok(self.store.order_fact(scope, &order.id, &Fact::Failed).await?.order),
        }
    }

    /// The customer, and what they pay with.
    async fn saved_method(&self, scope: &TenantScope) -> Result<Option<(String, String)>, CommerceError> {
        let stripe = self.stripe()?;
        let account = self.store.account(scope).await?;
        let Some(customer) = account.customer else { return Ok(None) };
        let mut method = stripe.customer(&customer).await?.default_payment_method;
        if let (None, Some(subscription)) = (&method, &account.subscription) {
            method = stripe.subscription(&subscription.id).await?.default_payment_method;
        }
        if method.is_none() {
            method = stripe.payment_methods(&customer).await?.into_iter().map(|method| method.id).next();
        }
        Ok(method.filter(|method| method.starts_with(METHOD)).map(|method| (customer, method)))
    }

    fn price_of(&self, package: &str) -> Result<u64, CommerceError> {
        let package = self.store.plans().package(package).ok_or(CommerceError::Unknown("there is no such package"))?;
        package.price.usd.ok_or(CommerceError::Impossible("the package is not sold for US dollars"))
    }
}

/// The saved payment method that an order is charged to, if it is one of those.
pub(crate) fn method_of(order: &Order) -> Option<&str> {
    order.vendor_id.as_deref().filter(|id| order.provider == Provider::Stripe && id.starts_with(METHOD))
}

/// Whether the bank or Stripe said no to this payment, and not to us.
pub(crate) fn is_no(error: &StripeError) -> bool {
    error.refusal().is_some_and(|refusal| {
        matches!(refusal.status, 400 | 402 | 404) && refusal.kind.as_deref() != Some("idempotency_error")
    })
}

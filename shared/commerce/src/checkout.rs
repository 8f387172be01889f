//! Buying at Stripe: a page for a subscription or for a package of credits, and the portal.

use tenantry_domain::{
    Millis, OrderId, SubscriptionStatus, UserId,
    ledger::LedgerKind,
    orders::{Fact, Goods, Order, Provider},
    plans::Package,
};
use tenantry_payments::stripe::{
    self, CheckoutMode, CheckoutSession, CheckoutStatus, OperationKey, PaymentCheckout, PaymentRef, PaymentStatus,
    PortalSession, SubscriptionCheckout,
};
use tenantry_store::{NewAudit, NewLedgerRow, NewOrder, TenantScope};

use crate::{Commerce, CommerceError, Handled, Mismatch, TRIES, events::Purchase};

/// Our word in metadata for the order that a payment is for.
const METADATA_ORDER: &str = "order";

/// How long a page of checkout can be used. Stripe takes 30 minutes to 24 hours.
const OPEN_FOR: Millis = 3_600_000;

/// Where a page of checkout leads back to.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutPages<'a> {
    /// After the purchase.
    pub success_url: &'a str,
    /// When nothing was bought.
    pub cancel_url: &'a str,
}

impl Commerce {
    /// A page where the tenant subscribes for `price`.
    ///
    /// # Errors
    /// [`CommerceError::Impossible`] while a subscription lives: that is changed, not bought again.
    pub async fn subscribe(
        &self,
        scope: &TenantScope,
        customer: &str,
        price: &str,
        trial_days: Option<u32>,
        pages: CheckoutPages<'_>,
        attempt: &str,
    ) -> Result<CheckoutSession, CommerceError> {
        let account = self.store.account(scope).await?;
        let standing = account.subscription.as_ref().map(|subscription| &subscription.standing.status);
        // What was begun and not paid may be begun again.
        if standing.is_some_and(|status| !status.is_terminal() && *status != SubscriptionStatus::Incomplete) {
            return Err(CommerceError::Impossible("there is a subscription already; change it instead"));
        }
        let org = scope.org().as_str();
        let checkout = SubscriptionCheckout {
            pages: stripe::CheckoutPages {
                customer,
                org,
                metadata: &[],
                success_url: pages.success_url,
                cancel_url: pages.cancel_url,
                expires_at: None,
            },
            price,
            // Once: whoever had a subscription has tried it.
            trial_days: trial_days.filter(|_| account.subscription.is_none()),
            promotion_codes: true,
            automatic_tax: self.automatic_tax,
        };
        let key = OperationKey::new("subscribe", &[org, price, attempt]);
        Ok(self.stripe()?.subscription_checkout(&checkout, &key).await?)
    }

    /// An order of a package of credits, and the page where it is paid.
    ///
    /// # Errors
    /// [`CommerceError`]; an order without a page closes by itself.
    #[allow(clippy::too_many_arguments, reason = "each of another kind")]
    pub async fn order_package(
        &self,
        scope: &TenantScope,
        customer: &str,
        package: &Package,
        created_by: &UserId,
        pages: CheckoutPages<'_>,
        audit: &NewAudit<'_>,
    ) -> Result<(Order, CheckoutSession), CommerceError> {
        let amount = package.price.usd.ok_or(CommerceError::Impossible("the package is not sold for US dollars"))?;
        let new = NewOrder {
            id: OrderId::at(self.store.now()),
            provider: Provider::Stripe,
            goods: Goods::Package {
                id: package.id.clone(),
                credits: package.credits,
                expires_after_days: package.expires_after_days,
            },
            amount,
            currency: "usd".to_owned(),
            expires_at: self.store.now() + OPEN_FOR,
            created_by: created_by.clone(),
        };
        let order = self.store.create_order(scope, &new, audit).await?;
        let checkout = PaymentCheckout {
            pages: stripe::CheckoutPages {
                customer,
                org: scope.org().as_str(),
                metadata: &[(METADATA_ORDER, order.id.as_str())],
                success_url: pages.success_url,
                cancel_url: pages.cancel_url,
                expires_at: Some(order.expires_at),
            },
            goods: stripe::Goods::Amount {
                name: &package.name,
                currency: &order.currency,
                amount: i64::try_from(order.amount).unwrap_or(i64::MAX),
            },
            save_payment_method: false,
            promotion_codes: false,
            automatic_tax: self.automatic_tax,
            invoice: true,
        };
        let key = OperationKey::new("order", &[order.id.as_str()]);
        let session = self.stripe()?.payment_checkout(&checkout, &key).await?;
        let opened = Fact::Opened { vendor_id: session.id.clone() };
        let order = self.store.order_fact(scope, &order.id, &opened).await?.order;
        Ok((order, session))
    }

    /// The vendor's pages about subscription, invoices and payment methods.
    ///
    /// # Errors
    /// [`CommerceError::Impossible`] when nothing was ever bought there.
    pub async fn portal(
        &self,
        scope: &TenantScope,
        return_url: &str,
        attempt: &str,
    ) -> Result<PortalSession, CommerceError> {
        let customer = self.store.account(scope).await?.customer;
        let customer = customer.ok_or(CommerceError::Impossible("nothing was bought yet"))?;
        let key = OperationKey::new("portal", &[&customer, attempt]);
        Ok(self.stripe()?.portal(&customer, return_url, &key).await?)
    }

    /// What came of a page of checkout.
    pub(crate) async fn checkout_event(&self, id: &str) -> Result<Handled, CommerceError> {
        let session = self.stripe()?.checkout(id).await?;
        let owner = self.tenant_of(id, session.customer.as_deref(), Some(&session.metadata)).await?;
        let Some(scope) = owner else { return Ok(Handled::default()) };
        match session.mode {
            CheckoutMode::Subscription => {
                if let Some(subscription) = &session.subscription {
                    self.sync_subscription(subscription).await?;
                }
            }
            CheckoutMode::Payment => self.checkout_paid(&scope, &session).await?,
            CheckoutMode::Setup | CheckoutMode::Unknown(_) => {}
        }
        Ok(Handled { org: Some(scope.org().clone()), notices: vec![] })
    }

    async fn checkout_paid(&self, scope: &TenantScope, session: &CheckoutSession) -> Result<(), CommerceError> {
        let mismatch = |why| Mismatch::of(&session.id, why);
        let Some(order) = session.metadata.get(METADATA_ORDER) else { return Ok(()) };
        let order: OrderId = order.parse().map_err(|_| mismatch("names no order of ours"))?;
        let order = self.store.order(scope, &order).await?.ok_or(mismatch("names an order that is not the tenant's"))?;
        let paid = session.payment_status == PaymentStatus::Paid;
        if paid {
            // Taxes come on top; what the goods cost must be what was ordered.
            let subtotal = session.amount_subtotal.and_then(|amount| u64::try_from(amount).ok());
            if subtotal != Some(order.amount) || session.currency.as_deref() != Some(&*order.currency) {
                return Err(mismatch("was paid with another amount or currency than its order has").into());
            }
            self.order_paid(scope, &order.id, &session.id, session.created).await?;
        } else if session.status == Some(CheckoutStatus::Expired) {
            self.store.order_fact(scope, &order.id, &Fact::Closed).await?;
        }
        Ok(())
    }

    /// A vendor says that an order was paid, and its amount, currency and merchant were checked: it is marked, and what
    /// was ordered is given, once.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn order_paid(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        vendor_id: &str,
        at: Millis,
    ) -> Result<Order, CommerceError> {
        let paid = Fact::Paid { vendor_id: vendor_id.to_owned(), at };
        let order = self.store.order_fact(scope, order, &paid).await?.order;
        self.fulfil(scope, &order).await?;
        Ok(order)
    }

    /// Gives what a paid order is for, unless it was given.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn fulfil(&self, scope: &TenantScope, order: &Order) -> Result<(), CommerceError> {
        if order.fulfilled || order.paid_at.is_none() {
            return Ok(());
        }
        let key = given(&order.id);
        match &order.goods {
            Goods::Package { credits, expires_after_days, .. } => {
                /// Milliseconds.
                const DAY: Millis = 24 * 3_600_000;
                let from = order.paid_at.unwrap_or(order.created_at);
                let new = NewLedgerRow {
                    kind: LedgerKind::Purchase,
                    amount: *credits,
                    key: &key,
                    reference: Some(order.id.as_str()),
                    expires_at: expires_after_days.map(|days| from + Millis::from(days) * DAY),
                };
                self.store.add_credits(scope, &new).await?;
            }
            Goods::Months { plan, months } => self.prepay(scope, &key, plan, *months).await?,
        }
        self.store.set_fulfilled(scope, &order.id).await?;
        Ok(())
    }

    /// Adds months of a plan, once for `key`: behind those that are there of the same plan, else from now on.
    async fn prepay(&self, scope: &TenantScope, key: &str, plan: &str, months: u32) -> Result<(), CommerceError> {
        for _ in 0..TRIES {
            let account = self.store.account(scope).await?;
            let next = account.prepaid_more(plan, months, self.store.now());
            if self.store.write_account_once(scope, next, key).await?.is_some()
                || self.store.is_booked(scope, key).await?
            {
                self.entitle(scope).await?;
                return Ok(());
            }
        }
        Err(CommerceError::Contention)
    }

    /// The order that a payment at Stripe is for, if it is for one.
    pub(crate) async fn order_of_payment(
        &self,
        scope: &TenantScope,
        intent: &str,
    ) -> Result<Option<Order>, CommerceError> {
        let intent = self.stripe()?.payment_intent(intent).await?;
        let Some(order) = intent.metadata.get(METADATA_ORDER) else { return Ok(None) };
        let mismatch = |why| Mismatch::of(&intent.id, why);
        let order: OrderId = order.parse().map_err(|_| mismatch("names no order of ours"))?;
        let order = self.store.order(scope, &order).await?;
        order.map(Some).ok_or_else(|| mismatch("names an order that is not the tenant's").into())
    }

    /// Money of an order went back.
    pub(crate) async fn take_back_order(
        &self,
        scope: &TenantScope,
        order: &Order,
        payment: PaymentRef<'_>,
    ) -> Result<(), CommerceError> {
        // What goes back before the goods were given is given first: the books tell both.
        self.fulfil(scope, order).await?;
        let purchase =
            Purchase { granted: given(&order.id), reference: order.id.as_str().to_owned(), amount: order.amount };
        let refunded = self.take_back(scope, &purchase, payment).await?;
        if refunded > 0 {
            self.store.order_fact(scope, &order.id, &Fact::RefundedTo { total: refunded.min(order.amount) }).await?;
        }
        Ok(())
    }
}

/// The key of what an order gives.
fn given(order: &OrderId) -> String {
    format!("order:{order}")
}

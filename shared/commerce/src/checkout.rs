//! Buying at Stripe: a page for a subscription or for a package of credits, and the portal.

use tenantry_domain::{
    Millis, OrderId, SubscriptionStatus,
    account::Account,
    orders::{Fact, Goods, NewOrder, Order, Provider},
};
use tenantry_payments::stripe::{
    self, CheckoutMode, CheckoutSession, CheckoutStatus, Metadata, OperationKey, PaymentCheckout, PaymentIntent,
    PaymentIntentStatus, PaymentStatus, PortalSession, StripeError, SubscriptionCheckout,
};
use tenantry_store::TenantScope;

use crate::{Buyer, Commerce, CommerceError, Handled, Mismatch, TRIES};

/// Our word in metadata for the order that a payment is for.
pub(crate) const METADATA_ORDER: &str = "order";

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
    /// A page where the tenant subscribes for `price`. It is the only one: the page that was opened before is closed first,
    /// and a page is shown once it is written down as the last one. So of two that are opened, at the same moment too, one
    /// can be paid, and nobody pays for two subscriptions.
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
        let (stripe, org) = (self.stripe()?, scope.org().as_str());
        for _ in 0..TRIES {
            let mut account = self.without_subscription(scope).await?;
            if let Some(page) = &account.checkout {
                self.close_page(page).await?;
                // If that was paid, there is a subscription now.
                account = self.without_subscription(scope).await?;
            }
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
            // A page that was closed is not to be had again: the next one is another state's.
            let state = account.version.to_string();
            let key = OperationKey::new("subscribe", &[org, price, attempt, &state]);
            let opened = stripe.subscription_checkout(&checkout, &key).await?;
            let next = Account { checkout: Some(opened.id.clone()), ..account };
            if self.store.write_account(scope, next).await?.is_some() {
                return Ok(opened);
            }
            // Nobody was shown this one, and nobody will be.
        }
        Err(CommerceError::Contention)
    }

    /// The account of a tenant who may subscribe.
    async fn without_subscription(&self, scope: &TenantScope) -> Result<Account, CommerceError> {
        let account = self.store.account(scope).await?;
        let standing = account.subscription.as_ref().map(|subscription| &subscription.standing.status);
        // What was begun and not paid may be begun again.
        if standing.is_some_and(|status| !status.is_terminal() && *status != SubscriptionStatus::Incomplete) {
            return Err(CommerceError::Impossible("there is a subscription already; change it instead"));
        }
        Ok(account)
    }

    /// Closes a page of subscribing. What was paid there counts, whether or not Stripe has told.
    async fn close_page(&self, page: &str) -> Result<(), CommerceError> {
        let stripe = self.stripe()?;
        let refused = match stripe.expire_checkout(page, &OperationKey::new("expire", &[page])).await {
            Ok(_) => return Ok(()),
            Err(error @ StripeError::Refused(_)) => error,
            Err(error) => return Err(error.into()),
        };
        let seen = match stripe.checkout(page).await {
            Ok(seen) => seen,
            // Of another account of Stripe's, which sells here no more.
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match (seen.status, &seen.subscription) {
            (Some(CheckoutStatus::Expired), _) => Ok(()),
            (Some(CheckoutStatus::Complete), Some(subscription)) => {
                self.sync_subscription(subscription).await?;
                Ok(())
            }
            // It could be paid still.
            _ => Err(refused.into()),
        }
    }

    /// An order of a package of credits, and the page where it is paid.
    ///
    /// # Errors
    /// [`CommerceError`]; an order without a page closes by itself.
    pub async fn order_package(
        &self,
        scope: &TenantScope,
        customer: &str,
        package: &str,
        buyer: &Buyer<'_>,
        pages: CheckoutPages<'_>,
    ) -> Result<(Order, CheckoutSession), CommerceError> {
        let stripe = self.stripe()?;
        let package = self.store.plans().package(package).ok_or(CommerceError::Unknown("there is no such package"))?;
        let amount = package.price.usd.ok_or(CommerceError::Impossible("the package is not sold for US dollars"))?;
        let now = self.store.now();
        let new = NewOrder {
            id: OrderId::at(now),
            provider: Provider::Stripe,
            goods: Goods::of(package),
            amount,
            currency: "usd".to_owned(),
            expires_at: now + OPEN_FOR,
            created_by: buyer.user.clone(),
        };
        let order = self.store.create_order(scope, &new, &buyer.ordered(&new)).await?;
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
        let session = match stripe.payment_checkout(&checkout, &key).await {
            Ok(session) => session,
            Err(error @ StripeError::Refused(_)) => {
                self.store.order_fact(scope, &order.id, &Fact::Failed).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        let show = session.url.clone().unwrap_or_default();
        let opened = Fact::Opened { vendor_id: Some(session.id.clone()), show };
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
        Ok(Handled::of(scope, vec![]))
    }

    async fn checkout_paid(&self, scope: &TenantScope, session: &CheckoutSession) -> Result<(), CommerceError> {
        let Some(order) = self.order_named(scope, &session.id, &session.metadata).await? else { return Ok(()) };
        if session.payment_status == PaymentStatus::Paid {
            // Taxes come on top; what the goods cost must be what was ordered.
            let subtotal = session.amount_subtotal.and_then(|amount| u64::try_from(amount).ok());
            if subtotal != Some(order.amount) || session.currency.as_deref() != Some(&*order.currency) {
                let why = "was paid with another amount or currency than its order has";
                return Err(Mismatch::of(&session.id, why).into());
            }
            let intent = session.payment_intent.as_deref();
            // The session does not say when it was paid; of all that are told, the earliest counts.
            let at = self.store.now();
            let order = self.order_paid(scope, &order.id, intent.unwrap_or(&session.id), at).await?;
            if let Some(intent) = intent {
                // What went back before the order was paid, as far as we knew.
                let intent = self.stripe()?.payment_intent(intent).await?;
                self.take_back_order(scope, order, &intent).await?;
            }
        } else if session.status == Some(CheckoutStatus::Expired) {
            self.store.order_fact(scope, &order.id, &Fact::Closed).await?;
        } else if session.status == Some(CheckoutStatus::Complete)
            && let Some(intent) = &session.payment_intent
        {
            // A payment by bank takes days, and may fail in the end.
            let status = self.stripe()?.payment_intent(intent).await?.status;
            if matches!(status, PaymentIntentStatus::RequiresPaymentMethod | PaymentIntentStatus::Canceled) {
                self.store.order_fact(scope, &order.id, &Fact::Failed).await?;
            }
        }
        Ok(())
    }

    /// Closes the page of an order that was not paid. One whose payment is on its way stays as it is.
    pub(crate) async fn close_checkout(&self, scope: &TenantScope, order: Order) -> Result<Order, CommerceError> {
        if let Some(session) = &order.vendor_id {
            let stripe = self.stripe()?;
            if stripe.checkout(session).await?.status == Some(CheckoutStatus::Complete) {
                return Ok(order);
            }
            let key = OperationKey::new("expire", &[session]);
            match stripe.expire_checkout(session, &key).await {
                // The customer was faster, or it had expired by itself.
                Ok(_) | Err(StripeError::Refused(_)) => return self.look(scope, order).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.store.order_fact(scope, &order.id, &Fact::Closed).await?.order)
    }

    /// The order that a payment at Stripe is for, if it is for one.
    pub(crate) async fn order_of_payment(
        &self,
        scope: &TenantScope,
        intent: &PaymentIntent,
    ) -> Result<Option<Order>, CommerceError> {
        self.order_named(scope, &intent.id, &intent.metadata).await
    }

    /// The tenant's order that the metadata of an object name, if they name one.
    async fn order_named(
        &self,
        scope: &TenantScope,
        object: &str,
        metadata: &Metadata,
    ) -> Result<Option<Order>, CommerceError> {
        let Some(order) = metadata.get(METADATA_ORDER) else { return Ok(None) };
        let order: OrderId = order.parse().map_err(|_| Mismatch::of(object, "names no order of ours"))?;
        let found = self.store.order(scope, &order).await?.filter(|order| order.provider == Provider::Stripe);
        found.map(Some).ok_or_else(|| Mismatch::of(object, "names an order that is not the tenant's").into())
    }
}

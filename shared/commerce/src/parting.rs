//! The end of a tenant at the vendors: who was erased must not go on paying.

use tenantry_domain::orders::Order;
use tenantry_payments::stripe::OperationKey;
use tenantry_store::TenantScope;

use crate::{Commerce, CommerceError};

impl Commerce {
    /// Ends all subscriptions of the tenant now and calls off its orders, before it is erased. What was paid for the rest
    /// of a period is not given back. Done again, it finds nothing left to do.
    ///
    /// Customer and invoices stay at Stripe, where the law wants the books kept.
    ///
    /// # Errors
    /// [`CommerceError`]; the tenant is not to be erased then, because nothing would be left that says who still pays.
    pub async fn part(&self, scope: &TenantScope) -> Result<(), CommerceError> {
        let account = self.store.account(scope).await?;
        let lives = account.subscription.as_ref().is_some_and(|known| !known.standing.status.is_terminal());
        // Where Stripe is not configured any more, a subscription that lives still is one that somebody has to end.
        if let Some(customer) = account.customer.filter(|_| self.stripe.is_some() || lives) {
            self.end_subscriptions(scope, &customer).await?;
        }
        let mut cursor = None::<String>;
        loop {
            let page = self.store.orders(scope, 100, cursor.as_deref()).await?;
            for order in page.items.into_iter().filter(|order| !order.is_settled()) {
                self.end_order(scope, order).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// All that Stripe has, not the one alone that we know of.
    async fn end_subscriptions(&self, scope: &TenantScope, customer: &str) -> Result<(), CommerceError> {
        let stripe = self.stripe()?;
        let seen = match stripe.subscriptions_of(customer).await {
            Ok(seen) => seen,
            // Somebody deleted the customer there, and Stripe the subscriptions with it.
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for seen in seen.iter().filter(|seen| !seen.status.is_terminal()) {
            let ended = stripe.cancel_now(&seen.id, &OperationKey::new("erase", &[&seen.id])).await?;
            if !ended.status.is_terminal() {
                return Err(CommerceError::Impossible("a subscription did not end"));
            }
            tracing::info!(org = %scope.org(), subscription = seen.id, "ended, because its tenant is erased");
        }
        Ok(())
    }

    async fn end_order(&self, scope: &TenantScope, order: Order) -> Result<(), CommerceError> {
        let order = match self.close(scope, order.clone()).await {
            // Nobody is left to be asked, and what was not paid in its time is paid once at most, and not again and again.
            Err(error @ CommerceError::NotConfigured(_)) if order.state().is_open() => {
                tracing::warn!(org = %scope.org(), order = %order.id, %error, "an order goes that was not closed");
                return Ok(());
            }
            closed => closed?,
        };
        let order = self.go_on_refunding(scope, order).await?;
        if order.is_settled() {
            Ok(())
        } else {
            // By bank it takes days.
            Err(CommerceError::Impossible("a payment or refund of an order is on its way"))
        }
    }
}

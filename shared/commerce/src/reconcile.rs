//! Orders that nobody told the end of: looked at until they have one.

use tenantry_domain::{
    Millis, OrderId,
    orders::{Order, Provider},
};
use tenantry_payments::Vendor;
use tenantry_store::{Store, TenantScope, TimeIsUp};

use crate::{Commerce, CommerceError, top_up::method_of};

/// How far a vendor's clock may be from ours.
const CLOCKS_DIFFER: Millis = 60_000;

/// What a walk over orders came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Orders that were looked at.
    pub looked: u64,
    /// Orders that changed by it.
    pub changed: u64,
    /// Orders that could not be looked at.
    pub failed: u64,
    /// Whether there was not enough time for all.
    pub unfinished: bool,
}

/// WeChat Pay or Alipay, when it is one of them that an order is paid through.
pub(crate) const fn vendor_of(provider: Provider) -> Option<Vendor> {
    match provider {
        Provider::Stripe => None,
        Provider::WeChat => Some(Vendor::WeChat),
        Provider::Alipay => Some(Vendor::Alipay),
    }
}

impl Commerce {
    /// Asks the vendor where an order stands, while it waits for a payment. For pages that wait, and for people who come
    /// back from the vendor's page: that somebody came back proves nothing.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn look(&self, scope: &TenantScope, order: Order) -> Result<Order, CommerceError> {
        if !order.state().is_open() {
            return self.settle(scope, order).await;
        }
        if let Some(method) = method_of(&order).map(ToOwned::to_owned) {
            return self.charge(scope, order, &method).await;
        }
        match (vendor_of(order.provider), &order.vendor_id) {
            (Some(vendor), _) => {
                let trade = self.payment(vendor)?.query(order.id.as_str()).await?;
                self.take_trade(scope, order, &trade).await
            }
            (None, Some(session)) => {
                self.checkout_event(session).await?;
                self.order(scope, &order.id).await
            }
            // Its page was never shown to anybody.
            (None, None) => Ok(order),
        }
    }

    /// Calls an order off that was not paid. What is paid all the same is given. One whose payment is on its way, or cannot
    /// be called back, stays open.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn close(&self, scope: &TenantScope, order: Order) -> Result<Order, CommerceError> {
        let order = self.look(scope, order).await?;
        if !order.state().is_open() {
            return Ok(order);
        }
        match vendor_of(order.provider) {
            Some(vendor) => self.close_in_china(scope, order, vendor).await,
            // It was charged, and the bank has not said yet.
            None if method_of(&order).is_some() => Ok(order),
            None => self.close_checkout(scope, order).await,
        }
    }

    /// Whether the payer's time is up, by the vendor's clock as well.
    pub(crate) fn is_over(&self, order: &Order) -> bool {
        order.expires_at + CLOCKS_DIFFER <= self.store.now()
    }

    /// Does whatever is left to do about an order. Returns whether that changed it.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn reconcile_order(&self, scope: &TenantScope, order: &OrderId) -> Result<bool, CommerceError> {
        let before = self.order(scope, order).await?;
        let mut order = self.look(scope, before.clone()).await?;
        if order.state().is_open() && self.is_over(&order) {
            order = self.close(scope, order).await?;
        }
        if order.refund.is_some() {
            order = self.go_on_refunding(scope, order).await?;
        }
        Ok(order.version != before.version)
    }

    /// The same for all orders of one shard (of [`Store::shards`]) that are due. One that fails keeps none of the others.
    ///
    /// # Errors
    /// [`CommerceError`], when it cannot be found out which these are.
    pub async fn sweep_orders(&self, shard: u8, time_is_up: TimeIsUp<'_>) -> Result<Swept, CommerceError> {
        let (mut swept, mut cursor) = (Swept::default(), None::<String>);
        debug_assert!(shard < Store::shards());
        loop {
            let page = self.store.due_orders(shard, 50, cursor.as_deref()).await?;
            for due in page.items {
                if time_is_up() {
                    return Ok(Swept { unfinished: true, ..swept });
                }
                swept.looked += 1;
                match self.reconcile_order(&due.scope, &due.order).await {
                    Ok(changed) => swept.changed += u64::from(changed),
                    Err(error) => {
                        swept.failed += 1;
                        tracing::error!(org = %due.scope.org(), order = %due.order, %error, "an order was not looked at");
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(swept);
            }
        }
    }
}

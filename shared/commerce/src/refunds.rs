//! Money that we give back, for the operator. One refund of an order is under way at a time, and its number is written down
//! before the vendor is asked, so that whatever fails, it is asked again with the same number and refunds once.

use tenantry_domain::{
    OrderId,
    orders::{Fact, Order, RefundBegun, RefundEnd, RefundWanted},
};
use tenantry_payments::{
    NewRefund, PaymentError, RefundState, Vendor,
    stripe::{OperationKey, PaymentRef, RefundReason},
};
use tenantry_store::{NewAudit, TenantScope};

use crate::{Commerce, CommerceError, checkout::METADATA_ORDER, reconcile::vendor_of, top_up::is_no};

/// Our word in a refund's metadata for which one of its order's it is.
const METADATA_REFUND: &str = "refund";

impl Commerce {
    /// Gives back some of an order's money, or all that is left. What it had bought is taken back by the same share:
    /// credits as far as they are there, months from the end of what is paid for in advance.
    ///
    /// [`Order::refunds_asked`] says what came of it: it may still be under way. Who hears nothing calls again with the same
    /// name of it, or leaves it to [`Commerce::reconcile_order`].
    ///
    /// # Errors
    /// [`CommerceError::NoRefund`] when it is not begun.
    pub async fn refund(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        wanted: &RefundWanted<'_>,
        audit: &NewAudit<'_>,
    ) -> Result<Order, CommerceError> {
        let order = self.order(scope, order).await?;
        // A refund that is begun and cannot be asked for would stay so.
        match vendor_of(order.provider) {
            Some(vendor) => drop(self.payment(vendor)?),
            None => drop(self.stripe()?),
        }
        // Paid and given first, or a refund of what was never given would be taken from other credits.
        let order = self.look(scope, order).await?;
        let order = self.store.begin_refund(scope, &order.id, wanted, audit).await??;
        let asked = order.refunds_asked.get(wanted.operation);
        if order.refund.as_ref().map(|begun| begun.number) == asked.map(|asked| asked.number) {
            return self.go_on_refunding(scope, order).await;
        }
        self.settle(scope, order).await
    }

    /// Asks for the refund that is under way, as often as it takes. It ends when the vendor says what became of it, and
    /// nothing else that fails is an end: what was asked for before may have been done.
    pub(crate) async fn go_on_refunding(&self, scope: &TenantScope, order: Order) -> Result<Order, CommerceError> {
        let Some(begun) = order.refund.clone() else { return self.settle(scope, order).await };
        let order = match vendor_of(order.provider) {
            Some(vendor) => self.refund_in_china(scope, &order, &begun, vendor).await?,
            None => self.refund_at_stripe(scope, &order, &begun).await?,
        };
        self.settle(scope, order).await
    }

    /// The vendor said no to the refund itself, so nothing happened and nothing will.
    async fn refund_refused(
        &self,
        scope: &TenantScope,
        order: &Order,
        begun: &RefundBegun,
        why: String,
    ) -> Result<Order, CommerceError> {
        self.store.end_refund(scope, &order.id, begun, RefundEnd::Refused, None).await?;
        Err(CommerceError::RefundRefused(why))
    }

    async fn refund_in_china(
        &self,
        scope: &TenantScope,
        order: &Order,
        begun: &RefundBegun,
        vendor: Vendor,
    ) -> Result<Order, CommerceError> {
        let number = refund_no(&order.id, begun.number);
        let new = NewRefund {
            out_trade_no: order.id.as_str(),
            out_refund_no: &number,
            amount: begun.amount,
            order_amount: order.amount,
            reason: &begun.reason,
        };
        let made = match self.payment(vendor)?.refund(&new).await {
            Err(error @ (PaymentError::Refused { .. } | PaymentError::Invalid(_))) => {
                return self.refund_refused(scope, order, begun, error.to_string()).await;
            }
            made => made?,
        };
        let done = match vendor {
            // It tells of each refund by its number, Alipay of all of them together.
            Vendor::WeChat => Fact::Refund { number, amount: begun.amount },
            Vendor::Alipay => Fact::RefundedTo { total: begun.total },
        };
        match made.state {
            RefundState::Succeeded => {
                let made = RefundEnd::Made;
                Ok(self.store.end_refund(scope, &order.id, begun, made, Some(&done)).await?)
            }
            RefundState::Closed => {
                tracing::error!(org = %scope.org(), order = %order.id, "the vendor closed a refund; it needs a new one");
                Ok(self.store.end_refund(scope, &order.id, begun, RefundEnd::Refused, None).await?)
            }
            RefundState::Processing | RefundState::Absent => Ok(order.clone()),
            RefundState::Abnormal | RefundState::Unknown(_) => {
                tracing::error!(org = %scope.org(), order = %order.id, state = ?made.state, "a refund needs somebody to look at the vendor's");
                Ok(order.clone())
            }
        }
    }

    async fn refund_at_stripe(
        &self,
        scope: &TenantScope,
        order: &Order,
        begun: &RefundBegun,
    ) -> Result<Order, CommerceError> {
        let stripe = self.stripe()?;
        let paid = order.paid.as_ref().ok_or(CommerceError::Impossible("the order is not paid"))?;
        let payment = PaymentRef::Intent(&paid.payment);
        let number = begun.number.to_string();
        // Stripe forgets keys after a day; metadata stay.
        let made = stripe.refunds_of(payment).await?;
        let made = made.into_iter().find(|refund| refund.metadata.get(METADATA_REFUND) == Some(&number));
        let made = match made {
            Some(made) => made,
            None => {
                // All is all that is left of the payment, taxes too.
                let amount = (!begun.all).then(|| i64::try_from(begun.amount).unwrap_or(i64::MAX));
                let words = [(METADATA_ORDER, order.id.as_str()), (METADATA_REFUND, number.as_str())];
                let key = OperationKey::new("refund", &[order.id.as_str(), &number]);
                match stripe.refund(payment, amount, Some(RefundReason::RequestedByCustomer), &words, &key).await {
                    Err(error) if is_no(&error) => {
                        return self.refund_refused(scope, order, begun, error.to_string()).await;
                    }
                    made => made?,
                }
            }
        };
        let intent = stripe.payment_intent(&paid.payment).await?;
        self.take_back_order(scope, order.clone(), &intent).await?;
        let end = if made.took_money() { RefundEnd::Made } else { RefundEnd::Refused };
        let done = RefundBegun { amount: made.amount.unsigned_abs(), ..begun.clone() };
        Ok(self.store.end_refund(scope, &order.id, &done, end, None).await?)
    }
}

/// Our number of a refund: that of the order, and which one of it.
pub(crate) fn refund_no(order: &OrderId, number: u32) -> String {
    format!("{order}_{number}")
}

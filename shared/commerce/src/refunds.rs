//! Money that we give back, for the operator. One refund of an order is under way at a time, and its number is written down
//! before the vendor is asked, so that whatever fails, it is asked again with the same number and refunds once.

use tenantry_domain::{
    OrderId,
    orders::{Fact, Order, OrderState, RefundBegun},
};
use tenantry_payments::{
    NewRefund, PaymentError, RefundState, Vendor,
    stripe::{OperationKey, PaymentRef, RefundReason, StripeError},
};
use tenantry_store::{NewAudit, RefundOpened, TenantScope};

use crate::{Commerce, CommerceError, checkout::METADATA_ORDER, reconcile::vendor_of};

/// Our word in a refund's metadata for which one of its order's it is.
const METADATA_REFUND: &str = "refund";

impl Commerce {
    /// Gives `amount` of an order's money back, or all that is left, in minor units. What it had bought is taken back by
    /// the same share: credits as far as they are there, months from the end of what is paid for in advance.
    ///
    /// The refund may still be under way afterwards ([`Order::refund`]). Who hears nothing calls again with the same
    /// amount, or leaves it to [`Commerce::reconcile_order`].
    ///
    /// # Errors
    /// [`CommerceError::Impossible`] when there is not so much left, or another refund is under way.
    pub async fn refund(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        amount: Option<u64>,
        reason: &str,
        audit: &NewAudit<'_>,
    ) -> Result<Order, CommerceError> {
        let order = self.order(scope, order).await?;
        // Given first, or a refund of what was never given would be taken from other credits.
        let order = self.settle(scope, order).await?;
        match self.store.begin_refund(scope, &order.id, amount, reason, audit).await? {
            RefundOpened::Begun(order) => self.go_on_refunding(scope, *order).await,
            RefundOpened::TooMuch if order.state() == OrderState::Refunded => Ok(order),
            RefundOpened::TooMuch => Err(CommerceError::Impossible("there is not so much left to refund")),
            RefundOpened::Busy => Err(CommerceError::Impossible("another refund of this order is under way")),
        }
    }

    /// Asks for the refund that is under way, as often as it takes.
    pub(crate) async fn go_on_refunding(&self, scope: &TenantScope, order: Order) -> Result<Order, CommerceError> {
        let Some(begun) = order.refund.clone() else { return self.settle(scope, order).await };
        let done = match vendor_of(order.provider) {
            Some(vendor) => self.refund_in_china(scope, &order, &begun, vendor).await,
            None => self.refund_at_stripe(scope, &order, &begun).await,
        };
        match done {
            // The vendor said no, so nothing happened and nothing will.
            Err(
                error @ (CommerceError::Payment(PaymentError::Refused { .. } | PaymentError::Invalid(_))
                | CommerceError::Stripe(StripeError::Refused(_))),
            ) => {
                self.store.end_refund(scope, &order.id, begun.number, None).await?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(order) => self.settle(scope, order).await,
        }
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
        let made = self.payment(vendor)?.refund(&new).await?;
        let done = match vendor {
            // It tells of each refund by its number, Alipay of all of them together.
            Vendor::WeChat => Fact::Refund { number, amount: begun.amount },
            Vendor::Alipay => Fact::RefundedTo { total: begun.total },
        };
        match made.state {
            RefundState::Succeeded => Ok(self.store.end_refund(scope, &order.id, begun.number, Some(&done)).await?),
            RefundState::Closed => {
                tracing::error!(org = %scope.org(), order = %order.id, "the vendor closed a refund; it needs a new one");
                Ok(self.store.end_refund(scope, &order.id, begun.number, None).await?)
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
        if !made.iter().any(|refund| refund.metadata.get(METADATA_REFUND) == Some(&number)) {
            // The whole is the whole payment, taxes too.
            let amount = (begun.amount < order.amount).then(|| i64::try_from(begun.amount).unwrap_or(i64::MAX));
            let words = [(METADATA_ORDER, order.id.as_str()), (METADATA_REFUND, number.as_str())];
            let key = OperationKey::new("refund", &[order.id.as_str(), &number]);
            stripe.refund(payment, amount, Some(RefundReason::RequestedByCustomer), &words, &key).await?;
        }
        let intent = stripe.payment_intent(&paid.payment).await?;
        self.take_back_order(scope, order.clone(), &intent).await?;
        Ok(self.store.end_refund(scope, &order.id, begun.number, None).await?)
    }
}

/// Our number of a refund: that of the order, and which one of it.
pub(crate) fn refund_no(order: &OrderId, number: u32) -> String {
    format!("{order}_{number}")
}

//! What Stripe's refunds and disputes take from what their payments had bought.

use tenantry_domain::{
    ledger::{LedgerKind, LedgerRow},
    orders::{Fact, Order},
    plans::pro_rata,
};
use tenantry_payments::stripe::{Dispute, Invoice, PaymentIntent, PaymentRef};
use tenantry_store::{NewLedgerRow, TenantScope};

use crate::{Commerce, CommerceError, goods::given, nightly::invoice_key};

/// Credits that a payment brought.
pub(crate) struct Purchase {
    /// The key they were booked with.
    pub(crate) granted: String,
    /// What they were booked for.
    pub(crate) reference: String,
    /// What was paid, taxes and all, in minor units.
    pub(crate) paid: u64,
}

impl Purchase {
    /// What came with an invoice.
    pub(crate) fn of_invoice(invoice: &Invoice) -> Self {
        Self {
            granted: invoice_key(&invoice.id),
            reference: invoice.id.clone(),
            paid: invoice.amount_paid.unsigned_abs(),
        }
    }
}

impl Commerce {
    /// Takes back of an order what refunds and disputes of its payment say.
    pub(crate) async fn take_back_order(
        &self,
        scope: &TenantScope,
        order: Order,
        intent: &PaymentIntent,
    ) -> Result<Order, CommerceError> {
        let stripe = self.stripe()?;
        let payment = PaymentRef::Intent(&intent.id);
        let refunds = stripe.refunds_of(payment).await?;
        let took = refunds.iter().filter(|refund| refund.took_money());
        let refunded = took.fold(0_u64, |sum, refund| sum.saturating_add(refund.amount.unsigned_abs()));
        let paid = intent.amount_received.unsigned_abs();
        // Taxes went back too; what the goods cost is what an order is over.
        let total = pro_rata(order.amount, paid, refunded);
        let order = match total {
            0 => order,
            total => self.store.order_fact(scope, &order.id, &Fact::RefundedTo { total }).await?.order,
        };
        let order = self.settle(scope, order).await?;
        let disputes = stripe.disputes_of(payment).await?;
        if disputes.is_empty() {
            return Ok(order);
        }
        if let Some(granted) = self.store.booked(scope, &given(&order.id)).await? {
            let gone = order.share(granted.amount.unsigned_abs(), 0, order.taken_back);
            let purchase = Purchase { granted: given(&order.id), reference: order.id.to_string(), paid };
            self.claw_back(scope, &purchase, &granted, gone, disputes).await?;
        }
        Ok(order)
    }

    /// Takes back of the credits of a purchase what refunds and disputes say, each once.
    pub(crate) async fn take_back(
        &self,
        scope: &TenantScope,
        purchase: &Purchase,
        payment: PaymentRef<'_>,
    ) -> Result<(), CommerceError> {
        let Some(granted) = self.store.booked(scope, &purchase.granted).await? else { return Ok(()) };
        let stripe = self.stripe()?;
        let credits = granted.amount.unsigned_abs();
        let mut refunds = stripe.refunds_of(payment).await?;
        // In an order that does not depend on when we look: the shares are of the total after each.
        refunds.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let (mut total, mut gone) = (0_u64, 0_u64);
        for refund in &refunds {
            let key = format!("refund:{}", refund.id);
            let before = pro_rata(credits, purchase.paid, total);
            if refund.took_money() {
                total = total.saturating_add(refund.amount.unsigned_abs());
            }
            match self.store.booked(scope, &key).await? {
                Some(taken) if refund.took_money() => gone += taken.amount.unsigned_abs() + taken.short,
                Some(taken) => self.give_back(scope, purchase, &granted, &taken, &key).await?,
                None if refund.took_money() => {
                    let share = (pro_rata(credits, purchase.paid, total) - before).min(credits.saturating_sub(gone));
                    self.take_credits(scope, LedgerKind::Refund, share, &key, &purchase.reference).await?;
                    gone += share;
                }
                None => {}
            }
        }
        let disputes = stripe.disputes_of(payment).await?;
        self.claw_back(scope, purchase, &granted, gone, disputes).await
    }

    /// The same for disputes, where `gone` of the credits were taken back already: together they take no more than the
    /// purchase had brought.
    async fn claw_back(
        &self,
        scope: &TenantScope,
        purchase: &Purchase,
        granted: &LedgerRow,
        mut gone: u64,
        mut disputes: Vec<Dispute>,
    ) -> Result<(), CommerceError> {
        let credits = granted.amount.unsigned_abs();
        disputes.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        for dispute in disputes {
            let key = format!("dispute:{}", dispute.id);
            match self.store.booked(scope, &key).await? {
                Some(taken) if dispute.status.is_won() => {
                    self.give_back(scope, purchase, granted, &taken, &key).await?;
                }
                Some(taken) => gone += taken.amount.unsigned_abs() + taken.short,
                None if dispute.status.took_money() => {
                    let share = pro_rata(credits, purchase.paid, dispute.amount.unsigned_abs());
                    let share = share.min(credits.saturating_sub(gone));
                    self.take_credits(scope, LedgerKind::Clawback, share, &key, &purchase.reference).await?;
                    gone += share;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The money came back to us, so what was taken for it goes back to the tenant: as much as was there to be taken.
    async fn give_back(
        &self,
        scope: &TenantScope,
        purchase: &Purchase,
        granted: &LedgerRow,
        taken: &LedgerRow,
        key: &str,
    ) -> Result<(), CommerceError> {
        if taken.amount == 0 {
            return Ok(());
        }
        let new = NewLedgerRow {
            kind: LedgerKind::Adjustment,
            amount: taken.amount.unsigned_abs(),
            key: &format!("{key}:undone"),
            reference: Some(&purchase.reference),
            expires_at: granted.expires_at,
        };
        self.store.add_credits(scope, &new).await?;
        Ok(())
    }
}

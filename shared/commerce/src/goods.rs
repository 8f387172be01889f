//! What an order is for, whoever took the money: given once when it is paid, taken back as far as its money goes back.

use tenantry_domain::{
    Millis, OrderId,
    account::Account,
    ledger::LedgerKind,
    orders::{Fact, Goods, Order},
    time::months_later,
};
use tenantry_store::{Booked, NewLedgerRow, TenantScope};

use crate::{Commerce, CommerceError, TRIES};

/// Milliseconds.
const DAY: Millis = 24 * 3_600_000;

impl Commerce {
    /// A vendor says that an order was paid, and its amount, currency and merchant were checked: it is marked, and what
    /// was ordered is given, once. That holds for an order that was closed, too: the money was taken.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub(crate) async fn order_paid(
        &self,
        scope: &TenantScope,
        order: &OrderId,
        payment: &str,
        at: Millis,
    ) -> Result<Order, CommerceError> {
        let paid = Fact::Paid { payment: payment.to_owned(), at };
        let changed = self.store.order_fact(scope, order, &paid).await?;
        if let Some(before) = changed.before
            && before.paid.is_none()
            && !before.state().is_open()
        {
            tracing::warn!(org = %scope.org(), %order, state = before.state().name(), "an order was paid after its end");
        }
        self.settle(scope, changed.order).await
    }

    /// Gives what a paid order is for, and takes back of it what its refunds say; nothing when that was done. It can be
    /// called at any time.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn settle(&self, scope: &TenantScope, mut order: Order) -> Result<Order, CommerceError> {
        if order.is_owed() {
            self.give(scope, &order).await?;
            order = self.store.set_fulfilled(scope, &order.id).await?;
        }
        // What goes back before the goods were given is taken after they were given: the books tell both.
        while order.is_due_back() {
            order = self.store.begin_taking_back(scope, &order.id).await?;
            // From the state as stored, so that all who are at it at the same time book the same, under the same key.
            let Some(to) = order.taking_back else { continue };
            self.take_goods(scope, &order, to).await?;
            order = self.store.set_taken_back(scope, &order.id, to).await?;
        }
        Ok(order)
    }

    async fn give(&self, scope: &TenantScope, order: &Order) -> Result<(), CommerceError> {
        let key = given(&order.id);
        match &order.goods {
            Goods::Package { credits, expires_after_days, .. } => {
                let from = order.paid.as_ref().map_or(order.created_at, |paid| paid.at);
                let new = NewLedgerRow {
                    kind: LedgerKind::Purchase,
                    amount: *credits,
                    key: &key,
                    reference: Some(order.id.as_str()),
                    expires_at: expires_after_days.map(|days| from + Millis::from(days) * DAY),
                };
                self.store.add_credits(scope, &new).await?;
                Ok(())
            }
            Goods::Months { plan, months } => {
                self.change_prepaid(scope, &key, |account| {
                    account.prepaid_more(self.store.plans(), &order.id, plan, *months, self.store.now())
                })
                .await
            }
        }
    }

    /// Takes back what belongs to refunds from the total [`Order::taken_back`] to the total `to`: that share of the
    /// credits, or that share of the months, from their end. What was used is gone, and what came with other orders is not
    /// touched.
    async fn take_goods(&self, scope: &TenantScope, order: &Order, to: u64) -> Result<(), CommerceError> {
        let from = order.taken_back;
        let key = format!("order_back:{}:{from}", order.id);
        match &order.goods {
            Goods::Package { credits, .. } => {
                let share = order.share(*credits, from, to);
                self.take_credits(scope, LedgerKind::Refund, share, &key, order.id.as_str()).await?;
                Ok(())
            }
            Goods::Months { plan, months } => {
                let paid_at = order.paid.as_ref().map_or(order.created_at, |paid| paid.at);
                let whole = u64::try_from(months_later(paid_at, *months) - paid_at).unwrap_or(0);
                let share = Millis::try_from(order.share(whole, from, to)).unwrap_or(0);
                self.change_prepaid(scope, &key, |account| {
                    account.prepaid_less(self.store.plans(), &order.id, plan, share, self.store.now())
                })
                .await
            }
        }
    }

    /// Takes credits of those that came with `reference`, as far as they are there, once for `key`.
    pub(crate) async fn take_credits(
        &self,
        scope: &TenantScope,
        kind: LedgerKind,
        amount: u64,
        key: &str,
        reference: &str,
    ) -> Result<(), CommerceError> {
        let new = NewLedgerRow { kind, amount, key, reference: Some(reference), expires_at: None };
        if let Booked::Done(row) = self.store.take_credits_of(scope, &new, reference).await?
            && row.short > 0
        {
            let (row, short) = (&row.id, row.short);
            tracing::warn!(org = %scope.org(), %row, short, "credits were spent before their money went back");
        }
        Ok(())
    }

    /// Changes what is paid for in advance, once for `key`, and the plan with it.
    async fn change_prepaid(
        &self,
        scope: &TenantScope,
        key: &str,
        change: impl Fn(&Account) -> Account,
    ) -> Result<(), CommerceError> {
        for _ in 0..TRIES {
            let next = change(&self.store.account(scope).await?);
            if self.store.write_account_once(scope, next, key).await?.is_some()
                || self.store.is_booked(scope, key).await?
            {
                self.entitle(scope).await?;
                return Ok(());
            }
        }
        Err(CommerceError::Contention)
    }
}

/// The key of what an order gives.
pub(crate) fn given(order: &OrderId) -> String {
    format!("order:{order}")
}

//! What Stripe tells, and what is done about it.

use tenantry_domain::{Millis, OrgId, ledger::LedgerKind, plans::plan_product_id, warnings::Reached};
use tenantry_payments::stripe::{Event, EventObject, Invoice, InvoiceStatus, PaymentRef};
use tenantry_store::{AccountEvent, NewLedgerRow, TenantScope};
use tenantry_web::mail::LimitedBy;

use crate::{Commerce, CommerceError, Mismatch, nightly::invoice_key, take_back::Purchase};

/// What came of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// Whose it was; nobody's of ours when none.
    pub org: Option<OrgId>,
    /// What people should be told.
    pub notices: Vec<Notice>,
    /// The right to look up whom to tell.
    pub(crate) scope: Option<TenantScope>,
}

impl Handled {
    pub(crate) fn of(scope: TenantScope, notices: Vec<Notice>) -> Self {
        Self { org: Some(scope.org().clone()), notices, scope: Some(scope) }
    }
}

/// Something that the owners of a tenant should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A payment failed, and the plan ends when it is not made up for.
    PaymentFailed {
        /// The invoice.
        invoice: String,
        /// When the plan ends, if nothing is paid.
        until: Millis,
    },
    /// A trial ends soon.
    TrialEnding {
        /// The subscription.
        subscription: String,
        /// When.
        at: Millis,
    },
    /// Credits run out.
    LowBalance {
        /// Micro-credits that are left.
        credits: u64,
    },
    /// A limit of the month is nearly used up, or used up.
    LimitReached {
        /// Whose limit.
        by: LimitedBy,
        /// What the API key or the member is called.
        who: String,
        /// The model that it is for.
        model: Option<String>,
        /// What was reached.
        reached: Reached,
        /// When it starts afresh.
        resets_at: Millis,
    },
    /// Credits were to be bought by themselves, and could not be; it is switched off.
    TopUpFailed,
    /// A plan ended, and a smaller one is left.
    PlanEnded {
        /// The plan that ended.
        plan: String,
        /// The plan from now on.
        now: String,
    },
}

impl Commerce {
    /// Does what an event calls for. Can be called again with the same event at any time.
    ///
    /// # Errors
    /// [`CommerceError::Mismatch`] is final: nothing was done, and somebody must look. With the others the vendor shall
    /// come again.
    pub async fn handle(&self, event: &Event) -> Result<Handled, CommerceError> {
        if event.livemode != self.stripe()?.is_live() {
            return Err(Mismatch::of(&event.id, "is of test mode and the key is not, or the other way round").into());
        }
        match &event.object {
            EventObject::CheckoutSession(session) => self.checkout_event(&session.id).await,
            EventObject::Subscription(subscription) => {
                let (customer, metadata) = (Some(subscription.customer.as_str()), Some(&subscription.metadata));
                let Some(scope) = self.tenant_of(&subscription.id, customer, metadata).await? else {
                    return Ok(Handled::default());
                };
                let planned = self.sync_subscription(&subscription.id).await?;
                let product = subscription.items.first().map(|item| item.price.product.as_str());
                let plans = self.store.plans();
                let plan = plans.all().iter().find(|p| product == Some(&*plan_product_id(&p.id)));
                let noted = AccountEvent {
                    at: event.created,
                    id: event.id.clone(),
                    kind: event.kind.clone(),
                    subscription: Some(subscription.id.clone()),
                    status: Some(subscription.status.as_str().to_owned()),
                    plan: plan.map(|plan| plan.id.clone()),
                    cancel_at_period_end: subscription.cancel_at_period_end,
                };
                self.store.note_account_event(&scope, &noted).await?;
                let notice = self.notice_of_subscription(&scope, event, &subscription.id, plan, planned).await?;
                Ok(Handled::of(scope, notice.into_iter().collect()))
            }
            // It cannot be looked at any more, and was a draft.
            EventObject::Invoice(_) if event.kind == "invoice.deleted" => Ok(Handled::default()),
            EventObject::Invoice(invoice) => self.invoice_event(event, &invoice.id).await,
            EventObject::Charge(charge) => {
                let intent = charge.payment_intent.as_deref();
                self.payment_event(&charge.id, charge.customer.as_deref(), intent, &charge.id).await
            }
            EventObject::Refund(refund) => match &refund.charge {
                Some(charge) => self.charge_event(charge).await,
                None => Ok(Handled::default()),
            },
            EventObject::Dispute(dispute) => self.charge_event(&dispute.charge).await,
            EventObject::InvoicePayment(_)
            | EventObject::PaymentIntent(_)
            | EventObject::PaymentMethod(_)
            | EventObject::SetupIntent(_)
            | EventObject::Customer(_)
            | EventObject::Other { .. } => Ok(Handled::default()),
        }
    }

    async fn invoice_event(&self, event: &Event, id: &str) -> Result<Handled, CommerceError> {
        let invoice = self.stripe()?.invoice(id).await?;
        let metadata = (!invoice.subscription_metadata.is_empty()).then_some(&invoice.subscription_metadata);
        let Some(scope) = self.tenant_of(id, invoice.customer.as_deref(), metadata).await? else {
            return Ok(Handled::default());
        };
        let mut notices = vec![];
        if let Some(subscription) = &invoice.subscription {
            let is_ours = self.sync_subscription(subscription).await?.is_some();
            if is_ours && invoice.status == Some(InvoiceStatus::Paid) {
                self.grant_for_invoice(&scope, &invoice).await?;
            } else if event.kind == "invoice.payment_failed" || event.kind == "invoice.payment_action_required" {
                notices.extend(self.notice_of_late_payment(&scope, &invoice.id, subscription).await?);
            }
        }
        Ok(Handled::of(scope, notices))
    }

    /// The credits that come with the plan, for the months that an invoice pays for; once. They end with those months.
    pub(crate) async fn grant_for_invoice(&self, scope: &TenantScope, invoice: &Invoice) -> Result<(), CommerceError> {
        // What settles the rest of a period gives its credits with the next one. The invoice itself says for which plan it
        // is: by the time we hear of it the subscription may be for another, or have ended, or another one counts.
        let plans = self.store.plans().all();
        let sold = |product: &str| plans.iter().find(|plan| plan_product_id(&plan.id) == product);
        let mut lines = invoice.lines.iter().filter(|line| !line.proration);
        let found = lines.find_map(|line| Some((line, sold(line.product.as_deref()?)?)));
        let Some((line, plan)) = found else { return Ok(()) };
        // Invoices of nothing are those of trials; they come with credits as well.
        let months = months(line.period_start, line.period_end);
        let Some(credits) = plan.credits_month.map(|credits| credits.saturating_mul(months)).filter(|n| *n > 0) else {
            return Ok(());
        };
        let new = NewLedgerRow {
            kind: LedgerKind::Grant,
            amount: credits,
            key: &invoice_key(&invoice.id),
            reference: Some(&invoice.id),
            expires_at: Some(line.period_end),
        };
        self.store.add_credits(scope, &new).await?;
        // What went back before they were granted was not there to be taken then.
        for payment in self.stripe()?.payments_of_invoice(&invoice.id).await? {
            if let Some(intent) = &payment.payment_intent {
                self.take_back(scope, &Purchase::of_invoice(invoice), PaymentRef::Intent(intent)).await?;
            }
        }
        Ok(())
    }

    async fn charge_event(&self, charge: &str) -> Result<Handled, CommerceError> {
        let charge = self.stripe()?.charge(charge).await?;
        let intent = charge.payment_intent.as_deref();
        self.payment_event(&charge.id, charge.customer.as_deref(), intent, &charge.id).await
    }

    /// Something happened to a payment: what went back of it is taken back here as well.
    async fn payment_event(
        &self,
        object: &str,
        customer: Option<&str>,
        intent: Option<&str>,
        charge: &str,
    ) -> Result<Handled, CommerceError> {
        let Some(scope) = self.tenant_of(object, customer, None).await? else { return Ok(Handled::default()) };
        let stripe = self.stripe()?;
        let payment = intent.map_or(PaymentRef::Charge(charge), PaymentRef::Intent);
        if let Some(intent) = intent {
            let intent = stripe.payment_intent(intent).await?;
            if let Some(order) = self.order_of_payment(&scope, &intent).await? {
                // Nothing goes back that was not paid: that message is late or lost.
                let order = self.look(&scope, order).await?;
                self.take_back_order(&scope, order, &intent).await?;
            } else if let Some(paid) = stripe.invoice_paid_by(&intent.id).await? {
                let invoice = stripe.invoice(&paid.invoice).await?;
                self.take_back(&scope, &Purchase::of_invoice(&invoice), payment).await?;
            }
        }
        Ok(Handled::of(scope, vec![]))
    }
}

/// How many months a period has: a month has 28 days at least, and a year is twelve of them.
fn months(start: Millis, end: Millis) -> u64 {
    /// A twelfth of 365 days.
    const MONTH: Millis = 365 * 24 * 3_600_000 / 12;
    u64::try_from((end - start + MONTH / 2) / MONTH).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::months;

    const DAY: i64 = 24 * 3_600_000;

    #[test]
    fn months_are_counted_whatever_their_length() {
        for (days, expected) in [(28, 1), (29, 1), (31, 1), (59, 2), (90, 3), (92, 3), (365, 12), (366, 12), (0, 1)] {
            assert_eq!(months(0, days * DAY), expected, "{days} days");
        }
    }
}

//! Changes of subscriptions that are made only when they are paid: `payment_behavior=pending_if_incomplete`,
//! <https://docs.stripe.com/billing/subscriptions/pending-updates>.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    calendar::HOUR,
    invoices,
    object::{Kind, list},
    state::State,
};

/// Stripe waits 23 hours.
const PATIENCE: i64 = 23 * HOUR;

/// A change that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    /// What is to be paid.
    pub(super) invoice: String,
    /// The subscription's members after it.
    pub(super) changes: Value,
    pub(super) expires_at: i64,
    /// Whether the subscription shows it: not while its first payment is being tried.
    shown: bool,
}

impl Pending {
    pub(super) fn new(invoice: &str, changes: Value, now: i64) -> Self {
        Self { invoice: invoice.to_owned(), changes, expires_at: now + PATIENCE, shown: false }
    }
}

/// The first payment failed: from here on the subscription shows what waits.
pub(super) fn show(s: &mut State, subscription: &str) {
    let Some(pending) = s.pending.get_mut(subscription) else { return };
    pending.shown = true;
    let update = json!({
        "billing_cycle_anchor": pending.changes["billing_cycle_anchor"], "expires_at": pending.expires_at,
        "subscription_items": pending.changes["items"]["data"], "trial_end": pending.changes["trial_end"], "trial_from_plan": null,
        "discount": null, "discounts": null, "metadata": null,
    });
    let changes = json!({"pending_update": update, "latest_invoice": pending.invoice});
    s.change(Kind::Subscription, subscription, "customer.subscription.updated", changes);
}

/// The invoice is paid: the change is made.
pub(super) fn apply(s: &mut State, subscription: &str) {
    let Some(mut pending) = s.pending.remove(subscription) else { return };
    pending.changes["pending_update"] = Value::Null;
    pending.changes["latest_invoice"] = json!(pending.invoice);
    s.change(Kind::Subscription, subscription, "customer.subscription.updated", pending.changes);
    if pending.shown {
        s.tell(Kind::Subscription, subscription, "customer.subscription.pending_update_applied");
    }
}

/// Nobody paid in time: the change is forgotten.
pub(super) fn expire(s: &mut State, subscription: &str) {
    let Some(pending) = s.pending.remove(subscription) else { return };
    invoices::give_up(s, &pending.invoice, "void", "voided_at", "invoice.voided");
    s.set(Kind::Subscription, subscription, json!({ "pending_update": null }));
    s.tell(Kind::Subscription, subscription, "customer.subscription.pending_update_expired");
}

/// A subscription's items as a list object.
pub(super) fn items(subscription: &str, items: Vec<Value>) -> Value {
    list(items, false, &format!("/v1/subscription_items?subscription={subscription}"))
}

//! What time does: renewals, ends of trials, attempts to collect, expiries. Everything happens in the order in which it
//! is due, at the second at which it is due, however far the clock jumps.

use serde_json::{Value, json};

use super::{
    calendar::{DAY, HOUR, next_boundary},
    catalogue::cycle,
    checkout,
    invoice_lines::{Line, waiting},
    invoices::{self, Draft},
    object::{Kind, elements, int, text},
    pending,
    state::State,
    subscriptions::{self, period_end},
};

/// How long before its end a trial is announced.
const ANNOUNCED: i64 = 3 * DAY;
/// How long a first payment may take. <https://docs.stripe.com/billing/subscriptions/overview#payment-window>
const PAYMENT_WINDOW: i64 = 23 * HOUR;

/// Something that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    SessionExpires(String),
    TrialWillEnd(String),
    NeverBegins(String),
    PendingExpires(String),
    /// At `cancel_at`.
    Ends(String),
    /// The period, or the trial, is over.
    Renews(String),
    Finalizes(String),
    Collects(String),
}

/// Lets time pass until `until`.
pub(super) fn run(s: &mut State, until: i64) {
    while let Some((at, due)) = next(s).filter(|(at, _)| *at <= until) {
        s.now = s.now.max(at);
        happen(s, due);
    }
    s.now = s.now.max(until);
}

/// What is due first.
fn next(s: &State) -> Option<(i64, Due)> {
    let sessions = s.all(Kind::Session).filter(|session| text(session, "status") == "open");
    let sessions =
        sessions.map(|session| (int(session, "expires_at"), Due::SessionExpires(text(session, "id").to_owned())));
    let subscriptions = s.all(Kind::Subscription).flat_map(|subscription| of_subscription(s, subscription));
    let invoices = s.all(Kind::Invoice).filter_map(of_invoice);
    sessions.chain(subscriptions).chain(invoices).min()
}

fn of_subscription(s: &State, subscription: &Value) -> Vec<(i64, Due)> {
    let id = text(subscription, "id");
    let mut due = vec![];
    let status = text(subscription, "status");
    if status == "incomplete" {
        due.push((int(subscription, "created") + PAYMENT_WINDOW, Due::NeverBegins(id.to_owned())));
    }
    if ["trialing", "active", "past_due", "unpaid"].contains(&status) {
        due.push((period_end(subscription), Due::Renews(id.to_owned())));
    }
    if status == "trialing" && !s.announced.contains(id) {
        let at = int(subscription, "trial_end") - ANNOUNCED;
        due.push((at.max(int(subscription, "trial_start")), Due::TrialWillEnd(id.to_owned())));
    }
    if let Some(at) = subscription["cancel_at"].as_i64().filter(|_| !subscriptions::is_over(subscription)) {
        due.push((at, Due::Ends(id.to_owned())));
    }
    if let Some(pending) = s.pending.get(id) {
        due.push((pending.expires_at, Due::PendingExpires(id.to_owned())));
    }
    due
}

fn of_invoice(invoice: &Value) -> Option<(i64, Due)> {
    let id = text(invoice, "id").to_owned();
    if invoice["auto_advance"] != true {
        return None;
    }
    match text(invoice, "status") {
        "draft" => Some((invoice["automatically_finalizes_at"].as_i64()?, Due::Finalizes(id))),
        "open" => Some((invoice["next_payment_attempt"].as_i64()?, Due::Collects(id))),
        _ => None,
    }
}

fn happen(s: &mut State, due: Due) {
    match due {
        Due::SessionExpires(id) => checkout::expired(s, &id),
        Due::TrialWillEnd(id) => {
            s.tell(Kind::Subscription, &id, "customer.subscription.trial_will_end");
            s.announced.insert(id);
        }
        Due::NeverBegins(id) => {
            let invoice =
                s.get(Kind::Subscription, &id).map(|subscription| text(subscription, "latest_invoice").to_owned());
            invoices::give_up(s, &invoice.unwrap_or_default(), "void", "voided_at", "invoice.voided");
            subscriptions::never_begins(s, &id);
        }
        Due::PendingExpires(id) => pending::expire(s, &id),
        Due::Ends(id) => subscriptions::end(s, &id, "cancellation_requested"),
        Due::Renews(id) => renew(s, &id),
        Due::Finalizes(id) => {
            invoices::finalize(s, &id);
            invoices::collect(s, &id, None, false, true);
        }
        Due::Collects(id) => {
            invoices::collect(s, &id, None, false, true);
        }
    }
}

/// A new period begins, with a draft of its invoice.
fn renew(s: &mut State, id: &str) {
    let Some(subscription) = s.get(Kind::Subscription, id).cloned() else { return };
    let status = text(&subscription, "status");
    let start = period_end(&subscription);
    if status == "trialing" && subscriptions::method_for(s, id).is_none() {
        match text(&subscription["trial_settings"]["end_behavior"], "missing_payment_method") {
            "cancel" => return subscriptions::end(s, id, "payment_failed"),
            "pause" => {
                return s.change(Kind::Subscription, id, "customer.subscription.paused", json!({ "status": "paused" }));
            }
            _ => {}
        }
    }
    // An update that waited is for a period that is over.
    pending::expire(s, id);
    let previous = elements(&subscription, "items").first().map_or(start, |item| int(item, "current_period_start"));
    let anchor = int(&subscription, "billing_cycle_anchor");
    let items: Vec<Value> = elements(&subscription, "items")
        .iter()
        .map(|item| {
            let mut item = item.clone();
            if let Some((unit, every)) = cycle(&item["price"]) {
                item["current_period_start"] = json!(start);
                item["current_period_end"] = json!(next_boundary(anchor, unit, every, start));
            }
            item
        })
        .collect();
    let invoice = s.new_id(Kind::Invoice);
    let status = if status == "trialing" { "active" } else { status };
    let unpaid = status == "unpaid";
    let changes = json!({"items": pending::items(id, items.clone()), "latest_invoice": invoice, "status": status});
    s.change(Kind::Subscription, id, "customer.subscription.updated", changes);
    let Some(subscription) = s.get(Kind::Subscription, id).cloned() else { return };
    let mut lines: Vec<Line> = items.iter().map(|item| Line::period(s, item)).collect();
    lines.extend(waiting(s, id));
    let draft = Draft { subscription: &subscription, reason: "subscription_cycle", lines, period: (previous, start) };
    invoices::draft(s, &invoice, &draft);
    if unpaid {
        // Nobody is asked for the money of a subscription that has not been paid.
        s.set(Kind::Invoice, &invoice, json!({"auto_advance": false, "automatically_finalizes_at": null}));
    }
}

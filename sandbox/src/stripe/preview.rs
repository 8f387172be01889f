//! `POST /v1/invoices/create_preview`: the next invoice of a subscription, or of a change that nobody has made.
//! <https://docs.stripe.com/api/invoices/create_preview>

use serde_json::{Value, json};

use super::{
    calendar::next_boundary,
    catalogue::cycle,
    error::{Answer, StripeError},
    invoice_lines::{Line, waiting},
    invoices::{Draft, compose},
    object::{Kind, elements, int, overlay, text},
    params::Params,
    state::State,
    subscription_update::{Wish, outcome},
    subscriptions::is_over,
};

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let customer = p.some_text("customer")?;
    let id = p.some_text("subscription")?;
    let mut wish = Wish::default();
    if let Some(mut details) = p.group("subscription_details")? {
        wish = Wish::take(s, &mut details)?;
        details.done()?;
    }
    p.done()?;
    let Some(id) = id else {
        let message = "The sandbox previews invoices of subscriptions that exist: give `subscription`";
        return Err(StripeError::invalid(message).param("subscription"));
    };
    let mut subscription = s.referred(Kind::Subscription, &id, "subscription")?;
    if customer.is_some_and(|customer| customer != text(&subscription, "customer")) {
        return Err(StripeError::no_such(Kind::Subscription, &id, "subscription"));
    }
    if is_over(&subscription) {
        let message = "No upcoming invoices for a subscription that has ended";
        return Err(StripeError::invalid(message).code("invoice_upcoming_none"));
    }
    let outcome = outcome(s, &subscription, &wish)?;
    let mut lines = waiting(s, &id);
    lines.extend(outcome.prorations);
    overlay(&mut subscription, outcome.changes);
    let (reason, at) = if outcome.at_once {
        lines.extend(outcome.begun);
        ("subscription_update", s.now)
    } else {
        if subscription["cancel_at_period_end"] == true && lines.is_empty() {
            let message = "No upcoming invoices: the subscription ends with its period";
            return Err(StripeError::invalid(message).code("invoice_upcoming_none"));
        }
        let items: Vec<Value> =
            elements(&subscription, "items").iter().map(|item| next_period(&subscription, item)).collect();
        lines.extend(items.iter().map(|item| Line::period(s, item)));
        ("upcoming", items.first().map_or(s.now, |item| int(item, "current_period_start")))
    };
    let line_ids: Vec<String> = lines.iter().map(|_| s.id("il_tmp_")).collect();
    let preview = s.id("upcoming_in_");
    let draft = Draft { subscription: &subscription, reason, lines, period: (s.now, at) };
    let mut invoice = compose(s, &preview, &draft, &line_ids);
    overlay(&mut invoice, json!({"created": at, "next_payment_attempt": at, "number": null}));
    Ok(invoice)
}

/// The item in the period after the current one.
fn next_period(subscription: &Value, item: &Value) -> Value {
    let mut item = item.clone();
    let start = int(&item, "current_period_end");
    if let Some((unit, every)) = cycle(&item["price"]) {
        item["current_period_start"] = json!(start);
        item["current_period_end"] =
            json!(next_boundary(int(subscription, "billing_cycle_anchor"), unit, every, start));
    }
    item
}

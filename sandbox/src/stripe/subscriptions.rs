//! Subscriptions: <https://docs.stripe.com/billing/subscriptions/overview>. What time does to them is in `lifecycle`.

use serde_json::{Value, json};

use super::{
    calendar::{DAY, next_boundary},
    catalogue::cycle,
    coupons::Reduction,
    customers,
    error::{Answer, StripeError},
    invoice_lines::Line,
    invoices::{self, Collected, Draft},
    listing::{Page, page},
    object::{Kind, elements, example, int, text, with},
    params::Params,
    pending, proration,
    settings::{AfterRetries, Card},
    state::State,
};

/// Of one price.
const MOST: i64 = 999_999;

/// A subscription to be.
pub(super) struct New {
    pub(super) customer: String,
    /// Ids of prices, with quantities.
    pub(super) items: Vec<(String, i64)>,
    pub(super) metadata: Value,
    pub(super) description: Option<String>,
    pub(super) method: Option<String>,
    pub(super) trial_end: Option<i64>,
    /// What happens when a trial ends without a payment method.
    pub(super) without_method: &'static str,
    pub(super) reduction: Option<Reduction>,
    pub(super) automatic_tax: bool,
    pub(super) cancel_at_period_end: bool,
    /// `allow_incomplete`, `default_incomplete` or `error_if_incomplete`.
    pub(super) behavior: &'static str,
    pub(super) session: Option<String>,
}

/// The statuses from which nothing comes back.
pub(super) fn is_over(subscription: &Value) -> bool {
    ["canceled", "incomplete_expired"].contains(&text(subscription, "status"))
}

/// The price of an item, when a subscription can have it.
pub(super) fn recurring_price(s: &State, id: &str, param: &str) -> Answer {
    let price = s.referred(Kind::Price, id, param)?;
    if cycle(&price).is_none() {
        let message = format!(
            "The price specified is set to `type=one_time` but this field only accepts prices with \
                               `type=recurring`: {id}"
        );
        return Err(StripeError::invalid(message).param(param));
    }
    Ok(price)
}

/// An item with its period.
pub(super) fn item(s: &State, id: &str, subscription: &str, price: &Value, quantity: i64, period: (i64, i64)) -> Value {
    let mut plan = example("plan");
    for name in ["id", "active", "created", "currency", "metadata", "nickname", "product"] {
        plan[name] = price[name].clone();
    }
    plan["amount"] = price["unit_amount"].clone();
    plan["amount_decimal"] = price["unit_amount_decimal"].clone();
    plan["interval"] = price["recurring"]["interval"].clone();
    plan["interval_count"] = price["recurring"]["interval_count"].clone();
    with(
        "subscription_item",
        json!({"id": id, "created": s.now, "price": price, "plan": plan, "quantity": quantity,
               "subscription": subscription, "current_period_start": period.0, "current_period_end": period.1}),
    )
}

/// Refuses items that are not paid together.
pub(super) fn one_cycle<'a>(prices: impl Iterator<Item = &'a Value>) -> Answer<()> {
    let cycles: Vec<_> = prices.map(|price| (cycle(price), text(price, "currency"))).collect();
    if cycles.windows(2).any(|pair| pair[0] != pair[1]) {
        let message = "The sandbox has no subscription whose prices differ in interval or currency";
        return Err(StripeError::invalid(message).param("items"));
    }
    Ok(())
}

/// Makes a subscription, its first invoice, and tries to collect it.
pub(super) fn begin(s: &mut State, new: New) -> Answer<(String, Option<StripeError>)> {
    let prices: Vec<(Value, i64)> = new
        .items
        .iter()
        .map(|(id, quantity)| Ok((recurring_price(s, id, "items[0][price]")?, *quantity)))
        .collect::<Answer<_>>()?;
    one_cycle(prices.iter().map(|(price, _)| price))?;
    let first = prices.first().and_then(|(price, _)| Some((cycle(price)?, text(price, "currency").to_owned())));
    let ((unit, every), currency) =
        first.ok_or_else(|| StripeError::invalid("Missing required param: items.").code("parameter_missing"))?;
    let method = new.method.clone().or_else(|| default_method(s, &new.customer));
    if new.behavior == "error_if_incomplete" && new.trial_end.is_none() && !would_pay(s, method.as_deref()) {
        return Err(StripeError::card("card_declined", "generic_decline", "Your card was declined."));
    }
    let (id, invoice) = (s.new_id(Kind::Subscription), s.new_id(Kind::Invoice));
    let period = (s.now, new.trial_end.unwrap_or_else(|| next_boundary(s.now, unit, every, s.now)));
    let mut items = vec![];
    for (price, quantity) in &prices {
        let item_id = s.id("si_");
        items.push(item(s, &item_id, &id, price, *quantity, period));
    }
    let discount = new.reduction.map(|it| it.redeem(s, Some(&new.customer), Some(&id), new.session.as_deref()));
    let trial = new.trial_end.is_some();
    let mut subscription = with(
        "subscription",
        json!({
            "id": id, "created": s.now, "start_date": s.now, "billing_cycle_anchor": new.trial_end.unwrap_or(s.now),
            "currency": currency, "customer": new.customer, "default_payment_method": new.method,
            "description": new.description, "discounts": discount.into_iter().collect::<Vec<_>>(),
            "items": pending::items(&id, items.clone()), "latest_invoice": invoice, "metadata": new.metadata,
            "status": if trial { "trialing" } else { "incomplete" },
            "trial_start": trial.then_some(s.now), "trial_end": new.trial_end,
            "trial_settings": {"end_behavior": {"missing_payment_method": new.without_method}},
        }),
    );
    subscription["automatic_tax"]["enabled"] = json!(new.automatic_tax);
    if new.cancel_at_period_end {
        super::object::overlay(&mut subscription, ending(s.now, period.1));
    }
    s.set(Kind::Customer, &new.customer, json!({ "currency": currency }));
    s.create(Kind::Subscription, subscription.clone(), "customer.subscription.created");
    let lines = items.iter().map(|item| if trial { Line::trial(s, item) } else { Line::period(s, item) }).collect();
    let draft = Draft { subscription: &subscription, reason: "subscription_create", lines, period: (s.now, s.now) };
    invoices::draft(s, &invoice, &draft);
    invoices::finalize(s, &invoice);
    let due = s.get(Kind::Invoice, &invoice).map_or(0, |invoice| int(invoice, "amount_due"));
    if due > 0 && new.behavior == "default_incomplete" {
        return Ok((id, None));
    }
    match invoices::collect(s, &invoice, None, true, true) {
        Collected::Failed(error) => Ok((id, Some(error))),
        Collected::Paid | Collected::RequiresAction => Ok((id, None)),
    }
}

/// What `cancel_at_period_end` writes.
pub(super) fn ending(now: i64, at: i64) -> Value {
    json!({"cancel_at_period_end": true, "cancel_at": at, "canceled_at": now,
           "cancellation_details": {"comment": null, "feedback": null, "reason": "cancellation_requested"}})
}

/// When the current period of a subscription ends: its items live in one.
pub(super) fn period_end(subscription: &Value) -> i64 {
    elements(subscription, "items").iter().map(|item| int(item, "current_period_end")).min().unwrap_or(i64::MAX)
}

/// What a subscription is paid with.
pub(super) fn method_for(s: &State, subscription: &str) -> Option<String> {
    let subscription = s.get(Kind::Subscription, subscription)?;
    let own = subscription["default_payment_method"].as_str().map(str::to_owned);
    own.or_else(|| default_method(s, text(subscription, "customer")))
}

fn default_method(s: &State, customer: &str) -> Option<String> {
    let customer = s.get(Kind::Customer, customer)?;
    customer["invoice_settings"]["default_payment_method"].as_str().map(str::to_owned)
}

/// Whether a payment would go through without anybody's doing.
pub(super) fn would_pay(s: &State, method: Option<&str>) -> bool {
    method.is_some_and(|method| s.cards.get(method).copied().unwrap_or_default() == Card::Pays)
}

/// An invoice was paid.
pub(super) fn paid(s: &mut State, invoice: &Value) {
    let id = invoices::subscription_of(invoice).to_owned();
    if s.pending.get(&id).is_some_and(|pending| pending.invoice == text(invoice, "id")) {
        pending::apply(s, &id);
        return;
    }
    let Some(subscription) = s.get(Kind::Subscription, &id) else { return };
    if subscription["latest_invoice"] != invoice["id"] {
        return;
    }
    match text(subscription, "status") {
        "incomplete" | "past_due" | "unpaid" => {
            s.change(Kind::Subscription, &id, "customer.subscription.updated", json!({ "status": "active" }));
        }
        "paused" => {
            s.change(Kind::Subscription, &id, "customer.subscription.updated", json!({ "status": "active" }));
            s.tell(Kind::Subscription, &id, "customer.subscription.resumed");
        }
        _ => {}
    }
}

/// An attempt to collect failed. `last`: no other will be made.
pub(super) fn payment_failed(s: &mut State, invoice: &Value, last: bool) {
    let id = invoices::subscription_of(invoice).to_owned();
    if s.pending.get(&id).is_some_and(|pending| pending.invoice == text(invoice, "id")) {
        return;
    }
    let Some(subscription) = s.get(Kind::Subscription, &id) else { return };
    let status = text(subscription, "status").to_owned();
    if ["active", "trialing"].contains(&status.as_str()) {
        s.change(Kind::Subscription, &id, "customer.subscription.updated", json!({ "status": "past_due" }));
    }
    if !last || !["active", "trialing", "past_due"].contains(&status.as_str()) {
        return;
    }
    match s.settings.after_retries {
        AfterRetries::Cancel => end(s, &id, "payment_failed"),
        AfterRetries::Unpaid => {
            s.change(Kind::Subscription, &id, "customer.subscription.updated", json!({ "status": "unpaid" }));
        }
        AfterRetries::PastDue => {}
    }
}

/// The first invoice will never be paid.
pub(super) fn never_begins(s: &mut State, id: &str) {
    if s.get(Kind::Subscription, id).is_some_and(|subscription| text(subscription, "status") == "incomplete") {
        let changes = json!({"status": "incomplete_expired", "ended_at": s.now});
        s.change(Kind::Subscription, id, "customer.subscription.updated", changes);
    }
}

/// Ends a subscription now.
pub(super) fn end(s: &mut State, id: &str, reason: &str) {
    let Some(subscription) = s.get(Kind::Subscription, id).cloned() else { return };
    s.pending.remove(id);
    let mut details = subscription["cancellation_details"].clone();
    details["reason"] = json!(reason);
    let canceled = subscription["canceled_at"].as_i64().unwrap_or(s.now);
    let changes = json!({"status": "canceled", "canceled_at": canceled, "ended_at": s.now, "pending_update": null,
                         "cancellation_details": details});
    s.change(Kind::Subscription, id, "customer.subscription.deleted", changes);
    invoices::stop_collecting(s, id);
}

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let customer = p.required("customer")?;
    customers::living(s, &customer, "customer")?;
    let mut items = vec![];
    for mut group in p.groups("items")?.ok_or_else(|| p.missing("items"))? {
        let price = group.required("price")?;
        recurring_price(s, &price, &group.name("price"))?;
        items.push((price, quantity(&mut group)?.unwrap_or(1)));
        group.done()?;
    }
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    let method = p.some_text("default_payment_method")?;
    if let Some(method) = &method {
        let found = s.referred(Kind::PaymentMethod, method, "default_payment_method")?;
        if text(&found, "customer") != customer {
            let message = "The customer does not have a payment method with the ID given";
            return Err(StripeError::invalid(message).param("default_payment_method"));
        }
    }
    let (without_method, trial_end) = (trial_settings(&mut p)?, trial(&mut p, s.now)?);
    let reduction = Reduction::take(s, &mut p)?;
    let behaviors = ["allow_incomplete", "default_incomplete", "error_if_incomplete"];
    let behavior = p.one_of("payment_behavior", &behaviors)?.unwrap_or("allow_incomplete");
    let new = New {
        description: p.some_text("description")?,
        automatic_tax: automatic_tax(&mut p)?.unwrap_or(false),
        cancel_at_period_end: p.flag("cancel_at_period_end")?.unwrap_or(false),
        method,
        items,
        metadata,
        trial_end,
        without_method: without_method.unwrap_or("create_invoice"),
        reduction,
        behavior,
        session: None,
        customer,
    };
    p.one_of("collection_method", &["charge_automatically"])?;
    p.without_effect(&["off_session", "payment_settings", "proration_behavior"]);
    p.done()?;
    let (id, _) = begin(s, new)?;
    s.named(Kind::Subscription, &id)
}

/// How many of a price.
pub(super) fn quantity(group: &mut Params) -> Answer<Option<i64>> {
    let quantity = group.int("quantity")?;
    match quantity {
        Some(many) if !(0..=MOST).contains(&many) => {
            let message = "Invalid integer: quantity must be from 0 to 999999";
            Err(StripeError::invalid(message).param(group.name("quantity")))
        }
        quantity => Ok(quantity),
    }
}

/// `automatic_tax[enabled]`, which is passed through: the double knows no taxes.
pub(super) fn automatic_tax(p: &mut Params) -> Answer<Option<bool>> {
    let Some(mut group) = p.group("automatic_tax")? else { return Ok(None) };
    let enabled = group.flag("enabled")?.ok_or_else(|| group.missing("enabled"))?;
    group.done()?;
    Ok(Some(enabled))
}

/// `trial_end` or `trial_period_days`.
pub(super) fn trial(p: &mut Params, now: i64) -> Answer<Option<i64>> {
    let days = p.int("trial_period_days")?;
    if let Some(days) = days.filter(|days| !(1..=730).contains(days)) {
        let message = format!("Invalid trial_period_days: {days}; it must be from 1 to 730");
        return Err(StripeError::invalid(message).param(p.name("trial_period_days")));
    }
    match (p.int("trial_end")?, days) {
        (Some(_), Some(_)) => Err(StripeError::invalid("trial_end and trial_period_days cannot both be given")),
        (Some(end), None) if end <= now => {
            Err(StripeError::invalid("The trial end must be in the future").param(p.name("trial_end")))
        }
        (Some(end), None) if end > now.saturating_add(730 * DAY) => {
            let message = "The trial end can be at most two years from now";
            Err(StripeError::invalid(message).param(p.name("trial_end")))
        }
        (end, days) => Ok(end.or_else(|| days.map(|days| now + days * DAY))),
    }
}

/// `trial_settings[end_behavior][missing_payment_method]`.
pub(super) fn trial_settings(p: &mut Params) -> Answer<Option<&'static str>> {
    let Some(mut settings) = p.group("trial_settings")? else { return Ok(None) };
    let mut end = settings.group("end_behavior")?.ok_or_else(|| settings.missing("end_behavior"))?;
    let known = ["cancel", "create_invoice", "pause"];
    let behavior =
        end.one_of("missing_payment_method", &known)?.ok_or_else(|| end.missing("missing_payment_method"))?;
    end.done()?;
    settings.done()?;
    Ok(Some(behavior))
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (customer, price) = (p.some_text("customer")?, p.some_text("price")?);
    let statuses = [
        "incomplete",
        "incomplete_expired",
        "trialing",
        "active",
        "past_due",
        "unpaid",
        "canceled",
        "paused",
        "all",
        "ended",
    ];
    let status = p.one_of("status", &statuses)?;
    p.done()?;
    let in_status = |subscription: &Value| match status {
        // Without a status Stripe leaves out those that were canceled.
        None => text(subscription, "status") != "canceled",
        Some("all") => true,
        Some("ended") => is_over(subscription),
        Some(status) => text(subscription, "status") == status,
    };
    let has_price = |subscription: &Value| {
        let of = |price: &str| elements(subscription, "items").iter().any(|item| text(&item["price"], "id") == price);
        price.as_deref().is_none_or(of)
    };
    page(s, Kind::Subscription, &asked, "/v1/subscriptions", |subscription| {
        customer.as_deref().is_none_or(|customer| text(subscription, "customer") == customer)
            && in_status(subscription)
            && has_price(subscription)
    })
}

/// Cancels at once. With `prorate` what is left of the period is credited; with `invoice_now` the credit is settled now.
pub(super) fn cancel(s: &mut State, id: &str, mut p: Params) -> Answer {
    let subscription = s.named(Kind::Subscription, id)?;
    let (invoice_now, prorate) = (p.flag("invoice_now")?.unwrap_or(false), p.flag("prorate")?.unwrap_or(false));
    if let Some(mut details) = p.group("cancellation_details")? {
        let (comment, feedback) = (details.some_text("comment")?, details.some_text("feedback")?);
        details.done()?;
        let reason = subscription["cancellation_details"]["reason"].clone();
        let details = json!({"comment": comment, "feedback": feedback, "reason": reason});
        s.set(Kind::Subscription, id, json!({ "cancellation_details": details }));
    }
    p.done()?;
    if is_over(&subscription) {
        return Err(StripeError::not_found(Kind::Subscription, id));
    }
    if prorate && ["active", "past_due"].contains(&text(&subscription, "status")) {
        for item in elements(&subscription, "items") {
            let credit = proration::unused(s, item, s.now);
            credit.keep_for_later(s, text(&subscription, "customer"), Some(id));
        }
    }
    end(s, id, "cancellation_requested");
    let lines = super::invoice_lines::waiting(s, id);
    if invoice_now && !lines.is_empty() {
        let invoice = s.new_id(Kind::Invoice);
        let draft = Draft { subscription: &subscription, reason: "subscription_update", lines, period: (s.now, s.now) };
        invoices::draft(s, &invoice, &draft);
        invoices::finalize(s, &invoice);
        invoices::collect(s, &invoice, None, false, true);
        s.set(Kind::Subscription, id, json!({ "latest_invoice": invoice }));
    }
    s.named(Kind::Subscription, id)
}

/// A paused subscription goes on, from now, when its first invoice is paid.
pub(super) fn resume(s: &mut State, id: &str, mut p: Params) -> Answer {
    let subscription = s.named(Kind::Subscription, id)?;
    p.one_of("billing_cycle_anchor", &["now"])?;
    p.without_effect(&["proration_behavior", "proration_date"]);
    p.done()?;
    if text(&subscription, "status") != "paused" {
        let message = "Only subscriptions with a status of `paused` can be resumed";
        return Err(StripeError::invalid(message));
    }
    let invoice = s.new_id(Kind::Invoice);
    let mut changes = restarted(&subscription, s.now);
    changes["latest_invoice"] = json!(invoice);
    s.set(Kind::Subscription, id, changes);
    let subscription = s.named(Kind::Subscription, id)?;
    let lines = elements(&subscription, "items").iter().map(|item| Line::period(s, item)).collect();
    let draft = Draft { subscription: &subscription, reason: "subscription_update", lines, period: (s.now, s.now) };
    invoices::draft(s, &invoice, &draft);
    invoices::finalize(s, &invoice);
    invoices::collect(s, &invoice, None, true, true);
    s.named(Kind::Subscription, id)
}

/// The members of a subscription whose periods begin anew at `at`.
pub(super) fn restarted(subscription: &Value, at: i64) -> Value {
    let items = elements(subscription, "items").iter().map(|item| {
        let mut item = item.clone();
        if let Some((unit, every)) = cycle(&item["price"]) {
            item["current_period_start"] = json!(at);
            item["current_period_end"] = json!(next_boundary(at, unit, every, at));
        }
        item
    });
    json!({"billing_cycle_anchor": at, "items": pending::items(text(subscription, "id"), items.collect())})
}

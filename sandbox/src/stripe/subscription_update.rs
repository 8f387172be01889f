//! `POST /v1/subscriptions/:id`: <https://docs.stripe.com/api/subscriptions/update>, and what a change of items costs,
//! which the preview asks too.

use serde_json::{Value, json};

use super::{
    calendar::{DAY, next_boundary},
    catalogue::cycle,
    coupons::Reduction,
    error::{Answer, StripeError},
    invoice_lines::{Line, waiting},
    invoices::{self, Collected, Draft},
    object::{Kind, elements, int, overlay, text},
    params::Params,
    pending::{self, Pending},
    proration,
    state::State,
    subscriptions::{
        self, automatic_tax, ending, item, method_for, one_cycle, period_end, quantity, recurring_price, would_pay,
    },
};

/// What a call wants of the billing.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    items: Option<Vec<ItemWish>>,
    proration: Option<&'static str>,
    proration_date: Option<i64>,
    /// `billing_cycle_anchor=now`
    anchor_now: bool,
    trial_end: Option<TrialEnd>,
}

#[derive(Debug, Clone)]
struct ItemWish {
    id: Option<String>,
    price: Option<String>,
    quantity: Option<i64>,
    deleted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrialEnd {
    Now,
    At(i64),
}

impl Wish {
    pub(super) fn take(s: &State, p: &mut Params) -> Answer<Self> {
        let items = p.groups("items")?.map(|groups| groups.into_iter().map(|group| ItemWish::take(s, group)).collect());
        let anchor = p.one_of("billing_cycle_anchor", &["now", "unchanged"])?;
        let trial_end =
            match p.some_text("trial_end")?.as_deref() {
                None => None,
                Some("now") => Some(TrialEnd::Now),
                Some(at) => Some(TrialEnd::At(at.parse().map_err(|_| {
                    StripeError::invalid(format!("Invalid timestamp: {at}")).param(p.name("trial_end"))
                })?)),
            };
        Ok(Self {
            items: items.transpose()?,
            proration: p.one_of("proration_behavior", &["create_prorations", "always_invoice", "none"])?,
            proration_date: p.int("proration_date")?,
            anchor_now: anchor == Some("now"),
            trial_end,
        })
    }

    fn is_empty(&self) -> bool {
        self.items.is_none() && !self.anchor_now && self.trial_end.is_none()
    }
}

impl ItemWish {
    fn take(s: &State, mut group: Params) -> Answer<Self> {
        let wish = Self {
            id: group.some_text("id")?,
            price: group.some_text("price")?,
            quantity: quantity(&mut group)?,
            deleted: group.flag("deleted")?.unwrap_or(false),
        };
        if let Some(price) = &wish.price {
            recurring_price(s, price, &group.name("price"))?;
        }
        group.done()?;
        Ok(wish)
    }
}

/// What becomes of a subscription, and what is to be paid for it.
pub(super) struct Outcome {
    /// Its members.
    pub(super) changes: Value,
    /// Lines for the time between now and the end of the period.
    pub(super) prorations: Vec<Line>,
    /// Lines of a period that begins now.
    pub(super) begun: Vec<Line>,
    /// Whether they are invoiced at once.
    pub(super) at_once: bool,
}

/// Works out a wish, without doing anything.
pub(super) fn outcome(s: &mut State, subscription: &Value, wish: &Wish) -> Answer<Outcome> {
    let old: Vec<Value> = elements(subscription, "items").to_vec();
    let trialing = text(subscription, "status") == "trialing";
    let at = wish.proration_date.unwrap_or(s.now);
    let period =
        old.first().map_or((s.now, s.now), |item| (int(item, "current_period_start"), int(item, "current_period_end")));
    if !(period.0..=period.1).contains(&at) {
        return Err(StripeError::invalid("proration_date must lie in the current period").param("proration_date"));
    }
    let mut new = wanted(s, subscription, wish.items.as_deref().unwrap_or_default())?;
    one_cycle(new.iter().map(|item| &item["price"]))?;
    if let (Some(old), Some(new)) = (old.first(), new.first())
        && old["price"]["currency"] != new["price"]["currency"]
    {
        let message = "The price specified does not match the currency of the subscription";
        return Err(StripeError::invalid(message).param("items"));
    }
    let cycle_of = |items: &[Value]| items.first().and_then(|item| cycle(&item["price"]));
    let ends_trial = trialing && wish.trial_end == Some(TrialEnd::Now);
    let mut changes = json!({});
    match wish.trial_end {
        Some(TrialEnd::At(end)) if trialing && (s.now + 1..=s.now + 730 * DAY).contains(&end) => {
            new.iter_mut().for_each(|item| item["current_period_end"] = json!(end));
            overlay(&mut changes, json!({"trial_end": end, "billing_cycle_anchor": end}));
        }
        Some(TrialEnd::At(_)) => {
            let message = "The sandbox moves the end of a trial only while it lasts, and to within two years from now";
            return Err(StripeError::invalid(message).param("trial_end"));
        }
        Some(TrialEnd::Now) if trialing => overlay(&mut changes, json!({"trial_end": s.now, "status": "active"})),
        Some(TrialEnd::Now) | None => {}
    }
    let restart = ends_trial || (!trialing && (wish.anchor_now || cycle_of(&old) != cycle_of(&new)));
    let prorate = wish.proration != Some("none") && !trialing;
    let same = |a: &Value, b: &Value| a["price"]["id"] == b["price"]["id"] && a["quantity"] == b["quantity"];
    let kept = |item: &Value| new.iter().any(|other| other["id"] == item["id"] && same(item, other));
    let mut prorations: Vec<Line> = vec![];
    if prorate {
        prorations.extend(old.iter().filter(|item| restart || !kept(item)).map(|item| proration::unused(s, item, at)));
    }
    let mut begun = vec![];
    if restart {
        for item in &mut new {
            let Some((unit, every)) = cycle(&item["price"]) else { continue };
            item["current_period_start"] = json!(s.now);
            item["current_period_end"] = json!(next_boundary(s.now, unit, every, s.now));
        }
        begun = new.iter().map(|item| Line::period(s, item)).collect();
        changes["billing_cycle_anchor"] = json!(s.now);
    } else if prorate {
        let had = |item: &Value| old.iter().any(|other| other["id"] == item["id"] && same(item, other));
        prorations.extend(new.iter().filter(|item| !had(item)).map(|item| proration::remaining(s, item, at)));
    }
    changes["items"] = pending::items(text(subscription, "id"), new);
    if subscription["cancel_at_period_end"] == true {
        changes["cancel_at"] = json!(period_end(&changes));
    }
    let at_once = restart || (wish.proration == Some("always_invoice") && !prorations.is_empty());
    Ok(Outcome { changes, prorations, begun, at_once })
}

/// The items after a wish. An item without an id is a new one, however much it was meant to replace the old.
fn wanted(s: &mut State, subscription: &Value, wishes: &[ItemWish]) -> Answer<Vec<Value>> {
    let id = text(subscription, "id");
    let mut items: Vec<Value> = elements(subscription, "items").to_vec();
    let period = items
        .first()
        .map_or((s.now, s.now), |item| (int(item, "current_period_start"), int(item, "current_period_end")));
    for (index, wish) in wishes.iter().enumerate() {
        let param = format!("items[{index}][id]");
        let price = wish.price.as_deref().map(|price| recurring_price(s, price, "items")).transpose()?;
        let Some(item_id) = &wish.id else {
            let price = price.ok_or_else(|| StripeError::invalid("A new item needs a price").param("items"))?;
            if items.iter().any(|item| item["price"]["id"] == price["id"]) {
                let message = "A subscription cannot have two items with the same price; name the item by its id";
                return Err(StripeError::invalid(message).param("items"));
            }
            let item_id = s.id("si_");
            items.push(item(s, &item_id, id, &price, wish.quantity.unwrap_or(1), period));
            continue;
        };
        let found = items.iter().position(|item| text(item, "id") == item_id);
        let no_such = || {
            StripeError::invalid(format!("No such subscription_item: '{item_id}'"))
                .code("resource_missing")
                .param(param)
        };
        let position = found.ok_or_else(no_such)?;
        if wish.deleted {
            items.remove(position);
            continue;
        }
        let old = &items[position];
        let price = price.unwrap_or_else(|| old["price"].clone());
        let quantity = wish.quantity.unwrap_or_else(|| int(old, "quantity"));
        let mut changed = item(s, item_id, id, &price, quantity, period);
        overlay(&mut changed, json!({"created": old["created"], "metadata": old["metadata"]}));
        items[position] = changed;
    }
    if items.is_empty() {
        return Err(StripeError::invalid("A subscription must have at least one item").param("items"));
    }
    Ok(items)
}

/// What a call may write without touching the billing.
fn plain(s: &mut State, subscription: &Value, p: &mut Params) -> Answer<Value> {
    let mut changes = json!({});
    let mut metadata = subscription["metadata"].clone();
    if p.has("metadata") {
        p.metadata(&mut metadata)?;
        changes["metadata"] = metadata;
    }
    if let Some(text) = p.text("description")? {
        changes["description"] = if text.is_empty() { Value::Null } else { json!(text) };
    }
    if let Some(method) = p.text("default_payment_method")? {
        if !method.is_empty() {
            let found = s.referred(Kind::PaymentMethod, &method, "default_payment_method")?;
            if found["customer"] != subscription["customer"] {
                let message = "The customer does not have a payment method with the ID given";
                return Err(StripeError::invalid(message).param("default_payment_method"));
            }
        }
        changes["default_payment_method"] = if method.is_empty() { Value::Null } else { json!(method) };
    }
    match p.flag("cancel_at_period_end")? {
        Some(true) => overlay(&mut changes, ending(s.now, period_end(subscription))),
        Some(false) => overlay(&mut changes, unending()),
        None => {}
    }
    if let Some(at) = p.text("cancel_at")? {
        let wrong = || StripeError::invalid("cancel_at must be a timestamp in the future").param("cancel_at");
        if at.is_empty() {
            overlay(&mut changes, unending());
        } else {
            let at = at.parse().ok().filter(|at| *at > s.now).ok_or_else(wrong)?;
            overlay(&mut changes, ending(s.now, at));
            changes["cancel_at_period_end"] = json!(false);
        }
    }
    if let Some(mut details) = p.group("cancellation_details")? {
        let reason = changes["cancellation_details"]["reason"].clone();
        let (comment, feedback) = (details.some_text("comment")?, details.some_text("feedback")?);
        details.done()?;
        changes["cancellation_details"] = json!({"comment": comment, "feedback": feedback, "reason": reason});
    }
    if let Some(enabled) = automatic_tax(p)? {
        changes["automatic_tax"] = json!({"enabled": enabled, "liability": null, "disabled_reason": null});
    }
    if let Some(behavior) = subscriptions::trial_settings(p)? {
        changes["trial_settings"] = json!({"end_behavior": {"missing_payment_method": behavior}});
    }
    Ok(changes)
}

fn unending() -> Value {
    json!({"cancel_at_period_end": false, "cancel_at": null, "canceled_at": null,
           "cancellation_details": {"comment": null, "feedback": null, "reason": null}})
}

pub(super) fn update(s: &mut State, id: &str, mut p: Params) -> Answer {
    let subscription = s.named(Kind::Subscription, id)?;
    let behaviors = ["allow_incomplete", "default_incomplete", "pending_if_incomplete", "error_if_incomplete"];
    let behavior = p.one_of("payment_behavior", &behaviors)?.unwrap_or("allow_incomplete");
    let wish = Wish::take(s, &mut p)?;
    let reduction = Reduction::take(s, &mut p)?;
    let mut changes = plain(s, &subscription, &mut p)?;
    p.without_effect(&["off_session", "payment_settings"]);
    p.done()?;
    if subscriptions::is_over(&subscription) {
        let message = "A canceled subscription can only update its cancellation_details and metadata.";
        let only = changes.as_object().is_some_and(|changes| changes.keys().all(|name| name == "metadata"));
        if !only || !wish.is_empty() || reduction.is_some() {
            return Err(StripeError::invalid(message));
        }
    }
    if behavior == "pending_if_incomplete" && changes.as_object().is_some_and(|changes| !changes.is_empty()) {
        let message = "With payment_behavior=pending_if_incomplete only items, proration_behavior, proration_date, \
                       billing_cycle_anchor and trial_end can be given";
        return Err(StripeError::invalid(message).param("payment_behavior"));
    }
    let billed = if wish.is_empty() {
        None
    } else {
        if !["active", "trialing", "past_due", "unpaid"].contains(&text(&subscription, "status")) {
            let message =
                format!("The items of a subscription that is {} cannot be changed", text(&subscription, "status"));
            return Err(StripeError::invalid(message).param("items"));
        }
        if s.pending.contains_key(id) {
            let message = "The subscription has an update that waits for its payment";
            return Err(StripeError::invalid(message).code("subscription_payment_intent_requires_action"));
        }
        Some(outcome(s, &subscription, &wish)?)
    };
    if behavior == "error_if_incomplete"
        && billed.as_ref().is_some_and(|billed| billed.at_once && due(s, &subscription, billed) > 0)
        && !would_pay(s, method_for(s, id).as_deref())
    {
        return Err(StripeError::card("card_declined", "generic_decline", "Your card was declined."));
    }
    if let Some(reduction) = reduction {
        let discount = reduction.redeem(s, subscription["customer"].as_str(), Some(id), None);
        changes["discounts"] = json!([discount]);
    }
    match billed {
        None => s.change(Kind::Subscription, id, "customer.subscription.updated", changes),
        Some(billed) => bill(s, id, changes, billed, behavior),
    }
    s.named(Kind::Subscription, id)
}

/// What an outcome would cost at once.
fn due(s: &State, subscription: &Value, billed: &Outcome) -> i64 {
    let lines = billed.prorations.iter().chain(&billed.begun).map(|line| line.amount).sum::<i64>();
    let waiting = waiting(s, text(subscription, "id")).iter().map(|line| line.amount).sum::<i64>();
    lines + waiting
}

fn bill(s: &mut State, id: &str, mut changes: Value, billed: Outcome, behavior: &str) {
    overlay(&mut changes, billed.changes);
    let Some(before) = s.get(Kind::Subscription, id).cloned() else { return };
    if !billed.at_once {
        s.change(Kind::Subscription, id, "customer.subscription.updated", changes);
        for line in billed.prorations {
            line.keep_for_later(s, text(&before, "customer"), Some(id));
        }
        return;
    }
    let invoice = s.new_id(Kind::Invoice);
    let mut lines = waiting(s, id);
    lines.extend(billed.prorations);
    lines.extend(billed.begun);
    let pending_it = behavior == "pending_if_incomplete";
    if pending_it {
        s.pending.insert(id.to_owned(), Pending::new(&invoice, changes, s.now));
    } else {
        changes["latest_invoice"] = json!(invoice);
        s.change(Kind::Subscription, id, "customer.subscription.updated", changes);
    }
    let Some(subscription) = s.get(Kind::Subscription, id).cloned() else { return };
    let draft = Draft { subscription: &subscription, reason: "subscription_update", lines, period: (s.now, s.now) };
    invoices::draft(s, &invoice, &draft);
    invoices::finalize(s, &invoice);
    let open = behavior == "default_incomplete" && due_of(s, &invoice) > 0;
    if open {
        return;
    }
    match invoices::collect(s, &invoice, None, true, true) {
        Collected::Paid => {}
        Collected::Failed(_) | Collected::RequiresAction if pending_it => pending::show(s, id),
        Collected::Failed(_) | Collected::RequiresAction => {}
    }
}

fn due_of(s: &State, invoice: &str) -> i64 {
    s.get(Kind::Invoice, invoice).map_or(0, |invoice| int(invoice, "amount_due"))
}

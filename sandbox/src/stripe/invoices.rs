//! Invoices of subscriptions: <https://docs.stripe.com/billing/invoices/overview>. A renewal's invoice is a draft for an
//! hour; the others are final and collected at once. Credit beyond an invoice stays on the customer's balance.

use serde_json::{Value, json};

use super::{
    PATH,
    calendar::{DAY, HOUR},
    coupons,
    error::{Answer, StripeError},
    intents::{self, Outcome},
    invoice_lines::Line,
    invoice_payments,
    listing::{Page, page},
    object::{Kind, elements, int, list as list_of, overlay, text, with},
    params::Params,
    payment_methods,
    state::State,
    subscriptions,
};

/// An invoice to be.
pub(super) struct Draft<'a> {
    pub(super) subscription: &'a Value,
    /// `subscription_create`, `subscription_cycle` or `subscription_update`.
    pub(super) reason: &'static str,
    pub(super) lines: Vec<Line>,
    pub(super) period: (i64, i64),
}

/// How collecting an invoice ends.
pub(super) enum Collected {
    Paid,
    RequiresAction,
    Failed(StripeError),
}

/// The subscription that an invoice belongs to.
pub(super) fn subscription_of(invoice: &Value) -> &str {
    text(&invoice["parent"]["subscription_details"], "subscription")
}

/// An invoice as it would be, without keeping it.
pub(super) fn compose(s: &State, id: &str, draft: &Draft<'_>, line_ids: &[String]) -> Value {
    let sub = draft.subscription;
    let subscription = sub["id"].as_str();
    let customer = text(sub, "customer");
    let subtotal: i64 = draft.lines.iter().map(|line| line.amount).sum();
    let mut total = subtotal;
    let mut discounts = vec![];
    for discount in elements(sub, "discounts").iter().filter_map(Value::as_str) {
        let off = coupons::discounted(s, discount, total);
        total -= off;
        discounts.push(json!({"amount": off, "discount": discount}));
    }
    let lines =
        draft.lines.iter().zip(line_ids).map(|(line, line_id)| line.to_json(line_id, id, subscription)).collect();
    let of_customer =
        |name: &str| s.get(Kind::Customer, customer).map_or(Value::Null, |customer| customer[name].clone());
    let enabled = sub["automatic_tax"]["enabled"] == true;
    let mut invoice = with(
        "invoice",
        json!({
            "id": id, "created": s.now, "customer": customer, "currency": sub["currency"],
            "customer_email": of_customer("email"), "customer_name": of_customer("name"),
            "billing_reason": draft.reason, "auto_advance": true, "status": "draft",
            "period_start": draft.period.0, "period_end": draft.period.1,
            "lines": list_of(lines, false, &format!("/v1/invoices/{id}/lines")),
            "subtotal": subtotal, "subtotal_excluding_tax": subtotal, "total": total, "total_excluding_tax": total,
            "discounts": sub["discounts"], "total_discount_amounts": discounts,
            "default_payment_method": null,
            "automatic_tax": {"enabled": enabled, "liability": if enabled { json!({"type": "self"}) } else { Value::Null },
                "status": if enabled { json!("complete") } else { Value::Null }, "disabled_reason": null, "provider": null},
            "parent": {"type": "subscription_details", "quote_details": null,
                "subscription_details": {"metadata": sub["metadata"], "subscription": subscription}},
        }),
    );
    let balance = balance(s, customer, total);
    overlay(&mut invoice, balance);
    invoice
}

/// What is due once the customer's balance (credit is negative) has been reckoned in.
fn balance(s: &State, customer: &str, total: i64) -> Value {
    let balance = s.get(Kind::Customer, customer).map_or(0, |customer| int(customer, "balance"));
    let due = (total + balance).max(0);
    json!({"starting_balance": balance, "ending_balance": total + balance - due, "amount_due": due,
           "amount_remaining": due, "amount_paid": 0})
}

/// Drafts an invoice under an id that was given out before, with what waited for it.
pub(super) fn draft(s: &mut State, id: &str, draft: &Draft<'_>) {
    let line_ids: Vec<String> = draft.lines.iter().map(|_| s.id("il_")).collect();
    let mut invoice = compose(s, id, draft, &line_ids);
    invoice["automatically_finalizes_at"] = json!(s.now + HOUR);
    for item in draft.lines.iter().filter_map(|line| line.invoice_item.clone()) {
        s.set(Kind::InvoiceItem, &item, json!({ "invoice": id }));
    }
    s.create(Kind::Invoice, invoice, "invoice.created");
    let subscription = text(draft.subscription, "id");
    let discounts = elements(draft.subscription, "discounts").to_vec();
    let kept: Vec<Value> =
        discounts.iter().filter(|id| !coupons::is_once(s, id.as_str().unwrap_or_default())).cloned().collect();
    if kept.len() < discounts.len() {
        s.set(Kind::Subscription, subscription, json!({ "discounts": kept }));
    }
}

/// Nothing on the invoice changes any more; the balance is used.
pub(super) fn finalize(s: &mut State, id: &str) {
    let Some(invoice) = s.get(Kind::Invoice, id).cloned() else { return };
    let customer = text(&invoice, "customer").to_owned();
    let mut changes = balance(s, &customer, int(&invoice, "total"));
    let ending = changes["ending_balance"].clone();
    overlay(&mut changes, final_members(s, &invoice));
    s.change(Kind::Customer, &customer, "customer.updated", json!({"balance": ending}));
    s.change(Kind::Invoice, id, "invoice.finalized", changes);
    if let Some(invoice) = s.get(Kind::Invoice, id).filter(|invoice| int(invoice, "amount_due") > 0).cloned() {
        invoice_payments::open(s, &invoice);
    }
}

/// The members of an invoice that is final; it takes its customer's next number.
pub(super) fn final_members(s: &mut State, invoice: &Value) -> Value {
    let (id, customer) = (text(invoice, "id"), text(invoice, "customer"));
    let owner = s.get(Kind::Customer, customer).cloned().unwrap_or_default();
    let number = int(&owner, "next_invoice_sequence").max(1);
    s.set(Kind::Customer, customer, json!({"next_invoice_sequence": number + 1}));
    let mut transitions = invoice["status_transitions"].clone();
    transitions["finalized_at"] = json!(s.now);
    let page = format!("{}{PATH}/invoice/{id}", s.settings.public_url);
    json!({"status": "open", "number": format!("{}-{number:04}", text(&owner, "invoice_prefix")),
           "status_transitions": transitions, "effective_at": s.now, "automatically_finalizes_at": null,
           "next_payment_attempt": null, "hosted_invoice_url": page, "invoice_pdf": page})
}

/// Asks for the money. `present`: somebody is there who can confirm. `scheduled`: one of the attempts of the schedule.
pub(super) fn collect(s: &mut State, id: &str, method: Option<&str>, present: bool, scheduled: bool) -> Collected {
    let Some(invoice) = s.get(Kind::Invoice, id).cloned() else {
        return Collected::Failed(StripeError::not_found(Kind::Invoice, id));
    };
    let payment = invoice_payments::of(s, id);
    let Some((_, intent)) = payment.filter(|_| int(&invoice, "amount_remaining") > 0) else {
        mark_paid(s, id, false);
        return Collected::Paid;
    };
    let method = method.map(str::to_owned).or_else(|| subscriptions::method_for(s, subscription_of(&invoice)));
    let outcome = match &method {
        Some(method) => intents::confirm(s, &intent, method, !present),
        None => Outcome::Failed(StripeError::invalid(
            "This customer has no attached payment source or default payment method. Please consider adding a default \
             payment method.",
        )),
    };
    match outcome {
        Outcome::Succeeded => {
            count_attempt(s, &invoice, scheduled);
            mark_paid(s, id, false);
            Collected::Paid
        }
        Outcome::RequiresAction => {
            failed(s, &invoice, scheduled, true);
            Collected::RequiresAction
        }
        Outcome::Failed(error) => {
            let action = error.code == Some("authentication_required");
            failed(s, &invoice, scheduled, action);
            Collected::Failed(error)
        }
    }
}

/// The first attempt counts whoever made it; later ones only when the schedule did.
fn count_attempt(s: &mut State, invoice: &Value, scheduled: bool) -> i64 {
    let before = int(invoice, "attempt_count");
    let count = if scheduled || before == 0 { before + 1 } else { before };
    s.set(Kind::Invoice, text(invoice, "id"), json!({"attempted": true, "attempt_count": count}));
    count
}

fn failed(s: &mut State, invoice: &Value, scheduled: bool, action: bool) {
    let id = text(invoice, "id");
    let count = count_attempt(s, invoice, scheduled);
    // The first invoice of a subscription is not tried again, and neither is that of a change that waits for its payment.
    let waits = text(invoice, "billing_reason") == "subscription_create"
        || s.pending.get(subscription_of(invoice)).is_some_and(|pending| pending.invoice == id);
    let planned = int(invoice, "next_payment_attempt");
    let days = usize::try_from(count - 1).ok().and_then(|done| s.settings.retry_days.get(done).copied());
    let next = match (waits, scheduled || planned == 0) {
        (true, _) => None,
        (false, true) => days.map(|days| s.now + days * DAY),
        (false, false) => Some(planned),
    };
    if action {
        s.tell(Kind::Invoice, id, "invoice.payment_action_required");
    }
    s.change(Kind::Invoice, id, "invoice.payment_failed", json!({ "next_payment_attempt": next }));
    subscriptions::payment_failed(s, invoice, !waits && next.is_none());
}

/// The money is there, or none was due.
pub(super) fn mark_paid(s: &mut State, id: &str, out_of_band: bool) {
    let Some(invoice) = s.get(Kind::Invoice, id).cloned() else { return };
    let mut transitions = invoice["status_transitions"].clone();
    transitions["paid_at"] = json!(s.now);
    let changes = json!({
        "status": "paid", "attempted": true, "auto_advance": false, "next_payment_attempt": null, "amount_remaining": 0,
        "amount_paid": if out_of_band { 0 } else { int(&invoice, "amount_due") }, "status_transitions": transitions,
    });
    if out_of_band {
        invoice_payments::canceled(s, id);
    } else {
        invoice_payments::paid(s, id);
    }
    s.change(Kind::Invoice, id, "invoice.paid", changes);
    s.tell(Kind::Invoice, id, "invoice.payment_succeeded");
    subscriptions::paid(s, &invoice);
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (customer, subscription) = (p.some_text("customer")?, p.some_text("subscription")?);
    let status = p.one_of("status", &["draft", "open", "paid", "uncollectible", "void"])?;
    p.done()?;
    page(s, Kind::Invoice, &asked, "/v1/invoices", |invoice| {
        customer.as_deref().is_none_or(|customer| text(invoice, "customer") == customer)
            && subscription.as_deref().is_none_or(|subscription| subscription_of(invoice) == subscription)
            && status.is_none_or(|status| text(invoice, "status") == status)
    })
}

pub(super) fn lines(s: &State, id: &str, mut p: Params) -> Answer {
    Page::take(&mut p)?;
    p.done()?;
    Ok(s.named(Kind::Invoice, id)?["lines"].clone())
}

/// The invoice when it has one of the statuses that a call is for.
fn in_status(s: &State, id: &str, statuses: &[&str], doing: &str) -> Answer {
    let invoice = s.named(Kind::Invoice, id)?;
    let status = text(&invoice, "status");
    if statuses.contains(&status) {
        return Ok(invoice);
    }
    let message = match (doing, status) {
        ("pay", "paid") => "Invoice is already paid".to_owned(),
        _ => format!("You can only {doing} invoices that are {}; this one is {status}.", statuses.join(" or ")),
    };
    Err(StripeError::invalid(message).code("invoice_not_editable"))
}

pub(super) fn finalize_now(s: &mut State, id: &str, mut p: Params) -> Answer {
    p.flag("auto_advance")?;
    p.done()?;
    in_status(s, id, &["draft"], "finalize")?;
    finalize(s, id);
    s.named(Kind::Invoice, id)
}

pub(super) fn pay(s: &mut State, id: &str, mut p: Params) -> Answer {
    let method = p.some_text("payment_method")?;
    let out_of_band = p.flag("paid_out_of_band")?.unwrap_or(false);
    let off_session = p.flag("off_session")?.unwrap_or(true);
    p.done()?;
    let invoice = in_status(s, id, &["open", "draft", "uncollectible"], "pay")?;
    if let Some(method) = &method {
        payment_methods::check(s, method, "payment_method")?;
    }
    if text(&invoice, "status") == "draft" {
        finalize(s, id);
    }
    if out_of_band {
        mark_paid(s, id, true);
        return s.named(Kind::Invoice, id);
    }
    let method = match method {
        Some(method) => Some(payment_methods::attach(s, &method, text(&invoice, "customer"), "payment_method")?),
        None => None,
    };
    match collect(s, id, method.as_deref(), !off_session, false) {
        Collected::Paid => s.named(Kind::Invoice, id),
        Collected::Failed(error) => Err(error),
        Collected::RequiresAction => {
            let message = "The payment for this invoice requires additional user action before it can be completed.";
            Err(StripeError::card("invoice_payment_intent_requires_action", "", message))
        }
    }
}

pub(super) fn void(s: &mut State, id: &str, p: Params) -> Answer {
    p.done()?;
    in_status(s, id, &["open", "uncollectible"], "void")?;
    give_up(s, id, "void", "voided_at", "invoice.voided");
    s.named(Kind::Invoice, id)
}

pub(super) fn mark_uncollectible(s: &mut State, id: &str, p: Params) -> Answer {
    p.done()?;
    in_status(s, id, &["open"], "mark as uncollectible")?;
    give_up(s, id, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible");
    s.named(Kind::Invoice, id)
}

/// Nobody asks for the money any more. A subscription whose first invoice is void will never begin.
pub(super) fn give_up(s: &mut State, id: &str, status: &str, transition: &str, event: &str) {
    let Some(invoice) = s.get(Kind::Invoice, id).cloned() else { return };
    let mut transitions = invoice["status_transitions"].clone();
    transitions[transition] = json!(s.now);
    if status == "void" {
        invoice_payments::canceled(s, id);
    }
    let changes = json!({"status": status, "auto_advance": false, "next_payment_attempt": null,
                         "status_transitions": transitions});
    s.change(Kind::Invoice, id, event, changes);
    if status == "void" && text(&invoice, "billing_reason") == "subscription_create" {
        subscriptions::never_begins(s, subscription_of(&invoice));
    }
}

/// Collection of what is open of a subscription stops.
pub(super) fn stop_collecting(s: &mut State, subscription: &str) {
    let is_open = |invoice: &Value| {
        subscription_of(invoice) == subscription && ["open", "draft"].contains(&text(invoice, "status"))
    };
    for id in s.ids(Kind::Invoice, is_open) {
        s.set(
            Kind::Invoice,
            &id,
            json!({"auto_advance": false, "next_payment_attempt": null, "automatically_finalizes_at": null}),
        );
    }
}

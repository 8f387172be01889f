//! What happens when somebody pays at a checkout session, or tries to.
//! <https://docs.stripe.com/payments/checkout/fulfill-orders>

use serde_json::{Value, json};

use super::{
    checkout::{amounts, open},
    coupons::{Reduction, find_code},
    customers,
    error::{Answer, StripeError},
    intents::{self, Outcome},
    invoice_lines::Line,
    object::{Kind, int, overlay, text},
    payment_methods, purchase,
    settings::{Card, Payer},
    setup,
    state::State,
    subscriptions,
};

/// Pays. A card that declines leaves the session open, so that another can be tried.
pub(super) fn complete(s: &mut State, id: &str, payer: &Payer) -> Answer<()> {
    let session = open(s, id, "paid")?;
    let mode = text(&session, "mode").to_owned();
    if payer.delayed && mode != "payment" {
        return Err(StripeError::invalid("The sandbox has methods that settle later only in `payment` mode"));
    }
    if let Some(code) = &payer.promotion_code {
        enter_code(s, id, &session, code)?;
    }
    let session = open(s, id, "paid")?;
    let email = session["customer_email"].as_str().map(str::to_owned);
    let of_customer = s.get(Kind::Customer, text(&session, "customer")).and_then(|customer| customer["email"].as_str());
    let email = email.or_else(|| of_customer.map(str::to_owned)).or_else(|| payer.email.clone());
    let refused = refuses(s, &session, &mode, payer);
    if let Some(error) = refused {
        return Err(error);
    }
    let customer = match session["customer"].as_str() {
        Some(customer) => Some(customer.to_owned()),
        None if text(&session, "customer_creation") == "always" || has_invoice(s, id) => {
            Some(customers::from_checkout(s, email.as_deref()))
        }
        None => None,
    };
    let method = payment_methods::make(s, payer.card, email.as_deref());
    let mut changes = json!({
        "customer": customer, "url": null, "status": "complete",
        "customer_details": {"address": null, "business_name": null, "email": email, "individual_name": null, "name": null,
            "phone": null, "tax_exempt": "none", "tax_ids": []},
    });
    if session["automatic_tax"]["enabled"] == true {
        let mut tax = session["automatic_tax"].clone();
        tax["status"] = json!("complete");
        changes["automatic_tax"] = tax;
    }
    let done = match mode.as_str() {
        "subscription" => subscribe(s, id, &session, customer.as_deref().unwrap_or_default(), &method)?,
        "setup" => set_up(s, id, customer.as_deref(), &method)?,
        _ => pay_once(s, id, &session, customer.as_deref(), &method, payer.delayed)?,
    };
    overlay(&mut changes, done);
    if mode == "payment" {
        let paid = text(&changes, "payment_status") != "unpaid";
        overlay(&mut changes, bought(s, id, customer.as_deref(), paid));
    }
    s.change(Kind::Session, id, "checkout.session.completed", changes);
    Ok(())
}

/// Somebody types a promotion code on the page.
fn enter_code(s: &mut State, id: &str, session: &Value, code: &str) -> Answer<()> {
    if session["allow_promotion_codes"] != true {
        return Err(StripeError::invalid("This session takes no promotion codes").param("promotion_code"));
    }
    let customer = session["customer"].as_str();
    let found = find_code(s, code).filter(|code| code["customer"].is_null() || code["customer"].as_str() == customer);
    let found = found.ok_or_else(|| StripeError::invalid("This code is invalid.").param("promotion_code"))?;
    let reduction = Reduction::of_code(&found);
    let mut changes = amounts(s, int(session, "amount_subtotal"), Some(&reduction));
    changes["discounts"] = json!([reduction.to_json()]);
    s.set(Kind::Session, id, changes);
    if let Some(order) = s.orders.get_mut(id) {
        order.reduction = Some(reduction);
    }
    Ok(())
}

/// The bank says no: the session stays open, and only the attempt is told. A one-time payment keeps its intent for the
/// next attempt.
fn refuses(s: &mut State, session: &Value, mode: &str, payer: &Payer) -> Option<StripeError> {
    if !matches!(payer.card, Card::Declines | Card::NoFunds) || payer.delayed {
        return None;
    }
    let method = payment_methods::make(s, payer.card, payer.email.as_deref());
    if mode == "setup" || int(session, "amount_total") == 0 {
        let intent = setup::make(s, session["customer"].as_str(), &Value::Null);
        return setup::confirm(s, &intent, &method).err();
    }
    let id = text(session, "id");
    let intent = if mode == "payment" {
        intent_of(s, id, session, session["customer"].as_str())
    } else {
        new_intent(s, id, session, session["customer"].as_str())
    };
    match intents::confirm(s, &intent, &method, false) {
        Outcome::Failed(error) => Some(error),
        Outcome::Succeeded | Outcome::RequiresAction => None,
    }
}

fn intent_of(s: &mut State, id: &str, session: &Value, customer: Option<&str>) -> String {
    if let Some(intent) = session["payment_intent"].as_str() {
        s.set(Kind::PaymentIntent, intent, json!({ "customer": customer, "amount": session["amount_total"] }));
        return intent.to_owned();
    }
    let intent = new_intent(s, id, session, customer);
    s.set(Kind::Session, id, json!({ "payment_intent": intent }));
    intent
}

fn new_intent(s: &mut State, id: &str, session: &Value, customer: Option<&str>) -> String {
    let order = s.orders.get(id).cloned().unwrap_or_default();
    intents::make(
        s,
        intents::Intent {
            amount: int(session, "amount_total"),
            currency: text(session, "currency"),
            customer,
            description: order.description.as_deref(),
            metadata: order.metadata,
            setup_future_usage: order.setup_future_usage.as_deref(),
        },
    )
}

fn pay_once(
    s: &mut State,
    id: &str,
    session: &Value,
    customer: Option<&str>,
    method: &str,
    delayed: bool,
) -> Answer<Value> {
    if int(session, "amount_total") == 0 {
        return Ok(json!({ "payment_status": "no_payment_required" }));
    }
    let intent = intent_of(s, id, session, customer);
    if delayed {
        intents::begin_delayed(s, &intent, method);
        return Ok(json!({"payment_intent": intent, "payment_status": "unpaid"}));
    }
    // Whoever is at the page confirms what the card asks for.
    if let Outcome::RequiresAction = intents::confirm(s, &intent, method, false) {
        intents::authenticated(s, &intent, true)?;
    }
    intents::save_method(s, &intent)?;
    Ok(json!({"payment_intent": intent, "payment_status": "paid"}))
}

fn has_invoice(s: &State, id: &str) -> bool {
    s.orders.get(id).is_some_and(|order| order.invoice.is_some())
}

/// What was bought once is bought: its promotion code is used, and its invoice written when the money is there.
fn bought(s: &mut State, id: &str, customer: Option<&str>, paid: bool) -> Value {
    if let Some(reduction) = s.orders.get(id).and_then(|order| order.reduction.clone()) {
        let discount = reduction.redeem(s, customer, None, Some(id));
        if let Some(order) = s.orders.get_mut(id) {
            order.discount = Some(discount);
        }
    }
    if paid { invoice(s, id, customer.unwrap_or_default()) } else { json!({}) }
}

/// The invoice of a purchase, when it is to have one.
fn invoice(s: &mut State, id: &str, customer: &str) -> Value {
    let Some(order) = s.orders.get(id).cloned() else { return json!({}) };
    let Some(metadata) = order.invoice else { return json!({}) };
    let items = order.items.iter().filter_map(|item| Some((s.get(Kind::Price, &item.price)?.clone(), item.quantity)));
    let items: Vec<(Value, i64)> = items.collect();
    let lines = items.iter().map(|(price, quantity)| Line::purchase(s, price, *quantity, customer)).collect();
    let session = s.get(Kind::Session, id).cloned().unwrap_or_default();
    let discount = order.discount.as_deref();
    json!({ "invoice": purchase::invoice(s, &session, customer, lines, discount, metadata) })
}

/// A delayed payment ends.
pub(super) fn settle(s: &mut State, id: &str, paid: bool) -> Answer<()> {
    let session = s.named(Kind::Session, id)?;
    let intent = text(&session, "payment_intent").to_owned();
    let waits = s.get(Kind::PaymentIntent, &intent).is_some_and(|intent| text(intent, "status") == "processing");
    if !waits {
        return Err(StripeError::invalid(format!("{id} waits for no payment")));
    }
    match intents::settle(s, &intent, paid) {
        Outcome::Succeeded => {
            intents::save_method(s, &intent)?;
            let mut changes = json!({ "payment_status": "paid" });
            overlay(&mut changes, invoice(s, id, text(&session, "customer")));
            s.change(Kind::Session, id, "checkout.session.async_payment_succeeded", changes);
        }
        Outcome::Failed(_) | Outcome::RequiresAction => {
            s.tell(Kind::Session, id, "checkout.session.async_payment_failed");
        }
    }
    Ok(())
}

fn set_up(s: &mut State, id: &str, customer: Option<&str>, method: &str) -> Answer<Value> {
    let metadata = s.orders.get(id).map_or(Value::Null, |order| order.metadata.clone());
    let intent = setup::make(s, customer, &metadata);
    setup::confirm(s, &intent, method)?;
    Ok(json!({"setup_intent": intent, "payment_status": "no_payment_required"}))
}

fn subscribe(s: &mut State, id: &str, session: &Value, customer: &str, method: &str) -> Answer<Value> {
    let order = s.orders.get(id).cloned().unwrap_or_default();
    payment_methods::attach(s, method, customer, "payment_method")?;
    let card = s.cards.get(method).copied().unwrap_or_default();
    // Whoever is at the page confirms what the card asks for; later payments ask again.
    s.cards.insert(method.to_owned(), Card::Pays);
    let now = s.now;
    let new = subscriptions::New {
        customer: customer.to_owned(),
        items: order.items.iter().map(|item| (item.price.clone(), item.quantity)).collect(),
        metadata: order.metadata,
        description: order.description,
        method: Some(method.to_owned()),
        trial_end: order.trial.map(|trial| trial.end(now)),
        without_method: match order.without_method.as_deref() {
            Some("cancel") => "cancel",
            Some("pause") => "pause",
            _ => "create_invoice",
        },
        reduction: order.reduction,
        automatic_tax: session["automatic_tax"]["enabled"] == true,
        cancel_at_period_end: false,
        behavior: "allow_incomplete",
        session: Some(id.to_owned()),
    };
    let (subscription, _) = subscriptions::begin(s, new)?;
    s.cards.insert(method.to_owned(), card);
    let made = s.named(Kind::Subscription, &subscription)?;
    let free = int(session, "amount_total") == 0;
    Ok(json!({"subscription": subscription, "invoice": made["latest_invoice"],
              "payment_status": if free { "no_payment_required" } else { "paid" }}))
}

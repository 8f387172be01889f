//! Payment methods: cards that were saved. <https://docs.stripe.com/api/payment_methods>, and the ready-made ones for
//! tests, <https://docs.stripe.com/testing>.

use serde_json::{Value, json};

use super::{
    customers,
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, text, with},
    params::Params,
    settings::Card,
    state::State,
};

/// Stripe's ready-made payment methods, and how their cards behave once attached.
fn ready_made(id: &str) -> Option<Card> {
    Some(match id {
        "pm_card_visa" | "pm_card_mastercard" | "pm_card_amex" => Card::Pays,
        "pm_card_chargeCustomerFail" => Card::Declines,
        "pm_card_chargeDeclinedInsufficientFunds" => Card::NoFunds,
        "pm_card_authenticationRequired" => Card::Authenticates,
        _ => return None,
    })
}

/// Refuses what is no payment method.
pub(super) fn check(s: &State, id: &str, param: &str) -> Answer<()> {
    if ready_made(id).is_some() { Ok(()) } else { s.referred(Kind::PaymentMethod, id, param).map(drop) }
}

/// A new card.
pub(super) fn make(s: &mut State, card: Card, email: Option<&str>) -> String {
    let id = s.new_id(Kind::PaymentMethod);
    let mut method = with("payment_method", json!({"id": id, "created": s.now}));
    method["billing_details"]["email"] = json!(email);
    let last4 = match card {
        Card::Pays => "4242",
        Card::Declines => "0341",
        Card::NoFunds => "9995",
        Card::Authenticates => "3184",
    };
    method["card"]["last4"] = json!(last4);
    s.put(Kind::PaymentMethod, method);
    s.cards.insert(id.clone(), card);
    id
}

/// The payment method that `id` names; a ready-made one is made new.
pub(super) fn resolve(s: &mut State, id: &str, param: &str) -> Answer<String> {
    match ready_made(id) {
        Some(card) => Ok(make(s, card, None)),
        None => s.referred(Kind::PaymentMethod, id, param).map(|_| id.to_owned()),
    }
}

/// Saves a payment method with a customer.
pub(super) fn attach(s: &mut State, id: &str, customer: &str, param: &str) -> Answer<String> {
    let id = resolve(s, id, param)?;
    let owner = s.get(Kind::PaymentMethod, &id).and_then(|method| method["customer"].as_str());
    if owner.is_some_and(|owner| owner != customer) {
        return Err(StripeError::invalid("The payment method you provided has already been attached to a customer.")
            .code("payment_method_unexpected_state")
            .param(param));
    }
    if owner.is_none() {
        s.change(Kind::PaymentMethod, &id, "payment_method.attached", json!({ "customer": customer }));
    }
    Ok(id)
}

pub(super) fn attach_named(s: &mut State, id: &str, mut p: Params) -> Answer {
    let customer = p.required("customer")?;
    p.done()?;
    customers::living(s, &customer, "customer")?;
    let id = attach(s, id, &customer, "payment_method")?;
    s.named(Kind::PaymentMethod, &id)
}

pub(super) fn detach(s: &mut State, id: &str, p: Params) -> Answer {
    p.done()?;
    let method = s.named(Kind::PaymentMethod, id)?;
    if method["customer"].is_null() {
        let message = "The payment method you provided is not attached to a customer so detachment is impossible.";
        return Err(StripeError::invalid(message).code("payment_method_unexpected_state"));
    }
    s.change(Kind::PaymentMethod, id, "payment_method.detached", json!({ "customer": null }));
    let customer = text(&method, "customer");
    let settings = s.get(Kind::Customer, customer).map(|customer| customer["invoice_settings"].clone());
    if let Some(mut settings) = settings.filter(|settings| text(settings, "default_payment_method") == id) {
        settings["default_payment_method"] = Value::Null;
        s.change(Kind::Customer, customer, "customer.updated", json!({ "invoice_settings": settings }));
    }
    let uses = |sub: &Value| text(sub, "default_payment_method") == id;
    for subscription in s.ids(Kind::Subscription, uses) {
        let changes = json!({ "default_payment_method": null });
        s.change(Kind::Subscription, &subscription, "customer.subscription.updated", changes);
    }
    s.named(Kind::PaymentMethod, id)
}

pub(super) fn list(s: &State, customer: Option<&str>, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let named = p.some_text("customer")?;
    p.one_of("type", &["card"])?;
    p.done()?;
    let url =
        customer.map_or_else(|| "/v1/payment_methods".to_owned(), |id| format!("/v1/customers/{id}/payment_methods"));
    let customer = customer.map(str::to_owned).or(named);
    let customer =
        customer.ok_or_else(|| StripeError::invalid("Missing required param: customer.").param("customer"))?;
    customers::living(s, &customer, "customer")?;
    page(s, Kind::PaymentMethod, &asked, &url, |method| text(method, "customer") == customer)
}

//! Setup intents: a card is saved without a payment. <https://docs.stripe.com/api/setup_intents>

use serde_json::{Value, json};

use super::{
    customers,
    error::{Answer, StripeError},
    object::{Kind, with},
    params::Params,
    payment_methods,
    settings::Card,
    state::State,
};

/// Makes a setup intent that nobody has confirmed.
pub(super) fn make(s: &mut State, customer: Option<&str>, metadata: &Value) -> String {
    let id = s.new_id(Kind::SetupIntent);
    let metadata = if metadata.is_object() { metadata.clone() } else { json!({}) };
    let object = json!({"id": id, "created": s.now, "customer": customer, "metadata": metadata,
                        "client_secret": format!("{id}_secret_sandbox")});
    s.create(Kind::SetupIntent, with("setup_intent", object), "setup_intent.created");
    id
}

/// Saves the card with its customer. A card that declines payments is not taken at all; one that asks its holder gets the
/// consent here.
pub(super) fn confirm(s: &mut State, id: &str, method: &str) -> Answer<()> {
    let intent = s.named(Kind::SetupIntent, id)?;
    let card = s.cards.get(method).copied().unwrap_or_default();
    if matches!(card, Card::Declines | Card::NoFunds) {
        let error = StripeError::card("card_declined", "generic_decline", "Your card was declined.");
        let changes = json!({"status": "requires_payment_method", "last_setup_error": error.to_json()});
        s.change(Kind::SetupIntent, id, "setup_intent.setup_failed", changes);
        return Err(error);
    }
    if let Some(customer) = intent["customer"].as_str() {
        payment_methods::attach(s, method, customer, "payment_method")?;
    }
    let changes = json!({"status": "succeeded", "payment_method": method, "last_setup_error": null});
    s.change(Kind::SetupIntent, id, "setup_intent.succeeded", changes);
    Ok(())
}

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let (customer, method) = (p.some_text("customer")?, p.some_text("payment_method")?);
    let confirm_it = p.flag("confirm")?.unwrap_or(false);
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    p.one_of("usage", &["off_session", "on_session"])?;
    p.without_effect(&["automatic_payment_methods", "payment_method_types", "description", "return_url"]);
    p.done()?;
    if let Some(customer) = &customer {
        customers::living(s, customer, "customer")?;
    }
    if let Some(method) = &method {
        payment_methods::check(s, method, "payment_method")?;
    }
    let id = make(s, customer.as_deref(), &metadata);
    if let Some(method) = method {
        let method = payment_methods::resolve(s, &method, "payment_method")?;
        s.set(Kind::SetupIntent, &id, json!({"payment_method": method, "status": "requires_confirmation"}));
        if confirm_it {
            confirm(s, &id, &method)?;
        }
    }
    s.named(Kind::SetupIntent, &id)
}

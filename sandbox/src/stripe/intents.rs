//! Payment intents: <https://docs.stripe.com/payments/paymentintents/lifecycle>.

use serde_json::{Value, json};

use super::{
    catalogue::DEAREST,
    charges, customers,
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    payment_methods,
    settings::Card,
    state::State,
};

/// How a confirmation ends.
pub(super) enum Outcome {
    /// The money is there.
    Succeeded,
    /// The holder of the card must act.
    RequiresAction,
    /// The bank refused.
    Failed(StripeError),
}

/// A payment intent to be.
#[derive(Default)]
pub(super) struct Intent<'a> {
    pub(super) amount: i64,
    pub(super) currency: &'a str,
    pub(super) customer: Option<&'a str>,
    pub(super) description: Option<&'a str>,
    pub(super) metadata: Value,
    pub(super) setup_future_usage: Option<&'a str>,
}

/// Makes an intent that nobody has paid.
pub(super) fn make(s: &mut State, intent: Intent<'_>) -> String {
    let id = s.new_id(Kind::PaymentIntent);
    let object = with(
        "payment_intent",
        json!({
            "id": id, "created": s.now, "amount": intent.amount, "currency": intent.currency,
            "customer": intent.customer, "description": intent.description,
            "metadata": if intent.metadata.is_object() { intent.metadata } else { json!({}) },
            "client_secret": format!("{id}_secret_sandbox"), "setup_future_usage": intent.setup_future_usage,
        }),
    );
    s.create(Kind::PaymentIntent, object, "payment_intent.created");
    id
}

/// Pays an intent with a payment method. Off-session nobody is there to act, so a card that asks for it refuses.
pub(super) fn confirm(s: &mut State, id: &str, method: &str, off_session: bool) -> Outcome {
    s.set(Kind::PaymentIntent, id, json!({"payment_method": method, "last_payment_error": null, "next_action": null}));
    let card = s.cards.get(method).copied().unwrap_or_default();
    if card == Card::Authenticates && !off_session {
        let action = json!({
            "status": "requires_action",
            "next_action": {"type": "use_stripe_sdk", "use_stripe_sdk": {}},
        });
        s.change(Kind::PaymentIntent, id, "payment_intent.requires_action", action);
        return Outcome::RequiresAction;
    }
    charge(s, id, method, false)
}

/// The holder of the card has confirmed, or has not.
pub(super) fn authenticated(s: &mut State, id: &str, confirmed: bool) -> Answer<Outcome> {
    let intent = s.named(Kind::PaymentIntent, id)?;
    if text(&intent, "status") != "requires_action" {
        return Err(StripeError::invalid(format!("{id} waits for nobody: its status is {}", text(&intent, "status"))));
    }
    if confirmed {
        return Ok(charge(s, id, text(&intent, "payment_method"), true));
    }
    let error = StripeError::card(
        "payment_intent_authentication_failure",
        "",
        "The provided PaymentMethod has failed authentication.",
    );
    let changes = json!({"status": "requires_payment_method", "payment_method": null, "next_action": null,
                         "last_payment_error": error.to_json()});
    s.change(Kind::PaymentIntent, id, "payment_intent.payment_failed", changes);
    Ok(Outcome::Failed(error))
}

fn charge(s: &mut State, id: &str, method: &str, authenticated: bool) -> Outcome {
    let Some(intent) = s.get(Kind::PaymentIntent, id).cloned() else {
        return Outcome::Failed(StripeError::not_found(Kind::PaymentIntent, id));
    };
    let (charge, refusal) = charges::attempt(s, &intent, method, authenticated);
    match refusal {
        None => {
            let changes = json!({"status": "succeeded", "amount_received": intent["amount"], "latest_charge": charge,
                                 "next_action": null, "processing": null});
            s.change(Kind::PaymentIntent, id, "payment_intent.succeeded", changes);
            Outcome::Succeeded
        }
        Some(mut error) => {
            error.more.insert("charge".to_owned(), json!(charge));
            let changes = json!({"status": "requires_payment_method", "payment_method": null, "latest_charge": charge,
                                 "next_action": null, "last_payment_error": error.to_json()});
            s.change(Kind::PaymentIntent, id, "payment_intent.payment_failed", changes);
            if let Some(intent) = s.get(Kind::PaymentIntent, id) {
                error.more.insert("payment_intent".to_owned(), intent.clone());
            }
            Outcome::Failed(error)
        }
    }
}

/// A bank debit that began: it ends by [`settle`].
pub(super) fn begin_delayed(s: &mut State, id: &str, method: &str) {
    let changes = json!({"status": "processing", "payment_method": method});
    s.change(Kind::PaymentIntent, id, "payment_intent.processing", changes);
}

/// A bank debit ends.
pub(super) fn settle(s: &mut State, id: &str, paid: bool) -> Outcome {
    let method =
        s.get(Kind::PaymentIntent, id).map_or_else(String::new, |intent| text(intent, "payment_method").to_owned());
    s.cards.insert(method.clone(), if paid { Card::Pays } else { Card::NoFunds });
    charge(s, id, &method, false)
}

/// What is left to do with a payment method that a person used: saved when the intent says so.
pub(super) fn save_method(s: &mut State, id: &str) -> Answer<()> {
    let intent = s.named(Kind::PaymentIntent, id)?;
    if let (Some(_), Some(method), Some(customer)) =
        (intent["setup_future_usage"].as_str(), intent["payment_method"].as_str(), intent["customer"].as_str())
    {
        payment_methods::attach(s, method, customer, "payment_method")?;
    }
    Ok(())
}

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let amount = p.int("amount")?.ok_or_else(|| p.missing("amount"))?;
    let currency = p.required("currency")?.to_lowercase();
    let (customer, method) = (p.some_text("customer")?, p.some_text("payment_method")?);
    let confirm_it = p.flag("confirm")?.unwrap_or(false);
    let off_session = p.some_text("off_session")?.is_some_and(|off| off != "false");
    let description = p.some_text("description")?;
    let usage = p.one_of("setup_future_usage", &["off_session", "on_session"])?;
    let at_once = p.flag("error_on_requires_action")?.unwrap_or(false);
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    p.one_of("capture_method", &["automatic", "automatic_async"])?;
    p.one_of("confirmation_method", &["automatic"])?;
    p.without_effect(&[
        "automatic_payment_methods",
        "payment_method_types",
        "payment_method_options",
        "receipt_email",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "return_url",
    ]);
    p.done()?;
    if !(1..=DEAREST).contains(&amount) {
        let message = "Invalid integer: amount must be from 1 to 99999999";
        return Err(StripeError::invalid(message).code("parameter_invalid_integer").param("amount"));
    }
    if amount < 50 && currency == "usd" {
        let message = "Amount must be at least $0.50 usd";
        return Err(StripeError::invalid(message).code("amount_too_small").param("amount"));
    }
    if let Some(customer) = &customer {
        customers::living(s, customer, "customer")?;
    }
    if off_session && !confirm_it {
        return Err(StripeError::invalid("off_session can be given only with confirm=true.").param("off_session"));
    }
    if let Some(method) = &method {
        payment_methods::check(s, method, "payment_method")?;
        belongs(s, method, customer.as_deref())?;
    } else if confirm_it {
        return Err(no_method());
    }
    let id = make(
        s,
        Intent {
            amount,
            currency: &currency,
            customer: customer.as_deref(),
            description: description.as_deref(),
            metadata,
            setup_future_usage: usage,
        },
    );
    if let Some(method) = method {
        let method = payment_methods::resolve(s, &method, "payment_method")?;
        s.set(Kind::PaymentIntent, &id, json!({"payment_method": method, "status": "requires_confirmation"}));
        if confirm_it {
            finish(s, &id, &method, off_session || at_once)?;
        }
    }
    s.named(Kind::PaymentIntent, &id)
}

/// Somebody else's saved card pays for nobody.
fn belongs(s: &State, method: &str, customer: Option<&str>) -> Answer<()> {
    let owner = s.get(Kind::PaymentMethod, method).and_then(|method| method["customer"].as_str());
    if owner.is_some() && owner != customer {
        let message = format!(
            "The provided PaymentMethod ({method}) belongs to another customer: provide `customer` with the PaymentIntent."
        );
        return Err(StripeError::invalid(message).code("payment_method_customer_decline").param("payment_method"));
    }
    Ok(())
}

fn no_method() -> StripeError {
    let message = "You cannot confirm this PaymentIntent because it's missing a payment method.";
    StripeError::invalid(message).code("payment_intent_unexpected_state").param("payment_method")
}

fn finish(s: &mut State, id: &str, method: &str, off_session: bool) -> Answer<()> {
    match confirm(s, id, method, off_session) {
        Outcome::Failed(error) => Err(error),
        Outcome::RequiresAction => Ok(()),
        Outcome::Succeeded => save_method(s, id),
    }
}

pub(super) fn confirm_now(s: &mut State, id: &str, mut p: Params) -> Answer {
    let intent = s.named(Kind::PaymentIntent, id)?;
    let method = p.some_text("payment_method")?;
    let off_session = p.some_text("off_session")?.is_some_and(|off| off != "false");
    p.without_effect(&["return_url", "payment_method_options"]);
    p.done()?;
    let status = text(&intent, "status");
    if !["requires_payment_method", "requires_confirmation"].contains(&status) {
        let message = format!("You cannot confirm this PaymentIntent because it has a status of {status}.");
        return Err(StripeError::invalid(message).code("payment_intent_unexpected_state"));
    }
    let method = method.or_else(|| intent["payment_method"].as_str().map(str::to_owned)).ok_or_else(no_method)?;
    belongs(s, &method, intent["customer"].as_str())?;
    let method = payment_methods::resolve(s, &method, "payment_method")?;
    finish(s, id, &method, off_session)?;
    s.named(Kind::PaymentIntent, id)
}

pub(super) fn cancel(s: &mut State, id: &str, mut p: Params) -> Answer {
    let intent = s.named(Kind::PaymentIntent, id)?;
    let reasons = ["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
    let reason = p.one_of("cancellation_reason", &reasons)?;
    p.done()?;
    let status = text(&intent, "status");
    if ["succeeded", "canceled", "processing"].contains(&status) {
        let message = format!("You cannot cancel this PaymentIntent because it has a status of {status}.");
        return Err(StripeError::invalid(message).code("payment_intent_unexpected_state"));
    }
    void(s, id, reason);
    s.named(Kind::PaymentIntent, id)
}

/// Nobody will pay this any more.
pub(super) fn void(s: &mut State, id: &str, reason: Option<&str>) {
    if s.get(Kind::PaymentIntent, id).is_some_and(|intent| text(intent, "status") != "succeeded") {
        let changes =
            json!({"status": "canceled", "canceled_at": s.now, "cancellation_reason": reason, "next_action": null});
        s.change(Kind::PaymentIntent, id, "payment_intent.canceled", changes);
    }
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let customer = p.some_text("customer")?;
    p.done()?;
    page(s, Kind::PaymentIntent, &asked, "/v1/payment_intents", |intent| {
        customer.as_deref().is_none_or(|customer| text(intent, "customer") == customer)
    })
}

/// What an intent has brought.
pub(super) fn received(s: &State, id: &str) -> i64 {
    s.get(Kind::PaymentIntent, id).map_or(0, |intent| int(intent, "amount_received"))
}

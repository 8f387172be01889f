//! Charges: what a bank was asked for, and what it said. <https://docs.stripe.com/api/charges>

use serde_json::{Value, json};

use super::{
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    settings::Card,
    state::State,
};

/// What the bank says to a card.
fn refusal(card: Card) -> Option<StripeError> {
    match card {
        Card::Pays => None,
        Card::Declines => Some(StripeError::card("card_declined", "generic_decline", "Your card was declined.")),
        Card::NoFunds => {
            let message = "Your card has insufficient funds.";
            Some(StripeError::card("card_declined", "insufficient_funds", message))
        }
        Card::Authenticates => {
            let message = "Your card was declined. This transaction requires authentication.";
            Some(StripeError::card("authentication_required", "authentication_required", message))
        }
    }
}

/// Asks the bank for the amount of a payment intent. `authenticated`: the holder has confirmed.
pub(super) fn attempt(
    s: &mut State,
    intent: &Value,
    method: &str,
    authenticated: bool,
) -> (String, Option<StripeError>) {
    let card = s.cards.get(method).copied().unwrap_or_default();
    let refusal = refusal(card).filter(|_| !(authenticated && card == Card::Authenticates));
    let id = s.new_id(Kind::Charge);
    let amount = int(intent, "amount");
    let mut charge = with(
        "charge",
        json!({
            "id": id, "created": s.now, "amount": amount, "currency": intent["currency"], "customer": intent["customer"],
            "description": intent["description"], "metadata": intent["metadata"], "payment_intent": intent["id"],
            "payment_method": method, "receipt_email": intent["receipt_email"],
            "captured": refusal.is_none(), "amount_captured": if refusal.is_none() { amount } else { 0 },
            "paid": refusal.is_none(), "status": if refusal.is_none() { "succeeded" } else { "failed" },
        }),
    );
    if let Some(method) = s.get(Kind::PaymentMethod, method) {
        charge["billing_details"] = method["billing_details"].clone();
        charge["payment_method_details"]["card"]["last4"] = method["card"]["last4"].clone();
    }
    if let Some(error) = &refusal {
        charge["failure_code"] = json!(error.code);
        charge["failure_message"] = json!(error.message);
        charge["outcome"] = json!({
            "advice_code": null, "network_advice_code": null, "network_decline_code": null,
            "network_status": "declined_by_network", "reason": error.more.get("decline_code"), "risk_level": "normal",
            "seller_message": "The bank did not return any further details with this decline.",
            "type": "issuer_declined",
        });
    }
    s.create(Kind::Charge, charge, if refusal.is_none() { "charge.succeeded" } else { "charge.failed" });
    (id, refusal)
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (customer, intent) = (p.some_text("customer")?, p.some_text("payment_intent")?);
    p.done()?;
    page(s, Kind::Charge, &asked, "/v1/charges", |charge| {
        customer.as_deref().is_none_or(|customer| text(charge, "customer") == customer)
            && intent.as_deref().is_none_or(|intent| text(charge, "payment_intent") == intent)
    })
}

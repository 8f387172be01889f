//! Refunds: <https://docs.stripe.com/api/refunds>. The bank's reference comes after the refund, as `refund.updated`.

use serde_json::{Value, json};

use super::{
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    state::State,
};

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let (charge, intent) = (p.some_text("charge")?, p.some_text("payment_intent")?);
    let amount = p.int("amount")?;
    let reason = p.one_of("reason", &["duplicate", "fraudulent", "requested_by_customer"])?;
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    let charge = match (charge, intent) {
        (Some(charge), None) => s.referred(Kind::Charge, &charge, "charge")?,
        (None, Some(intent)) => {
            let intent = s.referred(Kind::PaymentIntent, &intent, "payment_intent")?;
            let charge = s.get(Kind::Charge, text(&intent, "latest_charge")).cloned();
            charge.ok_or_else(|| {
                let message = "This PaymentIntent does not have a successful charge to refund.";
                StripeError::invalid(message).code("payment_intent_unexpected_state").param("payment_intent")
            })?
        }
        _ => {
            let message = "One of the following params should be provided for this request: payment_intent or charge.";
            return Err(StripeError::invalid(message));
        }
    };
    p.done()?;
    let id = text(&charge, "id");
    if charge["paid"] != true {
        return Err(StripeError::invalid(format!("Charge {id} has not been paid, so it cannot be refunded.")));
    }
    if charge["disputed"] == true {
        let message = format!("Charge {id} has been charged back; cannot issue a refund.");
        return Err(StripeError::invalid(message).code("charge_disputed"));
    }
    let left = int(&charge, "amount") - int(&charge, "amount_refunded");
    if left == 0 {
        let message = format!("Charge {id} has already been refunded.");
        return Err(StripeError::invalid(message).code("charge_already_refunded"));
    }
    let amount = amount.unwrap_or(left);
    if amount < 1 {
        let message = "Invalid positive integer";
        return Err(StripeError::invalid(message).code("parameter_invalid_integer").param("amount"));
    }
    if amount > left {
        let message = format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
        return Err(StripeError::invalid(message).param("amount"));
    }
    Ok(make(s, &charge, amount, reason, &metadata))
}

fn make(s: &mut State, charge: &Value, amount: i64, reason: Option<&str>, metadata: &Value) -> Value {
    let id = s.new_id(Kind::Refund);
    let pending =
        json!({"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"});
    let refund = with(
        "refund",
        json!({"id": id, "created": s.now, "amount": amount, "currency": charge["currency"], "charge": charge["id"],
               "payment_intent": charge["payment_intent"], "reason": reason, "metadata": metadata,
               "destination_details": {"card": pending, "type": "card"}}),
    );
    s.create(Kind::Refund, refund, "refund.created");
    let refunded = int(charge, "amount_refunded") + amount;
    let changes = json!({"amount_refunded": refunded, "refunded": refunded == int(charge, "amount")});
    s.change(Kind::Charge, text(charge, "id"), "charge.refunded", changes);
    let answered = s.get(Kind::Refund, &id).cloned().unwrap_or_default();
    let card = json!({"reference": id.trim_start_matches("re_"), "reference_status": "available",
                      "reference_type": "acquirer_reference_number", "type": "refund"});
    s.change(Kind::Refund, &id, "refund.updated", json!({"destination_details": {"card": card, "type": "card"}}));
    answered
}

/// The bank sends the money of a refund back.
pub(super) fn fail(s: &mut State, id: &str) -> Answer<()> {
    let refund = s.named(Kind::Refund, id)?;
    if text(&refund, "status") != "succeeded" {
        return Err(StripeError::invalid(format!("{id} has a status of {}", text(&refund, "status"))));
    }
    let charge = s.referred(Kind::Charge, text(&refund, "charge"), "charge")?;
    let changes = json!({"status": "failed", "failure_reason": "lost_or_stolen_card"});
    s.change(Kind::Refund, id, "refund.failed", changes);
    let left = int(&charge, "amount_refunded") - int(&refund, "amount");
    s.change(Kind::Charge, text(&charge, "id"), "charge.updated", json!({"amount_refunded": left, "refunded": false}));
    Ok(())
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (charge, intent) = (p.some_text("charge")?, p.some_text("payment_intent")?);
    p.done()?;
    page(s, Kind::Refund, &asked, "/v1/refunds", |refund| {
        charge.as_deref().is_none_or(|charge| text(refund, "charge") == charge)
            && intent.as_deref().is_none_or(|intent| text(refund, "payment_intent") == intent)
    })
}

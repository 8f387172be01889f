//! Disputes: <https://docs.stripe.com/disputes/how-disputes-work>. Banks open and close them, so the API only reads.

use serde_json::json;

use super::{
    calendar::DAY,
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    state::State,
};

/// Days in which a merchant may answer.
const DAYS_TO_ANSWER: i64 = 7;

/// The bank takes the money of a charge back, until somebody has won.
pub(super) fn open(s: &mut State, charge: &str, amount: Option<i64>, reason: &str) -> Answer<String> {
    let charge = s.named(Kind::Charge, charge)?;
    if charge["paid"] != true || charge["disputed"] == true {
        return Err(StripeError::invalid("Only a charge that is paid and not disputed can be disputed"));
    }
    let amount = amount.unwrap_or_else(|| int(&charge, "amount"));
    if !(1..=int(&charge, "amount")).contains(&amount) {
        return Err(StripeError::invalid("A dispute is about at most the amount of its charge").param("amount"));
    }
    let id = s.new_id(Kind::Dispute);
    let mut dispute = with(
        "dispute",
        json!({"id": id, "created": s.now, "amount": amount, "currency": charge["currency"], "charge": charge["id"],
               "payment_intent": charge["payment_intent"], "reason": reason, "status": "needs_response"}),
    );
    dispute["evidence_details"]["due_by"] = json!(s.now + DAYS_TO_ANSWER * DAY);
    dispute["payment_method_details"]["card"]["case_type"] = json!("chargeback");
    s.set(Kind::Charge, text(&charge, "id"), json!({ "disputed": true }));
    s.create(Kind::Dispute, dispute, "charge.dispute.created");
    s.tell(Kind::Dispute, &id, "charge.dispute.funds_withdrawn");
    Ok(id)
}

/// The bank decides.
pub(super) fn close(s: &mut State, id: &str, won: bool) -> Answer<()> {
    let dispute = s.named(Kind::Dispute, id)?;
    if ["won", "lost"].contains(&text(&dispute, "status")) {
        return Err(StripeError::invalid(format!("{id} is closed")));
    }
    s.set(Kind::Dispute, id, json!({ "status": if won { "won" } else { "lost" } }));
    if won {
        s.tell(Kind::Dispute, id, "charge.dispute.funds_reinstated");
    }
    s.tell(Kind::Dispute, id, "charge.dispute.closed");
    Ok(())
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (charge, intent) = (p.some_text("charge")?, p.some_text("payment_intent")?);
    p.done()?;
    page(s, Kind::Dispute, &asked, "/v1/disputes", |dispute| {
        charge.as_deref().is_none_or(|charge| text(dispute, "charge") == charge)
            && intent.as_deref().is_none_or(|intent| text(dispute, "payment_intent") == intent)
    })
}

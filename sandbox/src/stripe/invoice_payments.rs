//! Invoice payments, which join an invoice with the intent that pays it: since 2025-03-31.basil an invoice names neither
//! intent nor charge. <https://docs.stripe.com/api/invoice-payment>

use serde_json::{Value, json};

use super::{
    error::Answer,
    intents,
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    state::State,
};

/// The intent with which an invoice is to be paid.
pub(super) fn open(s: &mut State, invoice: &Value) {
    let customer = invoice["customer"].as_str();
    let description = if text(invoice, "billing_reason") == "subscription_create" {
        "Subscription creation"
    } else {
        "Subscription update"
    };
    let intent = intents::make(
        s,
        intents::Intent {
            amount: int(invoice, "amount_due"),
            currency: text(invoice, "currency"),
            customer,
            description: Some(description),
            ..intents::Intent::default()
        },
    );
    join(s, invoice, &intent);
}

/// Joins an invoice with the intent that pays it.
pub(super) fn join(s: &mut State, invoice: &Value, intent: &str) {
    let payment = s.new_id(Kind::InvoicePayment);
    let object = json!({
        "id": payment, "created": s.now, "invoice": invoice["id"], "amount_requested": invoice["amount_due"],
        "currency": invoice["currency"], "is_default": true, "status": "open",
        "payment": {"type": "payment_intent", "payment_intent": intent},
    });
    s.put(Kind::InvoicePayment, with("invoice_payment", object));
}

/// The payment of an invoice, and its intent.
pub(super) fn of(s: &State, invoice: &str) -> Option<(String, String)> {
    let found = s.all(Kind::InvoicePayment).rev().find(|payment| text(payment, "invoice") == invoice)?;
    Some((text(found, "id").to_owned(), text(&found["payment"], "payment_intent").to_owned()))
}

/// The invoice that an intent pays.
pub(super) fn invoice_of(s: &State, intent: &str) -> Option<String> {
    let found = s.all(Kind::InvoicePayment).find(|payment| text(&payment["payment"], "payment_intent") == intent)?;
    Some(text(found, "invoice").to_owned())
}

/// The money is there.
pub(super) fn paid(s: &mut State, invoice: &str) {
    let Some((payment, intent)) = of(s, invoice) else { return };
    let changes = json!({"status": "paid", "amount_paid": intents::received(s, &intent),
                         "status_transitions": {"canceled_at": null, "paid_at": s.now}});
    s.change(Kind::InvoicePayment, &payment, "invoice_payment.paid", changes);
}

/// Nobody will pay it any more.
pub(super) fn canceled(s: &mut State, invoice: &str) {
    let Some((payment, intent)) = of(s, invoice) else { return };
    intents::void(s, &intent, Some("void_invoice"));
    let changes = json!({"status": "canceled", "status_transitions": {"canceled_at": s.now, "paid_at": null}});
    s.set(Kind::InvoicePayment, &payment, changes);
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (invoice, status) = (p.some_text("invoice")?, p.one_of("status", &["open", "paid", "canceled"])?);
    let mut intent = None;
    if let Some(mut payment) = p.group("payment")? {
        payment.one_of("type", &["payment_intent"])?;
        intent = payment.some_text("payment_intent")?;
        payment.done()?;
    }
    p.done()?;
    page(s, Kind::InvoicePayment, &asked, "/v1/invoice_payments", |payment| {
        invoice.as_deref().is_none_or(|invoice| text(payment, "invoice") == invoice)
            && status.is_none_or(|status| text(payment, "status") == status)
            && intent.as_deref().is_none_or(|intent| text(&payment["payment"], "payment_intent") == intent)
    })
}

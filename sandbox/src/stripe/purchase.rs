//! The invoice of a purchase, written when it is paid: `invoice_creation[enabled]` of a checkout session.
//! <https://docs.stripe.com/payments/checkout/receipts>

use serde_json::{Value, json};

use super::{
    invoice_lines::Line,
    invoice_payments,
    invoices::{self, Draft, compose},
    object::{Kind, int, overlay, text},
    state::State,
};

/// Writes it, paid. The customer's balance has nothing to do with it: the price was asked for at the checkout.
pub(super) fn invoice(
    s: &mut State,
    session: &Value,
    customer: &str,
    lines: Vec<Line>,
    discount: Option<&str>,
    metadata: Value,
) -> String {
    let id = s.new_id(Kind::Invoice);
    let line_ids: Vec<String> = lines.iter().map(|_| s.id("il_")).collect();
    let buyer = json!({"customer": customer, "currency": session["currency"], "discounts": discount.into_iter().collect::<Vec<_>>()});
    let items: Vec<String> = lines.iter().filter_map(|line| line.invoice_item.clone()).collect();
    let draft = Draft { subscription: &buyer, reason: "manual", lines, period: (s.now, s.now) };
    let mut invoice = compose(s, &id, &draft, &line_ids);
    let total = int(&invoice, "total");
    overlay(
        &mut invoice,
        json!({"parent": null, "metadata": metadata, "auto_advance": false, "starting_balance": 0, "ending_balance": 0,
               "amount_due": total, "amount_remaining": total}),
    );
    s.create(Kind::Invoice, invoice.clone(), "invoice.created");
    for item in items {
        s.set(Kind::InvoiceItem, &item, json!({ "invoice": id }));
    }
    let members = invoices::final_members(s, &invoice);
    s.change(Kind::Invoice, &id, "invoice.finalized", members);
    if let Some(intent) =
        s.get(Kind::Session, text(session, "id")).and_then(|session| session["payment_intent"].as_str())
    {
        let intent = intent.to_owned();
        invoice_payments::join(s, &invoice, &intent);
    }
    invoices::mark_paid(s, &id, false);
    id
}

//! Lines of invoices, and invoice items: prorations that wait for the next invoice.
//! <https://docs.stripe.com/api/invoice-line-item>, <https://docs.stripe.com/api/invoiceitems>

use serde_json::{Value, json};

use super::{
    catalogue::product_name,
    object::{Kind, int, text, with},
    proration::full,
    state::State,
};

/// A line to be.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) amount: i64,
    pub(super) description: String,
    pub(super) period: (i64, i64),
    pub(super) price: Value,
    pub(super) quantity: i64,
    /// The subscription's item.
    pub(super) item: Option<String>,
    pub(super) proration: bool,
    /// The invoice item that it comes from.
    pub(super) invoice_item: Option<String>,
}

impl Line {
    /// An item for the whole of its period.
    pub(super) fn period(s: &State, item: &Value) -> Self {
        let (quantity, price) = (int(item, "quantity"), &item["price"]);
        let name = product_name(s, price);
        let recurring = &price["recurring"];
        let every = match (int(recurring, "interval_count"), text(recurring, "interval")) {
            (1, interval) => interval.to_owned(),
            (count, interval) => format!("{count} {interval}s"),
        };
        let amount = int(price, "unit_amount");
        Self {
            amount: full(item),
            description: format!("{quantity} × {name} (at {}.{:02} / {every})", amount / 100, amount % 100),
            period: (int(item, "current_period_start"), int(item, "current_period_end")),
            price: price.clone(),
            quantity,
            item: item["id"].as_str().map(str::to_owned),
            proration: false,
            invoice_item: None,
        }
    }

    /// An item for its trial: nothing.
    pub(super) fn trial(s: &State, item: &Value) -> Self {
        let description = format!("Trial period for {}", product_name(s, &item["price"]));
        Self { amount: 0, description, ..Self::period(s, item) }
    }

    /// Something that is bought once, as an invoice item.
    pub(super) fn purchase(s: &mut State, price: &Value, quantity: i64, customer: &str) -> Self {
        let mut line = Self {
            amount: int(price, "unit_amount").saturating_mul(quantity),
            description: product_name(s, price),
            period: (s.now, s.now),
            price: price.clone(),
            quantity,
            item: None,
            proration: false,
            invoice_item: None,
        };
        line.invoice_item = Some(line.keep_for_later(s, customer, None));
        line
    }

    pub(super) fn to_json(&self, id: &str, invoice: &str, subscription: Option<&str>) -> Value {
        let parent = match &self.invoice_item {
            Some(item) => json!({
                "type": "invoice_item_details",
                "invoice_item_details": {"invoice_item": item, "proration": self.proration,
                    "proration_details": {"credited_items": null}, "subscription": subscription},
                "subscription_item_details": null,
            }),
            None => json!({
                "type": "subscription_item_details",
                "invoice_item_details": null,
                "subscription_item_details": {"invoice_item": null, "proration": self.proration,
                    "proration_details": {"credited_items": null}, "subscription": subscription,
                    "subscription_item": self.item},
            }),
        };
        with(
            "line_item",
            json!({
                "id": id, "invoice": invoice, "amount": self.amount, "subtotal": self.amount,
                "currency": self.price["currency"], "description": self.description, "subscription": subscription,
                "period": {"start": self.period.0, "end": self.period.1}, "quantity": self.quantity, "parent": parent,
                "quantity_decimal": self.quantity.to_string(),
                "pricing": {"type": "price_details", "unit_amount_decimal": self.price["unit_amount_decimal"],
                    "price_details": {"price": self.price["id"], "product": self.price["product"]}},
            }),
        )
    }

    /// Keeps the line as an invoice item, for the next invoice.
    pub(super) fn keep_for_later(&self, s: &mut State, customer: &str, subscription: Option<&str>) -> String {
        let id = s.new_id(Kind::InvoiceItem);
        let parent = subscription.map(|subscription| {
            let details = json!({"subscription": subscription, "subscription_item": self.item});
            json!({"type": "subscription_details", "subscription_details": details})
        });
        let item = json!({
            "id": id, "date": s.now, "customer": customer, "amount": self.amount, "net_amount": self.amount,
            "currency": self.price["currency"], "description": self.description, "proration": self.proration,
            "period": {"start": self.period.0, "end": self.period.1}, "quantity": self.quantity,
            "quantity_decimal": self.quantity.to_string(),
            "parent": parent,
            "pricing": {"type": "price_details", "unit_amount_decimal": self.price["unit_amount_decimal"],
                "price_details": {"price": self.price["id"], "product": self.price["product"]}},
        });
        s.create(Kind::InvoiceItem, with("invoiceitem", item), "invoiceitem.created");
        id
    }
}

/// Lines that wait for the next invoice of a subscription.
pub(super) fn waiting(s: &State, subscription: &str) -> Vec<Line> {
    let is_waiting = |item: &&Value| {
        item["invoice"].is_null() && text(&item["parent"]["subscription_details"], "subscription") == subscription
    };
    s.all(Kind::InvoiceItem).filter(is_waiting).map(|item| of_item(s, item)).collect()
}

fn of_item(s: &State, item: &Value) -> Line {
    let price = text(&item["pricing"]["price_details"], "price");
    Line {
        amount: int(item, "amount"),
        description: text(item, "description").to_owned(),
        period: (int(&item["period"], "start"), int(&item["period"], "end")),
        price: s.get(Kind::Price, price).cloned().unwrap_or_default(),
        quantity: int(item, "quantity"),
        item: item["parent"]["subscription_details"]["subscription_item"].as_str().map(str::to_owned),
        proration: item["proration"] == true,
        invoice_item: item["id"].as_str().map(str::to_owned),
    }
}

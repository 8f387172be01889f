//! Kinds of objects, and Stripe's own example of each, from which every object here begins: so every member that
//! Stripe promises is there (`sandbox/data/stripe`).

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

static EXAMPLES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../data/stripe/objects.json")).unwrap_or_default());

/// What is kept. Subscription items live in their subscription, lines in their invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Kind {
    Customer,
    Product,
    Price,
    Coupon,
    PromotionCode,
    Discount,
    Session,
    PortalSession,
    Subscription,
    Invoice,
    InvoiceItem,
    InvoicePayment,
    PaymentIntent,
    SetupIntent,
    PaymentMethod,
    Charge,
    Refund,
    Dispute,
    Event,
}

impl Kind {
    #[cfg(test)]
    const ALL: [Self; 19] = [
        Self::Customer,
        Self::Product,
        Self::Price,
        Self::Coupon,
        Self::PromotionCode,
        Self::Discount,
        Self::Session,
        Self::PortalSession,
        Self::Subscription,
        Self::Invoice,
        Self::InvoiceItem,
        Self::InvoicePayment,
        Self::PaymentIntent,
        Self::SetupIntent,
        Self::PaymentMethod,
        Self::Charge,
        Self::Refund,
        Self::Dispute,
        Self::Event,
    ];

    /// The member `object`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Product => "product",
            Self::Price => "price",
            Self::Coupon => "coupon",
            Self::PromotionCode => "promotion_code",
            Self::Discount => "discount",
            Self::Session => "checkout.session",
            Self::PortalSession => "billing_portal.session",
            Self::Subscription => "subscription",
            Self::Invoice => "invoice",
            Self::InvoiceItem => "invoiceitem",
            Self::InvoicePayment => "invoice_payment",
            Self::PaymentIntent => "payment_intent",
            Self::SetupIntent => "setup_intent",
            Self::PaymentMethod => "payment_method",
            Self::Charge => "charge",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
            Self::Event => "event",
        }
    }

    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Customer => "cus_",
            Self::Product => "prod_",
            Self::Price => "price_",
            Self::Coupon => "coup_",
            Self::PromotionCode => "promo_",
            Self::Discount => "di_",
            Self::Session => "cs_test_",
            Self::PortalSession => "bps_",
            Self::Subscription => "sub_",
            Self::Invoice => "in_",
            Self::InvoiceItem => "ii_",
            Self::InvoicePayment => "inpay_",
            Self::PaymentIntent => "pi_",
            Self::SetupIntent => "seti_",
            Self::PaymentMethod => "pm_",
            Self::Charge => "ch_",
            Self::Refund => "re_",
            Self::Dispute => "du_",
            Self::Event => "evt_",
        }
    }

    /// What messages call it.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::PaymentMethod => "PaymentMethod",
            Self::PromotionCode => "promotion code",
            other => other.name(),
        }
    }

    /// What errors call the id in the path.
    pub(super) const fn path_parameter(self) -> &'static str {
        match self {
            Self::PaymentIntent | Self::SetupIntent => "intent",
            Self::Session => "session",
            Self::InvoicePayment => "invoice_payment",
            Self::Subscription | Self::Event | Self::Refund | Self::Customer | Self::Product => "id",
            other => other.name(),
        }
    }
}

/// Stripe's example of an object. Those that are part of others (`item`, `line_item`, `plan`, `subscription_item`) too.
pub(super) fn example(name: &str) -> Value {
    EXAMPLES.get(name).cloned().unwrap_or_else(|| Value::Object(Map::new()))
}

/// Writes `changes` over the members of `target`.
pub(super) fn overlay(target: &mut Value, changes: Value) {
    if let (Some(target), Value::Object(changes)) = (target.as_object_mut(), changes) {
        target.extend(changes);
    }
}

/// The example with `changes`.
pub(super) fn with(name: &str, changes: Value) -> Value {
    let mut object = example(name);
    overlay(&mut object, changes);
    object
}

/// A member that is a text; empty when it is not.
pub(super) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// A member that is a whole number; zero when it is not.
pub(super) fn int(object: &Value, name: &str) -> i64 {
    object[name].as_i64().unwrap_or_default()
}

/// The elements of a member that is an array, or a list object.
pub(super) fn elements<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    let member = &object[name];
    member.as_array().or_else(|| member["data"].as_array()).map_or(&[], Vec::as_slice)
}

/// A list object.
pub(super) fn list(data: Vec<Value>, has_more: bool, url: &str) -> Value {
    serde_json::json!({ "object": "list", "data": data, "has_more": has_more, "url": url })
}

/// What a change of `after` overwrote, as `previous_attributes` tells it: members of objects one by one, arrays whole.
pub(super) fn previous(before: &Value, after: &Value) -> Map<String, Value> {
    let mut previous = Map::new();
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return previous };
    for (name, old) in before {
        match after.get(name) {
            Some(new) if new == old => {}
            Some(new) if old.is_object() && new.is_object() => {
                previous.insert(name.clone(), Value::Object(self::previous(old, new)));
            }
            _ => {
                previous.insert(name.clone(), old.clone());
            }
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        previous.insert(name.clone(), Value::Null);
    }
    previous
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_an_example_of_its_name() {
        let parts = ["item", "line_item", "plan", "subscription_item"];
        for name in Kind::ALL.map(Kind::name).into_iter().chain(parts) {
            assert_eq!(example(name)["object"], name);
        }
    }

    #[test]
    fn previous_attributes_are_those_that_changed() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1], "gone": 1});
        let after = json!({"a": 1, "b": {"x": 1, "y": 3}, "c": [2], "new": 1});
        assert_eq!(Value::Object(previous(&before, &after)), json!({"b": {"y": 2}, "c": [1], "gone": 1, "new": null}));
    }
}

//! The members that `expand` asks for: <https://docs.stripe.com/api/expanding_objects>.

use serde_json::Value;

use super::{
    checkout,
    error::{Answer, StripeError},
    object::{Kind, list, text},
    state::State,
};

/// Puts objects in the place of their ids, along `path`.
pub(super) fn expand(s: &State, value: &mut Value, path: &str) -> Answer<()> {
    let segments: Vec<&str> = path.split('.').collect();
    if segments.len() > 5 {
        return Err(StripeError::invalid("You cannot expand more than 4 levels of a property").param("expand"));
    }
    step(s, value, &segments, path)
}

fn step(s: &State, value: &mut Value, path: &[&str], whole: &str) -> Answer<()> {
    if let Some(id) = value.as_str() {
        let found = s.any(id).cloned();
        *value = found.ok_or_else(|| cannot_expand(whole))?;
    }
    let Some((segment, rest)) = path.split_first() else { return Ok(()) };
    match value {
        Value::Null => Ok(()),
        Value::Array(elements) => elements.iter_mut().try_for_each(|element| step(s, element, path, whole)),
        Value::Object(_) => {
            if let Some(members) = includable(s, value, segment) {
                value[*segment] = members;
            }
            let member = value.get_mut(*segment).ok_or_else(|| cannot_expand(whole))?;
            match (rest.is_empty(), &member) {
                (true, Value::Array(ids)) if ids.iter().all(Value::is_string) => {
                    member.as_array_mut().into_iter().flatten().try_for_each(|id| step(s, id, &[], whole))
                }
                _ => step(s, member, rest, whole),
            }
        }
        _ => Err(cannot_expand(whole)),
    }
}

fn cannot_expand(path: &str) -> StripeError {
    StripeError::invalid(format!("This property cannot be expanded ({path}).")).param("expand")
}

/// Members that are left out unless they are asked for.
fn includable(s: &State, object: &Value, member: &str) -> Option<Value> {
    let id = text(object, "id");
    let of = |kind: Kind, name: &str| -> Vec<Value> {
        s.all(kind).rev().filter(|other| text(other, name) == id).cloned().collect()
    };
    match (text(object, "object"), member) {
        ("checkout.session", "line_items") => Some(checkout::line_items_of(s, id)),
        ("invoice", "payments") => Some(list(of(Kind::InvoicePayment, "invoice"), false, "/v1/invoice_payments")),
        ("charge", "refunds") => Some(list(of(Kind::Refund, "charge"), false, &format!("/v1/charges/{id}/refunds"))),
        _ => None,
    }
}

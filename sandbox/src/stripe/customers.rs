//! Customers: <https://docs.stripe.com/api/customers>. Search answers at once, where Stripe may take a minute.

use serde_json::{Value, json};

use super::{
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, list as list_of, overlay, text, with},
    params::Params,
    payment_methods,
    state::State,
    subscriptions,
};

/// Texts that a customer has, all of which can be unset.
const TEXTS: [&str; 4] = ["email", "name", "description", "phone"];

/// Takes the members that create and update have in common, and says which payment method is to be the default.
fn fields(s: &State, p: &mut Params, customer: &mut Value) -> Answer<()> {
    for name in TEXTS {
        if let Some(text) = p.text(name)? {
            customer[name] = if text.is_empty() { Value::Null } else { json!(text) };
        }
    }
    p.metadata(&mut customer["metadata"])?;
    if let Some(mut address) = p.group("address")? {
        for name in ["city", "country", "line1", "line2", "postal_code", "state"] {
            customer["address"][name] = address.some_text(name)?.map_or(Value::Null, Value::from);
        }
        address.done()?;
    }
    if let Some(exempt) = p.one_of("tax_exempt", &["none", "exempt", "reverse"])? {
        customer["tax_exempt"] = json!(exempt);
    }
    if let Some(locales) = p.texts("preferred_locales")? {
        customer["preferred_locales"] = json!(locales);
    }
    if let Some(mut settings) = p.group("invoice_settings")? {
        if let Some(method) = settings.some_text("default_payment_method")? {
            let found = s.referred(Kind::PaymentMethod, &method, "invoice_settings[default_payment_method]")?;
            if found["customer"] != customer["id"] {
                let message = "The customer does not have a payment method with the ID given; attach it first";
                return Err(StripeError::invalid(message).param("invoice_settings[default_payment_method]"));
            }
            customer["invoice_settings"]["default_payment_method"] = json!(method);
        }
        settings.without_effect(&["footer", "custom_fields", "rendering_options"]);
        settings.done()?;
    }
    p.without_effect(&["shipping", "tax"]);
    Ok(())
}

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let mut fresh = with("customer", json!({ "id": null }));
    fields(s, &mut p, &mut fresh)?;
    let method = p.some_text("payment_method")?;
    p.done()?;
    if let Some(method) = &method {
        payment_methods::check(s, method, "payment_method")?;
    }
    let id = s.new_id(Kind::Customer);
    overlay(&mut fresh, json!({"id": id, "created": s.now, "invoice_prefix": id.to_uppercase().replace('_', "")}));
    s.create(Kind::Customer, fresh, "customer.created");
    if let Some(method) = method {
        payment_methods::attach(s, &method, &id, "payment_method")?;
    }
    s.named(Kind::Customer, &id)
}

/// A customer for somebody who pays without being known.
pub(super) fn from_checkout(s: &mut State, email: Option<&str>) -> String {
    let id = s.new_id(Kind::Customer);
    let changes =
        json!({"id": id, "created": s.now, "email": email, "invoice_prefix": id.to_uppercase().replace('_', "")});
    s.create(Kind::Customer, with("customer", changes), "customer.created");
    id
}

/// A customer that has not been deleted.
pub(super) fn living(s: &State, id: &str, param: &str) -> Answer {
    let customer = s.referred(Kind::Customer, id, param)?;
    if customer["deleted"] == true {
        return Err(StripeError::no_such(Kind::Customer, id, param));
    }
    Ok(customer)
}

pub(super) fn retrieve(s: &State, id: &str, p: Params) -> Answer {
    p.done()?;
    s.named(Kind::Customer, id)
}

pub(super) fn update(s: &mut State, id: &str, mut p: Params) -> Answer {
    let mut customer = s.named(Kind::Customer, id)?;
    if customer["deleted"] == true {
        return Err(StripeError::not_found(Kind::Customer, id));
    }
    fields(s, &mut p, &mut customer)?;
    p.done()?;
    s.change(Kind::Customer, id, "customer.updated", customer);
    s.named(Kind::Customer, id)
}

/// A deleted customer's subscriptions end at once.
pub(super) fn delete(s: &mut State, id: &str, p: Params) -> Answer {
    p.done()?;
    let customer = s.named(Kind::Customer, id)?;
    if customer["deleted"] == true {
        return Err(StripeError::not_found(Kind::Customer, id));
    }
    let living = |sub: &Value| text(sub, "customer") == id && !subscriptions::is_over(sub);
    for subscription in s.ids(Kind::Subscription, living) {
        subscriptions::end(s, &subscription, "cancellation_requested");
    }
    s.tell(Kind::Customer, id, "customer.deleted");
    let deleted = json!({"id": id, "object": "customer", "deleted": true});
    s.put(Kind::Customer, deleted.clone());
    Ok(deleted)
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let email = p.some_text("email")?;
    p.done()?;
    page(s, Kind::Customer, &asked, "/v1/customers", |customer| {
        customer["deleted"] != true && email.as_deref().is_none_or(|email| text(customer, "email") == email)
    })
}

/// `GET /v1/customers/search`: clauses of `email`, `name`, `phone` and `metadata['key']` with `:` (is) and `~` (contains),
/// joined by AND or by OR. <https://docs.stripe.com/search#search-query-language>
pub(super) fn search(s: &State, mut p: Params) -> Answer {
    let query = p.required("query")?;
    let limit = p.int("limit")?.unwrap_or(10);
    let skip: usize = p.some_text("page")?.and_then(|page| page.parse().ok()).unwrap_or(0);
    p.done()?;
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=100).contains(limit));
    let limit = limit.ok_or_else(|| StripeError::invalid("Invalid integer: limit").param("limit"))?;
    let (any, separator) = if query.contains(" OR ") { (true, " OR ") } else { (false, " AND ") };
    let clauses: Vec<Clause> = query.split(separator).map(Clause::parse).collect::<Answer<_>>()?;
    let is_found = |customer: &&Value| {
        let holds = |clause: &Clause| clause.holds(customer);
        customer["deleted"] != true && if any { clauses.iter().any(holds) } else { clauses.iter().all(holds) }
    };
    let found: Vec<Value> = s.all(Kind::Customer).rev().filter(is_found).cloned().collect();
    let data: Vec<Value> = found.iter().skip(skip).take(limit).cloned().collect();
    let more = skip + data.len() < found.len();
    let next = more.then(|| (skip + data.len()).to_string());
    let mut result = list_of(data, more, "/v1/customers/search");
    result["object"] = json!("search_result");
    result["next_page"] = next.map_or(Value::Null, Value::from);
    Ok(result)
}

struct Clause {
    pointer: Vec<String>,
    exact: bool,
    value: String,
}

impl Clause {
    fn parse(text: &str) -> Answer<Self> {
        let wrong = || {
            let message = format!("We were unable to parse your search query near '{text}'");
            StripeError::invalid(message).param("query")
        };
        let text = text.trim();
        // The operator is the first : or ~ outside the brackets of a metadata key.
        let after_key = text.find(']').unwrap_or(0);
        let operator = text[after_key..].find([':', '~']).ok_or_else(wrong)? + after_key;
        let (field, rest) = text.split_at(operator);
        let quoted = |text: &str| {
            let inner = ['\'', '"'].into_iter().find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark));
            inner.map(|inner| inner.replace("\\'", "'").replace("\\\"", "\""))
        };
        let value = quoted(rest[1..].trim()).ok_or_else(wrong)?;
        let field = field.trim();
        let key = field.strip_prefix("metadata[").and_then(|key| key.strip_suffix(']'));
        let pointer = match key {
            Some(key) => vec!["metadata".to_owned(), quoted(key).ok_or_else(wrong)?],
            None if ["email", "name", "phone"].contains(&field) => vec![field.to_owned()],
            None => return Err(wrong()),
        };
        Ok(Self { pointer, exact: rest.starts_with(':'), value })
    }

    fn holds(&self, customer: &Value) -> bool {
        let member = self.pointer.iter().fold(customer, |value, name| &value[name.as_str()]);
        let Some(member) = member.as_str() else { return false };
        if self.exact { member == self.value } else { member.contains(&self.value) }
    }
}

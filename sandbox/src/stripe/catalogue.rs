//! Products and prices: <https://docs.stripe.com/api/products>, <https://docs.stripe.com/api/prices>.

use serde_json::{Value, json};

use super::{
    calendar::Unit,
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, overlay, text, with},
    params::Params,
    state::State,
};

fn product_fields(p: &mut Params, product: &mut Value) -> Answer<()> {
    for name in ["name", "description", "statement_descriptor", "tax_code", "unit_label", "url"] {
        if let Some(text) = p.text(name)? {
            product[name] = if text.is_empty() { Value::Null } else { json!(text) };
        }
    }
    if let Some(active) = p.flag("active")? {
        product["active"] = json!(active);
    }
    if let Some(images) = p.texts("images")? {
        product["images"] = json!(images);
    }
    p.metadata(&mut product["metadata"])
}

pub(super) fn create_product(s: &mut State, mut p: Params) -> Answer {
    let id = p.some_text("id")?;
    if !p.has("name") {
        return Err(p.missing("name"));
    }
    let mut product = with("product", json!({}));
    product_fields(&mut p, &mut product)?;
    p.done()?;
    if id.as_deref().is_some_and(|id| s.get(Kind::Product, id).is_some()) {
        return Err(StripeError::invalid("Product already exists.").code("resource_already_exists").param("id"));
    }
    let id = id.unwrap_or_else(|| s.new_id(Kind::Product));
    overlay(&mut product, json!({"id": id, "created": s.now, "updated": s.now}));
    s.create(Kind::Product, product.clone(), "product.created");
    Ok(product)
}

pub(super) fn update_product(s: &mut State, id: &str, mut p: Params) -> Answer {
    let mut product = s.named(Kind::Product, id)?;
    product_fields(&mut p, &mut product)?;
    let price = p.some_text("default_price")?;
    p.done()?;
    if let Some(price) = price {
        s.referred(Kind::Price, &price, "default_price")?;
        product["default_price"] = json!(price);
    }
    product["updated"] = json!(s.now);
    s.change(Kind::Product, id, "product.updated", product);
    s.named(Kind::Product, id)
}

pub(super) fn list_products(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (active, ids) = (p.flag("active")?, p.texts("ids")?);
    p.done()?;
    page(s, Kind::Product, &asked, "/v1/products", |product| {
        active.is_none_or(|active| product["active"] == active)
            && ids.as_ref().is_none_or(|ids| ids.iter().any(|id| text(product, "id") == id))
    })
}

/// Stripe takes eight digits: <https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>.
pub(super) const DEAREST: i64 = 99_999_999;

/// What a price costs and how often: what `POST /v1/prices` and the inline `price_data` of others have in common.
struct Terms {
    currency: String,
    amount: i64,
    recurring: Value,
    tax_behavior: &'static str,
}

fn terms(p: &mut Params) -> Answer<Terms> {
    let currency = p.required("currency")?.to_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(StripeError::invalid(format!("Invalid currency: {currency}")).param(p.name("currency")));
    }
    let amount = p.int("unit_amount")?.ok_or_else(|| p.missing("unit_amount"))?;
    if !(0..=DEAREST).contains(&amount) {
        let message = "Invalid integer: unit_amount must be from 0 to 99999999";
        return Err(StripeError::invalid(message).code("parameter_invalid_integer").param(p.name("unit_amount")));
    }
    let recurring = match p.group("recurring")? {
        None => Value::Null,
        Some(mut group) => {
            let interval = group.one_of("interval", &["day", "week", "month", "year"])?;
            let interval = interval.ok_or_else(|| group.missing("interval"))?;
            let every = group.int("interval_count")?.unwrap_or(1);
            let usage = group.one_of("usage_type", &["licensed"])?.unwrap_or("licensed");
            let trial = group.int("trial_period_days")?;
            if !(1..=1095).contains(&every) {
                return Err(StripeError::invalid("Invalid interval_count").param(group.name("interval_count")));
            }
            group.done()?;
            json!({"interval": interval, "interval_count": every, "meter": null, "trial_period_days": trial,
                   "usage_type": usage})
        }
    };
    let tax_behavior = p.one_of("tax_behavior", &["unspecified", "inclusive", "exclusive"])?.unwrap_or("unspecified");
    Ok(Terms { currency, amount, recurring, tax_behavior })
}

impl Terms {
    fn price(&self, id: &str, product: &str, now: i64) -> Value {
        with(
            "price",
            json!({
                "id": id,
                "created": now,
                "currency": self.currency,
                "product": product,
                "recurring": self.recurring,
                "tax_behavior": self.tax_behavior,
                "type": if self.recurring.is_null() { "one_time" } else { "recurring" },
                "unit_amount": self.amount,
                "unit_amount_decimal": self.amount.to_string(),
            }),
        )
    }
}

/// A price that is part of another call.
pub(super) struct Inline {
    terms: Terms,
    product: Option<String>,
    name: String,
    description: Option<String>,
}

impl Inline {
    pub(super) fn take(s: &State, mut p: Params) -> Answer<Self> {
        let terms = terms(&mut p)?;
        let product = p.some_text("product")?;
        if let Some(product) = &product {
            s.referred(Kind::Product, product, &p.name("product"))?;
        }
        let (mut name, mut description) = (String::new(), None);
        match p.group("product_data")? {
            Some(mut data) => {
                name = data.required("name")?;
                description = data.some_text("description")?;
                data.without_effect(&["images", "metadata", "tax_code", "unit_label"]);
                data.done()?;
            }
            None if product.is_none() => return Err(p.missing("product")),
            None => {}
        }
        p.done()?;
        Ok(Self { terms, product, name, description })
    }

    /// Whether it recurs.
    pub(super) fn recurs(&self) -> bool {
        !self.terms.recurring.is_null()
    }

    pub(super) fn amount(&self) -> i64 {
        self.terms.amount
    }

    pub(super) fn currency(&self) -> &str {
        &self.terms.currency
    }

    /// Keeps it as an inactive price, as Stripe does.
    pub(super) fn keep(self, s: &mut State) -> String {
        let product = self.product.unwrap_or_else(|| {
            let id = s.new_id(Kind::Product);
            let changes = json!({"id": id, "name": self.name, "description": self.description, "active": false,
                                 "created": s.now, "updated": s.now});
            s.put(Kind::Product, with("product", changes));
            id
        });
        let id = s.new_id(Kind::Price);
        let mut price = self.terms.price(&id, &product, s.now);
        price["active"] = json!(false);
        s.put(Kind::Price, price);
        id
    }
}

pub(super) fn create_price(s: &mut State, mut p: Params) -> Answer {
    let terms = terms(&mut p)?;
    let product = p.some_text("product")?;
    if let Some(product) = &product {
        s.referred(Kind::Product, product, "product")?;
    }
    let mut data = p.group("product_data")?;
    let name = data.as_mut().map(|data| data.required("name")).transpose()?;
    data.map_or(Ok(()), Params::done)?;
    if product.is_none() && name.is_none() {
        return Err(p.missing("product"));
    }
    let mut price = terms.price("", "", s.now);
    price_fields(&mut p, &mut price)?;
    let transfer = p.flag("transfer_lookup_key")?.unwrap_or(false);
    p.done()?;
    claim_lookup_key(s, &price, transfer)?;
    let product = product.unwrap_or_else(|| {
        let id = s.new_id(Kind::Product);
        let changes = json!({"id": id, "name": name, "created": s.now, "updated": s.now});
        s.create(Kind::Product, with("product", changes), "product.created");
        id
    });
    let id = s.new_id(Kind::Price);
    overlay(&mut price, json!({"id": id, "product": product}));
    s.create(Kind::Price, price.clone(), "price.created");
    Ok(price)
}

fn price_fields(p: &mut Params, price: &mut Value) -> Answer<()> {
    for name in ["nickname", "lookup_key"] {
        if let Some(text) = p.text(name)? {
            price[name] = if text.is_empty() { Value::Null } else { json!(text) };
        }
    }
    if let Some(active) = p.flag("active")? {
        price["active"] = json!(active);
    }
    p.metadata(&mut price["metadata"])
}

/// A lookup key names one price; another may take it over when it says so.
fn claim_lookup_key(s: &mut State, price: &Value, transfer: bool) -> Answer<()> {
    let Some(key) = price["lookup_key"].as_str() else { return Ok(()) };
    let holders = s.ids(Kind::Price, |other| text(other, "lookup_key") == key && other["id"] != price["id"]);
    let Some(holder) = holders.first() else { return Ok(()) };
    if !transfer {
        let message = format!("A price (`{holder}`) already uses that lookup key.");
        return Err(StripeError::invalid(message).code("resource_already_exists").param("lookup_key"));
    }
    s.change(Kind::Price, holder, "price.updated", json!({ "lookup_key": null }));
    Ok(())
}

pub(super) fn update_price(s: &mut State, id: &str, mut p: Params) -> Answer {
    let mut price = s.named(Kind::Price, id)?;
    price_fields(&mut p, &mut price)?;
    let transfer = p.flag("transfer_lookup_key")?.unwrap_or(false);
    p.done()?;
    claim_lookup_key(s, &price, transfer)?;
    s.change(Kind::Price, id, "price.updated", price);
    s.named(Kind::Price, id)
}

pub(super) fn list_prices(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (active, product, keys) = (p.flag("active")?, p.some_text("product")?, p.texts("lookup_keys")?);
    let kind = p.one_of("type", &["one_time", "recurring"])?;
    let currency = p.some_text("currency")?;
    p.done()?;
    page(s, Kind::Price, &asked, "/v1/prices", |price| {
        active.is_none_or(|active| price["active"] == active)
            && product.as_deref().is_none_or(|product| text(price, "product") == product)
            && keys.as_ref().is_none_or(|keys| keys.iter().any(|key| text(price, "lookup_key") == key))
            && kind.is_none_or(|kind| text(price, "type") == kind)
            && currency.as_deref().is_none_or(|currency| text(price, "currency") == currency)
    })
}

/// How often a recurring price is paid.
pub(super) fn cycle(price: &Value) -> Option<(Unit, i64)> {
    let recurring = &price["recurring"];
    Some((Unit::named(recurring["interval"].as_str()?)?, int(recurring, "interval_count")))
}

/// The name of what a price is for.
pub(super) fn product_name(s: &State, price: &Value) -> String {
    s.get(Kind::Product, text(price, "product")).map_or_else(String::new, |product| text(product, "name").to_owned())
}

//! Checkout sessions: <https://docs.stripe.com/api/checkout/sessions>. How somebody pays is in `checkout_payment`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    calendar::{DAY, MINUTE},
    catalogue::{Inline, cycle, product_name},
    coupons::Reduction,
    customers,
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, list as list_of, text, with},
    pages::is_url,
    params::Params,
    state::State,
    subscriptions::{automatic_tax, one_cycle, trial, trial_settings},
};

/// What a session is for, beyond what its object shows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) items: Vec<Ordered>,
    /// Metadata of the subscription, the payment intent or the setup intent.
    pub(super) metadata: Value,
    pub(super) description: Option<String>,
    /// Seconds that a trial lasts from the payment, or the second at which it ends.
    pub(super) trial: Option<Trial>,
    pub(super) without_method: Option<String>,
    pub(super) reduction: Option<Reduction>,
    pub(super) setup_future_usage: Option<String>,
    /// The metadata of the invoice, when a purchase is to have one.
    pub(super) invoice: Option<Value>,
    /// What a purchase was reduced by, once it is made.
    pub(super) discount: Option<String>,
}

/// A line of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ordered {
    pub(super) id: String,
    pub(super) price: String,
    pub(super) quantity: i64,
}

/// Of one thing in one order.
const MOST: i64 = 999_999;

/// A trial to be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Trial {
    For(i64),
    Until(i64),
}

impl Trial {
    pub(super) fn end(self, now: i64) -> i64 {
        match self {
            Self::For(seconds) => now + seconds,
            Self::Until(at) => at.max(now + 1),
        }
    }
}

/// A price that is there, or one that comes with the call.
enum Chosen {
    Kept(String),
    Inline(Inline),
}

/// Parameters of the page's looks, which this page has not.
const LOOKS: [&str; 17] = [
    "adaptive_pricing",
    "billing_address_collection",
    "branding_settings",
    "consent_collection",
    "customer_update",
    "locale",
    "name_collection",
    "origin_context",
    "payment_method_collection",
    "payment_method_options",
    "payment_method_types",
    "phone_number_collection",
    "saved_payment_method_options",
    "submit_type",
    "tax_id_collection",
    "ui_mode",
    "wallet_options",
];

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let mode = p.one_of("mode", &["payment", "setup", "subscription"])?.ok_or_else(|| p.missing("mode"))?;
    let success_url = p.required("success_url")?;
    let cancel_url = p.some_text("cancel_url")?;
    for (name, url) in [("success_url", Some(&success_url)), ("cancel_url", cancel_url.as_ref())] {
        if url.is_some_and(|url| !is_url(url)) {
            return Err(StripeError::invalid("Not a valid URL").code("url_invalid").param(name));
        }
    }
    let (customer, email) = (p.some_text("customer")?, p.some_text("customer_email")?);
    if let Some(customer) = &customer {
        customers::living(s, customer, "customer")?;
        if email.is_some() {
            let message = "You may only specify one of these parameters: customer, customer_email.";
            return Err(StripeError::invalid(message).param("customer_email"));
        }
    }
    let creation = p.one_of("customer_creation", &["always", "if_required"])?;
    let reference = p.some_text("client_reference_id")?;
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    let (lines, prices) = lines(s, &mut p, mode)?;
    let mut order = Order { metadata: json!({}), ..Order::default() };
    details(s, &mut p, mode, &mut order)?;
    order.reduction = Reduction::take(s, &mut p)?;
    order.invoice = invoice_creation(&mut p, mode)?;
    let allow_codes = p.flag("allow_promotion_codes")?;
    if order.reduction.is_some() && allow_codes == Some(true) {
        let message = "You may only specify one of these parameters: allow_promotion_codes, discounts.";
        return Err(StripeError::invalid(message).param("allow_promotion_codes"));
    }
    let taxed = automatic_tax(&mut p)?.unwrap_or(false);
    let expires_at = p.int("expires_at")?.unwrap_or(s.now + DAY);
    if !(s.now + 30 * MINUTE..=s.now + DAY).contains(&expires_at) {
        let message =
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation";
        return Err(StripeError::invalid(message).param("expires_at"));
    }
    let wanted_currency = p.some_text("currency")?;
    p.without_effect(&LOOKS);
    p.done()?;

    // From here on nothing is refused.
    let currency = prices.first().map(|price| price.1.clone()).or(wanted_currency);
    let full: i64 = prices.iter().map(|(amount, _, quantity)| amount.saturating_mul(*quantity)).sum();
    let subtotal = if order.trial.is_some() { 0 } else { full };
    for (chosen, quantity) in lines {
        let price = match chosen {
            Chosen::Kept(id) => id,
            Chosen::Inline(inline) => inline.keep(s),
        };
        order.items.push(Ordered { id: s.id("li_"), price, quantity });
    }
    let id = s.new_id(Kind::Session);
    let discounts: Vec<Value> = order.reduction.iter().map(Reduction::to_json).collect();
    let mut session = with(
        "checkout.session",
        json!({
            "id": id, "created": s.now, "mode": mode, "success_url": success_url, "cancel_url": cancel_url,
            "customer": customer, "customer_email": email, "client_reference_id": reference, "metadata": metadata,
            "customer_creation": if customer.is_some() { None } else if mode == "payment" {
                Some(creation.unwrap_or("if_required")) } else { Some("always") },
            "currency": currency, "expires_at": expires_at, "allow_promotion_codes": allow_codes, "ui_mode": "hosted_page",
            "payment_status": if mode == "setup" { "no_payment_required" } else { "unpaid" }, "discounts": discounts,
            "url": format!("{}/_dev/stripe/checkout/{id}", s.settings.public_url),
            "payment_method_collection": if mode == "subscription" { Some("always") } else { None },
            "automatic_tax": {"enabled": taxed, "liability": if taxed { json!({"type": "self"}) } else { Value::Null },
                "provider": null, "status": if taxed { Some("requires_location_inputs") } else { None }},
        }),
    );
    if mode != "setup" {
        super::object::overlay(&mut session, amounts(s, subtotal, order.reduction.as_ref()));
    }
    s.orders.insert(id.clone(), order);
    s.put(Kind::Session, session.clone());
    Ok(session)
}

/// What a session costs after a reduction.
pub(super) fn amounts(s: &State, subtotal: i64, reduction: Option<&Reduction>) -> Value {
    let off = reduction.map_or(0, |reduction| reduction.of(s, subtotal));
    json!({"amount_subtotal": subtotal, "amount_total": subtotal - off,
           "total_details": {"amount_discount": off, "amount_shipping": 0, "amount_tax": 0}})
}

/// The lines of an order, and of each the price's amount, its currency, and the quantity.
#[allow(clippy::type_complexity, reason = "it is taken apart at once")]
fn lines(s: &State, p: &mut Params, mode: &str) -> Answer<(Vec<(Chosen, i64)>, Vec<(i64, String, i64)>)> {
    let groups = p.groups("line_items")?.unwrap_or_default();
    if groups.is_empty() != (mode == "setup") {
        let message = if mode == "setup" {
            "You can not pass `line_items` in `setup` mode."
        } else {
            "You must pass `line_items` in `payment` and `subscription` mode."
        };
        return Err(StripeError::invalid(message).param("line_items"));
    }
    let (mut lines, mut prices, mut recurring, mut kept) = (vec![], vec![], 0, vec![]);
    for mut group in groups {
        let quantity = group.int("quantity")?.ok_or_else(|| group.missing("quantity"))?;
        if !(1..=MOST).contains(&quantity) {
            let message = "Invalid integer: quantity must be from 1 to 999999";
            return Err(StripeError::invalid(message).param(group.name("quantity")));
        }
        let name = group.name("price");
        let (chosen, amount, currency, recurs) = match (group.some_text("price")?, group.group("price_data")?) {
            (Some(id), None) => {
                let price = s.referred(Kind::Price, &id, &name)?;
                if price["active"] != true {
                    let message =
                        format!("The price specified is inactive. This field only accepts active prices: {id}");
                    return Err(StripeError::invalid(message).param(name));
                }
                let (amount, currency) = (int(&price, "unit_amount"), text(&price, "currency").to_owned());
                let recurs = cycle(&price).is_some();
                if recurs {
                    kept.push(price);
                }
                (Chosen::Kept(id), amount, currency, recurs)
            }
            (None, Some(data)) => {
                let inline = Inline::take(s, data)?;
                let (amount, currency, recurs) = (inline.amount(), inline.currency().to_owned(), inline.recurs());
                (Chosen::Inline(inline), amount, currency, recurs)
            }
            _ => return Err(StripeError::invalid("A line item needs `price` or `price_data`").param(name)),
        };
        group.without_effect(&["adjustable_quantity"]);
        group.done()?;
        recurring += usize::from(recurs);
        lines.push((chosen, quantity));
        prices.push((amount, currency, quantity));
    }
    if mode == "payment" && recurring > 0 {
        let message = "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or \
                       use only one-time prices.";
        return Err(StripeError::invalid(message).param("line_items"));
    }
    if mode == "subscription" && recurring < lines.len() {
        let message = "The sandbox takes only recurring prices in `subscription` mode.";
        return Err(StripeError::invalid(message).param("line_items"));
    }
    if prices.windows(2).any(|pair| pair[0].1 != pair[1].1) {
        return Err(StripeError::invalid("All line items must have the same currency").param("line_items"));
    }
    one_cycle(kept.iter())?;
    Ok((lines, prices))
}

/// `subscription_data`, `payment_intent_data` or `setup_intent_data`, which go with one mode each.
fn details(s: &State, p: &mut Params, mode: &str, order: &mut Order) -> Answer<()> {
    for (name, of) in
        [("subscription_data", "subscription"), ("payment_intent_data", "payment"), ("setup_intent_data", "setup")]
    {
        let Some(mut data) = p.group(name)? else { continue };
        if mode != of {
            let message = format!("You can not pass `{name}` in `{mode}` mode.");
            return Err(StripeError::invalid(message).param(name));
        }
        data.metadata(&mut order.metadata)?;
        order.description = data.some_text("description")?;
        if of == "subscription" {
            let until = data.has("trial_end");
            order.trial =
                trial(&mut data, s.now)?.map(|end| if until { Trial::Until(end) } else { Trial::For(end - s.now) });
            if let Some(end) = order.trial.filter(|trial| matches!(trial, Trial::Until(end) if *end < s.now + 2 * DAY))
            {
                let message = format!("The `trial_end` date has to be at least 2 days in the future ({end:?})");
                return Err(StripeError::invalid(message).param("subscription_data[trial_end]"));
            }
            order.without_method = trial_settings(&mut data)?.map(str::to_owned);
            data.without_effect(&["billing_mode", "proration_behavior"]);
        }
        if of == "payment" {
            let usage = data.one_of("setup_future_usage", &["off_session", "on_session"])?;
            order.setup_future_usage = usage.map(str::to_owned);
            data.without_effect(&["receipt_email", "statement_descriptor", "statement_descriptor_suffix"]);
            data.one_of("capture_method", &["automatic", "automatic_async"])?;
        }
        data.done()?;
    }
    Ok(())
}

/// `invoice_creation`, which purchases have; subscriptions have invoices anyway.
fn invoice_creation(p: &mut Params, mode: &str) -> Answer<Option<Value>> {
    let Some(mut group) = p.group("invoice_creation")? else { return Ok(None) };
    let enabled = group.flag("enabled")?.ok_or_else(|| group.missing("enabled"))?;
    let mut metadata = json!({});
    if let Some(mut data) = group.group("invoice_data")? {
        data.metadata(&mut metadata)?;
        data.without_effect(&["description", "footer", "custom_fields", "rendering_options"]);
        data.done()?;
    }
    group.done()?;
    if enabled && mode != "payment" {
        let message = "You can only enable invoice creation when `mode` is set to `payment`.";
        return Err(StripeError::invalid(message).param("invoice_creation"));
    }
    Ok(enabled.then_some(metadata))
}

pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let status = p.one_of("status", &["open", "complete", "expired"])?;
    let filters: Vec<(&str, Option<String>)> = ["customer", "subscription", "payment_intent"]
        .into_iter()
        .map(|name| Ok((name, p.some_text(name)?)))
        .collect::<Answer<_>>()?;
    p.done()?;
    page(s, Kind::Session, &asked, "/v1/checkout/sessions", |session| {
        status.is_none_or(|status| text(session, "status") == status)
            && filters.iter().all(|(name, wanted)| wanted.as_deref().is_none_or(|wanted| text(session, name) == wanted))
    })
}

pub(super) fn line_items(s: &State, id: &str, mut p: Params) -> Answer {
    Page::take(&mut p)?;
    p.done()?;
    s.named(Kind::Session, id)?;
    Ok(line_items_of(s, id))
}

/// The lines of a session as a list object.
pub(super) fn line_items_of(s: &State, id: &str) -> Value {
    let items = s.orders.get(id).map(|order| order.items.as_slice()).unwrap_or_default();
    let items = items.iter().filter_map(|ordered| {
        let price = s.get(Kind::Price, &ordered.price)?;
        let amount = int(price, "unit_amount") * ordered.quantity;
        Some(with(
            "item",
            json!({"id": ordered.id, "price": price, "quantity": ordered.quantity, "currency": price["currency"],
                   "amount_subtotal": amount, "amount_total": amount, "description": product_name(s, price)}),
        ))
    });
    list_of(items.collect(), false, &format!("/v1/checkout/sessions/{id}/line_items"))
}

/// The session, when it waits for somebody.
pub(super) fn open(s: &State, id: &str, doing: &str) -> Answer {
    let session = s.named(Kind::Session, id)?;
    let status = text(&session, "status");
    if status != "open" {
        let message = format!(
            "Only Checkout Sessions with a status in [\"open\"] can be {doing}. This Checkout Session \
                               has a status of {status}."
        );
        return Err(StripeError::invalid(message));
    }
    Ok(session)
}

pub(super) fn expire(s: &mut State, id: &str, p: Params) -> Answer {
    p.done()?;
    open(s, id, "expired")?;
    expired(s, id);
    s.named(Kind::Session, id)
}

/// Nobody came.
pub(super) fn expired(s: &mut State, id: &str) {
    let changes = json!({"status": "expired", "url": null});
    s.change(Kind::Session, id, "checkout.session.expired", changes);
}

//! The customer portal: <https://docs.stripe.com/api/customer_portal/sessions>. Its page lets people cancel and resume.

use serde_json::{Value, json};

use super::{
    customers,
    error::{Answer, StripeError},
    object::{Kind, text, with},
    pages::is_url,
    params::Params,
    state::State,
    subscription_update, subscriptions,
};

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let customer = p.required("customer")?;
    let return_url = p.some_text("return_url")?;
    let configuration = p.some_text("configuration")?;
    p.without_effect(&["locale", "flow_data"]);
    p.done()?;
    customers::living(s, &customer, "customer")?;
    if return_url.as_deref().is_some_and(|url| !is_url(url)) {
        return Err(StripeError::invalid("Not a valid URL").code("url_invalid").param("return_url"));
    }
    let id = s.new_id(Kind::PortalSession);
    let url = format!("{}/_dev/stripe/portal/{id}", s.settings.public_url);
    let configuration = configuration.unwrap_or_else(|| "bpc_sandbox".to_owned());
    let session = json!({"id": id, "created": s.now, "customer": customer, "return_url": return_url, "url": url,
                         "configuration": configuration});
    s.put(Kind::PortalSession, with("billing_portal.session", session));
    s.named(Kind::PortalSession, &id)
}

/// Subscriptions that a portal session shows.
pub(super) fn subscriptions_of(s: &State, session: &str) -> Answer<Vec<Value>> {
    let session = s.named(Kind::PortalSession, session)?;
    let of_customer = |subscription: &&Value| {
        subscription["customer"] == session["customer"] && !subscriptions::is_over(subscription)
    };
    Ok(s.all(Kind::Subscription).filter(of_customer).cloned().collect())
}

/// Somebody clicks Cancel or Resume: the subscription ends with its period, or does not.
pub(super) fn set_ending(s: &mut State, session: &str, subscription: &str, ends: bool) -> Answer<()> {
    let shown = subscriptions_of(s, session)?;
    if !shown.iter().any(|shown| text(shown, "id") == subscription) {
        return Err(StripeError::not_found(Kind::Subscription, subscription));
    }
    let ends = serde_json::Map::from_iter([("cancel_at_period_end".to_owned(), json!(ends.to_string()))]);
    subscription_update::update(s, subscription, Params::new(ends)).map(drop)
}

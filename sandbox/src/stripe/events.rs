//! Events, and their deliveries: <https://docs.stripe.com/api/events>, <https://docs.stripe.com/webhooks>. An event
//! holds its object as it was when the event happened.

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    settings::API_VERSION,
    state::State,
};

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// Why something happens: by which request, or by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Cause {
    pub(super) request: Option<String>,
    pub(super) key: Option<String>,
}

/// A delivery that is due.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) event: String,
    /// How often it was tried.
    pub(super) attempts: usize,
    /// Not before this, in milliseconds of the clock.
    pub(super) due: i64,
}

/// A delivery of an event, ready to be sent: a POST of `body` with `headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDelivery {
    /// Id of the event.
    pub event: String,
    /// Its type, `invoice.paid`.
    pub kind: String,
    /// `Content-Type`, `User-Agent`, `Stripe-Signature`.
    pub headers: HeaderMap,
    /// The raw body: the event as JSON.
    pub body: String,
    pub(super) attempts: usize,
}

impl SignedDelivery {
    pub(super) fn new(event: &Value, attempts: usize, secret: &str, at: i64) -> Self {
        let body = serde_json::to_string_pretty(event).unwrap_or_default();
        let mut delivery = Self {
            event: text(event, "id").to_owned(),
            kind: text(event, "type").to_owned(),
            headers: HeaderMap::new(),
            body,
            attempts,
        };
        let (json, agent) = ("application/json; charset=utf-8", "Stripe/1.0 (+https://stripe.com/docs/webhooks)");
        delivery.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(json));
        delivery.headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        delivery.sign(secret, at);
        delivery
    }

    /// Signs at `at`, over what it was signed with before.
    pub(super) fn sign(&mut self, secret: &str, at: i64) {
        if let Ok(signature) = HeaderValue::from_str(&sign(&self.body, secret, at)) {
            self.headers.insert(SIGNATURE, signature);
        }
    }

    /// The header `Stripe-Signature`.
    #[must_use]
    pub fn signature(&self) -> &str {
        self.headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// `t=…,v1=…` over `t.body` with HMAC-SHA256: <https://docs.stripe.com/webhooks#verify-manually>.
pub(super) fn sign(body: &str, secret: &str, at: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", HEXLOWER.encode(tag.as_ref()))
}

impl State {
    /// Makes an event of `object` as it is now, and queues it.
    pub(super) fn emit(&mut self, kind: &str, object: Value, previous: Option<Map<String, Value>>) {
        let id = self.new_id(Kind::Event);
        let mut data = json!({ "object": object });
        if let Some(previous) = previous {
            data["previous_attributes"] = Value::Object(previous);
        }
        let event = json!({
            "id": id,
            "api_version": API_VERSION,
            "created": self.now,
            "data": data,
            "type": kind,
            "pending_webhooks": 1,
            "request": {"id": self.cause.request, "idempotency_key": self.cause.key},
        });
        self.put(Kind::Event, with("event", event));
        self.queue.push(Queued { event: id, attempts: 0, due: 0 });
    }

    /// Queues an event once more, whatever became of it.
    pub(super) fn repeat(&mut self, event: &str) -> Answer<()> {
        self.named(Kind::Event, event)?;
        self.queue.push(Queued { event: event.to_owned(), attempts: 0, due: 0 });
        Ok(())
    }

    /// The endpoint took an event.
    pub(super) fn delivered(&mut self, event: &str) {
        self.set(Kind::Event, event, json!({ "pending_webhooks": 0 }));
    }
}

/// `GET /v1/events`
pub(super) fn list(s: &State, mut p: Params) -> Answer {
    let page_asked = Page::take(&mut p)?;
    let mut types = p.texts("types")?;
    if let Some(kind) = p.some_text("type")? {
        if types.is_some() {
            return Err(
                StripeError::invalid("You may only specify one of these parameters: type, types.").param("types")
            );
        }
        types = Some(vec![kind]);
    }
    let success = p.flag("delivery_success")?;
    p.done()?;
    let of_type = |kind: &str| {
        types.as_ref().is_none_or(|types| {
            types
                .iter()
                .any(|wanted| wanted == kind || wanted.strip_suffix('*').is_some_and(|start| kind.starts_with(start)))
        })
    };
    page(s, Kind::Event, &page_asked, "/v1/events", |event| {
        of_type(text(event, "type")) && success.is_none_or(|success| (int(event, "pending_webhooks") == 0) == success)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_hmacs_of_time_and_body() {
        // Made with `printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test`.
        let signed = sign("{}", "whsec_test", 1_700_000_000);
        assert_eq!(signed, "t=1700000000,v1=35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91");
    }
}

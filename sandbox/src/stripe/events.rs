//! Events, and their deliveries: <https://docs.stripe.com/api/events>, <https://docs.stripe.com/webhooks>. An event
//! holds its object as it was when the event happened.

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    settings::{API_VERSION, Endpoint},
    state::State,
};

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
    /// Position among the endpoints.
    pub(super) endpoint: usize,
    /// How often it was tried.
    pub(super) attempts: usize,
    /// Not before this, in milliseconds of the clock.
    pub(super) due: i64,
}

/// A delivery of an event to an endpoint, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Id of the event.
    pub event: String,
    /// Its type, `invoice.paid`.
    pub kind: String,
    /// Where it goes.
    pub url: String,
    /// The raw body: the event as JSON.
    pub body: String,
    /// The header `Stripe-Signature`.
    pub signature: String,
    pub(super) endpoint: usize,
    pub(super) attempts: usize,
}

/// `t=…,v1=…` over `t.body` with HMAC-SHA256: <https://docs.stripe.com/webhooks#verify-manually>.
pub(super) fn sign(body: &str, secret: &str, at: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", HEXLOWER.encode(tag.as_ref()))
}

fn wants(endpoint: &Endpoint, kind: &str) -> bool {
    endpoint.events.iter().any(|wanted| wanted == "*" || wanted == kind)
}

impl State {
    /// Makes an event of `object` as it is now. Who gets it is decided by [`address`](Self::address).
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
            "pending_webhooks": 0,
            "request": {"id": self.cause.request, "idempotency_key": self.cause.key},
        });
        self.put(Kind::Event, with("event", event));
        self.fresh.push(id);
    }

    /// Queues the events that are new for every endpoint that wants them.
    pub(super) fn address(&mut self, endpoints: &[Endpoint]) {
        for event in std::mem::take(&mut self.fresh) {
            let Some(kind) = self.get(Kind::Event, &event).map(|event| text(event, "type").to_owned()) else {
                continue;
            };
            let wanting = endpoints.iter().enumerate().filter(|(_, endpoint)| wants(endpoint, &kind));
            let queued: Vec<_> =
                wanting.map(|(endpoint, _)| Queued { event: event.clone(), endpoint, attempts: 0, due: 0 }).collect();
            self.set(Kind::Event, &event, json!({ "pending_webhooks": queued.len() }));
            self.queue.extend(queued);
        }
    }

    /// Queues an event once more, whatever became of it.
    pub(super) fn repeat(&mut self, event: &str, endpoints: &[Endpoint]) -> Answer<()> {
        let kind = text(&self.named(Kind::Event, event)?, "type").to_owned();
        let wanting = endpoints.iter().enumerate().filter(|(_, endpoint)| wants(endpoint, &kind));
        let queued = wanting.map(|(endpoint, _)| Queued { event: event.to_owned(), endpoint, attempts: 0, due: 0 });
        self.queue.extend(queued);
        Ok(())
    }

    /// Makes a delivery of what is queued, signed at `at`.
    pub(super) fn delivery(&self, queued: &Queued, endpoints: &[Endpoint], at: i64) -> Option<Delivery> {
        let endpoint = endpoints.get(queued.endpoint)?;
        let event = self.get(Kind::Event, &queued.event)?;
        let body = serde_json::to_string_pretty(event).ok()?;
        Some(Delivery {
            event: queued.event.clone(),
            kind: text(event, "type").to_owned(),
            url: endpoint.url.clone(),
            signature: sign(&body, &endpoint.secret, at),
            body,
            endpoint: queued.endpoint,
            attempts: queued.attempts,
        })
    }

    /// An endpoint took an event: one delivery less to make.
    pub(super) fn delivered(&mut self, event: &str) {
        let left = self.get(Kind::Event, event).map_or(0, |event| int(event, "pending_webhooks"));
        self.set(Kind::Event, event, json!({ "pending_webhooks": (left - 1).max(0) }));
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

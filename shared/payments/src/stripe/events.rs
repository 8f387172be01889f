//! Events: what Stripe says has happened (<https://docs.stripe.com/api/events>).
//!
//! An event is a hint. It may come twice, late and in any order, and what it holds is how the object stood then: ask for
//! the object before acting. Whoever consumes events decides by the object, not by a list of types: a type that is newer
//! than this program and is about a subscription is still about a subscription.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use stripe_core::event::{ListEvent, RetrieveEvent};
use stripe_types::RangeQueryTs;
use tenantry_domain::Millis;

use super::{
    Charge, CheckoutSession, Customer, Dispute, Invoice, InvoicePayment, Page, PaymentIntent, PaymentMethod, Refund,
    SetupIntent, Stripe, StripeError, Subscription,
    wire::{self, Listed, path_id, seconds},
};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`; the same however often it is delivered.
    pub id: String,
    /// `invoice.paid`
    pub kind: String,
    /// When it happened, to the second: not enough to tell which of two is newer.
    pub created: Millis,
    /// Whether it is about real money.
    pub livemode: bool,
    /// The version of the API in whose form the object is.
    pub api_version: Option<String>,
    /// How the object stood.
    pub object: EventObject,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventObject {
    /// `checkout.session.*`
    CheckoutSession(Box<CheckoutSession>),
    /// `customer.subscription.*`
    Subscription(Box<Subscription>),
    /// `invoice.*`
    Invoice(Box<Invoice>),
    /// `invoice_payment.*`
    InvoicePayment(Box<InvoicePayment>),
    /// `charge.*`
    Charge(Box<Charge>),
    /// `refund.*`, `charge.refund.updated`
    Refund(Box<Refund>),
    /// `charge.dispute.*`
    Dispute(Box<Dispute>),
    /// `payment_intent.*`
    PaymentIntent(Box<PaymentIntent>),
    /// `payment_method.*`
    PaymentMethod(Box<PaymentMethod>),
    /// `setup_intent.*`
    SetupIntent(Box<SetupIntent>),
    /// `customer.created|updated|deleted`
    Customer(Box<Customer>),
    /// Something that billing does not look at.
    Other {
        /// What it is.
        object: Option<String>,
        /// Which one.
        id: Option<String>,
    },
}

/// What was delivered, rightly signed or asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// An event.
    Event(Box<Event>),
    /// An event that cannot be read: of an older version of the API, or not what is documented. To be kept, and somebody
    /// told; to refuse it would only have it delivered again.
    Unreadable(Unreadable),
}

/// What is known of an event that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unreadable {
    /// `evt_…`
    pub id: Option<String>,
    /// `invoice.paid`
    pub kind: Option<String>,
    /// The version of the API in whose form it is.
    pub api_version: Option<String>,
    /// What was wrong, without what stood there.
    pub why: String,
}

impl Delivery {
    /// The event's id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Event(event) => Some(&event.id),
            Self::Unreadable(unreadable) => unreadable.id.as_deref(),
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "wire::millis")]
    created: Millis,
    livemode: bool,
    #[serde(default)]
    api_version: Option<String>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What an object says of itself.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Tag {
    object: Option<String>,
    id: Option<String>,
}

/// As much of a broken event as names it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Name {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    api_version: Option<String>,
}

/// The event in `payload`.
pub(super) fn parse(payload: &[u8]) -> Delivery {
    let read = wire::read::<Envelope<'_>>(payload).and_then(|envelope| {
        Ok(Event {
            object: object(&envelope.kind, envelope.data.object.get().as_bytes())?,
            id: envelope.id,
            kind: envelope.kind,
            created: envelope.created,
            livemode: envelope.livemode,
            api_version: envelope.api_version,
        })
    });
    match read {
        Ok(event) => Delivery::Event(Box::new(event)),
        Err(why) => {
            let name: Name = serde_json::from_slice(payload).unwrap_or_default();
            Delivery::Unreadable(Unreadable { id: name.id, kind: name.kind, api_version: name.api_version, why })
        }
    }
}

fn object(kind: &str, json: &[u8]) -> Result<EventObject, String> {
    fn boxed<T: DeserializeOwned>(json: &[u8]) -> Result<Box<T>, String> {
        wire::read(json).map(Box::new)
    }
    if json.first() != Some(&b'{') {
        return Err("what it is about is no object".to_owned());
    }
    let tag: Tag = wire::read(json)?;
    Ok(match tag.object.as_deref() {
        Some("checkout.session") => EventObject::CheckoutSession(boxed(json)?),
        Some("subscription") => EventObject::Subscription(boxed(json)?),
        // It is yet to be made: it has no id, and nothing can be asked of it.
        Some("invoice") if kind == "invoice.upcoming" => EventObject::Other { object: tag.object, id: tag.id },
        Some("invoice") => EventObject::Invoice(boxed(json)?),
        Some("invoice_payment") => EventObject::InvoicePayment(boxed(json)?),
        Some("charge") => EventObject::Charge(boxed(json)?),
        Some("refund") => EventObject::Refund(boxed(json)?),
        Some("dispute") => EventObject::Dispute(boxed(json)?),
        Some("payment_intent") => EventObject::PaymentIntent(boxed(json)?),
        Some("payment_method") => EventObject::PaymentMethod(boxed(json)?),
        Some("setup_intent") => EventObject::SetupIntent(boxed(json)?),
        Some("customer") => EventObject::Customer(boxed(json)?),
        _ => EventObject::Other { object: tag.object, id: tag.id },
    })
}

impl Stripe {
    /// A page of the events since `since` that some webhook endpoint has not taken, newest first: a hundred after the one
    /// called `after`. Stripe keeps events for 30 days. They are in the form of the version of the API that the account
    /// had then, so each is read alone, and may be [`Delivery::Unreadable`].
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn undelivered_events(&self, since: Millis, after: Option<&str>) -> Result<Page<Delivery>, StripeError> {
        let mut request =
            ListEvent::new().delivery_success(false).created(RangeQueryTs::gte(seconds(since))).limit(100);
        if let Some(after) = after {
            request = request.starting_after(after);
        }
        let listed = self.get::<Listed<Box<RawValue>>>(request).await?;
        let data = listed.data.iter().map(|event| parse(event.get().as_bytes())).collect();
        Listed { data, has_more: listed.has_more }.page(Delivery::id)
    }

    /// An event of the last 30 days.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn event(&self, id: &str) -> Result<Delivery, StripeError> {
        let event: Box<RawValue> = self.get(RetrieveEvent::new(path_id("event", id)?)).await?;
        Ok(parse(event.get().as_bytes()))
    }
}

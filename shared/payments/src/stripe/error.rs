//! How a call to Stripe fails.

use std::fmt;

use serde::Deserialize;

use super::wire;

/// Why a call to Stripe gave no result. Neither `Debug` nor `Display` shows Stripe's message, which may quote what a
/// customer typed.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// Stripe said no: nothing was charged, refunded or changed. To ask again in the same way is useless.
    #[error("Stripe refused: {0}")]
    Refused(Box<Refusal>),
    /// No answer, or one that says to come back. A write **may have been applied**: it may be tried again with the same
    /// [`OperationKey`](super::OperationKey), and with no other.
    #[error("Stripe is unavailable: {0}")]
    Unavailable(String),
    /// An answer that is not what Stripe documents for the pinned version. A write may have been applied.
    #[error("Stripe's answer was not understood: {0}")]
    Malformed(String),
}

impl StripeError {
    /// The refusal, when Stripe said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unavailable(_) | Self::Malformed(_) => None,
        }
    }

    /// Whether the same may go well later, with the same [`OperationKey`](super::OperationKey).
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the thing that was asked for does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code.as_deref() == Some("resource_missing"))
    }
}

/// What Stripe says when it says no (<https://docs.stripe.com/api/errors>).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status: 400 wrong, 401 and 403 our key, 402 the card, 404 missing.
    pub status: u16,
    /// Stripe's `type`: `card_error`, `invalid_request_error`, `idempotency_error` (the key was used for another request).
    pub kind: Option<String>,
    /// A stable word, `card_declined` (<https://docs.stripe.com/error-codes>).
    pub code: Option<String>,
    /// Why the bank declined, `insufficient_funds` (<https://docs.stripe.com/declines/codes>).
    pub decline_code: Option<String>,
    /// For people. Only that of a `card_error` may be shown to a customer.
    pub message: Option<String>,
    /// The parameter that is wrong.
    pub param: Option<String>,
    /// The payment that was declined, or that its owner must confirm.
    pub payment_intent: Option<String>,
    /// What Stripe's support asks for.
    pub request_id: Option<String>,
}

impl Refusal {
    /// Reads an error body; whatever of it is there. `conceal` never gets into the message.
    pub(super) fn read(status: u16, body: &[u8], request_id: Option<String>, conceal: &str) -> Self {
        // A proxy's page of HTML is a refusal without words.
        let error = serde_json::from_slice::<Body>(body).unwrap_or_default().error;
        Self {
            status,
            kind: error.kind,
            code: error.code,
            decline_code: error.decline_code,
            message: error.message.map(|message| message.replace(conceal, "…")),
            param: error.param,
            payment_intent: error.payment_intent,
            request_id,
        }
    }

    /// The refusal of an id that cannot be one: Stripe is not asked, because ids stand in paths.
    pub(super) fn missing(param: &'static str) -> Self {
        Self {
            status: 404,
            kind: Some("invalid_request_error".to_owned()),
            code: Some("resource_missing".to_owned()),
            param: Some(param.to_owned()),
            ..Self::default()
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let named = [
            ("type", &self.kind),
            ("code", &self.code),
            ("decline_code", &self.decline_code),
            ("param", &self.param),
            ("request_id", &self.request_id),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusal({self})")
    }
}

#[derive(Default, Deserialize)]
struct Body {
    error: Fields,
}

#[derive(Default, Deserialize)]
struct Fields {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    param: Option<String>,
    #[serde(default, deserialize_with = "wire::opt_id")]
    payment_intent: Option<String>,
}

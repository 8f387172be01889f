//! Money in answers.

use serde::Serialize;
use utoipa::ToSchema;

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Money {
    /// In minor units of the currency: cents, fen. Negative where it is given back.
    #[schema(example = 1900)]
    pub(crate) amount: i64,
    /// ISO 4217, in lower case.
    #[schema(example = "usd")]
    pub(crate) currency: String,
}

impl Money {
    pub(crate) fn new(amount: i64, currency: &str) -> Self {
        Self { amount, currency: currency.to_owned() }
    }

    /// An amount of the catalogue or of an order, whose limits are far below what fits.
    pub(crate) fn of(amount: u64, currency: &str) -> Self {
        Self::new(i64::try_from(amount).unwrap_or(i64::MAX), currency)
    }
}

//! Packages of credits, what goes back of them with their money, and what names and prices of the catalogue may be.

use serde::{Deserialize, Serialize};

/// 1,000,000 dollars or yuan, and far from where sums overflow.
const LARGEST_PRICE: u64 = 100_000_000;

/// A hundred thousand million credits; sums of them stay far below 2^63 micro-credits.
pub(super) const LARGEST_CREDITS: u64 = 100_000_000_000_000_000;

pub(super) fn is_word(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    !id.is_empty() && id.len() <= 32 && id.chars().all(fits)
}

pub(super) fn are_prices(prices: &[Option<u64>]) -> bool {
    prices.iter().flatten().all(|price| (1..=LARGEST_PRICE).contains(price))
}

/// Names stand on vendors' pages, whose own rules are: no control characters, no `/`, `=`, `&`.
pub(super) fn is_name(name: &str) -> bool {
    let unfit = |c: char| c.is_control() || matches!(c, '/' | '=' | '&');
    !name.trim().is_empty() && name.chars().count() <= 100 && !name.contains(unfit)
}

/// Prices of a package in minor units; absent where it is not sold in that currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PackagePrice {
    /// US cents.
    pub usd: Option<u64>,
    /// Fen.
    pub cny: Option<u64>,
}

/// Credits that are bought once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Stable word, `small`.
    pub id: String,
    /// Name for people, also on the vendor's page.
    pub name: String,
    /// Micro-credits.
    pub credits: u64,
    /// How long after the payment they can be used; for ever when absent.
    pub expires_after_days: Option<u32>,
    /// What it costs.
    pub price: PackagePrice,
}

/// The part of `credits` that is taken back when `refunded` of the `amount` that they cost went back, all refunds
/// together. Rounded down, in the customer's favour; all of the money is all of the credits, more is not more.
#[must_use]
pub fn credits_back(credits: u64, amount: u64, refunded: u64) -> u64 {
    pro_rata(credits, amount, refunded)
}

/// `part` of `all`, as a part of `whole`, rounded down. Nothing of what cost nothing.
#[must_use]
pub fn pro_rata(whole: u64, all: u64, part: u64) -> u64 {
    let share = (u128::from(whole) * u128::from(part.min(all))).checked_div(u128::from(all)).unwrap_or(0);
    u64::try_from(share).unwrap_or(whole)
}

impl Package {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !is_word(&self.id) {
            return Err("id must be 1 to 32 lower-case letters, digits, _ or -");
        }
        if !is_name(&self.name) {
            return Err("name must be 1 to 100 characters without /, =, & and control characters");
        }
        if !(1..=LARGEST_CREDITS).contains(&self.credits) {
            return Err("credits must be 1 to 100000000000000000 micro-credits");
        }
        if self.expires_after_days.is_some_and(|days| !(1..=36_500).contains(&days)) {
            return Err("expires_after_days must be 1 to 36500; leave it out where they do not expire");
        }
        if !are_prices(&[self.price.usd, self.price.cny]) || self.price == PackagePrice::default() {
            return Err("price must have usd or cny, or both, of 1 to 100000000 cents or fen");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_is_the_part_that_was_paid_back() {
        for (credits, amount, refunded, back) in [
            (1_000, 300, 0, 0),
            (1_000, 300, 100, 333),
            (1_000, 300, 299, 996),
            (1_000, 300, 300, 1_000),
            (1_000, 300, 900, 1_000),
            (1_000, 0, 5, 0),
            (u64::MAX, u64::MAX, u64::MAX - 1, u64::MAX - 1),
        ] {
            assert_eq!(credits_back(credits, amount, refunded), back, "{refunded} of {amount} for {credits}");
        }
    }
}

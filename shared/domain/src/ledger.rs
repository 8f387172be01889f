//! The ledger of credits: what changed them, and which of them are left.
//!
//! Usage has no rows here: its rows are the usage records, which say what credits each request was charged. So the balance
//! is the sum of the ledger's rows less the credits of all records and of the requests in flight.

use serde::{Deserialize, Serialize};

use crate::{ids::LedgerId, time::Millis};

/// Why credits changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerKind {
    /// A package was paid for.
    Purchase,
    /// They came with a plan, or as a present.
    Grant,
    /// Money went back to the customer, and with it what it had bought.
    Refund,
    /// A payment was taken back by the customer's bank.
    Clawback,
    /// The operator set something right.
    Adjustment,
    /// Their time was over.
    Expiry,
}

impl LedgerKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Purchase, Self::Grant, Self::Refund, Self::Clawback, Self::Adjustment, Self::Expiry];

    /// The word in answers and stored items.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Grant => "grant",
            Self::Refund => "refund",
            Self::Clawback => "clawback",
            Self::Adjustment => "adjustment",
            Self::Expiry => "expiry",
        }
    }
}

/// A row of the ledger. Rows are never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// Its name.
    pub id: LedgerId,
    /// When.
    pub at: Millis,
    /// Why.
    pub kind: LedgerKind,
    /// Micro-credits added, or taken when negative.
    pub amount: i64,
    /// Micro-credits that were to be taken and were not there any more.
    pub short: u64,
    /// The balance just before, with what requests in flight held; of use to [`lots`] alone.
    pub before: u64,
    /// What it came from: an order, an invoice, a payment.
    pub reference: Option<String>,
    /// When what it added expires.
    pub expires_at: Option<Millis>,
}

/// Credits of one row that are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// The row that added them.
    pub id: LedgerId,
    /// Where they came from.
    pub reference: Option<String>,
    /// When they expire.
    pub expires_at: Option<Millis>,
    /// How many micro-credits are left of it.
    pub left: u64,
}

/// Which credits are left, by `rows` from the oldest on and the `balance` now, with what requests in flight hold. What
/// expires first is used first, what never expires last; what is taken back comes from what it was bought by as far as
/// that is there.
#[must_use]
pub fn lots(rows: &[LedgerRow], balance: u64) -> Vec<Lot> {
    let mut lots: Vec<Lot> = vec![];
    for row in rows {
        use_down_to(&mut lots, row.before);
        if let Ok(amount) = u64::try_from(row.amount) {
            let (id, reference) = (row.id.clone(), row.reference.clone());
            lots.push(Lot { id, reference, expires_at: row.expires_at, left: amount });
            continue;
        }
        let mut rest = row.amount.unsigned_abs();
        for lot in lots.iter_mut().filter(|lot| row.reference.is_some() && lot.reference == row.reference) {
            let taken = lot.left.min(rest);
            (lot.left, rest) = (lot.left - taken, rest - taken);
        }
        let total = total(&lots);
        use_down_to(&mut lots, total.saturating_sub(rest));
    }
    use_down_to(&mut lots, balance);
    lots.retain(|lot| lot.left > 0);
    lots
}

fn total(lots: &[Lot]) -> u64 {
    lots.iter().fold(0, |sum, lot| sum.saturating_add(lot.left))
}

fn use_down_to(lots: &mut [Lot], balance: u64) {
    let mut used = total(lots).saturating_sub(balance);
    // Stable: of two that expire together the older one goes first.
    let mut order: Vec<_> = lots.iter_mut().collect();
    order.sort_by_key(|lot| lot.expires_at.unwrap_or(Millis::MAX));
    for lot in order {
        let taken = lot.left.min(used);
        (lot.left, used) = (lot.left - taken, used - taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(amount: i64, before: u64, reference: &str, expires_at: Option<Millis>) -> LedgerRow {
        LedgerRow {
            id: LedgerId::new(),
            at: 0,
            kind: LedgerKind::Purchase,
            amount,
            short: 0,
            before,
            reference: Some(reference.to_owned()),
            expires_at,
        }
    }

    fn left(rows: &[LedgerRow], balance: u64) -> Vec<(String, u64)> {
        lots(rows, balance).into_iter().map(|lot| (lot.reference.unwrap_or_default(), lot.left)).collect()
    }

    #[test]
    fn what_expires_first_is_used_first() {
        let rows = [row(100, 0, "bought", None), row(50, 100, "later", Some(20)), row(30, 150, "soon", Some(10))];
        assert_eq!(left(&rows, 180), [("bought".into(), 100), ("later".into(), 50), ("soon".into(), 30)]);
        assert_eq!(left(&rows, 160), [("bought".into(), 100), ("later".into(), 50), ("soon".into(), 10)]);
        assert_eq!(left(&rows, 120), [("bought".into(), 100), ("later".into(), 20)]);
        assert_eq!(left(&rows, 40), [("bought".into(), 40)]);
        assert_eq!(left(&rows, 0), []);
    }

    #[test]
    fn what_was_used_before_a_grant_is_not_taken_from_it() {
        let rows = [row(100, 0, "bought", None), row(50, 40, "grant", Some(10))];
        assert_eq!(left(&rows, 90), [("bought".into(), 40), ("grant".into(), 50)]);
        assert_eq!(left(&rows, 60), [("bought".into(), 40), ("grant".into(), 20)]);
    }

    #[test]
    fn what_is_taken_back_comes_from_what_it_had_bought_and_then_from_the_rest() {
        let rows = [row(100, 0, "a", None), row(100, 100, "b", None), row(-60, 200, "a", None)];
        assert_eq!(left(&rows, 140), [("a".into(), 40), ("b".into(), 100)]);
        let rows = [row(100, 0, "a", None), row(100, 20, "b", None), row(-100, 120, "a", None)];
        assert_eq!(
            left(&rows, 20),
            [("b".into(), 20)],
            "80 of a had been used; a row that takes them takes them from b"
        );
    }
}

//! What both doubles write down: orders, payments and refunds. What is allowed differs; see the vendors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenantry_domain::Millis;

use super::{Faults, Refusal, Vendor, time::compact};

/// The codes of both vendors can be scanned for two hours.
const CODE_MILLIS: Millis = 2 * 3_600_000;

/// An order.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) number: String,
    pub(super) description: String,
    /// In fen.
    pub(super) amount: u64,
    pub(super) expires_at: Option<Millis>,
    pub(super) notify_url: Option<String>,
    /// Where the shop wants the payer back.
    pub(super) return_url: Option<String>,
    pub(super) code_until: Millis,
    /// The vendor's number, from the moment when the payer has looked.
    pub(super) trade: Option<(String, Millis)>,
    pub(super) paid_at: Option<Millis>,
    pub(super) closed: bool,
    pub(super) refunds: Vec<Refund>,
}

/// A refund.
#[derive(Debug, Clone)]
pub(super) struct Refund {
    pub(super) number: String,
    /// The vendor's number.
    pub(super) id: String,
    pub(super) amount: u64,
    pub(super) made_at: Millis,
    pub(super) outcome: RefundOutcome,
    pub(super) ended_at: Option<Millis>,
    pub(super) notify_url: Option<String>,
}

/// What becomes of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundOutcome {
    /// The money goes back.
    #[default]
    Success,
    /// Nothing yet.
    Processing,
    /// The payer's account does not take it.
    Abnormal,
    /// It does not happen.
    Closed,
}

impl Order {
    pub(super) fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| now >= at)
    }

    /// Can it be paid now?
    pub(super) fn payable(&self, now: Millis) -> Result<(), Refusal> {
        if self.paid_at.is_some() {
            return Err(Refusal("It is already paid."));
        }
        if self.closed {
            return Err(Refusal("The order is closed."));
        }
        if self.is_expired(now) {
            return Err(Refusal("The order has expired."));
        }
        if self.trade.is_none() && now >= self.code_until {
            return Err(Refusal("The code has expired; the shop has to make another one."));
        }
        Ok(())
    }

    /// What all refunds give back that have not failed.
    pub(super) fn refunded(&self) -> u64 {
        let counted = self.refunds.iter().filter(|refund| refund.outcome != RefundOutcome::Closed);
        counted.map(|refund| refund.amount).sum()
    }
}

/// All orders of a vendor by number.
#[derive(Debug, Default)]
pub(super) struct Book {
    orders: BTreeMap<String, Order>,
    counter: u64,
}

impl Book {
    pub(super) fn get(&self, number: &str) -> Option<&Order> {
        self.orders.get(number)
    }

    pub(super) fn get_mut(&mut self, number: &str) -> Option<&mut Order> {
        self.orders.get_mut(number)
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.values()
    }

    pub(super) fn orders_mut(&mut self) -> impl Iterator<Item = &mut Order> {
        self.orders.values_mut()
    }

    pub(super) fn put(&mut self, order: Order) {
        self.orders.insert(order.number.clone(), order);
    }

    /// A number of the vendor's own: a prefix, the time and a count, so that the same test gets the same numbers.
    pub(super) fn number(&mut self, prefix: &str, now: Millis) -> String {
        self.counter += 1;
        format!("{prefix}{}{:010}", compact(now), self.counter)
    }

    /// The payer looks at an order: it gets the vendor's number.
    pub(super) fn scan(&mut self, number: &str, prefix: &str, now: Millis) -> Result<&mut Order, Refusal> {
        let trade = self.number(prefix, now);
        let order = self.orders.get_mut(number).ok_or(Refusal("There is no such order here."))?;
        order.payable(now)?;
        order.trade.get_or_insert((trade, now));
        Ok(order)
    }
}

/// When a code made now can no longer be scanned.
pub(super) const fn code_until(now: Millis) -> Millis {
    now + CODE_MILLIS
}

/// What a page shows of an order.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bill {
    pub(super) order: String,
    pub(super) description: String,
    /// In fen.
    pub(super) amount: u64,
    /// In fen.
    pub(super) refunded: u64,
    /// In the vendor's words.
    pub(super) state: &'static str,
    pub(super) payable: bool,
    pub(super) return_url: Option<String>,
}

/// A vendor as its page and its controls see it.
pub(super) trait Desk: Send + Sync + 'static {
    fn vendor(&self) -> Vendor;
    fn bills(&self) -> Vec<Bill>;
    fn bill(&self, order: &str) -> Option<Bill>;
    /// The payer looks at it.
    fn scan(&self, order: &str) -> Result<(), Refusal>;
    /// Answers with the vendor's number of the payment.
    fn pay(&self, order: &str) -> Result<String, Refusal>;
    fn decline(&self, order: &str) -> Result<(), Refusal>;
    fn faults(&self) -> &Faults;
}

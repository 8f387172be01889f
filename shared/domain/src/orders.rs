//! Orders: something that is paid for once, a package of credits or months of a plan.
//!
//! What vendors tell of an order comes twice, late and in any order. So an order keeps what it was told, each [`Fact`]
//! joined to the others such that neither their order nor their number matters, and its [`OrderState`] is read off.
//! **A payment that arrives for a closed order makes it paid, and what was ordered is given**: the money was taken.

use std::collections::BTreeMap;

use crate::{
    ids::{OrderId, UserId},
    plans::{Package, pro_rata},
    time::Millis,
};

/// Who takes the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Stripe.
    Stripe,
    /// WeChat Pay.
    WeChat,
    /// Alipay.
    Alipay,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stripe, Self::WeChat, Self::Alipay];

    /// The word in routes, answers and stored items.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::WeChat => "wechat",
            Self::Alipay => "alipay",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }
}

/// What was ordered, as the catalogue described it then: what it says later changes nothing about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goods {
    /// A package of credits.
    Package {
        /// The package.
        id: String,
        /// Micro-credits.
        credits: u64,
        /// How long after the payment they can be used; for ever when none.
        expires_after_days: Option<u32>,
    },
    /// Months of a plan.
    Months {
        /// The plan.
        plan: String,
        /// How many.
        months: u32,
    },
}

impl Goods {
    /// A package as it is sold now.
    #[must_use]
    pub fn of(package: &Package) -> Self {
        let Package { id, credits, expires_after_days, .. } = package.clone();
        Self::Package { id, credits, expires_after_days }
    }
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderState {
    /// The vendor was not reached yet.
    Created,
    /// It waits for the payer.
    Pending,
    /// It is paid.
    Paid,
    /// It was not paid in time, or called off.
    Closed,
    /// The vendor did not take it.
    Failed,
    /// A part of the money went back.
    PartiallyRefunded,
    /// All of the money went back.
    Refunded,
}

impl OrderState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Created, Self::Pending, Self::Paid, Self::Closed, Self::Failed, Self::PartiallyRefunded, Self::Refunded];

    /// The word in answers and stored items.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
        }
    }

    /// Whether it waits for a payment.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Created | Self::Pending)
    }
}

/// Something that was found out about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The vendor knows it, and the payer can be sent there.
    Opened {
        /// The vendor's id of it, where it has one before it is paid.
        vendor_id: Option<String>,
        /// What the payer is shown: an address, or the text of a QR code.
        show: String,
    },
    /// It was paid, with its amount, in its currency, to us: whoever says so has checked that.
    Paid {
        /// The vendor's id of the payment.
        payment: String,
        /// When.
        at: Millis,
    },
    /// It was not paid, and is not waited for any more.
    Closed,
    /// The vendor did not take it.
    Failed,
    /// One refund was made.
    Refund {
        /// Which one; the same is counted once.
        number: String,
        /// What it gave back, in minor units.
        amount: u64,
    },
    /// All refunds together have given back this much, in minor units. A smaller total is an older one.
    RefundedTo {
        /// The total.
        total: u64,
    },
}

/// How an order ended that nobody paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpaid {
    /// See [`OrderState::Closed`].
    Closed,
    /// See [`OrderState::Failed`].
    Failed,
}

/// A payment, as far as an order remembers it. Of several the earliest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Paid {
    /// When.
    pub at: Millis,
    /// The vendor's id of it.
    pub payment: String,
}

/// A refund that we have begun: decided on, perhaps asked for, its end not known. There is one at a time, so that two
/// people who refund at the same moment do not both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundBegun {
    /// Which one of the order's, from 1 on: the vendor refunds once for the same number.
    pub number: u32,
    /// What it gives back, in minor units.
    pub amount: u64,
    /// Whether it gives back all that is left at the vendor, whatever we know of that; else exactly the amount.
    pub all: bool,
    /// What all refunds have given back with it.
    pub total: u64,
    /// What the payer reads.
    pub reason: String,
}

/// A refund that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundWanted<'a> {
    /// What whoever wants it calls it. The same name of the same order is the same refund, however often it is asked for.
    pub operation: &'a str,
    /// What is to go back, in minor units; all that is left when none.
    pub amount: Option<u64>,
    /// What the payer reads.
    pub reason: &'a str,
}

/// A refund that was begun under a name, for as long as its order is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundAsked {
    /// Which one of the order's.
    pub number: u32,
    /// What it gives back, in minor units.
    pub amount: u64,
    /// How it ended, once it has.
    pub end: Option<RefundEnd>,
}

/// How a refund ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundEnd {
    /// The vendor gave the money back.
    Made,
    /// The vendor said no: nothing went back, and nothing will.
    Refused,
}

/// Why a refund is not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRefund {
    /// There is nothing to give back.
    #[error("the order is not paid")]
    NotPaid,
    /// There is nothing left to give back.
    #[error("all of the order's money has gone back")]
    AllBack,
    /// There is not so much left.
    #[error("only {left} of the order's money are left to refund")]
    TooMuch {
        /// What is, in minor units.
        left: u64,
    },
    /// One refund of an order is under way at a time.
    #[error("another refund of this order is under way, of {amount}")]
    Busy {
        /// What it gives back, in minor units.
        amount: u64,
    },
    /// The name is taken.
    #[error("that is the name of a refund of {amount}")]
    OtherAmount {
        /// What that gives back, in minor units.
        amount: u64,
    },
    /// The refund of this name was begun, and the vendor said no.
    #[error("the vendor has refused the refund of that name")]
    Refused,
}

/// An order to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Its name.
    pub id: OrderId,
    /// Who takes the money.
    pub provider: Provider,
    /// What is ordered.
    pub goods: Goods,
    /// What it costs, in minor units.
    pub amount: u64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How long the payer has.
    pub expires_at: Millis,
    /// Who orders it.
    pub created_by: UserId,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name; also our number of it at the vendor: it has the 6 to 32 letters, digits and `_` that all of them take.
    pub id: OrderId,
    /// Who takes the money.
    pub provider: Provider,
    /// What was ordered.
    pub goods: Goods,
    /// What it costs, in minor units.
    pub amount: u64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The version of the catalogue that it was ordered from.
    pub catalogue: u32,
    /// When it was ordered.
    pub created_at: Millis,
    /// How long the payer has.
    pub expires_at: Millis,
    /// Who ordered it.
    pub created_by: UserId,

    /// The vendor's id of it.
    pub vendor_id: Option<String>,
    /// What the payer is shown.
    pub show: Option<String>,
    /// The payment.
    pub paid: Option<Paid>,
    /// How it ended, if not by being paid.
    pub unpaid: Option<Unpaid>,
    /// The largest total of refunds that was told of.
    pub refunded_to: u64,
    /// The refunds that were told of one by one.
    pub refunds: BTreeMap<String, u64>,

    /// Whether what was ordered was given.
    pub fulfilled: bool,
    /// Up to which total of refunds what was given was taken back.
    pub taken_back: u64,
    /// Up to which total it is being taken back.
    pub taking_back: Option<u64>,
    /// The refund that is under way.
    pub refund: Option<RefundBegun>,
    /// How many were begun.
    pub refunds_begun: u32,
    /// Those of them that were asked for by name.
    pub refunds_asked: BTreeMap<String, RefundAsked>,

    /// Counts the states.
    pub version: u64,
}

impl Order {
    /// The order at `now`, from the catalogue of that version; nobody was told anything of it yet.
    #[must_use]
    pub fn new(new: NewOrder, catalogue: u32, now: Millis) -> Self {
        let NewOrder { id, provider, goods, amount, currency, expires_at, created_by } = new;
        Self {
            id,
            provider,
            goods,
            amount,
            currency,
            catalogue,
            created_at: now,
            expires_at,
            created_by,
            vendor_id: None,
            show: None,
            paid: None,
            unpaid: None,
            refunded_to: 0,
            refunds: BTreeMap::new(),
            fulfilled: false,
            taken_back: 0,
            taking_back: None,
            refund: None,
            refunds_begun: 0,
            refunds_asked: BTreeMap::new(),
            version: 1,
        }
    }

    /// The order with one more fact. In whatever order facts come, and however often, the end is the same.
    #[must_use]
    pub fn with(mut self, fact: &Fact) -> Self {
        match fact {
            // Where two differ, both lead to the same order: it matters only that everybody keeps the same one.
            Fact::Opened { vendor_id, show } => {
                self.vendor_id = self.vendor_id.max(vendor_id.clone());
                self.show = self.show.max(Some(show.clone()));
            }
            Fact::Paid { payment, at } => {
                let paid = Paid { at: *at, payment: payment.clone() };
                self.paid = Some(self.paid.map_or(paid.clone(), |known| known.min(paid)));
            }
            Fact::Closed => self.unpaid = self.unpaid.max(Some(Unpaid::Closed)),
            Fact::Failed => self.unpaid = self.unpaid.max(Some(Unpaid::Failed)),
            Fact::Refund { number, amount } => {
                let known = self.refunds.entry(number.clone()).or_default();
                *known = (*known).max(*amount);
            }
            Fact::RefundedTo { total } => self.refunded_to = self.refunded_to.max(*total),
        }
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> OrderState {
        let refunded = self.refunded();
        match (&self.paid, self.unpaid, &self.show) {
            // Nothing can be refunded that was not paid.
            _ if refunded > 0 && refunded == self.amount => OrderState::Refunded,
            _ if refunded > 0 => OrderState::PartiallyRefunded,
            (Some(_), ..) => OrderState::Paid,
            (None, Some(Unpaid::Failed), _) => OrderState::Failed,
            (None, Some(Unpaid::Closed), _) => OrderState::Closed,
            (None, None, Some(_)) => OrderState::Pending,
            (None, None, None) => OrderState::Created,
        }
    }

    /// What went back, in minor units; never more than was paid.
    #[must_use]
    pub fn refunded(&self) -> u64 {
        let one_by_one = self.refunds.values().fold(0_u64, |sum, amount| sum.saturating_add(*amount));
        self.refunded_to.max(one_by_one).min(self.amount)
    }

    /// Whether what was ordered is to be given.
    #[must_use]
    pub const fn is_owed(&self) -> bool {
        self.paid.is_some() && !self.fulfilled
    }

    /// Whether something of what was given is to be taken back.
    #[must_use]
    pub fn is_due_back(&self) -> bool {
        self.fulfilled && (self.taking_back.is_some() || self.refunded() > self.taken_back)
    }

    /// Whether nothing is left to do about it, unless a vendor tells something new.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.state().is_open() && !self.is_owed() && !self.is_due_back() && self.refund.is_none()
    }

    /// How much of `whole` belongs to the refunds from the total `from` to the total `to`.
    #[must_use]
    pub fn share(&self, whole: u64, from: u64, to: u64) -> u64 {
        pro_rata(whole, self.amount, to).saturating_sub(pro_rata(whole, self.amount, from))
    }

    /// The order with a refund begun. As it is, when that was begun before: [`Order::refunds_asked`] says what came of it.
    ///
    /// # Errors
    /// [`NoRefund`].
    pub fn with_refund(&self, wanted: &RefundWanted<'_>) -> Result<Self, NoRefund> {
        if let Some(asked) = self.refunds_asked.get(wanted.operation) {
            return match asked.end {
                _ if wanted.amount.is_some_and(|amount| amount != asked.amount) => {
                    Err(NoRefund::OtherAmount { amount: asked.amount })
                }
                Some(RefundEnd::Refused) => Err(NoRefund::Refused),
                Some(RefundEnd::Made) | None => Ok(self.clone()),
            };
        }
        if let Some(begun) = &self.refund {
            return Err(NoRefund::Busy { amount: begun.amount });
        }
        if self.paid.is_none() {
            return Err(NoRefund::NotPaid);
        }
        let left = self.amount - self.refunded();
        let amount = wanted.amount.unwrap_or(left);
        if left == 0 {
            return Err(NoRefund::AllBack);
        }
        // With Stripe's taxes more was paid than the order is over, and Stripe knows how much of that is left.
        if amount == 0 || amount > left && self.provider != Provider::Stripe {
            return Err(NoRefund::TooMuch { left });
        }
        let (number, total) = (self.refunds_begun + 1, self.refunded().saturating_add(amount));
        let mut next = Self { refunds_begun: number, ..self.clone() };
        let (all, reason) = (wanted.amount.is_none(), wanted.reason.to_owned());
        next.refund = Some(RefundBegun { number, amount, all, total, reason });
        next.refunds_asked.insert(wanted.operation.to_owned(), RefundAsked { number, amount, end: None });
        Ok(next)
    }

    /// The order with the refund `done` ended, and what came of it. Unchanged when that is not under way.
    #[must_use]
    pub fn with_refund_ended(mut self, done: &RefundBegun, end: RefundEnd, fact: Option<&Fact>) -> Self {
        if self.refund.as_ref().is_none_or(|begun| begun.number != done.number) {
            return self;
        }
        self.refund = None;
        for asked in self.refunds_asked.values_mut().filter(|asked| asked.number == done.number) {
            (asked.amount, asked.end) = (done.amount, Some(end));
        }
        match fact {
            Some(fact) => self.with(fact),
            None => self,
        }
    }

    /// The order while what belongs to its refunds is taken back: from [`Order::taken_back`] to [`Order::taking_back`].
    #[must_use]
    pub fn with_taking_back(mut self) -> Self {
        if self.is_due_back() && self.taking_back.is_none() {
            self.taking_back = Some(self.refunded());
        }
        self
    }

    /// The order after that.
    #[must_use]
    pub fn with_taken_back(mut self, to: u64) -> Self {
        self.taken_back = self.taken_back.max(to);
        self.taking_back = self.taking_back.filter(|taking| *taking > self.taken_back);
        self
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;

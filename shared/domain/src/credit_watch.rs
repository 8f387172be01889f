//! Credits that run out: when people are told, and when more are bought by themselves.

use crate::{
    ids::{OrderId, UserId},
    time::{Millis, Period},
};

/// How credits are bought by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    /// Whether they are. A payment that fails switches it off.
    pub enabled: bool,
    /// They are bought while there are fewer than this, in micro-credits.
    pub below: u64,
    /// The package.
    pub package: String,
    /// The most that is spent in a month (UTC), in minor units of US dollars.
    pub monthly_cap: u64,
    /// Who wants it.
    pub set_by: UserId,
}

/// What is wanted, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreditWatch {
    /// The owners are told when there are fewer than this, in micro-credits; nobody is when none.
    pub notify_below: Option<u64>,
    /// Buying by itself; off when none.
    pub top_up: Option<TopUp>,
    /// Whether they were told since there were as many as that.
    pub notified: bool,
    /// The month that `spent` is about.
    pub month: Option<Period>,
    /// What was spent in it, in minor units. It counts before it is paid, so the cap holds whatever fails.
    pub spent: u64,
    /// The order that is under way.
    pub order: Option<OrderId>,
    /// When a payment failed that switched it off.
    pub failed_at: Option<Millis>,
    /// Counts the states.
    pub version: u64,
}

impl CreditWatch {
    /// The rule, while it is on.
    #[must_use]
    pub fn on(&self) -> Option<&TopUp> {
        self.top_up.as_ref().filter(|top_up| top_up.enabled)
    }

    /// From how many credits on there is nothing to do, and from how many on there is again.
    #[must_use]
    pub fn quiet(&self) -> (Option<u64>, Option<u64>) {
        let tell = self.notify_below.filter(|_| !self.notified);
        let from = self.on().map(|top_up| top_up.below).max(tell);
        (from, self.notify_below.filter(|_| self.notified))
    }

    /// What was spent in `month`.
    #[must_use]
    pub fn spent_in(&self, month: Period) -> u64 {
        if self.month == Some(month) { self.spent } else { 0 }
    }

    /// The state with an order begun that costs `amount`; `None` when that would be more than the month's cap.
    #[must_use]
    pub fn with_order(&self, order: &OrderId, amount: u64, month: Period) -> Option<Self> {
        let cap = self.on()?.monthly_cap;
        let spent = self.spent_in(month).checked_add(amount).filter(|spent| *spent <= cap)?;
        Some(Self { month: Some(month), spent, order: Some(order.clone()), ..self.clone() })
    }

    /// The state after that order was paid; `None` when it is not the one under way.
    #[must_use]
    pub fn with_order_paid(&self, order: &OrderId) -> Option<Self> {
        (self.order.as_ref() == Some(order)).then(|| Self { order: None, ..self.clone() })
    }

    /// The state after that order, begun in `month`, was not paid: nothing was spent, and nothing more is tried.
    #[must_use]
    pub fn with_order_failed(&self, order: &OrderId, amount: u64, month: Period, at: Millis) -> Option<Self> {
        let mut next = self.with_order_paid(order)?.switched_off(at);
        if next.month == Some(month) {
            next.spent = next.spent.saturating_sub(amount);
        }
        Some(next)
    }

    /// The state after something failed.
    #[must_use]
    pub fn switched_off(&self, at: Millis) -> Self {
        let top_up = self.top_up.clone().map(|top_up| TopUp { enabled: false, ..top_up });
        Self { top_up, failed_at: Some(at), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVEMBER: Millis = 1_795_176_000_000;

    fn watch(enabled: bool, notify_below: Option<u64>, notified: bool) -> CreditWatch {
        let (package, set_by) = ("small".to_owned(), UserId::new());
        let top_up = Some(TopUp { enabled, below: 5, package, monthly_cap: 2_500, set_by });
        CreditWatch { notify_below, notified, top_up, ..CreditWatch::default() }
    }

    #[test]
    fn there_is_something_to_do_below_what_is_watched_and_where_a_warning_ends() {
        assert_eq!(CreditWatch::default().quiet(), (None, None));
        assert_eq!(watch(false, None, false).quiet(), (None, None));
        assert_eq!(watch(true, None, false).quiet(), (Some(5), None));
        assert_eq!(watch(true, Some(9), false).quiet(), (Some(9), None));
        assert_eq!(watch(true, Some(3), false).quiet(), (Some(5), None));
        assert_eq!(watch(true, Some(9), true).quiet(), (Some(5), Some(9)));
        assert_eq!(watch(false, Some(9), true).quiet(), (None, Some(9)));
    }

    #[test]
    fn a_month_costs_no_more_than_its_cap_and_what_was_not_paid_does_not_count() {
        let (month, next_month) = (Period::of(NOVEMBER), Period::of(NOVEMBER).next());
        let [first, second, third] = [OrderId::new(), OrderId::new(), OrderId::new()];
        let one = watch(true, None, false).with_order(&first, 1_000, month).unwrap();
        let two = one.with_order_paid(&first).unwrap().with_order(&second, 1_500, month).unwrap();
        assert_eq!((two.spent_in(month), two.order.as_ref()), (2_500, Some(&second)));
        assert_eq!(two.with_order(&third, 1, month), None, "the cap");
        assert_eq!(two.with_order(&third, 2_500, next_month).unwrap().spent_in(next_month), 2_500);
        assert_eq!(two.with_order_paid(&first), None, "not the one under way");
        let failed = two.with_order_failed(&second, 1_500, month, NOVEMBER).unwrap();
        assert_eq!((failed.spent, failed.on(), failed.failed_at), (1_000, None, Some(NOVEMBER)));
        assert_eq!(failed.with_order(&third, 1, month), None, "it is off");
        let late = two.with_order_failed(&second, 1_500, next_month, NOVEMBER).unwrap();
        assert_eq!(late.spent, 2_500, "of another month");
    }
}

//! A tenant's billing account: what it has bought that lasts, and what plan follows from that.

use crate::{
    billing::{Entitlement, Standing},
    ids::OrderId,
    plans::Plans,
    time::{Millis, months_later},
};

/// A subscription as it was last seen at the vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The vendor's id.
    pub id: String,
    /// Status, and since when a payment is late.
    pub standing: Standing,
    /// The plan that its price is for, and its next invoice.
    pub plan: String,
    /// The vendor's id of the price.
    pub price: String,
    /// What was paid for before its price became a smaller plan's, as written down then; over when its time is.
    pub paid: Option<PaidPlan>,
    /// The period that is paid for, half open.
    pub period_start: Millis,
    /// Its end.
    pub period_end: Millis,
    /// Whether it ends then.
    pub cancel_at_period_end: bool,
    /// When the trial ends or ended.
    pub trial_end: Option<Millis>,
    /// When it was made; of two, the later one counts.
    pub created_at: Millis,
}

/// A larger plan that a subscription has paid for, and which stays until its period is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaidPlan {
    /// The plan.
    pub plan: String,
    /// Its end.
    pub until: Millis,
}

impl Subscription {
    /// The plan that it has at `now`, while it counts; and until when, where a smaller one comes then.
    #[must_use]
    pub fn plan_at(&self, plans: &Plans, now: Millis) -> (&str, Option<Millis>) {
        let paid = self.paid.as_ref().filter(|paid| paid.until > now && paid.plan != self.plan);
        match paid.filter(|paid| plans.larger(&self.plan, &paid.plan) == paid.plan) {
            Some(paid) => (&paid.plan, Some(paid.until)),
            None => (&self.plan, None),
        }
    }
}

/// Months of a plan that were paid for in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepaid {
    /// The plan.
    pub plan: String,
    /// Its end.
    pub until: Millis,
    /// Whose time it is, in the order in which it is used: the orders, and how much of the plan each has brought. Time
    /// before theirs is that of orders that nobody noted.
    pub orders: Vec<(OrderId, Millis)>,
}

impl Prepaid {
    /// How much of the time of each order is left, of those that have any.
    fn left(&self, now: Millis) -> Vec<(OrderId, Millis)> {
        let mut rest = (self.until - now).max(0);
        let mut left: Vec<_> = self.orders.clone();
        for (_, time) in left.iter_mut().rev() {
            *time = rest.min(*time);
            rest -= *time;
        }
        left.retain(|(_, time)| *time > 0);
        left
    }
}

/// The account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Stripe's customer.
    pub customer: Option<String>,
    /// The subscription that counts.
    pub subscription: Option<Subscription>,
    /// The vendor's id of the page that was opened last for subscribing. No other one can be paid.
    pub checkout: Option<String>,
    /// Months paid for in advance.
    pub prepaid: Option<Prepaid>,
    /// The plan that followed from it all when this state was written; the first plan when there is none.
    pub plan: Option<String>,
    /// When that has to be looked at again.
    pub plan_until: Option<Millis>,
    /// Counts the states.
    pub version: u64,
}

/// What an account gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitled {
    /// The plan.
    pub plan: String,
    /// When this may change without anybody telling.
    pub until: Option<Millis>,
}

impl Account {
    /// The plan at `now`, when a late payment is tolerated for `grace` milliseconds: the larger one of the subscription's
    /// and the prepaid one, else the first.
    #[must_use]
    pub fn entitled(&self, plans: &Plans, now: Millis, grace: Millis) -> Entitled {
        let free = plans.first().id.as_str();
        let mut until = None::<Millis>;
        let mut ends = |at: Millis| until = Some(until.map_or(at, |until| until.min(at)));
        let subscribed = self.subscription.as_ref().map_or(free, |subscription| {
            let late_since = match subscription.standing.entitlement(now, grace) {
                Entitlement::Plan => None,
                Entitlement::PlanNoGrant => subscription.standing.past_due_since,
                Entitlement::Free => return free,
                Entitlement::KeepLast => return self.plan.as_deref().unwrap_or(free),
            };
            let (plan, until) = subscription.plan_at(plans, now);
            late_since.map(|since| since.saturating_add(grace)).into_iter().chain(until).for_each(&mut ends);
            plan
        });
        let prepaid = self.prepaid.as_ref().filter(|prepaid| prepaid.until > now).map_or(free, |prepaid| {
            ends(prepaid.until);
            &prepaid.plan
        });
        Entitled { plan: plans.larger(subscribed, prepaid).to_owned(), until }
    }

    /// The account with more months of `plan` paid for, behind those that are there, else from `now` on.
    ///
    /// There is one plan that is paid for in advance: where there is time left of another, the larger of the two stays, and
    /// the time of the smaller one is turned into time of it by what a month of each costs. So nothing that was paid for
    /// is lost, and nothing is got that was not paid for.
    #[must_use]
    pub fn prepaid_more(&self, plans: &Plans, order: &OrderId, plan: &str, months: u32, now: Millis) -> Self {
        let left = self.prepaid.as_ref().filter(|prepaid| prepaid.until > now);
        let mut orders = left.map(|left| left.left(now)).unwrap_or_default();
        let month = months_later(now, months) - now;
        let (plan, until, time) = match left {
            None => (plan, now + month, month),
            Some(left) if left.plan == plan => {
                let until = months_later(left.until, months);
                (plan, until, until - left.until)
            }
            Some(left) if plans.larger(&left.plan, plan) == plan => {
                orders.iter_mut().for_each(|(_, time)| *time = converted(plans, *time, &left.plan, plan));
                (plan, now + month + converted(plans, left.until - now, &left.plan, plan), month)
            }
            Some(left) => {
                let time = converted(plans, month, plan, &left.plan);
                (left.plan.as_str(), left.until + time, time)
            }
        };
        orders.push((order.clone(), time));
        Self { prepaid: Some(Prepaid { plan: plan.to_owned(), until, orders }), ..self.clone() }
    }

    /// The account with `time` of `plan` taken back of what `order` has brought, as far as that is left: what was used stays
    /// used, and what others have brought comes the earlier.
    #[must_use]
    pub fn prepaid_less(&self, plans: &Plans, order: &OrderId, plan: &str, time: Millis, now: Millis) -> Self {
        let prepaid = self.prepaid.as_ref().map(|left| {
            let (mut orders, mut time) = (left.left(now), converted(plans, time, plan, &left.plan));
            match orders.iter_mut().find(|(known, _)| known == order) {
                Some((_, own)) => {
                    time = time.min(*own);
                    *own -= time;
                }
                None => {
                    let noted = orders.iter().fold(0, |sum: Millis, (_, time)| sum + time);
                    time = time.min((left.until - now).max(0) - noted);
                }
            }
            Prepaid { until: left.until - time, orders, ..left.clone() }
        });
        Self { prepaid, ..self.clone() }
    }

    /// Whether `seen` says more about the tenant than what is known: the same subscription, or one that lives where the
    /// known one has ended, or the later one of two that live or have ended. Which of them is told of first does not
    /// matter, also of two that were made in the same second.
    #[must_use]
    pub fn takes(&self, seen: &Subscription) -> bool {
        let weight = |subscription: &Subscription| {
            (!subscription.standing.status.is_terminal(), subscription.created_at, subscription.id.clone())
        };
        self.subscription.as_ref().is_none_or(|known| known.id == seen.id || weight(seen) > weight(known))
    }
}

/// Time of one plan as time of another, by what a month of each costs, rounded down; the same time where that is not known.
fn converted(plans: &Plans, time: Millis, from: &str, to: &str) -> Millis {
    let month = |plan| plans.find(plan).and_then(|plan| plan.price.cny_month);
    match (month(from), month(to)) {
        (Some(from), Some(to)) if from != to => {
            let time = i128::from(time) * i128::from(from) / i128::from(to.max(1));
            Millis::try_from(time).unwrap_or(Millis::MAX)
        }
        _ => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{billing::SubscriptionStatus, plans::DEFAULT_PLANS};

    const NOW: Millis = 1_800_000_000_000;
    const GRACE: Millis = 1_000;

    fn subscription(id: &str, plan: &str, status: &str, created_at: Millis) -> Subscription {
        Subscription {
            id: id.into(),
            standing: Standing::seen(None, SubscriptionStatus::from(status), NOW),
            plan: plan.into(),
            price: "price".into(),
            paid: None,
            period_start: NOW,
            period_end: NOW + 5_000,
            cancel_at_period_end: false,
            trial_end: None,
            created_at,
        }
    }

    fn account(subscription: Option<Subscription>, prepaid: Option<(&str, Millis)>) -> Account {
        let prepaid = prepaid.map(|(plan, until)| Prepaid { plan: plan.into(), until, orders: vec![] });
        Account { subscription, prepaid, plan: Some("team".into()), ..Account::default() }
    }

    #[test]
    fn the_larger_of_what_was_bought_counts_and_it_is_known_when_to_look_again() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let entitled = |account: &Account| {
            let Entitled { plan, until } = account.entitled(&plans, NOW, GRACE);
            (plan, until.map(|until| until - NOW))
        };
        let pro = |status| Some(subscription("a", "pro", status, 0));
        assert_eq!(entitled(&account(None, None)), ("free".into(), None));
        assert_eq!(entitled(&account(pro("active"), None)), ("pro".into(), None));
        assert_eq!(entitled(&account(pro("past_due"), None)), ("pro".into(), Some(GRACE)));
        assert_eq!(entitled(&account(pro("active"), Some(("team", NOW + 7)))), ("team".into(), Some(7)));
        assert_eq!(entitled(&account(pro("active"), Some(("team", NOW)))), ("pro".into(), None));
        assert_eq!(entitled(&account(pro("canceled"), Some(("pro", NOW + 7)))), ("pro".into(), Some(7)));
        assert_eq!(entitled(&account(pro("hibernating"), None)), ("team".into(), None), "as it was");
        let gone = subscription("a", "gone", "active", 0);
        assert_eq!(entitled(&account(Some(gone), None)).0, "free", "a plan that is not in the catalogue");
    }

    #[test]
    fn a_larger_plan_that_was_paid_for_stays_until_its_period_is_over_while_the_subscription_counts() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let entitled = |status, plan: &str, (paid, until): (&str, Millis), prepaid, now| {
            let paid = Some(PaidPlan { plan: paid.into(), until: NOW + until });
            let subscription = Subscription { paid, ..subscription("a", plan, status, 0) };
            let Entitled { plan, until } = account(Some(subscription), prepaid).entitled(&plans, now, GRACE);
            (plan, until.map(|until| until - NOW))
        };
        let team = |status, now| entitled(status, "pro", ("team", 9), None, NOW + now);
        assert_eq!(team("active", 0), ("team".into(), Some(9)));
        assert_eq!(team("active", 8), ("team".into(), Some(9)));
        assert_eq!(team("active", 9), ("pro".into(), None));
        assert_eq!(team("past_due", 8), ("team".into(), Some(9)));
        assert_eq!(team("past_due", 9), ("pro".into(), Some(GRACE)));
        assert_eq!(team("past_due", GRACE), ("free".into(), None));
        for status in ["canceled", "unpaid", "paused", "incomplete"] {
            assert_eq!(team(status, 0), ("free".into(), None), "{status}");
        }
        // A plan that is no larger, or gone, takes nothing away.
        for paid in ["pro", "free", "gone"] {
            assert_eq!(entitled("active", "pro", (paid, 9), None, NOW), ("pro".into(), None), "{paid}");
        }
        let months = Some(("pro", NOW + 20));
        assert_eq!(entitled("active", "free", ("team", 9), months, NOW), ("team".into(), Some(9)));
        assert_eq!(entitled("active", "free", ("team", 9), months, NOW + 9), ("pro".into(), Some(20)));
    }

    #[test]
    fn an_older_or_an_ended_subscription_does_not_displace_one_that_lives() {
        let known = account(Some(subscription("a", "pro", "active", 10)), None);
        assert!(known.takes(&subscription("a", "pro", "canceled", 10)));
        assert!(known.takes(&subscription("b", "pro", "active", 11)));
        assert!(!known.takes(&subscription("b", "pro", "active", 9)));
        assert!(!known.takes(&subscription("b", "pro", "canceled", 11)));
        let ended = account(Some(subscription("a", "pro", "canceled", 10)), None);
        assert!(ended.takes(&subscription("b", "pro", "active", 9)));
        assert!(ended.takes(&subscription("b", "pro", "canceled", 11)), "the later one of two that have ended");
        assert!(!ended.takes(&subscription("b", "pro", "canceled", 9)));
        assert!(account(None, None).takes(&subscription("b", "pro", "canceled", 11)));
        // Of two that were made in the same second it is the same one, whichever comes first.
        let other = account(Some(subscription("b", "pro", "active", 10)), None);
        assert!(
            known.takes(&subscription("b", "pro", "active", 10))
                && !other.takes(&subscription("a", "pro", "active", 10))
        );
    }

    #[test]
    fn months_come_behind_those_that_are_there_and_go_from_their_end() {
        const DAY: Millis = 24 * 3_600_000;
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let until = |account: &Account| account.prepaid.clone().map(|prepaid| (prepaid.plan, prepaid.until - NOW));
        let month = months_later(NOW, 1) - NOW;
        let [a, b] = [OrderId::new(), OrderId::new()];
        let one = account(None, None).prepaid_more(&plans, &a, "pro", 1, NOW);
        assert_eq!(until(&one), Some(("pro".into(), month)));
        let two = one.prepaid_more(&plans, &b, "pro", 1, NOW);
        assert_eq!(until(&two), Some(("pro".into(), months_later(NOW + month, 1) - NOW)));
        assert_eq!(
            until(&two.prepaid_less(&plans, &b, "pro", DAY, NOW)).unwrap().1,
            months_later(NOW + month, 1) - NOW - DAY
        );
        let none = one.prepaid_less(&plans, &a, "pro", 3 * month, NOW);
        assert_eq!(until(&none), Some(("pro".into(), 0)), "not before now");
        let over = account(None, Some(("pro", NOW - DAY)));
        assert_eq!(over.prepaid_less(&plans, &a, "pro", DAY, NOW), over, "what is over is over");
        assert_eq!(until(&over.prepaid_more(&plans, &a, "pro", 1, NOW)), Some(("pro".into(), month)));
        assert_eq!(account(None, None).prepaid_less(&plans, &a, "pro", DAY, NOW), account(None, None));
    }

    #[test]
    fn what_is_taken_back_of_an_order_is_what_is_left_of_its_own_time() {
        const DAY: Millis = 24 * 3_600_000;
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let [a, b, c] = [OrderId::new(), OrderId::new(), OrderId::new()];
        let until = |account: &Account| account.prepaid.as_ref().unwrap().until;
        let one = account(None, None).prepaid_more(&plans, &a, "pro", 1, NOW);
        let two = one.prepaid_more(&plans, &b, "pro", 1, NOW);
        let (first, second) = (until(&one) - NOW, until(&two) - until(&one));
        // Half used, and the rest goes in two parts; the other month begins now.
        let later = NOW + 15 * DAY;
        let part = two.prepaid_less(&plans, &a, "pro", 10 * DAY, later);
        assert_eq!(until(&part), until(&two) - 10 * DAY);
        let rest = part.prepaid_less(&plans, &a, "pro", first - 10 * DAY, later);
        assert_eq!(until(&rest), later + second);
        assert_eq!(
            until(&rest.prepaid_less(&plans, &a, "pro", DAY, later)),
            until(&rest),
            "there is nothing left of it"
        );
        assert_eq!(until(&rest.prepaid_less(&plans, &b, "pro", 3 * first, later)), later);
        // Of one that was used up nothing goes, and one behind another loses what it brought and no more.
        let over = until(&one) + DAY;
        assert_eq!(until(&two.prepaid_less(&plans, &a, "pro", first, over)), until(&two));
        assert_eq!(until(&two.prepaid_less(&plans, &b, "pro", 3 * first, NOW)), until(&one));
        // What is left of each became time of a larger plan, with that of nobody knows whom before it.
        let unknown = account(None, Some(("pro", NOW + DAY))).prepaid_more(&plans, &a, "pro", 1, NOW);
        let large = unknown.prepaid_more(&plans, &b, "team", 1, NOW);
        let month = months_later(NOW, 1) - NOW;
        let own = |time: Millis| converted(&plans, time, "pro", "team");
        assert_eq!(until(&large.prepaid_less(&plans, &b, "team", 2 * month, NOW)), until(&large) - month);
        let time = until(&unknown) - NOW - DAY;
        assert_eq!(until(&large.prepaid_less(&plans, &a, "pro", 2 * month, NOW)), until(&large) - own(time));
        let less = large.prepaid_less(&plans, &c, "pro", 2 * month, NOW);
        let gone = until(&large) - until(&less);
        assert!((own(DAY)..=own(DAY) + 1).contains(&gone), "{gone}");
    }

    #[test]
    fn time_of_a_smaller_plan_becomes_time_of_the_larger_one_at_its_price() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let month = months_later(NOW, 1) - NOW;
        let worth = month * 19_900 / 99_900;
        let larger = |account: &Account| {
            assert_eq!(account.prepaid.as_ref().unwrap().plan, "team");
            account.prepaid.as_ref().unwrap().until - NOW
        };
        let pro = account(None, Some(("pro", NOW + month)));
        let [a, b] = [OrderId::new(), OrderId::new()];
        assert_eq!(larger(&pro.prepaid_more(&plans, &a, "team", 1, NOW)), month + worth);
        let team = account(None, Some(("team", NOW + month)));
        let both = team.prepaid_more(&plans, &b, "pro", 1, NOW);
        assert_eq!(larger(&both), month + worth);
        assert_eq!(larger(&both.prepaid_less(&plans, &b, "pro", month, NOW)), month);
    }
}

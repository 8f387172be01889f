//! What a subscription entitles to.
//!
//! The vendor's word for a subscription says little by itself: how long a payment has been late, and whether the
//! subscription had already ended, is ours to remember. [`Standing`] is that memory and [`Standing::entitlement`] the
//! rule, so that webhooks, the nightly reconciliation and a reader all come to the same answer.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Millis;

/// A subscription's status, in Stripe's words (<https://docs.stripe.com/api/subscriptions/object#subscription_object-status>).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubscriptionStatus {
    /// In its trial.
    Trialing,
    /// Paid.
    Active,
    /// The latest invoice was not paid; the vendor still tries.
    PastDue,
    /// The first payment was not made yet.
    Incomplete,
    /// The first payment was not made in time. Terminal.
    IncompleteExpired,
    /// The vendor has stopped trying and still writes invoices.
    Unpaid,
    /// The trial ended without a payment method.
    Paused,
    /// Ended. Terminal.
    Canceled,
    /// A word that is newer than this program.
    Unknown(String),
}

impl SubscriptionStatus {
    /// The vendor's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Unpaid => "unpaid",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
            Self::Unknown(word) => word,
        }
    }

    /// Whether the subscription has ended for good. A customer who comes back gets another subscription.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Canceled | Self::IncompleteExpired)
    }
}

impl From<&str> for SubscriptionStatus {
    fn from(word: &str) -> Self {
        match word {
            "trialing" => Self::Trialing,
            "active" => Self::Active,
            "past_due" => Self::PastDue,
            "incomplete" => Self::Incomplete,
            "incomplete_expired" => Self::IncompleteExpired,
            "unpaid" => Self::Unpaid,
            "paused" => Self::Paused,
            "canceled" => Self::Canceled,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

impl fmt::Display for SubscriptionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SubscriptionStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SubscriptionStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from(word.as_str()))
    }
}

/// What a subscription gives its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entitlement {
    /// The plan that was bought, and its allowance when a period begins.
    Plan,
    /// The plan stays, but nothing new is granted: a payment is late.
    PlanNoGrant,
    /// Nothing: the free plan.
    Free,
    /// Whatever it was before. The status is one that this program does not know, so somebody must look.
    KeepLast,
}

/// What is known of one subscription, this one and no other of the same tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The status that counts.
    pub status: SubscriptionStatus,
    /// When the payment that is late now began to be late, as far as we saw.
    pub past_due_since: Option<Millis>,
}

impl Standing {
    /// What is known once the vendor has said `status` at `now`, where `previous` was known before.
    ///
    /// A terminal state never comes back, whatever arrives late or out of order. The time of a late payment is that of
    /// its first sight: to see it again, or an unknown status in between, does not lengthen the grace.
    #[must_use]
    pub fn seen(previous: Option<&Self>, status: SubscriptionStatus, now: Millis) -> Self {
        let since = previous.and_then(|standing| standing.past_due_since);
        match (previous, &status) {
            (Some(ended), _) if ended.status.is_terminal() => ended.clone(),
            (_, SubscriptionStatus::PastDue) => Self { status, past_due_since: since.or(Some(now)) },
            (_, SubscriptionStatus::Unknown(_)) => Self { status, past_due_since: since },
            _ => Self { status, past_due_since: None },
        }
    }

    /// What the subscription gives at `now`, when a late payment is tolerated for `grace` milliseconds (half open: at
    /// its end the plan is gone). A late payment without a known beginning has no grace.
    #[must_use]
    pub fn entitlement(&self, now: Millis, grace: Millis) -> Entitlement {
        match self.status {
            SubscriptionStatus::Trialing | SubscriptionStatus::Active => Entitlement::Plan,
            SubscriptionStatus::PastDue => match self.past_due_since {
                Some(since) if now < since.saturating_add(grace) => Entitlement::PlanNoGrant,
                _ => Entitlement::Free,
            },
            SubscriptionStatus::Incomplete
            | SubscriptionStatus::IncompleteExpired
            | SubscriptionStatus::Unpaid
            | SubscriptionStatus::Paused
            | SubscriptionStatus::Canceled => Entitlement::Free,
            SubscriptionStatus::Unknown(_) => Entitlement::KeepLast,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 24 * 60 * 60 * 1_000;
    const GRACE: Millis = 7 * DAY;
    const NOW: Millis = 1_800_000_000_000;
    const WORDS: [&str; 9] = [
        "trialing",
        "active",
        "past_due",
        "incomplete",
        "incomplete_expired",
        "unpaid",
        "paused",
        "canceled",
        "hibernating",
    ];

    fn first(word: &str) -> Standing {
        Standing::seen(None, word.into(), NOW)
    }

    #[test]
    fn every_word_is_kept_as_it_came() {
        for word in WORDS {
            let status = SubscriptionStatus::from(word);
            assert_eq!(status.as_str(), word);
            assert_eq!(matches!(status, SubscriptionStatus::Unknown(_)), word == "hibernating");
        }
    }

    #[test]
    fn the_table_of_the_entitlements() {
        let expected = [
            Entitlement::Plan,
            Entitlement::Plan,
            Entitlement::PlanNoGrant,
            Entitlement::Free,
            Entitlement::Free,
            Entitlement::Free,
            Entitlement::Free,
            Entitlement::Free,
            Entitlement::KeepLast,
        ];
        for (word, expected) in WORDS.into_iter().zip(expected) {
            assert_eq!(first(word).entitlement(NOW, GRACE), expected, "{word}");
        }
    }

    #[test]
    fn a_late_payment_is_tolerated_for_the_grace_and_no_longer() {
        let late = first("past_due");
        assert_eq!(late.entitlement(NOW + GRACE - 1, GRACE), Entitlement::PlanNoGrant);
        assert_eq!(late.entitlement(NOW + GRACE, GRACE), Entitlement::Free);
        // A clock that went back a little takes nothing away.
        assert_eq!(late.entitlement(NOW - 1, GRACE), Entitlement::PlanNoGrant);
        assert_eq!(late.entitlement(NOW, 0), Entitlement::Free);
        assert_eq!(late.entitlement(Millis::MAX - 1, Millis::MAX), Entitlement::PlanNoGrant);
        let unknown = Standing { status: SubscriptionStatus::PastDue, past_due_since: None };
        assert_eq!(unknown.entitlement(NOW, GRACE), Entitlement::Free);
    }

    #[test]
    fn seeing_it_again_does_not_lengthen_the_grace_and_paying_ends_it() {
        let mut standing = first("past_due");
        for word in ["past_due", "hibernating", "past_due"] {
            standing = Standing::seen(Some(&standing), word.into(), NOW + 3 * DAY);
            assert_eq!(standing.past_due_since, Some(NOW), "{word}");
        }
        let paid = Standing::seen(Some(&standing), SubscriptionStatus::Active, NOW + 4 * DAY);
        assert_eq!(paid.past_due_since, None);
        let again = Standing::seen(Some(&paid), SubscriptionStatus::PastDue, NOW + 40 * DAY);
        assert_eq!(again.past_due_since, Some(NOW + 40 * DAY));
    }

    #[test]
    fn a_terminal_state_never_comes_back() {
        for terminal in ["canceled", "incomplete_expired"] {
            let ended = first(terminal);
            for word in WORDS {
                let next = Standing::seen(Some(&ended), word.into(), NOW + 1);
                assert_eq!(next, ended, "{terminal}, then {word}");
                assert_eq!(next.entitlement(NOW + 1, GRACE), Entitlement::Free);
            }
        }
        for word in WORDS.into_iter().filter(|word| !SubscriptionStatus::from(*word).is_terminal()) {
            let next = Standing::seen(Some(&first(word)), SubscriptionStatus::Canceled, NOW + 1);
            assert_eq!(next.entitlement(NOW + 1, GRACE), Entitlement::Free, "{word}");
        }
    }
}

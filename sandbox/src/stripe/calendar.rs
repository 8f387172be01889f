//! Billing periods: calendar months and years from an anchor, in UTC, half open. Stripe bills on the anchor's day, or
//! on the last of a month that has no such day: <https://docs.stripe.com/billing/subscriptions/billing-cycle>.

use jiff::{Span, Timestamp, tz::TimeZone};

pub(super) const MINUTE: i64 = 60;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// How often a price recurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }
}

/// `n` units after `anchor`. Beyond the calendar's end: never.
pub(super) fn after(anchor: i64, unit: Unit, n: i64) -> i64 {
    let span = match unit {
        Unit::Day => Span::new().try_days(n),
        Unit::Week => Span::new().try_weeks(n),
        Unit::Month => Span::new().try_months(n),
        Unit::Year => Span::new().try_years(n),
    };
    let Ok(span) = span else { return i64::MAX };
    let Ok(anchor) = Timestamp::from_second(anchor) else { return i64::MAX };
    anchor.to_zoned(TimeZone::UTC).checked_add(span).map_or(i64::MAX, |at| at.timestamp().as_second())
}

/// The first boundary of the periods from `anchor` that lies after `at`.
pub(super) fn next_boundary(anchor: i64, unit: Unit, every: i64, at: i64) -> i64 {
    let mut n = every.max(1);
    loop {
        let boundary = after(anchor, unit, n);
        if boundary > at {
            return boundary;
        }
        n += every.max(1);
    }
}

/// A day as people read it, `16 Dec 2026`.
pub(super) fn day(at: i64) -> String {
    Timestamp::from_second(at).map(|at| at.strftime("%-d %b %Y").to_string()).unwrap_or_default()
}

/// A moment as people read it.
pub(super) fn moment(at: i64) -> String {
    Timestamp::from_second(at).map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn the_anchors_day_comes_back_after_a_short_month() {
        let anchor = at("2027-01-31T10:00:00Z");
        let february = next_boundary(anchor, Unit::Month, 1, anchor);
        assert_eq!(february, at("2027-02-28T10:00:00Z"));
        assert_eq!(next_boundary(anchor, Unit::Month, 1, february), at("2027-03-31T10:00:00Z"));
        assert_eq!(next_boundary(anchor, Unit::Year, 1, anchor), at("2028-01-31T10:00:00Z"));
        assert_eq!(next_boundary(anchor, Unit::Week, 2, anchor), anchor + 14 * DAY);
        assert_eq!(day(february), "28 Feb 2027");
    }
}

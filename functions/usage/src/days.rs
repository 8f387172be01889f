//! Days and periods in queries, and walking from day to day.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error as _};
use tenantry_domain::{
    Millis, Period,
    time::{day, parse_day},
};

/// Milliseconds of a day. UTC, as computers count it, has neither summer time nor leap seconds.
pub(crate) const DAY: Millis = 24 * 60 * 60 * 1000;

/// A day in a query, as its first millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day(pub(crate) Millis);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        // Compared again, because a day beyond what a time stamp can hold reads as 1970.
        let at = parse_day(&text).ok().filter(|at| *at >= 0 && day(*at) == text);
        at.map(Self).ok_or_else(|| D::Error::custom("must be a day, like 2026-11-20"))
    }
}

/// A period in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Month(pub(crate) Period);

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("must be a month, like 2026-11"))
    }
}

/// The day that `at` lies in, as its first millisecond.
pub(crate) const fn start_of_day(at: Millis) -> Millis {
    at.div_euclid(DAY) * DAY
}

/// The names of the days from the one of `first` to the one of `last`, both included.
pub(crate) fn days(first: Millis, last: Millis) -> impl Iterator<Item = String> {
    let (first, last) = (first.div_euclid(DAY), last.div_euclid(DAY));
    (first..=last).map(|number| day(number * DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_walked_over_the_end_of_february() {
        let (first, last) = (parse_day("2028-02-28").unwrap(), parse_day("2028-03-01").unwrap() + DAY - 1);
        let walked: Vec<_> = days(first, last).collect();
        assert_eq!(walked, ["2028-02-28", "2028-02-29", "2028-03-01"]);
        assert_eq!(days(last, first).count(), 0);
        assert_eq!(start_of_day(last), parse_day("2028-03-01").unwrap());
    }
}

//! Soft limits: a limit of the month that is used up to 80 % or 100 % is told of, each once.

use std::{collections::BTreeMap, fmt};

use crate::{
    budget::{Budget, Budgeted, Spent},
    metering::{Level, Meter, Resource},
    time::Period,
};

/// The parts of a limit that are told of, in percent.
pub const THRESHOLDS: [u8; 2] = [80, 100];

/// A threshold that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// What is limited.
    pub what: Budgeted,
    /// The largest of [`THRESHOLDS`] that was reached, in percent as everywhere: of what was charged, to one decimal.
    pub percent: u8,
    /// The limit.
    pub limit: u64,
    /// What was charged.
    pub used: u64,
}

/// What was told of in one month, about one set of limits: the largest threshold of each limit. It counts for the limit that
/// it was about, so what is used of a larger one, or a smaller one, is told of again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    period: Option<Period>,
    thresholds: BTreeMap<Budgeted, (u64, u8)>,
}

impl Told {
    /// Read from the text that [`Display`](fmt::Display) makes. What it does not understand it takes for not told.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(' ');
        let period = parts.next().and_then(|index| Period::from_index(index.parse().ok()?));
        let one = |part: &str| {
            let (name, rest) = part.split_once('=')?;
            let (limit, percent) = rest.split_once(':')?;
            let resources = Resource::ALL.into_iter().map(Budgeted::Resource);
            let what = resources.chain([Budgeted::Credits]).find(|what| what.name() == name)?;
            Some((what, (limit.parse().ok()?, percent.parse().ok()?)))
        };
        Self { period, thresholds: parts.filter_map(one).collect() }
    }

    /// What of `levels` in `period` is to be told of: of each the largest threshold that it has reached, unless that was.
    #[must_use]
    pub fn due(&self, period: Period, levels: impl IntoIterator<Item = (Budgeted, Level)>) -> Vec<Reached> {
        let told = |what| self.thresholds.get(&what).copied().filter(|_| self.period == Some(period));
        let reached = |(what, level): (Budgeted, Level)| {
            let at = |percent: &u8| level.percent() >= f64::from(*percent);
            // Of a limit that allows nothing, nothing can be used up.
            let percent = THRESHOLDS.into_iter().rev().find(at).filter(|_| level.limit > 0)?;
            let known = told(what).is_some_and(|(limit, before)| limit == level.limit && before >= percent);
            (!known).then_some(Reached { what, percent, limit: level.limit, used: level.used })
        };
        levels.into_iter().filter_map(reached).collect()
    }

    /// The state after `reached` was told of.
    #[must_use]
    pub fn with(&self, period: Period, reached: &Reached) -> Self {
        let mut next = if self.period == Some(period) { self.clone() } else { Self::default() };
        next.period = Some(period);
        next.thresholds.insert(reached.what, (reached.limit, reached.percent));
        next
    }
}

impl fmt::Display for Told {
    /// `<period> <what>=<limit>:<percent> …`: it stands on the meter, where every byte is paid for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.period.map_or(0, Period::index))?;
        self.thresholds.iter().try_for_each(|(what, (limit, percent))| write!(f, " {}={limit}:{percent}", what.name()))
    }
}

impl Meter {
    /// How everything stands that the plan limits by the month.
    pub fn levels(&self) -> impl Iterator<Item = (Budgeted, Level)> + '_ {
        Resource::ALL.into_iter().filter_map(|resource| Some((Budgeted::Resource(resource), self.level(resource)?)))
    }
}

impl Budget {
    /// How everything stands that it limits by the month, where so much was `spent` and settled.
    pub fn levels(&self, spent: &Spent) -> impl Iterator<Item = (Budgeted, Level)> {
        let level = |(what, limit, used): (_, u64, u64)| {
            (what, Level { limit, used, held: 0, left: limit.saturating_sub(used) })
        };
        self.limited(spent).map(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: Budgeted = Budgeted::Resource(Resource::Messages);

    fn level(limit: u64, used: u64) -> [(Budgeted, Level); 1] {
        [(MESSAGES, Level { limit, used, held: 0, left: limit - used })]
    }

    #[test]
    fn each_threshold_of_each_limit_is_told_of_once_a_month() {
        let (november, december) = (Period::of(1_795_176_000_000), Period::of(1_795_176_000_000).next());
        let mut told = Told::default();
        let mut tell = |period, limit, used| {
            let due = told.due(period, level(limit, used));
            for reached in &due {
                told = Told::parse(&told.with(period, reached).to_string());
            }
            due.first().map(|reached| reached.percent)
        };
        assert_eq!(tell(november, 10, 7), None);
        assert_eq!((tell(november, 10, 8), tell(november, 10, 9)), (Some(80), None));
        assert_eq!((tell(november, 10, 10), tell(november, 10, 10)), (Some(100), None));
        // Less is used by now (a refund), and more again: that was told of.
        assert_eq!((tell(november, 10, 7), tell(november, 10, 8)), (None, None));
        // A larger limit has its own thresholds, and the old one is forgotten with it.
        assert_eq!((tell(november, 20, 10), tell(november, 20, 16), tell(november, 20, 17)), (None, Some(80), None));
        assert_eq!((tell(december, 20, 3), tell(december, 20, 20)), (None, Some(100)), "the largest alone");
        assert_eq!(tell(december, 0, 0), None);
    }

    #[test]
    fn what_nobody_understands_was_not_told() {
        for text in ["", "x", "683 messages", "683 messages=10", "683 messages=a:b", "683 nothing=1:80"] {
            assert_eq!(Told::parse(text).thresholds, BTreeMap::new(), "{text}");
        }
    }
}

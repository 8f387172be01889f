//! A meter in shards, for a tenant with more requests than one item takes: how what it allows is shared out, what the
//! shards say together, and what one borrows from the others before it says no.
//!
//! What is *left* is moved between shards, unit by unit, so its sum is always exact. Rate and requests in flight are not
//! moved but shared out: each shard keeps to its part, and the parts are never more than the plan's.

use crate::{
    metering::{Allowances, Amounts, Demand, Meter, Rate, Refusal, Resource},
    plans::Limit,
    time::Millis,
};

/// The most shards a meter can have.
pub const MOST_SHARDS: u8 = 64;

/// Which shard of its meter an item is, and what the main one, number 0, knows of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    /// Which one this is.
    pub number: u8,
    /// How many the tenant is to have.
    pub wanted: u8,
    /// How many admit: what is wanted, or fewer where the plan allows fewer requests.
    pub active: u8,
    /// How many were ever made. What is left in one that admits no more is still there to be borrowed.
    pub made: u8,
    /// How often something was moved from or to this shard.
    pub moved: u64,
}

impl Default for Shards {
    /// One whole meter.
    fn default() -> Self {
        Self { number: 0, wanted: 1, active: 1, made: 1, moved: 0 }
    }
}

/// A shard's part of the plan's rate and of its requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its rate.
    pub rate: Rate,
    /// How many requests it may have in flight.
    pub max_holds: u64,
}

/// How many shards admit when `wanted` are: each must be able to admit at least one request.
#[must_use]
pub fn active(wanted: u8, rate: Rate, in_flight: u64) -> u8 {
    let at_once = if rate.interval == 0 { u64::MAX } else { at_once(rate) };
    let most = in_flight.min(at_once).min(MOST_SHARDS.into());
    wanted.clamp(1, u8::try_from(most.max(1)).unwrap_or(MOST_SHARDS))
}

/// The part of shard `number` of `active`: a longer interval, and so much of the burst and of what may be in flight that
/// all parts together are the whole. One that admits no more has none.
#[must_use]
pub fn share(number: u8, active: u8, rate: Rate, in_flight: u64) -> Share {
    let (number, n) = (u64::from(number), u64::from(active.max(1)));
    let part = |whole: u64| whole / n + u64::from(number < whole % n);
    if number >= n {
        return Share { rate: Rate { burst: 0, ..rate }, max_holds: 0 };
    }
    let interval = rate.interval * i64::from(active.max(1));
    let saved = i64::try_from(part(at_once(rate))).unwrap_or(i64::MAX).saturating_sub(1).max(0);
    let rate = Rate { interval, burst: interval.saturating_mul(saved) };
    Share { rate, max_holds: part(in_flight) }
}

/// How many requests a caller that was quiet may send at once.
fn at_once(rate: Rate) -> u64 {
    if rate.interval == 0 { 1 } else { (rate.burst / rate.interval).unsigned_abs() + 1 }
}

/// What the shards, the main one first, say together at `now`: the meter that they would be in one piece. `None` of none.
#[must_use]
pub fn together(shards: &[Meter], now: Millis) -> Option<Meter> {
    let (main, others) = shards.split_first()?;
    let mut all = main.clone();
    if others.is_empty() {
        return Some(all);
    }
    let active = || shards.iter().filter(|shard| shard.shards.number < main.shards.active.max(1));
    all.shards.moved = shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.shards.moved));
    all.left = left(shards);
    all.credits = credits(shards);
    all.max_holds = shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.max_holds));
    for (request, hold) in others.iter().flat_map(|shard| &shard.holds) {
        all.holds
            .entry(request.clone())
            .and_modify(|there| {
                // Nothing of what is held may be forgotten, whoever held it twice.
                there.amounts = there.amounts.plus(&hold.amounts);
                there.credits = there.credits.saturating_add(hold.credits);
            })
            .or_insert_with(|| hold.clone());
    }
    if main.rate.interval > 0 {
        let interval = (main.rate.interval / i64::from(main.shards.active.max(1))).max(1);
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).saturating_sub(1).saturating_mul(interval);
        let at_once = active().fold(0, |sum: u64, shard| sum.saturating_add(at_once(shard.rate)));
        let remaining = active().fold(0, |sum: u64, s| sum.saturating_add(s.rate.remaining(s.ready_at, now)));
        all.rate = Rate { interval, burst: whole(at_once) };
        all.ready_at = match remaining {
            0 => active().map(|shard| shard.ready_at).min().unwrap_or(main.ready_at),
            _ => now - whole(remaining),
        };
    }
    Some(all)
}

fn left(shards: &[Meter]) -> Allowances {
    let main = &shards[0];
    Allowances::from_fn(|resource| match main.left.get(resource) {
        Limit::Unlimited => Limit::Unlimited,
        Limit::Of(_) => {
            Limit::Of(shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.left.get(resource).or(0))))
        }
    })
}

fn credits(shards: &[Meter]) -> u64 {
    shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.credits))
}

/// What one shard gives to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gift {
    /// The shard that gives.
    pub from: u8,
    /// Of what is left.
    pub amounts: Amounts,
    /// Micro-credits.
    pub credits: u64,
}

/// What to do about a request that a shard refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// This shard has what it takes.
    Try(u8),
    /// This shard will, once it has got these.
    Borrow {
        /// The shard that gets.
        to: u8,
        /// What it gets.
        gifts: Vec<Gift>,
    },
    /// All shards together do not cover it.
    Lacking(Refusal),
    /// They cover it, but none may admit it now.
    Later(Refusal),
}

/// Below so many times the demand, the average shard is too poor to be filled up: requests go where there is something.
const RICH: u64 = 4;

/// Finds the way for `demand` among the shards, the main one first, whose numbers are their places. `at` is the shard
/// that is asked first.
#[must_use]
pub fn way(shards: &[Meter], at: u8, demand: &Demand, now: Millis) -> Way {
    let main = &shards[0];
    let (left, credits) = (left(shards), credits(shards));
    for (resource, left) in left.limited() {
        if demand.amounts.get(resource) > left {
            let limit = main.given.get(resource).or(left);
            return Way::Lacking(Refusal::QuotaExceeded { resource, limit, left, resets_at: main.period.end() });
        }
    }
    if demand.credits > credits {
        return Way::Lacking(Refusal::OutOfCredits { left: credits, needed: demand.credits });
    }
    let active = usize::from(main.shards.active).clamp(1, shards.len());
    let first = if usize::from(at) < active { usize::from(at) } else { 0 };
    let order = || (first..active).chain(0..first);
    let free = |shard: &Meter| (shard.holds.len() as u64) < shard.max_holds;
    let ready = |shard: &Meter| shard.rate.interval == 0 || shard.ready_at <= now;
    let open: Vec<usize> = order().filter(|i| free(&shards[*i]) && ready(&shards[*i])).collect();
    let Some(&to) = open.first() else {
        let soonest = shards[..active].iter().filter(|shard| free(shard)).map(|shard| shard.ready_at - now).min();
        return Way::Later(match soonest {
            Some(retry_after) => {
                let limit = together(shards, now).map_or(0, |meter| meter.rate.limit());
                Refusal::RateLimited { limit, retry_after }
            }
            None => {
                let limit = shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.max_holds));
                Refusal::TooManyInFlight { limit }
            }
        });
    };
    let fits =
        |shard: &Meter| Quantity::ALL.into_iter().all(|q| q.in_demand(demand) <= q.of(shard).unwrap_or(u64::MAX));
    if fits(&shards[to]) {
        return Way::Try(number(to));
    }
    let average = |q: Quantity| q.sum(shards).unwrap_or(u64::MAX) / active as u64;
    let rich = Quantity::ALL.into_iter().all(|q| average(q) >= q.in_demand(demand).saturating_mul(RICH));
    if !rich && let Some(other) = open.iter().find(|i| fits(&shards[**i])) {
        return Way::Try(number(*other));
    }
    Way::Borrow { to: number(to), gifts: gifts(shards, to, demand, average) }
}

/// Fills the shard `to` up to the average, and in any case with what `demand` takes: from those that have more than the
/// average, the richest first, then from whoever has anything.
fn gifts(shards: &[Meter], to: usize, demand: &Demand, average: impl Fn(Quantity) -> u64) -> Vec<Gift> {
    let nothing = |from: usize| Gift { from: number(from), amounts: Amounts::NONE, credits: 0 };
    let mut gifts: Vec<Gift> = (0..shards.len()).map(nothing).collect();
    for quantity in Quantity::ALL.into_iter().filter(|q| q.in_demand(demand) > 0) {
        let (Some(own), need, average) = (quantity.of(&shards[to]), quantity.in_demand(demand), average(quantity))
        else {
            continue;
        };
        if own >= need && own >= average / 2 {
            continue;
        }
        let mut others: Vec<usize> = (0..shards.len()).filter(|i| *i != to).collect();
        let has = |i: usize| quantity.of(&shards[i]).unwrap_or(0);
        others.sort_by_key(|i| std::cmp::Reverse(has(*i)));
        let mut given = vec![0_u64; shards.len()];
        for (wanted, kept) in [(need.max(average), average), (need, 0)] {
            for &from in &others {
                let got: u64 = own + given.iter().sum::<u64>();
                let more = (has(from) - given[from]).saturating_sub(kept).min(wanted.saturating_sub(got));
                given[from] += more;
            }
        }
        for (gift, amount) in gifts.iter_mut().zip(given) {
            quantity.add(gift, amount);
        }
    }
    gifts.retain(|gift| gift.amounts != Amounts::NONE || gift.credits > 0);
    gifts
}

/// Everything that a shard has which admits no more, to be gathered in the main one.
#[must_use]
pub fn leftovers(shard: &Meter) -> Option<Gift> {
    let amounts = shard.left.limited().fold(Amounts::NONE, |sum, (resource, left)| sum.with(resource, left));
    let gift = Gift { from: shard.shards.number, amounts, credits: shard.credits };
    (gift.amounts != Amounts::NONE || gift.credits > 0).then_some(gift)
}

/// How much each of the shards gives of `amount` when it is taken from all of them, the main one first.
#[must_use]
pub fn taken_from_each(has: impl IntoIterator<Item = u64>, amount: u64) -> Vec<u64> {
    let mut missing = amount;
    has.into_iter()
        .map(|has| {
            let taken = has.min(missing);
            missing -= taken;
            taken
        })
        .collect()
}

/// Something that is moved between shards.
#[derive(Clone, Copy)]
enum Quantity {
    Left(Resource),
    Credits,
}

impl Quantity {
    const ALL: [Self; 5] = [
        Self::Left(Resource::Messages),
        Self::Left(Resource::LlmTokens),
        Self::Left(Resource::Images),
        Self::Left(Resource::ApiCalls),
        Self::Credits,
    ];

    /// `None` for what is not counted down.
    fn of(self, shard: &Meter) -> Option<u64> {
        match self {
            Self::Left(resource) => shard.left.get(resource).number(),
            Self::Credits => Some(shard.credits),
        }
    }

    fn sum(self, shards: &[Meter]) -> Option<u64> {
        shards.iter().map(|shard| self.of(shard)).try_fold(0_u64, |sum, has| Some(sum.saturating_add(has?)))
    }

    fn in_demand(self, demand: &Demand) -> u64 {
        match self {
            Self::Left(resource) => demand.amounts.get(resource),
            Self::Credits => demand.credits,
        }
    }

    fn add(self, gift: &mut Gift, amount: u64) {
        match self {
            Self::Left(resource) => gift.amounts = gift.amounts.with(resource, gift.amounts.get(resource) + amount),
            Self::Credits => gift.credits += amount,
        }
    }
}

fn number(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{plans::Plans, time::Period};

    fn shards(left: &[u64], credits: &[u64]) -> Vec<Meter> {
        let plans = Plans::parse(crate::plans::DEFAULT_PLANS).unwrap();
        let new = Meter::new(plans.first(), Period::of(0));
        let active = u8::try_from(left.len()).unwrap();
        let of = |(place, (left, credits)): (usize, (&u64, &u64))| Meter {
            left: Allowances::from_fn(|r| if r == Resource::Images { Limit::Unlimited } else { Limit::Of(*left) }),
            credits: *credits,
            shards: Shards { number: number(place), wanted: active, active, made: active, moved: 0 },
            ..new.clone()
        };
        left.iter().zip(credits).enumerate().map(of).collect()
    }

    fn messages(count: u64) -> Demand {
        Demand { amounts: Amounts::NONE.with(Resource::Messages, count).with(Resource::Images, 7), credits: 0 }
    }

    proptest! {
        #[test]
        fn parts_of_rate_and_flight_are_the_whole_and_none_is_empty(
            wanted in 0_u8..100, per_minute in 1_u64..100_000, burst in 1_u64..200, in_flight in 1_u64..2_000,
        ) {
            let rate = Rate::per_minute(per_minute, burst);
            let active = active(wanted, rate, in_flight);
            prop_assert!((1..=MOST_SHARDS).contains(&active));
            let parts: Vec<_> = (0..active).map(|number| share(number, active, rate, in_flight)).collect();
            prop_assert!(parts.iter().all(|part| part.max_holds > 0 && part.rate.burst >= 0));
            prop_assert_eq!(parts.iter().map(|part| part.max_holds).sum::<u64>(), in_flight);
            prop_assert_eq!(parts.iter().map(|part| at_once(part.rate)).sum::<u64>(), burst);
            prop_assert!(parts.iter().all(|part| part.rate.interval == rate.interval * i64::from(active)));
            prop_assert_eq!(share(active, active, rate, in_flight).max_holds, 0);
        }

        #[test]
        fn what_all_cover_is_borrowed_without_taking_more_than_there_is(
            has in prop::collection::vec((0_u64..100, 0_u64..100), 1..16), need in 0_u64..400, price in 0_u64..400,
            at in 0_u8..20,
        ) {
            let (left, credits): (Vec<_>, Vec<_>) = has.into_iter().unzip();
            let mut shards = shards(&left, &credits);
            let demand = Demand { credits: price, ..messages(need) };
            let covered = need <= left.iter().sum() && price <= credits.iter().sum();
            match way(&shards, at, &demand, 0) {
                Way::Lacking(_) => prop_assert!(!covered),
                Way::Try(to) => prop_assert!(shards[usize::from(to)].refusal(&demand, 0).is_none()),
                Way::Borrow { to, gifts } => {
                    prop_assert!(covered);
                    prop_assert!(shards[usize::from(to)].refusal(&demand, 0).is_some());
                    for gift in gifts {
                        prop_assert!(gift.from != to);
                        let lower = |shard: &mut Meter| {
                            let amounts = shard.left;
                            shard.left = Allowances::from_fn(|r| match amounts.get(r) {
                                Limit::Of(n) => Limit::Of(n.checked_sub(gift.amounts.get(r)).expect("it has that")),
                                Limit::Unlimited => Limit::Unlimited,
                            });
                            shard.credits = shard.credits.checked_sub(gift.credits).expect("it has that");
                        };
                        lower(&mut shards[usize::from(gift.from)]);
                        let to = &mut shards[usize::from(to)];
                        let amounts = to.left;
                        to.left = Allowances::from_fn(|r| match amounts.get(r) {
                            Limit::Of(n) => Limit::Of(n + gift.amounts.get(r)),
                            Limit::Unlimited => Limit::Unlimited,
                        });
                        to.credits += gift.credits;
                    }
                    prop_assert!(shards[usize::from(to)].refusal(&demand, 0).is_none());
                }
                Way::Later(refusal) => prop_assert!(false, "{refusal:?}"),
            }
        }
    }

    #[test]
    fn an_empty_shard_is_filled_up_while_there_is_much_and_passed_over_when_there_is_little() {
        let Way::Borrow { to: 1, gifts } = way(&shards(&[100, 0, 0, 20], &[0; 4]), 1, &messages(1), 0) else {
            panic!()
        };
        assert_eq!(gifts, [Gift { from: 0, amounts: Amounts::NONE.with(Resource::Messages, 30), credits: 0 }]);
        assert_eq!(way(&shards(&[0, 0, 3, 0], &[0; 4]), 1, &messages(1), 0), Way::Try(2));
        let Way::Borrow { to: 1, gifts } = way(&shards(&[1, 0, 1, 1], &[0; 4]), 1, &messages(3), 0) else { panic!() };
        assert_eq!(gifts.len(), 3);
    }

    #[test]
    fn the_wait_is_the_shortest_and_places_are_looked_for_everywhere() {
        let mut shards = shards(&[10; 3], &[0; 3]);
        for (shard, ready_at) in shards.iter_mut().zip([500, 300, 400]) {
            shard.ready_at = ready_at;
        }
        let limit = together(&shards, 0).unwrap().rate.limit();
        assert_eq!(way(&shards, 0, &messages(1), 0), Way::Later(Refusal::RateLimited { limit, retry_after: 300 }));
        assert_eq!(way(&shards, 0, &messages(1), 300), Way::Try(1));
        for shard in &mut shards {
            shard.max_holds = 0;
        }
        shards[1].max_holds = 1;
        assert_eq!(way(&shards, 0, &messages(1), 500), Way::Try(1));
        shards[1].max_holds = 0;
        assert_eq!(way(&shards, 0, &messages(1), 500), Way::Later(Refusal::TooManyInFlight { limit: 0 }));
    }

    #[test]
    fn together_they_are_the_meter_in_one_piece() {
        let mut shards = shards(&[5, 7], &[1, 2]);
        let rate = Rate::per_minute(60, 10);
        for (place, shard) in shards.iter_mut().enumerate() {
            let part = share(number(place), 2, rate, 9);
            (shard.rate, shard.max_holds) = (part.rate, part.max_holds);
        }
        let all = together(&shards, 1_000_000).unwrap();
        assert_eq!(
            (all.left.get(Resource::Messages), all.left.get(Resource::Images)),
            (Limit::Of(12), Limit::Unlimited)
        );
        assert_eq!((all.credits, all.max_holds, all.rate), (3, 9, rate));
        assert_eq!(all.rate.remaining(all.ready_at, 1_000_000), 10);
    }
}

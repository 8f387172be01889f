//! Do meter, ledger, records and roll-ups of a tenant tell the same story? Roll-ups that do not are repaired.
//!
//! The books are read while the tenant goes on using them, so a difference counts only when two looks, minutes
//! apart, agree on it:
//!
//! - [`Store::look`] compares cheaply. What differs is a suspicion, no more: a usage event may be on its way.
//! - [`Store::look_again`] takes a suspicion some minutes later. The *meter* is not read again, nor the *ledger*: what they
//!   said then must have become records by now, except what was in flight then. A *row* of the roll-ups counts only when it has not
//!   been written since, and is repaired under the condition that this is still so.
//!
//! Why a repair is safe beside the aggregator: every write of the aggregator to a row raises its `requests`, every
//! repair raises its `repairs`, and no row is ever deleted. So equal numbers mean that nothing was written in
//! between. And since record and roll-up are written in one transaction, whose parts become visible within moments
//! of each other, the records behind a row that has stood for minutes are all there to be read.
//!
//! Records that DynamoDB deletes (none are now) would have to outlive the two periods that are looked at.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    Millis, Period, RequestId, Resource, metering::Meter, plans::Limit, sharding, time::day, usage::UsageEvent,
};

use crate::{
    Store, TenantScope,
    db::{Range, back_off, prefix_end},
    error::{Result, StoreError},
    item::{Item, Reader, n, s},
    keys::{self, Key},
    usage::{RollUp, RollUpKey, Sums, read_record, read_roll_up},
};

/// Which of a request and a look at the meter came first is certain only when they lie this far apart: clocks differ,
/// and a request is stamped a moment after its hold was taken.
const MARGIN: Millis = 60_000;

/// Rows of one suspicion. It travels in a message; what does not fit waits for the next night.
const MOST_ROWS: usize = 400;

const TRIES: u32 = 5;

/// Asked between pages; once it says yes, a look ends without a verdict.
pub type TimeIsUp<'a> = &'a (dyn Fn() -> bool + Sync);

/// What a first look found.
#[derive(Debug)]
pub enum Look {
    /// The books agree.
    Clean,
    /// They may not.
    Suspicious(Suspicion),
    /// There was not enough time.
    Unfinished,
}

/// What looked wrong, to be looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// The later one of the two periods, as [`Period::index`].
    period: i64,
    meters: Vec<MeterSeen>,
    rows: Vec<RowSeen>,
    #[serde(default)]
    credits: Option<CreditsSeen>,
}

/// What the ledger and the balance said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CreditsSeen {
    at: Millis,
    /// What was booked, less what was left and what requests in flight held.
    charged: i64,
    /// Requests that were in flight, and so not charged yet.
    holds: BTreeSet<RequestId>,
}

/// What is compared with the records.
#[derive(Clone, Copy)]
struct Seen<'a> {
    meters: &'a [MeterSeen],
    credits: Option<&'a CreditsSeen>,
}

/// What the meter said of one period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MeterSeen {
    period: i64,
    at: Millis,
    charged: BTreeMap<Resource, i64>,
    /// Requests that were in flight, and so not charged yet.
    holds: BTreeSet<RequestId>,
}

/// A roll-up row and how often it had been written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RowSeen {
    sort_key: String,
    requests: u64,
    repairs: u64,
}

/// Books that do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Allowance − left − holds is not what the records add up to.
    Meter {
        /// The period.
        period: Period,
        /// The resource.
        resource: Resource,
        /// What the meter charged.
        charged: i64,
        /// What the records say.
        recorded: u64,
    },
    /// Ledger − credits − holds is not what the records of all time add up to.
    Credits {
        /// The micro-credits that were charged by that reckoning.
        charged: i64,
        /// What the records say.
        recorded: u64,
    },
    /// A roll-up row was not the sum of its records. It is now.
    RollUp(Box<Repair>),
}

/// What was repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The row.
    pub key: RollUpKey,
    /// What it said; nothing when it was missing.
    pub stored: Option<Sums>,
    /// What the records add up to.
    pub recorded: Sums,
}

struct Row {
    roll_up: RollUp,
    repairs: u64,
}

/// What the records of both periods add up to.
#[derive(Default)]
struct Recorded {
    rows: BTreeMap<String, RollUp>,
    /// For each meter, what it must have charged, and what it may have charged beyond that.
    charged: Vec<BTreeMap<Resource, (u64, u64)>>,
    /// The same of credits, with what was charged in all months before.
    credits: (u64, u64),
}

impl Store {
    /// Compares the books of the tenant's current and last period.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look(&self, scope: &TenantScope, time_is_up: TimeIsUp<'_>) -> Result<Look> {
        let meters = self.meters(scope).await?;
        let period = meters[0].period();
        if period.next() < Period::of(self.now()) {
            // Nobody used it in either period, or the month has just been rolled over.
            return Ok(Look::Clean);
        }
        let credits = self.credits_seen(scope).await?;
        let rows = self.rows(scope, period, false).await?;
        let seen = Seen { meters: &meters, credits: credits.as_ref() };
        let Some(recorded) = self.recorded(scope, period, seen, false, time_is_up).await? else {
            return Ok(Look::Unfinished);
        };
        let credits = credits.filter(|seen| seen.difference(recorded.credits).is_some());
        let meters: Vec<_> = meters
            .into_iter()
            .zip(&recorded.charged)
            .filter(|(seen, charged)| seen.differences(charged).next().is_some())
            .map(|(seen, _)| seen)
            .collect();
        let rows: Vec<_> = differing(&rows, &recorded.rows, period).take(MOST_ROWS).collect();
        if meters.is_empty() && rows.is_empty() && credits.is_none() {
            return Ok(Look::Clean);
        }
        Ok(Look::Suspicious(Suspicion { period: period.index(), meters, rows, credits }))
    }

    /// Judges a suspicion that is some minutes old, and repairs the roll-ups that were wrong. `None` when there was not
    /// enough time.
    ///
    /// # Errors
    /// [`StoreError`]; rows may have been repaired by then.
    pub async fn look_again(
        &self,
        scope: &TenantScope,
        suspicion: &Suspicion,
        time_is_up: TimeIsUp<'_>,
    ) -> Result<Option<Vec<Difference>>> {
        let period = Period::from_index(suspicion.period).unwrap_or_else(|| Period::of(self.now()));
        let rows = self.rows(scope, period, true).await?;
        let Suspicion { meters, credits, .. } = suspicion;
        let seen = Seen { meters, credits: credits.as_ref() };
        let Some(mut recorded) = self.recorded(scope, period, seen, true, time_is_up).await? else {
            return Ok(None);
        };
        let mut differences: Vec<_> =
            meters.iter().zip(&recorded.charged).flat_map(|(seen, charged)| seen.differences(charged)).collect();
        differences.extend(credits.as_ref().and_then(|seen| seen.difference(recorded.credits)));
        for seen in &suspicion.rows {
            let (stored, recorded) = (rows.get(&seen.sort_key), recorded.rows.remove(&seen.sort_key));
            let sums = recorded.as_ref().map_or_else(Sums::default, |row| row.sums);
            let has_stood = RowSeen::of(&seen.sort_key, stored) == *seen;
            if !has_stood || stored.map_or_else(Sums::default, |row| row.roll_up.sums) == sums {
                continue;
            }
            let Some(key) = stored.map(|row| &row.roll_up.key).or(recorded.as_ref().map(|row| &row.key)) else {
                continue;
            };
            if self.repair(scope, key, stored, &sums).await? {
                let stored = stored.map(|row| row.roll_up.sums);
                let repair = Repair { key: key.clone(), stored, recorded: sums };
                differences.push(Difference::RollUp(Box::new(repair)));
            }
        }
        Ok(Some(differences))
    }

    /// What the meter says of its period, and, if it was closed, of the one before.
    async fn meters(&self, scope: &TenantScope) -> Result<Vec<MeterSeen>> {
        for _ in 0..TRIES {
            let at = self.now();
            let meter = self.meter_as_it_is(scope).await?;
            let last = previous(meter.period);
            let closed = self.closed_meter(scope, last).await?;
            let of_last = |meter: &Meter| -> BTreeSet<_> {
                meter.holds.iter().filter(|(_, hold)| hold.period == last).map(|(id, _)| id.clone()).collect()
            };
            // A hold of the closed period that is settled between the two reads would show on one side only.
            if !of_last(&meter).is_empty() && of_last(&meter) != of_last(&self.meter_as_it_is(scope).await?) {
                continue;
            }
            let mut seen = vec![MeterSeen::of(&meter, &meter, at)];
            seen.extend(closed.map(|closed| MeterSeen::of(&closed, &meter, at)));
            return Ok(seen);
        }
        Err(StoreError::Contention)
    }

    /// What ledger and balance say; `None` where there never were any credits.
    async fn credits_seen(&self, scope: &TenantScope) -> Result<Option<CreditsSeen>> {
        for attempt in 0..TRIES {
            let at = self.now();
            if let Some((rows, shards)) = self.ledger_and_shards(scope, None).await?
                && let Some(meter) = sharding::together(&shards, at)
            {
                let booked = rows.iter().fold(0, |sum: i64, row| sum.saturating_add(row.amount));
                // Not saturating at nothing: a balance that was given too much must show.
                let charged = booked - signed(meter.credits) - signed(meter.credits_held());
                let holds = meter.holds.into_keys().collect();
                return Ok((!rows.is_empty() || charged != 0).then_some(CreditsSeen { at, charged, holds }));
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    /// The meter in whatever period it is.
    pub(crate) async fn meter_as_it_is(&self, scope: &TenantScope) -> Result<Meter> {
        let shards = self.shards_at_rest(scope, None).await?;
        let missing = || StoreError::Corrupt { key: keys::tenant(scope), what: "the tenant has no meter".into() };
        sharding::together(&shards, self.now()).ok_or_else(missing)
    }

    /// The roll-ups of `period` and the one before, by sort key.
    async fn rows(&self, scope: &TenantScope, period: Period, consistent: bool) -> Result<BTreeMap<String, Row>> {
        let pk = keys::tenant(scope);
        let (from, to) =
            (keys::roll_ups_from(&day(previous(period).start())), keys::roll_ups_to(&day(period.end() - 1)));
        let items = self.all(Range { limit: 1000, consistent, ..Range::between(&pk, &from, &to) }).await?;
        let row = |item: &Item| {
            let reader = Reader(item);
            let (roll_up, sort_key) = (read_roll_up(item)?, reader.text(keys::SK)?.to_owned());
            if keys::roll_up(scope, &roll_up.key).sk != sort_key {
                return Err(reader.corrupt("is the roll-up of something else than its key says"));
            }
            let repairs = reader.optional_number("repairs")?.unwrap_or(0);
            Ok((sort_key, Row { roll_up, repairs }))
        };
        items.iter().map(row).collect()
    }

    /// Reads the records of `period` and the one before. `None` when there was not enough time.
    async fn recorded(
        &self,
        scope: &TenantScope,
        period: Period,
        seen: Seen<'_>,
        consistent: bool,
        time_is_up: TimeIsUp<'_>,
    ) -> Result<Option<Recorded>> {
        let mut recorded = Recorded { charged: vec![BTreeMap::new(); seen.meters.len()], ..Recorded::default() };
        if seen.credits.is_some() {
            // The rows of months that are over were right when they were looked at.
            let (from, to) = ("0000-01-01", day(previous(period).start() - 1));
            let credits = &mut recorded.credits.0;
            self.each_roll_up(scope, from, &to, |row| *credits = credits.saturating_add(row.sums.credits)).await?;
        }
        for period in [previous(period), period] {
            let (pk, from) = (keys::tenant(scope), keys::records_of(period));
            let to = prefix_end(&from);
            let mut cursor: Option<String> = None;
            loop {
                let range = Range { limit: 1000, consistent, ..Range::between(&pk, &from, &to) };
                let (items, next) = self.page(Range { cursor: cursor.as_deref(), ..range }).await?;
                for item in &items {
                    recorded.add(scope, &read_record(item)?, seen);
                }
                match next {
                    Some(_) if time_is_up() => return Ok(None),
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
        Ok(Some(recorded))
    }

    /// Makes the row say `sums`, if it still is what was read. `false` when somebody wrote to it.
    async fn repair(&self, scope: &TenantScope, key: &RollUpKey, read: Option<&Row>, sums: &Sums) -> Result<bool> {
        let at: Key = keys::roll_up(scope, key);
        let mut set = vec!["org = :org", "#day = :day", "#model = :model", "#operation = :operation"];
        let mut update = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(at.attributes()))
            .expression_attribute_names("#day", "day")
            .expression_attribute_names("#model", "model")
            .expression_attribute_names("#operation", "operation")
            .expression_attribute_values(":org", s(scope.org().as_str()))
            .expression_attribute_values(":day", s(&key.day))
            .expression_attribute_values(":model", s(&key.model))
            .expression_attribute_values(":operation", s(key.operation));
        if let Some(id) = &key.key {
            set.push("api_key = :key");
            update = update.expression_attribute_values(":key", s(id.as_str()));
        }
        if let Some(id) = &key.member {
            set.push("#member = :member");
            update = update
                .expression_attribute_names("#member", "member")
                .expression_attribute_values(":member", s(id.as_str()));
        }
        let mut set: Vec<String> = set.into_iter().map(ToOwned::to_owned).collect();
        let mut condition = vec![];
        let (then, repairs) = read.map_or((None, 0), |row| (Some(row.roll_up.sums), row.repairs));
        let old = then.map_or([("", 0); 14], |sums| sums.numbers());
        let mut changes: Vec<_> =
            sums.numbers().into_iter().zip(old).map(|((name, new), (_, old))| (name, old, new)).collect();
        changes.push(("repairs", repairs, repairs + 1));
        for (name, old, new) in changes {
            set.push(format!("#{name} = :{name}"));
            update = update
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), n(new));
            if then.is_some() {
                let absent = if old == 0 { format!("attribute_not_exists(#{name}) OR ") } else { String::new() };
                condition.push(format!("({absent}#{name} = :old_{name})"));
                update = update.expression_attribute_values(format!(":old_{name}"), n(old));
            }
        }
        let condition = if then.is_some() { condition.join(" AND ") } else { "attribute_not_exists(pk)".to_owned() };
        let update = update.update_expression(format!("SET {}", set.join(", "))).condition_expression(condition);
        match update.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(
                    UpdateItemError::ConditionalCheckFailedException(_)
                    | UpdateItemError::TransactionConflictException(_),
                ) => Ok(false),
                _ => Err(StoreError::from_sdk(error)),
            },
        }
    }
}

impl MeterSeen {
    /// `books` are those of the period, `meter` has the requests in flight.
    fn of(books: &Meter, meter: &Meter, at: Millis) -> Self {
        let holds = || meter.holds.iter().filter(|(_, hold)| hold.period == books.period);
        let mut charged = BTreeMap::new();
        for resource in Resource::ALL {
            if let (Limit::Of(given), Limit::Of(left)) = (books.given.get(resource), books.left.get(resource))
                && !books.partial[resource as usize]
            {
                let held: u64 = holds().map(|(_, hold)| hold.taken().get(resource)).sum();
                // Not saturating: a meter that gave back too much must show.
                charged.insert(resource, signed(given) - signed(left) - signed(held));
            }
        }
        Self { period: books.period.index(), at, charged, holds: holds().map(|(id, _)| id.clone()).collect() }
    }

    fn period(&self) -> Period {
        Period::from_index(self.period).unwrap_or_else(|| Period::of(self.at))
    }

    fn differences<'a>(
        &'a self,
        recorded: &'a BTreeMap<Resource, (u64, u64)>,
    ) -> impl Iterator<Item = Difference> + 'a {
        self.charged.iter().filter_map(|(&resource, &charged)| {
            let recorded = recorded.get(&resource).copied().unwrap_or_default();
            let period = self.period();
            (!agree(charged, recorded)).then_some(Difference::Meter { period, resource, charged, recorded: recorded.0 })
        })
    }
}

impl CreditsSeen {
    fn difference(&self, recorded: (u64, u64)) -> Option<Difference> {
        let charged = self.charged;
        (!agree(charged, recorded)).then_some(Difference::Credits { charged, recorded: recorded.0 })
    }
}

/// Whether that was charged which is recorded for sure, and nothing but what is possible beyond that.
fn agree(charged: i64, (sure, possible): (u64, u64)) -> bool {
    (signed(sure)..=signed(sure.saturating_add(possible))).contains(&charged)
}

impl RowSeen {
    fn of(sort_key: &str, row: Option<&Row>) -> Self {
        let (requests, repairs) = row.map_or((0, 0), |row| (row.roll_up.sums.requests, row.repairs));
        Self { sort_key: sort_key.to_owned(), requests, repairs }
    }
}

impl Recorded {
    fn add(&mut self, scope: &TenantScope, event: &UsageEvent, seen: Seen<'_>) {
        let key = RollUpKey::of(event);
        let row = self.rows.entry(keys::roll_up(scope, &key).sk).or_insert(RollUp { key, sums: Sums::default() });
        row.sums.add(&Sums::of(event));
        let add = |at: Millis, (sure, possible): &mut (u64, u64), amount| {
            *(if event.at <= at - MARGIN { sure } else { possible }) += amount;
        };
        let counts = |at: Millis, holds: &BTreeSet<RequestId>| !holds.contains(&event.id) && event.at < at + MARGIN;
        for (seen, charged) in seen.meters.iter().zip(&mut self.charged) {
            if seen.period != event.period || !counts(seen.at, &seen.holds) {
                continue;
            }
            for (resource, amount) in event.charged.iter().filter(|(_, amount)| *amount > 0) {
                add(seen.at, charged.entry(resource).or_default(), amount);
            }
        }
        if let Some(seen) = seen.credits.filter(|seen| counts(seen.at, &seen.holds)) {
            add(seen.at, &mut self.credits, event.credits);
        }
    }
}

/// The rows on which both sides differ, of the days whose records were all read.
fn differing<'a>(
    stored: &'a BTreeMap<String, Row>,
    recorded: &'a BTreeMap<String, RollUp>,
    period: Period,
) -> impl Iterator<Item = RowSeen> + 'a {
    let first = keys::roll_ups_from(&day(previous(period).start()));
    let names: BTreeSet<&String> = stored.keys().chain(recorded.keys()).collect();
    names.into_iter().filter(move |name| **name >= first).filter_map(|name| {
        let (row, sums) = (stored.get(name), recorded.get(name).map(|row| row.sums));
        let is_wrong = row.map(|row| row.roll_up.sums).unwrap_or_default() != sums.unwrap_or_default();
        is_wrong.then(|| RowSeen::of(name, row))
    })
}

fn previous(period: Period) -> Period {
    Period::from_index(period.index() - 1).unwrap_or(period)
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

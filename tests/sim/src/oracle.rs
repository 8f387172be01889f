//! What must be true when everything has come to rest, judged by what clients and the vendor saw and by what is stored.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_domain::{
    Amounts, Period, RequestId, Resource,
    budget::{BudgetId, Owner},
    catalogue::Catalogue,
    ledger::LedgerRow,
    metering::{Demand, Meter, Refusal},
    time::day,
    usage::{Operation, Status, UsageEvent},
};
use tenantry_store::{Admission, Look, Store, Sums};

use crate::{
    budgets,
    client::{Outcome, trace_id},
    payer::PACKAGE,
    scenario::{CATALOGUE, Event},
    vendor::{AtVendor, Report},
    world::{Tenant, World, lock},
};

/// What clients and the vendor saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// How often the vendor was asked for a call.
    pub(crate) asked: BTreeMap<usize, u32>,
    /// What it reported.
    pub(crate) reported: BTreeMap<usize, Report>,
    pub(crate) outcomes: BTreeMap<usize, Outcome>,
    pub(crate) at_vendor: AtVendor,
    /// Reservations that were made, or may have been, without their maker hearing of it in time.
    pub(crate) unheard: usize,
    /// What was seen to be wrong on the way.
    pub(crate) violations: Vec<String>,
}

struct Books<'a> {
    world: &'a World,
    store: &'a Store,
    violations: Vec<String>,
    /// Records of requests that expired, and calls that may be theirs.
    expired: usize,
    possible: usize,
}

/// Everything that is wrong.
pub(crate) async fn judge(world: &World, store: &Store) -> Vec<String> {
    let violations = std::mem::take(&mut lock(&world.seen).violations);
    let mut books = Books { world, store, violations, expired: 0, possible: 0 };
    books.nothing_below_zero();
    let tenants: Vec<_> = lock(&world.tenants).clone();
    for (index, tenant) in tenants.iter().enumerate() {
        if let Err(error) = books.of(index, tenant).await {
            books.wrong(format!("tenant {index}: the books cannot be read: {error}"));
        }
    }
    let (expired, possible, unheard) = (books.expired, books.possible, lock(&world.seen).unheard);
    books.expect(expired <= possible + unheard, || {
        format!("{expired} requests expired, of {possible} calls that could have and {unheard} unheard reservations")
    });
    books.expect(expired == 0 || !world.scenario.is_faultless(), || {
        format!("{expired} requests expired, and nothing went wrong that could have kept them from being settled")
    });
    books.violations
}

impl Books<'_> {
    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }

    fn nothing_below_zero(&mut self) {
        for item in self.world.items() {
            let left = item["left"]["M"].as_object().into_iter().flatten();
            let numbers = left.map(|(name, value)| (name.as_str(), value)).chain([("credits", &item["credits"])]);
            for (name, value) in numbers {
                let number = value["N"].as_str().and_then(|number| number.parse::<i64>().ok());
                self.expect(number.is_none_or(|number| number >= 0), || {
                    format!("{name} is {number:?} in {}", item["sk"]["S"])
                });
            }
        }
    }

    async fn of(&mut self, index: usize, tenant: &Tenant) -> tenantry_store::Result<()> {
        let (store, scope) = (self.store, &tenant.scope);
        let meter = store.meter(scope).await?;
        self.expect(meter.holds.is_empty(), || format!("tenant {index}: holds remain: {:?}", meter.holds.len()));
        let first = Period::of(self.world.scenario.start);
        let mut all = vec![];
        for period in [first, Period::of(first.end())] {
            let records = self.records(scope, period).await?;
            let known =
                if period == meter.period { Some(meter.clone()) } else { store.closed_meter(scope, period).await? };
            match &known {
                None => self.expect(records.is_empty(), || format!("tenant {index} {period}: records and no meter")),
                Some(known) => {
                    for resource in Resource::ALL {
                        let recorded: u64 = records.iter().map(|record| record.charged.get(resource)).sum();
                        let charged = known.charged(resource);
                        self.expect(charged.is_none_or(|charged| charged == recorded), || {
                            format!(
                                "tenant {index} {period} {}: the meter charged {charged:?}, the records say {recorded}",
                                resource.name()
                            )
                        });
                    }
                }
            }
            self.budgets(index, tenant, period, &records).await?;
            all.extend(records);
        }
        self.roll_ups(index, tenant, &all).await?;
        self.credits(index, tenant, meter.credits, &all).await?;
        self.calls(index, &all);
        self.plan(index, tenant, &meter);
        let look = store.look(scope, &|| false).await?;
        self.expect(matches!(look, Look::Clean), || format!("tenant {index}: the reconciler found {look:?}"));
        self.all_is_there(index, tenant, &meter).await
    }

    /// The plan is what the last entitlement says, in every shard.
    fn plan(&mut self, index: usize, tenant: &Tenant, meter: &Meter) {
        let scenario = &self.world.scenario;
        let changes =
            scenario.events.iter().filter(|(_, of, _)| *of == index).filter_map(|(_, _, event)| match event {
                Event::Plan { plan, version } => Some((*version, *plan)),
                _ => None,
            });
        let expected = changes.max().map_or(scenario.tenants[index], |(_, plan)| plan);
        for item in self.world.items() {
            if item["sk"]["S"] != "METER" || item["org"]["S"] != tenant.org.as_str() {
                continue;
            }
            let (plan, period) = (&item["plan"]["S"], &item["period"]["S"]);
            self.expect(plan == expected && *period == *meter.period.to_string(), || {
                format!("tenant {index}: a meter is on {plan} in {period}, not on {expected} in {}", meter.period)
            });
        }
    }

    /// All that is left is there for one request, whichever shards have it, and not one unit more.
    async fn all_is_there(&mut self, index: usize, tenant: &Tenant, meter: &Meter) -> tenantry_store::Result<()> {
        let (store, scope) = (self.store, &tenant.scope);
        let all = Demand {
            amounts: meter.left.limited().fold(Amounts::NONE, |sum, (resource, left)| sum.with(resource, left)),
            credits: meter.credits,
        };
        let mut demands = vec![(all, true), (Demand { credits: all.credits + 1, ..all }, false)];
        for (resource, left) in meter.left.limited() {
            demands.push((Demand { amounts: Amounts::NONE.with(resource, left + 1), credits: 0 }, false));
        }
        for (demand, is_covered) in demands {
            let request = RequestId::at(self.world.now());
            let admission = store.reserve(scope, &request, &demand, 60_000).await?;
            let fits = match &admission {
                Admission::Admitted(_) => is_covered,
                Admission::Refused(Refusal::QuotaExceeded { .. } | Refusal::OutOfCredits { .. }) => !is_covered,
                Admission::Refused(_) => false,
            };
            self.expect(fits, || format!("tenant {index}: with {all:?} left, {demand:?} is answered {admission:?}"));
            store.release(scope, &request).await?;
        }
        Ok(())
    }

    async fn records(
        &self,
        scope: &tenantry_store::TenantScope,
        period: Period,
    ) -> tenantry_store::Result<Vec<UsageEvent>> {
        let (mut records, mut cursor) = (vec![], None);
        loop {
            let page = self.store.usage_records(scope, period, 100, cursor.as_deref()).await?;
            records.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(records),
            }
        }
    }

    /// What was used of budgets is what their records say. What expired was charged to the budgets that it was held of, and
    /// its record knows no model.
    async fn budgets(
        &mut self,
        index: usize,
        tenant: &Tenant,
        period: Period,
        records: &[UsageEvent],
    ) -> tenantry_store::Result<()> {
        let key = &tenant.keys[1].0;
        for model in [None, Some("priced")] {
            let id = BudgetId { owner: Owner::ApiKey(key.clone()), model: model.map(str::to_owned) };
            let spent = self.store.spent(&tenant.scope, &id, period).await?;
            let sum = |belongs: &dyn Fn(&UsageEvent) -> bool| {
                let of_key = records.iter().filter(|record| record.key.as_ref() == Some(key) && belongs(record));
                of_key.fold((Amounts::NONE, 0), |(amounts, credits), record| {
                    (amounts.plus(&record.charged), credits + record.credits)
                })
            };
            let is_expired = |record: &UsageEvent| record.status == Status::Expired;
            let least = sum(&|record| model.is_none_or(|model| record.model == model));
            let most = sum(&|record| model.is_none_or(|model| record.model == model || is_expired(record)));
            let fits = least.0.minus(&spent.amounts) == Amounts::NONE
                && spent.amounts.minus(&most.0) == Amounts::NONE
                && (least.1..=most.1).contains(&spent.credits);
            self.expect(fits, || {
                format!(
                    "tenant {index} {period} {model:?}: the budget says {spent:?}, its records {least:?} to {most:?}"
                )
            });
            let limits = if model.is_none() { budgets().whole } else { budgets().models["priced"].clone() };
            let kept = limits.limits.iter().all(|(resource, limit)| spent.amounts.get(*resource) <= *limit)
                && limits.credits.is_none_or(|limit| spent.credits <= limit);
            self.expect(kept, || format!("tenant {index} {period} {model:?}: {spent:?} is more than {limits:?}"));
        }
        Ok(())
    }

    async fn roll_ups(&mut self, index: usize, tenant: &Tenant, records: &[UsageEvent]) -> tenantry_store::Result<()> {
        let name = |day: &str, model: &str, key: Option<&str>, member: Option<&str>, operation: &str| {
            format!("{day} {model} {} {} {operation}", key.unwrap_or("-"), member.unwrap_or("-"))
        };
        let mut recorded: BTreeMap<String, Sums> = BTreeMap::new();
        for event in records {
            let (key, member) = (event.key.as_ref().map(|id| id.as_str()), event.member.as_ref().map(|id| id.as_str()));
            let sums = Sums {
                requests: 1,
                errors: u64::from(event.status != Status::Ok),
                tokens: event.tokens,
                charged: event.charged,
                credits: event.credits,
                cost: event.cost,
                overrun: event.overrun,
                amount: 0,
            };
            recorded
                .entry(name(&day(event.at), &event.model, key, member, event.operation.name()))
                .or_default()
                .add(&sums);
        }
        let rows = self.store.roll_ups(&tenant.scope, "0000-01-01", "9999-12-31").await?;
        let rolled: BTreeMap<String, Sums> = rows
            .iter()
            .map(|row| {
                let (key, member) =
                    (row.key.key.as_ref().map(|id| id.as_str()), row.key.member.as_ref().map(|id| id.as_str()));
                (name(&row.key.day, &row.key.model, key, member, row.key.operation), row.sums)
            })
            .collect();
        self.expect(recorded == rolled, || {
            format!("tenant {index}: roll-ups {rolled:#?} are not the sums of records {recorded:#?}")
        });
        Ok(())
    }

    async fn credits(
        &mut self,
        index: usize,
        tenant: &Tenant,
        left: u64,
        records: &[UsageEvent],
    ) -> tenantry_store::Result<()> {
        let ledger: Vec<LedgerRow> = self.store.ledger(&tenant.scope, 500, None).await?.items;
        let booked: i64 = ledger.iter().map(|row| row.amount).sum();
        let used: u64 = records.iter().map(|record| record.credits).sum();
        let expected = booked - i64::try_from(used).expect("few");
        self.expect(Ok(left) == u64::try_from(expected), || {
            format!("tenant {index}: {left} credits are left, ledger and records say {expected}")
        });
        let paid = self
            .world
            .scenario
            .events
            .iter()
            .filter(|(_, of, event)| *of == index && matches!(event, Event::Paid { .. }));
        let paid = u64::try_from(paid.count()).expect("few");
        let bought: i64 = ledger.iter().map(|row| row.amount).filter(|amount| *amount > 0).sum();
        // What every tenant begins with, and what it paid for.
        let expected = (1 + paid) * PACKAGE;
        self.expect(Ok(expected) == u64::try_from(bought), || {
            format!("tenant {index}: {expected} credits were paid for, {bought} were given")
        });
        Ok(())
    }

    /// Every call that was admitted has one record, and every record is of a call.
    fn calls(&mut self, index: usize, records: &[UsageEvent]) {
        let scenario = &self.world.scenario;
        let seen = std::mem::take(&mut *lock(&self.world.seen));
        let catalogue = Catalogue::parse(CATALOGUE).expect("a catalogue");
        let of_tenant: Vec<_> =
            (0..scenario.calls.len()).filter(|call| scenario.calls[*call].tenant == index).collect();
        let expired = records.iter().filter(|record| record.status == Status::Expired).count();
        let (mut unrecorded, mut possible) = (0, 0);
        for number in of_tenant {
            let call = &scenario.calls[number];
            let trace = trace_id(number);
            let found: Vec<_> = records.iter().filter(|record| record.request_id == trace).collect();
            let asked = seen.asked.get(&number).copied().unwrap_or(0);
            let outcome = seen.outcomes.get(&number);
            self.expect(outcome.is_some(), || format!("call {number} never came to an end"));
            self.expect(found.len() <= 1, || format!("call {number} has {} records", found.len()));
            self.expect(asked <= 1, || format!("call {number} was at the vendor {asked} times"));
            match outcome {
                Some(Outcome::Refused(..)) => {
                    self.expect(found.is_empty(), || format!("call {number} was refused and has a record"));
                }
                Some(Outcome::Whole(_) | Outcome::Streamed { .. }) => {
                    self.expect(asked == 1, || {
                        format!("call {number} was answered, and the vendor does not know of it")
                    });
                }
                Some(Outcome::Failed(status, code)) => {
                    let expected = matches!(status, 400 | 429 | 500 | 502 | 503 | 504);
                    self.expect(expected, || format!("call {number} ended {status} {code}"));
                }
                _ => {}
            }
            if found.is_empty() {
                unrecorded += usize::from(asked > 0);
                possible += usize::from(!matches!(outcome, Some(Outcome::Refused(..))));
            }
            let Some(record) = found.first() else { continue };
            let reported = seen.reported.get(&number);
            let tokens = record.tokens;
            let price = |tokens| catalogue.model(call.model).map_or(0, |model| model.price.of(tokens));
            let is_whole = matches!(outcome, Some(Outcome::Whole(_) | Outcome::Streamed { done: true }));
            let problem = if is_whole && record.status != Status::Ok {
                Some("was answered whole, and is recorded as if it had not been")
            } else if record.status == Status::UpstreamError || asked == 0 {
                (record.charged != Amounts::NONE || record.credits != 0).then_some("was not answered, and is charged")
            } else if record.charged.get(Resource::LlmTokens) + record.overrun != tokens.total() {
                Some("is not charged what it used")
            } else if record.charged.get(Resource::ApiCalls) != 1
                || (record.operation == Operation::Chat) != (record.charged.get(Resource::Messages) == 1)
            {
                Some("is charged as another number of calls")
            } else if record.status == Status::Ok
                && !record.estimated
                && reported.map(|reported| (reported.prompt, reported.completion))
                    != Some((tokens.prompt, tokens.completion))
            {
                Some("is recorded with other usage than the vendor reported")
            } else if record.status == Status::Ok && (reported.is_some() == record.estimated) {
                Some("is estimated, or not, though the vendor did not, or did, report")
            } else if record.overrun > 0 && reported.is_some_and(|reported| reported.within) {
                Some("ran over what was held, though it was within")
            } else if record.credits > price(&tokens)
                || (reported.is_some_and(|reported| reported.within) && record.credits < price(&tokens))
            {
                Some("is charged other credits than its price")
            } else if let Some(Outcome::Whole(Value::Object(usage))) = outcome
                && record.status == Status::Ok
                && !record.estimated
                && usage["completion_tokens"].as_u64() != Some(tokens.completion)
            {
                Some("is recorded with other usage than the client was told")
            } else {
                None
            };
            if let Some(problem) = problem {
                self.wrong(format!("call {number} {problem}: {record:?}, reported {reported:?}"));
            }
        }
        let named = records.iter().filter(|record| record.status != Status::Expired);
        let strangers = named.filter(|record| !record.request_id.starts_with("call-")).count();
        self.expect(strangers == 0, || format!("tenant {index}: {strangers} records are of no call"));
        self.expect(unrecorded <= expired, || {
            format!("tenant {index}: {unrecorded} calls were at the vendor and have no record, {expired} expired")
        });
        self.expired += expired;
        self.possible += possible;
        *lock(&self.world.seen) = seen;
    }
}

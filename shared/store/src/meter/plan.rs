//! A change of plan: what the new plan gives beyond the old one is added, once, and nothing that was used is forgotten.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use tenantry_domain::{
    Millis, Period, Resource,
    metering::{Allowances, Meter},
    plans::Limit,
    sharding,
};

use super::{TRIES, failed_condition, item, no_meter, shards::Parts};
use crate::{
    Store, TenantScope,
    db::{Transacted, back_off, build},
    error::{Result, StoreError},
    item::{n, s},
    keys,
};

/// How a change of plan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// It was made; the plan before.
    From(String),
    /// It was that plan already.
    Same,
    /// A later change was made before.
    Superseded,
}

impl Store {
    /// Puts the tenant on `plan` (an id of the catalogue), which is what version `version` of its entitlement says until
    /// `until`. An older version never undoes a later one; the same may be put in again.
    ///
    /// What was used of this month stays used: a larger limit adds the difference, a smaller one takes away what is left
    /// of it, and never more. Of a resource that was unlimited until now nobody counted what was used, so the whole new
    /// limit is left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_on_plan(
        &self,
        scope: &TenantScope,
        plan: &str,
        version: u64,
        until: Option<Millis>,
    ) -> Result<Planned> {
        for attempt in 0..TRIES {
            let shards = self.shards_at_rest(scope, Some(Period::of(self.now()))).await?;
            let Some(meter) = sharding::together(&shards, self.now()) else { return Err(no_meter(scope)) };
            if meter.plan_version > version {
                return Ok(Planned::Superseded);
            }
            if (meter.plan.as_str(), meter.plan_version, meter.plan_until) == (plan, version, until) {
                return Ok(Planned::Same);
            }
            let fresh = Meter::new(self.plans.get(plan), meter.period);
            let done = if shards.len() == 1 {
                let change = PlanChange::new(&meter, &fresh, version, until);
                self.change_plan(scope, change).await
            } else {
                self.change_plan_of_all(scope, &shards, &meter, &fresh, version, until).await
            };
            match done {
                Ok(true) if meter.plan == plan => return Ok(Planned::Same),
                Ok(true) => return Ok(Planned::From(meter.plan)),
                // Somebody used or changed something meanwhile, or another write was at the item.
                Ok(false) | Err(StoreError::Contention) => back_off(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contention)
    }

    /// `false` when the condition failed.
    async fn change_plan(&self, scope: &TenantScope, mut change: PlanChange) -> Result<bool> {
        let answer = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::meter(scope).attributes()))
            .update_expression(change.update())
            .condition_expression(change.condition.join(" AND "))
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values(Some(change.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) => failed_condition(error).map(|_| false),
        }
    }

    /// The same in shards: each gives its part of what a smaller plan takes away, and all of them share out the new rate, in
    /// one transaction. What a larger plan adds, the main one gets.
    async fn change_plan_of_all(
        &self,
        scope: &TenantScope,
        shards: &[Meter],
        meter: &Meter,
        fresh: &Meter,
        version: u64,
        until: Option<Millis>,
    ) -> Result<bool> {
        let now = self.now();
        let parts = Parts::of(shards, self.plans.get(&fresh.plan), meter.shards.wanted, shards.len());
        let mut before = Allowances::from_fn(|_| Limit::Of(0));
        let mut writes = vec![];
        for (shard, share) in shards.iter().zip(&parts.shares) {
            let mut change = PlanChange::of_shard(&Seen { meter, own: shard, before }, fresh, version, until);
            // What this one had, the next need not give.
            before = Allowances::from_fn(|r| Limit::Of(before.get(r).or(0).saturating_add(shard.left.get(r).or(0))));
            let own = ["#interval = :interval", "#burst = :burst", "max_holds = :max_holds"];
            change.set.retain(|part| !own.contains(&part.as_str()));
            change.set.push(parts.set());
            for value in [":interval", ":burst", ":max_holds"] {
                change.values.remove(value);
            }
            if shard.shards.number == 0 {
                for (name, is, was) in parts.counts(meter) {
                    change.set.push(format!("{name} = :{name}"));
                    change.condition.push(format!("{name} = :was_{name}"));
                    change.values.extend([(format!(":{name}"), n(is)), (format!(":was_{name}"), n(was))]);
                }
            }
            let update = self
                .update(&keys::meter_shard(scope, shard.shards.number))
                .update_expression(change.update())
                .condition_expression(change.condition.join(" AND "))
                .set_expression_attribute_names(Some(change.names))
                .set_expression_attribute_values(Some(change.values));
            let update = parts.update(update, share, shard, now);
            writes.push(TransactWriteItem::builder().update(build(update.build())?).build());
        }
        Ok(matches!(self.transact_apart(writes).await?, Transacted::Done))
    }
}

/// What a change of plan is made to.
struct Seen<'a> {
    /// All shards together.
    meter: &'a Meter,
    /// The shard.
    own: &'a Meter,
    /// What the shards before it have left.
    before: Allowances,
}

struct PlanChange {
    set: Vec<String>,
    remove: Vec<String>,
    condition: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl PlanChange {
    /// Of a meter in one piece.
    fn new(meter: &Meter, fresh: &Meter, version: u64, until: Option<Millis>) -> Self {
        let before = Allowances::from_fn(|_| Limit::Of(0));
        let mut change = Self::of_shard(&Seen { meter, own: meter, before }, fresh, version, until);
        // In shards since it was read, it would get the rate of the whole beside the parts of the others.
        change.condition.push(format!("(attribute_not_exists({made}) OR {made} = :made)", made = item::MADE));
        change.values.insert(":made".into(), n(1));
        change
    }

    fn of_shard(seen: &Seen<'_>, fresh: &Meter, version: u64, until: Option<Millis>) -> Self {
        let Seen { meter, own, .. } = seen;
        let is_main = own.shards.number == 0;
        let mut change = Self {
            set: ["#plan = :plan", "#given = :given", "#interval = :interval", "#burst = :burst"]
                .map(ToOwned::to_owned)
                .to_vec(),
            remove: vec![],
            condition: ["#plan = :was", "#period = :period", "#given = :had"].map(ToOwned::to_owned).to_vec(),
            names: super::names(&["#plan", "#given", "#interval", "#burst", "#period"]),
            values: HashMap::from([
                (":plan".to_owned(), s(&fresh.plan)),
                (":was".to_owned(), s(&meter.plan)),
                (":period".to_owned(), s(meter.period.to_string())),
                (":had".to_owned(), item::given_value(&own.given)),
                (":interval".to_owned(), n(fresh.rate.interval)),
                (":burst".to_owned(), n(fresh.rate.burst)),
                (":max_holds".to_owned(), n(fresh.max_holds)),
            ]),
        };
        change.set.push("max_holds = :max_holds".to_owned());
        if is_main {
            change.set.push(format!("{} = :version", item::PLAN_VERSION));
            change.values.insert(":version".to_owned(), n(version));
            let version = item::PLAN_VERSION;
            change.condition.push(format!("(attribute_not_exists({version}) OR {version} <= :version)"));
            change.put(item::PLAN_UNTIL, until.map(n));
        }

        let (mut given, mut partial) = (fresh.given, meter.partial);
        if fresh.plan != meter.plan {
            for resource in Resource::ALL {
                given = change.resource(seen, fresh, resource, given, &mut partial);
            }
        } else {
            given = meter.given;
        }
        if is_main {
            change.put(item::PARTIAL, item::partial_value(&partial));
        } else {
            given = item::nothing_of(&given);
        }
        change.values.insert(":given".into(), item::given_value(&given));
        change
    }

    fn put(&mut self, name: &str, value: Option<AttributeValue>) {
        match value {
            Some(value) => {
                self.set.push(format!("{name} = :{name}"));
                self.values.insert(format!(":{name}"), value);
            }
            None => self.remove.push(name.to_owned()),
        }
    }

    /// Changes what is left of one resource; returns what is given now.
    fn resource(
        &mut self,
        seen: &Seen<'_>,
        fresh: &Meter,
        resource: Resource,
        given: Allowances,
        partial: &mut [bool; Resource::ALL.len()],
    ) -> Allowances {
        let Seen { meter, own, before } = seen;
        let name = resource.name();
        let had = match (meter.given.get(resource), meter.left.get(resource)) {
            (Limit::Of(given), Limit::Of(left)) => Some((given, left)),
            _ => None,
        };
        let limit = fresh.given.get(resource);
        match (had, limit) {
            (None, Limit::Unlimited) => given,
            (Some(_), Limit::Unlimited) => {
                self.remove.push(format!("#left.{name}"));
                given
            }
            (None, Limit::Of(limit)) => {
                self.set.push(format!("#left.{name} = :{name}"));
                self.condition.push(format!("attribute_not_exists(#left.{name})"));
                self.values.insert(format!(":{name}"), n(if own.shards.number == 0 { limit } else { 0 }));
                partial[resource as usize] = true;
                given
            }
            (Some((had, left)), Limit::Of(limit)) => {
                // What requests in flight hold is used until they give it back.
                let used = had.saturating_sub(left);
                let now = limit.max(used);
                if now >= had {
                    if own.shards.number == 0 {
                        self.set.push(format!("#left.{name} = #left.{name} + :{name}"));
                        self.values.insert(format!(":{name}"), n(now - had));
                    }
                } else {
                    let own = own.left.get(resource).or(0);
                    let taken = (had - now).saturating_sub(before.get(resource).or(0)).min(own);
                    self.set.push(format!("#left.{name} = #left.{name} - :{name}"));
                    self.values.insert(format!(":{name}"), n(taken));
                    // Where all that is left goes, it must be what was seen; else enough must be left.
                    let is = if now == used { "=" } else { ">=" };
                    self.condition.push(format!("#left.{name} {is} :{name}"));
                }
                Allowances::from_fn(|r| if r == resource { Limit::Of(now) } else { given.get(r) })
            }
        }
    }

    fn update(&mut self) -> String {
        if self.set.iter().chain(&self.remove).any(|part| part.contains("#left")) {
            self.names.insert("#left".into(), item::LEFT.into());
        }
        let remove = if self.remove.is_empty() { String::new() } else { format!(" REMOVE {}", self.remove.join(", ")) };
        format!("SET {}{remove}", self.set.join(", "))
    }
}

//! A change of plan: what the new plan gives beyond the old one is added, once, and nothing that was used is forgotten.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use tenantry_domain::{
    Millis, Resource,
    metering::{Allowances, Meter},
    plans::Limit,
};

use super::{TRIES, failed_condition, item};
use crate::{
    Store, TenantScope,
    db::back_off,
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
            let meter = self.meter(scope).await?;
            if meter.plan_version > version {
                return Ok(Planned::Superseded);
            }
            if (meter.plan.as_str(), meter.plan_version, meter.plan_until) == (plan, version, until) {
                return Ok(Planned::Same);
            }
            let change = PlanChange::new(&meter, &Meter::new(self.plans.get(plan), meter.period), version, until);
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
                Ok(_) if meter.plan == plan => return Ok(Planned::Same),
                Ok(_) => return Ok(Planned::From(meter.plan)),
                // Somebody used or changed something meanwhile, or another write was at the item.
                Err(error) => match failed_condition(error) {
                    Ok(_) | Err(StoreError::Contention) => back_off(attempt).await,
                    Err(error) => return Err(error),
                },
            }
        }
        Err(StoreError::Contention)
    }
}

struct PlanChange {
    set: Vec<String>,
    remove: Vec<String>,
    condition: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl PlanChange {
    fn new(meter: &Meter, fresh: &Meter, version: u64, until: Option<Millis>) -> Self {
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
                (":had".to_owned(), item::given_value(&meter.given)),
                (":interval".to_owned(), n(fresh.rate.interval)),
                (":burst".to_owned(), n(fresh.rate.burst)),
                (":max_holds".to_owned(), n(fresh.max_holds)),
                (":version".to_owned(), n(version)),
            ]),
        };
        change.set.extend(["max_holds = :max_holds".to_owned(), format!("{} = :version", item::PLAN_VERSION)]);
        change
            .condition
            .push(format!("(attribute_not_exists({version}) OR {version} <= :version)", version = item::PLAN_VERSION));
        change.put(item::PLAN_UNTIL, until.map(n));

        let (mut given, mut partial) = (fresh.given, meter.partial);
        if fresh.plan != meter.plan {
            for resource in Resource::ALL {
                given = change.resource(meter, fresh, resource, given, &mut partial);
            }
        } else {
            given = meter.given;
        }
        change.values.insert(":given".into(), item::given_value(&given));
        change.put(item::PARTIAL, item::partial_value(&partial));
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
        meter: &Meter,
        fresh: &Meter,
        resource: Resource,
        given: Allowances,
        partial: &mut [bool; Resource::ALL.len()],
    ) -> Allowances {
        let name = resource.name();
        let had = match (meter.given.get(resource), meter.left.get(resource)) {
            (Limit::Of(given), Limit::Of(left)) => Some((given, left)),
            _ => None,
        };
        let limit = fresh.given.get(resource);
        if had.is_some() || limit != Limit::Unlimited {
            self.names.insert("#left".into(), item::LEFT.into());
        }
        match (had, limit) {
            (None, Limit::Unlimited) => given,
            (Some(_), Limit::Unlimited) => {
                self.remove.push(format!("#left.{name}"));
                given
            }
            (None, Limit::Of(limit)) => {
                self.set.push(format!("#left.{name} = :{name}"));
                self.condition.push(format!("attribute_not_exists(#left.{name})"));
                self.values.insert(format!(":{name}"), n(limit));
                partial[resource as usize] = true;
                given
            }
            (Some((had, left)), Limit::Of(limit)) => {
                // What requests in flight hold is used until they give it back.
                let used = had.saturating_sub(left);
                let now = limit.max(used);
                if now >= had {
                    self.set.push(format!("#left.{name} = #left.{name} + :{name}"));
                    self.values.insert(format!(":{name}"), n(now - had));
                } else {
                    self.set.push(format!("#left.{name} = #left.{name} - :{name}"));
                    self.values.insert(format!(":{name}"), n(had - now));
                    // Where all that is left goes, it must be what was seen; else enough must be left.
                    let is = if now == used { "=" } else { ">=" };
                    self.condition.push(format!("#left.{name} {is} :{name}"));
                }
                Allowances::from_fn(|r| if r == resource { Limit::Of(now) } else { given.get(r) })
            }
        }
    }

    fn update(&self) -> String {
        let remove = if self.remove.is_empty() { String::new() } else { format!(" REMOVE {}", self.remove.join(", ")) };
        format!("SET {}{remove}", self.set.join(", "))
    }
}

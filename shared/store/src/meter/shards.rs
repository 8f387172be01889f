//! The meter in shards, for tenants with more requests than one item takes. The rules are in `domain::sharding`.
//!
//! What keeps it exact: a request holds in one shard, units move from shard to shard in one transaction, in the same
//! period, and a refusal for want of them looks at all shards twice, so that none was on its way meanwhile. No write needs
//! all shards but those that share the plan out anew.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem, builders::UpdateBuilder};
use futures_util::future::try_join_all;
use tenantry_domain::{
    Amounts, Millis, Period, RequestId, Resource,
    metering::{Demand, Hold, Meter, Refusal},
    plans::Plan,
    sharding::{self, Gift, MOST_SHARDS, Share, Way},
};

use super::{TRIES, item, names};
use crate::{
    Store, TenantScope,
    db::{Transacted, back_off, build},
    error::{Result, StoreError},
    item::{n, s},
    keys,
};

/// What came of a look at all shards.
pub(super) enum Found {
    /// This one has what the request takes.
    At(u8),
    /// The request holds it already.
    Held(Box<Meter>, Hold),
    /// None has, nor all together.
    Refused(Refusal),
}

/// The shard that a request asks first. The end of its id is random.
pub(super) fn first_of(request: &RequestId, active: u8) -> u8 {
    let hash = request.short().bytes().rev().take(6).fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    (hash % u32::from(active.max(1))) as u8
}

/// Whether nothing was moved between the shards from one look to the next.
fn unmoved(before: &[Meter], after: &[Meter]) -> bool {
    let marks = |shards: &[Meter]| shards.iter().map(|s| (s.shards.moved, s.period, s.shards.made)).collect::<Vec<_>>();
    marks(before) == marks(after)
}

impl Store {
    /// Gives the tenant's meter `wanted` shards, while requests come and go. Returns how many admit from now on: fewer where
    /// the plan allows fewer requests than that in flight or at once. Of what the rate had saved up, nothing is left.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] for no shards, or more than [`MOST_SHARDS`]; others, and it may have been done then.
    pub async fn set_meter_shards(&self, scope: &TenantScope, wanted: u8) -> Result<u8> {
        if !(1..=MOST_SHARDS).contains(&wanted) {
            return Err(StoreError::Rejected(format!("a meter has 1 to {MOST_SHARDS} shards")));
        }
        for attempt in 0..TRIES {
            let shards = self.meter_shards(scope, Some(Period::of(self.now()))).await?;
            if self.share_out(scope, &shards, wanted).await? {
                self.keep_shards(scope).await?;
                let active = self.stored_shard(scope, 0).await?.shards.active;
                return Ok(active);
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    /// The shards as they stand, the main one first, all in one period, which is `least` or a later one. The others begin
    /// the period of the main one on the way.
    pub(crate) async fn meter_shards(&self, scope: &TenantScope, least: Option<Period>) -> Result<Vec<Meter>> {
        for attempt in 0..TRIES {
            if attempt > 2 {
                back_off(attempt).await;
            }
            let main = self.stored_shard(scope, 0).await?;
            if least.is_some_and(|least| main.period < least) {
                self.roll_over(scope, &main).await?;
                continue;
            }
            if main.shards.made == 1 {
                return Ok(vec![main]);
            }
            let others = try_join_all((1..main.shards.made).map(|number| self.stored_shard(scope, number))).await?;
            if let Some(behind) = others.iter().find(|other| other.period < main.period) {
                self.roll_over(scope, behind).await?;
                for behind in others.iter().filter(|other| other.period < main.period).skip(1) {
                    self.roll_over(scope, behind).await?;
                }
            } else if others.iter().all(|other| other.period == main.period) {
                return Ok([vec![main], others].concat());
            }
        }
        Err(StoreError::Contention)
    }

    /// [`Self::meter_shards`] at a moment when nothing was on its way from one to another.
    pub(crate) async fn shards_at_rest(&self, scope: &TenantScope, least: Option<Period>) -> Result<Vec<Meter>> {
        let mut seen = self.meter_shards(scope, least).await?;
        for _ in 0..TRIES {
            if seen.len() == 1 {
                return Ok(seen);
            }
            let again = self.meter_shards(scope, least).await?;
            if unmoved(&seen, &again) {
                return Ok(again);
            }
            seen = again;
        }
        Err(StoreError::Contention)
    }

    /// What to do about a request that the shard `at` refused: looks at all, and borrows where that helps.
    pub(super) async fn find_way(
        &self,
        scope: &TenantScope,
        request: &RequestId,
        at: u8,
        demand: &Demand,
    ) -> Result<Found> {
        let least = Some(Period::of(self.now()));
        let mut lacking: Option<Vec<Meter>> = None;
        for attempt in 0..TRIES {
            let (shards, now) = (self.meter_shards(scope, least).await?, self.now());
            for shard in &shards {
                self.guesses.learn(scope.org(), shard);
            }
            if let Some((shard, hold)) = shards.iter().find_map(|s| Some((s, s.holds.get(request)?.clone()))) {
                return Ok(Found::Held(Box::new(shard.clone()), hold));
            }
            match sharding::way(&shards, at, demand, now) {
                Way::Try(shard) => return Ok(Found::At(shard)),
                Way::Borrow { to, gifts } => {
                    if self.give(scope, &shards, to, &gifts, true).await? {
                        return Ok(Found::At(to));
                    }
                    back_off(attempt).await;
                }
                Way::Lacking(refusal) | Way::Later(refusal) => {
                    // What has expired may be all that stands in the way.
                    let mut settled = 0;
                    for shard in &shards {
                        settled += self.settle_some_expired(scope, shard, now).await;
                    }
                    if settled > 0 {
                        lacking = None;
                        continue;
                    }
                    // Units that were on their way from a shard not yet read to one read before would be missing.
                    let lacks = matches!(refusal, Refusal::QuotaExceeded { .. } | Refusal::OutOfCredits { .. });
                    if !lacks || lacking.as_ref().is_some_and(|before| unmoved(before, &shards)) {
                        return Ok(Found::Refused(refusal));
                    }
                    lacking = Some(shards);
                }
            }
        }
        Err(StoreError::Contention)
    }

    /// Moves `gifts` to the shard `to`, all or nothing. With `if_poor` only while that one has no more of it than was seen:
    /// of many who find it empty, one fills it. `false` when a condition failed.
    async fn give(&self, scope: &TenantScope, shards: &[Meter], to: u8, gifts: &[Gift], if_poor: bool) -> Result<bool> {
        let Some(taker) = shards.get(usize::from(to)) else { return Ok(false) };
        let mut all = Gift { from: to, amounts: Amounts::NONE, credits: 0 };
        let mut writes = vec![];
        for gift in gifts {
            all.amounts = all.amounts.plus(&gift.amounts);
            all.credits = all.credits.saturating_add(gift.credits);
            writes.push(self.movement(scope, taker.period, gift, Side::Gives)?);
        }
        writes.push(self.movement(scope, taker.period, &all, Side::Gets(if_poor.then_some(taker)))?);
        match self.transact_apart(writes).await? {
            Transacted::Done => Ok(true),
            Transacted::Refused(_) => Ok(false),
        }
    }

    /// One side of a transfer.
    fn movement(&self, scope: &TenantScope, period: Period, gift: &Gift, side: Side<'_>) -> Result<TransactWriteItem> {
        let (mut set, mut condition) = (vec![], vec!["#period = :period".to_owned()]);
        let mut update = self
            .update(&keys::meter_shard(scope, gift.from))
            .expression_attribute_names("#period", item::PERIOD)
            .expression_attribute_values(":period", s(period.to_string()))
            .expression_attribute_values(":one", n(1));
        let amounts = gift.amounts.iter().filter(|(_, amount)| *amount > 0);
        let seen = |of: fn(&Meter, Option<Resource>) -> u64, what| match side {
            Side::Gets(Some(seen)) => Some(of(seen, what)),
            Side::Gets(None) | Side::Gives => None,
        };
        let has = |meter: &Meter, what: Option<Resource>| {
            what.map_or(meter.credits, |resource| meter.left.get(resource).or(0))
        };
        let what = amounts.map(|(resource, amount)| (Some(resource), resource.name(), amount));
        for (what, name, amount) in what.chain((gift.credits > 0).then_some((None, "credits", gift.credits))) {
            let path = if what.is_some() { format!("#left.{name}") } else { name.to_owned() };
            if what.is_some() {
                update = update.expression_attribute_names("#left", item::LEFT);
            }
            let sign = if matches!(side, Side::Gives) { '-' } else { '+' };
            set.push(format!("{path} = {path} {sign} :{name}"));
            update = update.expression_attribute_values(format!(":{name}"), n(amount));
            condition.push(match (side, seen(has, what)) {
                (Side::Gives, _) => format!("{path} >= :{name}"),
                (Side::Gets(_), None) => format!("attribute_exists({path})"),
                (Side::Gets(_), Some(seen)) => {
                    update = update.expression_attribute_values(format!(":seen_{name}"), n(seen));
                    format!("{path} <= :seen_{name}")
                }
            });
        }
        let update = update
            .update_expression(format!("SET {} ADD {} :one", set.join(", "), item::TRANSFERS))
            .condition_expression(condition.join(" AND "));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }

    /// Gathers in the main shard what others have that admit no more, and shares out anew what their requests do not occupy
    /// any longer, and what a change of plan left to do.
    ///
    /// # Errors
    /// [`StoreError`]; a part may have been done, and the next call goes on.
    pub(crate) async fn keep_shards(&self, scope: &TenantScope) -> Result<()> {
        for attempt in 0..TRIES {
            let shards = self.meter_shards(scope, Some(Period::of(self.now()))).await?;
            let main = shards[0].shards;
            for gift in shards.iter().skip(main.active.into()).filter_map(sharding::leftovers) {
                self.give(scope, &shards, 0, &[gift], false).await?;
            }
            if self.share_out(scope, &shards, main.wanted).await? {
                return Ok(());
            }
            back_off(attempt).await;
        }
        Err(StoreError::Contention)
    }

    /// Shares out the plan's rate and its requests in flight among `wanted` shards, in one transaction; makes those that are
    /// missing. `false` when the shards are not as they were seen any more.
    async fn share_out(&self, scope: &TenantScope, shards: &[Meter], wanted: u8) -> Result<bool> {
        let (main, now) = (&shards[0], self.now());
        let parts = Parts::of(shards, self.plans.get(&main.plan), wanted, MOST_SHARDS.into());
        if parts.are_those_of(shards) {
            return Ok(true);
        }
        let mut writes = vec![];
        for (number, share) in (0..).zip(&parts.shares) {
            let Some(shard) = shards.get(usize::from(number)) else {
                let put = Put::builder()
                    .table_name(&*self.table)
                    .set_item(Some(item::new_shard(scope, number, main, share, now + share.rate.interval)))
                    .condition_expression("attribute_not_exists(pk)");
                writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
                continue;
            };
            let mut update = parts.update(self.update(&keys::meter_shard(scope, number)), share, shard, now);
            let mut used = names(&["#period", "#plan", "#interval", "#burst"]);
            let (mut set, mut condition) = (parts.set(), "#period = :period AND #plan = :plan".to_owned());
            if number == 0 {
                for (name, is, was) in parts.counts(main) {
                    set.push_str(&format!(", {name} = :{name}"));
                    condition.push_str(&format!(" AND (attribute_not_exists({name}) OR {name} = :was_{name})"));
                    update = update
                        .expression_attribute_values(format!(":{name}"), n(is))
                        .expression_attribute_values(format!(":was_{name}"), n(was));
                }
            } else if number >= parts.active {
                // What is still in flight here is in flight: the others admit so many fewer.
                condition.push_str(" AND size(#holds) <= :held");
                used.extend(names(&["#holds"]));
                update = update.expression_attribute_values(":held", n(shard.holds.len()));
            }
            let update = update
                .update_expression(format!("SET {set}"))
                .condition_expression(condition)
                .set_expression_attribute_names(Some(used))
                .expression_attribute_values(":period", s(main.period.to_string()))
                .expression_attribute_values(":plan", s(&main.plan));
            writes.push(TransactWriteItem::builder().update(build(update.build())?).build());
        }
        Ok(matches!(self.transact_apart(writes).await?, Transacted::Done))
    }
}

/// Which end of a transfer; who gets may have been seen poor, and is to be so still.
#[derive(Clone, Copy)]
enum Side<'a> {
    Gives,
    Gets(Option<&'a Meter>),
}

/// How a plan is shared out.
pub(super) struct Parts {
    wanted: u8,
    active: u8,
    was_active: u8,
    /// Of every shard that there is then.
    pub(super) shares: Vec<Share>,
}

impl Parts {
    /// `plan` among `wanted` of the shards, or as many as it allows and `most`.
    pub(super) fn of(shards: &[Meter], plan: &Plan, wanted: u8, most: usize) -> Self {
        let (rate, in_flight) = (plan.rate(), plan.limits.in_flight);
        let active = sharding::active(wanted, rate, in_flight).min(u8::try_from(most).unwrap_or(MOST_SHARDS));
        let made = active.max(u8::try_from(shards.len()).unwrap_or(MOST_SHARDS));
        let draining: usize = shards.iter().skip(active.into()).map(|shard| shard.holds.len()).sum();
        let free = in_flight.saturating_sub(draining as u64);
        let shares = (0..made).map(|number| sharding::share(number, active, rate, free)).collect();
        Self { wanted, active, was_active: shards[0].shards.active, shares }
    }

    fn are_those_of(&self, shards: &[Meter]) -> bool {
        let same = |(share, shard): (&Share, &Meter)| (share.rate, share.max_holds) == (shard.rate, shard.max_holds);
        let main = shards[0].shards;
        (self.wanted, self.active, self.shares.len()) == (main.wanted, main.active, shards.len())
            && self.shares.iter().zip(shards).all(same)
    }

    /// What is set on every shard.
    pub(super) fn set(&self) -> String {
        let ready_at = if self.active == self.was_active { "" } else { ", ready_at = :ready_at" };
        format!("#interval = :interval, #burst = :burst, max_holds = :max_holds{ready_at}")
    }

    /// The values of [`Self::set`].
    pub(super) fn update(&self, update: UpdateBuilder, share: &Share, shard: &Meter, now: Millis) -> UpdateBuilder {
        let update = update
            .expression_attribute_values(":interval", n(share.rate.interval))
            .expression_attribute_values(":burst", n(share.rate.burst))
            .expression_attribute_values(":max_holds", n(share.max_holds));
        if self.active == self.was_active {
            return update;
        }
        // Nobody knows how much of the rate all shards together had saved up: nothing, then.
        update.expression_attribute_values(":ready_at", n(now + share.rate.interval.max(shard.rate.interval)))
    }

    /// What the main shard is to know, and knows, of the others.
    pub(super) fn counts(&self, main: &Meter) -> [(&'static str, u8, u8); 3] {
        let made = u8::try_from(self.shares.len()).unwrap_or(MOST_SHARDS);
        let was = main.shards;
        [(item::WANTED, self.wanted, was.wanted), (item::ACTIVE, self.active, was.active), (item::MADE, made, was.made)]
    }
}

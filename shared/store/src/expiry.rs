//! Holds whose request never came back: settled once, by whoever finds them first.

use aws_sdk_dynamodb::types::TransactWriteItem;
use tenantry_domain::{
    Amounts, Millis, Period, RequestId,
    budget::Owner,
    metering::{Hold, Meter},
    usage::{Operation, Status, Tokens, UsageEvent},
};

use crate::{
    Store, TenantScope,
    db::{Transacted, build},
    error::Result,
    keys,
    meter::names,
};

/// The model that an expired request is booked under when nothing is known of it.
pub const UNKNOWN_MODEL: &str = "unknown";

/// How many expired holds a request settles on its way.
const LAZILY: usize = 3;

impl Store {
    /// Settles every expired hold of the tenant: at the recorded usage when the record exists, else at
    /// what was held, marked `expired`. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn sweep_holds(&self, scope: &TenantScope) -> Result<usize> {
        let now = self.now();
        let (shards, mut settled, mut failed) = (self.meter_shards(scope, Some(Period::of(now))).await?, 0, None);
        for (request, hold) in shards.iter().flat_map(|shard| &shard.holds).filter(|(_, hold)| hold.is_expired(now)) {
            // One hold that cannot be settled keeps none of the others.
            match self.expire(scope, request, hold).await {
                Ok(()) => settled += 1,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(settled), Err)
    }

    /// The lazy part of the sweep, in the way of a request: a few, and a failure is left to the next.
    pub(crate) async fn settle_some_expired(&self, scope: &TenantScope, meter: &Meter, now: Millis) -> usize {
        let mut settled = 0;
        for (request, hold) in meter.holds.iter().filter(|(_, hold)| hold.is_expired(now)).take(LAZILY) {
            match self.expire(scope, request, hold).await {
                Ok(()) => settled += 1,
                Err(error) => tracing::warn!(org = %scope.org(), %request, %error, "an expired hold was not settled"),
            }
        }
        settled
    }

    async fn expire(&self, scope: &TenantScope, request: &RequestId, hold: &Hold) -> Result<()> {
        loop {
            if let Some(record) = self.usage_record(scope, hold.period, request).await? {
                // Held twice, for a write that came late: it is charged in the shard that the record names, and nowhere else.
                let (charged, credits) = match record.shard == hold.shard {
                    true => (record.charged, record.credits),
                    false => (Amounts::NONE, 0),
                };
                self.settle_hold(scope, request, hold, &charged, credits).await?;
                return Ok(());
            }
            let event = expired_event(scope, request, hold);
            let remove = self
                .update(&keys::meter_shard(scope, hold.shard))
                .update_expression("REMOVE #holds.#request")
                .condition_expression("attribute_exists(#holds.#request)")
                .set_expression_attribute_names(Some(names(&["#holds"])))
                .expression_attribute_names("#request", request.short());
            let mut writes = vec![TransactWriteItem::builder().update(build(remove.build())?).build()];
            writes.extend(self.usage_writes(scope, &[&event])?);
            match self.transact_apart(writes).await? {
                Transacted::Done => {
                    tracing::warn!(org = %scope.org(), %request, "a hold expired and was charged as held");
                    return Ok(());
                }
                // Somebody settled it meanwhile.
                Transacted::Refused(reasons) if reasons[0] => return Ok(()),
                // The record arrived meanwhile: settle by it.
                Transacted::Refused(_) => {}
            }
        }
    }
}

/// Of who made the request, what the hold says: those whose budgets it was taken from.
fn expired_event(scope: &TenantScope, request: &RequestId, hold: &Hold) -> UsageEvent {
    let (mut key, mut member) = (None, None);
    for id in &hold.budgets {
        match &id.owner {
            Owner::ApiKey(of) => key = Some(of.clone()),
            Owner::Member(of) => member = Some(of.clone()),
            Owner::Organization => {}
        }
    }
    UsageEvent {
        id: request.clone(),
        org: scope.org().clone(),
        // When the request was made, within the period that it was charged to.
        at: request.created_at().clamp(hold.period.start(), hold.period.end() - 1),
        period: hold.period.index(),
        key,
        member,
        operation: Operation::Chat,
        model: UNKNOWN_MODEL.to_owned(),
        status: Status::Expired,
        tokens: Tokens::default(),
        charged: hold.amounts,
        credits: hold.credits,
        cost: 0,
        price_version: 0,
        estimated: true,
        overrun: 0,
        streamed: false,
        latency_ms: 0,
        first_byte_ms: None,
        request_id: request.to_string(),
        shard: hold.shard,
        own: None,
    }
}

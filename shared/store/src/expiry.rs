//! Holds whose request never came back: settled once, by whoever finds them first.

use aws_sdk_dynamodb::types::TransactWriteItem;
use tenantry_domain::{
    Millis, OrgId, RequestId,
    metering::{Hold, Meter},
    usage::{Operation, Status, Tokens, UsageEvent},
};

use crate::{
    Store, TenantScope,
    db::{Range, Transacted, build, prefix_end},
    error::Result,
    keys,
    meter::names,
};

/// The model that an expired request is booked under when nothing is known of it.
pub const UNKNOWN_MODEL: &str = "unknown";

impl Store {
    /// Settles every expired hold of the tenant: at the recorded usage when the record exists, else at
    /// what was held, marked `expired`. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn sweep_holds(&self, scope: &TenantScope) -> Result<usize> {
        let meter = self.meter(scope).await?;
        self.settle_expired(scope, &meter, self.now()).await
    }

    /// The tenants of one shard of the register, for work that visits every tenant.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn tenants_of_shard(&self, shard: u8) -> Result<Vec<OrgId>> {
        let pk = keys::shard(shard);
        let items = self.all(Range { limit: 1000, ..Range::between(&pk, "T#", &prefix_end("T#")) }).await?;
        items.iter().map(|item| crate::item::Reader(item).parsed("org")).collect()
    }

    /// How many shards the register has.
    #[must_use]
    pub const fn shards() -> u8 {
        keys::SHARDS
    }

    pub(crate) async fn settle_expired(&self, scope: &TenantScope, meter: &Meter, now: Millis) -> Result<usize> {
        let mut settled = 0;
        for (request, hold) in meter.holds.iter().filter(|(_, hold)| hold.is_expired(now)) {
            self.expire(scope, request, hold, now).await?;
            settled += 1;
        }
        Ok(settled)
    }

    /// The lazy part of the sweep: at most one hold, and a failure is left to the next one, because the
    /// request that noticed has been admitted already.
    pub(crate) async fn settle_one_expired(&self, scope: &TenantScope, meter: &Meter, now: Millis) {
        if let Some((request, hold)) = meter.holds.iter().find(|(_, hold)| hold.is_expired(now))
            && let Err(error) = self.expire(scope, request, hold, now).await
        {
            tracing::warn!(org = %scope.org(), %request, %error, "an expired hold could not be settled");
        }
    }

    async fn expire(&self, scope: &TenantScope, request: &RequestId, hold: &Hold, now: Millis) -> Result<()> {
        loop {
            if let Some(record) = self.usage_record(scope, hold.period, request).await? {
                self.settle_hold(scope, request, hold, &record.charged, record.credits).await?;
                return Ok(());
            }
            let event = expired_event(scope, request, hold, now);
            let remove = self
                .update(&keys::meter(scope))
                .update_expression("REMOVE #holds.#request")
                .condition_expression("attribute_exists(#holds.#request)")
                .set_expression_attribute_names(Some(names(&["#holds"])))
                .expression_attribute_names("#request", request.short());
            let mut writes = vec![TransactWriteItem::builder().update(build(remove.build())?).build()];
            writes.extend(self.usage_writes(scope, &[&event])?);
            match self.transact(writes).await? {
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

fn expired_event(scope: &TenantScope, request: &RequestId, hold: &Hold, now: Millis) -> UsageEvent {
    UsageEvent {
        id: request.clone(),
        org: scope.org().clone(),
        // The day it is booked on; the period stays that of the hold.
        at: now.clamp(hold.period.start(), hold.period.end() - 1),
        period: hold.period.index(),
        key: None,
        member: None,
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
    }
}

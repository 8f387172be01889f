//! The register of tenants, for work that visits all of them shard by shard.

use tenantry_domain::{OrgId, Period, sharding::Shards};

use crate::{
    Store, TenantScope,
    db::{Range, prefix_end},
    error::Result,
    item::Reader,
    keys,
};

const PREFIX: &str = "T#";

/// What a sweep found at a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// Holds and credits that had expired, and were booked.
    pub settled: usize,
    /// The plan's time is over: the entitlement is to be looked at again.
    pub plan: bool,
    /// Credits are as low, or as high again, as what is watched.
    pub credits: bool,
    /// A limit of the month may be nearly used up, and nobody was told.
    pub limits: bool,
}

impl Store {
    /// How many shards the register has.
    #[must_use]
    pub const fn shards() -> u8 {
        keys::SHARDS
    }

    /// Tenants of one shard, oldest first, those behind `after`; and whether there may be more. A tenant
    /// that is registered meanwhile sorts last, so a walk meets it.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn tenants(&self, shard: u8, after: Option<&OrgId>, limit: u16) -> Result<(Vec<TenantScope>, bool)> {
        let (pk, to) = (keys::shard(shard), prefix_end(PREFIX));
        let after = after.map(|org| keys::registered(org).sk);
        let range = Range { cursor: after.as_deref(), limit: limit.into(), ..Range::between(&pk, PREFIX, &to) };
        let (items, next) = self.page(range).await?;
        let scope = |item| Ok(TenantScope::of_registered(Reader(item).parsed("org")?));
        Ok((items.iter().map(scope).collect::<Result<_>>()?, next.is_some()))
    }

    /// One tenant by its id, `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn tenant(&self, org: &OrgId) -> Result<Option<TenantScope>> {
        let keys::Key { pk, sk } = keys::registered(org);
        // A query, like all that is asked of the register: so that is all that may be done with it.
        let range = Range { limit: 1, consistent: true, ..Range::between(&pk, &sk, &sk) };
        let (items, _) = self.page(range).await?;
        items.first().map(|item| Ok(TenantScope::of_registered(Reader(item).parsed("org")?))).transpose()
    }

    /// Begins the tenant's current period if nobody has yet, as the tenant's next request would. Whether
    /// there was anything to do; a tenant that has nothing to do costs half a read unit.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn begin_period(&self, scope: &TenantScope) -> Result<bool> {
        // A stale read can only show the period as older than it is; `meter` looks closely then.
        let mut is_current = false;
        if let Some(stored) = self.get(&keys::meter(scope), false).await? {
            let meter = crate::meter::read_meter(&stored)?;
            is_current = meter.period >= Period::of(self.now());
            if is_current && meter.shards == Shards::default() {
                return Ok(false);
            }
        }
        let meter = self.meter(scope).await?;
        if meter.shards != Shards::default() {
            self.keep_shards(scope).await?;
        }
        Ok(!is_current)
    }

    /// [`sweep_holds`](Self::sweep_holds) and [`expire_credits`](Self::expire_credits), and what else the meter says is due,
    /// for half a read unit when that is nothing.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn sweep_if_due(&self, scope: &TenantScope) -> Result<Due> {
        let mut due = Due::default();
        // A hold that a stale read does not show cannot have expired yet: it is seconds old.
        if let Some(stored) = self.get(&keys::meter(scope), false).await? {
            let (now, mut meter) = (self.now(), crate::meter::read_meter(&stored)?);
            if meter.shards != Shards::default() {
                // What is due is not kept waiting: a hold that expired, a plan that ends.
                if let Err(error) = self.keep_shards(scope).await {
                    tracing::error!(org = %scope.org(), %error, "the shards of a meter could not be shared out anew");
                }
                meter = self.meter(scope).await?;
            }
            due.credits = crate::credit_watch::is_due(&stored, &meter)?;
            due.limits = crate::warnings::is_due(&stored, &meter, now)?;
            due.plan = meter.plan_until.is_some_and(|at| at <= now);
            let expire = meter.credits_expire_at.is_some_and(|at| at <= now);
            if !expire && !meter.holds.values().any(|hold| hold.is_expired(now)) {
                return Ok(due);
            }
        }
        // Holds first: what they give back may be what expires.
        due.settled = self.sweep_holds(scope).await?;
        due.settled += usize::from(self.expire_credits(scope).await? > 0);
        Ok(due)
    }
}

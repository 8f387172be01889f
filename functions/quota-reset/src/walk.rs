//! The walk over one shard of the register.

use std::time::Duration;

use futures_util::future::join_all;
use tenantry_commerce::Compared;
use tenantry_domain::OrgId;
use tenantry_store::{TenantScope, TimeIsUp};

use crate::{
    Job, JobError, Message, State,
    tenant::{LOOK_AGAIN_AFTER, Visit, visit},
};

/// Tenants of one page of the register, which are visited at the same time.
const AT_ONCE: u16 = 8;
/// With this many failures in one walk the fault is not a tenant's: the walk is given up and delivered again.
const MOST_FAILURES: usize = 50;

/// What came of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tenants that were visited.
    pub visited: u64,
    /// Months begun, holds, plans and orders settled, or organizations erased.
    pub changed: u64,
    /// Whether books were checked.
    pub reconciled: bool,
    /// Differences in books, confirmed.
    pub differences: u64,
    /// Tenants whose books were too large to be checked in one go.
    pub unchecked: u64,
    /// Whether what was bought was held against what Stripe says.
    pub payments: bool,
    /// Differences there that were repaired.
    pub repaired: u64,
    /// Differences there that somebody has to look at.
    pub mismatches: u64,
    /// Orders that were due and could not be looked at, or that were wanted and could not be made.
    pub orders_failed: u64,
}

impl Tally {
    /// Of nothing yet.
    pub(crate) fn of(job: Job) -> Self {
        Self { reconciled: job == Job::Reconcile, payments: job == Job::Payments, ..Self::default() }
    }

    pub(crate) fn unwatched(&mut self, changed: u64) {
        self.changed += changed;
        self.orders_failed += 1;
    }

    pub(crate) fn compared(&mut self, compared: Compared) {
        self.repaired += compared.repaired;
        self.mismatches += compared.mismatches;
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.visited += more.visited;
        self.changed += more.changed;
        self.reconciled |= more.reconciled;
        self.differences += more.differences;
        self.unchecked += more.unchecked;
        self.payments |= more.payments;
        self.repaired += more.repaired;
        self.mismatches += more.mismatches;
        self.orders_failed += more.orders_failed;
    }
}

pub(crate) async fn walk(
    state: &State,
    job: Job,
    shard: u8,
    mut cursor: Option<OrgId>,
    time_is_up: TimeIsUp<'_>,
) -> Result<Tally, JobError> {
    let mut tally = Tally::of(job);
    let mut failures = 0;
    if job == Job::Sweep && cursor.is_none() {
        // What there is no time for is due five minutes later as well.
        let swept = state.commerce.sweep_orders(shard, time_is_up).await?;
        tally.changed += swept.changed;
        tally.orders_failed += swept.failed;
    }
    loop {
        let (tenants, more) = state.store.tenants(shard, cursor.as_ref(), AT_ONCE).await?;
        failures += visit_all(state, job, &tenants, time_is_up, &mut tally).await?;
        if failures > MOST_FAILURES {
            return Err(JobError::ManyFailures(failures));
        }
        if !more {
            // Sixteen a round, and a round every few seconds on a laptop: for whoever looks for them.
            tracing::debug!(?job, shard, ?tally, "the shard is done");
            return Ok(tally);
        }
        cursor = tenants.last().map(|scope| scope.org().clone()).or(cursor);
        if time_is_up() {
            state.queue.send(&Message::Shard { job, shard, cursor }, Duration::ZERO).await?;
            tracing::info!(?job, shard, ?tally, "goes on in another message");
            return Ok(tally);
        }
    }
}

/// Visits some tenants at the same time, and gives those that need more a message of their own. Returns how many
/// failed.
async fn visit_all(
    state: &State,
    job: Job,
    tenants: &[TenantScope],
    time_is_up: TimeIsUp<'_>,
    tally: &mut Tally,
) -> Result<usize, JobError> {
    let visits = join_all(tenants.iter().map(|scope| visit(state, job, scope, time_is_up))).await;
    let mut failures = 0;
    for (scope, visited) in tenants.iter().zip(visits) {
        let (suspicion, delay) = match visited {
            Ok(Visit::Done(changed)) => {
                tally.visited += 1;
                tally.changed += changed;
                continue;
            }
            Ok(Visit::Compared(compared)) => {
                tally.visited += 1;
                tally.compared(compared);
                continue;
            }
            Ok(Visit::Unwatched(changed)) => {
                tally.visited += 1;
                tally.unwatched(changed);
                continue;
            }
            Ok(Visit::Suspicious(suspicion)) => {
                tally.visited += 1;
                (Some(suspicion), LOOK_AGAIN_AFTER)
            }
            Ok(Visit::Unfinished | Visit::More) => (None, Duration::ZERO),
            Err(error) => {
                tracing::warn!(org = %scope.org(), ?job, %error, "a tenant failed and is tried again by itself");
                failures += 1;
                (None, Duration::ZERO)
            }
        };
        let alone = Message::Tenant { job, tenant: scope.org().clone(), suspicion };
        state.queue.send(&alone, delay).await?;
    }
    Ok(failures)
}

//! What runs on a schedule when deployed.

use std::time::Duration;

use tenantry_domain::{Period, time::day};
use tenantry_quota_reset::Job;
use tokio::sync::watch;

use crate::{dynamodb::Embedded, jobs::Jobs};

/// How often expired holds are looked for. The next request of a tenant settles them too, so this is
/// for tenants that have gone quiet.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// DynamoDB deletes expired items within days; here every ten minutes is soon enough.
const TTL_EVERY: u32 = 40;

pub(crate) async fn run(jobs: Jobs, engine: Embedded, mut stop: watch::Receiver<bool>) {
    let mut round = 0_u32;
    let (mut period, mut today) = (None, day(jobs.now()));
    // wait_for also ends when the platform is dropped.
    while tokio::time::timeout(SWEEP_EVERY, stop.wait_for(|stop| *stop)).await.is_err() {
        jobs.run(Job::Sweep).await;
        // The month may have turned while the platform was off, so the first round looks too.
        let now = jobs.now();
        if period.replace(Period::of(now)) != Some(Period::of(now)) {
            jobs.run(Job::Reset).await;
        }
        if std::mem::replace(&mut today, day(now)) != day(now) {
            jobs.run(Job::Reconcile).await;
            jobs.run(Job::Payments).await;
            jobs.run(Job::Erase).await;
        }
        round = round.wrapping_add(1);
        if round.is_multiple_of(TTL_EVERY) {
            let engine = engine.clone();
            let swept = tokio::task::spawn_blocking(move || engine.sweep_ttl()).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!(%error, "items past their time to live were not deleted");
            }
        }
    }
}

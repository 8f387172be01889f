//! What runs on a schedule when deployed.

use std::time::Duration;

use tenantry_store::{Store, TenantScope};
use tokio::sync::watch;

use crate::dynamodb::Embedded;

/// How often expired holds are looked for. The next request of a tenant settles them too, so this is
/// for tenants that have gone quiet.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// DynamoDB deletes expired items within days; here every ten minutes is soon enough.
const TTL_EVERY: u32 = 40;

pub(crate) async fn run(store: Store, engine: Embedded, mut stop: watch::Receiver<bool>) {
    let mut round = 0_u32;
    // wait_for also ends when the platform is dropped.
    while tokio::time::timeout(SWEEP_EVERY, stop.wait_for(|stop| *stop)).await.is_err() {
        sweep(&store).await;
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

/// Settles the expired holds of every tenant.
pub(crate) async fn sweep(store: &Store) {
    for shard in 0..Store::shards() {
        let tenants = match store.tenants_of_shard(shard).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(shard, %error, "the register of tenants cannot be read");
                continue;
            }
        };
        for org in tenants {
            #[allow(clippy::disallowed_methods, reason = "the timer visits every tenant in turn")]
            let scope = TenantScope::authenticated(org);
            if let Err(error) = store.sweep_holds(&scope).await {
                tracing::warn!(org = %scope.org(), %error, "expired holds were not settled");
            }
        }
    }
}

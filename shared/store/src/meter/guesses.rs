//! What this process last saw of each meter, so that the first write is usually the right one.

use std::{collections::HashMap, sync::Mutex};

use tenantry_domain::{OrgId, metering::Meter};

/// How many tenants are remembered. A forgotten one costs one more write.
const CAPACITY: usize = 10_000;

#[derive(Default)]
pub(crate) struct Guesses(Mutex<HashMap<OrgId, Meter>>);

impl Guesses {
    pub(crate) fn get(&self, org: &OrgId) -> Option<Meter> {
        self.lock().get(org).cloned()
    }

    /// Keeps the meter without its holds, which nobody guesses.
    pub(crate) fn learn(&self, org: &OrgId, seen: &Meter) {
        let mut meters = self.lock();
        if meters.len() >= CAPACITY && !meters.contains_key(org) {
            meters.clear();
        }
        let meter = Meter { holds: std::collections::BTreeMap::new(), plan: seen.plan.clone(), ..*seen };
        meters.insert(org.clone(), meter);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrgId, Meter>> {
        // A poisoned cache is still a cache: every guess is checked by the write's condition.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

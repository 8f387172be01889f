//! What this process last saw of each meter, so that the first write is usually the right one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use tenantry_domain::{OrgId, metering::Meter};

use super::item::nothing_of;

/// How many tenants are remembered. A forgotten one costs one more write.
const CAPACITY: usize = 10_000;

/// For each tenant its shards by number.
#[derive(Default)]
pub(crate) struct Guesses(Mutex<HashMap<OrgId, BTreeMap<u8, Meter>>>);

impl Guesses {
    /// What shard `number` may look like: as it was seen, or like the main one.
    pub(crate) fn get(&self, org: &OrgId, number: u8) -> Option<Meter> {
        let meters = self.lock();
        let shards = meters.get(org)?;
        shards.get(&number).or_else(|| shards.get(&0)).cloned()
    }

    /// How many shards admit; one, as long as nobody said otherwise.
    pub(crate) fn active(&self, org: &OrgId) -> u8 {
        self.lock().get(org).and_then(|shards| shards.get(&0)).map_or(1, |main| main.shards.active)
    }

    /// Keeps the meter without its holds, which nobody guesses.
    pub(crate) fn learn(&self, org: &OrgId, seen: &Meter) {
        let mut meters = self.lock();
        if meters.len() >= CAPACITY && !meters.contains_key(org) {
            meters.clear();
        }
        let meter = Meter { holds: BTreeMap::new(), plan: seen.plan.clone(), ..*seen };
        meters.entry(org.clone()).or_default().insert(seen.shards.number, meter);
    }

    /// The shard that was `seen` right now, together with what the others were when they were last seen: of one that never
    /// was, nothing is known to be left.
    pub(crate) fn with_others(&self, org: &OrgId, seen: &Meter) -> Vec<Meter> {
        let meters = self.lock();
        let (Some(shards), number) = (meters.get(org), seen.shards.number) else { return vec![seen.clone()] };
        let Some(main) = shards.get(&0).filter(|main| main.shards.made > 1) else { return vec![seen.clone()] };
        let current = |meter: &Meter| meter.period == seen.period;
        let mut all = vec![match number {
            0 => seen.clone(),
            _ if current(main) => main.clone(),
            _ => Meter { left: nothing_of(&main.left), period: seen.period, ..main.clone() },
        }];
        let others = shards.iter().filter(|(other, meter)| **other > 0 && **other != number && current(meter));
        all.extend(others.map(|(_, meter)| meter.clone()));
        all.extend((number > 0).then(|| seen.clone()));
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrgId, BTreeMap<u8, Meter>>> {
        // A poisoned cache is still a cache: every guess is checked by the write's condition.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

//! The limits that budgets have, as they stand in the rows of their owners: an API key's in its own, a member's in the
//! membership, those of models in the organization. They are believed for half a minute, like everything about a key.
//! What was used of them is counted elsewhere (`meter/budget.rs`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_domain::{
    KeyId, Millis, OrgId, Resource, UserId,
    budget::{Budget, Budgets, Ceiling, Owner},
};

use crate::{
    Store, TenantScope,
    api_keys::CACHE_FOR,
    error::Result,
    item::{Item, Reader, n, parse_number},
    keys,
};

/// In the row of whose the budget is.
pub(crate) const BUDGET: &str = "budget";

/// In an organization's row, the budgets of models.
pub(crate) const MODEL_BUDGETS: &str = "model_budgets";

/// In an organization's row, once a member has had a budget: without it nobody's membership is read for one.
pub(crate) const LIMITS_MEMBERS: &str = "limits_members";

/// How many organizations, and how many members, are remembered.
const CAPACITY: usize = 10_000;

/// Beside the resources.
const CREDITS: &str = "credits";
const PER_MINUTE: &str = "requests_per_minute";
const MODELS: &str = "models";

/// What an organization's row says about budgets.
#[derive(Debug, Clone, Default)]
struct OfOrganization {
    budgets: Budgets,
    limits_members: bool,
}

/// What was read, and when.
type Seen<T> = (Millis, T);

#[derive(Default)]
pub(crate) struct BudgetCache {
    organizations: Mutex<HashMap<OrgId, Seen<OfOrganization>>>,
    members: Mutex<HashMap<(OrgId, UserId), Seen<Budgets>>>,
}

impl BudgetCache {
    pub(crate) fn forget_organization(&self, org: &OrgId) {
        lock(&self.organizations).remove(org);
    }

    pub(crate) fn forget_member(&self, org: &OrgId, member: &UserId) {
        lock(&self.members).remove(&(org.clone(), member.clone()));
    }

    /// Whoever read an organization's row for another reason saves the next one a read.
    pub(crate) fn learn(&self, org: &OrgId, organization: &Item, now: Millis) -> Result<()> {
        keep(&self.organizations, org.clone(), read_of_organization(organization)?, now);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep<K: Eq + std::hash::Hash, V>(cache: &Mutex<HashMap<K, Seen<V>>>, key: K, value: V, now: Millis) {
    let mut cache = lock(cache);
    if cache.len() >= CAPACITY {
        cache.clear();
    }
    cache.insert(key, (now, value));
}

fn fresh<K: Eq + std::hash::Hash, V: Clone>(cache: &Mutex<HashMap<K, Seen<V>>>, key: &K, now: Millis) -> Option<V> {
    let cache = lock(cache);
    let (at, value) = cache.get(key)?;
    (0..CACHE_FOR).contains(&(now - at)).then(|| value.clone())
}

impl Store {
    /// The budgets that a call of `model` falls under, which `member` makes, or a key that `member` made.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn ceilings(
        &self,
        scope: &TenantScope,
        key: Option<(&KeyId, &Budgets)>,
        member: &UserId,
        model: &str,
    ) -> Result<Vec<Ceiling>> {
        let (organization, now) = (self.budgets_of_organization(scope).await?, self.now());
        let mut ceilings: Vec<_> = organization.budgets.ceilings(&Owner::Organization, model).collect();
        if organization.limits_members {
            let place = (scope.org().clone(), member.clone());
            let cache = &self.budget_cache.members;
            let budgets = match fresh(cache, &place, now) {
                Some(budgets) => budgets,
                None => {
                    // Who has left has no row any more: their keys are bound by the keys' own budgets.
                    let row = self.get(&keys::member(scope, member), false).await?.unwrap_or_default();
                    let budgets = read_budgets(&row)?;
                    keep(cache, place, budgets.clone(), now);
                    budgets
                }
            };
            ceilings.extend(budgets.ceilings(&Owner::Member(member.clone()), model));
        }
        if let Some((key, budgets)) = key {
            ceilings.extend(budgets.ceilings(&Owner::ApiKey(key.clone()), model));
        }
        Ok(ceilings)
    }

    async fn budgets_of_organization(&self, scope: &TenantScope) -> Result<OfOrganization> {
        let (cache, now) = (&self.budget_cache.organizations, self.now());
        if let Some(known) = fresh(cache, scope.org(), now) {
            return Ok(known);
        }
        let row = self.get(&keys::organization(scope), false).await?.unwrap_or_default();
        let read = read_of_organization(&row)?;
        keep(cache, scope.org().clone(), read.clone(), now);
        Ok(read)
    }
}

fn read_of_organization(item: &Item) -> Result<OfOrganization> {
    let reader = Reader(item);
    let budgets = Budgets { models: read_model_budgets(item)?, ..Budgets::default() };
    Ok(OfOrganization { budgets, limits_members: reader.flag(LIMITS_MEMBERS) })
}

/// A map of what is limited; `None` when nothing is.
pub(crate) fn budgets_value(budgets: &Budgets) -> Option<AttributeValue> {
    let mut map = map_of(&budgets.whole);
    map.extend(models_value(&budgets.models).map(|models| (MODELS.to_owned(), models)));
    (!map.is_empty()).then_some(AttributeValue::M(map))
}

/// A map of what is limited by model; `None` when nothing is.
pub(crate) fn models_value(models: &BTreeMap<String, Budget>) -> Option<AttributeValue> {
    let models = models.iter().filter(|(_, budget)| !budget.is_empty());
    let map: HashMap<_, _> = models.map(|(model, budget)| (model.clone(), AttributeValue::M(map_of(budget)))).collect();
    (!map.is_empty()).then_some(AttributeValue::M(map))
}

pub(crate) fn map_of(budget: &Budget) -> HashMap<String, AttributeValue> {
    let resources = budget.limits.iter().map(|(resource, limit)| (resource.name(), *limit));
    let others = [(CREDITS, budget.credits), (PER_MINUTE, budget.requests_per_minute)];
    let others = others.into_iter().filter_map(|(name, limit)| Some((name, limit?)));
    resources.chain(others).map(|(name, limit)| (name.to_owned(), n(limit))).collect()
}

/// The budgets in the row of an API key or of a member. One that cannot be read is an error: without it, its owner would
/// be limited by nothing.
pub(crate) fn read_budgets(item: &Item) -> Result<Budgets> {
    let corrupt = || Reader(item).corrupt("not a budget");
    let Some(value) = item.get(BUDGET) else { return Ok(Budgets::default()) };
    let mut map = value.as_m().map_err(|_| corrupt())?.clone();
    let models = map.remove(MODELS).map(|models| read_models(&models).ok_or_else(corrupt)).transpose()?;
    let whole = read_budget(&map).ok_or_else(corrupt)?;
    Ok(Budgets { whole, models: models.unwrap_or_default() })
}

/// The budgets of models in an organization's row.
pub(crate) fn read_model_budgets(item: &Item) -> Result<BTreeMap<String, Budget>> {
    let Some(models) = item.get(MODEL_BUDGETS) else { return Ok(BTreeMap::new()) };
    read_models(models).ok_or_else(|| Reader(item).corrupt("not budgets of models"))
}

fn read_models(value: &AttributeValue) -> Option<BTreeMap<String, Budget>> {
    let models = value.as_m().ok()?.iter();
    models.map(|(model, budget)| Some((model.clone(), read_budget(budget.as_m().ok()?)?))).collect()
}

/// `None` for what is not a budget.
pub(crate) fn read_budget(map: &HashMap<String, AttributeValue>) -> Option<Budget> {
    let mut budget = Budget::default();
    for (name, limit) in map {
        let limit = parse_number(limit)?;
        match name.as_str() {
            CREDITS => budget.credits = Some(limit),
            PER_MINUTE => budget.requests_per_minute = Some(limit),
            name => {
                let resource = Resource::ALL.into_iter().find(|resource| resource.name() == name)?;
                budget.limits.insert(resource, limit);
            }
        }
    }
    Some(budget)
}

//! The meter as an item. Every update pays for the whole item, so holds are kept compact: ten of them
//! fit into the first kilobyte beside the rest.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_domain::{
    Amounts, KeyId, Millis, Period, RequestId, Resource, UserId,
    budget::{BudgetId, Owner},
    metering::{Allowances, Hold, Meter, Rate},
    plans::Limit,
    sharding::{Shards, Share},
};

use crate::{
    TenantScope,
    error::Result,
    item::{Item, NewItem, Reader, n, parse_number, s},
    keys,
};

pub(super) const PERIOD: &str = "period";
pub(super) const LEFT: &str = "left";
pub(super) const PLAN_VERSION: &str = "plan_version";
pub(super) const PLAN_UNTIL: &str = "plan_until";
pub(super) const PARTIAL: &str = "counted_partly";
/// Which shard an item is; the main one does not say.
pub(super) const SHARD: &str = "shard";
/// On the main shard, if there ever were others: see [`Shards`].
pub(super) const WANTED: &str = "wanted_shards";
pub(super) const ACTIVE: &str = "active_shards";
pub(super) const MADE: &str = "made_shards";
pub(super) const TRANSFERS: &str = "transfers";
pub(crate) const CREDITS_EXPIRE_AT: &str = "credits_expire_at";

pub(crate) fn new_meter(scope: &TenantScope, meter: &Meter) -> Item {
    NewItem::at(&keys::meter(scope))
        .text("org", scope.org().as_str())
        .text(PERIOD, meter.period.to_string())
        .text("plan", &meter.plan)
        .set("given", given_value(&meter.given))
        .set(LEFT, left_value(&meter.left))
        .number("credits", meter.credits)
        .number("ready_at", meter.ready_at)
        .number("interval", meter.rate.interval)
        .number("burst", meter.rate.burst)
        .number("max_holds", meter.max_holds)
        .set("holds", holds_value(&meter.holds))
        .build()
}

/// A further shard, with nothing left of what `main` counts.
pub(super) fn new_shard(scope: &TenantScope, number: u8, main: &Meter, share: &Share, ready_at: Millis) -> Item {
    NewItem::at(&keys::meter_shard(scope, number))
        .text("org", scope.org().as_str())
        .number(SHARD, number)
        .text(PERIOD, main.period.to_string())
        .text("plan", &main.plan)
        .set("given", given_value(&nothing_of(&main.given)))
        .set(LEFT, left_value(&nothing_of(&main.left)))
        .number("credits", 0)
        .number("ready_at", ready_at)
        .number("interval", share.rate.interval)
        .number("burst", share.rate.burst)
        .number("max_holds", share.max_holds)
        .set("holds", holds_value(&BTreeMap::new()))
        .build()
}

/// The same resources, and nothing of those that are counted.
pub(super) fn nothing_of(allowances: &Allowances) -> Allowances {
    Allowances::from_fn(|resource| match allowances.get(resource) {
        Limit::Of(_) => Limit::Of(0),
        Limit::Unlimited => Limit::Unlimited,
    })
}

fn read_shards(reader: &Reader<'_>) -> Result<Shards> {
    Ok(Shards {
        number: reader.optional_number(SHARD)?.unwrap_or(0),
        wanted: reader.optional_number(WANTED)?.unwrap_or(1),
        active: reader.optional_number(ACTIVE)?.unwrap_or(1),
        made: reader.optional_number(MADE)?.unwrap_or(1),
        moved: reader.optional_number(TRANSFERS)?.unwrap_or(0),
    })
}

/// The names of what is partial; `None` when nothing is.
pub(super) fn partial_value(partial: &[bool; Resource::ALL.len()]) -> Option<AttributeValue> {
    let names: Vec<_> = Resource::ALL.into_iter().filter(|r| partial[*r as usize]).map(|r| s(r.name())).collect();
    (!names.is_empty()).then_some(AttributeValue::L(names))
}

fn read_partial(value: Option<&AttributeValue>) -> [bool; Resource::ALL.len()] {
    let names: Vec<_> = value.and_then(|value| value.as_l().ok()).into_iter().flatten().collect();
    Resource::ALL.map(|resource| names.iter().any(|name| name.as_s().is_ok_and(|name| name == resource.name())))
}

/// Unlimited resources are absent.
pub(super) fn left_value(left: &Allowances) -> AttributeValue {
    AttributeValue::M(left.limited().map(|(resource, amount)| (resource.name().to_owned(), n(amount))).collect())
}

/// In the order of [`Resource::ALL`]; −1 is unlimited.
pub(super) fn given_value(given: &Allowances) -> AttributeValue {
    let number = |resource| match given.get(resource) {
        Limit::Of(amount) => n(amount),
        Limit::Unlimited => n(-1),
    };
    AttributeValue::L(Resource::ALL.map(number).to_vec())
}

pub(super) fn holds_value(holds: &BTreeMap<RequestId, Hold>) -> AttributeValue {
    AttributeValue::M(holds.iter().map(|(request, hold)| (request.short().to_owned(), hold_value(hold))).collect())
}

/// `expires_at,period,credits,amounts…` as one string: a list of numbers takes more bytes, and each of its elements
/// is a value of its own to everything that reads or writes the meter. An amount that was not counted down is kept as
/// −1 − amount. Amounts that are missing at the end are of resources that an older version did not know. Behind them the
/// owners of budgets that were asked as well, as [`budget_fields`] has them.
pub(super) fn hold_value(hold: &Hold) -> AttributeValue {
    let mut text = format!("{},{},{}", hold.expires_at, hold.period.index(), hold.credits);
    for (resource, amount) in hold.amounts.iter() {
        let stored = if hold.counted[resource as usize] { i128::from(amount) } else { -1 - i128::from(amount) };
        text.push_str(&format!(",{stored}"));
    }
    budget_fields(&hold.budgets, &mut text);
    s(text)
}

/// `,u:<id>` for a member, `,k:<id>` for a key, `,o:` for the organization; each with `*` behind it when the budget is
/// that of a model, `+` when there is that as well, and the model once, `,m:<model>`. A key without a model stands behind
/// all, `@<id>`: so it was before there were others, and a version from then reads past the rest.
fn budget_fields(budgets: &[BudgetId], text: &mut String) {
    let mut owners: Vec<_> = budgets.iter().map(|id| &id.owner).collect();
    owners.dedup();
    let mut last = None;
    for owner in owners {
        let has = |of_model: bool| budgets.iter().any(|id| id.owner == *owner && id.model.is_some() == of_model);
        let mark = match (has(false), has(true)) {
            (_, false) => "",
            (false, true) => "*",
            (true, true) => "+",
        };
        match owner {
            Owner::ApiKey(key) if mark.is_empty() => last = Some(key),
            Owner::ApiKey(key) => text.push_str(&format!(",k:{}{mark}", key.short())),
            Owner::Member(user) => text.push_str(&format!(",u:{}{mark}", user.short())),
            Owner::Organization => text.push_str(&format!(",o:{mark}")),
        }
    }
    if let Some(model) = budgets.iter().find_map(|id| id.model.as_ref()) {
        text.push_str(&format!(",m:{model}"));
    }
    if let Some(key) = last {
        text.push_str(&format!("@{}", key.short()));
    }
}

fn read_budget_fields(fields: &[&str], last: Option<&str>) -> Option<Vec<BudgetId>> {
    let model = fields.iter().find_map(|field| field.strip_prefix("m:"));
    let mut budgets = vec![];
    for field in fields.iter().filter(|field| !field.starts_with("m:")) {
        let (letter, rest) = field.split_once(':')?;
        let id = rest.trim_end_matches(['*', '+']);
        let owner = match letter {
            "u" => Owner::Member(UserId::from_short(id).ok()?),
            "k" => Owner::ApiKey(KeyId::from_short(id).ok()?),
            "o" => Owner::Organization,
            _ => return None,
        };
        if !rest.ends_with('*') {
            budgets.push(BudgetId { owner: owner.clone(), model: None });
        }
        if rest.ends_with(['*', '+']) {
            budgets.push(BudgetId { owner, model: Some(model?.to_owned()) });
        }
    }
    if let Some(key) = last {
        budgets.push(BudgetId { owner: Owner::ApiKey(KeyId::from_short(key).ok()?), model: None });
    }
    Some(budgets)
}

fn read_hold(value: &AttributeValue, shard: u8) -> Option<Hold> {
    let text = value.as_s().ok()?;
    let (fields, key) = text.split_once('@').map_or((text.as_str(), None), |(fields, key)| (fields, Some(key)));
    let fields: Vec<_> = fields.split(',').collect();
    // Numbers come first, words behind them.
    let words = fields.iter().position(|field| field.starts_with(|c: char| c.is_ascii_lowercase()));
    let (numbers, words) = fields.split_at(words.unwrap_or(fields.len()));
    let mut numbers = numbers.iter();
    let (expires_at, period, credits) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let (mut amounts, mut counted) = (Amounts::NONE, [true; Resource::ALL.len()]);
    for (resource, amount) in Resource::ALL.into_iter().zip(numbers) {
        let amount: i64 = amount.parse().ok()?;
        counted[resource as usize] = amount >= 0;
        amounts = amounts.with(resource, if amount >= 0 { amount } else { -1 - amount }.unsigned_abs());
    }
    Some(Hold {
        amounts,
        counted,
        credits: credits.parse().ok()?,
        period: Period::from_index(period.parse().ok()?)?,
        expires_at: expires_at.parse().ok()?,
        budgets: read_budget_fields(words, key)?,
        shard,
    })
}

fn read_left(value: &AttributeValue) -> Option<Allowances> {
    let map: &HashMap<_, _> = value.as_m().ok()?;
    let mut whole = true;
    let left = Allowances::from_fn(|resource| match map.get(resource.name()).map(parse_number) {
        None => Limit::Unlimited,
        Some(Some(amount)) => Limit::Of(amount),
        Some(None) => {
            whole = false;
            Limit::Of(0)
        }
    });
    whole.then_some(left)
}

fn read_given(value: &AttributeValue) -> Option<Allowances> {
    let list = value.as_l().ok()?;
    let numbers: Vec<i64> = list.iter().map(parse_number).collect::<Option<_>>()?;
    Some(Allowances::from_fn(|resource| {
        let given = numbers.get(resource as usize).and_then(|given| u64::try_from(*given).ok());
        given.map_or(Limit::Unlimited, Limit::Of)
    }))
}

pub(crate) fn meter(item: &Item) -> Result<Meter> {
    let reader = Reader(item);
    let wrong = || reader.corrupt("holds are not what a meter has there");
    let (mut holds, shard) = (BTreeMap::new(), read_shards(&reader)?.number);
    for (request, hold) in item.get("holds").and_then(|holds| holds.as_m().ok()).ok_or_else(wrong)? {
        let request = RequestId::from_short(request).map_err(|_| wrong())?;
        holds.insert(request, read_hold(hold, shard).ok_or_else(wrong)?);
    }
    Ok(Meter {
        ready_at: reader.number("ready_at")?,
        rate: Rate { interval: reader.number("interval")?, burst: reader.number("burst")? },
        max_holds: reader.number("max_holds")?,
        holds,
        ..closing(item)?
    })
}

/// A closing row has no rate and no holds: nothing is admitted by it any more, and a hold that was open
/// when the period ended gives back to `left` when it is settled.
pub(crate) fn closing(item: &Item) -> Result<Meter> {
    let reader = Reader(item);
    let wrong = |name: &str| reader.corrupt(format!("{name} is not what a meter has there"));
    Ok(Meter {
        plan: reader.text("plan")?.to_owned(),
        plan_version: reader.optional_number(PLAN_VERSION)?.unwrap_or(0),
        plan_until: reader.optional_number(PLAN_UNTIL)?,
        partial: read_partial(item.get(PARTIAL)),
        credits_expire_at: reader.optional_number(CREDITS_EXPIRE_AT)?,
        period: reader.parsed(PERIOD)?,
        given: item.get("given").and_then(read_given).ok_or_else(|| wrong("given"))?,
        left: item.get(LEFT).and_then(read_left).ok_or_else(|| wrong(LEFT))?,
        credits: reader.number("credits")?,
        ready_at: 0,
        rate: Rate { interval: 0, burst: 0 },
        max_holds: 0,
        holds: BTreeMap::new(),
        shards: read_shards(&reader)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(hold: &Hold) -> String {
        hold_value(hold).as_s().unwrap().clone()
    }

    #[test]
    fn holds_are_read_back_with_any_budgets() {
        let (key, user) = (Owner::ApiKey(KeyId::new()), Owner::Member(UserId::new()));
        let id = |owner: &Owner, model: Option<&str>| BudgetId { owner: owner.clone(), model: model.map(Into::into) };
        let model = Some("deep/model-1.5:free");
        let all = [id(&Owner::Organization, model), id(&user, None), id(&user, model), id(&key, None), id(&key, model)];
        // Every choice of them.
        for chosen in 0..1 << all.len() {
            let budgets: Vec<_> = (0..all.len()).filter(|n| chosen >> n & 1 == 1).map(|n| all[n].clone()).collect();
            let hold = Hold {
                amounts: Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 2_000),
                counted: [false, true, true, true],
                credits: 7,
                period: Period::from_index(683).unwrap(),
                expires_at: 1_795_176_000,
                budgets,
                shard: 3,
            };
            assert_eq!(read_hold(&hold_value(&hold), 3), Some(hold.clone()), "{}", text(&hold));
            // A version from before members and models had budgets takes what it knows: numbers, and a key behind `@`.
            let text = text(&hold);
            assert!(text.starts_with("1795176000,683,7,-2,2000,0,0") && text.len() < 150, "{text}");
            let last = text.split_once('@').map(|(_, key)| KeyId::from_short(key).is_ok());
            assert_ne!(last, Some(false), "{text}");
        }
    }

    #[test]
    fn holds_of_older_versions_are_read() {
        let (key, other) = (KeyId::new(), KeyId::new());
        let hold = |text: String| read_hold(&s(text), 0).unwrap();
        let of_key = |key: &KeyId| BudgetId { owner: Owner::ApiKey(key.clone()), model: None };
        assert_eq!(hold("1,683,0,1,50,0,1".into()).budgets, vec![]);
        assert_eq!(hold(format!("1,683,0,1,50,0,1@{}", key.short())).budgets, vec![of_key(&key)]);
        assert_eq!(hold(format!("1,683,0,1@{}", other.short())).budgets, vec![of_key(&other)]);
        for broken in ["1,683", "1,683,0,x:1", "1,683,0,u:1", "1,683,0,o:*", "1,683,0,1@nobody"] {
            assert_eq!(read_hold(&s(broken), 0), None, "{broken}");
        }
    }
}

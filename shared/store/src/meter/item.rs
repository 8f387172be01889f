//! The meter as an item. Every update pays for the whole item, so holds are kept compact: ten of them
//! fit into the first kilobyte beside the rest.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_domain::{
    Amounts, Period, RequestId, Resource,
    metering::{Allowances, Hold, Meter, Rate},
    plans::Limit,
};

use crate::{
    TenantScope,
    error::Result,
    item::{Item, NewItem, Reader, n, parse_number},
    keys,
};

pub(super) const PERIOD: &str = "period";
pub(super) const LEFT: &str = "left";

/// Numbers of a hold in front of the amounts, and behind them the credits.
const HOLD_HEAD: usize = 2;
const HOLD_LEN: usize = HOLD_HEAD + Resource::ALL.len() + 1;

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

/// `[expires_at, period, amounts…, credits]`; an amount that was not counted down is kept as −1 − amount.
pub(super) fn hold_value(hold: &Hold) -> AttributeValue {
    let mut numbers = vec![n(hold.expires_at), n(hold.period.index())];
    for (resource, amount) in hold.amounts.iter() {
        numbers.push(if hold.counted[resource as usize] { n(amount) } else { n(-1 - i128::from(amount)) });
    }
    numbers.push(n(hold.credits));
    AttributeValue::L(numbers)
}

fn read_hold(value: &AttributeValue) -> Option<Hold> {
    let numbers = value.as_l().ok()?;
    if numbers.len() != HOLD_LEN {
        return None;
    }
    let mut amounts = Amounts::NONE;
    let mut counted = [true; Resource::ALL.len()];
    for resource in Resource::ALL {
        let amount: i64 = parse_number(&numbers[HOLD_HEAD + resource as usize])?;
        counted[resource as usize] = amount >= 0;
        amounts = amounts.with(resource, if amount >= 0 { amount } else { -1 - amount }.unsigned_abs());
    }
    Some(Hold {
        amounts,
        counted,
        credits: parse_number(&numbers[HOLD_LEN - 1])?,
        period: Period::from_index(parse_number(&numbers[1])?)?,
        expires_at: parse_number(&numbers[0])?,
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
    (numbers.len() == Resource::ALL.len()).then(|| {
        Allowances::from_fn(|resource| u64::try_from(numbers[resource as usize]).map_or(Limit::Unlimited, Limit::Of))
    })
}

pub(super) fn meter(item: &Item) -> Result<Meter> {
    let reader = Reader(item);
    let wrong = || reader.corrupt("holds are not what a meter has there");
    let mut holds = BTreeMap::new();
    for (request, hold) in item.get("holds").and_then(|holds| holds.as_m().ok()).ok_or_else(wrong)? {
        let request = RequestId::from_short(request).map_err(|_| wrong())?;
        holds.insert(request, read_hold(hold).ok_or_else(wrong)?);
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
pub(super) fn closing(item: &Item) -> Result<Meter> {
    let reader = Reader(item);
    let wrong = |name: &str| reader.corrupt(format!("{name} is not what a meter has there"));
    Ok(Meter {
        plan: reader.text("plan")?.to_owned(),
        period: reader.parsed(PERIOD)?,
        given: item.get("given").and_then(read_given).ok_or_else(|| wrong("given"))?,
        left: item.get(LEFT).and_then(read_left).ok_or_else(|| wrong(LEFT))?,
        credits: reader.number("credits")?,
        ready_at: 0,
        rate: Rate { interval: 0, burst: 0 },
        max_holds: 0,
        holds: BTreeMap::new(),
    })
}

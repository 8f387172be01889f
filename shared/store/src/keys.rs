//! Every key of the table, in one place.
//!
//! | partition | sort | item |
//! |---|---|---|
//! | `T#<org>` | `ORG` | organization |
//! | `T#<org>` | `METER` | what is left, requests in flight |
//! | `T#<org>` | `MEMBER#<usr>` | role of a member |
//! | `T#<org>` | `KEY#<key>` | API key, for lists |
//! | `T#<org>` | `INVITE#<inv>` | invitation |
//! | `T#<org>` | `INVITED#<sha256>` | the invitation of an address |
//! | `T#<org>` | `TUSER#<username>` | tenant user |
//! | `T#<org>` | `REC#<period>#<req>` | usage record, one per admitted request |
//! | `T#<org>` | `ROLL#<day>#<model>#<key>#<member>#<operation>` | usage roll-up |
//! | `T#<org>` | `OWN#<period>` | which resources of its own the tenant recorded |
//! | `T#<org>` | `RECORDED#<sha256>` | that a record of the tenant's own was made, and which |
//! | `T#<org>` | `CLOSE#<period>` | the meter as a period ended |
//! | `T#<org>` | `BUDGET#<period>#<budget>` | what was used of a budget: of a key, a member (`u:`) or the organization (`o:`), and of all models or of one (`/<model>`) |
//! | `T#<org>` | `ACCOUNT` | billing account |
//! | `T#<org>` | `ACCOUNT#<time>#<sha256>` | what happened to what the tenant has bought |
//! | `T#<org>` | `WATCH` | what is wanted when credits run out |
//! | `T#<org>` | `LEDGER#<time>#<led>` | change of credits |
//! | `T#<org>` | `BOOKED#<sha256>` | that a change of credits was booked |
//! | `T#<org>` | `ORDER#<ord>` | order |
//! | `T#<org>` | `TSES#<tus>#<ses>` | session of a tenant user |
//! | `T#<org>` | `AUDIT#<time>#<id>` | audit row |
//! | `T#<org>#M<number>` | `METER` | a further shard of the meter |
//! | `T#<org>#M<number>` | `CLOSE#<period>` | the same as a period ended |
//! | `T#<org>` | `IDEM#<sha256>` | request with an `Idempotency-Key`, and its answer |
//! | `K#<sha256>` | `KEY` | API key, for authentication |
//! | `U#<usr>` | `USER` | user |
//! | `U#<usr>` | `ORG#<org>` | membership, from the user's side |
//! | `U#<usr>` | `SES#<ses>` | session |
//! | `U#<usr>` | `ONCE#<purpose>` | one-time token of a person |
//! | `U#<usr>` | `DEV#<sha256>` | device that the person signed in from |
//! | `E#<e-mail>` | `EMAIL` | who owns an address |
//! | `SHARD#<nn>` | `T#<org>` | register of tenants, for work that visits all of them |
//! | `MAIL#<id>` | `SEND` | whether a mail was sent, or who is at it |
//! | `MAIL#TO#<e-mail>` | `<template>#<hour>` | how many mails somebody got |
//! | `CUSTOMER#<sha256>` | `CUSTOMER` | the tenant that a vendor's customer is |
//! | `EVENT#<vendor>#<sha256>` | `EVENT` | who handles an event of a vendor, or that it was |
//! | `EVENT#<vendor>#<sha256>` | `UNREADABLE` | what nobody could read |
//! | `EVENT#<vendor>#<sha256>` | `REFUSED` | what did not fit, and why |
//! | `ORDERNO#<ord>` | `ORDERNO` | whose order it is |
//! | `DUE#<nn>` | `ORDER#<time>#<ord>` | order with something left to do, and when to look at it |
//! | `TRY#<sha256>` | `GUESS` | how often a secret was guessed at, and when it may be again |
//! | `TRY#<sha256>` | `WINDOW#<number>` | how often something was tried within a window of time |
//!
//! Parts that come from outside are typed ids, checked names or hashes, so none can contain `#`.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_domain::{
    Email, InviteId, KeyId, LedgerId, Millis, OrderId, OrgId, Period, RequestId, SessionId, TenantUserId, UserId,
    Username,
    budget::{BudgetId, Owner},
    one_time::Purpose,
    secret::sha256_hex,
};

use crate::{scope::TenantScope, usage::RollUpKey};

pub(crate) const PK: &str = "pk";
pub(crate) const SK: &str = "sk";

/// How many shards the register of tenants has. Fixed: changing it needs a migration.
pub(crate) const SHARDS: u8 = 16;

/// A full primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl Key {
    fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    pub(crate) fn attributes(&self) -> HashMap<String, AttributeValue> {
        HashMap::from([
            (PK.to_owned(), AttributeValue::S(self.pk.clone())),
            (SK.to_owned(), AttributeValue::S(self.sk.clone())),
        ])
    }
}

pub(crate) fn tenant(scope: &TenantScope) -> String {
    format!("T#{}", scope.org())
}

pub(crate) fn organization(scope: &TenantScope) -> Key {
    Key::new(tenant(scope), "ORG")
}

pub(crate) fn meter(scope: &TenantScope) -> Key {
    Key::new(tenant(scope), METER)
}

/// A further shard has a partition of its own: it is there to be written to beside the others, and beside the tenant's
/// records. The main one, number 0, is the meter.
pub(crate) fn meter_shard(scope: &TenantScope, number: u8) -> Key {
    if number == 0 { meter(scope) } else { Key::new(meter_partition(scope, number), METER) }
}

/// Where all that belongs to a further shard is.
pub(crate) fn meter_partition(scope: &TenantScope, number: u8) -> String {
    format!("{}#M{number}", tenant(scope))
}

pub(crate) const METER: &str = "METER";

pub(crate) fn member(scope: &TenantScope, user: &UserId) -> Key {
    Key::new(tenant(scope), format!("{MEMBER_PREFIX}{user}"))
}

pub(crate) const MEMBER_PREFIX: &str = "MEMBER#";

pub(crate) const INVITE_PREFIX: &str = "INVITE#";

pub(crate) fn invite(scope: &TenantScope, invite: &InviteId) -> Key {
    Key::new(tenant(scope), format!("{INVITE_PREFIX}{invite}"))
}

/// By the hash: sort keys stand in logs, and addresses do not belong there.
pub(crate) fn invited(scope: &TenantScope, email: &Email) -> Key {
    Key::new(tenant(scope), format!("INVITED#{}", sha256_hex(email.as_str().as_bytes())))
}

pub(crate) fn tenant_session(scope: &TenantScope, user: &TenantUserId, session: &SessionId) -> Key {
    Key::new(tenant(scope), format!("{}{session}", tenant_sessions_of(user)))
}

/// Sessions of this tenant user sort behind this.
pub(crate) fn tenant_sessions_of(user: &TenantUserId) -> String {
    format!("TSES#{user}#")
}

pub(crate) const TENANT_USER_PREFIX: &str = "TUSER#";

/// A username has no `#`.
pub(crate) fn tenant_user(scope: &TenantScope, username: &Username) -> Key {
    Key::new(tenant(scope), format!("{TENANT_USER_PREFIX}{username}"))
}

pub(crate) const API_KEY_PREFIX: &str = "KEY#";

pub(crate) fn api_key(scope: &TenantScope, key: &KeyId) -> Key {
    Key::new(tenant(scope), format!("{API_KEY_PREFIX}{key}"))
}

pub(crate) fn api_key_lookup(hash: &str) -> Key {
    Key::new(format!("K#{hash}"), "KEY")
}

pub(crate) fn record(scope: &TenantScope, period: Period, request: &RequestId) -> Key {
    Key::new(tenant(scope), format!("{}{}", records_of(period), request.short()))
}

pub(crate) fn records_of(period: Period) -> String {
    format!("REC#{period}#")
}

/// Records with ids of `at`, to some milliseconds, and periods to fit begin with this; earlier ones sort before it, later
/// ones behind.
pub(crate) fn records_from(at: Millis) -> String {
    let at = at.clamp(0, LATEST);
    // The moment is the first 48 bits of an id; nine characters are 45 of them.
    format!("{}{}", records_of(Period::of(at)), &RequestId::at(at).short()[..9])
}

/// 9998-01-01T00:00:00Z, where months end.
const LATEST: Millis = 253_339_228_800_000;

pub(crate) fn own_resources(scope: &TenantScope, period: Period) -> Key {
    Key::new(tenant(scope), format!("OWN#{period}"))
}

/// `id` is a hash, so it has no `#`.
pub(crate) fn recorded(scope: &TenantScope, id: &str) -> Key {
    Key::new(tenant(scope), format!("RECORDED#{id}"))
}

pub(crate) fn roll_up(scope: &TenantScope, key: &RollUpKey) -> Key {
    let part = |id: Option<&str>| id.unwrap_or("-").to_owned();
    let api_key = part(key.key.as_ref().map(KeyId::short));
    let member = part(key.member.as_ref().map(UserId::short));
    Key::new(tenant(scope), format!("{}{}#{api_key}#{member}#{}", roll_ups_from(&key.day), key.model, key.operation))
}

/// Roll-ups of `day` sort behind this.
pub(crate) fn roll_ups_from(day: &str) -> String {
    format!("ROLL#{day}#")
}

/// Roll-ups up to and with `day` sort before this: `$` follows `#`.
pub(crate) fn roll_ups_to(day: &str) -> String {
    format!("ROLL#{day}$")
}

pub(crate) fn closing(scope: &TenantScope, period: Period) -> Key {
    Key::new(tenant(scope), format!("{CLOSING_PREFIX}{period}"))
}

pub(crate) const CLOSING_PREFIX: &str = "CLOSE#";

/// The closing row of a shard of the meter.
pub(crate) fn closing_shard(scope: &TenantScope, number: u8, period: Period) -> Key {
    if number == 0 {
        closing(scope, period)
    } else {
        Key::new(meter_partition(scope, number), format!("{CLOSING_PREFIX}{period}"))
    }
}

/// The model, whose id cannot contain `#`, comes last: the ids before it have one length, or a `:` behind their letter.
pub(crate) fn budget(scope: &TenantScope, BudgetId { owner, model }: &BudgetId, period: Period) -> Key {
    let owner = match owner {
        Owner::ApiKey(key) => key.short().to_owned(),
        Owner::Member(user) => format!("u:{}", user.short()),
        Owner::Organization => "o:".to_owned(),
    };
    let model = model.as_ref().map(|model| format!("/{model}")).unwrap_or_default();
    Key::new(tenant(scope), format!("BUDGET#{period}#{owner}{model}"))
}

/// Budgets of `period` sort behind this.
pub(crate) fn budgets_from(period: Period) -> String {
    format!("BUDGET#{period}#")
}

/// Which budget the item at this sort key counts.
pub(crate) fn budget_id(sk: &str) -> Option<BudgetId> {
    let (_, name) = sk.strip_prefix("BUDGET#")?.split_once('#')?;
    let (owner, model) = name.split_once('/').map_or((name, None), |(owner, model)| (owner, Some(model)));
    let owner = match owner.split_once(':') {
        None => Owner::ApiKey(KeyId::from_short(owner).ok()?),
        Some(("u", user)) => Owner::Member(UserId::from_short(user).ok()?),
        Some(("o", "")) => Owner::Organization,
        Some(_) => return None,
    };
    Some(BudgetId { owner, model: model.map(ToOwned::to_owned) })
}

pub(crate) const ACCOUNT: &str = "ACCOUNT";

pub(crate) fn account(scope: &TenantScope) -> Key {
    Key::new(tenant(scope), ACCOUNT)
}

pub(crate) fn credit_watch(scope: &TenantScope) -> Key {
    Key::new(tenant(scope), "WATCH")
}

pub(crate) const ACCOUNT_EVENT_PREFIX: &str = "ACCOUNT#";

/// By the hash: ids come from vendors.
pub(crate) fn account_event(scope: &TenantScope, at: i64, id: &str) -> Key {
    Key::new(tenant(scope), format!("{ACCOUNT_EVENT_PREFIX}{at:015}#{}", &sha256_hex(id.as_bytes())[..32]))
}

/// By the hash: the id comes from outside.
pub(crate) fn customer(customer: &str) -> Key {
    Key::new(format!("CUSTOMER#{}", sha256_hex(customer.as_bytes())), "CUSTOMER")
}

/// `vendor` is a word of ours; the id comes from outside.
pub(crate) fn vendor_event(vendor: &str, id: &str) -> Key {
    Key::new(format!("EVENT#{vendor}#{}", sha256_hex(id.as_bytes())), "EVENT")
}

pub(crate) fn unreadable_event(vendor: &str, id: &str) -> Key {
    Key { sk: "UNREADABLE".to_owned(), ..vendor_event(vendor, id) }
}

pub(crate) fn refused_event(vendor: &str, id: &str) -> Key {
    Key { sk: "REFUSED".to_owned(), ..vendor_event(vendor, id) }
}

pub(crate) const LEDGER_PREFIX: &str = "LEDGER#";

pub(crate) fn ledger(scope: &TenantScope, at: i64, row: &LedgerId) -> Key {
    Key::new(tenant(scope), format!("{LEDGER_PREFIX}{at:015}#{}", row.short()))
}

/// By the hash: parts of it come from vendors.
pub(crate) fn booking(scope: &TenantScope, key: &str) -> Key {
    Key::new(tenant(scope), format!("BOOKED#{}", sha256_hex(key.as_bytes())))
}

pub(crate) const ORDER_PREFIX: &str = "ORDER#";

/// Sorts by the time at which it was ordered.
pub(crate) fn order(scope: &TenantScope, order: &OrderId) -> Key {
    Key::new(tenant(scope), format!("{ORDER_PREFIX}{}", order.short()))
}

/// A vendor's message names an order and nobody whose it is.
pub(crate) fn order_owner(order: &OrderId) -> Key {
    Key::new(format!("ORDERNO#{}", order.short()), "ORDERNO")
}

/// As many as the register has: what is due is looked for shard by shard as well.
pub(crate) fn due(shard: u8) -> String {
    format!("DUE#{shard:02}")
}

pub(crate) fn order_due(order: &OrderId, at: i64) -> Key {
    Key::new(due(spread(order.as_str())), format!("{}#{}", orders_due_before(at), order.short()))
}

/// Orders that are due before `at` sort before this.
pub(crate) fn orders_due_before(at: i64) -> String {
    format!("{ORDER_PREFIX}{at:015}")
}

pub(crate) const AUDIT_PREFIX: &str = "AUDIT#";

pub(crate) fn audit(scope: &TenantScope, at: i64, id: &str) -> Key {
    Key::new(tenant(scope), format!("{}{id}", audits_from(at)))
}

/// Audit rows of this time and later sort behind this, earlier ones before it.
pub(crate) fn audits_from(at: i64) -> String {
    format!("{AUDIT_PREFIX}{at:015}#")
}

/// `id` is a hash, so it has no `#`.
pub(crate) fn idempotency(scope: &TenantScope, id: &str) -> Key {
    Key::new(tenant(scope), format!("IDEM#{id}"))
}

pub(crate) fn user(user: &UserId) -> Key {
    Key::new(format!("U#{user}"), "USER")
}

pub(crate) const USER_ORG_PREFIX: &str = "ORG#";

pub(crate) fn user_org(user: &UserId, org: &OrgId) -> Key {
    Key::new(format!("U#{user}"), format!("{USER_ORG_PREFIX}{org}"))
}

pub(crate) fn user_partition(user: &UserId) -> String {
    format!("U#{user}")
}

pub(crate) const SESSION_PREFIX: &str = "SES#";

pub(crate) fn session(user: &UserId, session: &SessionId) -> Key {
    Key::new(format!("U#{user}"), format!("{SESSION_PREFIX}{session}"))
}

pub(crate) const DEVICE_PREFIX: &str = "DEV#";

pub(crate) fn device(user: &UserId, mark: &str) -> Key {
    Key::new(format!("U#{user}"), format!("{DEVICE_PREFIX}{mark}"))
}

/// One row per purpose: a newer token takes the older one's place.
pub(crate) fn one_time(user: &UserId, purpose: Purpose) -> Key {
    let purpose = match purpose {
        Purpose::VerifyEmail => "VERIFY",
        Purpose::ResetPassword => "RESET",
        Purpose::Invite => "INVITE",
    };
    Key::new(format!("U#{user}"), format!("ONCE#{purpose}"))
}

pub(crate) fn email(email: &Email) -> Key {
    Key::new(format!("E#{email}"), "EMAIL")
}

/// `id` has no `#`, so it is no `TO#`.
pub(crate) fn mail(id: &str) -> Key {
    Key::new(format!("MAIL#{id}"), "SEND")
}

pub(crate) fn mails_to(email: &Email, template: &str, hour: i64) -> Key {
    Key::new(format!("MAIL#TO#{email}"), format!("{template}#{hour}"))
}

fn throttled(subject: &str) -> String {
    format!("TRY#{}", sha256_hex(subject.as_bytes()))
}

pub(crate) fn guesses(subject: &str) -> Key {
    Key::new(throttled(subject), "GUESS")
}

pub(crate) fn tries(subject: &str, window: i64) -> Key {
    Key::new(throttled(subject), format!("WINDOW#{window}"))
}

pub(crate) fn shard(number: u8) -> String {
    format!("SHARD#{number:02}")
}

/// Where the register lists `org`.
pub(crate) fn registered(org: &OrgId) -> Key {
    Key::new(shard(spread(org.as_str())), format!("T#{org}"))
}

/// The shard of an id. The last characters of an id are random, so shards fill evenly.
fn spread(id: &str) -> u8 {
    let number = id.bytes().rev().take(6).fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    (number % u32::from(SHARDS)) as u8
}

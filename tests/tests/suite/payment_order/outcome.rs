//! Where a life ended. What may depend on the order is left out or summed up, each for a reason:
//!
//! - numbers of states (`version`), which count how often something was written;
//! - when an order was paid: its checkout does not say, so it is when we first heard of it, and credits that end some days
//!   after that end by it;
//! - which resources were unlimited for a part of the month (`partial`): who is told of a plan when it is over never gave it;
//! - how what went back was booked: refunds that are seen together are one row of an order's, a dispute that was won before
//!   anybody looked has no row, and one that was seen has two that cancel each other. What all of them took counts.

use std::collections::BTreeMap;

use tenantry_domain::{
    Millis,
    account::Account,
    ledger::{LedgerKind, LedgerRow},
    metering::Meter,
    orders::Order,
};
use tenantry_store::AccountEvent;
use tenantry_tests::platform::{Platform, Tenant};

/// What was reached.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    account: Account,
    meter: Meter,
    /// What came: kind, micro-credits, whereof, until when where that is sure.
    came: Vec<(&'static str, i64, Option<String>, Option<Millis>)>,
    /// What went back, by what it was bought with: taken and not there to be taken.
    went: BTreeMap<Option<String>, (i64, u64)>,
    history: Vec<AccountEvent>,
    orders: Vec<Order>,
    /// Messages that were worked on to their end.
    done: usize,
    /// Messages that somebody still works on.
    claimed: Vec<String>,
    /// What was kept for people, and orders with something left to do.
    left: Vec<String>,
}

impl Outcome {
    pub(super) async fn of(platform: &Platform, tenant: &Tenant) -> Self {
        platform.books(tenant).await;
        let (store, scope) = (platform.store(), &tenant.scope);
        let history = store.account_history(scope, 1_000, None).await.unwrap();
        let orders = store.orders(scope, 100, None).await.unwrap();
        assert!(history.next.is_none() && orders.next.is_none());
        let meter = Meter {
            plan_version: 0,
            credits_expire_at: None,
            partial: Default::default(),
            ..platform.meter(tenant).await
        };
        let ledger = platform.ledger(tenant).await;
        let (mut done, mut claimed, mut left) = (0, vec![], vec![]);
        for row in platform.host().all_items().unwrap() {
            let (pk, sk) = (row["pk"]["S"].as_str().unwrap(), row["sk"]["S"].as_str().unwrap());
            let name = format!("{pk} {sk}");
            match sk {
                "EVENT" if pk.starts_with("EVENT#") && row.get("done").is_some() => done += 1,
                "EVENT" if pk.starts_with("EVENT#") => claimed.push(name),
                _ if pk.starts_with("EVENT#") || pk.starts_with("DUE#") => left.push(name),
                _ => {}
            }
        }
        Self {
            account: Account { version: 0, ..store.account(scope).await.unwrap() },
            meter,
            came: came(&ledger),
            went: went(&ledger),
            history: history.items,
            orders: orders.items.into_iter().map(comparable).collect(),
            done,
            claimed,
            left,
        }
    }
}

impl Outcome {
    /// The lines that are not the same, `+` for those of this one.
    pub(super) fn differs_from(&self, other: &Self) -> String {
        let lines = |outcome: &Self| format!("{outcome:#?}").lines().map(str::to_owned).collect::<Vec<_>>();
        let (ours, mut theirs) = (lines(self), lines(other));
        let mut told = vec![];
        for line in ours {
            match theirs.iter().position(|other| *other == line) {
                Some(place) => drop(theirs.remove(place)),
                None => told.push(format!("+{line}")),
            }
        }
        told.extend(theirs.into_iter().map(|line| format!("-{line}")));
        told.join("\n")
    }
}

fn came(ledger: &[LedgerRow]) -> Vec<(&'static str, i64, Option<String>, Option<Millis>)> {
    let rows = ledger.iter().filter(|row| matches!(row.kind, LedgerKind::Purchase | LedgerKind::Grant));
    let mut came: Vec<_> = rows
        .map(|row| {
            let until = row.expires_at.filter(|_| row.kind == LedgerKind::Grant);
            (row.kind.name(), row.amount, row.reference.clone(), until)
        })
        .collect();
    came.sort();
    came
}

fn went(ledger: &[LedgerRow]) -> BTreeMap<Option<String>, (i64, u64)> {
    let mut went = BTreeMap::new();
    for row in ledger.iter().filter(|row| !matches!(row.kind, LedgerKind::Purchase | LedgerKind::Grant)) {
        let (taken, short) = went.entry(row.reference.clone()).or_insert((0, 0));
        *taken += row.amount;
        *short += row.short;
    }
    went.retain(|_, sums| *sums != (0, 0));
    went
}

fn comparable(mut order: Order) -> Order {
    order.version = 0;
    if let Some(paid) = &mut order.paid {
        paid.at = 0;
    }
    order
}

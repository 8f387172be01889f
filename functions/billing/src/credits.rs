//! Credits: what is left, until when, and what changed it.

use axum::{Json as Answer, extract::State as Shared};
use serde::Serialize;
use tenantry_domain::{LedgerId, ledger::LedgerRow, roles::Permission, time::rfc3339};
use tenantry_web::{
    ApiError, Caller, Query,
    cursor::{Cursors, ListQuery},
};
use utoipa::ToSchema;

use crate::{State, refusals::ReadRefusals};

/// The balance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreditBalance {
    /// Micro-credits that further requests may use.
    balance: u64,
    /// Micro-credits that requests in flight hold, until it is known what they use.
    held: u64,
    /// When the next of them expire; `null` when none do.
    #[schema(required, format = DateTime)]
    next_expiry: Option<String>,
}

/// A row of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LedgerEntry {
    /// Its id.
    #[schema(value_type = String, example = "led_068b0kx0fawcp8yv9p2zkv5a5r")]
    id: LedgerId,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// `purchase`, `grant`, `refund`, `clawback`, `adjustment` or `expiry`.
    #[schema(example = "purchase")]
    kind: &'static str,
    /// Micro-credits added, or taken when negative.
    amount: i64,
    /// Micro-credits that were to be taken and were not there any more.
    short: u64,
    /// What it came from: an order, an invoice, a payment.
    #[schema(required)]
    reference: Option<String>,
    /// When what it added expires.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
}

impl From<LedgerRow> for LedgerEntry {
    fn from(row: LedgerRow) -> Self {
        Self {
            id: row.id,
            at: rfc3339(row.at),
            kind: row.kind.name(),
            amount: row.amount,
            short: row.short,
            reference: row.reference,
            expires_at: row.expires_at.map(rfc3339),
        }
    }
}

/// A page of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ledger {
    /// The newest first.
    data: Vec<LedgerEntry>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Credits
///
/// What is left. Exact at any moment.
#[utoipa::path(
    get,
    path = "/api/v1/credits",
    tag = "billing",
    operation_id = "get_credits",
    responses((status = 200, description = "The balance.", body = CreditBalance), ReadRefusals),
)]
pub(crate) async fn balance(Shared(state): Shared<State>, caller: Caller) -> Result<Answer<CreditBalance>, ApiError> {
    let scope = caller.scope(Permission::ReadUsage)?;
    let meter = state.store().meter(scope).await?;
    Ok(Answer(CreditBalance {
        balance: meter.credits,
        held: meter.credits_held(),
        next_expiry: meter.credits_expire_at.map(rfc3339),
    }))
}

/// Ledger of credits
///
/// What added and took credits, the newest first. What requests used is in `GET /usage/records`: the balance is the sum of
/// these rows less the credits of all records and of the requests in flight.
#[utoipa::path(
    get,
    path = "/api/v1/credits/ledger",
    tag = "billing",
    operation_id = "list_ledger",
    params(ListQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "A page.", body = Ledger), ReadRefusals),
)]
pub(crate) async fn ledger(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Ledger>, ApiError> {
    let scope = caller.scope(Permission::ManageBilling)?;
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), "ledger");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store().ledger(scope, query.limit.0, position.as_deref()).await?;
    Ok(Answer(Ledger {
        data: page.items.into_iter().map(LedgerEntry::from).collect(),
        next_cursor: page.next.map(|position| cursors.seal(&position)),
    }))
}

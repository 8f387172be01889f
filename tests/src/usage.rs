//! What a gateway reports of a call.

use tenantry_domain::{
    Amounts,
    usage::{Operation, Status, Tokens, UsageEvent},
};
use tenantry_store::{Reservation, Store};

/// The event of what a reservation was used for, now, or at the end of the period that it was made in.
#[must_use]
pub fn event_of(store: &Store, reservation: &Reservation, charged: Amounts, credits: u64) -> UsageEvent {
    let period = reservation.hold().period;
    UsageEvent {
        id: reservation.request().clone(),
        org: reservation.scope().org().clone(),
        at: store.now().clamp(period.start(), period.end() - 1),
        period: period.index(),
        key: None,
        member: None,
        operation: Operation::Chat,
        model: "m".into(),
        status: Status::Ok,
        tokens: Tokens::default(),
        charged,
        credits,
        cost: 0,
        price_version: 1,
        estimated: false,
        overrun: 0,
        streamed: false,
        latency_ms: 1,
        first_byte_ms: None,
        request_id: reservation.request().to_string(),
        shard: reservation.hold().shard,
        own: None,
    }
}

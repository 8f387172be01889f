//! What must hold, and what must be possible: a model in which nothing happens would satisfy everything else.

use stateright::Property;

use crate::{
    protocol::Protocol,
    state::{Aggregator, Call, Expiry, ExpiryStep, Planner, Settlement, State, Sweeper},
    table::{CREDITS, PURCHASE, Period, Plan, Record, RollUp, Status, Units},
};

/// Those of one of the three models.
pub(crate) fn of(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always("nothing goes below zero", nothing_below_zero),
        Property::always("allowance - left = charged, in each month, at rest", books_balance),
        Property::always("roll-ups = records", roll_ups_are_records),
        Property::always("one record for each admitted request, at rest", one_record_each),
        Property::always("credits = ledger - charged, at rest", credits_are_the_ledger),
        Property::always("no vendor is called without a reservation", vendor_needs_a_hold),
        Property::always("one roll-over of a month", one_roll_over),
        Property::always("a change of plan stays", plan_stays),
        Property::always("rest is reached, and no hold is left", comes_to_rest),
        Property::sometimes("a hold is charged as held", |_, s: &State| at_rest(s) && has_ended(s, Status::Expired)),
        Property::sometimes("a call is charged what it used", |_, s: &State| at_rest(s) && has_ended(s, Status::Ended)),
        Property::sometimes("somebody is given everything back", |_, s: &State| {
            s.calls.iter().any(|call| matches!(call, Call::Returning(_)))
        }),
        Property::sometimes("an expired hold is settled by its record", |_, s: &State| {
            matches!(s.sweeper, Sweeper::Expiring(Expiry { step: ExpiryStep::Settle(_), .. }, _))
        }),
        Property::sometimes("a record is written without the queue", |_, s: &State| {
            s.queue == [None; 2] && has_ended(s, Status::Ended)
        }),
    ];
    if protocol.requests == 2 {
        properties.extend([
            Property::sometimes("both are admitted", |_, s: &State| s.admitted.iter().count() == 2 && at_rest(s)),
            Property::sometimes("one is refused while the other is under way", |_, s: &State| {
                matches!(s.calls[0], Call::AtVendor(_)) && s.calls[1] == Call::Over && !s.admitted.contains(1)
            }),
            Property::sometimes("a chunk drops what is recorded", |_, s: &State| {
                s.aggregators.iter().any(|a| matches!(a, Aggregator::Writing { batch, chunk } if batch != chunk))
            }),
            Property::sometimes("a call settles what expired on its way", |_, s: &State| {
                s.calls.iter().any(|call| matches!(call, Call::Expiring(..)))
            }),
        ]);
    }
    if protocol.month_turns {
        properties.extend([
            Property::sometimes("a hold is settled in a month that is over", |_, s: &State| {
                s.calls.iter().any(|call| matches!(call, Call::Settling(Settlement { closed: true, .. })))
            }),
            Property::sometimes("two roll over at the same time", |_, s: &State| {
                matches!(s.sweeper, Sweeper::RollingOver(_)) && matches!(s.calls[0], Call::RollingOver(..))
            }),
        ]);
    }
    if protocol.month_turns && protocol.requests == 2 {
        properties.push(Property::sometimes("both months are charged", |_, s: &State| {
            Period::ALL.iter().all(|period| charged(s, *period) > 0) && at_rest(s)
        }));
    }
    properties
}

/// Nothing runs and nothing waits, and no hold is left. A write that somebody gave up on may still be underway.
fn at_rest(state: &State) -> bool {
    is_quiet(state) && state.table.meter.holds == [None; 2]
}

fn is_quiet(state: &State) -> bool {
    state.calls.iter().all(|call| call.has_ended() || *call == Call::NEW)
        && state.queue.iter().flatten().all(|message| message.acknowledged)
        && state.aggregators == [Aggregator::Idle; 2]
        && state.sweeper == Sweeper::Idle
        && matches!(state.planner, Planner::Over | Planner::Reading(_))
}

fn records(state: &State, period: Period) -> impl Iterator<Item = Record> {
    state.table.records[period as usize].into_iter().flatten()
}

fn charged(state: &State, period: Period) -> Units {
    records(state, period).map(|record| record.charged).sum()
}

fn has_ended(state: &State, status: Status) -> bool {
    Period::ALL.into_iter().any(|period| records(state, period).any(|record| record.status == status))
}

/// Invariant 1.
fn nothing_below_zero(_: &Protocol, state: &State) -> bool {
    let meter = &state.table.meter;
    meter.left >= 0 && meter.credits >= 0 && state.table.closing.is_none_or(|closing| closing.left >= 0)
}

/// Invariant 2.
fn books_balance(_: &Protocol, state: &State) -> bool {
    let meter = &state.table.meter;
    let charged_by_meter = |period| match &state.table.closing {
        _ if meter.period == period => meter.given - meter.left,
        Some(closing) if period < meter.period => closing.given - closing.left,
        _ => 0,
    };
    !at_rest(state) || Period::ALL.into_iter().all(|period| charged_by_meter(period) == charged(state, period))
}

/// Invariant 3, first part: not only at rest.
fn roll_ups_are_records(_: &Protocol, state: &State) -> bool {
    Period::ALL.into_iter().all(|period| {
        let requests = u8::try_from(records(state, period).count()).unwrap_or(u8::MAX);
        state.table.roll_ups[period as usize] == RollUp { requests, charged: charged(state, period) }
    })
}

/// Invariant 3, second part. A request that was not admitted has none, unless it held something that nobody gave back:
/// then that was charged when it expired.
fn one_record_each(_: &Protocol, state: &State) -> bool {
    !at_rest(state)
        || (0..2).all(|request| {
            let mut records = Period::ALL.into_iter().filter_map(|period| state.table.record(period, request));
            match (records.next(), records.next()) {
                (_, Some(_)) => false,
                (Some(record), None) => state.admitted.contains(request) || record.status == Status::Expired,
                (None, None) => !state.admitted.contains(request),
            }
        })
}

/// Invariant 4.
fn credits_are_the_ledger(_: &Protocol, state: &State) -> bool {
    let used: Units = Period::ALL.into_iter().map(|period| charged(state, period)).sum();
    let bought = if state.table.booked > 0 { PURCHASE } else { 0 };
    state.table.booked <= 1 && (!at_rest(state) || state.table.meter.credits == CREDITS + bought - used)
}

/// Invariant 5.
fn vendor_needs_a_hold(_: &Protocol, state: &State) -> bool {
    let holds = state.table.meter.holds;
    (0..2).all(|request| !matches!(state.calls[request], Call::AtVendor(_)) || holds[request].is_some())
}

/// Invariant 6.
fn one_roll_over(_: &Protocol, state: &State) -> bool {
    let table = &state.table;
    let turned = table.meter.period == Period::Second;
    table.rolled_over == u8::from(turned) && table.closing.is_some() == turned
}

/// Nobody but the next change undoes a change of plan.
fn plan_stays(_: &Protocol, state: &State) -> bool {
    state.table.meter.plan
        == match state.planner {
            Planner::Reading(Plan::Large) | Planner::RollingOver(Plan::Large, _) | Planner::Putting(Plan::Large, _) => {
                Plan::Small
            }
            _ => Plan::Large,
        }
}

/// From here, when nothing fails any more.
fn comes_to_rest(protocol: &Protocol, state: &State) -> bool {
    at_rest(state) || protocol.come_to_rest(state).is_some_and(|state| at_rest(&state))
}

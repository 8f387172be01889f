//! A request's task: `Call::admit`, `Call::finish` (`functions/chat/src/call.rs`), `Store::reserve`, `Store::release`.

use crate::{
    expiry::{Next, settle_hold},
    protocol::{Fate, Protocol},
    state::{Call, Expiry, Late, Message, Month, Set, Settlement, State, Then},
    table::{Hold, Meter, Period, Record, Refused, Request, Status, Units},
    variant::Variant::*,
};

/// What each request holds. Both do not fit into the month's allowance at once.
pub(crate) const DEMAND: [Units; 2] = [3, 1];

impl Protocol {
    /// `try_reserve`, and what `reserve` makes of its answer. `now` is the month that the process' clock says.
    pub(crate) fn reserve(&self, state: &mut State, request: Request, now: Period, fate: Fate) -> Option<()> {
        let demand = DEMAND[request];
        let period = match state.calls[request] {
            Call::Reserving(guess) => guess.max(now),
            Call::Repeating(period) | Call::Checked(period) => period,
            _ => return None,
        };
        match fate {
            Fate::NotApplied => {
                state.calls[request] = Call::Releasing;
                return Some(());
            }
            Fate::Late => {
                state.late[request] = Late::Underway(period);
                let repeats = self.is(RepeatedWriteArrivesLate);
                state.calls[request] = if repeats { Call::Repeating(period) } else { Call::Releasing };
                return Some(());
            }
            Fate::Done | Fate::AnswerLost | Fate::GivenUp => {}
        }
        let reads = self.is(CheckThenIncrement) && matches!(state.calls[request], Call::Reserving(_));
        let tried = if reads {
            state.table.clone().try_reserve(request, demand, period, None)
        } else {
            state.table.try_reserve(request, demand, period, self.broken)
        };
        state.calls[request] = match (tried, fate) {
            (Ok(()), _) if reads => Call::Checked(period),
            (Ok(()), Fate::Done) => {
                let meter = state.table.meter;
                meter.holds[request].map_or(Call::Over, |hold| go(state, &meter, request, hold))
            }
            (Ok(()), Fate::AnswerLost) => Call::Repeating(period),
            (Ok(()), _) => Call::Releasing,
            // Losing the answer of a write that changed nothing is the same as its not having been applied.
            (Err(_), Fate::AnswerLost | Fate::GivenUp) => return None,
            (Err(Refused(old)), _) => {
                if let Some(hold) = old.holds[request] {
                    // The SDK repeated a write that had been applied but whose answer was lost.
                    state.admitted = Set::of(state.admitted.iter().chain([request]));
                    Call::AtVendor(hold)
                } else if old.period < now {
                    Call::RollingOver(old.seen(), Then::Reserve(old.period))
                } else if old.left >= demand && old.credits >= demand {
                    // Only the guess was wrong; the next try knows better.
                    Call::Reserving(old.period)
                } else {
                    match expired(&old, request) {
                        Some(expiry) => Call::Expiring(expiry, Then::Reserve(old.period)),
                        None => Call::Over,
                    }
                }
            }
        };
        Some(())
    }

    /// Every other step of a call.
    pub(crate) fn call(&self, state: &mut State, request: Request, fate: Fate) -> Option<()> {
        let table = &mut state.table;
        state.calls[request] = match (state.calls[request], fate) {
            (Call::RollingOver(seen, then), Fate::Done) => {
                // Done, or somebody else did it: it looks again either way.
                let _ = table.roll_over(seen, self.broken);
                after(then)
            }
            (Call::RollingOver(_, Then::Reserve(_)), Fate::NotApplied) => Call::Releasing,
            (Call::Expiring(expiry, then), Fate::Done) => match expiry.step(table, self.broken) {
                Next::Step(expiry) => Call::Expiring(expiry, then),
                Next::End => after(then),
            },
            // It is left to the next. Who could not settle anything is refused.
            (Call::Expiring(_, Then::Reserve(_)), Fate::NotApplied) => Call::Over,
            (Call::Expiring(_, then), Fate::NotApplied) => after(then),
            (Call::Sending(hold, used), _) => {
                if fate != Fate::NotApplied {
                    send(state, request, hold, used);
                }
                // An answer that was lost is no acknowledgement: the record is written too.
                if fate == Fate::Done {
                    Call::Settling(Settlement::new(request, hold, used))
                } else {
                    Call::Writing(hold, used)
                }
            }
            (Call::Writing(hold, used), Fate::Done) => {
                let record = Record { charged: used, status: Status::Ended };
                let period = self.books_in(hold.period, state.month);
                let _ = table.write_chunk(&[(request, period, record)], self.or_whole());
                Call::Settling(Settlement::new(request, hold, used))
            }
            (Call::Settling(settlement), Fate::Done | Fate::AnswerLost) => {
                let next = settle_hold(table, settlement, self.broken);
                match next {
                    Next::Step(settlement) => Call::Settling(settlement),
                    // The SDK repeats it.
                    Next::End if fate == Fate::AnswerLost => Call::Settling(settlement),
                    Next::End if self.is(EventAfterSettle) => Call::SendingLate(settlement.hold, settlement.charged),
                    Next::End => Call::Over,
                }
            }
            (Call::SendingLate(hold, used), Fate::Done) => {
                send(state, request, hold, used);
                Call::Over
            }
            (Call::Returning(settlement), Fate::Done | Fate::AnswerLost) => {
                match settle_hold(table, settlement, self.broken) {
                    Next::Step(settlement) => Call::Returning(settlement),
                    Next::End if fate == Fate::AnswerLost => Call::Returning(settlement),
                    Next::End => Call::Over,
                }
            }
            _ => return None,
        };
        Some(())
    }

    /// `release` reads the meter.
    pub(crate) fn release(&self, state: &mut State, request: Request, now: Period) -> Option<()> {
        let Call::Releasing = state.calls[request] else { return None };
        let meter = state.table.meter;
        state.calls[request] = match meter.holds[request] {
            _ if meter.period < now => Call::RollingOver(meter.seen(), Then::Release),
            Some(hold) => Call::Returning(Settlement::new(request, hold, 0)),
            None => Call::Over,
        };
        Some(())
    }

    /// The vendor answered, or failed before its first token, or the client left.
    pub(crate) fn answered(&self, state: &mut State, request: Request, used: Units) -> Option<()> {
        let Call::AtVendor(hold) = state.calls[request] else { return None };
        state.calls[request] = if self.is(EventAfterSettle) {
            Call::Settling(Settlement::new(request, hold, used))
        } else {
            Call::Sending(hold, used)
        };
        Some(())
    }

    /// The month that an event is booked in: its request's own.
    pub(crate) fn books_in(&self, period: Period, now: Month) -> Period {
        match now {
            _ if !self.is(LateEventInMonthOfArrival) => period,
            Month::Second => Period::Second,
            Month::First | Month::Turning => Period::First,
        }
    }
}

fn send(state: &mut State, request: Request, hold: Hold, charged: Units) {
    state.queue[request] = Some(Message { period: hold.period, charged, acknowledged: false });
}

/// Admitted; what expired is settled on the way.
fn go(state: &mut State, meter: &Meter, request: Request, hold: Hold) -> Call {
    state.admitted = Set::of(state.admitted.iter().chain([request]));
    match expired(meter, request) {
        Some(expiry) => Call::Expiring(expiry, Then::Go(hold)),
        None => Call::AtVendor(hold),
    }
}

const fn after(then: Then) -> Call {
    match then {
        Then::Reserve(guess) => Call::Reserving(guess),
        Then::Go(hold) => Call::AtVendor(hold),
        Then::Release => Call::Releasing,
    }
}

/// The hold of the other request, when it has expired.
fn expired(meter: &Meter, request: Request) -> Option<Expiry> {
    let other = 1 - request;
    meter.holds[other].filter(|hold| hold.expired).map(|hold| Expiry::new(other, hold))
}

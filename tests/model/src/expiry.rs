//! `settle_hold` and `expire`, whoever runs them: one step at a time.

use crate::{
    state::{Expiry, ExpiryStep, Settlement},
    table::{Hold, Record, Refused, Request, Status, Table},
    variant::Variant::{self, *},
};

/// How a step ended.
pub(crate) enum Next<T> {
    /// There is another one.
    Step(T),
    /// That was the last.
    End,
}

/// `Store::settle_hold`.
pub(crate) fn settle_hold(table: &mut Table, settlement: Settlement, broken: Option<Variant>) -> Next<Settlement> {
    let Settlement { request, hold, charged, closed } = settlement;
    if closed {
        // Refused by the meter: settled already. Refused by the closing row: an error, and the hold stays.
        let _ = table.settle_closed(request, hold, charged, broken);
        return Next::End;
    }
    match table.try_settle(request, hold, charged, broken) {
        Err(Refused(old))
            if old.period != hold.period && (old.holds[request].is_some() || broken == Some(SettleTwice)) =>
        {
            Next::Step(Settlement { closed: true, ..settlement })
        }
        Ok(()) | Err(_) => Next::End,
    }
}

impl Expiry {
    pub(crate) const fn new(request: Request, hold: Hold) -> Self {
        Self { request, hold, step: ExpiryStep::Look }
    }

    /// `Store::expire`.
    pub(crate) fn step(self, table: &mut Table, broken: Option<Variant>) -> Next<Self> {
        let Self { request, hold, step } = self;
        let to = |step| Next::Step(Self { step, ..self });
        match step {
            ExpiryStep::Look => match table.record(hold.period, request) {
                Some(record) if broken != Some(ExpireWithoutLooking) => {
                    to(ExpiryStep::Settle(Settlement::new(request, hold, record.charged)))
                }
                _ => to(ExpiryStep::Expire),
            },
            ExpiryStep::Expire => match table.expire(request, hold, broken) {
                Ok(()) if broken == Some(ExpireInTwoWrites) => to(ExpiryStep::Record),
                // Somebody settled it meanwhile.
                Ok(()) | Err(Refused([true, _])) => Next::End,
                // The record arrived meanwhile: settle by it.
                Err(_) => to(ExpiryStep::Look),
            },
            ExpiryStep::Settle(settlement) => match settle_hold(table, settlement, broken) {
                Next::Step(settlement) => to(ExpiryStep::Settle(settlement)),
                Next::End => Next::End,
            },
            ExpiryStep::Record => {
                let record = Record { charged: hold.amount, status: Status::Expired };
                let _ = table.write_chunk(&[(request, hold.period, record)], None);
                Next::End
            }
        }
    }
}

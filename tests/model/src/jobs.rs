//! What runs beside the calls: the aggregator, the sweep, a change of plan.

use crate::{
    expiry::Next,
    protocol::{Fate, Protocol},
    state::{Aggregator, Expiry, Planner, Set, State, Sweeper},
    table::{Period, Plan, Record, Refused, Request},
    variant::Variant::{self, *},
};

impl Protocol {
    /// The aggregator gets a batch.
    pub(crate) fn receive(&self, state: &mut State, aggregator: usize, batch: Set) -> Option<()> {
        let Aggregator::Idle = state.aggregators[aggregator] else { return None };
        state.aggregators[aggregator] = Aggregator::Writing { batch, chunk: batch };
        Some(())
    }

    /// `write_chunk`: once, and again without the events that are recorded. The last one of a batch also answers the
    /// queue, unless that answer is lost.
    pub(crate) fn write_chunk(&self, state: &mut State, aggregator: usize, fate: Fate) -> Option<()> {
        let next = match state.aggregators[aggregator] {
            Aggregator::Idle => return None,
            Aggregator::Writing { batch, chunk } => {
                let mut events: Vec<(Request, Period, Record)> = Vec::with_capacity(2);
                for request in chunk.iter() {
                    let message = state.queue[request]?;
                    events.push((request, self.books_in(message.period, state.month), message.record()));
                }
                match state.table.write_chunk(&events, self.broken) {
                    Ok(()) if self.is(RollUpsApart) => Aggregator::AddingUp { batch, written: chunk },
                    Ok(()) => Aggregator::Writing { batch, chunk: Set::NONE },
                    Err(Refused(recorded)) => {
                        Aggregator::Writing { batch, chunk: chunk.retain(|request| !recorded[request]) }
                    }
                }
            }
            Aggregator::AddingUp { batch, written } => {
                for request in written.iter() {
                    let message = state.queue[request]?;
                    state.table.add_up(message.period, message.charged);
                }
                Aggregator::Writing { batch, chunk: Set::NONE }
            }
        };
        state.aggregators[aggregator] = match next {
            Aggregator::Writing { batch, chunk } if chunk.is_empty() => {
                for request in batch.iter().filter(|_| fate == Fate::Done) {
                    state.queue[request].as_mut()?.acknowledged = true;
                }
                Aggregator::Idle
            }
            // Only the last answers the queue.
            _ if fate == Fate::AnswerLost => return None,
            next => next,
        };
        Some(())
    }

    /// `sweep_holds` reads the meter.
    pub(crate) fn sweep_holds(&self, state: &mut State, now: Period) -> Option<()> {
        let Sweeper::Idle = state.sweeper else { return None };
        let meter = state.table.meter;
        if meter.period < now {
            state.sweeper = Sweeper::RollingOver(meter.seen());
            return Some(());
        }
        let mut expired = (0..2).filter_map(|request| Some((request, meter.holds[request].filter(|h| h.expired)?)));
        let (request, hold) = expired.next()?;
        state.sweeper = Sweeper::Expiring(Expiry::new(request, hold), expired.next());
        Some(())
    }

    /// Every other step of the sweep.
    pub(crate) fn sweeper(&self, state: &mut State) -> Option<()> {
        state.sweeper = match state.sweeper {
            Sweeper::Idle => return None,
            Sweeper::RollingOver(seen) => {
                let _ = state.table.roll_over(seen, self.broken);
                Sweeper::Idle
            }
            Sweeper::Expiring(expiry, next) => match (expiry.step(&mut state.table, self.broken), next) {
                (Next::Step(expiry), next) => Sweeper::Expiring(expiry, next),
                (Next::End, Some((request, hold))) => Sweeper::Expiring(Expiry::new(request, hold), None),
                (Next::End, None) => Sweeper::Idle,
            },
        };
        Some(())
    }

    /// `put_on_plan` reads the meter.
    pub(crate) fn read_plan(&self, state: &mut State, now: Period) -> Option<()> {
        let Planner::Reading(plan) = state.planner else { return None };
        let meter = state.table.meter;
        state.planner = match () {
            () if meter.period < now => Planner::RollingOver(plan, meter.seen()),
            () if meter.plan == plan => after(plan),
            () => Planner::Putting(plan, meter.seen()),
        };
        Some(())
    }

    /// Every other step of a change of plan.
    pub(crate) fn planner(&self, state: &mut State) -> Option<()> {
        state.planner = match state.planner {
            Planner::RollingOver(plan, seen) => {
                let _ = state.table.roll_over(seen, self.broken);
                Planner::Reading(plan)
            }
            Planner::Putting(plan, seen) => match state.table.put_on_plan(plan, seen) {
                Ok(()) => after(plan),
                // Somebody used or changed something meanwhile.
                Err(_) => Planner::Reading(plan),
            },
            Planner::Over | Planner::Reading(_) => return None,
        };
        Some(())
    }

    /// The direct write of a call is no batch, and whole also where the aggregator's is not.
    pub(crate) fn or_whole(&self) -> Option<Variant> {
        self.broken.filter(|broken| !matches!(broken, RollUpsApart | DedupByBatchHash))
    }
}

/// What comes after a change to `plan`.
const fn after(plan: Plan) -> Planner {
    match plan {
        Plan::Small => Planner::Reading(Plan::Large),
        Plan::Large => Planner::Over,
    }
}

//! Which steps there are from a state, and what they lead to.

use stateright::{Model, Property};

use crate::{
    calls::DEMAND,
    properties,
    state::{Aggregator, Call, ExpiryStep, Late, Month, Planner, Set, Settlement, State, Sweeper, Then},
    table::{Period, Request, Table, Units},
    variant::Variant::{self, *},
};

/// The model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// What is done wrong, if anything.
    pub broken: Option<Variant>,
    /// Whether the plan of the tenant is changed once.
    pub plan_changes: bool,
    /// What the calls may turn out to have used, by request.
    pub uses: [&'static [Units]; 2],
}

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    /// The task of a request.
    Call(Request),
    /// A process of the aggregator.
    Aggregator(usize),
    /// The sweep.
    Sweeper,
    /// A change of plan.
    Planner,
}

/// What becomes of a request over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is carried out, and its answer arrives.
    Done,
    /// It is not carried out, and its caller gets an error.
    NotApplied,
    /// It is carried out, its answer is lost, and the SDK repeats it.
    AnswerLost,
    /// It is carried out, its answer is lost, and its caller gets an error.
    GivenUp,
    /// Its caller gets an error, and it may be carried out later.
    Late,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The first clocks turn to the second month, or the last.
    MonthTurns,
    /// A hold's `expires_at` passes.
    HoldExpires(Request),
    /// A call asks the meter.
    TryReserve(Request, Period, Fate),
    /// The vendor has answered, or failed: so much was used.
    Answered(Request, Units),
    /// `release` reads the meter.
    Release(Request, Period),
    /// `sweep_holds` reads the meter.
    SweepHolds(Period),
    /// `put_on_plan` reads the meter.
    ReadPlan(Period),
    /// The queue delivers events.
    Receive(usize, Set),
    /// A payment is told of, perhaps again.
    Book,
    /// A `try_reserve` that its caller gave up on arrives.
    Arrives(Request),
    /// A process dies.
    Crash(Process),
    /// Whatever comes next in a process, by its name in the code.
    Step(Process, &'static str, Fate),
}

impl Protocol {
    /// The protocol as it is, without a change of plan.
    #[must_use]
    pub const fn new() -> Self {
        Self { broken: None, plan_changes: false, uses: [&[1], &[0, 2]] }
    }

    pub(crate) fn is(&self, variant: Variant) -> bool {
        self.broken == Some(variant)
    }

    /// What happens when nothing fails any more: the calls come to an end, what was sent is written, the sweep goes on until
    /// no hold is left. `None` when that does not end.
    #[must_use]
    pub fn come_to_rest(&self, state: &State) -> Option<State> {
        let mut state = *state;
        let mut actions = vec![];
        for _ in 0..STEPS_TO_REST {
            self.actions(&state, &mut actions);
            let next = actions
                .drain(..)
                .filter(|action| is_progress(action, &state))
                .find_map(|action| self.next_state(&state, action));
            match next {
                Some(next) => state = next,
                None => return Some(state),
            }
        }
        None
    }

    fn holds_may_expire(&self, state: &State, request: Request) -> bool {
        !self.is(HoldWithoutExpiry)
            && state.table.meter.holds[request].is_some_and(|hold| !hold.expired)
            && (state.calls[request].may_be_late() || self.is(HoldEndsBeforeItsCall))
    }

    fn call_actions(&self, state: &State, request: Request, actions: &mut Vec<Action>) {
        let clocks = state.month.clocks();
        let process = Process::Call(request);
        let call = state.calls[request];
        match call {
            Call::Reserving(_) | Call::Checked(_) | Call::Repeating(_) => {
                for clock in clocks {
                    actions.extend(
                        [Fate::Done, Fate::NotApplied, Fate::AnswerLost, Fate::GivenUp]
                            .map(|fate| Action::TryReserve(request, *clock, fate)),
                    );
                    if matches!(call, Call::Reserving(_)) && state.late[request] == Late::None {
                        actions.push(Action::TryReserve(request, *clock, Fate::Late));
                    }
                }
            }
            Call::AtVendor(_) => {
                actions.extend(self.uses[request].iter().map(|used| Action::Answered(request, *used)));
            }
            Call::Releasing => actions.extend(clocks.iter().map(|clock| Action::Release(request, *clock))),
            Call::Over | Call::Dead => {}
            _ => {
                let name = call_step(&call);
                let fates: &[Fate] = match call {
                    Call::RollingOver(_, Then::Reserve) | Call::Expiring(..) => &[Fate::Done, Fate::NotApplied],
                    Call::Sending(..) => &[Fate::Done, Fate::NotApplied, Fate::AnswerLost],
                    Call::Settling(_) | Call::Returning(_) => &[Fate::Done, Fate::AnswerLost],
                    _ => &[Fate::Done],
                };
                actions.extend(fates.iter().map(|fate| Action::Step(process, name, *fate)));
            }
        }
        if !call.has_ended() && call != Call::NEW {
            actions.push(Action::Crash(process));
        }
    }
}

/// More than any path to rest takes.
const STEPS_TO_REST: usize = 64;

impl Default for Protocol {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a step belongs to [`Protocol::come_to_rest`].
fn is_progress(action: &Action, state: &State) -> bool {
    match action {
        Action::TryReserve(request, _, fate) => *fate == Fate::Done && state.calls[*request] != Call::NEW,
        Action::Step(_, _, fate) => *fate == Fate::Done,
        Action::Receive(_, batch) => {
            batch.iter().all(|request| state.queue[request].is_some_and(|message| !message.acknowledged))
        }
        Action::ReadPlan(_) | Action::MonthTurns | Action::Book | Action::Arrives(_) | Action::Crash(_) => false,
        _ => true,
    }
}

const fn settle_step(settlement: &Settlement) -> &'static str {
    if settlement.closed { "settle_closed" } else { "try_settle" }
}

const fn expiry_step(step: &ExpiryStep) -> &'static str {
    match step {
        ExpiryStep::Look => "usage_record",
        ExpiryStep::Expire => "expire",
        ExpiryStep::Settle(settlement) => settle_step(settlement),
        ExpiryStep::Record => "write_usage",
    }
}

const fn call_step(call: &Call) -> &'static str {
    match call {
        Call::RollingOver(..) => "roll_over",
        Call::Expiring(expiry, _) => expiry_step(&expiry.step),
        Call::Sending(..) | Call::SendingLate(..) => "send",
        Call::Writing(..) => "write_usage",
        Call::Settling(settlement) | Call::Returning(settlement) => settle_step(settlement),
        _ => "",
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            month: Month::First,
            table: Table::new(),
            queue: [None; 2],
            calls: [Call::NEW; 2],
            admitted: Set::NONE,
            late: [Late::None; 2],
            aggregators: [Aggregator::Idle; 2],
            sweeper: Sweeper::Idle,
            planner: if self.plan_changes { Planner::Reading } else { Planner::Over },
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for request in 0..2 {
            self.call_actions(state, request, actions);
        }
        for (index, aggregator) in state.aggregators.iter().enumerate() {
            let process = Process::Aggregator(index);
            match aggregator {
                Aggregator::Idle => {
                    let sent = |request: &Request| state.queue[*request].is_some();
                    let batches = [Set::of([0]), Set::of([1]), Set::of([0, 1])];
                    let can_be = |batch: &Set| batch.iter().all(|request| sent(&request));
                    actions.extend(batches.into_iter().filter(can_be).map(|batch| Action::Receive(index, batch)));
                    continue;
                }
                Aggregator::Writing { .. } => {
                    actions.extend([Fate::Done, Fate::AnswerLost].map(|fate| Action::Step(process, "write_chunk", fate)));
                }
                Aggregator::AddingUp { .. } => actions.push(Action::Step(process, "add_up", Fate::Done)),
            }
            actions.push(Action::Crash(process));
        }
        match &state.sweeper {
            Sweeper::Idle => actions.extend(state.month.clocks().iter().map(|clock| Action::SweepHolds(*clock))),
            Sweeper::RollingOver(_) => actions.push(Action::Step(Process::Sweeper, "roll_over", Fate::Done)),
            Sweeper::Expiring(expiry, _) => {
                actions.push(Action::Step(Process::Sweeper, expiry_step(&expiry.step), Fate::Done));
            }
        }
        if state.sweeper != Sweeper::Idle {
            actions.push(Action::Crash(Process::Sweeper));
        }
        match state.planner {
            Planner::Over => {}
            Planner::Reading => actions.extend(state.month.clocks().iter().map(|clock| Action::ReadPlan(*clock))),
            Planner::RollingOver(_) => actions.push(Action::Step(Process::Planner, "roll_over", Fate::Done)),
            Planner::Putting(_) => actions.push(Action::Step(Process::Planner, "put_on_plan", Fate::Done)),
        }
        if matches!(state.planner, Planner::RollingOver(_) | Planner::Putting(_)) {
            actions.push(Action::Crash(Process::Planner));
        }
        for request in 0..2 {
            if self.holds_may_expire(state, request) {
                actions.push(Action::HoldExpires(request));
            }
            if state.late[request] != Late::None {
                actions.push(Action::Arrives(request));
            }
        }
        actions.push(Action::Book);
        if state.month != Month::Second {
            actions.push(Action::MonthTurns);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::MonthTurns => {
                state.month = if state.month == Month::First { Month::Turning } else { Month::Second };
            }
            Action::HoldExpires(request) => {
                state.table.meter.holds[request].as_mut()?.expired = true;
            }
            Action::TryReserve(request, clock, fate) => self.reserve(&mut state, request, clock, fate)?,
            Action::Answered(request, used) => self.answered(&mut state, request, used)?,
            Action::Release(request, clock) => self.release(&mut state, request, clock)?,
            Action::SweepHolds(clock) => self.sweep_holds(&mut state, clock)?,
            Action::ReadPlan(clock) => self.read_plan(&mut state, clock)?,
            Action::Receive(aggregator, batch) => self.receive(&mut state, aggregator, batch)?,
            Action::Book => state.table.book(self.broken).ok()?,
            Action::Arrives(request) => {
                let Late::Underway(period) = state.late[request] else { return None };
                state.late[request] = Late::None;
                let _ = state.table.try_reserve(request, DEMAND, period, self.broken);
            }
            Action::Crash(Process::Call(request)) => state.calls[request] = Call::Dead,
            Action::Crash(Process::Aggregator(aggregator)) => state.aggregators[aggregator] = Aggregator::Idle,
            Action::Crash(Process::Sweeper) => state.sweeper = Sweeper::Idle,
            // What ordered it orders it again.
            Action::Crash(Process::Planner) => state.planner = Planner::Reading,
            Action::Step(Process::Call(request), _, fate) => self.call(&mut state, request, fate)?,
            Action::Step(Process::Aggregator(aggregator), _, fate) => self.write_chunk(&mut state, aggregator, fate)?,
            Action::Step(Process::Sweeper, ..) => self.sweeper(&mut state)?,
            Action::Step(Process::Planner, ..) => self.planner(&mut state)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

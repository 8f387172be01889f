//! Which steps there are from a state, and what they lead to.

use std::fmt;

use stateright::{Model, Property};

use crate::{
    calls::DEMAND,
    properties,
    state::{Aggregator, Call, ExpiryStep, Late, Month, Planner, Set, Settlement, State, Sweeper, Then},
    table::{Period, Plan, Request, Table, Units},
    variant::Variant::{self, *},
};

/// The model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// What is done wrong, if anything.
    pub broken: Option<Variant>,
    /// How many requests come.
    pub requests: usize,
    /// Whether the month turns.
    pub month_turns: bool,
    /// Whether credits are bought.
    pub buys_credits: bool,
    /// Whether the plan of the tenant is changed, and changed back.
    pub plan_changes: bool,
}

/// What the vendor may turn out to have produced, by request: a part of what is held, all of it, or nothing, because it
/// failed before its first token.
const USES: [&[Units]; 2] = [&[1, 3], &[0, 1]];

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

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(request) => write!(f, "call {request}"),
            Self::Aggregator(_) => write!(f, "an aggregator"),
            Self::Sweeper => write!(f, "the sweep"),
            Self::Planner => write!(f, "a change of plan"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = match self {
            Self::TryReserve(.., fate) | Self::Step(.., fate) => *fate,
            _ => Fate::Done,
        };
        match self {
            Self::MonthTurns => write!(f, "the month turns"),
            Self::HoldExpires(request) => write!(f, "the hold of call {request} expires"),
            Self::TryReserve(request, clock, _) => write!(f, "call {request}, clock {clock:?}: try_reserve"),
            Self::Answered(request, used) => write!(f, "call {request}: the vendor has produced {used}"),
            Self::Release(request, clock) => write!(f, "call {request}, clock {clock:?}: release"),
            Self::SweepHolds(clock) => write!(f, "the sweep, clock {clock:?}: sweep_holds"),
            Self::ReadPlan(clock) => write!(f, "a change of plan, clock {clock:?}: meter"),
            Self::Receive(_, batch) => write!(f, "an aggregator: gets {batch:?}"),
            Self::Book => write!(f, "a payment is told of: book"),
            Self::Arrives(request) => write!(f, "the late try_reserve of call {request} arrives"),
            Self::Crash(process) => write!(f, "{process} dies"),
            Self::Step(process, name, _) => write!(f, "{process}: {name}"),
        }?;
        match fate {
            Fate::Done => Ok(()),
            Fate::NotApplied => write!(f, " (fails)"),
            Fate::AnswerLost => write!(f, " (done, but the answer is lost, and it is repeated)"),
            Fate::GivenUp => write!(f, " (done, but the answer is lost, and that is an error)"),
            Fate::Late => write!(f, " (no answer; it is still underway)"),
        }
    }
}

impl Protocol {
    /// Two requests while the month turns.
    pub const CORE: Self =
        Self { broken: None, requests: 2, month_turns: true, buys_credits: false, plan_changes: false };
    /// Two requests while credits are bought.
    pub const CREDITS: Self = Self { month_turns: false, buys_credits: true, ..Self::CORE };
    /// One request while the month turns, credits are bought and the plan is changed, twice.
    pub const PLAN: Self = Self { requests: 1, buys_credits: true, plan_changes: true, ..Self::CORE };

    /// The same, done wrong.
    #[must_use]
    pub const fn broken(self, variant: Variant) -> Self {
        Self { broken: Some(variant), ..self }
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
            Call::Reserving(_) => {
                let fates = [Fate::GivenUp, Fate::AnswerLost, Fate::NotApplied, Fate::Done];
                for clock in clocks {
                    if state.late[request] == Late::None {
                        actions.push(Action::TryReserve(request, *clock, Fate::Late));
                    }
                    actions.extend(fates.map(|fate| Action::TryReserve(request, *clock, fate)));
                }
            }
            // It is the same write again, whatever the clock says by now.
            Call::Checked(period) | Call::Repeating(period) => {
                let fates = [Fate::GivenUp, Fate::NotApplied, Fate::Done];
                actions.extend(fates.map(|fate| Action::TryReserve(request, period, fate)));
            }
            Call::AtVendor(_) => {
                actions.extend(USES[request].iter().map(|used| Action::Answered(request, *used)));
            }
            Call::Releasing => actions.extend(clocks.iter().map(|clock| Action::Release(request, *clock))),
            Call::Over => {}
            _ => {
                let name = call_step(&call);
                let fates: &[Fate] = match call {
                    Call::RollingOver(_, Then::Reserve(_)) | Call::Expiring(..) => &[Fate::NotApplied, Fate::Done],
                    Call::Sending(..) => &[Fate::AnswerLost, Fate::NotApplied, Fate::Done],
                    Call::Settling(_) | Call::Returning(_) => &[Fate::AnswerLost, Fate::Done],
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

/// Whether a step belongs to [`Protocol::come_to_rest`].
fn is_progress(action: &Action, state: &State) -> bool {
    match action {
        // A request need not come, unless it holds something already.
        Action::TryReserve(request, _, fate) => {
            let begun = state.calls[*request] != Call::NEW || state.table.meter.holds[*request].is_some();
            *fate == Fate::Done && begun
        }
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
            planner: if self.plan_changes { Planner::Reading(Plan::Small) } else { Planner::Over },
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for request in (0..self.requests).rev() {
            self.call_actions(state, request, actions);
        }
        for (index, aggregator) in state.aggregators.iter().enumerate() {
            let process = Process::Aggregator(index);
            if index > 0 && *aggregator == state.aggregators[index - 1] {
                continue;
            }
            match aggregator {
                Aggregator::Idle => {
                    let sent = |request: &Request| state.queue[*request].is_some();
                    let batches = [Set::of([0]), Set::of([1]), Set::of([0, 1])];
                    let can_be = |batch: &Set| batch.iter().all(|request| sent(&request));
                    actions.extend(batches.into_iter().filter(can_be).map(|batch| Action::Receive(index, batch)));
                    continue;
                }
                Aggregator::Writing { .. } => {
                    actions
                        .extend([Fate::AnswerLost, Fate::Done].map(|fate| Action::Step(process, "write_chunk", fate)));
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
            Planner::Reading(_) => actions.extend(state.month.clocks().iter().map(|clock| Action::ReadPlan(*clock))),
            Planner::RollingOver(..) => actions.push(Action::Step(Process::Planner, "roll_over", Fate::Done)),
            Planner::Putting(..) => actions.push(Action::Step(Process::Planner, "put_on_plan", Fate::Done)),
        }
        if matches!(state.planner, Planner::RollingOver(..) | Planner::Putting(..)) {
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
        if self.buys_credits {
            actions.push(Action::Book);
        }
        if self.month_turns && state.month != Month::Second {
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
                let _ = state.table.try_reserve(request, DEMAND[request], period, self.broken);
            }
            Action::Crash(Process::Call(request)) => state.calls[request] = Call::Over,
            Action::Crash(Process::Aggregator(aggregator)) => state.aggregators[aggregator] = Aggregator::Idle,
            Action::Crash(Process::Sweeper) => state.sweeper = Sweeper::Idle,
            // What ordered it orders it again.
            Action::Crash(Process::Planner) => {
                let (Planner::RollingOver(plan, _) | Planner::Putting(plan, _)) = state.planner else { return None };
                state.planner = Planner::Reading(plan);
            }
            Action::Step(Process::Call(request), _, fate) => self.call(&mut state, request, fate)?,
            Action::Step(Process::Aggregator(aggregator), _, fate) => self.write_chunk(&mut state, aggregator, fate)?,
            Action::Step(Process::Sweeper, ..) => self.sweeper(&mut state)?,
            Action::Step(Process::Planner, ..) => self.planner(&mut state)?,
        }
        // They are alike: which is which says nothing.
        state.aggregators.sort_unstable();
        Some(state)
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

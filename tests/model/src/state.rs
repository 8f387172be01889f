//! Everything that a step may depend on: the table, the queue, the clocks, and where each process stands.

use std::fmt;

use crate::table::{Hold, Period, Plan, Record, Request, Seen, Status, Table, Units};

/// What the clocks say, which need not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Month {
    /// It is the first month everywhere.
    First,
    /// Some clocks are in the second month, others not yet.
    Turning,
    /// It is the second month everywhere.
    Second,
}

impl Month {
    /// What a clock may say.
    pub(crate) const fn clocks(self) -> &'static [Period] {
        match self {
            Self::First => &[Period::First],
            Self::Turning => &Period::ALL,
            Self::Second => &[Period::Second],
        }
    }
}

/// Some of the two requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set(u8);

impl Set {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn of(requests: impl IntoIterator<Item = Request>) -> Self {
        Self(requests.into_iter().fold(0, |set, request| set | 1 << request))
    }

    pub(crate) const fn contains(self, request: Request) -> bool {
        self.0 & 1 << request != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Request> {
        (0..2).filter(move |request| self.contains(*request))
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Those that `keep` says.
    pub(crate) fn retain(self, keep: impl Fn(Request) -> bool) -> Self {
        Self::of(self.iter().filter(|request| keep(*request)))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// `settle_hold` on its way: what it was called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// Whose hold.
    pub request: Request,
    /// The hold as it was when it was read, or made.
    pub hold: Hold,
    /// What is not given back.
    pub charged: Units,
    /// Whether `try_settle` found that the hold's month is over.
    pub closed: bool,
}

impl Settlement {
    pub(crate) const fn new(request: Request, hold: Hold, charged: Units) -> Self {
        Self { request, hold, charged, closed: false }
    }
}

/// `expire` on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// Whose hold.
    pub request: Request,
    /// The hold as it was read.
    pub hold: Hold,
    /// What comes next.
    pub step: ExpiryStep,
}

/// See [`Expiry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpiryStep {
    /// `usage_record`.
    Look,
    /// There was no record: the transaction.
    Expire,
    /// There was a record.
    Settle(Settlement),
    /// [`Variant::ExpireInTwoWrites`](crate::Variant::ExpireInTwoWrites): the second of them.
    Record,
}

/// What a call does after something that came in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    /// `try_reserve` again; the month that the process knows to have begun.
    Reserve(Period),
    /// It is admitted with this hold.
    Go(Hold),
    /// `release` looks again.
    Release,
}

/// Where the task of a request stands (`functions/chat/src/call.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `reserve` is about to try; the month that the process knows to have begun.
    Reserving(Period),
    /// [`Variant::CheckThenIncrement`](crate::Variant::CheckThenIncrement): it read that enough is left.
    Checked(Period),
    /// The SDK is about to repeat a `try_reserve` for this month.
    Repeating(Period),
    /// `roll_over` of the meter that it saw.
    RollingOver(Seen, Then),
    /// `settle_some_expired`.
    Expiring(Expiry, Then),
    /// Admitted: the vendor is asked.
    AtVendor(Hold),
    /// `finish`: the event is about to go to the queue.
    Sending(Hold, Units),
    /// `finish`: the queue refused, and the record is about to be written directly.
    Writing(Hold, Units),
    /// `finish`: the hold is about to be settled. The last byte goes out after that.
    Settling(Settlement),
    /// [`Variant::EventAfterSettle`](crate::Variant::EventAfterSettle): settled, the event is about to go to the queue.
    SendingLate(Hold, Units),
    /// `reserve` failed: `release` is about to read the meter.
    Releasing,
    /// `release` found a hold.
    Returning(Settlement),
    /// It has ended, one way or the other, or its process died.
    Over,
}

impl Call {
    pub(crate) const NEW: Self = Self::Reserving(Period::First);

    pub(crate) const fn has_ended(self) -> bool {
        matches!(self, Self::Over)
    }

    /// Whether its own limit of time may have passed: the hold is made to outlive that.
    pub(crate) const fn may_be_late(self) -> bool {
        !matches!(
            self,
            Self::Reserving(_)
                | Self::Checked(_)
                | Self::Repeating(_)
                | Self::RollingOver(_, Then::Reserve(_) | Then::Go(_))
                | Self::Expiring(..)
                | Self::AtVendor(_)
        )
    }
}

/// A usage event in the queue. It can be delivered at any time, to anyone, any number of times, even when it was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    /// The month that its request was charged to.
    pub period: Period,
    /// What was charged.
    pub charged: Units,
    /// Whether it was deleted. The queue delivers again what was not.
    pub acknowledged: bool,
}

impl Message {
    pub(crate) const fn record(self) -> Record {
        Record { charged: self.charged, status: Status::Ended }
    }
}

/// Where a process of the aggregator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aggregator {
    /// It waits for messages.
    Idle,
    /// `write_chunk`: the events that it still wants to write.
    Writing {
        /// What was delivered.
        batch: Set,
        /// Less what turned out to be recorded.
        chunk: Set,
    },
    /// [`Variant::RollUpsApart`](crate::Variant::RollUpsApart): the records are written, the roll-ups are not.
    AddingUp {
        /// What was delivered.
        batch: Set,
        /// What was written.
        written: Set,
    },
}

/// Where the sweep stands (`quota-reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sweeper {
    /// Nothing is running.
    Idle,
    /// `roll_over` of the meter that it saw.
    RollingOver(Seen),
    /// `expire` of one hold, then of the next that it read.
    Expiring(Expiry, Option<(Request, Hold)>),
}

/// Where the changes of plan stand (`commerce`): to the small one, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Planner {
    /// There is none any more.
    Over,
    /// It is about to read the meter.
    Reading(Plan),
    /// `roll_over` of the meter that it saw.
    RollingOver(Plan, Seen),
    /// `put_on_plan` with what it saw.
    Putting(Plan, Seen),
}

/// A `try_reserve` that its caller gave up on, and that may still arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Late {
    /// There is none.
    None,
    /// For this month.
    Underway(Period),
}

/// A state of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// What the clocks say.
    pub month: Month,
    /// The table.
    pub table: Table,
    /// The events that were sent, by request.
    pub queue: [Option<Message>; 2],
    /// The tasks of the requests.
    pub calls: [Call; 2],
    /// Which of them were admitted. Nothing reads it but a property.
    pub admitted: Set,
    /// What may still arrive, by request.
    pub late: [Late; 2],
    /// The processes of the aggregator.
    pub aggregators: [Aggregator; 2],
    /// The sweep.
    pub sweeper: Sweeper,
    /// The change of plan.
    pub planner: Planner,
}

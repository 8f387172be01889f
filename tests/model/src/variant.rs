//! The protocol done wrong, in one point each.

/// A changed transition. The model of each is expected to have a counterexample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `settle_hold` does not ask for the hold (`attribute_exists(holds.request)`).
    SettleTwice,
    /// `settle_hold` does not ask for the period: what is given back always goes to the current month.
    RefundIntoWrongMonth,
    /// `try_reserve` reads what is left, then takes from it without a condition.
    CheckThenIncrement,
    /// `try_reserve` does not ask that there is no hold (`attribute_not_exists(holds.request)`).
    ReserveRepeated,
    /// A hold has no end, so that nobody else ever settles it.
    HoldWithoutExpiry,
    /// A hold may end before its call does.
    HoldEndsBeforeItsCall,
    /// The hold is settled first, and the event sent afterwards.
    EventAfterSettle,
    /// A record is written when its hold expired whether there is one or not.
    ExpireWithoutLooking,
    /// An expired hold is removed in one write, and its record written in a second.
    ExpireInTwoWrites,
    /// A batch that was written is known by the hash of its messages, not each event by its record.
    DedupByBatchHash,
    /// Roll-ups are added to in a second write, after that of the records.
    RollUpsApart,
    /// An event is booked in the month in which it arrives.
    LateEventInMonthOfArrival,
    /// `roll_over` does not ask that what is left is what was read.
    RollOverWithoutLeft,
    /// `roll_over` does not ask for the period, nor that there is no closing row.
    RollOverTwice,
    /// `roll_over` does not ask that the plan is the one that was read.
    RollOverWithoutPlan,
    /// Credits are booked without the row that says that their key was booked.
    BookedWithoutKey,
    /// No broken protocol but a worse network: a write that the SDK gave up on and repeated arrives when its call has long
    /// been settled.
    RepeatedWriteArrivesLate,
}

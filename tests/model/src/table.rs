//! What stands in the DynamoDB table, and the writes to it. Each function that takes `&mut self` is one write, named as in
//! `shared/store`, with its condition first: it happens as a whole or not at all.

use crate::variant::Variant::{self, *};

/// Of the one resource that is counted; a credit is worth one too. Signed, so that a broken variant can be seen going
/// below zero.
pub type Units = i8;

/// One of the two requests, as an index.
pub type Request = usize;

/// A month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// The month in which everything begins.
    First,
    /// The one after it.
    Second,
}

impl Period {
    /// Both.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];
}

/// The plan that the tenant is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// The one it begins with.
    Large,
    /// The one it is put on, where a change of plan is modelled.
    Small,
}

impl Plan {
    /// The month's allowance.
    #[must_use]
    pub const fn allowance(self) -> Units {
        match self {
            Self::Large => 3,
            Self::Small => 1,
        }
    }
}

/// What a request in flight has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hold {
    /// Of the allowance, and of the credits.
    pub amount: Units,
    /// The month whose allowance it is.
    pub period: Period,
    /// Whether `expires_at` has passed.
    pub expired: bool,
}

/// The `METER` item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Meter {
    /// The month of the allowance.
    pub period: Period,
    /// The plan that the allowance is of.
    pub plan: Plan,
    /// The month's allowance.
    pub given: Units,
    /// What is left of it, holds taken off.
    pub left: Units,
    /// Credits left, holds taken off.
    pub credits: Units,
    /// By request.
    pub holds: [Option<Hold>; 2],
}

/// What `roll_over` and `put_on_plan` repeat of a meter that they have read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seen {
    /// [`Meter::period`].
    pub period: Period,
    /// [`Meter::plan`].
    pub plan: Plan,
    /// [`Meter::given`].
    pub given: Units,
    /// [`Meter::left`].
    pub left: Units,
}

impl Meter {
    /// This meter as somebody reads it.
    #[must_use]
    pub const fn seen(&self) -> Seen {
        Seen { period: self.period, plan: self.plan, given: self.given, left: self.left }
    }
}

/// The `CLOSING` row of a month that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Closing {
    /// The month's allowance.
    pub given: Units,
    /// What was left of it, and what was given back since.
    pub left: Units,
}

/// How a recorded request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its call came to its end.
    Ended,
    /// Its hold expired, and nobody knew what was used.
    Expired,
}

/// A usage record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// What was charged.
    pub charged: Units,
    /// Why.
    pub status: Status,
}

/// The sums of a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RollUp {
    /// How many records were added.
    pub requests: u8,
    /// What they charged together.
    pub charged: Units,
}

/// The table, as far as one tenant is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    /// The meter.
    pub meter: Meter,
    /// The closing row of the first month.
    pub closing: Option<Closing>,
    /// By month and request: the key of a record.
    pub records: [[Option<Record>; 2]; 2],
    /// By month.
    pub roll_ups: [RollUp; 2],
    /// Rows of the ledger for the one purchase there is.
    pub booked: u8,
    /// How often a month was rolled over. Nothing reads it but a property.
    pub rolled_over: u8,
    /// Batches that were written: [`Variant::DedupByBatchHash`] only.
    pub batches: u8,
}

/// What the purchase is worth.
pub(crate) const PURCHASE: Units = 1;
/// The credits that the tenant begins with.
pub(crate) const CREDITS: Units = 3;

/// A condition failed. Where it matters, which: for each write of the transaction.
pub(crate) struct Refused<T>(pub(crate) T);

impl Table {
    pub(crate) const fn new() -> Self {
        let (plan, given) = (Plan::Large, Plan::Large.allowance());
        let meter = Meter { period: Period::First, plan, given, left: given, credits: CREDITS, holds: [None; 2] };
        let roll_ups = [RollUp { requests: 0, charged: 0 }; 2];
        let records = [[None; 2]; 2];
        Self { meter, closing: None, records, roll_ups, booked: 0, rolled_over: 0, batches: 0 }
    }

    pub(crate) const fn record(&self, period: Period, request: Request) -> Option<Record> {
        self.records[period as usize][request]
    }

    /// `store/src/meter/reserve.rs`: one `UpdateItem`.
    pub(crate) fn try_reserve(
        &mut self,
        request: Request,
        amount: Units,
        period: Period,
        broken: Option<Variant>,
    ) -> Result<(), Refused<Meter>> {
        let meter = &mut self.meter;
        let condition = meter.period == period
            && (broken == Some(ReserveRepeated) || meter.holds[request].is_none())
            && (broken == Some(CheckThenIncrement) || (meter.left >= amount && meter.credits >= amount));
        if !condition {
            return Err(Refused(*meter));
        }
        meter.holds[request] = Some(Hold { amount, period, expired: false });
        meter.left -= amount;
        meter.credits -= amount;
        Ok(())
    }

    /// `store/src/meter/settle.rs`, the current month: one `UpdateItem` that removes the hold and gives back what of it was
    /// not charged.
    pub(crate) fn try_settle(
        &mut self,
        request: Request,
        hold: Hold,
        charged: Units,
        broken: Option<Variant>,
    ) -> Result<(), Refused<Meter>> {
        let meter = &mut self.meter;
        let condition = (broken == Some(SettleTwice) || meter.holds[request].is_some())
            && (broken == Some(RefundIntoWrongMonth) || meter.period == hold.period);
        if !condition {
            return Err(Refused(*meter));
        }
        meter.holds[request] = None;
        meter.left += hold.amount - charged;
        meter.credits += hold.amount - charged;
        Ok(())
    }

    /// `store/src/meter/settle.rs`, a month that is over: one transaction of the meter and of that month's closing row.
    pub(crate) fn settle_closed(
        &mut self,
        request: Request,
        hold: Hold,
        charged: Units,
        broken: Option<Variant>,
    ) -> Result<(), Refused<[bool; 2]>> {
        let refund = hold.amount - charged;
        let no_hold = broken != Some(SettleTwice) && self.meter.holds[request].is_none();
        let no_row = refund > 0 && self.closing.is_none();
        if no_hold || no_row {
            return Err(Refused([no_hold, no_row]));
        }
        self.meter.holds[request] = None;
        self.meter.credits += refund;
        if let Some(closing) = &mut self.closing {
            closing.left += refund;
        }
        Ok(())
    }

    /// `store/src/meter/mod.rs`: one transaction of the meter and the closing row.
    pub(crate) fn roll_over(&mut self, old: Seen, broken: Option<Variant>) -> Result<(), Refused<()>> {
        let meter = &mut self.meter;
        let condition = (broken == Some(RollOverTwice) || (meter.period == old.period && self.closing.is_none()))
            && (matches!(broken, Some(RollOverWithoutLeft | RollOverTwice)) || meter.left == old.left)
            && (broken == Some(RollOverWithoutPlan) || meter.plan == old.plan);
        if !condition {
            return Err(Refused(()));
        }
        self.closing = Some(Closing { given: old.given, left: old.left });
        meter.period = Period::Second;
        meter.plan = old.plan;
        meter.given = old.plan.allowance();
        meter.left = meter.given;
        self.rolled_over += 1;
        Ok(())
    }

    /// `store/src/meter/plan.rs`: one `UpdateItem`. What was used stays used.
    pub(crate) fn put_on_plan(&mut self, plan: Plan, seen: Seen) -> Result<(), Refused<()>> {
        let meter = &mut self.meter;
        let used = seen.given - seen.left;
        let given = plan.allowance().max(used);
        let more = given - seen.given;
        let enough = match () {
            () if more >= 0 => true,
            // Where all that is left goes, it must be what was seen; else enough must be left.
            () if given == used => meter.left == -more,
            () => meter.left >= -more,
        };
        if !(meter.plan == seen.plan && meter.period == seen.period && meter.given == seen.given && enough) {
            return Err(Refused(()));
        }
        (meter.plan, meter.given) = (plan, given);
        meter.left += more;
        Ok(())
    }

    /// `store/src/expiry.rs`, no record: one transaction of the meter, the record and its roll-up.
    pub(crate) fn expire(
        &mut self,
        request: Request,
        hold: Hold,
        broken: Option<Variant>,
    ) -> Result<(), Refused<[bool; 2]>> {
        let no_hold = self.meter.holds[request].is_none();
        let recorded = broken != Some(ExpireWithoutLooking) && self.record(hold.period, request).is_some();
        if no_hold || recorded {
            return Err(Refused([no_hold, recorded]));
        }
        self.meter.holds[request] = None;
        if broken != Some(ExpireInTwoWrites) {
            self.put_record(hold.period, request, Record { charged: hold.amount, status: Status::Expired });
            self.add_up(hold.period, hold.amount);
        }
        Ok(())
    }

    /// `store/src/usage.rs`: one transaction of the records and the roll-ups. When it is refused: for each event, whether
    /// there was a record.
    pub(crate) fn write_chunk(
        &mut self,
        events: &[(Request, Period, Record)],
        broken: Option<Variant>,
    ) -> Result<(), Refused<[bool; 2]>> {
        let mut recorded = [false; 2];
        for (request, period, _) in events {
            recorded[*request] = self.record(*period, *request).is_some();
        }
        let hash = events.iter().fold(0_u8, |hash, (request, ..)| hash | 1 << (1 << request));
        let hash = if events.len() == 2 { 1 << 3 } else { hash };
        if broken == Some(DedupByBatchHash) {
            if self.batches & hash != 0 {
                return Err(Refused([true; 2]));
            }
            self.batches |= hash;
        } else if recorded != [false; 2] {
            return Err(Refused(recorded));
        }
        for (request, period, record) in events {
            self.put_record(*period, *request, *record);
            if broken != Some(RollUpsApart) {
                self.add_up(*period, record.charged);
            }
        }
        Ok(())
    }

    /// `store/src/ledger.rs`: one transaction of the row with the key, the row of the ledger, and the meter.
    pub(crate) fn book(&mut self, broken: Option<Variant>) -> Result<(), Refused<()>> {
        if broken != Some(BookedWithoutKey) && self.booked > 0 {
            return Err(Refused(()));
        }
        self.booked += 1;
        self.meter.credits += PURCHASE;
        Ok(())
    }

    pub(crate) fn put_record(&mut self, period: Period, request: Request, record: Record) {
        self.records[period as usize][request] = Some(record);
    }

    pub(crate) fn add_up(&mut self, period: Period, charged: Units) {
        let sums = &mut self.roll_ups[period as usize];
        sums.requests += 1;
        sums.charged += charged;
    }
}

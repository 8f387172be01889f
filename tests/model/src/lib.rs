#![doc = include_str!("../README.md")]

mod calls;
mod expiry;
mod jobs;
mod properties;
mod protocol;
mod state;
mod table;
mod variant;

pub use protocol::{Action, Fate, Process, Protocol};
pub use state::{Aggregator, Call, Late, Message, Month, Planner, Set, State, Sweeper, Then};
pub use table::{Closing, Hold, Meter, Period, Plan, Record, Request, RollUp, Seen, Status, Table, Units};
pub use variant::Variant;

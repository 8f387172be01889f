//! Test doubles of the payment vendors, for laptops and tests. No payment here is one.

pub mod china;
mod clock;
pub mod guard;
pub mod stripe;

pub use clock::AheadClock;

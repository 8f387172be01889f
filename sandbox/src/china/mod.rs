//! What the doubles of WeChat Pay and Alipay have in common: keys, faults, notifications and the page on which a person
//! pays. They share no code with the clients that they test.

mod control;
mod fault;
mod guard;
mod keys;
mod outbox;
mod page;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::Router;
use jiff::{Timestamp, tz::Offset};
use tenantry_domain::Millis;
use thiserror::Error;

pub use fault::{Fault, Faults};
pub(crate) use keys::{RsaKey, verifies};
pub use outbox::{Delivery, Listed, Outbox, Progress};
pub(crate) use outbox::{Letter, Seal};

/// How much faster than the vendors' the double's clock of repetitions runs: fifteen seconds are a quarter of one.
pub const SPEED: u64 = 60;

/// A double cannot be made.
#[derive(Debug, Clone, Copy, Error)]
#[error("the double has no keys: the system gives no randomness")]
pub struct NoKeys;

/// What the page shows of an order.
pub(crate) struct Bill {
    pub(crate) order: String,
    pub(crate) description: String,
    /// In fen.
    pub(crate) amount: u64,
    pub(crate) state: &'static str,
    pub(crate) payable: bool,
    /// Where the shop wants the payer back.
    pub(crate) return_url: Option<String>,
}

/// A vendor as its page and its controls see it.
pub(crate) trait Desk: Send + Sync + 'static {
    /// In paths: `wechat`.
    fn path(&self) -> &'static str;
    /// For people: `WeChat Pay`.
    fn name(&self) -> &'static str;
    /// The order, which the payer has just scanned.
    fn scan(&self, order: &str) -> Option<Bill>;
    fn pay(&self, order: &str) -> Result<(), &'static str>;
    fn decline(&self, order: &str) -> Result<(), &'static str>;
    fn outbox(&self) -> &Outbox;
    fn faults(&self) -> &Faults;
}

/// The payment page and the controls of a vendor, below `/_dev`; both for this machine only.
pub(crate) fn dev_router(desk: Arc<dyn Desk>) -> Router {
    page::router(desk.clone()).merge(control::router(desk)).layer(axum::middleware::from_fn(guard::local_only))
}

/// Counts what happens here, for numbers that never repeat within the process.
pub(crate) fn sequence() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const BEIJING: Offset = Offset::constant(8);

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_second(at.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2018-06-08T10:34:56+08:00`.
pub(crate) fn rfc3339(at: Millis) -> String {
    timestamp(at).display_with_offset(BEIJING).to_string()
}

/// `2018-06-08 10:34:56` in Beijing.
pub(crate) fn civil(at: Millis) -> String {
    BEIJING.to_datetime(timestamp(at)).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The moment of such a text.
pub(crate) fn parse_civil(text: &str) -> Option<Millis> {
    let civil = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    BEIJING.to_timestamp(civil).ok().map(Timestamp::as_millisecond)
}

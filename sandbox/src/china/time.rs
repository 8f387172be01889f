//! Times as the vendors write them: Beijing's.

use jiff::{Timestamp, tz::Offset};
use tenantry_domain::Millis;

const BEIJING: Offset = Offset::constant(8);
const CIVIL: &str = "%Y-%m-%d %H:%M:%S";

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_second(at.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2018-06-08T10:34:56+08:00`.
pub(super) fn rfc3339(at: Millis) -> String {
    timestamp(at).display_with_offset(BEIJING).to_string()
}

/// The moment of such a text.
pub(super) fn parse_rfc3339(text: &str) -> Option<Millis> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// `2018-06-08 10:34:56`.
pub(super) fn civil(at: Millis) -> String {
    BEIJING.to_datetime(timestamp(at)).strftime(CIVIL).to_string()
}

/// The moment of such a text.
pub(super) fn parse_civil(text: &str) -> Option<Millis> {
    let civil = jiff::civil::DateTime::strptime(CIVIL, text).ok()?;
    BEIJING.to_timestamp(civil).ok().map(Timestamp::as_millisecond)
}

/// `20180608103456`, as in the vendors' numbers.
pub(super) fn compact(at: Millis) -> String {
    BEIJING.to_datetime(timestamp(at)).strftime("%Y%m%d%H%M%S").to_string()
}

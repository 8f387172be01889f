//! Times as the vendors write them. Both live in Beijing, which has had no summer time since 1991.

use jiff::{Timestamp, civil::DateTime, tz::Offset};
use tenantry_domain::Millis;

const BEIJING: Offset = Offset::constant(8);
const CIVIL: &str = "%Y-%m-%d %H:%M:%S";

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_second(at.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2018-06-08T10:34:56+08:00`, WeChat Pay's form.
pub(crate) fn rfc3339(at: Millis) -> String {
    timestamp(at).display_with_offset(BEIJING).to_string()
}

/// RFC 3339 with any offset.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Millis> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond).filter(|at| *at >= 0)
}

/// `2018-06-08 10:34:56`, Alipay's form, in Beijing's time.
pub(crate) fn civil(at: Millis) -> String {
    BEIJING.to_datetime(timestamp(at)).strftime(CIVIL).to_string()
}

/// The moment of an Alipay time; a fraction, which some messages have, is dropped.
pub(crate) fn parse_civil(text: &str) -> Option<Millis> {
    let text = text.split_once('.').map_or(text, |(seconds, _)| seconds);
    let civil = DateTime::strptime(CIVIL, text).ok()?;
    BEIJING.to_timestamp(civil).ok().map(Timestamp::as_millisecond).filter(|at| *at >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_beijings() {
        let at = 1_528_425_296_000;
        assert_eq!(rfc3339(at + 999), "2018-06-08T10:34:56+08:00");
        assert_eq!(parse_rfc3339("2018-06-08T10:34:56+08:00"), Some(at));
        assert_eq!(parse_rfc3339("2018-06-08T02:34:56Z"), Some(at));
        assert_eq!(civil(at), "2018-06-08 10:34:56");
        assert_eq!(parse_civil("2018-06-08 10:34:56"), Some(at));
        assert_eq!(parse_civil("2018-06-08 10:34:56.789"), Some(at));
        for text in ["", "2018-06-08", "2018-02-30 00:00:00", "2018-06-08T10:34:56"] {
            assert_eq!((parse_civil(text), parse_rfc3339(text)), (None, None), "{text}");
        }
    }
}

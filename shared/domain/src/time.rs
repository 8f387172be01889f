//! Time: milliseconds since the epoch, UTC calendar months and days, and where "now" comes from.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// Where "now" comes from, so that a test can turn the month.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the epoch.
    fn now(&self) -> Millis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Millis {
        Timestamp::now().as_millisecond()
    }
}

/// `at` as RFC 3339 in UTC with milliseconds, as every answer writes times.
#[must_use]
pub fn rfc3339(at: Millis) -> String {
    format!("{:.3}", timestamp(at))
}

fn timestamp(at: Millis) -> Timestamp {
    // Out of range only beyond the year 9999, or before the year -9999.
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `None` at the far ends of the calendar, which no stored time reaches.
fn start_of(date: Date) -> Option<Millis> {
    date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

/// The UTC calendar day of `at`, `2026-11-20`.
#[must_use]
pub fn day(at: Millis) -> String {
    timestamp(at).to_zoned(TimeZone::UTC).date().to_string()
}

/// `at`, so many calendar months later in UTC; the last day of a month that is too short.
#[must_use]
pub fn months_later(at: Millis, months: u32) -> Millis {
    let later = timestamp(at).to_zoned(TimeZone::UTC).checked_add(jiff::Span::new().months(months.min(1_200)));
    later.map_or(at, |later| later.timestamp().as_millisecond())
}

/// A UTC calendar month, the period of the allowances. Half open: it ends where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    year: i16,
    month: i8,
}

/// A text that is not `YYYY-MM`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a period is written YYYY-MM, like 2026-11")]
pub struct PeriodError;

impl Period {
    /// The month that `at` lies in.
    #[must_use]
    pub fn of(at: Millis) -> Self {
        let date = timestamp(at).to_zoned(TimeZone::UTC).date();
        Self { year: date.year(), month: date.month() }
    }

    fn first_day(self) -> Date {
        Date::new(self.year, self.month, 1).unwrap_or(Date::ZERO)
    }

    /// The month after this one.
    #[must_use]
    pub fn next(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1 }
        } else {
            Self { year: self.year, month: self.month + 1 }
        }
    }

    /// First millisecond of the period.
    #[must_use]
    pub fn start(self) -> Millis {
        start_of(self.first_day()).unwrap_or(0)
    }

    /// First millisecond after the period.
    #[must_use]
    pub fn end(self) -> Millis {
        self.next().start()
    }

    /// Months since the year 0: one small number, for places where every byte is paid for.
    #[must_use]
    pub fn index(self) -> i64 {
        i64::from(self.year) * 12 + i64::from(self.month) - 1
    }

    /// The period whose [`index`](Self::index) this is.
    #[must_use]
    pub fn from_index(index: i64) -> Option<Self> {
        let year = i16::try_from(index.div_euclid(12)).ok()?;
        let month = i8::try_from(index.rem_euclid(12)).ok()? + 1;
        (0..=9998).contains(&year).then_some(Self { year, month })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Period {
    type Err = PeriodError;
    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let (year, month) = text.split_once('-').ok_or(PeriodError)?;
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
            return Err(PeriodError);
        }
        let (year, month) = (year.parse().map_err(|_| PeriodError)?, month.parse().map_err(|_| PeriodError)?);
        if !(1..=12).contains(&month) || !(1970..=9998).contains(&year) {
            return Err(PeriodError);
        }
        Ok(Self { year, month })
    }
}

/// A UTC calendar day as a query names it (`2026-11-20`), checked.
///
/// # Errors
/// When the text is not a date.
pub fn parse_day(text: &str) -> Result<Millis, PeriodError> {
    if text.len() != 10 {
        return Err(PeriodError);
    }
    text.parse::<Date>().ok().and_then(start_of).ok_or(PeriodError)
}

/// A moment as a request names it, RFC 3339 with an offset; whole milliseconds are kept.
///
/// # Errors
/// When the text is not a moment between the years 1970 and 9998.
pub fn parse_moment(text: &str) -> Result<Millis, MomentError> {
    let moment: Timestamp = text.parse().map_err(|_| MomentError)?;
    let millis = moment.as_millisecond();
    if text.len() <= 40 && (0..LATEST).contains(&millis) { Ok(millis) } else { Err(MomentError) }
}

/// 9998-01-01T00:00:00Z.
const LATEST: Millis = 253_339_228_800_000;

/// A text that is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a time with an offset, like 2026-11-20T12:00:00Z")]
pub struct MomentError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_half_open_utc_months() {
        let december: Period = "2026-12".parse().unwrap();
        assert_eq!(Period::of(december.start()), december);
        assert_eq!(Period::of(december.end() - 1), december);
        assert_eq!(Period::of(december.end()).to_string(), "2027-01");
        assert_eq!(Period::from_index(december.index()), Some(december));
        assert_eq!(day(december.start()), "2026-12-01");
        assert_eq!(rfc3339(december.start()), "2026-12-01T00:00:00.000Z");
    }

    #[test]
    fn months_end_on_the_same_day_or_the_last_one() {
        let later = |from: &str, months| rfc3339(months_later(parse_moment(from).unwrap(), months));
        assert_eq!(later("2026-11-20T12:00:00.007Z", 1), "2026-12-20T12:00:00.007Z");
        assert_eq!(later("2026-11-30T23:00:00Z", 3), "2027-02-28T23:00:00.000Z");
        assert_eq!(later("2026-12-31T00:00:00Z", 0), "2026-12-31T00:00:00.000Z");
    }

    #[test]
    fn moments_have_an_offset() {
        assert_eq!(parse_moment("2026-12-01T00:00:00Z").unwrap(), Period::of(1_798_000_000_000).start());
        assert_eq!(parse_moment("2026-12-01T08:00:00.000+08:00"), parse_moment("2026-12-01T00:00:00Z"));
        assert_eq!(rfc3339(LATEST), "9998-01-01T00:00:00.000Z");
        for text in ["", "2026-12-01", "2026-12-01T00:00:00", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "now"] {
            assert!(parse_moment(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["", "2026", "2026-13", "2026-00", "26-01", "2026-1", "2026-+1", "-026-01", "2026-01-01"] {
            assert!(text.parse::<Period>().is_err(), "{text:?} was taken");
        }
        assert!(parse_day("2026-02-30").is_err());
        assert!(parse_day("2026-02-28").is_ok());
        assert!(parse_day("9999-12-31").is_err());
    }
}

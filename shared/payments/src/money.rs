//! Fen and yuan. Alipay writes yuan with a point (`"88.80"`), WeChat Pay writes fen; no float ever holds either.

/// Renminbi in fen, the hundredth of a yuan.
pub type Fen = u64;

/// The largest amount that is read: Alipay's limit of a single trade, 100,000,000.00 yuan.
const LARGEST: Fen = 10_000_000_000;
/// Digits before the point, so that nothing overflows.
const MOST_DIGITS: usize = 9;

/// The amount as Alipay writes it: `8880` is `88.80`.
#[must_use]
pub fn yuan(amount: Fen) -> String {
    format!("{}.{:02}", amount / 100, amount % 100)
}

/// Fen of an amount in yuan, exactly. `None` for anything but digits with at most two decimals, and above Alipay's limit.
#[must_use]
pub fn parse_yuan(text: &str) -> Option<Fen> {
    let (whole, cents) = text.split_once('.').map_or((text, None), |(whole, cents)| (whole, Some(cents)));
    let digits = |text: &str| !text.is_empty() && text.len() <= MOST_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) {
        return None;
    }
    let cents = match cents {
        None => 0,
        Some(cents) if cents.len() == 2 && digits(cents) => cents.parse::<Fen>().ok()?,
        Some(cents) if cents.len() == 1 && digits(cents) => cents.parse::<Fen>().ok()? * 10,
        Some(_) => return None,
    };
    let amount = whole.parse::<Fen>().ok()? * 100 + cents;
    (amount <= LARGEST).then_some(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yuan_and_fen_are_exact_both_ways() {
        for (text, amount) in [
            ("0.01", 1),
            ("0.10", 10),
            ("0.1", 10),
            ("1", 100),
            ("88.88", 8888),
            ("1.13", 113),
            ("4.35", 435),
            ("100000000.00", 10_000_000_000),
        ] {
            assert_eq!(parse_yuan(text), Some(amount), "{text}");
            assert_eq!(parse_yuan(&yuan(amount)), Some(amount));
        }
        assert_eq!(yuan(5), "0.05");
        assert_eq!(yuan(8880), "88.80");
    }

    #[test]
    fn anything_else_is_no_amount() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1.00",
            "+1.00",
            "1e3",
            "1.000",
            "0.001",
            "1,00",
            " 1",
            "1 ",
            "１",
            "1.0.0",
            "NaN",
            "100000000.01",
            "9999999999",
            "18446744073709551616",
        ] {
            assert_eq!(parse_yuan(text), None, "{text:?}");
        }
    }
}

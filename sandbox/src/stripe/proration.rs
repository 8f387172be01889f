//! Proration by the second: <https://docs.stripe.com/billing/subscriptions/prorations>. What is left of a period is worth
//! its amount × seconds left ÷ seconds of the period, rounded to the nearest minor unit, half away from zero, in whole
//! numbers. A change in the middle of a period credits the old item's share and charges the new one's.

use serde_json::Value;

use super::{calendar::day, catalogue::product_name, invoice_lines::Line, object::int, state::State};

/// `amount × part ÷ whole`, rounded to the nearest, half away from zero.
pub(super) fn share(amount: i64, part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    let (product, whole) = (i128::from(amount) * i128::from(part), i128::from(whole));
    let rounded = (product.abs() * 2 + whole) / (whole * 2) * product.signum();
    i64::try_from(rounded).unwrap_or(if rounded > 0 { i64::MAX } else { i64::MIN })
}

/// What an item costs for a whole period.
pub(super) fn full(item: &Value) -> i64 {
    int(&item["price"], "unit_amount").saturating_mul(int(item, "quantity"))
}

/// What an item of the period has not been used yet: a credit.
pub(super) fn unused(s: &State, item: &Value, at: i64) -> Line {
    let amount = share(full(item), left(item, at), whole(item));
    line(s, item, at, -amount, "Unused time on")
}

/// What an item costs for the rest of the period.
pub(super) fn remaining(s: &State, item: &Value, at: i64) -> Line {
    let amount = share(full(item), left(item, at), whole(item));
    line(s, item, at, amount, "Remaining time on")
}

fn whole(item: &Value) -> i64 {
    int(item, "current_period_end") - int(item, "current_period_start")
}

fn left(item: &Value, at: i64) -> i64 {
    (int(item, "current_period_end") - at).clamp(0, whole(item).max(0))
}

fn line(s: &State, item: &Value, at: i64, amount: i64, what: &str) -> Line {
    let quantity = int(item, "quantity");
    let name = product_name(s, &item["price"]);
    let name = if quantity == 1 { name } else { format!("{quantity} × {name}") };
    Line {
        amount,
        description: format!("{what} {name} after {}", day(at)),
        period: (at, int(item, "current_period_end").max(at)),
        price: item["price"].clone(),
        quantity,
        item: item["id"].as_str().map(str::to_owned),
        proration: true,
        invoice_item: None,
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_are_rounded_half_away_from_zero() {
        let month = 30 * 86_400;
        assert_eq!(share(2000, month / 2, month), 1000);
        assert_eq!(share(1999, month / 2, month), 1000);
        assert_eq!(share(-1999, month / 2, month), -1000);
        assert_eq!(share(1999, 0, month), 0);
        assert_eq!(share(1999, month, month), 1999);
        assert_eq!(share(1000, 1, 3), 333);
        assert_eq!(share(2000, 1, 3), 667);
        assert_eq!(share(i64::MAX, month, month), i64::MAX);
        assert_eq!(share(1, 1, 0), 0);
    }
}

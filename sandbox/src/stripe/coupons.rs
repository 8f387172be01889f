//! Coupons, the promotion codes that people type for them, and discounts, which are coupons in use.
//! <https://docs.stripe.com/api/coupons>, <https://docs.stripe.com/api/promotion_codes>

use serde_json::{Value, json};

use super::{
    calendar::{Unit, after},
    error::{Answer, StripeError},
    listing::{Page, page},
    object::{Kind, int, text, with},
    params::Params,
    state::State,
};

/// Hundredths of a percent: `25.5` is 2550.
fn basis_points(percent: &str) -> Option<i64> {
    let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
    if part.len() > 2 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let points = whole.parse::<i64>().ok()?.checked_mul(100)? + format!("{part:0<2}").parse::<i64>().ok()?;
    (1..=10_000).contains(&points).then_some(points)
}

pub(super) fn create(s: &mut State, mut p: Params) -> Answer {
    let percent = p.some_text("percent_off")?;
    let amount = p.int("amount_off")?;
    let currency = p.some_text("currency")?;
    let duration = p.one_of("duration", &["once", "repeating", "forever"])?.unwrap_or("once");
    let months = p.int("duration_in_months")?;
    let (id, name, most) = (p.some_text("id")?, p.some_text("name")?, p.int("max_redemptions")?);
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    if (percent.is_some() == amount.is_some()) || (amount.is_some() && currency.is_none()) {
        return Err(StripeError::invalid("Must provide percent_off, or amount_off with currency").param("percent_off"));
    }
    if (duration == "repeating") != months.is_some() {
        return Err(StripeError::invalid("duration_in_months goes with duration=repeating").param("duration_in_months"));
    }
    p.done()?;
    let percent_off = match &percent {
        None => Value::Null,
        Some(percent) => {
            let number = basis_points(percent).and_then(|_| serde_json::from_str(percent).ok());
            number
                .ok_or_else(|| StripeError::invalid("Invalid percent_off: over 0 and up to 100").param("percent_off"))?
        }
    };
    if id.as_deref().is_some_and(|id| s.get(Kind::Coupon, id).is_some()) {
        return Err(StripeError::invalid("Coupon already exists.").code("resource_already_exists").param("id"));
    }
    let id = id.unwrap_or_else(|| s.new_id(Kind::Coupon));
    let coupon = with(
        "coupon",
        json!({"id": id, "created": s.now, "percent_off": percent_off, "amount_off": amount, "currency": currency,
               "duration": duration, "duration_in_months": months, "name": name, "max_redemptions": most,
               "metadata": metadata}),
    );
    s.create(Kind::Coupon, coupon.clone(), "coupon.created");
    Ok(coupon)
}

pub(super) fn create_code(s: &mut State, mut p: Params) -> Answer {
    let mut promotion = p.group("promotion")?.ok_or_else(|| p.missing("promotion"))?;
    promotion.one_of("type", &["coupon"])?.ok_or_else(|| promotion.missing("type"))?;
    let coupon = promotion.required("coupon")?;
    promotion.done()?;
    s.referred(Kind::Coupon, &coupon, "promotion[coupon]")?;
    let (code, active, most) = (p.some_text("code")?, p.flag("active")?, p.int("max_redemptions")?);
    let (customer, expires) = (p.some_text("customer")?, p.int("expires_at")?);
    let mut metadata = json!({});
    p.metadata(&mut metadata)?;
    p.done()?;
    let id = s.new_id(Kind::PromotionCode);
    let code = code.unwrap_or_else(|| id.trim_start_matches("promo_").to_uppercase());
    if find_code(s, &code).is_some() {
        return Err(StripeError::invalid("An active promotion code with this code already exists.").param("code"));
    }
    let object = with(
        "promotion_code",
        json!({"id": id, "created": s.now, "code": code, "active": active.unwrap_or(true), "customer": customer,
               "expires_at": expires, "max_redemptions": most, "metadata": metadata,
               "promotion": {"coupon": coupon, "type": "coupon"}}),
    );
    s.create(Kind::PromotionCode, object.clone(), "promotion_code.created");
    Ok(object)
}

pub(super) fn update_code(s: &mut State, id: &str, mut p: Params) -> Answer {
    let mut code = s.named(Kind::PromotionCode, id)?;
    if let Some(active) = p.flag("active")? {
        code["active"] = json!(active);
    }
    p.metadata(&mut code["metadata"])?;
    p.done()?;
    s.change(Kind::PromotionCode, id, "promotion_code.updated", code);
    s.named(Kind::PromotionCode, id)
}

pub(super) fn list_codes(s: &State, mut p: Params) -> Answer {
    let asked = Page::take(&mut p)?;
    let (code, active) = (p.some_text("code")?, p.flag("active")?);
    p.done()?;
    page(s, Kind::PromotionCode, &asked, "/v1/promotion_codes", |object| {
        code.as_deref().is_none_or(|code| text(object, "code").eq_ignore_ascii_case(code))
            && active.is_none_or(|active| object["active"] == active)
    })
}

/// The code that somebody typed, when it can be used.
pub(super) fn find_code(s: &State, code: &str) -> Option<Value> {
    let usable = |object: &&Value| {
        text(object, "code").eq_ignore_ascii_case(code)
            && object["active"] == true
            && object["expires_at"].as_i64().is_none_or(|at| at > s.now)
            && object["max_redemptions"].as_i64().is_none_or(|most| int(object, "times_redeemed") < most)
    };
    s.all(Kind::PromotionCode).find(usable).cloned()
}

/// What a call or a payer wants taken off.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Reduction {
    coupon: String,
    promotion_code: Option<String>,
}

impl Reduction {
    /// `discounts[0][coupon]` or `discounts[0][promotion_code]`.
    pub(super) fn take(s: &State, p: &mut Params) -> Answer<Option<Self>> {
        let mut found = None;
        for mut group in p.groups("discounts")?.unwrap_or_default() {
            let (coupon, code) = (group.some_text("coupon")?, group.some_text("promotion_code")?);
            let reduction = match (coupon, code) {
                (Some(coupon), None) => {
                    s.referred(Kind::Coupon, &coupon, &group.name("coupon"))?;
                    Self { coupon, promotion_code: None }
                }
                (None, Some(code)) => {
                    Self::of_code(&s.referred(Kind::PromotionCode, &code, &group.name("promotion_code"))?)
                }
                _ => {
                    return Err(
                        StripeError::invalid("A discount names a coupon or a promotion code").param("discounts")
                    );
                }
            };
            group.done()?;
            if found.replace(reduction).is_some() {
                return Err(StripeError::invalid("The sandbox takes one discount").param("discounts"));
            }
        }
        Ok(found)
    }

    pub(super) fn of_code(code: &Value) -> Self {
        let coupon = text(&code["promotion"], "coupon").to_owned();
        Self { coupon, promotion_code: code["id"].as_str().map(str::to_owned) }
    }

    /// What it takes off `amount`: rounded to the nearest minor unit, half away from zero, never more than there is.
    pub(super) fn of(&self, s: &State, amount: i64) -> i64 {
        s.get(Kind::Coupon, &self.coupon).map_or(0, |coupon| off(coupon, amount))
    }

    /// As the discounts of a checkout session show it.
    pub(super) fn to_json(&self) -> Value {
        let coupon = if self.promotion_code.is_none() { json!(self.coupon) } else { Value::Null };
        json!({"coupon": coupon, "promotion_code": self.promotion_code})
    }

    /// Uses it: makes a discount.
    pub(super) fn redeem(
        &self,
        s: &mut State,
        customer: Option<&str>,
        subscription: Option<&str>,
        session: Option<&str>,
    ) -> String {
        for (kind, id) in [(Kind::Coupon, Some(&self.coupon)), (Kind::PromotionCode, self.promotion_code.as_ref())] {
            if let Some((id, object)) = id.and_then(|id| Some((id, s.get(kind, id)?))) {
                let times = int(object, "times_redeemed") + 1;
                s.set(kind, id, json!({ "times_redeemed": times }));
            }
        }
        let months = s.get(Kind::Coupon, &self.coupon).and_then(|coupon| coupon["duration_in_months"].as_i64());
        let id = s.new_id(Kind::Discount);
        let discount = json!({
            "id": id, "start": s.now, "end": months.map(|months| after(s.now, Unit::Month, months)),
            "customer": customer, "subscription": subscription, "checkout_session": session,
            "promotion_code": self.promotion_code, "source": {"coupon": self.coupon, "type": "coupon"},
        });
        s.put(Kind::Discount, with("discount", discount));
        id
    }
}

fn off(coupon: &Value, amount: i64) -> i64 {
    let amount = amount.max(0);
    if let Some(off) = coupon["amount_off"].as_i64() {
        return off.min(amount);
    }
    let points = basis_points(coupon["percent_off"].to_string().trim_end_matches(".0")).unwrap_or(0);
    super::proration::share(amount, points, 10_000)
}

/// What a discount takes off an invoice.
pub(super) fn discounted(s: &State, discount: &str, amount: i64) -> i64 {
    let Some(discount) = s.get(Kind::Discount, discount) else { return 0 };
    if discount["end"].as_i64().is_some_and(|end| end <= s.now) {
        return 0;
    }
    s.get(Kind::Coupon, text(&discount["source"], "coupon")).map_or(0, |coupon| off(coupon, amount))
}

/// Whether a discount is for one invoice only.
pub(super) fn is_once(s: &State, discount: &str) -> bool {
    let coupon = s.get(Kind::Discount, discount).map(|discount| text(&discount["source"], "coupon"));
    coupon.and_then(|coupon| s.get(Kind::Coupon, coupon)).is_some_and(|coupon| text(coupon, "duration") == "once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_taken_in_whole_numbers() {
        for (percent, points) in
            [("25", Some(2500)), ("25.5", Some(2550)), ("33.33", Some(3333)), ("100", Some(10_000))]
        {
            assert_eq!(basis_points(percent), points);
        }
        for percent in ["0", "-5", "100.01", "1.234", "x", "1.-1", ""] {
            assert_eq!(basis_points(percent), None, "{percent}");
        }
        assert_eq!(off(&json!({"percent_off": 25.5}), 999), 255);
        assert_eq!(off(&json!({"percent_off": 100}), 999), 999);
        assert_eq!(off(&json!({"amount_off": 5000}), 999), 999);
    }
}

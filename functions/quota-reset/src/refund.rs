//! A refund that the operator asks for, by invoking the function with it; the one job that is about one order, and that is
//! answered with what came of it. The name that it is given makes it the same refund, however often it is asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_commerce::CommerceError;
use tenantry_domain::{
    OrderId,
    orders::{NoRefund, Order, RefundEnd, RefundWanted},
};
use tenantry_store::{AuditActor, Change, NewAudit, Origin, TenantScope};

use crate::State;

/// The `job` of a refund.
pub const REFUND: &str = "refund";

/// Longest name of a refund, and of an operator.
const NAME: usize = 64;
/// Longest reason: what WeChat Pay shows.
const REASON: usize = 80;

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    job: String,
    id: String,
    order: String,
    amount: Value,
    operator: String,
    reason: Option<String>,
}

/// What came of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The money went back.
    Made,
    /// The vendor is at it.
    UnderWay,
    /// It was not made, and will not be.
    Refused,
    /// Something failed in the middle of it.
    Unknown,
}

/// The answer to whoever asked for a refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefundAnswer {
    /// What came of it.
    pub outcome: Outcome,
    /// The same in words, and what is to be done about it.
    pub message: String,
    /// The order, as it is after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<RefundedOrder>,
}

/// An order with a refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefundedOrder {
    /// The order.
    pub id: String,
    /// Whose it is.
    pub organization: String,
    /// Where it stands.
    pub state: &'static str,
    /// What it cost, in minor units.
    pub amount: u64,
    /// What all of its refunds have given back.
    pub refunded: u64,
    /// The currency.
    pub currency: String,
}

impl RefundAnswer {
    fn refused(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Refused, message: message.into(), order: None }
    }

    fn unknown(message: String) -> Self {
        Self { outcome: Outcome::Unknown, message, order: None }
    }
}

/// Whether an event asks for a refund.
pub(crate) fn is_asked_for(payload: &Value) -> bool {
    payload.get("job").and_then(Value::as_str) == Some(REFUND)
}

/// Gives back what `payload` asks for. Whatever comes of it is an answer: who asks is there to read it, and nobody has to
/// be woken.
pub async fn refund(state: &State, payload: Value, request_id: &str) -> RefundAnswer {
    let asked = match Parsed::of(payload) {
        Ok(asked) => asked,
        Err(why) => return RefundAnswer::refused(format!("{why} Nothing was done: see docs/payments.md, Refunds.")),
    };
    let answer = match state.store.tenant_of_order(&asked.order).await {
        Ok(Some(scope)) => asked.refund(state, &scope, request_id).await,
        Ok(None) => RefundAnswer::refused(NO_ORDER),
        Err(error) => of_error(&asked.id, &error.into()),
    };
    let Parsed { id, order, operator, .. } = &asked;
    let RefundAnswer { outcome, message, .. } = &answer;
    tracing::info!(%order, refund = id, operator, ?outcome, message, "a refund was asked for");
    answer
}

const NO_ORDER: &str = "There is no such order. Its id begins with `ord_` and stands at the vendor's, as our number of it. \
     What an organization that was erased had ordered is gone here: give it back at the vendor's site.";

/// The same, in order.
struct Parsed {
    id: String,
    order: OrderId,
    /// Everything that is left when none.
    amount: Option<u64>,
    operator: String,
    reason: String,
}

impl Parsed {
    fn of(payload: Value) -> Result<Self, String> {
        let Asked { job, id, order, amount, operator, reason } =
            serde_json::from_value(payload).map_err(|error| format!("This is not a refund: {error}."))?;
        if job != REFUND {
            return Err(format!("`job` must be `{REFUND}`."));
        }
        for (field, name) in [("id", &id), ("operator", &operator)] {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if !(1..=NAME).contains(&name.len()) || !name.bytes().all(fits) {
                return Err(format!("`{field}` must have 1 to {NAME} letters, digits, `.`, `_` or `-`."));
            }
        }
        // To leave it out must not be to give everything back.
        let amount = match &amount {
            Value::String(all) if all == "all" => None,
            amount => Some(amount.as_u64().filter(|amount| *amount > 0).ok_or(
                "`amount` must be a whole number above 0 of minor units, 500 for 5.00; or \"all\", for what is left.",
            )?),
        };
        let order = order.parse().map_err(|_| "`order` must be the id of an order, `ord_…`.")?;
        let reason = reason.unwrap_or_else(|| "Refund".to_owned());
        if reason.is_empty() || reason.chars().count() > REASON || reason.contains(char::is_control) {
            return Err(format!("`reason` must have 1 to {REASON} characters, none of control: the payer reads it."));
        }
        Ok(Self { id, order, amount, operator, reason })
    }

    async fn refund(&self, state: &State, scope: &TenantScope, request_id: &str) -> RefundAnswer {
        let Self { id, order, amount, operator, reason } = self;
        let origin = Origin { request_id: request_id.to_owned(), ..Origin::default() };
        let told = |field, text: String| Change { field, old: None, new: Some(text) };
        let audit = NewAudit {
            action: "order.refund_begun",
            actor: AuditActor::operator(operator),
            target: Some(order.as_str()),
            changes: vec![
                told("refund", id.clone()),
                told("amount", amount.map_or_else(|| "all".to_owned(), |amount| amount.to_string())),
                told("reason", reason.clone()),
            ],
            origin: &origin,
        };
        let wanted = RefundWanted { operation: id, amount: *amount, reason };
        match state.commerce.refund(scope, order, &wanted, &audit).await {
            Ok(order) => of_order(id, scope, &order),
            Err(error) => of_error(id, &error),
        }
    }
}

fn of_order(id: &str, scope: &TenantScope, order: &Order) -> RefundAnswer {
    let asked = order.refunds_asked.get(id);
    let what = asked.map_or(0, |asked| asked.amount);
    let currency = &order.currency;
    let (outcome, message) = match asked.and_then(|asked| asked.end) {
        Some(RefundEnd::Made) => (Outcome::Made, format!("{what} {currency} (minor units) went back.")),
        Some(RefundEnd::Refused) => (
            Outcome::Refused,
            format!(
                "The vendor could not give {what} {currency} back. Look at it there, and ask again with a new `id`."
            ),
        ),
        None => (
            Outcome::UnderWay,
            format!("The vendor is giving {what} {currency} back. {} ", again(id)) + "It is asked every five minutes.",
        ),
    };
    let order = RefundedOrder {
        id: order.id.to_string(),
        organization: scope.org().to_string(),
        state: order.state().name(),
        amount: order.amount,
        refunded: order.refunded(),
        currency: order.currency.clone(),
    };
    RefundAnswer { outcome, message, order: Some(order) }
}

fn of_error(id: &str, error: &CommerceError) -> RefundAnswer {
    let refused = match error {
        CommerceError::Unknown(_) => NO_ORDER.to_owned(),
        CommerceError::NoRefund(why) => match why {
            NoRefund::NotPaid => "The order is not paid, as the vendor says too: there is nothing to give back. \
                                  One that waits for its payer ends by itself."
                .to_owned(),
            NoRefund::AllBack => "All of its money has gone back: there is nothing left to do.".to_owned(),
            NoRefund::TooMuch { left } => {
                format!("Only {left} of it are left. Ask for that, for less, or for \"all\".")
            }
            NoRefund::Busy { amount } => format!(
                "Another refund of it is under way, of {amount}; one is made at a time. Ask again once that has ended: \
                 the vendor is asked every five minutes."
            ),
            NoRefund::OtherAmount { amount } => {
                format!("`{id}` is the `id` of a refund of {amount}. Give another refund another `id`.")
            }
            NoRefund::Refused => format!(
                "The vendor refused the refund `{id}`, and nothing went back; the log says why. \
                 Mend that, and ask again with a new `id`."
            ),
        },
        CommerceError::RefundRefused(_) => {
            format!("{error}. Nothing went back. Mend what it says, and ask again with a new `id`.")
        }
        CommerceError::NotConfigured(_) => {
            format!(
                "{error}, so it cannot be asked. Set it up (docs/payments.md), and ask again with the same `id`; \
                 or give the money back at its site, if it has not gone back there."
            )
        }
        CommerceError::Mismatch(_) => {
            format!("{error}. Nothing went back: what the vendor has is not what was ordered. Look at it there.")
        }
        error if error.is_transient() => {
            return RefundAnswer::unknown(format!("{error}. It may have been made, or not. {}", again(id)));
        }
        error => {
            return RefundAnswer::unknown(format!("{error}. It may have been made, or not. Mend that. {}", again(id)));
        }
    };
    RefundAnswer::refused(refused)
}

/// The way out of everything that is not known.
fn again(id: &str) -> String {
    format!("Ask again with the same `id`, `{id}`: nothing is given back twice.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload() -> Value {
        let order = OrderId::new();
        json!({"job": "refund", "id": "2026-11-20.1", "order": order, "amount": 500, "operator": "ada"})
    }

    #[test]
    fn a_refund_says_what_it_is() {
        let read = Parsed::of(payload()).map_err(|why| panic!("{why}")).unwrap();
        assert_eq!((read.amount, &*read.operator, &*read.reason), (Some(500), "ada", "Refund"));
        let mut all = payload();
        all["amount"] = "all".into();
        assert_eq!(Parsed::of(all).map_err(|why| panic!("{why}")).unwrap().amount, None);
    }

    #[test]
    fn what_is_not_exactly_a_refund_is_refused_by_name() {
        let long = "r".repeat(65);
        for (field, value) in [
            ("id", json!("")),
            ("id", json!("a b")),
            ("id", json!(long)),
            ("id", json!(5)),
            ("order", json!("org_1")),
            ("order", Value::Null),
            ("amount", Value::Null),
            ("amount", json!(0)),
            ("amount", json!(-5)),
            ("amount", json!(5.5)),
            ("amount", json!("500")),
            ("amount", json!("ALL")),
            ("operator", json!("ada@example.com")),
            ("operator", json!("")),
            ("reason", json!("")),
            ("reason", json!("x".repeat(81))),
            ("reason", json!("a\nb")),
            ("job", json!("reset")),
            ("ammount", json!(5)),
        ] {
            let mut wrong = payload();
            wrong[field] = value.clone();
            let why = Parsed::of(wrong).err().unwrap_or_else(|| panic!("{field} {value} was taken"));
            let names = why.contains(&format!("`{field}`")) || why.contains("invalid type");
            assert!(names, "{field} {value}: {why}");
        }
        for field in ["id", "order", "amount", "operator"] {
            let mut wrong = payload();
            wrong.as_object_mut().unwrap().remove(field);
            let why = Parsed::of(wrong).err().unwrap_or_else(|| panic!("without {field} it was taken"));
            assert!(why.contains(&format!("`{field}`")), "{field}: {why}");
        }
    }
}

//! Notifications: a signed form. <https://opendocs.alipay.com/open/270/105902>

use super::{Alipay, sign};
use crate::{
    error::PaymentError,
    money::{Fen, parse_yuan},
    order::{CNY, Event, Notification, Receipt, RefundNotice, RefundState, Trade, TradeState, Vendor},
    time::parse_civil,
};

/// The last of eight deliveries comes after 25 hours; what is signed as older than this is no delivery any more.
const OLDEST_MILLIS: i64 = 48 * 3_600_000;
/// How far the vendor's clock may be ahead of ours.
const AHEAD_MILLIS: i64 = 10 * 60_000;

impl Alipay {
    /// Reads a notification from the raw bytes of its body.
    ///
    /// # Errors
    /// [`PaymentError::BadSignature`] when it is not the vendor's or too old; [`PaymentError::Malformed`] when it is the
    /// vendor's and not as documented.
    pub fn parse_notification(&self, body: &[u8]) -> Result<Notification, PaymentError> {
        let mut params = sign::parse_form(body)?;
        sign::verify_notification(&mut params, &self.0.alipay_keys)?;
        let mut fields = Fields(params);
        let id = fields.required("notify_id")?;
        let sent_at = fields.time("notify_time")?.ok_or_else(|| missing("notify_time"))?;
        let now = self.0.clock.now();
        if sent_at < now - OLDEST_MILLIS || sent_at > now + AHEAD_MILLIS {
            return Err(PaymentError::BadSignature("the notification is not of these days"));
        }
        let kind = fields.required("notify_type")?;
        let event = if kind == "trade_status_sync" { fields.event()? } else { Event::Other(kind) };
        Ok(Notification { id, sent_at, event })
    }
}

/// The parameters, without signature.
struct Fields(sign::Params);

fn missing(name: &str) -> PaymentError {
    PaymentError::malformed(format!("the notification has no {name}"))
}

impl Fields {
    fn optional(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str) -> Result<String, PaymentError> {
        self.optional(name).ok_or_else(|| missing(name))
    }

    fn time(&mut self, name: &str) -> Result<Option<i64>, PaymentError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        parse_civil(&text).map(Some).ok_or_else(|| PaymentError::malformed(format!("{name} is no time")))
    }

    fn amount(&mut self, name: &str) -> Result<Option<Fen>, PaymentError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        parse_yuan(&text).map(Some).ok_or_else(|| PaymentError::malformed(format!("{name} is no amount")))
    }

    fn event(mut self) -> Result<Event, PaymentError> {
        let out_trade_no = self.required("out_trade_no")?;
        let app_id = self.required("app_id")?;
        let merchant = self.required("seller_id")?;
        let vendor_transaction = self.required("trade_no")?;
        let order_amount = self.amount("total_amount")?.ok_or_else(|| missing("total_amount"))?;
        let status = self.required("trade_status")?;
        let refunded_in_all = self.amount("refund_fee")?;
        let refunded_at = self.time("gmt_refund")?;
        if refunded_at.is_some() || refunded_in_all.is_some_and(|amount| amount > 0) {
            return Ok(Event::Refund(RefundNotice {
                vendor: Vendor::Alipay,
                app_id: Some(app_id),
                merchant,
                out_trade_no,
                vendor_transaction,
                out_refund_no: self.optional("out_biz_no"),
                order_amount,
                amount: None,
                refunded_in_all,
                state: RefundState::Succeeded,
                refunded_at,
            }));
        }
        let paid_at = self.time("gmt_payment")?;
        let state = match status.as_str() {
            "TRADE_SUCCESS" | "TRADE_FINISHED" => TradeState::Paid(Receipt { vendor_transaction, paid_at }),
            "WAIT_BUYER_PAY" => TradeState::NotPaid,
            "TRADE_CLOSED" => TradeState::Closed,
            _ => TradeState::Unknown(status),
        };
        Ok(Event::Trade(Trade {
            vendor: Vendor::Alipay,
            app_id: Some(app_id),
            merchant: Some(merchant),
            out_trade_no,
            amount: Some(order_amount),
            // Only Alipay's products for abroad name another one.
            currency: self.optional("trans_currency").unwrap_or_else(|| CNY.to_owned()),
            state,
        }))
    }
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;

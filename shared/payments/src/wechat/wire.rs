//! The vendor's JSON, and what it means.
//! <https://pay.weixin.qq.com/doc/v3/merchant/4012791879>, <https://pay.weixin.qq.com/doc/v3/merchant/4012791883>

use serde::{Deserialize, de::DeserializeOwned};
use tenantry_domain::Millis;

use crate::{
    error::PaymentError,
    money::Fen,
    order::{CNY, Receipt, Refund, RefundNotice as Notice, RefundState, Trade, TradeState, Vendor},
    time::parse_rfc3339,
};

/// JSON that the vendor signed.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, PaymentError> {
    serde_json::from_slice(body).map_err(|error| PaymentError::malformed(format!("unexpected JSON: {error}")))
}

#[derive(Deserialize)]
pub(super) struct Native {
    pub(super) code_url: String,
}

/// An error's body.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
}

/// An order, in answers to queries and in notifications.
#[derive(Deserialize)]
pub(super) struct Transaction {
    appid: Option<String>,
    mchid: Option<String>,
    out_trade_no: String,
    transaction_id: Option<String>,
    trade_state: String,
    success_time: Option<String>,
    amount: Option<Amount>,
}

#[derive(Deserialize)]
struct Amount {
    total: Option<Fen>,
    /// Left out of some answers; merchants of the mainland have no other (the vendor's words on this member).
    currency: Option<String>,
}

impl Transaction {
    pub(super) fn trade(self) -> Result<Trade, PaymentError> {
        let receipt = |transaction: Option<String>, time: Option<&str>| -> Result<Receipt, PaymentError> {
            let vendor_transaction = transaction.filter(|id| !id.is_empty());
            let vendor_transaction =
                vendor_transaction.ok_or_else(|| PaymentError::malformed("a payment without transaction_id"))?;
            Ok(Receipt { vendor_transaction, paid_at: moment(time)? })
        };
        let time = self.success_time.as_deref();
        let state = match self.trade_state.as_str() {
            "SUCCESS" => TradeState::Paid(receipt(self.transaction_id, time)?),
            "REFUND" => TradeState::Refunded(receipt(self.transaction_id, time)?),
            "NOTPAY" | "USERPAYING" => TradeState::NotPaid,
            "CLOSED" | "REVOKED" | "PAYERROR" => TradeState::Closed,
            other => TradeState::Unknown(other.to_owned()),
        };
        let (amount, currency) = self.amount.map_or((None, None), |amount| (amount.total, amount.currency));
        Ok(Trade {
            vendor: Vendor::WeChat,
            app_id: self.appid,
            merchant: self.mchid,
            out_trade_no: self.out_trade_no,
            amount,
            currency: currency.unwrap_or_else(|| CNY.to_owned()),
            state,
        })
    }
}

/// A refund, in answers.
#[derive(Deserialize)]
pub(super) struct RefundAnswer {
    refund_id: String,
    out_refund_no: String,
    out_trade_no: String,
    status: String,
    success_time: Option<String>,
    amount: RefundAmount,
}

#[derive(Deserialize)]
struct RefundAmount {
    total: Fen,
    refund: Fen,
}

impl RefundAnswer {
    pub(super) fn refund(self) -> Result<Refund, PaymentError> {
        Ok(Refund {
            out_trade_no: self.out_trade_no,
            out_refund_no: self.out_refund_no,
            vendor_refund: Some(self.refund_id),
            amount: Some(self.amount.refund),
            state: refund_state(self.status),
            refunded_at: moment(self.success_time.as_deref())?,
        })
    }
}

/// A refund, in notifications.
#[derive(Deserialize)]
pub(super) struct RefundNotice {
    mchid: String,
    out_trade_no: String,
    transaction_id: String,
    out_refund_no: String,
    refund_status: String,
    success_time: Option<String>,
    amount: RefundAmount,
}

impl RefundNotice {
    pub(super) fn notice(self) -> Result<Notice, PaymentError> {
        Ok(Notice {
            vendor: Vendor::WeChat,
            app_id: None,
            merchant: self.mchid,
            out_trade_no: self.out_trade_no,
            vendor_transaction: self.transaction_id,
            out_refund_no: Some(self.out_refund_no),
            order_amount: self.amount.total,
            amount: Some(self.amount.refund),
            refunded_in_all: None,
            state: refund_state(self.refund_status),
            refunded_at: moment(self.success_time.as_deref())?,
        })
    }
}

fn refund_state(status: String) -> RefundState {
    match status.as_str() {
        "SUCCESS" => RefundState::Succeeded,
        "PROCESSING" => RefundState::Processing,
        "CLOSED" => RefundState::Closed,
        "ABNORMAL" => RefundState::Abnormal,
        _ => RefundState::Unknown(status),
    }
}

fn moment(text: Option<&str>) -> Result<Option<Millis>, PaymentError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    parse_rfc3339(text).map(Some).ok_or_else(|| PaymentError::malformed("success_time is no time"))
}

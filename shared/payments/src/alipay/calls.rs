//! The calls. All of them may be repeated: the vendor tells by our numbers that they are the same.

use serde::Deserialize;
use serde_json::json;

use super::{Alipay, gateway::with_query};
use crate::{
    error::{Failed, PaymentError},
    money::{parse_yuan, yuan},
    order::{
        CNY, Closing, NewOrder, NewRefund, Presentation, Receipt, Refund, RefundState, Show, Trade, TradeState, Vendor,
        check_order_no, check_refund_no,
    },
    time::{civil, parse_civil},
};

const NO_TRADE: &str = "ACQ.TRADE_NOT_EXIST";

#[derive(Deserialize)]
struct Precreated {
    out_trade_no: String,
    qr_code: String,
}

#[derive(Deserialize)]
struct Queried {
    trade_no: String,
    out_trade_no: String,
    trade_status: String,
    total_amount: String,
    trans_currency: Option<String>,
    send_pay_date: Option<String>,
}

#[derive(Deserialize)]
struct Closed {}

#[derive(Deserialize)]
struct Refunded {
    out_trade_no: String,
    /// `Y` when this call moved money. `N` says nothing: it may have been moved by an earlier one.
    fund_change: String,
    gmt_refund_pay: Option<String>,
}

/// All is left out while there is no such refund.
#[derive(Deserialize)]
struct RefundQueried {
    out_trade_no: Option<String>,
    out_request_no: Option<String>,
    refund_amount: Option<String>,
    refund_status: Option<String>,
    gmt_refund_pay: Option<String>,
}

impl Alipay {
    /// See [`Payment::create`](crate::Payment::create). <https://opendocs.alipay.com/open/f540afd8_alipay.trade.precreate>
    /// makes a QR code; there is no trade until it is scanned. For a page nothing is asked of the vendor: the address is
    /// the call.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn create(&self, order: &NewOrder<'_>) -> Result<Presentation, PaymentError> {
        order.check(self.0.clock.now())?;
        let return_url = match order.show {
            Show::Page { return_url } => return_url.unwrap_or_default(),
            Show::QrCode => return self.precreate(order).await,
        };
        let mut content = content(order);
        content["product_code"] = "FAST_INSTANT_TRADE_PAY".into();
        let more = [("notify_url", self.0.notify_url.as_str()), ("return_url", return_url)];
        // https://opendocs.alipay.com/open/59da99d0_alipay.trade.page.pay
        let params = self.0.signed("alipay.trade.page.pay", &content, &more)?;
        Ok(Presentation::Redirect(with_query(&self.0.gateway, &params)))
    }

    async fn precreate(&self, order: &NewOrder<'_>) -> Result<Presentation, PaymentError> {
        let more = [("notify_url", self.0.notify_url.as_str())];
        let made: Precreated = self.0.call("alipay.trade.precreate", &content(order), &more).await?;
        if made.out_trade_no != order.out_trade_no {
            return Err(PaymentError::malformed("the answer is about another order"));
        }
        Ok(Presentation::QrCode(made.qr_code))
    }

    /// See [`Payment::query`](crate::Payment::query). <https://opendocs.alipay.com/open/82ea786a_alipay.trade.query>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn query(&self, out_trade_no: &str) -> Result<Trade, PaymentError> {
        check_order_no(out_trade_no)?;
        let found = self.0.call("alipay.trade.query", &json!({"out_trade_no": out_trade_no}), &[]).await;
        match found {
            Ok(found) => trade(found, out_trade_no),
            Err(failed) if failed.says(&[NO_TRADE]) => Ok(Trade {
                vendor: Vendor::Alipay,
                app_id: None,
                merchant: None,
                out_trade_no: out_trade_no.to_owned(),
                amount: None,
                currency: CNY.to_owned(),
                state: TradeState::Absent,
            }),
            Err(failed) => Err(failed.into()),
        }
    }

    /// See [`Payment::close`](crate::Payment::close). <https://opendocs.alipay.com/open/ce0b4954_alipay.trade.close>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn close(&self, out_trade_no: &str) -> Result<Closing, PaymentError> {
        check_order_no(out_trade_no)?;
        let closed = self.0.call::<Closed>("alipay.trade.close", &json!({"out_trade_no": out_trade_no}), &[]).await;
        let refused = match closed {
            Ok(Closed {}) => return Ok(Closing::Closed),
            Err(failed @ Failed::Refused { .. }) => PaymentError::from(failed),
            Err(failed) => return Err(failed.into()),
        };
        // One code stands for "paid", "closed" and "refunded", so the order itself is asked.
        let trade = self.query(out_trade_no).await?;
        match trade.state {
            TradeState::Closed => Ok(Closing::Closed),
            TradeState::Absent => Ok(Closing::Absent),
            TradeState::Paid(_) | TradeState::Refunded(_) => Ok(Closing::AlreadyPaid(Box::new(trade))),
            TradeState::NotPaid | TradeState::Unknown(_) => Err(refused),
        }
    }

    /// See [`Payment::refund`](crate::Payment::refund). <https://opendocs.alipay.com/open/4b7cc5db_alipay.trade.refund>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn refund(&self, refund: &NewRefund<'_>) -> Result<Refund, PaymentError> {
        refund.check()?;
        let mut content = json!({
            "out_trade_no": refund.out_trade_no,
            "out_request_no": refund.out_refund_no,
            "refund_amount": yuan(refund.amount),
        });
        if !refund.reason.is_empty() {
            content["refund_reason"] = refund.reason.into();
        }
        let made: Refunded = self.0.call("alipay.trade.refund", &content, &[]).await?;
        if made.out_trade_no != refund.out_trade_no {
            return Err(PaymentError::malformed("the answer is about another order"));
        }
        if made.fund_change != "Y" {
            let found = match self.query_refund(refund.out_trade_no, refund.out_refund_no).await {
                // A no to the question is none to the refund.
                Err(error @ PaymentError::Refused { .. }) => return Err(PaymentError::unavailable(error)),
                found => found?,
            };
            return match found {
                Refund { amount: Some(amount), .. } if amount != refund.amount => {
                    Err(PaymentError::malformed("the refund has another amount"))
                }
                Refund { state: RefundState::Absent, .. } => Ok(Refund { state: RefundState::Processing, ..found }),
                found => Ok(found),
            };
        }
        Ok(Refund {
            out_trade_no: made.out_trade_no,
            out_refund_no: refund.out_refund_no.to_owned(),
            vendor_refund: None,
            // The answer's own amount is that of all refunds together.
            amount: Some(refund.amount),
            state: RefundState::Succeeded,
            refunded_at: made.gmt_refund_pay.as_deref().and_then(parse_civil),
        })
    }

    /// See [`Payment::query_refund`](crate::Payment::query_refund).
    /// <https://opendocs.alipay.com/open/8c776df6_alipay.trade.fastpay.refund.query>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn query_refund(&self, out_trade_no: &str, out_refund_no: &str) -> Result<Refund, PaymentError> {
        check_order_no(out_trade_no)?;
        check_refund_no(out_refund_no)?;
        let content = json!({
            "out_trade_no": out_trade_no,
            "out_request_no": out_refund_no,
            "query_options": ["gmt_refund_pay"],
        });
        let found: RefundQueried = match self.0.call("alipay.trade.fastpay.refund.query", &content, &[]).await {
            Ok(found) => found,
            Err(failed) if failed.says(&[NO_TRADE, "TRADE_NOT_EXIST"]) => RefundQueried {
                out_trade_no: None,
                out_request_no: None,
                refund_amount: None,
                refund_status: None,
                gmt_refund_pay: None,
            },
            Err(failed) => return Err(failed.into()),
        };
        let other = |found: &Option<String>, asked| found.as_deref().is_some_and(|found| found != asked);
        if other(&found.out_trade_no, out_trade_no) || other(&found.out_request_no, out_refund_no) {
            return Err(PaymentError::malformed("the answer is about another refund"));
        }
        let amount = found
            .refund_amount
            .as_deref()
            .map(|text| parse_yuan(text).ok_or_else(|| PaymentError::malformed("refund_amount is no amount")));
        let state = match found.refund_status.as_deref() {
            Some("REFUND_SUCCESS") => RefundState::Succeeded,
            None | Some("") => RefundState::Absent,
            Some(other) => RefundState::Unknown(other.to_owned()),
        };
        Ok(Refund {
            out_trade_no: out_trade_no.to_owned(),
            out_refund_no: out_refund_no.to_owned(),
            vendor_refund: None,
            amount: amount.transpose()?,
            state,
            refunded_at: found.gmt_refund_pay.as_deref().and_then(parse_civil),
        })
    }
}

fn content(order: &NewOrder<'_>) -> serde_json::Value {
    json!({
        "out_trade_no": order.out_trade_no,
        "total_amount": yuan(order.amount),
        "subject": order.description,
        "time_expire": civil(order.expires_at),
    })
}

fn trade(found: Queried, out_trade_no: &str) -> Result<Trade, PaymentError> {
    if found.out_trade_no != out_trade_no {
        return Err(PaymentError::malformed("the answer is about another order"));
    }
    let amount = parse_yuan(&found.total_amount);
    let amount = amount.ok_or_else(|| PaymentError::malformed("total_amount is no amount"))?;
    let paid_at = match found.send_pay_date.as_deref().filter(|date| !date.is_empty()) {
        Some(date) => Some(parse_civil(date).ok_or_else(|| PaymentError::malformed("send_pay_date is no time"))?),
        None => None,
    };
    let receipt = Receipt { vendor_transaction: found.trade_no, paid_at };
    let state = match found.trade_status.as_str() {
        "TRADE_SUCCESS" | "TRADE_FINISHED" => TradeState::Paid(receipt),
        "WAIT_BUYER_PAY" => TradeState::NotPaid,
        // The same word for "never paid" and for "given back": only the second has a date of payment.
        "TRADE_CLOSED" if paid_at.is_some() => TradeState::Refunded(receipt),
        "TRADE_CLOSED" => TradeState::Closed,
        other => TradeState::Unknown(other.to_owned()),
    };
    Ok(Trade {
        vendor: Vendor::Alipay,
        app_id: None,
        merchant: None,
        out_trade_no: found.out_trade_no,
        amount: Some(amount),
        currency: found.trans_currency.unwrap_or_else(|| CNY.to_owned()),
        state,
    })
}

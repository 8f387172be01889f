//! What the calls do, and what they refuse: <https://opendocs.alipay.com/open/f540afd8_alipay.trade.precreate>,
//! <https://opendocs.alipay.com/open/59da99d0_alipay.trade.page.pay>,
//! <https://opendocs.alipay.com/open/82ea786a_alipay.trade.query>,
//! <https://opendocs.alipay.com/open/ce0b4954_alipay.trade.close>,
//! <https://opendocs.alipay.com/open/4b7cc5db_alipay.trade.refund>,
//! <https://opendocs.alipay.com/open/8c776df6_alipay.trade.fastpay.refund.query>.

use serde_json::{Value, json};
use tenantry_domain::Millis;

use super::{
    Alipay,
    api::{Call, Failure},
    fen,
    seal::text,
    status, yuan,
};
use crate::china::{
    RefundOutcome,
    book::{Order, Refund, code_until},
    time::{civil, parse_civil},
};

const INVALID: Failure = Failure::business("ACQ.INVALID_PARAMETER", "参数无效");
const ABSENT: Failure = Failure::business("ACQ.TRADE_NOT_EXIST", "交易不存在");
const PAID: Failure = Failure::business("ACQ.TRADE_HAS_SUCCESS", "交易已被支付");
const CLOSED: Failure = Failure::business("ACQ.TRADE_HAS_CLOSE", "交易已经关闭");
const STATUS: Failure = Failure::business("ACQ.TRADE_STATUS_ERROR", "交易状态不合法");

/// A number of the shop's: up to 64 letters, digits and `_`.
fn number<'a>(content: &'a Value, name: &str) -> Result<&'a str, Failure> {
    let number = text(content, name);
    let fits = (1..=64).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits { Ok(number) } else { Err(INVALID) }
}

/// The first of the members of every answer.
fn success(members: Value) -> Value {
    let mut answer = json!({"code": "10000", "msg": "Success"});
    if let (Some(answer), Value::Object(members)) = (answer.as_object_mut(), members) {
        answer.extend(members);
    }
    answer
}

impl Alipay {
    /// A code or a page. It replaces one that nobody has looked at; a trade is another matter.
    fn offer<'a>(&self, call: &'a Call, now: Millis) -> Result<&'a str, Failure> {
        let content = &call.content;
        let number = number(content, "out_trade_no")?;
        let subject = text(content, "subject");
        let amount = content.get("total_amount").and_then(fen).ok_or(INVALID)?;
        if subject.trim().is_empty() || subject.chars().count() > 256 || subject.contains(['/', '=', '&']) {
            return Err(INVALID);
        }
        let expires_at = match text(content, "time_expire") {
            "" => None,
            time => Some(parse_civil(time).filter(|at| *at > now).ok_or(INVALID)?),
        };
        let mut book = self.book();
        if let Some(order) = book.get_mut(number).filter(|order| order.trade.is_some()) {
            return match status(order, now) {
                "TRADE_CLOSED" => Err(CLOSED),
                "WAIT_BUYER_PAY" if order.amount != amount => {
                    Err(Failure::business("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改"))
                }
                "WAIT_BUYER_PAY" => {
                    order.code_until = code_until(now);
                    Ok(number)
                }
                _ => Err(PAID),
            };
        }
        book.put(Order {
            number: number.to_owned(),
            description: subject.to_owned(),
            amount,
            expires_at,
            notify_url: call.notify_url.clone(),
            return_url: call.return_url.clone(),
            code_until: code_until(now),
            trade: None,
            paid_at: None,
            closed: false,
            refunds: vec![],
        });
        Ok(number)
    }

    pub(super) fn precreate(&self, call: &Call) -> Result<Value, Failure> {
        let number = self.offer(call, self.clock.now())?;
        // The vendor's begins with `https://qr.alipay.com/`.
        let code = format!("{}/_dev/pay/alipay/{number}", self.site);
        Ok(success(json!({"out_trade_no": number, "qr_code": code})))
    }

    /// Answers with the number of the order whose page is to be shown.
    pub(super) fn page_pay(&self, call: &Call) -> Result<String, Failure> {
        if text(&call.content, "product_code") != "FAST_INSTANT_TRADE_PAY" {
            return Err(INVALID);
        }
        self.offer(call, self.clock.now()).map(ToOwned::to_owned)
    }

    pub(super) fn query(&self, call: &Call) -> Result<Value, Failure> {
        let now = self.clock.now();
        let book = self.book();
        let (order, trade) = found(book.get(number(&call.content, "out_trade_no")?))?;
        let amount = yuan(order.amount);
        let mut answer = success(json!({
            "trade_no": trade,
            "out_trade_no": order.number,
            "buyer_logon_id": "tes***@example.com",
            "buyer_user_id": "2088000000000002",
            "trade_status": status(order, now),
            "total_amount": amount,
        }));
        if let Some(paid_at) = order.paid_at {
            for name in ["receipt_amount", "buyer_pay_amount", "invoice_amount"] {
                answer[name] = amount.as_str().into();
            }
            answer["point_amount"] = "0.00".into();
            answer["send_pay_date"] = civil(paid_at).into();
        }
        Ok(answer)
    }

    pub(super) fn close(&self, call: &Call) -> Result<Value, Failure> {
        let now = self.clock.now();
        let mut book = self.book();
        let order = book.get_mut(number(&call.content, "out_trade_no")?).ok_or(ABSENT)?;
        let trade = order.trade.as_ref().map(|(trade, _)| trade.clone()).ok_or(ABSENT)?;
        if status(order, now) != "WAIT_BUYER_PAY" {
            return Err(STATUS);
        }
        order.closed = true;
        Ok(success(json!({"trade_no": trade, "out_trade_no": order.number})))
    }

    pub(super) fn refund(&self, call: &Call) -> Result<Value, Failure> {
        let now = self.clock.now();
        let content = &call.content;
        let amount = content.get("refund_amount").and_then(fen).ok_or(INVALID)?;
        let order_number = number(content, "out_trade_no")?;
        // Without a number of its own a refund is the whole, once.
        let refund_number = match text(content, "out_request_no") {
            "" => order_number,
            _ => number(content, "out_request_no")?,
        };
        let mut book = self.book();
        let order = book.get_mut(order_number).ok_or(ABSENT)?;
        let (trade, _) = order.trade.clone().ok_or(ABSENT)?;
        let fund_change = match order.refunds.iter().find(|refund| refund.number == refund_number) {
            Some(refund) if refund.amount != amount => {
                return Err(Failure::business("ACQ.DISCORDANT_REPEAT_REQUEST", "同一笔退款单号退款金额不一致"));
            }
            Some(_) => "N",
            None => {
                match status(order, now) {
                    "TRADE_SUCCESS" => {}
                    "TRADE_FINISHED" => {
                        return Err(Failure::business("ACQ.TRADE_HAS_FINISHED", "交易已完结"));
                    }
                    _ => return Err(STATUS),
                }
                if order.refunded().saturating_add(amount) > order.amount {
                    return Err(Failure::business("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超限"));
                }
                let refund = Refund {
                    number: refund_number.to_owned(),
                    id: String::new(),
                    amount,
                    made_at: now,
                    outcome: RefundOutcome::Success,
                    ended_at: Some(now),
                    notify_url: None,
                };
                order.refunds.push(refund.clone());
                self.notify(order, Some(&refund), now);
                "Y"
            }
        };
        let mut answer = success(json!({
            "trade_no": trade,
            "out_trade_no": order.number,
            "buyer_logon_id": "tes***@example.com",
            "fund_change": fund_change,
            // Of all refunds together.
            "refund_fee": yuan(order.refunded()),
        }));
        if fund_change == "Y" {
            answer["send_back_fee"] = yuan(amount).into();
            answer["gmt_refund_pay"] = civil(now).into();
        }
        Ok(answer)
    }

    pub(super) fn query_refund(&self, call: &Call) -> Result<Value, Failure> {
        let content = &call.content;
        let refund_number = number(content, "out_request_no")?;
        let book = self.book();
        let (order, trade) = found(book.get(number(content, "out_trade_no")?))?;
        // A refund that does not exist is an answer with nothing in it.
        let Some(refund) = order.refunds.iter().find(|refund| refund.number == refund_number) else {
            return Ok(success(Value::Null));
        };
        let mut answer = success(json!({
            "trade_no": trade,
            "out_trade_no": order.number,
            "out_request_no": refund.number,
            "total_amount": yuan(order.amount),
            "refund_amount": yuan(refund.amount),
            "refund_status": "REFUND_SUCCESS",
        }));
        let options = content.get("query_options").and_then(Value::as_array);
        if options.is_some_and(|options| options.contains(&json!("gmt_refund_pay"))) {
            answer["gmt_refund_pay"] = civil(refund.made_at).into();
        }
        Ok(answer)
    }
}

/// An order that somebody has looked at, and its number at the vendor's.
fn found(order: Option<&Order>) -> Result<(&Order, &str), Failure> {
    let order = order.ok_or(ABSENT)?;
    let (trade, _) = order.trade.as_ref().ok_or(ABSENT)?;
    Ok((order, trade))
}

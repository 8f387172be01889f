//! What the calls do, and what they refuse: <https://pay.weixin.qq.com/doc/v3/merchant/4012791877> (create),
//! 4012791879 (query), 4012791881 (close), 4012791883 (refund), 4012791884 (query a refund).

use http::StatusCode;
use serde_json::{Value, json};
use tenantry_domain::Millis;

use super::{REFUND, WeChat, failure::Failure, status};
use crate::china::{
    RefundOutcome,
    book::{Order, Refund, code_until},
    time::{parse_rfc3339, rfc3339},
};

/// An order can be refunded for a year, in fifty parts.
const REFUNDABLE_MILLIS: Millis = 365 * 86_400_000;
const MOST_REFUNDS: usize = 50;

/// The members of a body, by JSON pointer.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn wrong(&self, pointer: &str, issue: &str) -> Failure {
        Failure::parameter(pointer, "body", self.0.pointer(pointer).unwrap_or(&Value::Null), issue)
    }

    /// A text of 1 to `most` characters.
    fn text(&self, pointer: &str, most: usize) -> Result<&'a str, Failure> {
        let text = self.optional(pointer, most)?;
        text.filter(|text| !text.is_empty()).ok_or_else(|| self.wrong(pointer, "缺少必填字段"))
    }

    fn optional(&self, pointer: &str, most: usize) -> Result<Option<&'a str>, Failure> {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= most => Ok(Some(text)),
            Some(_) => Err(self.wrong(pointer, "类型或长度不符合要求")),
        }
    }

    /// Fen, at least one.
    fn fen(&self, pointer: &str) -> Result<u64, Failure> {
        let fen = self.0.pointer(pointer).and_then(Value::as_u64).filter(|fen| *fen > 0);
        fen.ok_or_else(|| self.wrong(pointer, "必须为大于0的整数"))
    }

    /// A number of the shop's.
    fn number(&self, pointer: &str, least: usize, most: usize, marks: &str) -> Result<&'a str, Failure> {
        let number = self.text(pointer, most)?;
        let fits = number.len() >= least && number.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c));
        if fits { Ok(number) } else { Err(self.wrong(pointer, "只能是数字、大小写字母及指定符号")) }
    }

    fn notify_url(&self) -> Result<Option<&'a str>, Failure> {
        let url = self.optional("/notify_url", 255)?;
        let fits =
            |url: &&str| (url.starts_with("https://") || url.starts_with("http://")) && !url.contains(['?', '#', ' ']);
        match url {
            Some(url) if !fits(&url) => Err(self.wrong("/notify_url", "必须为不携带参数的URL")),
            url => Ok(url),
        }
    }
}

impl WeChat {
    fn check_merchant(&self, fields: &Fields<'_>) -> Result<(), Failure> {
        if fields.text("/mchid", 32)? == self.settings.merchant {
            return Ok(());
        }
        Err(Failure::new(StatusCode::BAD_REQUEST, "MCH_NOT_EXISTS", "商户号不存在"))
    }

    pub(super) fn native(&self, body: &Value, now: Millis) -> Result<Value, Failure> {
        let fields = Fields(body);
        self.check_merchant(&fields)?;
        if fields.text("/appid", 32)? != self.settings.app_id {
            let message = "appid和mch_id不匹配";
            return Err(Failure::new(StatusCode::BAD_REQUEST, "APPID_MCHID_NOT_MATCH", message));
        }
        let number = fields.number("/out_trade_no", 6, 32, "_-|*")?;
        let description = fields.text("/description", 127)?;
        // <https://pay.weixin.qq.com/docs/merchant/development/interface-rules/basic-rules.html>
        if description.chars().any(|c| c.len_utf8() > 3) {
            return Err(fields.wrong("/description", "仅支持一至三个字节编码的UTF-8字符"));
        }
        let amount = fields.fen("/amount/total")?;
        if fields.optional("/amount/currency", 16)?.is_some_and(|currency| currency != "CNY") {
            return Err(fields.wrong("/amount/currency", "境内商户号仅支持CNY"));
        }
        let notify_url = fields.notify_url()?.ok_or_else(|| fields.wrong("/notify_url", "缺少必填字段"))?;
        let expires_at = match fields.optional("/time_expire", 64)? {
            None => None,
            Some(text) => {
                let at = parse_rfc3339(text).ok_or_else(|| fields.wrong("/time_expire", "不符合rfc3339标准格式"))?;
                if at <= now {
                    return Err(fields.wrong("/time_expire", "支付结束时间必须晚于当前时间"));
                }
                Some(at)
            }
        };
        let mut book = self.book();
        if let Some(order) = book.get_mut(number) {
            if order.closed {
                return Err(Failure::new(StatusCode::BAD_REQUEST, "ORDER_CLOSED", "该订单已关闭，请重新下单"));
            }
            if order.paid_at.is_some() {
                return Err(Failure::invalid("该订单已支付"));
            }
            let same = order.amount == amount
                && order.description == description
                && order.expires_at == expires_at
                && order.notify_url.as_deref() == Some(notify_url);
            if !same {
                return Err(Failure::invalid("201 商户订单号重复"));
            }
            order.code_until = code_until(now);
        } else {
            book.put(Order {
                number: number.to_owned(),
                description: description.to_owned(),
                amount,
                expires_at,
                notify_url: Some(notify_url.to_owned()),
                return_url: None,
                code_until: code_until(now),
                trade: None,
                paid_at: None,
                closed: false,
                refunds: vec![],
            });
        }
        // The vendor's begins with `weixin://`, which no browser opens.
        Ok(json!({"code_url": format!("{}/_dev/pay/wechat/{number}", self.site)}))
    }

    pub(super) fn query(&self, number: &str, query: &str) -> Result<Value, Failure> {
        let merchant = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "mchid");
        match merchant.as_ref().map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty()) {
            None => return Err(Failure::parameter("mchid", "query", &Value::Null, "缺少必填字段")),
            Some(merchant) if merchant != self.settings.merchant => {
                return Err(Failure::new(StatusCode::BAD_REQUEST, "MCH_NOT_EXISTS", "商户号不存在"));
            }
            Some(_) => {}
        }
        self.book().get(number).map(|order| self.transaction(order)).ok_or_else(absent)
    }

    pub(super) fn close(&self, number: &str, body: &Value) -> Result<(), Failure> {
        self.check_merchant(&Fields(body))?;
        let mut book = self.book();
        let order = book.get_mut(number).ok_or_else(absent)?;
        if order.paid_at.is_some() {
            return Err(Failure::new(StatusCode::BAD_REQUEST, "ORDERPAID", "订单已支付"));
        }
        if order.closed {
            return Err(Failure::new(StatusCode::BAD_REQUEST, "ORDER_CLOSED", "订单已关闭"));
        }
        order.closed = true;
        Ok(())
    }

    pub(super) fn refund(&self, body: &Value, now: Millis) -> Result<Value, Failure> {
        let fields = Fields(body);
        let number = fields.number("/out_trade_no", 6, 32, "_-|*")?;
        let refund_number = fields.number("/out_refund_no", 1, 64, "_-|*@")?;
        let amount = fields.fen("/amount/refund")?;
        let total = fields.fen("/amount/total")?;
        if fields.text("/amount/currency", 16)? != "CNY" {
            return Err(fields.wrong("/amount/currency", "仅支持CNY"));
        }
        fields.optional("/reason", 80)?;
        let notify_url = fields.notify_url()?;
        let differs = || Failure::invalid("订单金额或退款金额与之前请求不一致，请核实后再试");

        let mut book = self.book();
        let elsewhere = book
            .orders()
            .any(|order| order.number != number && order.refunds.iter().any(|refund| refund.number == refund_number));
        if elsewhere {
            return Err(Failure::invalid("商户退款单号已存在"));
        }
        let id = book.number(REFUND, now);
        let unknown = || Failure::new(StatusCode::NOT_FOUND, "RESOURCE_NOT_EXISTS", "订单不存在");
        let order = book.get_mut(number).ok_or_else(unknown)?;
        let paid_at = order.paid_at.ok_or_else(|| Failure::invalid("订单未支付"))?;
        if total != order.amount {
            return Err(differs());
        }
        if let Some(refund) = order.refunds.iter().find(|refund| refund.number == refund_number) {
            return if refund.amount == amount { Ok(refund_answer(order, refund)) } else { Err(differs()) };
        }
        if now - paid_at > REFUNDABLE_MILLIS {
            return Err(Failure::invalid("订单已超过可退款的最大期限(1年)"));
        }
        if order.refunded().saturating_add(amount) > order.amount {
            return Err(Failure::invalid("申请退款金额大于订单可退金额"));
        }
        if order.refunds.len() >= MOST_REFUNDS {
            return Err(Failure::invalid("部分退款次数超过限制"));
        }
        let refund = Refund {
            number: refund_number.to_owned(),
            id,
            amount,
            made_at: now,
            outcome: RefundOutcome::Processing,
            ended_at: None,
            notify_url: notify_url.map(ToOwned::to_owned),
        };
        let answer = refund_answer(order, &refund);
        order.refunds.push(refund);
        let at = order.refunds.len() - 1;
        // Taken, not done: what becomes of it is told afterwards.
        let outcome = *self.outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.end_refund(order, at, outcome, now);
        Ok(answer)
    }

    pub(super) fn query_refund(&self, number: &str) -> Result<Value, Failure> {
        let book = self.book();
        let found = book.orders().find_map(|order| {
            order.refunds.iter().find(|refund| refund.number == number).map(|refund| refund_answer(order, refund))
        });
        found.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "RESOURCE_NOT_EXISTS", "退款单不存在"))
    }
}

fn absent() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "ORDER_NOT_EXIST", "订单不存在")
}

fn refund_answer(order: &Order, refund: &Refund) -> Value {
    let mut answer = json!({
        "refund_id": refund.id,
        "out_refund_no": refund.number,
        "transaction_id": order.trade.as_ref().map(|(trade, _)| trade),
        "out_trade_no": order.number,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": rfc3339(refund.made_at),
        "status": status(refund.outcome),
        "funds_account": "AVAILABLE",
        "amount": {
            "total": order.amount,
            "refund": refund.amount,
            "payer_total": order.amount,
            "payer_refund": refund.amount,
            "settlement_total": order.amount,
            "settlement_refund": refund.amount,
            "discount_refund": 0,
            "currency": "CNY",
        },
    });
    if let (RefundOutcome::Success, Some(at)) = (refund.outcome, refund.ended_at) {
        answer["success_time"] = rfc3339(at).into();
    }
    answer
}

//! The calls. Each attempt is signed anew, and an answer counts only when the vendor signed it.

use ::http::{HeaderValue, Method, Request, Uri, header};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Inner, WeChatPay, sign, sign::Signer, wire};
use crate::{
    error::{Failed, PaymentError},
    order::{
        CNY, Closing, NewOrder, NewRefund, Presentation, Refund, RefundState, Show, Trade, TradeState, Vendor,
        check_order_no, check_refund_no,
    },
    time::rfc3339,
};

/// What the vendor says when it has no such order: in the documents, and in the older ones.
const NO_ORDER: [&str; 2] = ["ORDER_NOT_EXIST", "ORDERNOTEXIST"];
/// What it says of us, and not of what we ask for: <https://pay.weixin.qq.com/doc/v3/merchant/4012791883>.
const OF_US: [&str; 3] = ["SIGN_ERROR", "NO_AUTH", "MCH_NOT_EXISTS"];
/// What it says when it has no such refund.
const NO_REFUND: &str = "RESOURCE_NOT_EXISTS";

impl WeChatPay {
    /// See [`Payment::create`](crate::Payment::create). <https://pay.weixin.qq.com/doc/v3/merchant/4012791877>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn create(&self, order: &NewOrder<'_>) -> Result<Presentation, PaymentError> {
        order.check(self.0.clock.now())?;
        if order.show != Show::QrCode {
            return Err(PaymentError::Invalid("WeChat Pay shows a QR code here"));
        }
        // <https://pay.weixin.qq.com/docs/merchant/development/interface-rules/basic-rules.html>
        if order.description.chars().any(|c| c.len_utf8() > 3) {
            return Err(PaymentError::Invalid("the description must not hold emoji: WeChat Pay takes none"));
        }
        let body = json!({
            "appid": self.0.app_id,
            "mchid": self.0.merchant,
            "description": order.description,
            "out_trade_no": order.out_trade_no,
            "time_expire": rfc3339(order.expires_at),
            "notify_url": self.0.notify_url,
            "amount": {"total": order.amount, "currency": CNY},
        });
        let body = self.0.call(Method::POST, "/v3/pay/transactions/native", Some(&body)).await?;
        Ok(Presentation::QrCode(wire::read::<wire::Native>(&body)?.code_url))
    }

    /// See [`Payment::query`](crate::Payment::query). <https://pay.weixin.qq.com/doc/v3/merchant/4012791879>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn query(&self, out_trade_no: &str) -> Result<Trade, PaymentError> {
        check_order_no(out_trade_no)?;
        let path = format!("/v3/pay/transactions/out-trade-no/{out_trade_no}?mchid={}", self.0.merchant);
        match self.0.call(Method::GET, &path, None).await {
            Ok(body) => {
                let trade = wire::read::<wire::Transaction>(&body)?.trade()?;
                if trade.out_trade_no != out_trade_no {
                    return Err(PaymentError::malformed("the answer is about another order"));
                }
                Ok(trade)
            }
            Err(failed) if failed.says(&NO_ORDER) => Ok(Trade {
                vendor: Vendor::WeChat,
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

    /// See [`Payment::close`](crate::Payment::close). <https://pay.weixin.qq.com/doc/v3/merchant/4012791881>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn close(&self, out_trade_no: &str) -> Result<Closing, PaymentError> {
        check_order_no(out_trade_no)?;
        let path = format!("/v3/pay/transactions/out-trade-no/{out_trade_no}/close");
        let refused = match self.0.call(Method::POST, &path, Some(&json!({"mchid": self.0.merchant}))).await {
            Ok(_) => return Ok(Closing::Closed),
            Err(failed @ Failed::Refused { .. }) => PaymentError::from(failed),
            Err(failed) => return Err(failed.into()),
        };
        // The documents disagree about the codes of this call, so the order itself is asked.
        let trade = self.query(out_trade_no).await?;
        match trade.state {
            TradeState::Closed => Ok(Closing::Closed),
            TradeState::Absent => Ok(Closing::Absent),
            TradeState::Paid(_) | TradeState::Refunded(_) => Ok(Closing::AlreadyPaid(Box::new(trade))),
            TradeState::NotPaid | TradeState::Unknown(_) => Err(refused),
        }
    }

    /// See [`Payment::refund`](crate::Payment::refund). <https://pay.weixin.qq.com/doc/v3/merchant/4012791883>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn refund(&self, refund: &NewRefund<'_>) -> Result<Refund, PaymentError> {
        refund.check()?;
        let mut body = json!({
            "out_trade_no": refund.out_trade_no,
            "out_refund_no": refund.out_refund_no,
            "notify_url": self.0.notify_url,
            "amount": {"refund": refund.amount, "total": refund.order_amount, "currency": CNY},
        });
        if !refund.reason.is_empty() {
            body["reason"] = refund.reason.into();
        }
        let body = self.0.call(Method::POST, "/v3/refund/domestic/refunds", Some(&body)).await?;
        let made = wire::read::<wire::RefundAnswer>(&body)?.refund()?;
        if made.amount != Some(refund.amount) {
            return Err(PaymentError::malformed("the refund has another amount"));
        }
        about(made, refund.out_trade_no, refund.out_refund_no)
    }

    /// See [`Payment::query_refund`](crate::Payment::query_refund). <https://pay.weixin.qq.com/doc/v3/merchant/4012791884>
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn query_refund(&self, out_trade_no: &str, out_refund_no: &str) -> Result<Refund, PaymentError> {
        check_order_no(out_trade_no)?;
        check_refund_no(out_refund_no)?;
        match self.0.call(Method::GET, &format!("/v3/refund/domestic/refunds/{out_refund_no}"), None).await {
            Ok(body) => about(wire::read::<wire::RefundAnswer>(&body)?.refund()?, out_trade_no, out_refund_no),
            Err(failed) if failed.says(&[NO_REFUND]) => Ok(Refund {
                out_trade_no: out_trade_no.to_owned(),
                out_refund_no: out_refund_no.to_owned(),
                vendor_refund: None,
                amount: None,
                state: RefundState::Absent,
                refunded_at: None,
            }),
            Err(failed) => Err(failed.into()),
        }
    }
}

fn about(refund: Refund, out_trade_no: &str, out_refund_no: &str) -> Result<Refund, PaymentError> {
    if refund.out_trade_no != out_trade_no || refund.out_refund_no != out_refund_no {
        return Err(PaymentError::malformed("the answer is about another refund"));
    }
    Ok(refund)
}

impl Inner {
    /// The body of a successful answer.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Failed> {
        let url: Uri = format!("{}{path}", self.base_url).parse().map_err(|_| PaymentError::Invalid("the base URL"))?;
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        self.patience.retry(|| self.attempt(&method, &url, &body)).await
    }

    async fn attempt(&self, method: &Method, url: &Uri, body: &Bytes) -> Result<Bytes, Failed> {
        let signer = Signer { merchant: &self.merchant, serial: &self.merchant_serial, key: &self.key };
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let authorization = signer.authorization(method.as_str(), path, body, self.clock.now())?;
        let mut request = Request::new(body.clone());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        let text = |text: &str| HeaderValue::from_str(text).map_err(|_| PaymentError::Invalid("a header"));
        let mut authorization = text(&authorization)?;
        authorization.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, authorization);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(id) = self.platform.preferred() {
            headers.insert("wechatpay-serial", text(id)?);
        }
        let reply = self.http.send(request, self.patience.attempt).await?;
        let status = reply.status;
        let verify = || self.platform.verify(&reply.headers, &reply.body, self.clock.now());
        if status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 202 {
            return Err(PaymentError::unavailable(format!("status {}", status.as_u16())).into());
        }
        if status.is_success() {
            verify()?;
            return Ok(reply.body);
        }
        // A request whose signature the vendor does not accept is answered unsigned, all others are signed.
        let signed = sign::claims_signature(&reply.headers);
        if signed {
            verify()?;
        }
        if !status.is_client_error() {
            return Err(PaymentError::malformed(format!("status {}", status.as_u16())).into());
        }
        let failure: wire::Failure = serde_json::from_slice(&reply.body).unwrap_or_default();
        if failure.code == "SYSTEM_ERROR" || failure.code == "FREQUENCY_LIMITED" {
            return Err(PaymentError::unavailable(failure.code).into());
        }
        let code = if failure.code.is_empty() { format!("HTTP_{}", status.as_u16()) } else { failure.code };
        let heard = signed && !OF_US.contains(&code.as_str());
        Err(Failed::refused(&code, &failure.message, heard))
    }
}

//! The one address for all calls: <https://opendocs.alipay.com/common/02kf5q>, answers
//! <https://opendocs.alipay.com/common/02mse4>, public errors <https://opendocs.alipay.com/common/02km9f>.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::{Alipay, seal::signed_text};
use crate::china::{
    Fault,
    page::{escape, frame, page},
    time::parse_civil,
};

const LONGEST_BODY: usize = 1 << 20;

type Params = BTreeMap<String, String>;

/// A refused call.
pub(super) struct Failure {
    code: &'static str,
    msg: &'static str,
    sub_code: &'static str,
    sub_msg: &'static str,
    /// Is it known whose call it was? If not, nothing is signed.
    signed: bool,
}

impl Failure {
    const fn missing(sub_code: &'static str, signed: bool) -> Self {
        Self { code: "40001", msg: "Missing Required Arguments", sub_code, sub_msg: "缺少必选参数", signed }
    }

    const fn invalid(sub_code: &'static str, sub_msg: &'static str, signed: bool) -> Self {
        Self { code: "40002", msg: "Invalid Arguments", sub_code, sub_msg, signed }
    }

    /// The call is understood, and the trade does not allow it.
    pub(super) const fn business(sub_code: &'static str, sub_msg: &'static str) -> Self {
        Self { code: "40004", msg: "Business Failed", sub_code, sub_msg, signed: true }
    }

    /// What was ordered.
    fn ordered(fault: Fault) -> Option<Self> {
        match fault {
            Fault::Denied => Some(Self::invalid("isv.invalid-signature", "验签出错", true)),
            Fault::Refused => Some(Self::business("ACQ.INVALID_PARAMETER", "参数无效")),
            _ => None,
        }
    }

    fn body(&self) -> Value {
        json!({"code": self.code, "msg": self.msg, "sub_code": self.sub_code, "sub_msg": self.sub_msg})
    }
}

pub(in crate::china) fn router(alipay: Arc<Alipay>) -> Router {
    Router::new().route("/_dev/alipay/gateway.do", get(call).post(call)).with_state(alipay)
}

async fn call(State(alipay): State<Arc<Alipay>>, request: Request<Body>) -> Response {
    let fault = alipay.faults.next();
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
    };
    if fault.prevents() {
        return fault.spoil(Response::default()).await;
    }
    let query = head.uri.query().unwrap_or_default();
    let mut params = Params::new();
    let mut twice = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(&body)) {
        // A parameter without a value is none.
        if !value.is_empty() {
            twice |= params.insert(name.into_owned(), value.into_owned()).is_some();
        }
    }
    let method = params.get("method").cloned().unwrap_or_default();
    let checked = if twice { Err(Failure::invalid("isv.invalid-parameter", "参数重复", false)) } else { Ok(()) };
    let content = checked.and_then(|()| Failure::ordered(fault).map_or_else(|| alipay.check(params), Err));
    if method == "alipay.trade.page.pay" {
        let answer = match content.and_then(|call| alipay.page_pay(&call)) {
            Ok(number) => Redirect::to(&format!("/_dev/pay/alipay/{number}")).into_response(),
            Err(failure) => error_page(&failure),
        };
        return fault.spoil(answer).await;
    }
    let result = content.and_then(|call| match method.as_str() {
        "alipay.trade.precreate" => alipay.precreate(&call),
        "alipay.trade.query" => alipay.query(&call),
        "alipay.trade.close" => alipay.close(&call),
        "alipay.trade.refund" => alipay.refund(&call),
        "alipay.trade.fastpay.refund.query" => alipay.query_refund(&call),
        _ => Err(Failure::invalid("isv.invalid-method", "不存在的方法名", true)),
    });
    fault.spoil(alipay.answer(&method, result, fault)).await
}

/// A call that is believed.
pub(super) struct Call {
    pub(super) content: Value,
    pub(super) notify_url: Option<String>,
    pub(super) return_url: Option<String>,
}

impl Alipay {
    /// Does the call come from the app?
    fn check(&self, mut params: Params) -> Result<Call, Failure> {
        let app_id = params.get("app_id").ok_or(Failure::missing("isv.missing-app-id", false))?;
        if *app_id != self.settings.app_id {
            return Err(Failure::invalid("isv.invalid-app-id", "无效的AppID参数", false));
        }
        if !params.contains_key("method") {
            return Err(Failure::missing("isv.missing-method", true));
        }
        match params.get("sign_type").map(String::as_str) {
            None => return Err(Failure::missing("isv.missing-signature-type", true)),
            Some("RSA2") => {}
            Some(_) => return Err(Failure::invalid("isv.invalid-signature-type", "无效签名类型", true)),
        }
        let sign = params.remove("sign").ok_or(Failure::missing("isv.missing-signature", true))?;
        if !self.keys.app.verifies(signed_text(&params).as_bytes(), &sign) {
            let message = "验签出错，请检查签名内容、应用私钥和应用公钥是否匹配";
            return Err(Failure::invalid("isv.invalid-signature", message, true));
        }
        let timestamp = params.get("timestamp").ok_or(Failure::missing("isv.missing-timestamp", true))?;
        if parse_civil(timestamp).is_none() {
            return Err(Failure::invalid("isv.invalid-timestamp", "非法的时间戳参数", true));
        }
        match params.get("version").map(String::as_str) {
            None => return Err(Failure::missing("isv.missing-version", true)),
            Some("1.0") => {}
            Some(_) => return Err(Failure::invalid("isv.invalid-parameter", "无效的version参数", true)),
        }
        if params.get("charset").is_none_or(|charset| !charset.eq_ignore_ascii_case("utf-8")) {
            return Err(Failure::invalid("isv.invalid-charset", "字符集错误", true));
        }
        let content = params.get("biz_content").and_then(|text| serde_json::from_str(text).ok());
        let content = content.filter(Value::is_object);
        let malformed = Failure::invalid("isv.invalid-parameter", "biz_content不是合法的JSON", true);
        Ok(Call {
            content: content.ok_or(malformed)?,
            notify_url: params.remove("notify_url"),
            return_url: params.remove("return_url"),
        })
    }

    /// The answer in JSON with its signature, spoiled as ordered.
    fn answer(&self, method: &str, result: Result<Value, Failure>, fault: Fault) -> Response {
        let name = match &result {
            Err(Failure { sub_code: "isv.invalid-method" | "isv.missing-method", .. }) => "error_response".to_owned(),
            _ => format!("{}_response", method.replace('.', "_")),
        };
        let (body, signed) = match result {
            Ok(body) => (body, true),
            Err(failure) => (failure.body(), failure.signed),
        };
        // The vendor escapes slashes, and signs what it writes.
        let text = body.to_string().replace('/', "\\/");
        let key = if fault == Fault::WrongKey { &self.keys.stranger } else { &self.keys.alipay };
        let sign = key.sign(text.as_bytes());
        let text = if fault == Fault::Tamper { text.replacen("Success", "Succes5", 1) } else { text };
        let signed = signed && !matches!(fault, Fault::Unsigned | Fault::Probe);
        let sign = if signed { format!(",\"sign\":\"{sign}\"") } else { String::new() };
        let kind = HeaderValue::from_static("text/html;charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], format!("{{\"{name}\":{text}{sign}}}")).into_response()
    }
}

/// What the browser shows when the shop's link is wrong.
fn error_page(failure: &Failure) -> Response {
    let text = format!("<p>{}</p><p><code>{}</code></p>", escape(failure.sub_msg), escape(failure.sub_code));
    page(StatusCode::BAD_REQUEST, &frame("Alipay", &text))
}

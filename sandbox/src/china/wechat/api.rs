//! The calls, below `/_dev/wechatpay`.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use super::{WeChat, failure::Failure};

const MOUNT: &str = "/_dev/wechatpay";
const LONGEST_BODY: usize = 1 << 20;

pub(in crate::china) fn router(wechat: Arc<WeChat>) -> Router {
    Router::new().route(&format!("{MOUNT}/{{*path}}"), any(call)).with_state(wechat)
}

async fn call(State(wechat): State<Arc<WeChat>>, request: Request<Body>) -> Response {
    let fault = wechat.faults.next();
    let (head, body) = request.into_parts();
    let asked_for = head.headers.get("wechatpay-serial");
    let (status, text) = match Limited::new(body, LONGEST_BODY).collect().await {
        _ if fault.prevents() => return fault.spoil(Response::default()).await,
        Ok(body) => match Failure::ordered(fault).map_or_else(|| wechat.serve(&head, &body.to_bytes()), Err) {
            Ok(None) => (StatusCode::NO_CONTENT, String::new()),
            Ok(Some(answer)) => (StatusCode::OK, answer.to_string()),
            Err(failure) => (failure.status, failure.body().to_string()),
        },
        Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, String::new()),
    };
    fault.spoil(wechat.answer(asked_for, status, text, fault)).await
}

impl WeChat {
    fn serve(&self, head: &Parts, body: &Bytes) -> Result<Option<Value>, Failure> {
        let now = self.clock.now();
        self.check(head, body, now)?;
        let path = head.uri.path().strip_prefix(MOUNT).unwrap_or_default();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (&head.method, segments.as_slice()) {
            (&Method::POST, ["v3", "pay", "transactions", "native"]) => self.native(&json(head, body)?, now).map(Some),
            (&Method::GET, ["v3", "pay", "transactions", "out-trade-no", number]) => {
                self.query(number, head.uri.query().unwrap_or_default()).map(Some)
            }
            (&Method::POST, ["v3", "pay", "transactions", "out-trade-no", number, "close"]) => {
                self.close(number, &json(head, body)?).map(|()| None)
            }
            (&Method::POST, ["v3", "refund", "domestic", "refunds"]) => self.refund(&json(head, body)?, now).map(Some),
            (&Method::GET, ["v3", "refund", "domestic", "refunds", number]) => self.query_refund(number).map(Some),
            _ => Err(Failure::new(StatusCode::NOT_FOUND, "NOT_FOUND", "请求的资源不存在")),
        }
    }
}

fn json(head: &Parts, body: &[u8]) -> Result<Value, Failure> {
    let kind = head.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::new(status, "PARAM_ERROR", "Content-Type必须为application/json"));
    }
    let parsed: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
    parsed.ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "PARAM_ERROR", "请求体不是合法的JSON"))
}

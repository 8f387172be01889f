//! Believing requests and signing answers: <https://pay.weixin.qq.com/doc/v3/merchant/4012365336>,
//! <https://pay.weixin.qq.com/doc/v3/merchant/4013053420>.

use std::collections::HashMap;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde_json::json;
use tenantry_domain::Millis;

use super::{WeChat, failure::Failure};
use crate::china::{Fault, WeChatSettings, keys::Keys, keys::RsaKey, keys::secret};

const SCHEME: &str = "WECHATPAY2-SHA256-RSA2048";
/// How signatures begin that are sent to see whether they are checked.
pub(super) const PROBE: &str = "WECHATPAY/SIGNTEST/";
const WINDOW_MILLIS: u64 = 5 * 60_000;
pub(super) const STALE_MILLIS: Millis = 10 * 60_000;

impl WeChat {
    /// Does the request come from the merchant, now?
    pub(super) fn check(&self, head: &Parts, body: &[u8], now: Millis) -> Result<(), Failure> {
        let wrong = |field: &str, message: &str, issue: &str| {
            Failure::signature(message, json!({"field": field, "issue": issue, "location": "authorization"}))
        };
        let malformed = || {
            let message = "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》";
            wrong("authorization", message, "malformed")
        };
        let header = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, rest) = header.and_then(|header| header.split_once(' ')).ok_or_else(malformed)?;
        if scheme != SCHEME {
            return Err(wrong("authorization", "Http头Authorization认证类型不正确", "unknown scheme"));
        }
        let mut values = HashMap::new();
        for pair in rest.split(',') {
            let (name, value) = pair.trim().split_once('=').ok_or_else(malformed)?;
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(malformed)?;
            values.insert(name, value);
        }
        let value = |name| values.get(name).copied().filter(|value| !value.is_empty()).ok_or_else(malformed);
        let (timestamp, nonce, signature) = (value("timestamp")?, value("nonce_str")?, value("signature")?);
        if value("mchid")? != self.settings.merchant {
            return Err(wrong("mchid", "商户号不存在", "unknown merchant"));
        }
        if !value("serial_no")?.eq_ignore_ascii_case(&self.settings.merchant_serial) {
            let message = "商户证书序列号有误。请使用签名私钥匹配的证书序列号";
            return Err(wrong("serial_no", message, "unknown serial"));
        }
        let at: Millis = timestamp.parse().map_err(|_| malformed())?;
        if now.abs_diff(at.saturating_mul(1000)) > WINDOW_MILLIS {
            let message = "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟";
            return Err(wrong("timestamp", message, "timestamp out of range"));
        }
        // Signed is what was asked for, before any proxy.
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let text = format!("{}\n{path}\n{timestamp}\n{nonce}\n", head.method);
        if self.keys.merchant.verifies(&[text.as_bytes(), body, b"\n"].concat(), signature) {
            return Ok(());
        }
        Err(Failure::signature(
            "错误的签名，验签失败",
            json!({
                "detail": {"issue": "sign not match"},
                "field": "signature",
                "location": "authorization",
                "sign_information": {
                    "method": head.method.as_str(),
                    "url": path,
                    "truncated_sign_message": text,
                    "sign_message_length": text.len() + body.len() + 1,
                },
            }),
        ))
    }

    /// An answer, signed unless the request was not believed, and spoiled as ordered.
    pub(super) fn answer(
        &self,
        asked_for: Option<&HeaderValue>,
        status: StatusCode,
        body: String,
        fault: Fault,
    ) -> Response {
        let mut answer = Response::default();
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        }
        let now = self.clock.now();
        if status != StatusCode::UNAUTHORIZED && fault != Fault::Unsigned {
            // Merchants who have both say which they want; without a word it is the certificate.
            let public = self.settings.platform_keys.first().map(|key| key.id.as_bytes());
            let wants_public = asked_for.is_some_and(|id| Some(id.as_bytes()) == public);
            let mut signer = Signer::new(&self.keys, &self.settings, wants_public);
            if fault == Fault::WrongKey {
                signer.key = &self.keys.stranger;
            }
            signer.probe = fault == Fault::Probe;
            let at = if fault == Fault::Stale { now - STALE_MILLIS } else { now };
            headers.extend(signer.headers(body.as_bytes(), at));
        }
        let body = if fault == Fault::Tamper { body.replacen('"', "\" ", 1) } else { body };
        *answer.body_mut() = Body::from(Bytes::from(body));
        answer
    }
}

/// What the vendor signs with.
pub(super) struct Signer<'a> {
    pub(super) key: &'a RsaKey,
    pub(super) id: &'a str,
    pub(super) probe: bool,
}

impl<'a> Signer<'a> {
    /// With the public key, or with the certificate.
    pub(super) fn new(keys: &'a Keys, settings: &'a WeChatSettings, public: bool) -> Self {
        let (at, key) = if public { (0, &keys.wechat) } else { (1, &keys.certificate) };
        Self { key, id: settings.platform_keys.get(at).map_or("", |key| key.id.as_str()), probe: false }
    }

    /// The four headers.
    pub(super) fn headers(&self, body: &[u8], at: Millis) -> HeaderMap {
        let timestamp = at.div_euclid(1000).to_string();
        let nonce = secret(16).unwrap_or_default();
        let text = [timestamp.as_bytes(), b"\n", nonce.as_bytes(), b"\n", body, b"\n"].concat();
        let mut signature = self.key.sign(&text);
        if self.probe {
            signature.insert_str(0, PROBE);
        }
        let pairs = [
            ("wechatpay-timestamp", timestamp.as_str()),
            ("wechatpay-nonce", &nonce),
            ("wechatpay-signature", &signature),
            ("wechatpay-serial", self.id),
            ("wechatpay-signature-type", SCHEME),
        ];
        let pair = |(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?));
        pairs.into_iter().filter_map(pair).collect()
    }
}

//! The one address for all calls: a signed form there, a signed piece of JSON back.
//! <https://opendocs.alipay.com/common/02kf5q>, answers <https://opendocs.alipay.com/common/02mse4>

use ::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{Inner, sign, sign::Params};
use crate::{
    error::{Failed, PaymentError},
    rsa::VerifyingKey,
    time::civil,
};

/// What every answer begins with.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Verdict {
    code: String,
    msg: String,
    sub_code: String,
    sub_msg: String,
}

impl Inner {
    /// All parameters of a call, signed.
    pub(super) fn signed(&self, method: &str, content: &Value, more: &[(&str, &str)]) -> Result<Params, PaymentError> {
        let timestamp = civil(self.clock.now());
        let content = content.to_string();
        let common = [
            ("app_id", self.app_id.as_str()),
            ("method", method),
            ("format", "JSON"),
            ("charset", "utf-8"),
            ("sign_type", "RSA2"),
            ("timestamp", &timestamp),
            ("version", "1.0"),
            ("biz_content", &content),
        ];
        let all = common.iter().chain(more).filter(|(_, value)| !value.is_empty());
        let mut params: Params = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sign = self.key.sign(sign::text(&params).as_bytes())?;
        params.insert("sign".to_owned(), sign);
        Ok(params)
    }

    /// Carries a call out, and reads what the vendor signed.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        content: &Value,
        more: &[(&str, &str)],
    ) -> Result<T, Failed> {
        self.patience.retry(|| self.attempt(method, content, more)).await
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        method: &str,
        content: &Value,
        more: &[(&str, &str)],
    ) -> Result<T, Failed> {
        let mut params = self.signed(method, content, more)?;
        // The gateway wants to know the charset before it reads the body, so all but the content is in the query.
        let content = params.remove("biz_content").unwrap_or_default();
        let url: Uri = with_query(&self.gateway, &params).parse().map_err(|_| PaymentError::Invalid("the gateway"))?;
        let body = form_urlencoded::Serializer::new(String::new()).append_pair("biz_content", &content).finish();
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        let reply = self.http.send(request, self.patience.attempt).await?;
        if reply.status.is_server_error() || reply.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(PaymentError::unavailable(format!("status {}", reply.status.as_u16())).into());
        }
        if reply.status != StatusCode::OK {
            return Err(PaymentError::malformed(format!("status {}", reply.status.as_u16())).into());
        }
        let (text, signed) = believe(&reply.body, method, &self.alipay_keys)?;
        read(&text, signed)
    }
}

/// An address with these parameters.
pub(super) fn with_query(gateway: &str, params: &Params) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    format!("{gateway}?{query}")
}

/// The two members of an answer that matter, as they were written; others (`alipay_cert_sn`) are skipped.
#[derive(Default)]
struct Members {
    response: Option<(String, Box<RawValue>)>,
    sign: Option<String>,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a response and its signature")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key::<String>()? {
                    // Two of a kind would leave open which of them was signed.
                    let twice = if name == "sign" {
                        members.sign.replace(map.next_value()?).is_some()
                    } else if name.ends_with("_response") {
                        members.response.replace((name, map.next_value()?)).is_some()
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                        false
                    };
                    if twice {
                        return Err(de::Error::custom("two responses or two signatures"));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The inner JSON of an answer exactly as it was signed, and whether it was signed at all.
fn believe(body: &[u8], method: &str, keys: &[VerifyingKey]) -> Result<(String, bool), PaymentError> {
    let members: Members =
        serde_json::from_slice(body).map_err(|error| PaymentError::malformed(format!("unexpected JSON: {error}")))?;
    let (name, raw) = members.response.ok_or_else(|| PaymentError::malformed("an answer without a response"))?;
    if name != "error_response" && name != format!("{}_response", method.replace('.', "_")) {
        return Err(PaymentError::malformed("the answer is to another call"));
    }
    let text = raw.get();
    let Some(sign) = members.sign.filter(|sign| !sign.is_empty()) else { return Ok((text.to_owned(), false)) };
    let signed = |text: &str| keys.iter().any(|key| key.verifies(text.as_bytes(), &sign));
    if signed(text) {
        return Ok((text.to_owned(), true));
    }
    // Some answers are signed before their slashes are escaped; the vendor's own SDKs try this too. What is read is
    // what was signed.
    let plain = text.replace("\\/", "/");
    if plain != text && signed(&plain) {
        return Ok((plain, true));
    }
    Err(PaymentError::BadSignature("the signature is not of this answer"))
}

/// Reads an answer, or what it says instead.
fn read<T: DeserializeOwned>(text: &str, signed: bool) -> Result<T, Failed> {
    let unexpected = |error: serde_json::Error| PaymentError::malformed(format!("unexpected JSON: {error}"));
    let verdict: Verdict = serde_json::from_str(text).map_err(unexpected)?;
    if verdict.code == "10000" {
        if !signed {
            return Err(PaymentError::BadSignature("the answer is not signed").into());
        }
        return Ok(serde_json::from_str(text).map_err(unexpected)?);
    }
    let code = if verdict.sub_code.is_empty() { verdict.code.as_str() } else { verdict.sub_code.as_str() };
    // 20000 and what ends in SYSTEM_ERROR leave open what happened (<https://opendocs.alipay.com/open/00f7nv>).
    let open = verdict.code == "20000" || verdict.code == "10003" || code.ends_with("SYSTEM_ERROR");
    if open || code.starts_with("isp.") || code.ends_with("call-limited") {
        return Err(PaymentError::unavailable(code).into());
    }
    if code.is_empty() {
        return Err(PaymentError::malformed("an answer without a code").into());
    }
    let message = if verdict.sub_msg.is_empty() { &verdict.msg } else { &verdict.sub_msg };
    // The other codes are about who calls: the app, its key, its rights (<https://opendocs.alipay.com/common/02km9f>).
    let heard = signed && (verdict.code == "40004" || code == "isv.invalid-parameter");
    Err(Failed::refused(code, message, heard))
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;

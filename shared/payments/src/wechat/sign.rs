//! Signing what we send, and believing what comes:
//! <https://pay.weixin.qq.com/doc/v3/merchant/4012365336>, <https://pay.weixin.qq.com/doc/v3/merchant/4013053420>.

use ::http::HeaderMap;
use aws_lc_rs::rand;
use data_encoding::HEXUPPER;
use tenantry_domain::Millis;

use crate::{
    error::{ConfigError, PaymentError},
    rsa::{SigningKey, VerifyingKey},
};

/// A message whose clock is further from ours is refused.
const WINDOW_SECONDS: u64 = 5 * 60;
/// What the vendor sends, now and then, to see whether signatures are checked at all.
const PROBE: &str = "WECHATPAY/SIGNTEST/";
/// How the ids of public keys begin, as against serial numbers of certificates.
const PUBLIC_KEY_ID: &str = "PUB_KEY_ID_";

/// The vendor's keys by id.
pub(super) struct PlatformKeys(Vec<(String, VerifyingKey)>);

impl PlatformKeys {
    pub(super) fn new(keys: Vec<(String, VerifyingKey)>) -> Result<Self, ConfigError> {
        if keys.is_empty() {
            return Err(ConfigError::new("platform keys", "are missing: nothing the vendor says could be believed"));
        }
        let twice = keys.iter().enumerate().any(|(at, (id, _))| keys[..at].iter().any(|(other, _)| other == id));
        if twice {
            return Err(ConfigError::new("platform keys", "have an id twice"));
        }
        Ok(Self(keys))
    }

    /// Which key answers are to be signed with: the public key, once there is one. Without being told, the vendor signs
    /// with a certificate.
    pub(super) fn preferred(&self) -> Option<&str> {
        self.0.iter().map(|(id, _)| id.as_str()).find(|id| id.starts_with(PUBLIC_KEY_ID))
    }

    /// Believes a message with the four headers, or says why not.
    pub(super) fn verify(&self, headers: &HeaderMap, body: &[u8], now: Millis) -> Result<(), PaymentError> {
        let serial = single(headers, "wechatpay-serial")?;
        let signature = single(headers, "wechatpay-signature")?;
        let timestamp = single(headers, "wechatpay-timestamp")?;
        let nonce = single(headers, "wechatpay-nonce")?;
        if signature.starts_with(PROBE) {
            return Err(PaymentError::BadSignature("the vendor tests whether signatures are checked"));
        }
        let is_number = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
        let at: i64 = timestamp.parse().ok().filter(|_| is_number).ok_or(PaymentError::BadSignature("a timestamp"))?;
        if now.div_euclid(1000).abs_diff(at) >= WINDOW_SECONDS {
            return Err(PaymentError::BadSignature("the timestamp is not within five minutes of now"));
        }
        let known = self.0.iter().find(|(id, _)| id.eq_ignore_ascii_case(serial));
        let (_, key) = known.ok_or(PaymentError::BadSignature("signed with a key that is not configured"))?;
        let text = [timestamp.as_bytes(), b"\n", nonce.as_bytes(), b"\n", body, b"\n"].concat();
        if key.verifies(&text, signature) {
            Ok(())
        } else {
            Err(PaymentError::BadSignature("the signature is not of this message"))
        }
    }
}

/// The one value of a header.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, PaymentError> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(value)), None) if !value.is_empty() => Ok(value),
        _ => Err(PaymentError::BadSignature("a header of the signature is missing, double or no text")),
    }
}

/// Has this answer any part of a signature?
pub(super) fn claims_signature(headers: &HeaderMap) -> bool {
    headers.contains_key("wechatpay-signature")
}

/// The header `Authorization` of a request.
pub(super) struct Signer<'a> {
    pub(super) merchant: &'a str,
    pub(super) serial: &'a str,
    pub(super) key: &'a SigningKey,
}

impl Signer<'_> {
    /// `path` with the query; `body` as it will be sent.
    pub(super) fn authorization(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        now: Millis,
    ) -> Result<String, PaymentError> {
        let nonce = nonce()?;
        let timestamp = now.div_euclid(1000);
        let head = format!("{method}\n{path}\n{timestamp}\n{nonce}\n");
        let signature = self.key.sign(&[head.as_bytes(), body, b"\n"].concat())?;
        Ok(format!(
            "WECHATPAY2-SHA256-RSA2048 mchid=\"{}\",nonce_str=\"{nonce}\",timestamp=\"{timestamp}\",serial_no=\"{}\",\
             signature=\"{signature}\"",
            self.merchant, self.serial
        ))
    }
}

fn nonce() -> Result<String, PaymentError> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| PaymentError::unavailable("no randomness"))?;
    Ok(HEXUPPER.encode(&bytes))
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;

//! Notifications: encrypted, then signed. <https://pay.weixin.qq.com/doc/v3/merchant/4012791882>

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use tenantry_domain::Millis;

use super::sign::{STALE_MILLIS, Signer};
use crate::china::{
    Disguise, Seal, Vendor, WeChatSettings,
    keys::{Keys, secret},
    outbox::Letter,
    time::rfc3339,
};

/// 15 repetitions in a day.
const SCHEDULE: [u64; 15] =
    [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10_800, 10_800, 10_800, 21_600, 21_600];

pub(in crate::china) struct WeChatSeal {
    keys: Keys,
    settings: Arc<WeChatSettings>,
    key: LessSafeKey,
}

impl WeChatSeal {
    /// `None` when the APIv3 key is none.
    pub(in crate::china) fn new(keys: Keys, settings: Arc<WeChatSettings>) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, settings.api_v3_key.as_bytes()).ok()?);
        Some(Self { keys, settings, key })
    }

    /// The nonce, twelve characters, and the ciphertext in base64.
    fn encrypt(&self, text: &str, associated_data: &str) -> Option<(String, String)> {
        let nonce = secret(6).ok()?;
        let ciphertext = encrypt(&self.key, &nonce, associated_data, text)?;
        Some((nonce, ciphertext))
    }
}

fn encrypt(key: &LessSafeKey, nonce: &str, associated_data: &str, text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce.as_bytes()).ok()?;
    key.seal_in_place_append_tag(nonce, Aad::from(associated_data.as_bytes()), &mut bytes).ok()?;
    Some(BASE64.encode(&bytes))
}

impl Seal for WeChatSeal {
    fn vendor(&self) -> Vendor {
        Vendor::WeChat
    }

    fn seal(&self, letter: &Letter, now: Millis, disguise: Disguise) -> (HeaderMap, Bytes) {
        let refund = letter.content.get("refund_status").and_then(|status| status.as_str());
        let (kind, event, summary) = match refund {
            None => ("transaction", "TRANSACTION.SUCCESS".to_owned(), "支付成功"),
            Some("SUCCESS") => ("refund", "REFUND.SUCCESS".to_owned(), "退款成功"),
            Some(status) => ("refund", format!("REFUND.{status}"), "退款异常"),
        };
        let (nonce, ciphertext) = self.encrypt(&letter.content.to_string(), kind).unwrap_or_default();
        let body = json!({
            "id": letter.id,
            "create_time": rfc3339(letter.made_at),
            "resource_type": "encrypt-resource",
            "event_type": event,
            "summary": summary,
            "resource": {
                "original_type": kind,
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": ciphertext,
                "associated_data": kind,
                "nonce": nonce,
            },
        });
        let mut body = body.to_string();
        let mut signer = Signer::new(&self.keys, &self.settings, disguise != Disguise::Certificate);
        signer.probe = disguise == Disguise::Probe;
        match disguise {
            Disguise::WrongKey => signer.key = &self.keys.stranger,
            Disguise::UnknownSerial => signer.id = "PUB_KEY_ID_0000000000000000000000000000000",
            _ => {}
        }
        let at = if disguise == Disguise::Stale { now - STALE_MILLIS } else { now };
        let mut headers = signer.headers(body.as_bytes(), at);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if disguise == Disguise::Altered {
            body = body.replacen("SUCCESS", "SUCCESs", 1);
        }
        (headers, Bytes::from(body))
    }

    /// The status alone counts.
    fn is_taken(&self, status: u16, _body: &[u8]) -> bool {
        matches!(status, 200 | 204)
    }

    fn schedule(&self) -> &'static [u64] {
        &SCHEDULE
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_vendors_example_is_encrypted_as_there() {
        let vectors = include_str!("../../../../shared/payments/testdata/vectors.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let text = |name: &str| vectors["wechat_pay_v3_aes_256_gcm"][name].as_str().unwrap();
        let key = UnboundKey::new(&AES_256_GCM, text("api_v3_key").as_bytes()).unwrap();
        let sealed = encrypt(&LessSafeKey::new(key), text("nonce"), text("associated_data"), text("plaintext"));
        assert_eq!(sealed.unwrap(), text("ciphertext_base64"));
    }
}

//! Notifications: signed, and the interesting part encrypted besides.
//! <https://pay.weixin.qq.com/doc/v3/merchant/4012791882>, <https://pay.weixin.qq.com/doc/v3/merchant/4012791886>

use ::http::HeaderMap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use data_encoding::BASE64;
use serde::Deserialize;

use super::{WeChatPay, wire};
use crate::{
    error::{ConfigError, PaymentError},
    order::{Event, Notification, TradeState},
    time::parse_rfc3339,
};

/// The key that notifications are encrypted with; never shown.
pub struct ApiV3Key(LessSafeKey);

impl ApiV3Key {
    /// # Errors
    /// When it has not 32 bytes.
    pub fn new(key: &str) -> Result<Self, ConfigError> {
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes())
            .map_err(|_| ConfigError::new("API v3 key", "must have 32 characters"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// What was encrypted. `None` when it was not with this key, this nonce and this associated data.
    #[must_use]
    pub fn open(&self, nonce: &str, associated_data: &str, ciphertext: &str) -> Option<Vec<u8>> {
        let nonce = Nonce::try_assume_unique_for_key(nonce.as_bytes()).ok()?;
        let mut bytes = BASE64.decode(ciphertext.as_bytes()).ok()?;
        let length = self.0.open_in_place(nonce, Aad::from(associated_data.as_bytes()), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    create_time: String,
    event_type: String,
    resource: Resource,
}

#[derive(Deserialize)]
struct Resource {
    original_type: String,
    algorithm: String,
    ciphertext: String,
    #[serde(default)]
    associated_data: String,
    nonce: String,
}

impl WeChatPay {
    /// Reads a notification from its headers and the raw bytes of its body.
    ///
    /// # Errors
    /// [`PaymentError::BadSignature`] when it is not the vendor's or not of the last five minutes;
    /// [`PaymentError::Malformed`] when it is the vendor's and not as documented.
    pub fn parse_notification(&self, headers: &HeaderMap, body: &[u8]) -> Result<Notification, PaymentError> {
        self.0.platform.verify(headers, body, self.0.clock.now())?;
        let envelope: Envelope = wire::read(body)?;
        let sent_at = parse_rfc3339(&envelope.create_time);
        let sent_at = sent_at.ok_or_else(|| PaymentError::malformed("create_time is no time"))?;
        let event = match envelope.event_type.as_str() {
            kind @ "TRANSACTION.SUCCESS" => {
                let transaction: wire::Transaction = wire::read(&self.open(&envelope.resource, "transaction")?)?;
                let trade = transaction.trade()?;
                if !matches!(trade.state, TradeState::Paid(_) | TradeState::Refunded(_)) {
                    return Err(PaymentError::malformed(format!("{kind} of an order that is not paid")));
                }
                if trade.app_id.is_none() || trade.merchant.is_none() || trade.amount.is_none() {
                    return Err(PaymentError::malformed(format!("{kind} without appid, mchid or amount")));
                }
                Event::Trade(trade)
            }
            kind if kind.starts_with("REFUND.") => {
                let notice: wire::RefundNotice = wire::read(&self.open(&envelope.resource, "refund")?)?;
                Event::Refund(notice.notice()?)
            }
            other => Event::Other(other.to_owned()),
        };
        Ok(Notification { id: envelope.id, sent_at, event })
    }

    fn open(&self, resource: &Resource, kind: &str) -> Result<Vec<u8>, PaymentError> {
        if resource.algorithm != "AEAD_AES_256_GCM" || resource.original_type != kind {
            return Err(PaymentError::malformed("the resource is of another kind than the event"));
        }
        let opened = self.0.api_v3_key.open(&resource.nonce, &resource.associated_data, &resource.ciphertext);
        // It is signed by the vendor, so the key here is not the one that the merchant set there.
        opened.ok_or_else(|| PaymentError::malformed("the resource does not decrypt: is the API v3 key the right one?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_example_decrypts() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../testdata/vectors.json")).unwrap();
        let vector = &vectors["wechat_pay_v3_aes_256_gcm"];
        let text = |name: &str| vector[name].as_str().unwrap();
        let key = ApiV3Key::new(text("api_v3_key")).unwrap();
        let (nonce, data, ciphertext) = (text("nonce"), text("associated_data"), text("ciphertext_base64"));
        assert_eq!(key.open(nonce, data, ciphertext).unwrap(), text("plaintext").as_bytes());
        assert_eq!(key.open(nonce, "", ciphertext), None);
        assert_eq!(key.open("uluk4a9R25RX", data, ciphertext), None);
        assert_eq!(key.open("short", data, ciphertext), None);
        assert_eq!(key.open(nonce, data, &ciphertext.replacen('u', "v", 1)), None);
        assert_eq!(key.open(nonce, data, "AAAA"), None);
        assert_eq!(key.open(nonce, data, "no base64"), None);
        let other = ApiV3Key::new(&text("api_v3_key").replace('7', "8")).unwrap();
        assert_eq!(other.open(nonce, data, ciphertext), None);
        assert!(ApiV3Key::new("too short").is_err());
    }
}

//! Notifications: signed forms. <https://opendocs.alipay.com/open/270/105902>,
//! <https://opendocs.alipay.com/common/02mse7>

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use tenantry_domain::Millis;

use crate::china::{AlipaySettings, Disguise, Seal, Vendor, keys::Keys, outbox::Letter, time::civil};

/// Eight deliveries in 25 hours.
const SCHEDULE: [u64; 7] = [240, 600, 600, 3600, 7200, 21_600, 54_000];
const STALE_MILLIS: Millis = 3 * 86_400_000;

/// `a=1&b=2`, by name, values as they are.
pub(super) fn signed_text(params: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

pub(in crate::china) struct AlipaySeal {
    keys: Keys,
    settings: Arc<AlipaySettings>,
}

impl AlipaySeal {
    pub(in crate::china) const fn new(keys: Keys, settings: Arc<AlipaySettings>) -> Self {
        Self { keys, settings }
    }
}

impl Seal for AlipaySeal {
    fn vendor(&self) -> Vendor {
        Vendor::Alipay
    }

    fn seal(&self, letter: &Letter, now: Millis, disguise: Disguise) -> (HeaderMap, Bytes) {
        let mut params = BTreeMap::from([("notify_id".to_owned(), letter.id.clone())]);
        let sent_at = if disguise == Disguise::Stale { now - STALE_MILLIS } else { now };
        params.insert("notify_time".to_owned(), civil(sent_at));
        for (name, value) in letter.content.as_object().into_iter().flatten() {
            params.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned));
        }
        let key = if disguise == Disguise::WrongKey { &self.keys.stranger } else { &self.keys.alipay };
        let sign = key.sign(signed_text(&params).as_bytes());
        params.insert("sign_type".to_owned(), "RSA2".to_owned());
        match disguise {
            Disguise::Probe => {}
            _ => drop(params.insert("sign".to_owned(), sign)),
        }
        if disguise == Disguise::Altered {
            // What a thief would like: paid to somebody else.
            params.insert("seller_id".to_owned(), format!("{}9", self.settings.seller_id));
        }
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&params).finish();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        (HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]), Bytes::from(form))
    }

    /// This word exactly, whatever the status.
    fn is_taken(&self, status: u16, body: &[u8]) -> bool {
        status == 200 && body == b"success"
    }

    fn schedule(&self) -> &'static [u64] {
        &SCHEDULE
    }
}

/// The text of a parameter of the content; empty when it is absent.
pub(super) fn text<'a>(content: &'a Value, name: &str) -> &'a str {
    content.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_real_notification_is_made_as_the_vendor_makes_it() {
        let vectors = include_str!("../../../../shared/payments/testdata/vectors.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let vector = &vectors["alipay_notify_rsa2"];
        let mut params: BTreeMap<String, String> = serde_json::from_value(vector["params"].clone()).unwrap();
        params.remove("sign");
        params.remove("sign_type");
        assert_eq!(signed_text(&params), vector["signed_string"].as_str().unwrap());
    }
}

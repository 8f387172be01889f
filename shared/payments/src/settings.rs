//! The configuration of a vendor as one JSON object, which is how a secret holds it: `docs/payments-china.md`.

use std::fmt;

use serde_json::{Map, Value};

use crate::{
    alipay::{self, AlipayConfig},
    error::ConfigError,
    retry::Patience,
    wechat::{self, PlatformKey, WeChatConfig},
};

/// The members that are not read yet. No error has a value in it.
struct Members(Map<String, Value>);

impl Members {
    fn read(setting: &'static str, text: &str) -> Result<Self, ConfigError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            _ => Err(ConfigError::new(setting, "must be a JSON object")),
        }
    }

    fn optional(&mut self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text)),
            Some(_) => Err(ConfigError::new(name, "must be a text that is not empty")),
        }
    }

    fn required(&mut self, name: &'static str) -> Result<String, ConfigError> {
        self.optional(name)?.ok_or(ConfigError::new(name, "is missing"))
    }

    fn list(&mut self, name: &'static str) -> Result<Vec<Value>, ConfigError> {
        match self.0.remove(name) {
            Some(Value::Array(list)) if !list.is_empty() => Ok(list),
            _ => Err(ConfigError::new(name, "must be a list that is not empty")),
        }
    }

    /// A misspelled name would otherwise be a default.
    fn finish(self, setting: &'static str) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::new(setting, "has a member that is not known")) }
    }
}

impl WeChatConfig {
    /// Reads `{"merchant", "app_id", "merchant_serial", "merchant_key", "api_v3_key", "platform_keys": [{"id", "pem"}],
    /// "notify_url"}` and optionally `"base_url"`. Whether the values can be right is seen by
    /// [`WeChatPay::new`](crate::wechat::WeChatPay::new).
    ///
    /// # Errors
    /// The first member that is missing, of another type or not known.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        const SETTING: &str = "WECHAT_PAY";
        let mut members = Members::read(SETTING, text)?;
        let mut platform_keys = vec![];
        for key in members.list("platform_keys")? {
            let Value::Object(key) = key else {
                return Err(ConfigError::new("platform_keys", "must hold objects of id and pem"));
            };
            let mut key = Members(key);
            platform_keys.push(PlatformKey { id: key.required("id")?, pem: key.required("pem")? });
            key.finish("platform_keys")?;
        }
        let config = Self {
            merchant: members.required("merchant")?,
            app_id: members.required("app_id")?,
            merchant_serial: members.required("merchant_serial")?,
            merchant_key: members.required("merchant_key")?,
            api_v3_key: members.required("api_v3_key")?,
            platform_keys,
            notify_url: members.required("notify_url")?,
            base_url: members.optional("base_url")?.unwrap_or_else(|| wechat::BASE_URL.to_owned()),
            patience: Patience::default(),
        };
        members.finish(SETTING)?;
        Ok(config)
    }
}

impl AlipayConfig {
    /// Reads `{"app_id", "seller_id", "app_key", "alipay_keys": ["…"], "notify_url"}` and optionally `"gateway"`. Whether
    /// the values can be right is seen by [`Alipay::new`](crate::alipay::Alipay::new).
    ///
    /// # Errors
    /// The first member that is missing, of another type or not known.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        const SETTING: &str = "ALIPAY";
        let mut members = Members::read(SETTING, text)?;
        let mut alipay_keys = vec![];
        for key in members.list("alipay_keys")? {
            let Value::String(key) = key else { return Err(ConfigError::new("alipay_keys", "must hold texts")) };
            alipay_keys.push(key);
        }
        let config = Self {
            app_id: members.required("app_id")?,
            seller_id: members.required("seller_id")?,
            app_key: members.required("app_key")?,
            alipay_keys,
            notify_url: members.required("notify_url")?,
            gateway: members.optional("gateway")?.unwrap_or_else(|| alipay::GATEWAY.to_owned()),
            patience: Patience::default(),
        };
        members.finish(SETTING)?;
        Ok(config)
    }
}

/// A configuration that may be printed: names of members only.
impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alipay() -> Value {
        json!({"app_id": "1", "seller_id": "2", "app_key": "k", "alipay_keys": ["a"], "notify_url": "https://x.example/n"})
    }

    fn wechat() -> Value {
        json!({
            "merchant": "1", "app_id": "wx1", "merchant_serial": "0A", "merchant_key": "k", "api_v3_key": "v",
            "platform_keys": [{"id": "PUB_KEY_ID_1", "pem": "p"}], "notify_url": "https://x.example/n",
        })
    }

    #[test]
    fn addresses_are_the_vendors_unless_told() {
        assert_eq!(AlipayConfig::from_json(&alipay().to_string()).unwrap().gateway, alipay::GATEWAY);
        let config = WeChatConfig::from_json(&wechat().to_string()).unwrap();
        assert_eq!((config.base_url.as_str(), config.platform_keys.len()), (wechat::BASE_URL, 1));
        let mut other = wechat();
        other["base_url"] = "http://127.0.0.1:1".into();
        assert_eq!(WeChatConfig::from_json(&other.to_string()).unwrap().base_url, "http://127.0.0.1:1");
    }

    #[test]
    fn the_member_at_fault_is_named_and_its_value_is_not() {
        for name in alipay().as_object().unwrap().keys() {
            let mut broken = alipay();
            broken.as_object_mut().unwrap().remove(name);
            assert_eq!(AlipayConfig::from_json(&broken.to_string()).unwrap_err().setting, name);
            broken[name.as_str()] = json!({"secret": 1});
            let error = AlipayConfig::from_json(&broken.to_string()).unwrap_err();
            assert_eq!(error.setting, name);
            assert!(!error.to_string().contains("secret"));
        }
        for name in wechat().as_object().unwrap().keys() {
            let mut broken = wechat();
            broken.as_object_mut().unwrap().remove(name);
            assert_eq!(WeChatConfig::from_json(&broken.to_string()).unwrap_err().setting, name);
        }
        let mut misspelled = wechat();
        misspelled["baseurl"] = "http://127.0.0.1:1".into();
        assert_eq!(WeChatConfig::from_json(&misspelled.to_string()).unwrap_err().setting, "WECHAT_PAY");
        assert_eq!(AlipayConfig::from_json("secret").unwrap_err().to_string(), "ALIPAY: must be a JSON object");
    }
}

//! What the clients are configured with. As JSON, each is what the variable `WECHAT_PAY` or `ALIPAY` holds.

use std::fmt;

use serde::Serialize;

use super::keys::{Keys, NoKeys, secret, serial};

/// A merchant at the double of WeChat Pay.
#[derive(Clone, Serialize)]
pub struct WeChatSettings {
    /// `mchid`.
    pub merchant: String,
    /// `appid`.
    pub app_id: String,
    /// The serial number of the merchant's certificate.
    pub merchant_serial: String,
    /// The merchant's private key, PEM.
    pub merchant_key: String,
    /// 32 characters.
    pub api_v3_key: String,
    /// The public key (first) and the certificate's.
    pub platform_keys: Vec<PlatformKeySettings>,
    /// Where notifications come.
    pub notify_url: String,
    /// Where the double is.
    pub base_url: String,
}

/// A key that WeChat Pay signs with.
#[derive(Clone, Serialize)]
pub struct PlatformKeySettings {
    /// `PUB_KEY_ID_…` or a serial number.
    pub id: String,
    /// The public key, PEM.
    pub pem: String,
}

/// An app at the double of Alipay.
#[derive(Clone, Serialize)]
pub struct AlipaySettings {
    /// `app_id`.
    pub app_id: String,
    /// `seller_id`.
    pub seller_id: String,
    /// The app's private key, PEM.
    pub app_key: String,
    /// Alipay's public key, PEM.
    pub alipay_keys: Vec<String>,
    /// Where notifications come.
    pub notify_url: String,
    /// Where the double is.
    pub gateway: String,
}

impl fmt::Debug for WeChatSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeChatSettings").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl fmt::Debug for PlatformKeySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformKeySettings").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for AlipaySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlipaySettings").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl WeChatSettings {
    /// What the variable `WECHAT_PAY` holds.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl AlipaySettings {
    /// What the variable `ALIPAY` holds.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

pub(super) struct Settings {
    pub(super) wechat: WeChatSettings,
    pub(super) alipay: AlipaySettings,
}

impl Settings {
    pub(super) fn new(keys: &Keys, site: &str, shop: &str) -> Result<Self, NoKeys> {
        let wechat = WeChatSettings {
            merchant: "1900000001".to_owned(),
            app_id: "wx0000000000000001".to_owned(),
            merchant_serial: serial(20)?,
            merchant_key: keys.merchant.private_pem()?,
            api_v3_key: secret(16)?,
            platform_keys: vec![
                PlatformKeySettings { id: format!("PUB_KEY_ID_{}", serial(15)?), pem: keys.wechat.public_pem()? },
                PlatformKeySettings { id: serial(20)?, pem: keys.certificate.public_pem()? },
            ],
            notify_url: format!("{shop}/webhooks/wechat"),
            base_url: format!("{site}/_dev/wechatpay"),
        };
        let alipay = AlipaySettings {
            app_id: "9021000000000001".to_owned(),
            seller_id: "2088000000000001".to_owned(),
            app_key: keys.app.private_pem()?,
            alipay_keys: vec![keys.alipay.public_pem()?],
            notify_url: format!("{shop}/webhooks/alipay"),
            gateway: format!("{site}/_dev/alipay/gateway.do"),
        };
        Ok(Self { wechat, alipay })
    }
}

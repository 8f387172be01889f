//! WeChat Pay, API v3: native orders, which the payer scans. <https://pay.weixin.qq.com/doc/v3/merchant/4012791874>
//!
//! Orders in renminbi for a merchant who signed up directly; service providers have other routes.

mod calls;
mod notify;
mod sign;
mod wire;

use std::{fmt, sync::Arc};

use ::http::Uri;
use tenantry_domain::Clock;

use crate::{error::ConfigError, http::HttpClient, retry::Patience, rsa::SigningKey, rsa::VerifyingKey};

pub use notify::ApiV3Key;
use sign::PlatformKeys;

/// The vendor's own address.
pub const BASE_URL: &str = "https://api.mch.weixin.qq.com";

/// A key that WeChat Pay signs with. Several may be configured: while certificates are replaced by public keys, or by
/// newer certificates, either may have signed.
#[derive(Clone)]
pub struct PlatformKey {
    /// What `Wechatpay-Serial` says: a certificate's serial number, or `PUB_KEY_ID_…`.
    pub id: String,
    /// The public key or the certificate, PEM.
    pub pem: String,
}

/// How to reach WeChat Pay and who we are there.
#[derive(Clone)]
pub struct WeChatConfig {
    /// `mchid`.
    pub merchant: String,
    /// `appid`, bound to the merchant.
    pub app_id: String,
    /// The serial number of the merchant's certificate.
    pub merchant_serial: String,
    /// The private key of that certificate (`apiclient_key.pem`).
    pub merchant_key: String,
    /// The 32 characters that notifications are encrypted with.
    pub api_v3_key: String,
    /// Who may sign; at least one.
    pub platform_keys: Vec<PlatformKey>,
    /// Where notifications are to come, a full URL without a query.
    pub notify_url: String,
    /// [`BASE_URL`], or a double's.
    pub base_url: String,
    /// How long the vendor is waited for.
    pub patience: Patience,
}

impl fmt::Debug for WeChatConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeChatConfig")
            .field("merchant", &self.merchant)
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PlatformKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A merchant at WeChat Pay. Cheap to clone.
#[derive(Clone)]
pub struct WeChatPay(Arc<Inner>);

struct Inner {
    merchant: String,
    app_id: String,
    merchant_serial: String,
    key: SigningKey,
    api_v3_key: ApiV3Key,
    platform: PlatformKeys,
    notify_url: String,
    base_url: String,
    patience: Patience,
    http: HttpClient,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for WeChatPay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeChatPay").field("merchant", &self.0.merchant).finish_non_exhaustive()
    }
}

impl WeChatPay {
    /// Checks and reads the configuration.
    ///
    /// # Errors
    /// The first setting that cannot be right.
    pub fn new(config: WeChatConfig, http: HttpClient, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let word = |setting, text: &str| {
            let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if fits { Ok(()) } else { Err(ConfigError::new(setting, "must be letters and digits")) }
        };
        word("mchid", &config.merchant)?;
        word("appid", &config.app_id)?;
        word("merchant certificate serial", &config.merchant_serial)?;
        let base_url = config.base_url.trim_end_matches('/').to_owned();
        web_address("base URL", &base_url)?;
        web_address("notify URL", &config.notify_url)?;
        let key = SigningKey::parse("merchant key", &config.merchant_key)?;
        let mut platform = Vec::with_capacity(config.platform_keys.len());
        for PlatformKey { id, pem } in config.platform_keys {
            word("platform key id", &id)?;
            let public = VerifyingKey::parse("platform key", &pem)?;
            if public.serial().is_some_and(|serial| !serial.eq_ignore_ascii_case(&id)) {
                return Err(ConfigError::new("platform key id", "is not the serial number of its certificate"));
            }
            if public.is_half_of(&key) {
                return Err(ConfigError::new("platform key", "is the merchant's own; WeChat Pay's is needed"));
            }
            platform.push((id, public));
        }
        Ok(Self(Arc::new(Inner {
            merchant: config.merchant,
            app_id: config.app_id,
            merchant_serial: config.merchant_serial,
            key,
            api_v3_key: ApiV3Key::new(&config.api_v3_key)?,
            platform: PlatformKeys::new(platform)?,
            notify_url: config.notify_url,
            base_url,
            patience: config.patience,
            http,
            clock,
        })))
    }

    /// `mchid`.
    #[must_use]
    pub fn merchant(&self) -> &str {
        &self.0.merchant
    }

    /// `appid`.
    #[must_use]
    pub fn app_id(&self) -> &str {
        &self.0.app_id
    }
}

/// A URL with host and without a query, which both vendors refuse in addresses for notifications.
pub(crate) fn web_address(setting: &'static str, url: &str) -> Result<(), ConfigError> {
    let parsed: Uri = url.parse().map_err(|_| ConfigError::new(setting, "is no URL"))?;
    match parsed.scheme_str() {
        Some("http" | "https") if parsed.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Err(ConfigError::new(setting, "must begin with https:// or http:// and name a host")),
    }
    if parsed.query().is_some() || url.contains('#') {
        return Err(ConfigError::new(setting, "must have no query and no fragment"));
    }
    Ok(())
}

//! Alipay's open platform: QR codes (`alipay.trade.precreate`) and its page (`alipay.trade.page.pay`).
//! <https://opendocs.alipay.com/open/194/105072>
//!
//! Keys in "public key mode": signatures carry no certificate numbers.

mod calls;
mod gateway;
mod notify;
mod sign;

use std::{fmt, sync::Arc};

use tenantry_domain::Clock;

use crate::{
    error::ConfigError,
    http::HttpClient,
    retry::Patience,
    rsa::{SigningKey, VerifyingKey},
    wechat::web_address,
};

/// The vendor's own gateway.
pub const GATEWAY: &str = "https://openapi.alipay.com/gateway.do";

/// How to reach Alipay and who we are there.
#[derive(Clone)]
pub struct AlipayConfig {
    /// `app_id`.
    pub app_id: String,
    /// `seller_id`, the merchant's PID: 16 digits that begin with 2088.
    pub seller_id: String,
    /// The app's private key.
    pub app_key: String,
    /// Alipay's public keys ("支付宝公钥", not the app's own); more than one while they change.
    pub alipay_keys: Vec<String>,
    /// Where notifications are to come, a full URL without a query.
    pub notify_url: String,
    /// [`GATEWAY`], or a double's.
    pub gateway: String,
    /// How long the vendor is waited for.
    pub patience: Patience,
}

impl fmt::Debug for AlipayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlipayConfig").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

/// An app at Alipay. Cheap to clone.
#[derive(Clone)]
pub struct Alipay(Arc<Inner>);

struct Inner {
    app_id: String,
    seller_id: String,
    key: SigningKey,
    alipay_keys: Vec<VerifyingKey>,
    notify_url: String,
    gateway: String,
    patience: Patience,
    http: HttpClient,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Alipay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alipay").field("app_id", &self.0.app_id).finish_non_exhaustive()
    }
}

impl Alipay {
    /// Checks and reads the configuration.
    ///
    /// # Errors
    /// The first setting that cannot be right.
    pub fn new(config: AlipayConfig, http: HttpClient, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let digits = |setting, text: &str| {
            let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if fits { Ok(()) } else { Err(ConfigError::new(setting, "must be digits")) }
        };
        digits("app_id", &config.app_id)?;
        digits("seller_id", &config.seller_id)?;
        web_address("gateway", &config.gateway)?;
        web_address("notify URL", &config.notify_url)?;
        let key = SigningKey::parse("app key", &config.app_key)?;
        let mut alipay_keys = Vec::with_capacity(config.alipay_keys.len());
        for text in &config.alipay_keys {
            let public = VerifyingKey::parse("Alipay's key", text)?;
            if public.is_half_of(&key) {
                return Err(ConfigError::new("Alipay's key", "is the app's own; Alipay's is needed"));
            }
            alipay_keys.push(public);
        }
        if alipay_keys.is_empty() {
            return Err(ConfigError::new("Alipay's key", "is missing: nothing it says could be believed"));
        }
        Ok(Self(Arc::new(Inner {
            app_id: config.app_id,
            seller_id: config.seller_id,
            key,
            alipay_keys,
            notify_url: config.notify_url,
            gateway: config.gateway,
            patience: config.patience,
            http,
            clock,
        })))
    }

    /// `app_id`.
    #[must_use]
    pub fn app_id(&self) -> &str {
        &self.0.app_id
    }

    /// `seller_id`.
    #[must_use]
    pub fn merchant(&self) -> &str {
        &self.0.seller_id
    }
}

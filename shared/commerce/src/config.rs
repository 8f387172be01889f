//! The vendors that a deployment has, from its environment: `docs/configuration.md`.

use std::sync::Arc;

use tenantry_domain::Millis;
use tenantry_payments::{
    HttpClient, Payment,
    alipay::{Alipay, AlipayConfig},
    stripe::{BASE_URL, Stripe, StripeSettings},
    wechat::{WeChatConfig, WeChatPay},
};
use tenantry_store::Store;
use tenantry_web::config::{ConfigError, Env};

use crate::Commerce;

const DAY: Millis = 24 * 3_600_000;

/// The longest grace: by then the next invoice is due.
const MOST_GRACE_DAYS: Millis = 28;

impl Commerce {
    /// With the vendors that are configured: Stripe by `STRIPE_SECRET_KEY`, `STRIPE_WEBHOOK_SECRETS` (the current one and,
    /// while it is rotated, the one before; separated by commas), `STRIPE_BASE_URL` and `STRIPE_AUTOMATIC_TAX`; WeChat Pay
    /// by `WECHAT_PAY` and Alipay by `ALIPAY`, a JSON object each. `PAYMENT_GRACE_DAYS` is how long a plan stays when a
    /// payment is late.
    ///
    /// # Errors
    /// [`ConfigError`] for the first variable that is wrong. None has a value of a secret in it.
    pub fn from_env(env: &Env, store: Store) -> Result<Self, ConfigError> {
        let clock = store.clock();
        let mut commerce = Self::new(store).with_grace(grace(env)?);
        if let Some(key) = env.optional("STRIPE_SECRET_KEY") {
            let secrets = env.optional("STRIPE_WEBHOOK_SECRETS").unwrap_or_default().split(',');
            let secrets = secrets.map(str::trim).filter(|secret| !secret.is_empty()).map(str::to_owned).collect();
            let mut settings = StripeSettings::new(key, secrets);
            env.optional("STRIPE_BASE_URL").unwrap_or(BASE_URL).clone_into(&mut settings.base_url);
            let stripe = Stripe::new(settings).map_err(|error| ConfigError::new("STRIPE_SECRET_KEY", error))?;
            commerce = commerce.with_stripe(stripe, env.parsed("STRIPE_AUTOMATIC_TAX", false)?);
        }
        let http = HttpClient::new();
        if let Some(text) = env.optional("WECHAT_PAY") {
            let wrong = |error| ConfigError::new("WECHAT_PAY", error);
            let config = WeChatConfig::from_json(text).map_err(wrong)?;
            let wechat = WeChatPay::new(config, http.clone(), Arc::clone(&clock)).map_err(wrong)?;
            commerce = commerce.with_payment(Payment::WeChat(wechat));
        }
        if let Some(text) = env.optional("ALIPAY") {
            let wrong = |error| ConfigError::new("ALIPAY", error);
            let config = AlipayConfig::from_json(text).map_err(wrong)?;
            let alipay = Alipay::new(config, http, clock).map_err(wrong)?;
            commerce = commerce.with_payment(Payment::Alipay(alipay));
        }
        Ok(commerce)
    }
}

fn grace(env: &Env) -> Result<Millis, ConfigError> {
    const NAME: &str = "PAYMENT_GRACE_DAYS";
    let days: Millis = env.parsed(NAME, crate::DEFAULT_GRACE / DAY)?;
    if (0..=MOST_GRACE_DAYS).contains(&days) {
        Ok(days * DAY)
    } else {
        Err(ConfigError::new(NAME, format!("must be 0 to {MOST_GRACE_DAYS}")))
    }
}

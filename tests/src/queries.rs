//! What is asked of the database: a store over a platform's data whose queries are written down, and fail when a test
//! wants them to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use aws_sdk_dynamodb::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef, retry::RetryConfig,
    },
    error::BoxError,
};
use axum::Router;
use serde_json::Value;
use tenantry_store::Store;
use tenantry_web::auth::{Authenticator, SigningKey, TokenVerifier};

use crate::platform::Platform;

/// A stretch of a partition that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// First sort key.
    pub from: String,
    /// Last sort key.
    pub to: String,
    /// Items at most.
    pub limit: u64,
}

/// The queries so far.
#[derive(Debug, Clone)]
pub struct Queries {
    asked: Arc<Mutex<Vec<Asked>>>,
    /// How many more are let through.
    left: Arc<AtomicUsize>,
}

impl Default for Queries {
    fn default() -> Self {
        Self { asked: Arc::default(), left: Arc::new(AtomicUsize::new(usize::MAX)) }
    }
}

impl Queries {
    /// The routes of `usage` over the data of `platform`, which these are the queries of.
    pub fn usage(&self, platform: &Platform) -> Router {
        usage(platform, self.clone(), RetryConfig::disabled())
    }

    /// A store over the data of `platform`, which these are the queries of.
    #[must_use]
    pub fn store(&self, platform: &Platform) -> Store {
        store(platform, self.clone(), RetryConfig::disabled())
    }

    /// Lets `number` more queries through, and no other.
    pub fn fail_after(&self, number: usize) {
        self.left.store(number, Ordering::SeqCst);
    }

    /// What was asked for.
    ///
    /// # Panics
    /// When a test's thread has panicked.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("a lock").clone()
    }

    /// How often something was asked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.asked().len()
    }
}

/// A store over the data of `platform`, with `intercept` on the way to them.
fn store(platform: &Platform, intercept: impl Intercept + 'static, retry: RetryConfig) -> Store {
    let client = platform.host().database();
    let config = client.config().to_builder().interceptor(intercept).retry_config(retry).build();
    let store = platform.store();
    Store::new(Client::from_conf(config), tenantry_host::TABLE, store.plans().clone(), store.clock())
}

/// The routes of `usage` over the data of `platform`, with `intercept` on the way to the database. They take API keys.
///
/// # Panics
/// When no keys can be made.
pub fn usage(platform: &Platform, intercept: impl Intercept + 'static, retry: RetryConfig) -> Router {
    let store = store(platform, intercept, retry);
    let key = SigningKey::from_pkcs8(&SigningKey::generate().expect("randomness"), "queries").expect("a key");
    let tokens = Arc::new(TokenVerifier::from_jwks(&key.jwks(), "queries").expect("keys"));
    let authenticator = Authenticator { store: store.clone(), tokens };
    tenantry_usage::router(tenantry_usage::State::new(store, authenticator, &[3; 32]))
}

impl Intercept for Queries {
    fn name(&self) -> &'static str {
        "Queries"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        if !request.headers().get("x-amz-target").unwrap_or_default().ends_with(".Query") {
            return Ok(());
        }
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap_or_default())?;
        let value = |name: &str| body["ExpressionAttributeValues"][name]["S"].as_str().unwrap_or_default().to_owned();
        let limit = body["Limit"].as_u64().unwrap_or(u64::MAX);
        self.asked.lock().expect("a lock").push(Asked { from: value(":from"), to: value(":to"), limit });
        let spend = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).map_err(|_| "the database is away")?;
        Ok(())
    }
}

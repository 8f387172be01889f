//! The environment, read once into one typed struct per function.

use std::{
    collections::HashMap,
    fmt::{self, Display},
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::queue::SqsQueue;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_types::SdkConfig;
use tenantry_domain::{
    Clock, SystemClock,
    catalogue::{Catalogue, DEFAULT_CATALOGUE},
    plans::{DEFAULT_PLANS, Plans},
};
use tenantry_store::Store;

/// A variable that is missing or wrong. The text names it and says what is expected.
#[derive(Debug, Clone, thiserror::Error)]
#[error("environment variable {name}: {why}")]
pub struct ConfigError {
    name: String,
    why: String,
}

impl ConfigError {
    /// `name` is wrong, because of `why`.
    pub fn new(name: &str, why: impl Display) -> Self {
        Self { name: name.to_owned(), why: why.to_string() }
    }
}

/// The variables of the process, or those a test made up, and with them the way to AWS. Cheap to clone.
#[derive(Clone, Default)]
pub struct Env {
    variables: Arc<HashMap<String, String>>,
    /// Region, credentials and endpoint: looked up once, for the clients of all services.
    aws: Arc<OnceLock<SdkConfig>>,
}

impl fmt::Debug for Env {
    /// Names only: some values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Env {
    /// The variables of this process.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn process() -> Self {
        std::env::vars().collect()
    }

    /// The variable, if it is set to something.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The variable.
    ///
    /// # Errors
    /// When it is not set.
    pub fn required(&self, name: &str) -> Result<&str, ConfigError> {
        self.optional(name).ok_or_else(|| ConfigError::new(name, "is not set"))
    }

    /// The variable as a `T`, or `default` when it is not set.
    ///
    /// # Errors
    /// When it is set to something else.
    pub fn parsed<T: FromStr>(&self, name: &str, default: T) -> Result<T, ConfigError>
    where
        T::Err: Display,
    {
        match self.optional(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|error| ConfigError::new(name, format!("`{text}`: {error}"))),
        }
    }
}

impl Env {
    /// The same with values for variables that are not set.
    #[must_use]
    pub fn with_defaults<const N: usize>(mut self, defaults: [(&str, &str); N]) -> Self {
        let variables = Arc::make_mut(&mut self.variables);
        for (name, value) in defaults {
            variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        self
    }

    /// The same with `variables` laid over it.
    #[must_use]
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Arc::make_mut(&mut self.variables).extend(variables);
        self
    }

    /// The way to AWS: from the variables when first asked for, and the same from then on.
    pub fn aws(&self) -> &SdkConfig {
        self.aws.get_or_init(|| aws(self))
    }
}

/// What the SDK's own loader makes of the variables that a function has. That loader also brings with it all other sources
/// of credentials, a tenth of a function's code (`docs/adr/0009-credentials-from-the-environment.md`).
fn aws(env: &Env) -> SdkConfig {
    // A request that AWS leaves hanging is worth less than a second one; no timeout is the default.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(2))
        .operation_timeout(Duration::from_secs(6))
        .build();
    let variable = |name| env.optional(name).map(str::to_owned);
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).map(Region::new))
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts);
    config.set_endpoint_url(variable("AWS_ENDPOINT_URL"));
    if let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        // They do not expire before Lambda replaces the process.
        let credentials = Credentials::new(id, secret, variable("AWS_SESSION_TOKEN"), None, "environment");
        config.set_credentials_provider(Some(SharedCredentialsProvider::new(credentials)));
    }
    config.build()
}

impl FromIterator<(String, String)> for Env {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: Arc::new(variables.into_iter().collect()), aws: Arc::default() }
    }
}

/// The store of a function on AWS: the table that `TABLE_NAME` names, plans from `PLANS_TOML` if given.
///
/// # Errors
/// [`ConfigError`].
pub fn store(env: &Env) -> Result<Store, ConfigError> {
    let table = env.required("TABLE_NAME")?;
    let plans = Plans::parse(env.optional("PLANS_TOML").unwrap_or(DEFAULT_PLANS))
        .map_err(|error| ConfigError::new("PLANS_TOML", error))?;
    Ok(Store::new(aws_sdk_dynamodb::Client::new(env.aws()), table, plans, Arc::new(SystemClock) as Arc<dyn Clock>))
}

/// The queue whose URL stands in the variable `name`.
///
/// # Errors
/// [`ConfigError`].
pub fn queue(env: &Env, name: &str) -> Result<SqsQueue, ConfigError> {
    let url = env.required(name)?;
    Ok(SqsQueue::new(aws_sdk_sqs::Client::new(env.aws()), url))
}

/// The model catalogue: `CATALOGUE_TOML`, or the default.
///
/// # Errors
/// [`ConfigError`].
pub fn catalogue(env: &Env) -> Result<Catalogue, ConfigError> {
    Catalogue::parse(env.optional("CATALOGUE_TOML").unwrap_or(DEFAULT_CATALOGUE))
        .map_err(|error| ConfigError::new("CATALOGUE_TOML", error))
}

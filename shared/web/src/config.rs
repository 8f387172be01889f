//! The environment, read once into one typed struct per function.

use std::{
    collections::HashMap,
    fmt::{self, Display},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use aws_config::{BehaviorVersion, SdkConfig, timeout::TimeoutConfig};
use tenantry_domain::{
    Clock, SystemClock,
    catalogue::{Catalogue, DEFAULT_CATALOGUE},
    plans::{DEFAULT_PLANS, Plans},
};
use tenantry_store::Store;
use tokio::sync::OnceCell;

use crate::queue::SqsQueue;

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
    aws: Arc<OnceCell<SdkConfig>>,
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

    /// The same with a way to AWS of its own.
    #[must_use]
    pub fn with_aws(self, aws: SdkConfig) -> Self {
        Self { aws: Arc::new(OnceCell::new_with(Some(aws))), ..self }
    }

    /// The way to AWS: from the process when first asked for, and the same from then on.
    pub async fn aws(&self) -> &SdkConfig {
        // A request that AWS leaves hanging is worth less than a second one; no timeout is the default.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(2))
            .operation_timeout(Duration::from_secs(6))
            .build();
        let load = || aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts).load();
        self.aws.get_or_init(load).await
    }
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
pub async fn store(env: &Env) -> Result<Store, ConfigError> {
    let table = env.required("TABLE_NAME")?;
    let plans = Plans::parse(env.optional("PLANS_TOML").unwrap_or(DEFAULT_PLANS))
        .map_err(|error| ConfigError::new("PLANS_TOML", error))?;
    Ok(Store::new(
        aws_sdk_dynamodb::Client::new(env.aws().await),
        table,
        plans,
        Arc::new(SystemClock) as Arc<dyn Clock>,
    ))
}

/// The queue whose URL stands in the variable `name`.
///
/// # Errors
/// [`ConfigError`].
pub async fn queue(env: &Env, name: &str) -> Result<SqsQueue, ConfigError> {
    let url = env.required(name)?;
    Ok(SqsQueue::new(aws_sdk_sqs::Client::new(env.aws().await), url))
}

/// The model catalogue: `CATALOGUE_TOML`, or the default.
///
/// # Errors
/// [`ConfigError`].
pub fn catalogue(env: &Env) -> Result<Catalogue, ConfigError> {
    Catalogue::parse(env.optional("CATALOGUE_TOML").unwrap_or(DEFAULT_CATALOGUE))
        .map_err(|error| ConfigError::new("CATALOGUE_TOML", error))
}

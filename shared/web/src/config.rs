//! The environment, read once into one typed struct per function.

use std::{collections::HashMap, fmt::Display, str::FromStr, sync::Arc};

use tenantry_domain::{
    Clock, SystemClock,
    catalogue::{Catalogue, DEFAULT_CATALOGUE},
    plans::{DEFAULT_PLANS, Plans},
};
use tenantry_store::Store;

/// A variable that is missing or wrong. The text names it and says what is expected.
#[derive(Debug, thiserror::Error)]
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

/// The variables of the process, or those a test made up.
#[derive(Debug, Clone, Default)]
pub struct Env(Arc<HashMap<String, String>>);

impl Env {
    /// The variables of this process.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn process() -> Self {
        Self(Arc::new(std::env::vars().collect()))
    }

    /// The variable, if it is set to something.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
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
        let variables = Arc::make_mut(&mut self.0);
        for (name, value) in defaults {
            variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        self
    }
}

impl FromIterator<(String, String)> for Env {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(Arc::new(variables.into_iter().collect()))
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
    let aws = aws_config::defaults(aws_sdk_dynamodb::config::BehaviorVersion::v2026_01_12()).load().await;
    Ok(Store::new(aws_sdk_dynamodb::Client::new(&aws), table, plans, Arc::new(SystemClock) as Arc<dyn Clock>))
}

/// The model catalogue: `CATALOGUE_TOML`, or the default.
///
/// # Errors
/// [`ConfigError`].
pub fn catalogue(env: &Env) -> Result<Catalogue, ConfigError> {
    Catalogue::parse(env.optional("CATALOGUE_TOML").unwrap_or(DEFAULT_CATALOGUE))
        .map_err(|error| ConfigError::new("CATALOGUE_TOML", error))
}

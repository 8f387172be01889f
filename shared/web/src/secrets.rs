//! Variables that are kept in AWS Secrets Manager and laid over the environment.
//!
//! Nothing is kept from a fetch that failed, so a secret that was mended counts from the next request on.
//! No error has a value in it: they go to the log.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_secretsmanager::{Client, config::timeout::TimeoutConfig, error::DisplayErrorContext};
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::config::Env;

/// Variable with the ids or ARNs of the secrets, separated by commas.
const SECRET_IDS: &str = "SECRET_IDS";

/// How long a fetch may take with all its tries: the first caller waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A secret that cannot be used. The text names it and, where one is to blame, the variable.
#[derive(Debug, thiserror::Error)]
#[error("secret {secret}: {why}")]
pub struct SecretsError {
    secret: String,
    why: String,
}

impl SecretsError {
    fn new(secret: &str, why: impl ToString) -> Self {
        Self { secret: secret.to_owned(), why: why.to_string() }
    }
}

/// `env` with the variables of the secrets that `SECRET_IDS` names; as it is when it names none.
///
/// # Errors
/// [`SecretsError`], also when two secrets have the same variable: which one counts would be a guess.
pub async fn overlay(env: &Env) -> Result<Env, SecretsError> {
    let ids = env.optional(SECRET_IDS).unwrap_or_default();
    let ids: Vec<_> = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    if ids.is_empty() {
        return Ok(env.clone());
    }
    let config = aws_sdk_secretsmanager::config::Builder::from(env.aws())
        .timeout_config(TimeoutConfig::builder().operation_timeout(PATIENCE).build())
        .build();
    let client = Client::from_conf(config);
    let secrets = try_join_all(ids.into_iter().map(|id| fetch(&client, id))).await?;
    let mut from: BTreeMap<String, &str> = BTreeMap::new();
    let mut variables = vec![];
    for (id, secret) in &secrets {
        for (name, value) in secret {
            if let Some(other) = from.insert(name.clone(), id) {
                return Err(SecretsError::new(id, format!("variable {name} stands in {other} as well")));
            }
            variables.push((name.clone(), value.clone()));
        }
    }
    Ok(env.clone().with(variables))
}

async fn fetch<'a>(client: &Client, id: &'a str) -> Result<(&'a str, BTreeMap<String, String>), SecretsError> {
    let answer = client.get_secret_value().secret_id(id).send().await;
    let answer = answer.map_err(|error| SecretsError::new(id, DisplayErrorContext(error)))?;
    let text = answer.secret_string().ok_or_else(|| SecretsError::new(id, "is not text"))?;
    Ok((id, parse(id, text)?))
}

/// A JSON object of strings. The parser's own messages are left out: they quote what they read.
fn parse(id: &str, text: &str) -> Result<BTreeMap<String, String>, SecretsError> {
    let Ok(Value::Object(members)) = serde_json::from_str(text) else {
        return Err(SecretsError::new(id, "is not a JSON object"));
    };
    let variable = |(name, value)| match value {
        Value::String(value) => Ok((name, value)),
        _ => Err(SecretsError::new(id, format!("variable {name} is not a string"))),
    };
    members.into_iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn errors_name_secret_and_variable_but_no_value() {
        assert_eq!(parse("s", r#"{"A":"1","B":""}"#).unwrap().len(), 2);
        for (text, says) in [
            (r#""hunter2""#, "secret s: is not a JSON object"),
            (r#"{"A":"hunter2"#, "secret s: is not a JSON object"),
            (r#"["hunter2"]"#, "secret s: is not a JSON object"),
            (r#"{"KEY":{"hunter2":"x"}}"#, "secret s: variable KEY is not a string"),
            (r#"{"KEY":4242}"#, "secret s: variable KEY is not a string"),
        ] {
            let error = parse("s", text).unwrap_err();
            assert_eq!(error.to_string(), says);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}

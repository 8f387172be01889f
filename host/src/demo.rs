//! The demo organization: what a newcomer makes the first call with.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tenantry_auth::register_user;
use tenantry_domain::{KeyId, roles::KeyScope, secret::ApiKeySecret};
use tenantry_store::{NewApiKey, TenantScope};

use crate::{
    HostError, Platform,
    secrets::{private_folder, write_private},
};

/// The plan of the demo organization, so that trying things out is not throttled.
const PLAN: &str = "team";

/// `<data-dir>/dev.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demo {
    /// For SDKs; ends in `/api/v1`.
    pub base_url: String,
    /// A key of the organization.
    pub api_key: String,
    /// The owner's address.
    pub email: String,
    /// The owner's password.
    pub password: String,
    /// The organization.
    pub organization_id: String,
}

/// The demo organization: on disk the one that this folder's data has had since its first start, in memory
/// a new one. `dev.json` is that of the platform that started last.
///
/// # Errors
/// [`HostError`].
pub async fn prepare(platform: &Platform, folder: &Path, in_memory: bool, base_url: &str) -> Result<Demo, HostError> {
    let kept = folder.join("demo.json");
    let stored = if in_memory { None } else { fs::read_to_string(&kept).ok() };
    let stored = stored.and_then(|text| serde_json::from_str::<Demo>(&text).ok());
    let mut demo = match stored {
        Some(demo) if is_known(platform, &demo).await? => demo,
        _ => create(platform).await?,
    };
    base_url.clone_into(&mut demo.base_url);
    private_folder(folder)?;
    let text = serde_json::to_string_pretty(&demo).map_err(|error| HostError::data(folder, error))? + "\n";
    if !in_memory {
        write_private(&kept, &text)?;
    }
    write_private(&folder.join("dev.json"), &text)?;
    Ok(demo)
}

async fn is_known(platform: &Platform, demo: &Demo) -> Result<bool, HostError> {
    let Some(secret) = ApiKeySecret::parse(&demo.api_key) else { return Ok(false) };
    Ok(platform.store().api_key_by_secret(&secret).await?.is_some())
}

async fn create(platform: &Platform) -> Result<Demo, HostError> {
    let failed = |error: &dyn std::fmt::Debug| HostError::Demo(format!("{error:?}"));
    let store = platform.store();
    let secret = ApiKeySecret::generate().map_err(|error| failed(&error))?;
    // A password nobody can guess, made of the same randomness as a key.
    let password = ApiKeySecret::generate().map_err(|error| failed(&error))?.expose()[8..28].to_owned();
    let plan = store.plans().get(PLAN).clone();
    let mut email = "demo@example.com".to_owned();
    let registered = loop {
        let registered =
            register_user(store, platform.hasher(), &email, &password, Some("Demo"), Some("Demo"), &plan).await;
        match registered.map_err(|error| failed(&error))? {
            Some(registered) => break registered,
            // An earlier demo whose demo.json is gone.
            None => email = format!("demo-{}@example.com", KeyId::new().short()),
        }
    };
    let (user, org) = registered;
    #[allow(clippy::disallowed_methods, reason = "the organization was made a moment ago, by us")]
    let scope = TenantScope::authenticated(org.clone());
    let new = NewApiKey {
        id: &KeyId::new(),
        name: "demo",
        secret: &secret,
        scopes: KeyScope::ALL.into_iter().collect(),
        expires_at: None,
        budgets: tenantry_domain::budget::Budgets::default(),
        created_by: &user.id,
    };
    let key = store.create_api_key(&scope, &new, plan.limits.keys, None).await?;
    key.ok_or_else(|| HostError::Demo("the plan allows no keys".into()))?;
    Ok(Demo {
        base_url: String::new(),
        api_key: secret.expose().to_owned(),
        email,
        password,
        organization_id: org.to_string(),
    })
}

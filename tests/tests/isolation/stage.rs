//! Two tenants who have the same things. One calls; the other's things carry a word that must never come out.

use serde_json::{Value, json};
use tenantry_domain::{KeyId, OrgId, SessionId};
use tenantry_tests::{
    http::text,
    platform::{Platform, Setup, Tenant},
};

use crate::slots::Kind;

/// Stands in every text of the other tenant's.
pub(crate) const CANARY: &str = "canary-of-another-tenant";

/// Whose an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Own,
    /// Another tenant's.
    Foreign,
    /// The caller's, once.
    Gone,
    Nobodys,
}

/// Who asks.
pub(crate) struct Caller {
    pub(crate) name: &'static str,
    /// None when empty.
    pub(crate) credential: String,
}

pub(crate) struct Stage {
    pub(crate) platform: Platform,
    pub(crate) own: Tenant,
    /// The owner first.
    pub(crate) callers: Vec<Caller>,
    foreign: Tenant,
    /// The foreign owner's access token.
    pub(crate) other: String,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let platform = Platform::start(Setup::default()).await;
        let (own, foreign) = (platform.tenant("team").await, platform.tenant("team").await);
        let owner = token(&platform.login(&own).await);
        let other = token(&platform.login(&foreign).await);
        for number in 0..3 {
            let name = json!({"name": format!("{CANARY} {number}")});
            platform.post("/api/v1/api-keys", &other, name).await.expect(201);
            platform.login(&foreign).await;
            platform.chat(&foreign.api_key, CANARY).await.expect(200);
        }
        platform.chat(&own.api_key, "Hello").await.expect(200);
        platform.quiesce().await;
        let callers = vec![
            Caller { name: "an owner", credential: owner },
            Caller { name: "a program", credential: own.api_key.clone() },
            Caller { name: "nobody", credential: String::new() },
        ];
        Self { platform, own, callers, foreign, other }
    }

    /// An id of this kind. Those that are the caller's own, or were, are new each time: what is done with
    /// them changes them.
    pub(crate) async fn id(&self, kind: Kind, whose: Whose) -> String {
        let owner = &self.callers[0].credential;
        match (kind, whose) {
            (Kind::Organization, Whose::Own) => self.own.org.to_string(),
            (Kind::Organization, Whose::Foreign) => self.foreign.org.to_string(),
            (Kind::Organization, Whose::Gone | Whose::Nobodys) => OrgId::new().to_string(),
            (Kind::ApiKey, Whose::Own) => self.new_key(owner).await,
            (Kind::ApiKey, Whose::Foreign) => self.foreign.key.to_string(),
            (Kind::ApiKey, Whose::Gone) => {
                let id = self.new_key(owner).await;
                self.platform.delete(&format!("/api/v1/api-keys/{id}"), owner).await.expect(204);
                id
            }
            (Kind::ApiKey, Whose::Nobodys) => KeyId::new().to_string(),
            (Kind::Session, Whose::Own) => self.new_session(&self.own).await,
            (Kind::Session, Whose::Foreign) => self.new_session(&self.foreign).await,
            (Kind::Session, Whose::Gone) => {
                let id = self.new_session(&self.own).await;
                self.platform.delete(&format!("/api/v1/auth/sessions/{id}"), owner).await.expect(204);
                id
            }
            (Kind::Session, Whose::Nobodys) => SessionId::new().to_string(),
        }
    }

    async fn new_key(&self, owner: &str) -> String {
        let key = self.platform.post("/api/v1/api-keys", owner, json!({"name": "new"})).await.expect(201).json();
        text(&key, "/id").to_owned()
    }

    async fn new_session(&self, tenant: &Tenant) -> String {
        let token = token(&self.platform.login(tenant).await);
        let sessions = self.platform.get("/api/v1/auth/sessions?limit=100", &token).await.expect(200).json();
        let sessions = sessions["data"].as_array().unwrap();
        let current = sessions.iter().find(|session| session["current"] == true).unwrap();
        text(current, "/id").to_owned()
    }

    /// What must never be shown.
    pub(crate) fn foreign_ids(&self) -> [String; 3] {
        [self.foreign.org.to_string(), self.foreign.user.to_string(), self.foreign.key.to_string()]
    }

    /// Whether the other tenant still has all it had.
    pub(crate) async fn other_is_whole(&self) -> bool {
        let list = async |path: &str| self.platform.get(path, &self.other).await.expect(200).json();
        let keys = list("/api/v1/api-keys?limit=100").await;
        let sessions = list("/api/v1/auth/sessions?limit=100").await;
        let count = |list: &Value| list["data"].as_array().map_or(0, Vec::len);
        // Four keys were made, and the sessions of three sign-ins and more.
        count(&keys) == 4
            && count(&sessions) > 4
            && self.platform.chat(&self.foreign.api_key, "Hello").await.status.is_success()
    }
}

fn token(tokens: &Value) -> String {
    text(tokens, "/access_token").to_owned()
}

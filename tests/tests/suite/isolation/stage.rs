//! Two tenants who have the same things. One calls; the other's things carry a word that must never come out.

use serde_json::{Value, json};
use tenantry_domain::{InviteId, KeyId, OrderId, OrgId, SessionId, UserId};
use tenantry_tests::{
    http::text,
    platform::{Platform, Setup, Tenant},
    upstream::Upstream,
};

use super::slots::{Kind, Slot};

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
    /// The vendor that answers for as long as this lives.
    _upstream: Upstream,
    pub(crate) own: Tenant,
    /// The owner first.
    pub(crate) callers: Vec<Caller>,
    pub(crate) foreign: Tenant,
    /// The foreign owner's access token.
    pub(crate) other: String,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let upstream = Upstream::start().await;
        let platform = Platform::start(Setup::default().upstream(&upstream)).await;
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
        let program = own.api_key.clone();
        let named = |name, credential| Caller { name, credential };
        let mut stage =
            Self { platform, _upstream: upstream, own, callers: vec![named("an owner", owner)], foreign, other };
        stage.fill_the_other().await;
        for (name, role) in [("an admin", "admin"), ("a member", "member")] {
            let token = stage.join(&stage.own, &stage.callers[0].credential, role).await.token;
            stage.callers.push(named(name, token));
        }
        stage.callers.extend([named("a program", program), named("nobody", String::new())]);
        stage
    }

    /// One of everything, named by the canary.
    async fn fill_the_other(&self) {
        let owner = &self.other;
        let name = json!({"name": CANARY});
        let path = format!("/api/v1/organizations/{}", self.foreign.org);
        self.platform.call(http::Method::PATCH, &path, owner, name).await.expect(200);
        let user = json!({"username": "foreign-user", "display_name": CANARY});
        self.platform.post("/api/v1/tenant-users", owner, user).await.expect(201);
        self.join(&self.foreign, owner, "member").await;
        self.invite(&self.foreign, owner, "member", &format!("{CANARY}@example.com")).await;
    }

    async fn invite(&self, tenant: &Tenant, owner: &str, role: &str, email: &str) -> Value {
        let path = format!("/api/v1/organizations/{}/members", tenant.org);
        self.platform.post(&path, owner, json!({"email": email, "role": role})).await.expect(201).json()
    }

    /// Somebody new comes to belong to the organization, and acts for it.
    async fn join(&self, tenant: &Tenant, owner: &str, role: &str) -> Joined {
        let email = format!("{}@example.com", UserId::new().short());
        let person = self.platform.register(&email).await;
        self.invite(tenant, owner, role, &email).await;
        self.platform.quiesce().await;
        let inbox = self.platform.get("/_dev/inbox.json", "").await.expect(200).json();
        let mails = inbox["data"].as_array().unwrap().iter();
        let mail =
            mails.filter(|mail| mail["to"] == *email).find(|mail| mail.to_string().contains("accept-invite")).unwrap();
        let invite = json!({"token": text(mail, "/links/0/token")});
        self.platform.post("/api/v1/invites/accept", &token(&person), invite).await.expect(200);
        let switched = json!({"organization_id": tenant.org});
        let switched = self.platform.post("/api/v1/auth/switch", &token(&person), switched).await.expect(200).json();
        Joined { user: text(&person, "/user/id").to_owned(), token: token(&switched) }
    }

    /// The ids that stand beside the one that is asked for: the caller's own, or the path would end early.
    pub(crate) async fn beside(&self, slot: &Slot) -> Vec<String> {
        let mut ids = vec![];
        for (_, kind) in &slot.beside {
            ids.push(self.id(*kind, Whose::Own).await);
        }
        ids
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
            (Kind::Member, Whose::Own) => self.join(&self.own, owner, "member").await.user,
            (Kind::Member, Whose::Foreign) => self.foreign.user.to_string(),
            (Kind::Member, Whose::Gone) => {
                let id = self.join(&self.own, owner, "member").await.user;
                self.platform.delete(&format!("{}/members/{id}", self.path()), owner).await.expect(204);
                id
            }
            (Kind::Member, Whose::Nobodys) => UserId::new().to_string(),
            (Kind::Invite, Whose::Own) => self.new_invite(&self.own, owner).await,
            (Kind::Invite, Whose::Foreign) => self.new_invite(&self.foreign, &self.other).await,
            (Kind::Invite, Whose::Gone) => {
                let id = self.new_invite(&self.own, owner).await;
                self.platform.delete(&format!("{}/invites/{id}", self.path()), owner).await.expect(204);
                id
            }
            (Kind::Invite, Whose::Nobodys) => InviteId::new().to_string(),
            (Kind::TenantUser, Whose::Own) => self.new_tenant_user(owner).await,
            (Kind::TenantUser, Whose::Foreign) => "foreign-user".to_owned(),
            (Kind::TenantUser, Whose::Gone) => {
                let name = self.new_tenant_user(owner).await;
                self.platform.delete(&format!("/api/v1/tenant-users/{name}"), owner).await.expect(204);
                name
            }
            (Kind::Order, Whose::Own) => self.new_order(owner).await,
            (Kind::Order, Whose::Foreign) => self.new_order(&self.other).await,
            // None is ever deleted.
            (Kind::Order, Whose::Gone | Whose::Nobodys) => OrderId::new().to_string(),
            (Kind::TenantUser, Whose::Nobodys) => format!("user-{}", UserId::new().short()),
        }
    }

    async fn new_key(&self, owner: &str) -> String {
        let key = self.platform.post("/api/v1/api-keys", owner, json!({"name": "new"})).await.expect(201).json();
        text(&key, "/id").to_owned()
    }

    async fn new_order(&self, owner: &str) -> String {
        let (path, body) = ("/api/v1/billing/packages/small/checkout", json!({"provider": "stripe"}));
        text(&self.platform.post(path, owner, body).await.expect(201).json(), "/id").to_owned()
    }

    fn path(&self) -> String {
        format!("/api/v1/organizations/{}", self.own.org)
    }

    async fn new_invite(&self, tenant: &Tenant, owner: &str) -> String {
        let email = format!("{}@example.com", UserId::new().short());
        text(&self.invite(tenant, owner, "member", &email).await, "/id").to_owned()
    }

    async fn new_tenant_user(&self, owner: &str) -> String {
        let name = format!("user-{}", UserId::new().short());
        self.platform.post("/api/v1/tenant-users", owner, json!({"username": name})).await.expect(201);
        name
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

struct Joined {
    user: String,
    /// Their access token, for the organization that they joined.
    token: String,
}

fn token(tokens: &Value) -> String {
    text(tokens, "/access_token").to_owned()
}

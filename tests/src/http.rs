//! Helpers for tests of routes: replies compared byte for byte, and a stage whose rows can be changed
//! where no route changes them.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use axum::{Router, body::Body};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_auth::{EmailVerification, Hasher};
use tenantry_domain::{
    OrgId, SystemClock, UserId,
    plans::{DEFAULT_PLANS, Plans},
};
use tenantry_host::dynamodb::Embedded;
use tenantry_store::Store;
use tenantry_web::{
    Authenticator,
    auth::{SigningKey, TokenVerifier},
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};
use tower::ServiceExt as _;

use crate::platform::{Platform, Reply, request};

/// Everything in a reply that could tell one case from another: status, headers and body, the request id
/// blotted out.
#[must_use]
pub fn seen(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let id = reply.header("x-request-id");
    assert!(!id.is_empty(), "a reply without a request id");
    let blot = |text: &str| text.replace(id, "<request id>");
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), blot(&String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    headers.sort();
    (reply.status.as_u16(), headers, blot(&reply.text()))
}

/// Checks that the body is a problem with this status and code, and returns it.
pub fn problem(reply: &Reply, status: u16, code: &str) -> Value {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let body = reply.json();
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["type"], format!("urn:tenantry:problem:{code}"));
    assert_eq!(body["request_id"], reply.header("x-request-id"));
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    body
}

/// Checks that no cell of a CSV is a formula, wherever a spreadsheet splits its lines: at commas, or where lists are
/// separated so at semicolons or tabs.
pub fn no_formulas(table: &str) {
    for separator in [',', ';', '\t'] {
        for cell in table.split([separator, '\r', '\n']) {
            let shown = cell.trim_start_matches(|char: char| char == '"' || char.is_whitespace());
            assert!(!shown.starts_with(['=', '+', '-', '@']), "{cell:?}, split at {separator:?}: {table}");
        }
    }
}

/// A string in a JSON body.
#[must_use]
pub fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}: {body}"))
}

impl Platform {
    /// Registers a person with the password `correct horse battery`; returns the answer with the tokens.
    pub async fn register(&self, email: &str) -> Value {
        self.post("/api/v1/auth/register", "", json!({"email": email, "password": PASSWORD})).await.expect(201).json()
    }

    /// Sends a refresh token.
    pub async fn refresh(&self, refresh_token: &str) -> Reply {
        self.post("/api/v1/auth/refresh", "", json!({"refresh_token": refresh_token})).await
    }
}

/// What people on these stages sign in with.
pub const PASSWORD: &str = "correct horse battery";

const TABLE: &str = "rows";
const ISSUER: &str = "https://rows.test";

/// The routes of auth and tenants over an engine of their own, with the raw rows in reach: for what
/// happens to an account from outside, like an operator disabling it.
pub struct Rows {
    client: Client,
    router: Router,
    hasher: Hasher,
    signing: Arc<SigningKey>,
    ordered: Arc<Ordered>,
}

/// Keeps the mails that are ordered.
#[derive(Default)]
struct Ordered(tokio::sync::Mutex<Vec<Value>>);

impl MailQueue for Ordered {
    fn send<'a>(&'a self, mail: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            self.0.lock().await.push(serde_json::to_value(mail).expect("a mail"));
            Ok(())
        })
    }
}

/// What a stage is made of.
pub struct Stage {
    /// What hashes passwords.
    pub hasher: Hasher,
    /// The key that tokens are signed with, PKCS #8.
    pub signing_key: Vec<u8>,
    /// The published keys; those of the signing key when there is none.
    pub jwks: Option<String>,
    /// Where mails are ordered; kept for [`Rows::mails`] when there is none.
    pub mails: Option<Arc<dyn MailQueue>>,
    /// What an address has to prove.
    pub verification: EmailVerification,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            hasher: Hasher::default(),
            signing_key: SigningKey::generate().expect("randomness"),
            jwks: None,
            mails: None,
            verification: EmailVerification::Optional,
        }
    }
}

impl Rows {
    /// An empty stage on the machine's clock.
    pub async fn start() -> Self {
        Self::on(Stage::default()).await
    }

    /// The same with other bounds on hashing.
    pub async fn with_hasher(hasher: Hasher) -> Self {
        Self::on(Stage { hasher, ..Stage::default() }).await
    }

    /// A stage made of these.
    pub async fn on(stage: Stage) -> Self {
        let Stage { hasher, signing_key, jwks, mails, verification } = stage;
        let ordered = Arc::new(Ordered::default());
        let client = Embedded::in_memory().expect("an engine").client();
        let plans = Plans::parse(DEFAULT_PLANS).expect("the default plans");
        let store = Store::new(client.clone(), TABLE, plans, Arc::new(SystemClock));
        store.create_table().await.expect("a table");
        let signing = Arc::new(SigningKey::from_pkcs8(&signing_key, ISSUER).expect("a key"));
        let jwks = jwks.unwrap_or_else(|| signing.jwks());
        let tokens = Arc::new(TokenVerifier::from_jwks(&jwks, ISSUER).expect("public keys"));
        let authenticator = Authenticator { store: store.clone(), tokens };
        let mails: Arc<dyn MailQueue> = mails.unwrap_or_else(|| ordered.clone());
        let auth = tenantry_auth::State::new(
            store.clone(),
            authenticator.clone(),
            signing.clone(),
            &[1; 32],
            hasher.clone(),
            mails.clone(),
            verification,
        );
        let tenants = tenantry_tenants::State::new(store, authenticator, &[1; 32], mails);
        let router = tenantry_auth::router(auth).merge(tenantry_tenants::router(tenants));
        Self { client, router, hasher, signing, ordered }
    }

    /// The mails that were ordered, oldest first.
    pub async fn mails(&self) -> Vec<Value> {
        self.ordered.0.lock().await.clone()
    }

    /// What hashes the passwords.
    #[must_use]
    pub const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The key that access tokens are signed with.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// A request with a credential (none when empty) and a JSON body (none when null).
    pub async fn call(&self, method: Method, path: &str, credential: &str, body: Value) -> Reply {
        self.send(request(method, path, credential, &body)).await
    }

    /// Sends a request through the router and reads the whole response.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body that ends").to_bytes().to_vec();
        Reply { status: head.status, headers: head.headers, bytes }
    }

    /// `POST` without a credential.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, "", body).await
    }

    /// Registers a person with [`PASSWORD`].
    pub async fn register(&self, email: &str) -> Value {
        self.post("/api/v1/auth/register", json!({"email": email, "password": PASSWORD})).await.expect(201).json()
    }

    /// Disables the account.
    pub async fn disable(&self, user: &UserId) {
        self.set(&format!("U#{user}"), "USER", "disabled", AttributeValue::Bool(true)).await;
    }

    /// Has the organization count `members`.
    pub async fn set_members(&self, org: &OrgId, members: u32) {
        self.set(&format!("T#{org}"), "ORG", "members", AttributeValue::N(members.to_string())).await;
    }

    /// Gives `user` a role in `org`, as a member that may be new there.
    pub async fn set_role(&self, user: &UserId, org: &OrgId, role: &str) {
        for (pk, sk) in memberships(user, org) {
            self.set(&pk, &sk, "org", AttributeValue::S(org.to_string())).await;
            self.set(&pk, &sk, "user", AttributeValue::S(user.to_string())).await;
            self.set(&pk, &sk, "role", AttributeValue::S(role.into())).await;
        }
    }

    /// Takes `user` out of `org`.
    pub async fn remove_member(&self, user: &UserId, org: &OrgId) {
        for (pk, sk) in memberships(user, org) {
            let delete = self.client.delete_item().table_name(TABLE).set_key(Some(key(&pk, &sk)));
            delete.send().await.expect("a row that goes");
        }
    }

    /// The values of `attribute` in the rows of a tenant whose sort key begins with `prefix`.
    pub async fn tenant_rows(&self, org: &OrgId, prefix: &str, attribute: &str) -> Vec<String> {
        let items = self.partition(&format!("T#{org}"), prefix).await;
        items.iter().filter_map(|item| item.get(attribute)?.as_s().ok().cloned()).collect()
    }

    /// Everything stored of a person as text, to look for what must not be.
    pub async fn stored_of(&self, user: &UserId) -> String {
        format!("{:?}", self.partition(&format!("U#{user}"), "").await)
    }

    /// Everything stored of a tenant as text, to look for what must not be.
    pub async fn stored_of_tenant(&self, org: &OrgId) -> String {
        format!("{:?}", self.partition(&format!("T#{org}"), "").await)
    }

    async fn partition(&self, pk: &str, prefix: &str) -> Vec<HashMap<String, AttributeValue>> {
        let mut query = self.client.query().table_name(TABLE).key_condition_expression("pk = :pk");
        if !prefix.is_empty() {
            query = query
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.into()));
        }
        let query = query.expression_attribute_values(":pk", AttributeValue::S(pk.into()));
        query.send().await.expect("rows").items.unwrap_or_default()
    }

    async fn set(&self, pk: &str, sk: &str, attribute: &str, value: AttributeValue) {
        let update = self.client.update_item().table_name(TABLE).set_key(Some(key(pk, sk)));
        let update = update.update_expression("SET #a = :v").expression_attribute_names("#a", attribute);
        update.expression_attribute_values(":v", value).send().await.expect("a row that changes");
    }
}

fn memberships(user: &UserId, org: &OrgId) -> [(String, String); 2] {
    [(format!("U#{user}"), format!("ORG#{org}")), (format!("T#{org}"), format!("MEMBER#{user}"))]
}

fn key(pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([("pk".into(), AttributeValue::S(pk.into())), ("sk".into(), AttributeValue::S(sk.into()))])
}

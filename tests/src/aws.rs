//! What functions find of AWS, on a port of 127.0.0.1: DynamoDB from the embedded engine, queues that keep what is sent
//! to them, and an SES that takes every mail. And what they are configured with.
//!
//! Signatures and permissions are not looked at: `cargo xtask e2e` and `tests/template.rs` are about those.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
};
use data_encoding::BASE64;
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use tenantry_auth::Hasher;
use tenantry_domain::{
    Clock as _, SessionId, SystemClock,
    plans::{DEFAULT_PLANS, Plans},
    roles::Role,
};
use tenantry_host::dynamodb::Embedded;
use tenantry_store::Store;
use tenantry_web::auth::SigningKey;
use tokio::task::JoinHandle;

use crate::{event::STAGE, platform::Tenant, runtime_api::listen};

const TABLE: &str = "tenantry";
const ISSUER: &str = "urn:tenantry:tests";

/// The account. Dropping it closes its port.
pub struct Aws {
    url: String,
    store: Store,
    plans: String,
    signing_key: Vec<u8>,
    sent: Arc<Mutex<Vec<Sent>>>,
    server: JoinHandle<()>,
}

/// A message that a function sent to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The last part of the queue's address: `usage` or `jobs`.
    pub queue: String,
    /// The message.
    pub body: String,
}

#[derive(Clone)]
struct Services {
    engine: Embedded,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Aws {
    /// An account with an empty table and the default plans, on the machine's clock.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn start() -> Self {
        Self::with_plans(DEFAULT_PLANS).await
    }

    /// The same with other plans.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn with_plans(toml: &str) -> Self {
        let engine = Embedded::in_memory().expect("an engine");
        let plans = Plans::parse(toml).expect("well-formed plans");
        let store = Store::new(engine.client(), TABLE, plans, Arc::new(SystemClock));
        store.create_table().await.expect("a table");
        let sent = Arc::default();
        let services = Services { engine, sent: Arc::clone(&sent) };
        let (address, server) = listen(Router::new().fallback(answer).with_state(services)).await;
        let signing_key = SigningKey::generate().expect("randomness");
        Self { url: format!("http://{address}"), store, plans: toml.to_owned(), signing_key, sent, server }
    }

    /// The variables of every function, as `infra/template.yaml` and the secrets give them. None has a secret to fetch.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let queue = |name| format!("{}/000000000000/{name}", self.url);
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "of nothing".to_owned()),
            ("JOB_QUEUE_URL", queue("jobs")),
            ("MAIL_QUEUE_URL", queue("mails")),
            ("JWT_ISSUER", ISSUER.to_owned()),
            ("JWT_JWKS", self.signing().jwks()),
            ("JWT_SIGNING_KEY", BASE64.encode(&self.signing_key)),
            ("MAIL_FROM", "Tenantry <no-reply@example.com>".to_owned()),
            ("PLANS_TOML", self.plans.clone()),
            ("PUBLIC_URL", format!("https://api.example.com/{STAGE}")),
            ("RUST_LOG", "info".to_owned()),
            ("SECRET_KEY", BASE64.encode(&[1; 32])),
            ("TABLE_NAME", TABLE.to_owned()),
            ("USAGE_QUEUE_URL", queue("usage")),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// The store, over the same table.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// A new organization on `plan`, with an owner and a key.
    pub async fn tenant(&self, plan: &str) -> Tenant {
        Tenant::make(&self.store, &Hasher::default(), plan).await
    }

    /// An access token of the tenant's owner.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn access_token(&self, tenant: &Tenant) -> String {
        let issued = self.signing().issue(&tenant.user, &tenant.org, Role::Owner, &SessionId::new(), SystemClock.now());
        issued.expect("a signature")
    }

    /// Everything that was sent to queues so far.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn signing(&self) -> SigningKey {
        SigningKey::from_pkcs8(&self.signing_key, ISSUER).expect("our own key")
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One request to any of the services: those with a target say it in a header, SES is told by the path.
async fn answer(
    State(Services { engine, sent }): State<Services>,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let (status, json) = match target.split_once('.') {
        Some(("DynamoDB_20120810", operation)) => engine.serve(operation, &body),
        Some(("AmazonSQS", "SendMessage")) => {
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
            let url = text("QueueUrl");
            let queue = url.rsplit('/').next().unwrap_or_default().to_owned();
            sent.lock().unwrap_or_else(PoisonError::into_inner).push(Sent { queue, body: text("MessageBody") });
            (200, json!({"MessageId": "a message"}).to_string())
        }
        None if uri.path() == "/v2/email/outbound-emails" => (200, json!({"MessageId": "a mail"}).to_string()),
        _ => (400, json!({"__type": "UnknownOperationException", "message": target}).to_string()),
    };
    let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    answer.body(Body::from(json)).expect("a well-formed answer")
}

//! The platform under test: the real routers over the embedded engine, with a clock that tests turn.
//!
//! ```ignore
//! let platform = Platform::start(Setup::default().upstream(&upstream)).await;
//! let tenant = platform.tenant("team").await;
//! let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, json!({…})).await;
//! platform.quiesce().await;   // every call settled, all usage written
//! ```

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_auth::Hasher;
use tenantry_domain::{
    Clock, KeyId, Millis, OrgId, Resource, SystemClock, UserId,
    budget::Budgets,
    ledger::LedgerRow,
    metering::Meter,
    plans::{DEFAULT_PLANS, Limit, Plans},
    roles::KeyScopes,
    secret::ApiKeySecret,
    usage::UsageEvent,
};
use tenantry_host::{Options, dynamodb::Capacity};
use tenantry_store::{NewApiKey, RollUp, Store, TenantScope};
use tenantry_web::config::Env;
use tower::ServiceExt as _;

use crate::upstream::{Upstream, VENDOR_KEY};

/// 2026-11-20T12:00:00Z, where a test's clock stands until it is turned.
pub const NOON: Millis = 1_795_176_000_000;

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    /// Turns it forward by `millis`.
    pub fn advance(&self, millis: Millis) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Turns it to `at`.
    pub fn set(&self, at: Millis) {
        self.0.store(at, Ordering::SeqCst);
    }
}

impl Default for TestClock {
    /// At [`NOON`].
    fn default() -> Self {
        Self(AtomicI64::new(NOON))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a platform is started with.
pub struct Setup {
    plans: String,
    env: Vec<(String, String)>,
    capacity: Option<Arc<Capacity>>,
    data_dir: Option<std::path::PathBuf>,
    clock: Arc<TestClock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { plans: DEFAULT_PLANS.to_owned(), env: vec![], capacity: None, data_dir: None, clock: Arc::default() }
    }
}

impl Setup {
    /// With `upstream` as the vendor of all models.
    #[must_use]
    pub fn upstream(self, upstream: &Upstream) -> Self {
        self.variable("OPENAI_BASE_URL", &upstream.base_url()).variable("OPENAI_API_KEY", VENDOR_KEY)
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these plans instead of the default ones.
    #[must_use]
    pub fn plans(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.plans);
        self
    }

    /// With one change to the default plans: the first place of `from` becomes `to`.
    #[must_use]
    pub fn plan_change(mut self, from: &str, to: &str) -> Self {
        assert!(self.plans.contains(from), "the plans have no `{from}`");
        self.plans = self.plans.replacen(from, to, 1);
        self
    }

    /// Counting the DynamoDB capacity that requests use up.
    #[must_use]
    pub fn capacity(mut self, capacity: &Arc<Capacity>) -> Self {
        self.capacity = Some(capacity.clone());
        self
    }

    /// On a clock that something else is on as well.
    #[must_use]
    pub fn clock(mut self, clock: &Arc<TestClock>) -> Self {
        self.clock = clock.clone();
        self
    }

    /// With data in a folder.
    #[must_use]
    pub fn data_dir(mut self, folder: &std::path::Path) -> Self {
        self.data_dir = Some(folder.to_owned());
        self
    }
}

/// A running platform.
pub struct Platform {
    host: Arc<tenantry_host::Platform>,
    clock: Arc<TestClock>,
    base_url: String,
}

/// An organization with an owner and a key.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The organization.
    pub org: OrgId,
    /// Its owner.
    pub user: UserId,
    /// The owner's address.
    pub email: String,
    /// The owner's password.
    pub password: String,
    /// The key's public name.
    pub key: KeyId,
    /// The key.
    pub api_key: String,
    /// The right to look into the store as this tenant.
    pub scope: TenantScope,
}

impl Tenant {
    /// A new organization on `plan` in `store`, with an owner and a key.
    pub async fn make(store: &Store, hasher: &Hasher, plan: &str) -> Self {
        let plan = store.plans().find(plan).expect("a plan of the setup").clone();
        let email = format!("{}@example.com", UserId::new().short());
        let password = "correct horse battery".to_owned();
        let (user, org) = tenantry_auth::register_user(store, hasher, &email, &password, None, None, &plan)
            .await
            .expect("registering works")
            .expect("the address is new");
        #[allow(clippy::disallowed_methods, reason = "the test made this tenant")]
        let scope = TenantScope::authenticated(org.clone());
        let (key, secret) = (KeyId::new(), ApiKeySecret::generate().expect("randomness"));
        let (scopes, expires_at) = (KeyScopes::default(), None);
        let new = NewApiKey {
            id: &key,
            name: "test",
            secret: &secret,
            scopes,
            expires_at,
            budgets: Budgets::default(),
            created_by: &user.id,
        };
        store.create_api_key(&scope, &new, Limit::Unlimited, None).await.expect("a store").expect("no limit");
        let api_key = secret.expose().to_owned();
        Self { org, user: user.id, email, password, key, api_key, scope }
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// A header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header in ASCII"))
    }

    /// The same after a check of the status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// The stable word of an error in either shape.
    #[must_use]
    pub fn code(&self) -> String {
        let body = self.json();
        body["code"].as_str().or_else(|| body["error"]["code"].as_str()).unwrap_or_default().to_owned()
    }
}

impl Platform {
    /// A platform in memory whose clock stands at [`NOON`] and whose queue waits for
    /// [`quiesce`](Self::quiesce).
    pub async fn start(setup: Setup) -> Self {
        let clock = setup.clock.clone();
        let host = start(setup, clock.clone(), false).await;
        Self { host: Arc::new(host), clock, base_url: String::new() }
    }

    /// A platform on a port and on the machine's clock, with all its workers, as `cargo run` starts it.
    pub async fn start_with_upstream(base_url: &str, key: &str) -> Self {
        let setup = Setup::default().variable("OPENAI_BASE_URL", base_url).variable("OPENAI_API_KEY", key);
        let host = Arc::new(start(setup, Arc::new(SystemClock), true).await);
        let base_url = listen(host.router()).await;
        Self { host, clock: Arc::default(), base_url }
    }

    /// Serves this platform on a port as well; returns the SDKs' base URL.
    pub async fn listen(&self) -> String {
        listen(self.router()).await
    }

    /// Where SDKs are pointed, when the platform was started on a port.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.host.store()
    }

    /// The platform itself.
    #[must_use]
    pub fn host(&self) -> &tenantry_host::Platform {
        &self.host
    }

    /// All routes.
    pub fn router(&self) -> Router {
        self.host.router()
    }

    /// Waits until every call is settled and all usage is written.
    pub async fn quiesce(&self) {
        self.host.quiesce().await.expect("the queue can be read");
    }

    /// A new organization on `plan`, with an owner and a key.
    pub async fn tenant(&self, plan: &str) -> Tenant {
        Tenant::make(self.store(), self.host.hasher(), plan).await
    }

    /// An organization that was there before this platform; its secrets are not known.
    pub async fn existing_tenant(&self, org: OrgId) -> Tenant {
        #[allow(clippy::disallowed_methods, reason = "the test knows this tenant")]
        let scope = TenantScope::authenticated(org.clone());
        let keys = self.store().api_keys(&scope, 1, None).await.expect("a store").items;
        let key = keys.first().expect("a key").clone();
        let nothing = String::new;
        let (email, password, api_key) = (nothing(), nothing(), nothing());
        Tenant { org, user: key.created_by, email, password, key: key.id, api_key, scope }
    }

    /// A key of a new organization on `plan`.
    pub async fn api_key(&self, plan: &str) -> String {
        self.tenant(plan).await.api_key
    }

    /// A key of a new organization on `plan` that has exactly `messages` of its month left.
    pub async fn api_key_with_messages_left(&self, plan: &str, messages: u64) -> String {
        use tenantry_domain::{Amounts, RequestId, metering::Demand};
        let tenant = self.tenant(plan).await;
        let meter = self.meter(&tenant).await;
        let spare = meter.left.get(Resource::Messages).or(0) - messages;
        let amounts = Amounts::NONE.with(Resource::Messages, spare);
        let demand = Demand { amounts, credits: 0 };
        let admission = self.store().reserve(&tenant.scope, &RequestId::new(), &demand, 60_000).await.expect("a store");
        let tenantry_store::Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
        self.store().settle(&reservation, &amounts, 0).await.expect("a store");
        tenant.api_key
    }

    /// The tenant's meter.
    pub async fn meter(&self, tenant: &Tenant) -> Meter {
        self.store().meter(&tenant.scope).await.expect("a meter")
    }

    /// All records of the tenant's current period, newest first.
    pub async fn records(&self, tenant: &Tenant) -> Vec<UsageEvent> {
        let period = self.meter(tenant).await.period;
        let page = self.store().usage_records(&tenant.scope, period, 1000, None).await.expect("a store");
        assert!(page.next.is_none(), "more records than a page holds");
        page.items
    }

    /// All roll-ups of the tenant.
    pub async fn roll_ups(&self, tenant: &Tenant) -> Vec<RollUp> {
        self.store().roll_ups(&tenant.scope, "0000-01-01", "9999-12-31").await.expect("a store")
    }

    /// All rows of the tenant's ledger, newest first.
    pub async fn ledger(&self, tenant: &Tenant) -> Vec<LedgerRow> {
        let page = self.store().ledger(&tenant.scope, 1000, None).await.expect("a store");
        assert!(page.next.is_none(), "more rows than a page holds");
        page.items
    }

    /// Checks that meter, records, roll-ups and ledger of the tenant's current period tell the same story, and
    /// that nothing is in flight. Returns the records.
    pub async fn books(&self, tenant: &Tenant) -> Vec<UsageEvent> {
        let (meter, records, roll_ups) =
            (self.meter(tenant).await, self.records(tenant).await, self.roll_ups(tenant).await);
        assert!(meter.holds.is_empty(), "in flight: {:?}", meter.holds);
        assert_eq!(roll_ups.iter().map(|r| r.sums.requests).sum::<u64>(), records.len() as u64, "requests");
        for resource in Resource::ALL {
            let of_records = records.iter().map(|record| record.charged.get(resource)).sum::<u64>();
            let of_roll_ups = roll_ups.iter().map(|row| row.sums.charged.get(resource)).sum::<u64>();
            assert_eq!(of_records, of_roll_ups, "records and roll-ups of {resource:?}");
            if let Some(charged) = meter.charged(resource) {
                assert_eq!(of_records, charged, "records and meter of {resource:?}");
            }
        }
        let tokens = |of: fn(&tenantry_domain::usage::Tokens) -> u64| {
            let of_records = records.iter().map(|record| of(&record.tokens)).sum::<u64>();
            assert_eq!(of_records, roll_ups.iter().map(|row| of(&row.sums.tokens)).sum::<u64>(), "tokens");
        };
        let booked: i64 = self.ledger(tenant).await.iter().map(|row| row.amount).sum();
        let used: u64 = roll_ups.iter().map(|row| row.sums.credits).sum();
        assert_eq!(booked - i64::try_from(used).expect("few"), i64::try_from(meter.credits).expect("few"), "credits");
        tokens(|tokens| tokens.prompt);
        tokens(|tokens| tokens.completion);
        tokens(|tokens| tokens.cached);
        tokens(|tokens| tokens.reasoning);
        records
    }

    /// Sends a request through the router and reads the whole response.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router().oneshot(request).await.expect("routers do not fail");
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body that ends").to_bytes().to_vec();
        Reply { status: head.status, headers: head.headers, bytes }
    }

    /// A request with a credential (none when empty) and a JSON body (none when null).
    pub async fn call(&self, method: Method, path: &str, credential: &str, body: Value) -> Reply {
        self.send(request(method, path, credential, &body)).await
    }

    /// `GET`.
    pub async fn get(&self, path: &str, credential: &str) -> Reply {
        self.call(Method::GET, path, credential, Value::Null).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, credential: &str, body: Value) -> Reply {
        self.call(Method::POST, path, credential, body).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str, credential: &str) -> Reply {
        self.call(Method::DELETE, path, credential, Value::Null).await
    }

    /// Asks `gpt-4.1-mini` a question that comes whole, with room for 64 tokens.
    pub async fn chat(&self, api_key: &str, prompt: &str) -> Reply {
        self.post("/api/v1/chat/completions", api_key, chat_body(prompt, false)).await
    }

    /// The same as a stream, read to its end.
    pub async fn chat_stream(&self, api_key: &str, prompt: &str) -> Reply {
        self.post("/api/v1/chat/completions", api_key, chat_body(prompt, true)).await
    }

    /// The owner signs in; returns the answer with the tokens.
    pub async fn login(&self, tenant: &Tenant) -> Value {
        let body = json!({"email": tenant.email, "password": tenant.password});
        self.post("/api/v1/auth/login", "", body).await.expect(200).json()
    }
}

/// A chat request as most tests send it.
#[must_use]
pub fn chat_body(prompt: &str, stream: bool) -> Value {
    json!({
        "model": "gpt-4.1-mini",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 64,
        "stream": stream,
    })
}

/// A request with a credential (none when empty) and a JSON body (none when null).
#[must_use]
pub fn request(method: Method, path: &str, credential: &str, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !credential.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        request = request.header(header::CONTENT_TYPE, "application/json");
        Body::from(body.to_string())
    };
    request.body(body).expect("a well-formed request")
}

async fn start(setup: Setup, clock: Arc<dyn Clock>, background: bool) -> tenantry_host::Platform {
    let plans = Plans::parse(&setup.plans).expect("well-formed plans");
    let mut options = Options::in_memory(plans, setup.env.into_iter().collect::<Env>());
    options.clock = clock;
    options.capacity = setup.capacity;
    options.data_dir = setup.data_dir;
    options.background = background;
    tenantry_host::Platform::start(options).await.expect("a platform that starts")
}

async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/api/v1")
}

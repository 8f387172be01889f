//! The whole platform in one process: every function's router on one port, an embedded DynamoDB, the
//! queues with their consumers, and the timers that run on a schedule when deployed.

mod books;
pub mod demo;
pub mod docs;
pub mod dynamodb;
mod inbox;
mod jobs;
mod mails;
pub mod queue;
mod refunds;
pub mod sale;
mod secrets;
mod stripe;
mod timers;

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use tenantry_auth::{EmailVerification, Hasher};
use tenantry_commerce::Commerce;
use tenantry_domain::{Clock, SystemClock, plans::Plans};
use tenantry_mailer::Outbox;
use tenantry_quota_reset::Job;
use tenantry_sandbox::{
    AheadClock,
    china::{ChinaSandbox, StartError},
    stripe::{Sandbox, StripeSandbox},
};
use tenantry_store::{Store, StoreError};
use tenantry_web::{
    auth::{Authenticator, TokenVerifier, VerifyError},
    config::{ConfigError, Env},
    front::{Front, Transport},
    router::{BODY_LIMIT, ErrorShape, around, not_found},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    books::Books,
    dynamodb::{Capacity, Embedded},
    jobs::Jobs,
    mails::Mails,
    queue::LocalQueue,
    secrets::Secrets,
    stripe::Double,
};

pub use docs::openapi;

/// Name of the table in the embedded engine.
pub const TABLE: &str = "tenantry";
/// Issuer of the access tokens of a laptop.
const ISSUER: &str = "tenantry-host";
/// Where the usual development servers serve a page: Vite, its preview, and what else takes 3000. Not `*`: any page that
/// is open in the browser could otherwise call the laptop.
const DEVELOPMENT_ORIGINS: &str = "http://localhost:5173,http://127.0.0.1:5173,http://localhost:4173,\
     http://127.0.0.1:4173,http://localhost:3000,http://127.0.0.1:3000";
/// How long a shutdown waits for answers in flight.
const DRAIN: Duration = Duration::from_secs(30);

/// Where a platform keeps its data, and what it is made of.
pub struct Options {
    /// Folder for data and keys; `None` keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// The plans.
    pub plans: Plans,
    /// Vendors' keys and the like. See `infra/catalogue.toml`.
    pub env: Env,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// Counts DynamoDB capacity, when given.
    pub capacity: Option<Arc<Capacity>>,
    /// Whether the queue's consumer and the timers run. Without them usage waits for
    /// [`Platform::quiesce`], which is what a test wants that counts.
    pub background: bool,
    /// This server's own address, `http://127.0.0.1:8787`. With it the doubles of WeChat Pay and Alipay are there, at
    /// `/_dev/pay`, for whichever of them the environment does not set up; the pages of Stripe's are below it too, which
    /// otherwise are at a port of their own.
    pub site: Option<String>,
    /// Where the double of Stripe sends its webhooks; without it to `/webhooks/stripe` of the site.
    pub stripe_webhooks: Option<String>,
}

impl Options {
    /// Everything in memory, on the machine's clock.
    #[must_use]
    pub fn in_memory(plans: Plans, env: Env) -> Self {
        Self {
            data_dir: None,
            plans,
            env,
            clock: Arc::new(SystemClock),
            capacity: None,
            background: true,
            site: None,
            stripe_webhooks: None,
        }
    }
}

/// Why the platform cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A variable is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder cannot be used.
    #[error("{path}: {why}")]
    Data {
        /// The file or folder.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The engine does not work.
    #[error("the embedded database: {0}")]
    Database(String),
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys do not work.
    #[error("signing keys: {0}")]
    Keys(#[from] VerifyError),
    /// The doubles of payment vendors do not work.
    #[error(transparent)]
    Sandbox(#[from] StartError),
    /// The port cannot be served.
    #[error("the server stopped: {0}")]
    Serve(#[from] std::io::Error),
    /// The plans could not be put up for sale at Stripe, or its double.
    #[error("the plans are not for sale at Stripe: {0}")]
    Sale(String),
    /// The demo organization could not be made.
    #[error("the demo organization: {0}")]
    Demo(String),
}

impl HostError {
    fn data(path: &std::path::Path, why: impl ToString) -> Self {
        Self::Data { path: path.display().to_string(), why: why.to_string() }
    }
}

/// The platform, ready to serve.
pub struct Platform {
    store: Store,
    engine: Embedded,
    queue: LocalQueue,
    mails: Mails,
    jobs: Jobs,
    hasher: Hasher,
    commerce: Commerce,
    chat: tenantry_chat::State,
    clock: Arc<AheadClock>,
    stripe: Option<Arc<Double>>,
    china: Option<ChinaSandbox>,
    router: Router,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    /// Held for as long as the platform lives, so that no second one opens the same data.
    _lock: Option<std::fs::File>,
}

impl Platform {
    /// Opens the data, makes the table if need be, and starts queue and timers.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn start(options: Options) -> Result<Self, HostError> {
        let Options { data_dir, plans, env, clock, capacity, background, site, stripe_webhooks } = options;
        let lock = data_dir.as_deref().map(secrets::lock).transpose()?;
        let billing = stripe::settings(site.as_deref(), stripe_webhooks)?;
        let (clock, stripe) = Double::open(clock, &env, data_dir.as_deref(), billing).await?;
        let secrets = Secrets::load(data_dir.as_deref())?;
        let engine = match &data_dir {
            Some(folder) => Embedded::on_file(&folder.join("dynamodb.sqlite")),
            None => Embedded::in_memory(),
        };
        let mut engine = engine.map_err(|error| HostError::Database(error.to_string()))?;
        if let Some(capacity) = capacity {
            engine = engine.with_capacity(capacity);
        }
        let queue_file = data_dir.as_deref().map(|folder| folder.join("queue.sqlite"));
        let queue = LocalQueue::open(queue_file.as_deref()).map_err(|error| HostError::Database(error.to_string()))?;

        let store = Store::new(engine.client(), TABLE, plans, clock.clone());
        store.create_table().await?;
        let signing = secrets.signing_key(ISSUER)?;
        let tokens = Arc::new(TokenVerifier::from_jwks(&signing.jwks(), ISSUER)?);
        let authenticator = Authenticator { store: store.clone(), tokens };
        let env = env.with_defaults([
            ("SANDBOX_MODELS", "true"),
            ("ALLOW_PRIVATE_UPSTREAMS", "true"),
            ("MAIL_FROM", "Tenantry <tenantry@localhost.localdomain>"),
            ("PUBLIC_URL", "http://localhost:8787"),
            ("CORS_ORIGINS", DEVELOPMENT_ORIGINS),
        ]);
        let env = env.with(stripe.iter().flat_map(|double| double.variables()));
        let china = match &site {
            Some(site) => Some(ChinaSandbox::new(clock.clone(), site, site)?),
            None => None,
        };
        let env = match &china {
            Some(china) => {
                let (wechat, alipay) = (china.wechat().to_json(), china.alipay().to_json());
                env.with_defaults([("WECHAT_PAY", &wechat), ("ALIPAY", &alipay)])
            }
            None => env,
        };
        let mails = Mails::open(data_dir.as_deref(), &env, &store, clock.clone())?;
        let commerce = Commerce::from_env(&env, store.clone())?;
        let jobs = Jobs::new(commerce.clone(), Arc::new(mails.queue().clone()));
        if site.is_some() && stripe.is_some() {
            // At Stripe itself the deployer does that, once: docs/payments.md.
            commerce.put_up_for_sale().await.map_err(|error| HostError::Sale(error.to_string()))?;
        }
        let models = tenantry_chat::Models::from_env(&env, store.plans())?;
        let waits = tenantry_chat::Waits::from_env(&env)?;
        let hasher = Hasher::default();
        let auth = tenantry_auth::State::new(
            store.clone(),
            authenticator.clone(),
            Arc::new(signing),
            secrets.secret_key(),
            hasher.clone(),
            Arc::new(mails.queue().clone()),
            EmailVerification::from_env(&env)?,
        );
        let chat = tenantry_chat::State::new(authenticator.clone(), Arc::new(queue.clone()), models, waits);
        let routes = [
            tenantry_auth::router(auth),
            tenantry_tenants::router(tenantry_tenants::State::new(
                store.clone(),
                authenticator.clone(),
                secrets.secret_key(),
                Arc::new(mails.queue().clone()),
            )),
            tenantry_usage::router(tenantry_usage::State::new(
                store.clone(),
                authenticator.clone(),
                secrets.secret_key(),
            )),
            tenantry_billing::router(tenantry_billing::State::new(
                commerce.clone(),
                authenticator,
                secrets.secret_key(),
                tenantry_billing::Pages::from_env(&env)?,
            )),
            tenantry_chat::router(chat.clone()),
            tenantry_webhooks::router(tenantry_webhooks::State::new(commerce.clone(), Arc::new(mails.queue().clone()))),
            around(
                docs::router()
                    .merge(inbox::router(mails.inbox()))
                    .merge(books::router(Books::new(store.clone(), queue.clone())))
                    .merge(refunds::router(jobs.clone())),
                ErrorShape::Problem,
                BODY_LIMIT,
            ),
        ];
        let double = stripe.iter().map(|double| around(double.router(), ErrorShape::Problem, BODY_LIMIT));
        let own = Router::new().route("/healthz", get(|| async { "ok" })).fallback(not_found);
        let router = routes.into_iter().chain(double).fold(around(own, ErrorShape::Problem, BODY_LIMIT), Router::merge);
        // As it is: the vendors' answers are not ours to put into another shape.
        let router = china.iter().fold(router, |router, china| router.merge(china.router()));
        let router = Front::from_env(&env, Transport::Loopback)?.before(router);

        let (stop, stopped) = watch::channel(false);
        let mut workers = vec![];
        if background {
            workers.push(tokio::spawn(queue.clone().run(store.clone(), stopped.clone())));
            workers.push(tokio::spawn(mails.clone().run(stopped.clone())));
            if let Some(double) = &stripe {
                workers.push(tokio::spawn(StripeSandbox::clone(double.sandbox()).run(stopped.clone())));
                workers.push(tokio::spawn(double.clone().run(stopped.clone())));
            }
            if let Some(china) = china.clone() {
                let stopped = stopped.clone();
                workers.push(tokio::spawn(async move { china.run(stopped).await }));
            }
            workers.push(tokio::spawn(timers::run(jobs.clone(), engine.clone(), stopped)));
        }
        Ok(Self {
            store,
            engine,
            queue,
            mails,
            jobs,
            hasher,
            commerce,
            chat,
            clock,
            stripe,
            china,
            router,
            stop,
            workers,
            _lock: lock,
        })
    }

    /// All routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The usage queue.
    #[must_use]
    pub const fn queue(&self) -> &LocalQueue {
        &self.queue
    }

    /// Where mails are ordered.
    #[must_use]
    pub const fn mail_queue(&self) -> &LocalQueue {
        self.mails.queue()
    }

    /// The mails that would have been sent.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        self.mails.outbox()
    }

    /// The double of Stripe, when no key of Stripe's is configured. Its clients are pointed at its own port.
    #[must_use]
    pub fn stripe_sandbox(&self) -> Option<&Sandbox> {
        self.stripe.as_deref().map(Double::sandbox)
    }

    /// The platform's clock: that of its options, ahead by as much as the double of Stripe was put forward.
    #[must_use]
    pub const fn clock(&self) -> &Arc<AheadClock> {
        &self.clock
    }

    /// The doubles of WeChat Pay and Alipay, when there are any.
    #[must_use]
    pub const fn china(&self) -> Option<&ChinaSandbox> {
        self.china.as_ref()
    }

    /// A client of the database of its own, to look behind the store.
    #[must_use]
    pub fn database(&self) -> aws_sdk_dynamodb::Client {
        self.engine.client()
    }

    /// Everything that is stored, as DynamoDB's JSON.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn all_items(&self) -> Result<Vec<serde_json::Value>, HostError> {
        self.engine.all_items(TABLE).map_err(|error| HostError::Database(error.to_string()))
    }

    /// What hashes the passwords of new users.
    #[must_use]
    pub const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Payments, with the vendors that the environment configures.
    #[must_use]
    pub const fn commerce(&self) -> &Commerce {
        &self.commerce
    }

    /// Names of the models that can be called, by name.
    #[must_use]
    pub fn models(&self) -> Vec<String> {
        self.chat.models().available().map(|model| model.id.clone()).collect()
    }

    /// Waits until every call in flight has been settled, then writes all usage there is, and all mails.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub async fn quiesce(&self) -> Result<(), HostError> {
        self.chat.drained().await;
        let failed = |error: rusqlite::Error| HostError::Database(error.to_string());
        while self.queue.deliver(&self.store).await.map_err(failed)? != (0, 0) {}
        while self.mails.deliver().await.map_err(failed)? != (0, 0) {}
        Ok(())
    }

    /// Settles the expired holds of every tenant, as the timer does.
    pub async fn sweep(&self) {
        self.run_job(Job::Sweep).await;
    }

    /// Does a scheduled job for every tenant, and what earlier ones left to be done by now.
    pub async fn run_job(&self, job: Job) {
        self.jobs.run(job).await;
    }

    /// Serves on `listener` until `shutdown` resolves, then lets what is in flight end, and writes all
    /// usage before it returns.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), HostError> {
        use axum::serve::ListenerExt as _;
        // Chunks of a stream are small; waiting for more of them (Nagle) would hold them back.
        let listener = listener.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        let (begin, begun) = watch::channel(false);
        let signal = async move {
            shutdown.await;
            let _ = begin.send(true);
        };
        let service = self.router.clone().into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(signal).into_future();
        let overtime = async {
            let mut begun = begun;
            let _ = begun.wait_for(|begun| *begun).await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served?,
            () = overtime => tracing::warn!("answers in flight were cut off after {} s", DRAIN.as_secs()),
        }
        self.stop().await;
        Ok(())
    }

    /// Waits for calls in flight to be settled and for all usage to be written, then stops the workers.
    pub async fn stop(self) {
        if tokio::time::timeout(DRAIN, self.chat.drained()).await.is_err() {
            tracing::warn!("calls were still in flight; their holds will expire");
        }
        let _ = self.stop.send(true);
        for worker in self.workers {
            let _ = worker.await;
        }
        if let Some(Err(error)) = self.stripe.map(|double| double.keep()) {
            tracing::warn!(%error, "what the Stripe sandbox knows was not kept");
        }
    }
}

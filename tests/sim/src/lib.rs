//! A simulation of metering: the real handlers of several tenants against the embedded database, on a clock of their own, in one
//! thread, with everything going wrong that can.
//!
//! A seed decides what happens ([`Scenario`]): who calls when and leaves when, what the vendor does, when plans change and
//! payments arrive, and how often which request to the outside gets lost, refused, held up, or done without an answer
//! (`wire`), how the queue delivers (`queue`), and when a process dies (`world`): a dead one hangs at its next request, which
//! is all that anybody else can see of a death. Then everything calms down, what is held expires and is swept, and the books
//! are judged (`oracle`) by what clients and the vendor saw, which none of the code under test had a say in.
//!
//! What is simulated is the outside. Between it and the database runs what is deployed: the gateway's router, the
//! webhooks' router, the aggregator, the scheduled jobs, the SDK with its retries and timeouts.
//!
//! A run repeats exactly: one thread, a paused clock, and chance from the seed alone. `sabotage` breaks the protocol on
//! purpose, to see that the judge notices.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

mod client;
mod oracle;
mod payer;
mod queue;
mod sabotage;
mod scenario;
mod vendor;
mod wire;
mod world;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use axum::Router;
use futures_util::future::join_all;
use tenantry_chat::{Models, Waits};
use tenantry_domain::{
    KeyId, OrgId, Resource, UserId,
    budget::{Budget, Budgets},
    catalogue::Catalogue,
    ledger::LedgerKind,
    plans::Limit,
    roles::KeyScopes,
    secret::ApiKeySecret,
};
use tenantry_providers::Provider;
use tenantry_quota_reset::{Job, JobQueue, Message, fan_out};
use tenantry_store::{NewApiKey, NewLedgerRow, NewUser, Store, TenantScope, User};
use tenantry_web::{
    auth::{Authenticator, SigningKey, TokenVerifier},
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};

pub use sabotage::Sabotage;
pub use scenario::Scenario;

use crate::{
    payer::PACKAGE,
    queue::Outgoing,
    scenario::{CALL_SECONDS, CATALOGUE, Event},
    vendor::Vendor,
    world::{Pool, Process, Tenant, World, lock, millis},
};

/// What came of a scenario.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What plays it again.
    pub again: String,
    /// What is wrong; nothing should be.
    pub violations: Vec<String>,
    /// Everything that happened, in order.
    pub trace: Vec<String>,
    /// Calls of clients.
    pub calls: u64,
    /// Requests to the database.
    pub requests: u64,
    /// How often the protocol was broken on purpose.
    pub sabotaged: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} promises broken", self.seed, self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))?;
        writeln!(f, "what happened:")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "again: {}", self.again)
    }
}

/// Plays a scenario to its end, in a thread of its own: what a thread remembers of chance would let the next run differ.
#[must_use]
pub fn run(scenario: Scenario, sabotage: Option<Sabotage>) -> Run {
    let play = move || {
        fastrand::seed(scenario.seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(scenario, sabotage))
    };
    std::thread::spawn(play).join().expect("a simulation that ends")
}

async fn play(scenario: Scenario, sabotage: Option<Sabotage>) -> Run {
    let world = World::new(scenario, sabotage);
    let clerk = Process::start(&world, "clerk").store();
    clerk.create_table().await.expect("a table");
    for (index, plan) in world.scenario.tenants.clone().into_iter().enumerate() {
        let tenant = tenant(&clerk, index, plan).await;
        if let Some(shards) = world.scenario.shards.filter(|_| index == 0) {
            clerk.set_meter_shards(&tenant.scope, shards).await.expect("a calm database");
        }
        lock(&world.tenants).push(Arc::new(tenant));
    }
    let mut orders = vec![];
    for (_, tenant, event) in &world.scenario.events {
        let is_paid = matches!(event, Event::Paid { .. });
        orders.push(if is_paid { Some(payer::order(&world, &clerk, *tenant).await) } else { None });
    }

    let tokens = Arc::new(verifier());
    let gateways = Arc::new(Pool::new("gateway", 2, move |process| gateway(process, tokens.clone())));
    let aggregators = Arc::new(Pool::new("aggregator", 2, |process: &Arc<Process>| process.store()));
    let operators = Arc::new(Pool::new("operator", 1, |process: &Arc<Process>| process.store()));
    let webhooks = Arc::new(Pool::new("webhooks", 2, |process: &Arc<Process>| {
        let mails = Arc::new(Mails(process.clone()));
        tenantry_webhooks::router(tenantry_webhooks::State::new(payer::commerce(process), mails))
    }));
    let jobs = Arc::new(Pool::new("jobs", 2, |process: &Arc<Process>| Jobs::new(process)));

    world.set_calm(false);
    let delivery = tokio::spawn(queue::deliver(world.clone(), aggregators.clone()));
    // Two at a time: a schedule that fires while the last one is not done.
    let schedules = [(); 2].map(|()| tokio::spawn(schedule(world.clone(), jobs.clone())));
    let clients = (0..world.scenario.calls.len()).map(|call| client::call(world.clone(), gateways.clone(), call));
    let clients: Vec<_> = clients.map(tokio::spawn).collect();
    let events = orders
        .into_iter()
        .enumerate()
        .map(|(number, order)| payer::happen(world.clone(), number, order, operators.clone(), webhooks.clone()));
    let events: Vec<_> = events.map(tokio::spawn).collect();
    for ended in join_all(clients.into_iter().chain(events)).await {
        ended.expect("clients do not fail");
    }
    // What hangs, and what is late, gets its time before the calm.
    millis(10_000).await;

    world.note(|| "calm".to_owned());
    world.set_calm(true);
    schedules.iter().for_each(tokio::task::JoinHandle::abort);
    delivery.abort();
    millis(CALL_SECONDS * 1_000 + 60_000).await;
    let sweep = || async { Jobs::new(&Process::start(&world, "calm")).run(Job::Sweep).await };
    queue::drain(&world, &aggregators).await;
    sweep().await;
    queue::drain(&world, &aggregators).await;
    sweep().await;
    millis(700_000).await;
    queue::drain(&world, &aggregators).await;

    let violations = oracle::judge(&world, &clerk).await;
    Run {
        seed: world.scenario.seed,
        again: world.scenario.again.clone(),
        violations,
        calls: world.scenario.calls.len() as u64,
        requests: world.requests.load(Ordering::SeqCst),
        sabotaged: world.saboteur.as_ref().map_or(0, sabotage::Saboteur::made),
        trace: world.take_trace(),
    }
}

fn verifier() -> TokenVerifier {
    let key = SigningKey::generate().expect("randomness");
    let signing = SigningKey::from_pkcs8(&key, "sim").expect("a key of ours");
    TokenVerifier::from_jwks(&signing.jwks(), "sim").expect("keys of ours")
}

fn gateway(process: &Arc<Process>, tokens: Arc<TokenVerifier>) -> Router {
    let vendor: Arc<dyn Provider> = Arc::new(Vendor(process.clone()));
    let catalogue = Catalogue::parse(CATALOGUE).expect("a catalogue");
    let models = Models::new(catalogue, HashMap::from([("sim".to_owned(), vendor)]));
    let call = Duration::from_secs(CALL_SECONDS);
    let waits = Waits { call, first_byte: call, idle: Duration::from_secs(20) };
    let authenticator = Authenticator { store: process.store(), tokens };
    tenantry_chat::router(tenantry_chat::State::new(authenticator, Arc::new(Outgoing(process.clone())), models, waits))
}

/// A tenant whose ids are always the same, with some credits.
async fn tenant(store: &Store, index: usize, plan: &str) -> Tenant {
    let short = |kind: usize| format!("0000000000000000000000{index:02}{kind}0");
    let org = OrgId::from_short(&short(1)).expect("an id");
    let user = UserId::from_short(&short(2)).expect("an id");
    let email = format!("tenant{index}@example.com").parse().expect("an address");
    let user = User::new(user, email, "no password".to_owned(), None, store.now());
    let plan = store.plans().find(plan).expect("a plan").clone();
    let new = NewUser { user: &user, org: &org, org_name: "simulated", plan: &plan };
    assert!(store.create_user(&new).await.expect("a calm database"));
    #[allow(clippy::disallowed_methods, reason = "the simulation made this tenant")]
    let scope = TenantScope::authenticated(org.clone());
    let mut keys = vec![];
    for kind in [3, 4] {
        let id = KeyId::from_short(&short(kind)).expect("an id");
        let secret = ApiKeySecret::generate().expect("randomness");
        let budgets = if kind == 4 { budgets() } else { Budgets::default() };
        let new = NewApiKey {
            id: &id,
            name: "simulated",
            secret: &secret,
            scopes: KeyScopes::default(),
            expires_at: None,
            budgets,
            created_by: &user.id,
        };
        store.create_api_key(&scope, &new, Limit::Unlimited, None).await.expect("a calm database").expect("no limit");
        keys.push((id, secret.expose().to_owned()));
    }
    let (kind, key) = (LedgerKind::Grant, "a present");
    let row = NewLedgerRow { kind, amount: PACKAGE, key, reference: None, expires_at: None };
    store.add_credits(&scope, &row).await.expect("a calm database");
    Tenant { scope, org, keys: keys.try_into().expect("two keys") }
}

/// What the second key of every tenant may use in a month.
fn budgets() -> Budgets {
    let mut budgets = Budgets::default();
    budgets.whole.limits.insert(Resource::Messages, 4);
    budgets.whole.limits.insert(Resource::LlmTokens, 1_200);
    budgets.whole.credits = Some(400);
    let limits = [(Resource::LlmTokens, 500)].into();
    budgets.models.insert("priced".to_owned(), Budget { limits, ..Budget::default() });
    budgets
}

/// Mails go nowhere, and can be refused.
struct Mails(Arc<Process>);

impl MailQueue for Mails {
    fn send<'a>(&'a self, _: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async {
            if self.0.world.happens(self.0.world.scenario.faults.queue) {
                return Err(QueueError("simulated".to_owned()));
            }
            Ok(())
        })
    }
}

/// The scheduled jobs of one process, with what they send themselves.
#[derive(Clone)]
struct Jobs {
    process: Arc<Process>,
    state: tenantry_quota_reset::State,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting(Mutex<Vec<Message>>);

impl JobQueue for Waiting {
    fn send<'a>(&'a self, message: &'a Message, _: Duration) -> BoxFuture<'a, Result<(), QueueError>> {
        lock(&self.0).push(message.clone());
        Box::pin(async { Ok(()) })
    }
}

impl Jobs {
    fn new(process: &Arc<Process>) -> Self {
        let (commerce, mails) = (payer::commerce(process), Arc::new(Mails(process.clone())));
        let waiting = Arc::<Waiting>::default();
        let state = tenantry_quota_reset::State::new(commerce, waiting.clone(), mails);
        Self { process: process.clone(), state, waiting }
    }

    /// A job for everybody; whoever fails is left to the next time.
    async fn run(&self, job: Job) {
        if fan_out(&self.state, job).await.is_err() {
            return;
        }
        let messages = std::mem::take(&mut *lock(&self.waiting.0));
        for message in messages {
            let done = tenantry_quota_reset::run(&self.state, &message, &|| false).await;
            if let Err(error) = done {
                self.process.world.note(|| format!("{} {job:?}: {error}", self.process.name));
            }
        }
        lock(&self.waiting.0).clear();
    }
}

/// Sweeps now and then, begins months, and dies like everybody else.
async fn schedule(world: Arc<World>, jobs: Arc<Pool<Jobs>>) {
    loop {
        millis(world.dice(|dice| dice.u64(5_000..70_000))).await;
        let job = if world.dice(|dice| dice.u32(..3)) == 0 { Job::Reset } else { Job::Sweep };
        let (process, jobs) = jobs.any(&world);
        let name = process.name.clone();
        world.note(|| format!("{name} {job:?}"));
        let _ = tokio::time::timeout(Duration::from_secs(60), jobs.run(job)).await;
    }
}

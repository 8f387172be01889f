//! What everybody lives in: the database, the clock, the dice, and the record of what happened.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tenantry_domain::{Clock, KeyId, Millis, OrgId, plans::Plans};
use tenantry_host::{TABLE, dynamodb::Embedded};
use tenantry_store::{Store, TenantScope};
use tokio::time::Instant;

use crate::{
    oracle::Seen,
    queue::Letters,
    sabotage::{Sabotage, Saboteur},
    scenario::{PLANS, Scenario},
    wire,
};

/// A lock that a panic elsewhere does not close.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tenant of the simulation.
pub(crate) struct Tenant {
    pub(crate) scope: TenantScope,
    pub(crate) org: OrgId,
    /// The key without a budget, and the one with.
    pub(crate) keys: [(KeyId, String); 2],
}

/// Everything.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) engine: Embedded,
    pub(crate) plans: Plans,
    pub(crate) letters: Letters,
    pub(crate) saboteur: Option<Saboteur>,
    pub(crate) seen: Mutex<Seen>,
    pub(crate) tenants: Mutex<Vec<Arc<Tenant>>>,
    pub(crate) requests: AtomicU64,
    began: Instant,
    dice: Mutex<fastrand::Rng>,
    trace: Mutex<Vec<String>>,
    /// Nothing goes wrong any more.
    calm: AtomicBool,
    processes: AtomicU64,
}

impl World {
    pub(crate) fn new(scenario: Scenario, sabotage: Option<Sabotage>) -> Arc<Self> {
        let dice = Mutex::new(fastrand::Rng::with_seed(scenario.seed ^ 0x5eed));
        Arc::new(Self {
            engine: Embedded::in_memory().expect("SQLite"),
            plans: Plans::parse(PLANS).expect("plans"),
            letters: Letters::default(),
            saboteur: sabotage.map(Saboteur::new),
            seen: Mutex::default(),
            tenants: Mutex::default(),
            requests: AtomicU64::new(0),
            began: Instant::now(),
            dice,
            trace: Mutex::default(),
            // While tenants are made.
            calm: AtomicBool::new(true),
            processes: AtomicU64::new(0),
            scenario,
        })
    }

    pub(crate) fn dice<T>(&self, throw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        throw(&mut lock(&self.dice))
    }

    /// Whether what happens so many times in a thousand happens now.
    pub(crate) fn happens(&self, thousandths: u32) -> bool {
        !self.is_calm() && thousandths > 0 && self.dice(|dice| dice.u32(..1_000)) < thousandths
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub(crate) fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Millis {
        self.scenario.start + Millis::try_from(self.began.elapsed().as_millis()).expect("minutes")
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let at = self.began.elapsed();
        lock(&self.trace).push(format!("{:>9.3} {}", at.as_secs_f64(), what()));
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.trace))
    }

    /// Everything that is stored, as DynamoDB's JSON.
    pub(crate) fn items(&self) -> Vec<serde_json::Value> {
        self.engine.all_items(TABLE).expect("the engine")
    }
}

/// One environment of a function: a clock, a memory, and a life that can end between any two requests. What comes after its
/// last request is never seen by anybody, so a process that is dead hangs.
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    pub(crate) name: String,
    skew: Millis,
    requests: AtomicU64,
    dead: AtomicBool,
}

/// What becomes of a request to something outside of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Goes,
    /// The process died before it.
    Dead,
    /// The process dies when it was done.
    Dies,
}

impl Process {
    pub(crate) fn start(world: &Arc<World>, kind: &str) -> Arc<Self> {
        let number = world.processes.fetch_add(1, Ordering::SeqCst);
        let most = world.scenario.skew;
        let skew = if most == 0 { 0 } else { world.dice(|dice| dice.i64(-most..=most)) };
        let (requests, dead) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { world: world.clone(), name: format!("{kind}{number}"), skew, requests, dead })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(crate) fn store(self: &Arc<Self>) -> Store {
        Store::new(wire::client(self), TABLE, self.world.plans.clone(), self.clone() as Arc<dyn Clock>)
    }

    /// Called before every request.
    pub(crate) fn fate(&self) -> Fate {
        if self.is_dead() {
            return Fate::Dead;
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let executed =
            self.world.scenario.execution.filter(|(at, _)| *at == number && self.name.starts_with("gateway"));
        let executed = executed.filter(|_| !self.world.is_calm() && self.name.ends_with('1'));
        let after = match executed {
            Some((_, after)) => after,
            None if self.world.happens(self.world.scenario.faults.kill) => self.world.dice(fastrand::Rng::bool),
            None => return Fate::Goes,
        };
        self.dead.store(true, Ordering::SeqCst);
        self.world.note(|| format!("{} dies {} request {number}", self.name, if after { "after" } else { "before" }));
        if after { Fate::Dies } else { Fate::Dead }
    }

    /// Waits for ever, when the process is dead.
    pub(crate) async fn alive(&self) {
        if self.is_dead() {
            pending::<()>().await;
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Clock for Process {
    fn now(&self) -> Millis {
        self.world.now() + self.skew
    }
}

/// Makes what a process of some kind is there for.
type Make<T> = dyn Fn(&Arc<Process>) -> T + Send + Sync;

/// Processes of one kind; a dead one is replaced when it is wanted next.
pub(crate) struct Pool<T> {
    kind: &'static str,
    size: usize,
    make: Box<Make<T>>,
    running: Mutex<BTreeMap<usize, (Arc<Process>, T)>>,
}

impl<T: Clone> Pool<T> {
    pub(crate) fn new(
        kind: &'static str,
        size: usize,
        make: impl Fn(&Arc<Process>) -> T + Send + Sync + 'static,
    ) -> Self {
        Self { kind, size, make: Box::new(make), running: Mutex::default() }
    }

    /// Any of them.
    pub(crate) fn any(&self, world: &Arc<World>) -> (Arc<Process>, T) {
        let index = world.dice(|dice| dice.usize(..self.size));
        let mut running = lock(&self.running);
        if let Some((process, made)) = running.get(&index).filter(|(process, _)| !process.is_dead()) {
            return (process.clone(), made.clone());
        }
        let process = Process::start(world, self.kind);
        let made = (self.make)(&process);
        running.insert(index, (process.clone(), made.clone()));
        (process, made)
    }
}

/// A wait of so many milliseconds.
pub(crate) async fn millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

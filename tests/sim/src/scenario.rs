//! What a seed decides before anything runs: who calls when, what goes wrong how often, where in the month it is.

use std::time::Duration;

use tenantry_domain::{Millis, Period};

/// The plans of the simulation: small enough to run out.
pub(crate) const PLANS: &str = r#"
version = 1
[[plan]]
id = "small"
name = "Small"
features = []
[plan.limits]
messages = 9
llm_tokens = 3_000
images = 1
api_calls = 14
requests_per_minute = 120
burst = 6
in_flight = 3
bots = 1
members = 3
keys = 5
[[plan]]
id = "large"
name = "Large"
features = []
[plan.limits]
messages = 30
llm_tokens = 12_000
images = 1
api_calls = 60
requests_per_minute = 600
in_flight = 12
bots = 1
members = 3
keys = 5
[[plan]]
id = "endless"
name = "Endless"
features = []
[plan.limits]
messages = "unlimited"
llm_tokens = 9_000
images = 1
api_calls = "unlimited"
requests_per_minute = 6_000
in_flight = 12
bots = 1
members = 3
keys = 5
[[package]]
id = "some"
name = "Some credits"
credits = 700
price = { cny = 100 }
"#;

/// The names of the plans.
pub(crate) const PLAN_IDS: [&str; 3] = ["small", "large", "endless"];

/// The models: one that the plan covers, one that costs credits as well, one for embeddings.
pub(crate) const CATALOGUE: &str = r#"
[[vendor]]
id = "sim"
name = "Simulated"
base_url = "https://vendor.example/v1"
base_url_env = "SIM_BASE_URL"
api_key_env = "SIM_API_KEY"
[[model]]
id = "covered"
vendor = "sim"
kind = "chat"
context_tokens = 20_000
max_output_tokens = 400
cost = { input = 500_000, output = 1_500_000 }
[[model]]
id = "priced"
vendor = "sim"
kind = "chat"
context_tokens = 20_000
max_output_tokens = 400
cost = { input = 500_000, output = 1_500_000 }
price = { input = 500_000, output = 1_000_000 }
[[model]]
id = "vectors"
vendor = "sim"
kind = "embedding"
context_tokens = 8_000
cost = { input = 20_000 }
"#;

/// Longest time a vendor has, in seconds.
pub(crate) const CALL_SECONDS: u64 = 60;

/// What the vendor does with a call.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// It answers after a while.
    Answer { after: Duration, usage: Reported },
    /// It refuses with a status.
    Refuse { status: u16 },
    /// It cannot be reached.
    Unreachable,
    /// It never answers.
    Stall,
    /// The answer breaks off after so many pieces; none when the first is an error.
    Break { pieces: u64, how: Break },
}

/// How an answer ends before its time. Whole answers break as if the connection had.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Break {
    /// With an error of the vendor's.
    Error,
    /// The connection closes.
    Cut,
    /// Nothing comes any more.
    Silence,
}

/// What the vendor says was used.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reported {
    /// What was used.
    Right,
    /// More than was held, within what a model can do.
    TooMuch,
    /// What no model can do.
    Absurd,
    /// Nothing.
    Missing,
}

/// What the client does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// It waits for the end.
    Whole,
    /// It leaves after a while.
    Leaves(Duration),
    /// It leaves after so many pieces of a stream.
    LeavesAfter(usize),
}

/// One call of a client.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) tenant: usize,
    /// With the key that has a budget.
    pub(crate) budgeted: bool,
    pub(crate) model: &'static str,
    pub(crate) stream: bool,
    /// Words of the prompt.
    pub(crate) words: u64,
    /// Words of the answer.
    pub(crate) answer: u64,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) script: Script,
    pub(crate) patience: Patience,
}

/// Something else that happens to a tenant.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Its plan changes.
    Plan { plan: &'static str, version: u64 },
    /// An order of credits is paid; the vendor tells so many times at least.
    Paid { times: u32 },
    /// Credits are taken back.
    Clawback { amount: u64 },
    /// Its meter gets more shards, or fewer.
    Shards { shards: u8 },
}

/// How often what goes wrong, in thousandths of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// An error before anything happened.
    pub(crate) before: u32,
    /// It happened, and the answer was lost.
    pub(crate) lost: u32,
    /// The same, of reservations alone.
    pub(crate) unheard: u32,
    /// An error of what only reads.
    pub(crate) reads: u32,
    /// Refused for being too much.
    pub(crate) throttled: u32,
    /// Refused because somebody else was at the item.
    pub(crate) conflict: u32,
    /// It takes seconds.
    pub(crate) slow: u32,
    /// The process dies.
    pub(crate) kill: u32,
    /// Queue: refuses, or takes the message and says no.
    pub(crate) queue: u32,
    /// Queue: delivers twice, or forgets that it was told that a batch is done.
    pub(crate) again: u32,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where it comes from.
    pub seed: u64,
    /// What plays it again.
    pub(crate) again: String,
    pub(crate) start: Millis,
    pub(crate) tenants: Vec<&'static str>,
    /// How many shards the first tenant's meter has, when it has several.
    pub(crate) shards: Option<u8>,
    pub(crate) calls: Vec<Call>,
    pub(crate) events: Vec<(Duration, usize, Event)>,
    pub(crate) faults: Faults,
    /// How far clocks are off at most, in milliseconds.
    pub(crate) skew: Millis,
    /// One process dies at its so-many-th request, before or after it happens.
    pub(crate) execution: Option<(u64, bool)>,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let tenants: Vec<_> = (0..dice.usize(1..=3)).map(|_| PLAN_IDS[dice.usize(..3)]).collect();
        // Half of them happen while the month turns.
        let turn = Period::of(1_795_176_000_000).end();
        let start = if dice.bool() { turn - dice.i64(2_000..150_000) } else { turn - 12 * 86_400_000 };
        // Some come all at once.
        let spread = if dice.u32(..3) == 0 { dice.u64(1_000..10_000) } else { dice.u64(10_000..180_000) };
        let calls = (0..dice.usize(8..=36)).map(|_| call(&mut dice, tenants.len(), spread)).collect();
        let mut events: Vec<_> = vec![];
        for _ in 0..dice.usize(0..=6) {
            let (at, tenant) = (Duration::from_millis(dice.u64(..spread)), dice.usize(..tenants.len()));
            let event = match dice.u32(..6) {
                0 | 1 => Event::Plan { plan: PLAN_IDS[dice.usize(..3)], version: events.len() as u64 + 1 },
                2 | 3 => Event::Paid { times: dice.u32(1..=3) },
                4 => Event::Clawback { amount: dice.u64(1..900) },
                _ => Event::Shards { shards: dice.u8(1..=4) },
            };
            events.push((at, tenant, event));
        }
        let rate = [0, 5, 20, 60, 200][dice.usize(..5)];
        let mut of = |most: u32| if most == 0 || dice.u32(..3) == 0 { 0 } else { dice.u32(..=most.min(500)) };
        let faults = Faults {
            before: of(rate),
            lost: of(rate),
            unheard: 0,
            reads: 0,
            throttled: of(rate),
            conflict: of(rate),
            slow: of(rate),
            kill: of(rate / 3),
            queue: of(rate * 3),
            again: of(rate * 8),
        };
        let skew = [0, 0, 800, 4_000][dice.usize(..4)];
        let shards = dice.bool().then(|| dice.u8(2..=4));
        let again = format!("cargo xtask sim --from {seed} --seeds 1 --trace");
        Self { seed, again, start, tenants, shards, calls, events, faults, skew, execution: None }
    }

    /// The scenario of a seed in which much happens at once, the month turns and everything goes wrong often: a mistake in
    /// the protocol is noticed after a few of these.
    #[must_use]
    pub fn rough(seed: u64) -> Self {
        let calm = Self::seeded(seed);
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x0bad);
        let faults = Faults {
            before: 20,
            lost: 60,
            unheard: 0,
            reads: 0,
            throttled: 10,
            conflict: 30,
            slow: 60,
            kill: 25,
            queue: 80,
            again: 400,
        };
        let spread = dice.u64(3_000..20_000);
        let tenants = calm.tenants.len();
        let calls = (0..40).map(|_| call(&mut dice, tenants, spread)).collect();
        let at = |dice: &mut fastrand::Rng| Duration::from_millis(dice.u64(..spread));
        let mut events: Vec<_> =
            calm.events.into_iter().map(|(_, tenant, event)| (at(&mut dice), tenant, event)).collect();
        events.push((at(&mut dice), dice.usize(..tenants), Event::Paid { times: 3 }));
        let start = Period::of(1_795_176_000_000).end() - dice.i64(1_000..12_000);
        let again = format!("{} --rough", calm.again);
        Self { again, start, calls, events, faults, ..calm }
    }

    /// The scenario of a seed in which one thing goes wrong and nothing else: every third reservation is made without its
    /// maker hearing of it, or three of five reads fail. What is held is used or given back, and never expires.
    #[must_use]
    pub fn unheard(seed: u64) -> Self {
        let scenario = Self::seeded(seed);
        let again = format!("{} --unheard", scenario.again);
        let (unheard, reads) = if seed.is_multiple_of(2) { (333, 0) } else { (0, 600) };
        Self { faults: Faults { unheard, reads, ..Faults::default() }, again, ..scenario }
    }

    /// Whether nothing goes wrong that could keep a hold from being settled, or given back.
    pub(crate) fn is_faultless(&self) -> bool {
        Faults { unheard: 0, reads: 0, ..self.faults } == Faults::default() && self.execution.is_none()
    }

    /// One tenant, a stream, a whole answer and embeddings, in which the process that serves them dies at its `request`-th
    /// request to something else, before or after that happens.
    #[must_use]
    pub fn execution(request: u64, after: bool) -> Self {
        let call = |at, model, stream, budgeted| Call {
            at: Duration::from_millis(at),
            tenant: 0,
            budgeted,
            model,
            stream,
            words: 20,
            answer: 12,
            max_tokens: Some(64),
            script: Script::Answer { after: Duration::from_millis(700), usage: Reported::Right },
            patience: Patience::Whole,
        };
        let calls = vec![
            call(1_000, "covered", true, false),
            call(1_200, "priced", false, false),
            call(1_900, "priced", true, true),
            call(2_000, "vectors", false, false),
            call(9_000, "covered", false, true),
        ];
        let start = Period::of(1_795_176_000_000).end() - 6_000;
        let (tenants, events) = (vec!["small"], vec![]);
        let execution = Some((request, after));
        let (again, faults) = (format!("Scenario::execution({request}, {after})"), Faults::default());
        Self { seed: 0, again, start, tenants, shards: None, calls, events, faults, skew: 0, execution }
    }
}

fn call(dice: &mut fastrand::Rng, tenants: usize, spread: u64) -> Call {
    let model = ["covered", "covered", "priced", "priced", "vectors"][dice.usize(..5)];
    let usage = match dice.u32(..8) {
        0 => Reported::TooMuch,
        1 => Reported::Absurd,
        2 => Reported::Missing,
        _ => Reported::Right,
    };
    let after = Duration::from_millis(dice.u64(1..6_000));
    let script = match dice.u32(..16) {
        0 => Script::Refuse { status: [400, 429, 500, 503][dice.usize(..4)] },
        1 => Script::Unreachable,
        2 => Script::Stall,
        3..=5 => {
            let how = [Break::Error, Break::Cut, Break::Silence][dice.usize(..3)];
            Script::Break { pieces: dice.u64(..6), how }
        }
        _ => Script::Answer { after, usage },
    };
    let patience = match dice.u32(..8) {
        0 => Patience::Leaves(Duration::from_millis(dice.u64(1..4_000))),
        1 => Patience::LeavesAfter(dice.usize(..4)),
        _ => Patience::Whole,
    };
    Call {
        at: Duration::from_millis(dice.u64(..spread)),
        tenant: dice.usize(..tenants),
        budgeted: dice.u32(..3) == 0,
        model,
        stream: model != "vectors" && dice.bool(),
        words: dice.u64(1..120),
        answer: dice.u64(..100),
        max_tokens: dice.bool().then(|| dice.u64(1..300)),
        script,
        patience,
    }
}

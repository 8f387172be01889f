//! What the functions cost on Lambda: from the start of the process to the first answer, fully received by a runtime API,
//! beside the same for hello-world functions in Rust, Node and Python; and the most memory they ever have.
//!
//! The runtime API, DynamoDB, the queues and the vendor are in this process, at addresses of 127.0.0.1. What a cold start
//! on Lambda has beyond this, it has for all of them alike: placing the environment, fetching the code, TLS. What it has
//! less of is processor: a whole core is here, whatever the memory.

mod subjects;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use tenantry_tests::{
    aws::Aws,
    event,
    function::{Function, Program, folder},
    platform::Tenant,
    upstream::{Upstream, VENDOR_KEY},
};

use crate::{Failure, gateway::PLANS, process::peak_memory};
use subjects::Subject;

/// What events of Stripe are signed with.
const WEBHOOK_SECRET: &str = "whsec_of_nobody";

/// How many starts, and of what.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Cold starts of each function
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Answers that stream at once from one gateway
    #[arg(long, default_value_t = 20)]
    streams: usize,
    /// How often they do
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// A Python that has awslambdaric
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Node
    #[arg(long, value_name = "FILE", default_value = "node")]
    node: PathBuf,
}

/// The account, the vendor and the tenant that all functions work for.
pub(crate) struct World {
    aws: Aws,
    upstream: Upstream,
    tenant: Tenant,
}

impl World {
    async fn make() -> Self {
        let aws = Aws::with_plans(PLANS).await;
        let tenant = aws.tenant("team").await;
        Self { aws, upstream: Upstream::start().await, tenant }
    }

    /// The release binary of a function, with its configuration.
    fn function(&self, name: &str) -> Program {
        Program::release(&format!("tenantry-{name}"))
            .variables(self.aws.variables())
            .variable("OPENAI_BASE_URL", &self.upstream.base_url())
            .variable("OPENAI_API_KEY", VENDOR_KEY)
            .variable("ALLOW_PRIVATE_UPSTREAMS", "true")
            .variable("STRIPE_SECRET_KEY", "sk_test_of_nobody")
            .variable("STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET)
            .silent()
    }

    /// A chat call whose answer has `words` words, ten in an event.
    fn chat(&self, directives: &str, words: usize) -> Value {
        let prompt = format!("{directives} /words {words} Write about the sea.");
        let body = json!({
            "model": "gpt-4.1-mini",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": words,
            "stream": true,
        });
        event::request(&Method::POST, "/api/v1/chat/completions", &self.tenant.api_key, &body)
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let world = World::make().await;
    let subjects = subjects::all(&world, &arguments.python, &arguments.node).await?;
    let mut measured: Vec<Starts> = subjects.iter().map(|_| Starts::default()).collect();
    // The first round fills the page cache, and is not counted.
    for round in 0..=arguments.starts {
        // In turns, so that whatever else the machine does falls upon all.
        for (subject, measured) in subjects.iter().zip(&mut measured) {
            let (took, peak) = start(subject, round).await.map_err(|error| format!("{}: {error}", subject.name))?;
            if round > 0 {
                measured.took.push(took);
                measured.peak.push(peak);
            }
        }
    }
    report(arguments, &subjects, &mut measured);

    let one = load(&world, 1, arguments.rounds * arguments.streams).await?;
    let many = load(&world, arguments.streams, arguments.rounds).await?;
    println!("\n| chat under load | answers, 400 words each | peak MB |");
    println!("|---|--:|--:|");
    for (streams, load) in [(1, one), (arguments.streams, many)] {
        println!("| {streams} at a time | {} | {:.1} |", load.answers, megabytes(load.peak));
    }
    Ok(())
}

/// What was seen of one subject's starts.
#[derive(Default)]
struct Starts {
    took: Vec<Duration>,
    peak: Vec<u64>,
}

/// One cold start: how long until the first answer was there, and the most memory until then.
async fn start(subject: &Subject, round: usize) -> Result<(Duration, u64), Failure> {
    let event = (subject.event)(round);
    let function = Function::start(&subject.program).await;
    let took = if subject.http {
        let reply = function.request(&event).await?;
        let took = function.started().elapsed();
        if !reply.status.is_success() {
            return Err(format!("it answered {}: {}", reply.status, reply.text()).into());
        }
        took
    } else {
        let answer = function.invoke(&event).await?;
        let took = function.started().elapsed();
        if answer["batchItemFailures"].as_array().is_some_and(|failures| !failures.is_empty()) {
            return Err(format!("it answered {answer}").into());
        }
        took
    };
    let peak = peak_memory(function.id())?;
    function.stop().await;
    Ok((took, peak))
}

struct Load {
    answers: usize,
    peak: u64,
}

/// One gateway, `rounds` times `streams` answers, all of which have begun before any goes on.
async fn load(world: &World, streams: usize, rounds: usize) -> Result<Load, Failure> {
    const WORDS: usize = 400;
    let chat = Function::start(&world.function("chat").concurrency(streams)).await;
    let event = world.chat("/hold", WORDS);
    let before = world.upstream.reported();
    for _ in 0..rounds {
        let begun = try_join_all((0..streams).map(|_| chat.begin(&event))).await?;
        world.upstream.wait_holding(streams).await;
        world.upstream.release();
        for reply in try_join_all(begun.into_iter().map(|response| response.whole())).await? {
            if reply.status != 200 || !reply.bytes.ends_with(b"data: [DONE]\n\n") {
                return Err(format!("chat answered {}: {}", reply.status, reply.text()).into());
            }
        }
    }
    let after = world.upstream.reported();
    let (answers, words) = (rounds * streams, after.completion_tokens - before.completion_tokens);
    if words != i64::try_from(answers * WORDS)? {
        return Err(format!("{answers} answers were asked for, and the vendor reported {words} words").into());
    }
    let peak = peak_memory(chat.id())?;
    chat.stop().await;
    Ok(Load { answers, peak })
}

fn report(arguments: &Arguments, subjects: &[Subject], measured: &mut [Starts]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; {} cold starts of each, in turns\n", arguments.starts);
    for starts in &mut *measured {
        starts.took.sort_unstable();
        starts.peak.sort_unstable();
    }
    let median = |index: usize| percentile(&measured[index].took, 50).as_secs_f64();
    println!(
        "| function | first event | median ms | p90 ms | × hello Rust | × hello Node | × hello Python | peak MB | binary MB |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for (index, (subject, starts)) in subjects.iter().zip(&*measured).enumerate() {
        let ratio = |hello: usize| median(index) / median(hello);
        println!(
            "| {} | {} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.1} | {} |",
            subject.name,
            subject.about,
            median(index) * 1000.0,
            percentile(&starts.took, 90).as_secs_f64() * 1000.0,
            ratio(subjects::RUST),
            ratio(subjects::NODE),
            ratio(subjects::PYTHON),
            megabytes(percentile(&starts.peak, 50)),
            size(subject),
        );
    }
}

fn percentile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Size of a function's binary; what is interpreted has none.
fn size(subject: &Subject) -> String {
    let file = subject.package.as_ref().map(|package| folder().join(package).join("bootstrap"));
    let file = file.and_then(|path| std::fs::metadata(path).ok());
    file.map_or_else(|| "–".to_owned(), |file| format!("{:.1}", megabytes(file.len())))
}

//! The functions that are started, each with the first event it gets.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{Clock as _, SystemClock};
use tenantry_payments::stripe::sign;
use tenantry_tests::{
    event,
    function::{Function, Program},
};

use super::{WEBHOOK_SECRET, World};
use crate::Failure;

/// Where the hello-world functions stand among the subjects.
pub(super) const RUST: usize = 0;
pub(super) const NODE: usize = 1;
pub(super) const PYTHON: usize = 2;

/// A function, and what it is asked.
pub(super) struct Subject {
    pub(super) name: String,
    /// What the event is, for the reader.
    pub(super) about: &'static str,
    pub(super) program: Program,
    /// The package in `target/lambda`, if it is one.
    pub(super) package: Option<String>,
    /// The first event of the process of a round.
    pub(super) event: Box<dyn Fn(usize) -> Value>,
    /// Whether the event is a request.
    pub(super) http: bool,
}

/// All of them, those of other languages first. Each of ours has something to do with DynamoDB or a queue.
pub(super) async fn all(world: &World, python: &Path, node: &Path) -> Result<Vec<Subject>, Failure> {
    let get = |path: &str, credential: &str| event::request(&Method::GET, path, credential, &Value::Null);
    let hello = get("/hello", "");
    let token = world.aws.access_token(&world.tenant);
    let key = &world.tenant.api_key;
    let ours = |name: &str, about, event: Value| Subject {
        name: name.to_owned(),
        about,
        program: world.function(name),
        package: Some(format!("tenantry-{name}")),
        event: Box::new(move |_| event.clone()),
        http: true,
    };
    let consumer = |name: &str, about, event: Box<dyn Fn(usize) -> Value>| Subject {
        event,
        http: false,
        ..ours(name, about, Value::Null)
    };
    let usage = usage_event(world).await?;
    Ok(vec![
        ours("hello", "hello", hello.clone()).called("hello, Rust"),
        Subject {
            name: format!("hello, Node {}", said(node, "-p", "process.versions.node")?),
            program: self::node(node)?,
            package: None,
            ..ours("hello", "hello", hello.clone())
        },
        Subject {
            name: format!("hello, Python {}", said(python, "-c", "import platform; print(platform.python_version())")?),
            program: self::python(python)?,
            package: None,
            ..ours("hello", "hello", hello)
        },
        ours("auth", "`GET …/auth/me`", get("/api/v1/auth/me", &token)),
        ours("tenants", "`GET …/organizations`", get("/api/v1/organizations", key)),
        ours("usage", "`GET …/usage/stats`", get("/api/v1/usage/stats", key)),
        ours("billing", "`GET …/subscriptions/current`", get("/api/v1/subscriptions/current", key)),
        Subject { event: Box::new(told), ..ours("webhooks", "an event of Stripe's", Value::Null) },
        ours("chat", "`GET …/models`", get("/api/v1/models", key)),
        ours("chat", "a streamed answer, metered", world.chat("", 100)),
        consumer("usage-aggregator", "a batch of one", Box::new(move |_| event::batch(&[("one", &usage)]))),
        consumer("quota-reset", "a job, fanned out", Box::new(|_| json!({"job": "sweep"}))),
        consumer("mailer", "a batch of one", Box::new(mail)),
    ])
}

impl Subject {
    fn called(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }
}

/// A usage event as the gateway sends it.
async fn usage_event(world: &World) -> Result<String, Failure> {
    let chat = Function::start(&world.function("chat")).await;
    chat.request(&world.chat("", 100)).await?;
    chat.stop().await;
    Ok(world.aws.sent().pop().ok_or("the gateway sent no usage event")?.body)
}

/// An event of its own for each round, about what nobody here bills: claimed, and marked as done.
fn told(round: usize) -> Value {
    let body = json!({
        "id": format!("evt_{round}"), "object": "event", "type": "plan.created", "created": 1, "livemode": false,
        "api_version": null, "data": {"object": {"object": "plan", "id": "gold"}},
    });
    let signature = sign(body.to_string().as_bytes(), WEBHOOK_SECRET, SystemClock.now());
    let mut event = event::request(&Method::POST, "/webhooks/stripe", "", &body);
    event["headers"]["stripe-signature"] = json!(signature);
    event["multiValueHeaders"]["stripe-signature"] = json!([signature]);
    event
}

/// A mail of its own for each round, or it would be a duplicate.
fn mail(round: usize) -> Value {
    let mail = json!({
        "id": format!("mail-{round}"), "language": "en", "to": format!("ada{round}@example.com"),
        "template": "verification", "data": {"name": "Ada", "token": "of-no-use", "valid_minutes": 30},
    });
    event::batch(&[("one", &mail.to_string())])
}

/// Node with a loop of our own: AWS's client has to be compiled.
fn node(node: &Path) -> Result<Program, Failure> {
    let node = PathBuf::from(said(node, "-p", "process.execPath")?);
    Ok(Program::new([node, hello().join("node/bootstrap.mjs")]).silent())
}

/// Python with AWS's client.
fn python(python: &Path) -> Result<Program, Failure> {
    let python = PathBuf::from(said(python, "-c", "import awslambdaric, sys; print(sys.executable)")?);
    let program = Program::new([python, "-m".into(), "awslambdaric".into(), "hello.handler".into()]);
    let folder = hello().join("python");
    // Nothing is written beside the sources; what was installed was compiled then.
    Ok(program.variable("PYTHONPATH", &folder.to_string_lossy()).variable("PYTHONDONTWRITEBYTECODE", "1").silent())
}

fn hello() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hello")
}

/// What an interpreter says to a line of its language.
fn said(program: &Path, flag: &str, line: &str) -> Result<String, Failure> {
    let output = Command::new(program).args([flag, line]).output();
    let output = output.map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    if !output.status.success() {
        let (program, why) = (program.display(), String::from_utf8_lossy(&output.stderr));
        return Err(format!("{program} will not do (`cargo xtask bench functions` brings one that will): {why}").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

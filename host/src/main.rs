//! `cargo run`: the platform on this machine.

use std::{fs, io::Write as _, net::Ipv4Addr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tenantry_domain::plans::{DEFAULT_PLANS, Plans};
use tenantry_host::{
    HostError, Options, Platform,
    demo::{self, Demo},
    sale::{self, Offer},
};
use tenantry_web::{
    config::Env,
    telemetry::{self, Format},
};
use tokio::net::TcpListener;

/// The whole of Tenantry on this machine: all routes on one port, an embedded DynamoDB, no AWS.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Port on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// Folder for data, keys and dev.json.
    #[arg(long, default_value = ".tenantry")]
    data_dir: PathBuf,
    /// Keep all data in memory; only dev.json is written.
    #[arg(long)]
    in_memory: bool,
    /// Plans to use instead of infra/plans.toml, in the same format.
    #[arg(long, value_name = "FILE")]
    plans: Option<PathBuf>,
    /// Where the double of Stripe sends its webhooks, instead of to this process.
    #[arg(long, value_name = "URL")]
    stripe_webhooks: Option<String>,
    /// Only put the plans up for sale at Stripe, whose key is in STRIPE_SECRET_KEY; may be repeated.
    #[arg(long)]
    put_up_for_sale: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let env = Env::process();
    telemetry::init(&env, if env.optional("LOG_FORMAT") == Some("json") { Format::Json } else { Format::Text });
    match run(Arguments::parse(), env).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenantry cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments, env: Env) -> Result<(), HostError> {
    let plans = read_plans(&arguments)?;
    if arguments.put_up_for_sale {
        return put_up_for_sale(plans, &env).await;
    }
    // The port first: nothing is made when it is taken.
    let address = (Ipv4Addr::LOCALHOST, arguments.port);
    let listener = TcpListener::bind(address).await.map_err(|error| HostError::Data {
        path: format!("port {}", arguments.port),
        why: format!("{error}. Choose another with --port."),
    })?;
    let site = format!("http://{}", listener.local_addr()?);
    let base_url = format!("{site}/api/v1");
    let mut options = Options::in_memory(plans, env);
    options.site = Some(site);
    options.stripe_webhooks.clone_from(&arguments.stripe_webhooks);
    options.data_dir = (!arguments.in_memory).then(|| arguments.data_dir.clone());
    let platform = Platform::start(options).await?;
    let demo = demo::prepare(&platform, &arguments.data_dir, arguments.in_memory, &base_url).await?;
    greet(&platform, &demo, &arguments);
    platform.serve(listener, shutdown()).await
}

fn read_plans(arguments: &Arguments) -> Result<Plans, HostError> {
    let Some(path) = &arguments.plans else {
        return Plans::parse(DEFAULT_PLANS).map_err(|error| HostError::Demo(error.to_string()));
    };
    let wrong = |why: String| HostError::Data { path: path.display().to_string(), why };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Plans::parse(&text).map_err(|error| wrong(error.to_string()))
}

async fn put_up_for_sale(plans: Plans, env: &Env) -> Result<(), HostError> {
    for Offer { plan, interval, price } in sale::put_up_for_sale(plans, env).await? {
        let amount = plan.price.usd(interval).unwrap_or_default();
        // They are for sale, whether or not anybody reads it.
        let _ = writeln!(std::io::stdout(), "{} by the {}: {amount} cents, {}", plan.id, interval.name(), price.id);
    }
    Ok(())
}

fn greet(platform: &Platform, demo: &Demo, arguments: &Arguments) {
    let Demo { base_url, api_key, email, password, .. } = demo;
    let site = base_url.trim_end_matches("/api/v1");
    let models = platform.models();
    let sandbox = "sandbox/echo";
    let (model, note) = if models.iter().any(|model| model == sandbox) {
        (sandbox, "only the offline model; set OPENAI_API_KEY, or OPENAI_BASE_URL, for real ones")
    } else if models.iter().any(|model| model == "gpt-5-mini") {
        ("gpt-5-mini", "see GET /api/v1/models")
    } else {
        (models.first().map_or("none", String::as_str), "see GET /api/v1/models")
    };
    let saved = arguments.data_dir.join("dev.json");
    let text = format!(
        "Tenantry is running.\n\n  \
         base URL   {base_url}\n  \
         API key    {api_key}\n  \
         sign in    {email}  {password}\n  \
         models     {count} ({note})\n  \
         docs       {site}/docs\n  \
         inbox      {site}/_dev/inbox\n  \
         payments   {payments}\n  \
         saved in   {saved}\n\n\
         Make the first call:\n\n  \
         curl {base_url}/chat/completions \\\n    \
         -H 'Authorization: Bearer {api_key}' \\\n    \
         -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'\n",
        count = models.len(),
        payments = match platform.stripe_sandbox() {
            Some(_) => format!("{site}/_dev/stripe and {site}/_dev/pay (test doubles; nobody pays)"),
            None => format!("by Stripe; {site}/_dev/pay is a test double"),
        },
        saved = saved.display(),
    );
    // Whoever reads along may have seen enough (`| head`); that is no reason to stop serving.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Resolves on Ctrl-C or SIGTERM.
async fn shutdown() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        } else {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
    eprintln!("Finishing what is in flight …");
}

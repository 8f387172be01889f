//! The double of Stripe that bills on a laptop as long as no key of Stripe's is configured. What it knows is kept beside
//! the data: the platform remembers customers and subscriptions, so their double must.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand;
use axum::Router;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tenantry_domain::{Clock, Millis};
use tenantry_sandbox::{
    AheadClock,
    stripe::{Sandbox, Settings, StripeSandbox},
};
use tenantry_web::config::Env;
use tokio::sync::watch;

use crate::{HostError, secrets::write_private};

/// How often a change is looked for that must be kept.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// What is kept.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// How far the clock was put ahead.
    ahead: Millis,
    /// As [`StripeSandbox::saved`] wrote it; empty before there was anything.
    account: String,
}

/// The double, with its file.
pub(crate) struct Double {
    sandbox: Sandbox,
    clock: Arc<AheadClock>,
    file: Option<PathBuf>,
    /// [`StripeSandbox::changes`] when it was kept last, and the clock's lead: turning it alone is a change too.
    kept: Mutex<(u64, Millis)>,
}

impl Double {
    /// The clock of a platform with data in `folder`, and the double when `env` has no key of Stripe's. Pages and webhooks
    /// of the double are at `site`.
    pub(crate) async fn open(
        clock: Arc<dyn Clock>,
        env: &Env,
        folder: Option<&Path>,
        mut settings: Settings,
    ) -> Result<(Arc<AheadClock>, Option<Arc<Self>>), HostError> {
        if env.optional("STRIPE_SECRET_KEY").is_some() {
            return Ok((Arc::new(AheadClock::new(clock, 0)), None));
        }
        let file = folder.map(|folder| folder.join("stripe.json"));
        let kept = file.as_deref().map_or_else(|| Ok(Kept::default()), read)?;
        let clock = Arc::new(AheadClock::new(clock, kept.ahead));
        // A process that was killed may have told the platform what it did not keep.
        settings.id_space = format!("{:x}", clock.now());
        let sandbox = if kept.account.is_empty() {
            StripeSandbox::new(clock.clone(), settings)
        } else {
            let restored = StripeSandbox::restored(clock.clone(), settings, &kept.account);
            restored.map_err(|_| damaged(file.as_deref().unwrap_or(Path::new("stripe.json"))))?
        };
        let sandbox = sandbox.serve().await?;
        let kept = Mutex::new((sandbox.changes(), clock.ahead()));
        let double = Self { sandbox, clock: clock.clone(), file, kept };
        Ok((clock, Some(Arc::new(double))))
    }

    /// The double itself.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Its API and pages, below `/_dev/stripe`.
    pub(crate) fn router(&self) -> Router {
        self.sandbox.mounted()
    }

    /// What a client of Stripe needs to speak to the double.
    pub(crate) fn variables(&self) -> [(String, String); 3] {
        [
            ("STRIPE_SECRET_KEY", &self.sandbox.secret_key),
            ("STRIPE_BASE_URL", &self.sandbox.base_url),
            ("STRIPE_WEBHOOK_SECRETS", &self.sandbox.webhook_secret),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone()))
    }

    /// Keeps what changes, until `stop` says so.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        while tokio::time::timeout(KEEP_EVERY, stop.wait_for(|stop| *stop)).await.is_err() {
            let double = self.clone();
            // Writes a file, hence off the event loop.
            let written = tokio::task::spawn_blocking(move || double.keep()).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what the Stripe sandbox knows was not kept");
            }
        }
    }

    /// Writes down what has changed since it was written last.
    pub(crate) fn keep(&self) -> Result<(), HostError> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, ahead) = (self.sandbox.changes(), self.clock.ahead());
        if *kept == (changes, ahead) {
            return Ok(());
        }
        let now = Kept { ahead, account: self.sandbox.saved() };
        let text = serde_json::to_string(&now).map_err(|error| HostError::data(file, error))?;
        write_private(file, &text)?;
        *kept = (changes, ahead);
        Ok(())
    }
}

/// Where the double's pages are and where its webhooks go: at `site`, or elsewhere. The secret is new at every start,
/// because every attempt to deliver is signed anew.
pub(crate) fn settings(site: Option<&str>, webhooks: Option<String>) -> Result<Settings, HostError> {
    let mut secret = [0; 24];
    rand::fill(&mut secret).map_err(|_| HostError::Demo("no randomness".into()))?;
    Ok(Settings {
        webhook_secret: format!("whsec_{}", HEXLOWER.encode(&secret)),
        webhook_url: webhooks.or_else(|| Some(format!("{}/webhooks/stripe", site?))),
        public_url: site.unwrap_or_default().to_owned(),
        ..Settings::default()
    })
}

fn read(file: &Path) -> Result<Kept, HostError> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map_err(|_| damaged(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(HostError::data(file, error)),
    }
}

fn damaged(file: &Path) -> HostError {
    HostError::data(file, "is damaged. Move it away to bill with an empty double of Stripe.")
}

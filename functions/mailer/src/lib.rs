//! Mails from the queue to their recipients.
//!
//! A mail is sent once, however often it is delivered: who sends it claims it first, until the end of the run. Only
//! a process that dies between the sending and the note about it leaves a mail that is sent again.
//!
//! | what happens | what becomes of the mail |
//! |---|---|
//! | the address cannot be written to, or the mail is refused for good | dropped, an error in the log |
//! | the recipient had [`HOURLY`] of the kind within the hour | dropped, a warning in the log |
//! | SES is busy, out of quota or paused; the database does not answer | delivered again; after five times a dead letter |
//! | the message is no mail, or lacks something | the same: somebody has to look |

mod sender;
mod template;

use std::sync::Arc;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::LambdaEvent;
use tenantry_domain::Millis;
use tenantry_store::{MailClaim, Store, StoreError};
use tenantry_web::{
    config::{self, ConfigError, Env},
    mail::{Content, Mail},
    queue::{self, Failures, Message},
    telemetry,
};

pub use sender::{Mailer, Outbox, SendError, Ses};
pub use template::{Letter, Site, TemplateError};

/// Mails of one template that one address gets in an hour. Whoever asks for more is not its owner.
pub const HOURLY: u32 = 5;

/// How often the note that a mail was sent is tried: without it a redelivery would send the mail again.
const NOTE_TRIES: usize = 3;

/// What it takes to send mails.
#[derive(Clone)]
pub struct State {
    store: Store,
    mailer: Arc<dyn Mailer>,
    site: Site,
}

/// What became of a mail that needs no further delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on its way.
    Sent,
    /// It had been dealt with before.
    Duplicate,
    /// The recipient had enough of these.
    Throttled,
    /// It can never be sent.
    Rejected,
    /// It was never meant to be one.
    Nothing,
}

/// Why a mail is to be delivered again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The message is no mail.
    #[error("not a mail: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The mail cannot be written.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another delivery is at it.
    #[error("another delivery is sending it")]
    Busy,
    /// Trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

impl State {
    /// From parts that were made elsewhere, as `host` does.
    #[must_use]
    pub fn new(store: Store, mailer: Arc<dyn Mailer>, site: Site) -> Self {
        Self { store, mailer, site }
    }

    /// From `TABLE_NAME`, `MAIL_FROM` and `PUBLIC_URL`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let site = Site::from_env(env)?;
        let ses = Ses::new(aws_sdk_sesv2::Client::new(env.aws()), site.from());
        Ok(Self::new(config::store(env)?, Arc::new(ses), site))
    }

    /// Sends one mail, unless that is done, under way, or too much. A claim ends at `until` at the latest.
    ///
    /// # Errors
    /// [`Failure`]; the mail is to be delivered again.
    pub async fn send(&self, mail: &Mail, until: Millis) -> Result<Outcome, Failure> {
        if mail.content == (Content::Nothing {}) {
            return Ok(Outcome::Nothing);
        }
        // Before anything is claimed or counted: half a mail never becomes a whole one.
        let letter = self.site.write(mail)?;
        match self.store.claim_mail(&mail.id, until).await? {
            MailClaim::Done => return Ok(Outcome::Duplicate),
            MailClaim::Busy => return Err(Failure::Busy),
            // A mail counts once, not each time it is tried.
            MailClaim::First => {
                if !self.store.count_mail(&mail.to, mail.content.template(), HOURLY).await? {
                    self.note(mail).await;
                    return Ok(Outcome::Throttled);
                }
            }
            MailClaim::Again => {}
        }
        match self.mailer.send(&letter).await {
            Ok(()) => {
                self.note(mail).await;
                Ok(Outcome::Sent)
            }
            Err(SendError::Rejected(why)) => {
                tracing::error!(mail = mail.id, template = mail.content.template(), why, "a mail was refused for good");
                self.note(mail).await;
                Ok(Outcome::Rejected)
            }
            Err(SendError::Unavailable(why)) => {
                if let Err(error) = self.store.release_mail(&mail.id).await {
                    tracing::warn!(mail = mail.id, %error, "the claim on a mail ends only with its time");
                }
                Err(Failure::Unavailable(why))
            }
        }
    }

    /// A mail without this note is sent again only if the queue repeats it, so a failure is no reason to
    /// have it repeated.
    async fn note(&self, mail: &Mail) {
        for _ in 0..NOTE_TRIES {
            match self.store.finish_mail(&mail.id).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(mail = mail.id, %error, "a mail could not be noted as done"),
            }
        }
    }
}

impl Failure {
    /// Whether no delivery will ever do.
    const fn is_poison(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Template(_))
    }
}

/// Sends a batch. Returns what failed, and how many mails were rejected.
pub async fn deliver(state: &State, batch: &[Message], until: Millis) -> (Failures, u64) {
    let (mut failures, mut rejected) = (Failures::default(), 0);
    for message in batch {
        let sent = match serde_json::from_str::<Mail>(&message.body) {
            Ok(mail) => state.send(&mail, until).await.map(|outcome| (mail, outcome)),
            Err(error) => Err(error.into()),
        };
        match sent {
            Ok((mail, Outcome::Throttled)) => {
                tracing::warn!(mail = mail.id, template = mail.content.template(), "dropped: too many of these mails");
            }
            Ok((mail, outcome)) => {
                rejected += u64::from(outcome == Outcome::Rejected);
                tracing::info!(mail = mail.id, template = mail.content.template(), ?outcome, "mail");
            }
            Err(error) => {
                tracing::error!(message_id = message.id, %error, "a mail was not sent, and will be delivered again");
                let list = if error.is_poison() { &mut failures.poison } else { &mut failures.again };
                list.push(message.id.clone());
            }
        }
    }
    (failures, rejected)
}

/// The Lambda handler: one SQS batch, with the failed messages named (`ReportBatchItemFailures`).
///
/// # Errors
/// When a message failed that has no id to name it by; then SQS delivers the whole batch again.
pub async fn handle(state: &State, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, &'static str> {
    let LambdaEvent { payload, context } = event;
    // By then this run is over, one way or another.
    let until = Millis::try_from(context.deadline).unwrap_or(Millis::MAX);
    let (failures, rejected) = deliver(state, &queue::messages(payload), until).await;
    if rejected > 0 {
        telemetry::metric(state.store.now(), "MailsRejected", rejected);
    }
    queue::answer(failures)
}

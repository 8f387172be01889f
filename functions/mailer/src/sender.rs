//! What takes a finished letter: SES, or a box to look into.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use aws_sdk_sesv2::{
    Client,
    error::{BuildError, DisplayErrorContext},
    operation::send_email::SendEmailError,
    types::{Body, Content, Destination, EmailContent, Message},
};
use tenantry_web::queue::BoxFuture;

use crate::Letter;

/// Why a letter was not taken. The texts are for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It never will be.
    #[error("refused for good: {0}")]
    Rejected(String),
    /// It may be later.
    #[error("not taken now: {0}")]
    Unavailable(String),
}

/// What takes letters.
pub trait Mailer: Send + Sync + 'static {
    /// Takes one letter.
    ///
    /// # Errors
    /// [`SendError`].
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), SendError>>;
}

/// Amazon SES.
pub struct Ses {
    client: Client,
    from: String,
}

impl Ses {
    /// Sends in the name of `from`, an address of a verified identity.
    #[must_use]
    pub fn new(client: Client, from: &str) -> Self {
        Self { client, from: from.to_owned() }
    }

    async fn take(&self, letter: &Letter) -> Result<(), SendError> {
        let content = content(letter).map_err(|error| SendError::Rejected(error.to_string()))?;
        let to = Destination::builder().to_addresses(letter.to.as_str()).build();
        let send = self.client.send_email().from_email_address(&self.from).destination(to).content(content);
        let Err(error) = send.send().await else { return Ok(()) };
        let is_final = matches!(
            error.as_service_error(),
            Some(SendEmailError::BadRequestException(_) | SendEmailError::MessageRejected(_))
        );
        // The message may quote the address, which the log must not have.
        let why = DisplayErrorContext(error).to_string().replace(letter.to.as_str(), "<recipient>");
        // All else is about the account or the moment, and a letter can wait until that is mended.
        Err(if is_final { SendError::Rejected(why) } else { SendError::Unavailable(why) })
    }
}

fn content(letter: &Letter) -> Result<EmailContent, BuildError> {
    let part = |data: &str| Content::builder().data(data).charset("UTF-8").build();
    let body = Body::builder().text(part(&letter.text)?).html(part(&letter.html)?).build();
    let message = Message::builder().subject(part(&letter.subject)?).body(body).build();
    Ok(EmailContent::builder().simple(message).build())
}

impl Mailer for Ses {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(self.take(letter))
    }
}

/// Keeps the last letters instead of sending them, for a laptop and for tests.
#[derive(Debug, Default)]
pub struct Outbox(Mutex<VecDeque<Letter>>);

impl Outbox {
    /// How many letters are kept.
    const CAPACITY: usize = 100;

    /// The letters, oldest first.
    #[must_use]
    pub fn letters(&self) -> Vec<Letter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Mailer for Outbox {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), SendError>> {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() >= Self::CAPACITY {
            letters.pop_front();
        }
        letters.push_back(letter.clone());
        Box::pin(async { Ok(()) })
    }
}

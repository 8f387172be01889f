//! Notifications: made when something happens, signed when they leave, repeated until the shop takes them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Serialize;
use serde_json::Value;
use tenantry_domain::{Clock, Millis, time::rfc3339};
use tokio::sync::{Notify, watch};

/// The vendors give a shop five seconds, roughly.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer that is longer is not read to the end.
const LONGEST_ANSWER: usize = 4096;
/// How long the deliverer sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How a vendor puts a notification into words.
pub(crate) trait Seal: Send + Sync + 'static {
    /// Signed now.
    fn seal(&self, letter: &Letter, now: Millis) -> (HeaderMap, Bytes);
    /// Does this answer end the repetitions?
    fn is_taken(&self, status: u16, body: &[u8]) -> bool;
    /// Seconds from each attempt to the next.
    fn schedule(&self) -> &'static [u64];
}

/// A notification before it is put into words.
pub(crate) struct Letter {
    /// The same in every repetition.
    pub(crate) id: String,
    pub(crate) order: String,
    /// For people: what happened.
    pub(crate) event: String,
    pub(crate) url: String,
    pub(crate) content: Value,
    pub(crate) made_at: Millis,
    due: Millis,
    attempts: usize,
    progress: Progress,
    last_answer: Option<String>,
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It will be sent when it is due.
    Waiting,
    /// A test took it to deliver it itself.
    Taken,
    /// The shop said that it has it.
    Delivered,
    /// The vendor has stopped trying.
    GivenUp,
}

/// A notification as the controls list it.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The same in every repetition.
    pub id: String,
    /// The shop's number of the order.
    pub order: String,
    /// What happened.
    pub event: String,
    /// Where it goes.
    pub url: String,
    /// What became of it.
    pub progress: Progress,
    /// How often it was sent.
    pub attempts: usize,
    /// When it is sent next.
    pub due: String,
    /// What the shop said last.
    pub last_answer: Option<String>,
}

/// A notification in the words of the vendor, signed.
#[derive(Clone)]
pub struct Delivery {
    /// The same in every repetition.
    pub id: String,
    /// Where it goes.
    pub url: String,
    /// With the signature, where the vendor puts it there.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

impl Delivery {
    /// The request that the vendor would make.
    ///
    /// # Errors
    /// When the shop's address is none.
    pub fn request(&self) -> Result<Request<Bytes>, http::Error> {
        let mut request = Request::builder().method(Method::POST).uri(&self.url).body(self.body.clone())?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }
}

/// All notifications of a double, in the order in which they leave.
pub struct Outbox {
    seal: Box<dyn Seal>,
    clock: Arc<dyn Clock>,
    speed: u64,
    letters: Mutex<Vec<Letter>>,
    changed: Notify,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    pub(crate) fn new(seal: impl Seal, clock: Arc<dyn Clock>, speed: u64) -> Self {
        Self {
            seal: Box::new(seal),
            clock,
            speed: speed.max(1),
            letters: Mutex::default(),
            changed: Notify::new(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(crate) fn push(&self, id: String, order: &str, event: &str, url: &str, content: Value) {
        let now = self.clock.now();
        self.letters().push(Letter {
            id,
            order: order.to_owned(),
            event: event.to_owned(),
            url: url.to_owned(),
            content,
            made_at: now,
            due: now,
            attempts: 0,
            progress: Progress::Waiting,
            last_answer: None,
        });
        self.changed.notify_one();
    }

    fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self, id: &str, edit: impl FnOnce(&mut Letter)) -> bool {
        let found = self.letters().iter_mut().find(|letter| letter.id == id).map(edit).is_some();
        self.changed.notify_one();
        found
    }

    fn sealed(&self, letter: &Letter) -> Delivery {
        let (headers, body) = self.seal.seal(letter, self.clock.now());
        Delivery { id: letter.id.clone(), url: letter.url.clone(), headers, body }
    }

    /// All notifications.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = |letter: &Letter| Listed {
            id: letter.id.clone(),
            order: letter.order.clone(),
            event: letter.event.clone(),
            url: letter.url.clone(),
            progress: letter.progress,
            attempts: letter.attempts,
            due: rfc3339(letter.due),
            last_answer: letter.last_answer.clone(),
        };
        self.letters().iter().map(listed).collect()
    }

    /// Takes what is due, signed now, for a test to deliver; the deliverer will not send it any more.
    pub fn take(&self) -> Vec<Delivery> {
        let now = self.clock.now();
        let mut letters = self.letters();
        let due = letters.iter_mut().filter(|letter| letter.progress == Progress::Waiting && letter.due <= now);
        due.map(|letter| {
            letter.progress = Progress::Taken;
            letter.attempts += 1;
            self.sealed(letter)
        })
        .collect()
    }

    /// A notification signed now; nothing changes.
    #[must_use]
    pub fn look_at(&self, id: &str) -> Option<Delivery> {
        self.letters().iter().find(|letter| letter.id == id).map(|letter| self.sealed(letter))
    }

    /// Sends it once more, whatever became of it. False when there is none.
    pub fn repeat(&self, id: &str) -> bool {
        self.delay(id, 0)
    }

    /// Sends it (again), but not before these milliseconds have passed. False when there is none.
    pub fn delay(&self, id: &str, millis: u64) -> bool {
        let due = self.clock.now().saturating_add_unsigned(millis);
        self.edit(id, |letter| {
            letter.progress = Progress::Waiting;
            letter.due = due;
            letter.attempts = 0;
        })
    }

    /// Puts these first, in this order. False, and nothing changes, when one does not exist.
    pub fn reorder(&self, ids: &[String]) -> bool {
        let mut letters = self.letters();
        if !ids.iter().all(|id| letters.iter().any(|letter| letter.id == *id)) {
            return false;
        }
        letters.sort_by_key(|letter| ids.iter().position(|id| *id == letter.id).unwrap_or(ids.len()));
        true
    }

    /// Sends one notification over HTTP now. False when there is none.
    pub async fn deliver(&self, id: &str) -> bool {
        let Some(delivery) = self.look_at(id) else { return false };
        let answer = self.post(&delivery).await;
        let taken = matches!(&answer, Ok((status, body)) if self.seal.is_taken(*status, body));
        let now = self.clock.now();
        self.edit(id, |letter| {
            letter.last_answer = Some(match &answer {
                Ok((status, body)) => {
                    format!("{status} {}", String::from_utf8_lossy(body).chars().take(200).collect::<String>())
                }
                Err(error) => error.clone(),
            });
            letter.attempts += 1;
            match self.seal.schedule().get(letter.attempts - 1) {
                _ if taken => letter.progress = Progress::Delivered,
                Some(seconds) => {
                    letter.progress = Progress::Waiting;
                    letter.due = now.saturating_add_unsigned((seconds * 1000 / self.speed).max(1));
                }
                None => letter.progress = Progress::GivenUp,
            }
        })
    }

    /// Sends over HTTP what is due, one after the other, and says how many that were.
    pub async fn deliver_due(&self) -> usize {
        let now = self.clock.now();
        let is_due = |letter: &&Letter| letter.progress == Progress::Waiting && letter.due <= now;
        let due: Vec<String> = self.letters().iter().filter(is_due).map(|letter| letter.id.clone()).collect();
        for id in &due {
            self.deliver(id).await;
        }
        due.len()
    }

    /// Delivers until told to stop.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            self.deliver_due().await;
            let now = self.clock.now();
            let waiting = |letter: &&Letter| letter.progress == Progress::Waiting;
            let next = self.letters().iter().filter(waiting).map(|letter| letter.due).min();
            let wait = next.map_or(LONGEST_SLEEP, |due| Duration::from_millis(due.saturating_sub(now).max(1).unsigned_abs()));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn post(&self, delivery: &Delivery) -> Result<(u16, Bytes), String> {
        let request = delivery.request().map_err(|error| error.to_string())?.map(Full::new);
        if request.uri().scheme_str() != Some("http") {
            return Err("the double speaks plain http only".to_owned());
        }
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

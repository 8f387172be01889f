//! Notifications: made when something happens, signed when they leave, repeated until the shop takes them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::{Clock, Millis, time::rfc3339};
use tokio::sync::{Notify, watch};

use super::Vendor;

/// The vendors give a shop five seconds, roughly.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer that is longer is not read to the end.
const LONGEST_ANSWER: usize = 4096;
/// How long the deliverer sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How a notification looks. All but the first two are what a shop has to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disguise {
    /// As the vendor sends it.
    #[default]
    Genuine,
    /// Signed with the certificate's key instead of the public key (WeChat Pay, to merchants who have both).
    Certificate,
    /// With the signature by which WeChat Pay tests whether signatures are checked. At Alipay: without a signature.
    Probe,
    /// Signed with somebody else's key.
    WrongKey,
    /// Naming a key that does not exist (WeChat Pay; Alipay's name none).
    UnknownSerial,
    /// Signed in time for nobody: ten minutes ago (WeChat Pay), three days ago (Alipay).
    Stale,
    /// Changed after it was signed.
    Altered,
}

/// How a vendor puts a notification into words.
pub(super) trait Seal: Send + Sync + 'static {
    fn vendor(&self) -> Vendor;
    /// Signed now.
    fn seal(&self, letter: &Letter, now: Millis, disguise: Disguise) -> (HeaderMap, Bytes);
    /// Does this answer end the repetitions?
    fn is_taken(&self, status: u16, body: &[u8]) -> bool;
    /// Seconds from each attempt to the next.
    fn schedule(&self) -> &'static [u64];
}

/// A notification before it is put into words.
pub(super) struct Letter {
    vendor: Vendor,
    /// The same in every repetition.
    pub(super) id: String,
    order: String,
    /// What happened: `payment` or `refund`.
    event: &'static str,
    url: String,
    /// In the vendor's words, before it is encrypted and signed.
    pub(super) content: Value,
    pub(super) made_at: Millis,
    due: Millis,
    attempts: usize,
    progress: Progress,
    last_answer: Option<String>,
}

/// What is told to the [`Outbox`].
pub(super) struct NewLetter<'a> {
    pub(super) vendor: Vendor,
    pub(super) id: String,
    pub(super) order: &'a str,
    pub(super) event: &'static str,
    pub(super) url: &'a str,
    pub(super) content: Value,
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
    /// Whose it is.
    pub vendor: Vendor,
    /// The same in every repetition.
    pub id: String,
    /// The shop's number of the order.
    pub out_trade_no: String,
    /// What happened: `payment` or `refund`.
    pub event: &'static str,
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
pub struct SignedNotification {
    /// Whose it is.
    pub vendor: Vendor,
    /// The same in every repetition.
    pub id: String,
    /// The shop's number of the order.
    pub out_trade_no: String,
    /// What happened: `payment` or `refund`.
    pub event: &'static str,
    /// Where it goes.
    pub url: String,
    /// With the signature, where the vendor puts it there.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

impl fmt::Debug for SignedNotification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedNotification")
            .field("vendor", &self.vendor)
            .field("id", &self.id)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl SignedNotification {
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

/// All notifications of both doubles, in the order in which they leave.
pub(super) struct Outbox {
    seals: [Box<dyn Seal>; 2],
    clock: Arc<dyn Clock>,
    speed: u64,
    letters: Mutex<Vec<Letter>>,
    /// Nothing leaves by itself.
    held: AtomicBool,
    changed: Notify,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    pub(super) fn new(seals: [Box<dyn Seal>; 2], clock: Arc<dyn Clock>, speed: u64) -> Self {
        Self {
            seals,
            clock,
            speed: speed.max(1),
            letters: Mutex::default(),
            held: AtomicBool::new(false),
            changed: Notify::new(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(super) fn push(&self, letter: NewLetter<'_>) {
        let NewLetter { vendor, id, order, event, url, content } = letter;
        let now = self.clock.now();
        self.letters().push(Letter {
            vendor,
            id,
            order: order.to_owned(),
            event,
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

    /// Whether notifications wait to be sent by hand.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Makes them wait, or no longer.
    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn seal(&self, vendor: Vendor) -> Option<&dyn Seal> {
        self.seals.iter().find(|seal| seal.vendor() == vendor).map(|seal| &**seal)
    }

    fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self, id: &str, edit: impl FnOnce(&mut Letter)) -> bool {
        let found = self.letters().iter_mut().find(|letter| letter.id == id).map(edit).is_some();
        self.changed.notify_one();
        found
    }

    fn sealed(&self, letter: &Letter, disguise: Disguise) -> SignedNotification {
        let (headers, body) =
            self.seal(letter.vendor).map(|seal| seal.seal(letter, self.clock.now(), disguise)).unwrap_or_default();
        SignedNotification {
            vendor: letter.vendor,
            id: letter.id.clone(),
            out_trade_no: letter.order.clone(),
            event: letter.event,
            url: letter.url.clone(),
            headers,
            body,
        }
    }

    /// All notifications.
    pub(super) fn list(&self) -> Vec<Listed> {
        let listed = |letter: &Letter| Listed {
            vendor: letter.vendor,
            id: letter.id.clone(),
            out_trade_no: letter.order.clone(),
            event: letter.event,
            url: letter.url.clone(),
            progress: letter.progress,
            attempts: letter.attempts,
            due: rfc3339(letter.due),
            last_answer: letter.last_answer.clone(),
        };
        self.letters().iter().map(listed).collect()
    }

    /// Takes what is due, signed now, for a test to deliver; the deliverer will not send it any more.
    pub(super) fn take(&self) -> Vec<SignedNotification> {
        let now = self.clock.now();
        let mut letters = self.letters();
        let due = letters.iter_mut().filter(|letter| letter.progress == Progress::Waiting && letter.due <= now);
        due.map(|letter| {
            letter.progress = Progress::Taken;
            letter.attempts += 1;
            self.sealed(letter, Disguise::Genuine)
        })
        .collect()
    }

    /// A notification signed now; nothing changes.
    pub(super) fn look_at(&self, id: &str, disguise: Disguise) -> Option<SignedNotification> {
        self.letters().iter().find(|letter| letter.id == id).map(|letter| self.sealed(letter, disguise))
    }

    /// Sends it once more, whatever became of it. False when there is none.
    pub(super) fn repeat(&self, id: &str) -> bool {
        self.delay(id, 0)
    }

    /// Sends it (again), but not before these milliseconds have passed. False when there is none.
    pub(super) fn delay(&self, id: &str, millis: u64) -> bool {
        let due = self.clock.now().saturating_add_unsigned(millis);
        self.edit(id, |letter| {
            letter.progress = Progress::Waiting;
            letter.due = due;
            letter.attempts = 0;
        })
    }

    /// Puts these first, in this order. False, and nothing changes, when one does not exist.
    pub(super) fn reorder(&self, ids: &[String]) -> bool {
        let mut letters = self.letters();
        if !ids.iter().all(|id| letters.iter().any(|letter| letter.id == *id)) {
            return false;
        }
        letters.sort_by_key(|letter| ids.iter().position(|id| *id == letter.id).unwrap_or(ids.len()));
        true
    }

    /// Sends one notification over HTTP now. False when there is none.
    pub(super) async fn deliver(&self, id: &str, disguise: Disguise) -> bool {
        let Some(notification) = self.look_at(id, disguise) else { return false };
        let Some(seal) = self.seal(notification.vendor) else { return false };
        let answer = self.post(&notification).await;
        let taken = matches!(&answer, Ok((status, body)) if seal.is_taken(*status, body));
        let now = self.clock.now();
        self.edit(id, |letter| {
            letter.last_answer = Some(match &answer {
                Ok((status, body)) => {
                    format!("{status} {}", String::from_utf8_lossy(body).chars().take(200).collect::<String>())
                }
                Err(error) => error.clone(),
            });
            letter.attempts += 1;
            match seal.schedule().get(letter.attempts - 1) {
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
    pub(super) async fn deliver_due(&self) -> usize {
        let now = self.clock.now();
        let is_due = |letter: &&Letter| letter.progress == Progress::Waiting && letter.due <= now;
        let due: Vec<String> = self.letters().iter().filter(is_due).map(|letter| letter.id.clone()).collect();
        for id in &due {
            self.deliver(id, Disguise::Genuine).await;
        }
        due.len()
    }

    /// Delivers until told to stop.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if !self.is_held() {
                self.deliver_due().await;
            }
            let now = self.clock.now();
            let held = self.is_held();
            let waiting = |letter: &&Letter| !held && letter.progress == Progress::Waiting;
            let next = self.letters().iter().filter(waiting).map(|letter| letter.due).min();
            let wait =
                next.map_or(LONGEST_SLEEP, |due| Duration::from_millis(due.saturating_sub(now).max(1).unsigned_abs()));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn post(&self, notification: &SignedNotification) -> Result<(u16, Bytes), String> {
        let request = notification.request().map_err(|error| error.to_string())?.map(Full::new);
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

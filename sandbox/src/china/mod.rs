//! Doubles of WeChat Pay (API v3, native orders) and Alipay (`precreate`, `page.pay`): signed answers, signed
//! notifications, and a page on which a person pays with money that does not exist. They share no code with the clients
//! that they test.
//!
//! ```ignore
//! let china = ChinaSandbox::start(clock, "https://shop.example").await?;
//! // … a client made of china.wechat() creates the order …
//! china.pay(Vendor::WeChat, "ord_0001")?;
//! for notification in china.take_notifications() { /* in any order, as often as wanted */ }
//! ```

mod alipay;
mod book;
mod control;
mod fault;
mod keys;
mod outbox;
mod overview;
mod page;
mod settings;
mod time;
mod wechat;

use std::{fmt, net::Ipv4Addr, sync::Arc};

use axum::Router;
use serde::Serialize;
use tenantry_domain::Clock;
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};

pub use book::RefundOutcome;
use book::{Bill, Desk};
pub use fault::{Fault, Faults};
pub use outbox::{Disguise, Listed, Progress, SignedNotification};
use outbox::{Outbox, Seal};
pub use settings::{AlipaySettings, PlatformKeySettings, WeChatSettings};

/// How much faster than the vendors' the double's clock of repetitions runs: fifteen seconds are a quarter of one.
const SPEED: u64 = 60;

/// Who would take the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// WeChat Pay.
    WeChat,
    /// Alipay.
    Alipay,
}

impl Vendor {
    /// As paths write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeChat => "wechat",
            Self::Alipay => "alipay",
        }
    }

    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WeChat => "WeChat Pay",
            Self::Alipay => "Alipay",
        }
    }

    /// The vendor with this [`as_str`](Self::as_str).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::WeChat, Self::Alipay].into_iter().find(|vendor| vendor.as_str() == text)
    }
}

/// Why the doubles cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Nothing can be signed.
    #[error("the doubles have no keys: the system gives no randomness")]
    NoKeys,
    /// No port can be had.
    #[error("the doubles cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// Why something cannot be done to an order, in words for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Refusal(pub &'static str);

/// Both doubles. Cheap to clone; they forget everything when the last clone is dropped.
#[derive(Clone)]
pub struct ChinaSandbox(Arc<Inner>);

struct Inner {
    wechat: Arc<wechat::WeChat>,
    alipay: Arc<alipay::Alipay>,
    outbox: Arc<Outbox>,
    /// Dropped with the last clone, which ends the server of [`ChinaSandbox::start`].
    stop: watch::Sender<()>,
}

impl fmt::Debug for ChinaSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChinaSandbox").finish_non_exhaustive()
    }
}

impl ChinaSandbox {
    /// Doubles that somebody else serves ([`router`](Self::router)) at `site` (`http://127.0.0.1:8787`, without a slash at
    /// the end). Their clients want notifications at `{shop}/webhooks/wechat` and `{shop}/webhooks/alipay`. Makes the keys,
    /// which takes some tenths of a second.
    ///
    /// # Errors
    /// [`StartError::NoKeys`].
    pub fn new(clock: Arc<dyn Clock>, site: &str, shop: &str) -> Result<Self, StartError> {
        let keys = keys::Keys::make().map_err(|keys::NoKeys| StartError::NoKeys)?;
        let settings = settings::Settings::new(&keys, site, shop).map_err(|keys::NoKeys| StartError::NoKeys)?;
        let (wechat, alipay) = (Arc::new(settings.wechat), Arc::new(settings.alipay));
        let seals: [Box<dyn Seal>; 2] = [
            Box::new(wechat::WeChatSeal::new(keys.clone(), wechat.clone()).ok_or(StartError::NoKeys)?),
            Box::new(alipay::AlipaySeal::new(keys.clone(), alipay.clone())),
        ];
        let outbox = Arc::new(Outbox::new(seals, clock.clone(), SPEED));
        let wechat = wechat::WeChat::new(keys.clone(), wechat, outbox.clone(), clock.clone(), site);
        let alipay = alipay::Alipay::new(keys, alipay, outbox.clone(), clock, site);
        let (stop, _) = watch::channel(());
        Ok(Self(Arc::new(Inner { wechat: Arc::new(wechat), alipay: Arc::new(alipay), outbox, stop })))
    }

    /// Doubles that serve themselves, on a port of this machine, until the last clone is dropped. Notifications wait for
    /// [`take_notifications`](Self::take_notifications) or [`deliver_due`](Self::deliver_due).
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(clock: Arc<dyn Clock>, shop: &str) -> Result<Self, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let sandbox = Self::new(clock, &format!("http://{}", listener.local_addr()?), shop)?;
        let mut stopped = sandbox.0.stop.subscribe();
        // The routes know the doubles but not the whole, so that serving does not keep itself alive.
        let router = sandbox.router();
        tokio::spawn(async move {
            tokio::select! {
                _ = axum::serve(listener, router).into_future() => {}
                // Fails once the sender is dropped, which is what is waited for.
                _ = stopped.changed() => {}
            }
        });
        Ok(sandbox)
    }

    /// Everything below `/_dev/pay` (pages and controls), `/_dev/wechatpay` and `/_dev/alipay` (what the clients call).
    pub fn router(&self) -> Router {
        let desks: [Arc<dyn Desk>; 2] = [self.0.wechat.clone(), self.0.alipay.clone()];
        let pages = page::router(&desks).merge(control::router(&desks, &self.0.outbox));
        let pages = pages.merge(overview::router(&desks, &self.0.outbox));
        let guarded = pages.layer(axum::middleware::from_fn(crate::guard::local_only));
        guarded.merge(wechat::router(self.0.wechat.clone())).merge(alipay::router(self.0.alipay.clone()))
    }

    /// What a client of WeChat Pay is to be configured with.
    #[must_use]
    pub fn wechat(&self) -> &WeChatSettings {
        self.0.wechat.settings()
    }

    /// What a client of Alipay is to be configured with.
    #[must_use]
    pub fn alipay(&self) -> &AlipaySettings {
        self.0.alipay.settings()
    }

    /// The payer scans the code or opens the page, and looks. From here on Alipay has a trade.
    ///
    /// # Errors
    /// When there is no such order, or its code is not valid any more.
    pub fn scan(&self, vendor: Vendor, out_trade_no: &str) -> Result<(), Refusal> {
        self.desk(vendor).scan(out_trade_no).map(|_| ())
    }

    /// The payer scans (where that has not happened) and pays. Answers with the vendor's number of the payment.
    ///
    /// # Errors
    /// When it cannot be paid, any more or yet.
    pub fn pay(&self, vendor: Vendor, out_trade_no: &str) -> Result<String, Refusal> {
        self.desk(vendor).pay(out_trade_no)
    }

    /// The payer scans and the bank says no. The order stays payable.
    ///
    /// # Errors
    /// When it could not have been paid either.
    pub fn decline(&self, vendor: Vendor, out_trade_no: &str) -> Result<(), Refusal> {
        self.desk(vendor).decline(out_trade_no)
    }

    /// What becomes of WeChat Pay's refunds from now on; [`RefundOutcome::Success`] unless told. Alipay's are done at once.
    pub fn set_refund_outcome(&self, outcome: RefundOutcome) {
        self.0.wechat.set_refund_outcome(outcome);
    }

    /// Ends a refund of WeChat Pay that is processing.
    ///
    /// # Errors
    /// When there is none.
    pub fn settle_refund(&self, out_refund_no: &str, outcome: RefundOutcome) -> Result<(), Refusal> {
        self.0.wechat.settle_refund(out_refund_no, outcome)
    }

    /// Takes the notifications that are due, in the order in which they came about, signed now: the caller delivers them.
    pub fn take_notifications(&self) -> Vec<SignedNotification> {
        self.0.outbox.take()
    }

    /// All notifications ever, and what became of them.
    #[must_use]
    pub fn notifications(&self) -> Vec<Listed> {
        self.0.outbox.list()
    }

    /// A notification signed anew, genuine or as somebody would forge it. Nothing changes. `None` when there is none.
    #[must_use]
    pub fn notification(&self, id: &str, disguise: Disguise) -> Option<SignedNotification> {
        self.0.outbox.look_at(id, disguise)
    }

    /// Sends over HTTP what is due, one after the other, and says how many that were.
    pub async fn deliver_due(&self) -> usize {
        self.0.outbox.deliver_due().await
    }

    /// Delivers, and repeats like the vendors but sixty times as fast, until told to stop.
    pub async fn run(&self, stop: watch::Receiver<bool>) {
        self.0.outbox.run(stop).await;
    }

    /// What goes wrong with a vendor's next calls.
    #[must_use]
    pub fn faults(&self, vendor: Vendor) -> &Faults {
        match vendor {
            Vendor::WeChat => self.0.wechat.faults(),
            Vendor::Alipay => self.0.alipay.faults(),
        }
    }

    fn desk(&self, vendor: Vendor) -> &dyn Desk {
        match vendor {
            Vendor::WeChat => &*self.0.wechat,
            Vendor::Alipay => &*self.0.alipay,
        }
    }
}

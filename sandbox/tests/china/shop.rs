//! A shop: both clients, made of the doubles' settings as the platform makes them, on one clock with the doubles.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use tenantry_domain::{Clock, Millis};
use tenantry_payments::{
    Event, HttpClient, NewOrder, NewRefund, Notification, Patience, Payment, PaymentError, Presentation, Receipt,
    RefundNotice, Show, Trade, TradeState, alipay::Alipay, alipay::AlipayConfig, wechat::WeChatConfig,
    wechat::WeChatPay,
};
use tenantry_sandbox::china::{ChinaSandbox, SignedNotification, Vendor};

/// 2026-11-20T12:00:00Z.
pub(crate) const NOON: Millis = 1_795_176_000_000;
pub(crate) const MINUTE: Millis = 60_000;
pub(crate) const HOUR: Millis = 60 * MINUTE;
pub(crate) const DAY: Millis = 24 * HOUR;
pub(crate) const ORDER: &str = "ord_00000001";

/// Stands still until it is turned.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, millis: Millis) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct Shop {
    pub(crate) china: ChinaSandbox,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) wechat: Payment,
    pub(crate) alipay: Payment,
}

/// Longer than any machine takes.
const PATIENCE: Patience = Patience { attempt: Duration::from_secs(30), attempts: 3, pause: Duration::ZERO };

/// For answers that never come. Who is cut off only because the machine is busy asks again, as often as it takes.
const HASTE: Patience = Patience { attempt: Duration::from_millis(250), attempts: 1_000, pause: Duration::ZERO };

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::notified_at("https://shop.example").await
    }

    /// Doubles that send their notifications to `site`.
    pub(crate) async fn notified_at(site: &str) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(NOON)));
        let china = ChinaSandbox::start(clock.clone(), site).await.unwrap();
        Self::new(china, clock, PATIENCE)
    }

    /// The same shop, which soon asks again.
    pub(crate) fn in_haste(self) -> Self {
        Self::new(self.china, self.clock, HASTE)
    }

    fn new(china: ChinaSandbox, clock: Arc<TestClock>, patience: Patience) -> Self {
        let mut wechat = WeChatConfig::from_json(&china.wechat().to_json()).unwrap();
        let mut alipay = AlipayConfig::from_json(&china.alipay().to_json()).unwrap();
        (wechat.patience, alipay.patience) = (patience, patience);
        let http = HttpClient::new();
        let wechat = Payment::WeChat(WeChatPay::new(wechat, http.clone(), clock.clone()).unwrap());
        let alipay = Payment::Alipay(Alipay::new(alipay, http, clock.clone()).unwrap());
        Self { china, clock, wechat, alipay }
    }

    pub(crate) fn both(&self) -> [(Vendor, &Payment); 2] {
        [(Vendor::WeChat, &self.wechat), (Vendor::Alipay, &self.alipay)]
    }

    pub(crate) const fn client(&self, vendor: Vendor) -> &Payment {
        match vendor {
            Vendor::WeChat => &self.wechat,
            Vendor::Alipay => &self.alipay,
        }
    }

    /// An order over 88.80 yuan that can be paid for half an hour.
    pub(crate) fn order<'a>(&self, number: &'a str) -> NewOrder<'a> {
        NewOrder {
            out_trade_no: number,
            amount: 8880,
            description: "一个月 Pro",
            expires_at: self.clock.now() + 30 * MINUTE,
            show: Show::QrCode,
        }
    }

    /// Creates that order and pays it; its notification is taken away. Answers with the vendor's number.
    pub(crate) async fn paid(&self, vendor: Vendor, number: &str) -> String {
        self.client(vendor).create(&self.order(number)).await.unwrap();
        let transaction = self.china.pay(vendor, number).unwrap();
        assert_eq!(self.china.take_notifications().len(), 1);
        transaction
    }

    pub(crate) async fn state(&self, vendor: Vendor, number: &str) -> TradeState {
        self.client(vendor).query(number).await.unwrap().state
    }

    pub(crate) fn read(&self, notification: &SignedNotification) -> Result<Notification, PaymentError> {
        let client = self.client(notification.vendor);
        client.parse_notification(&notification.headers, &notification.body)
    }

    /// The one notification that is due, read by the client that it is for.
    pub(crate) fn the_notification(&self) -> Notification {
        let taken = self.china.take_notifications();
        assert_eq!(taken.len(), 1, "{taken:?}");
        self.read(&taken[0]).unwrap()
    }
}

pub(crate) fn refund<'a>(order: &'a str, number: &'a str, amount: u64) -> NewRefund<'a> {
    NewRefund { out_trade_no: order, out_refund_no: number, amount, order_amount: 8880, reason: "按用户要求" }
}

pub(crate) fn trade(notification: Notification) -> Trade {
    let Event::Trade(trade) = notification.event else { panic!("{notification:?}") };
    trade
}

pub(crate) fn refund_notice(notification: Notification) -> RefundNotice {
    let Event::Refund(notice) = notification.event else { panic!("{notification:?}") };
    notice
}

pub(crate) fn receipt(state: &TradeState) -> &Receipt {
    let (TradeState::Paid(receipt) | TradeState::Refunded(receipt)) = state else { panic!("{state:?}") };
    receipt
}

pub(crate) fn code(shown: Presentation) -> String {
    let Presentation::QrCode(code) = shown else { panic!("{shown:?}") };
    code
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, PaymentError>) -> String {
    let Err(PaymentError::Refused { code, .. }) = result else { panic!("{result:?}") };
    code
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> String {
    headers[name].to_str().unwrap().to_owned()
}

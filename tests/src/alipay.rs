//! As much of Alipay as orders need, over real HTTP on a port of 127.0.0.1: QR codes, queries, closing, refunds, and
//! answers that are lost. It signs like the vendor. What payers do, tests do: [`Alipay::scan`], [`Alipay::pay`].

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use axum::{
    Router,
    extract::{Query, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use data_encoding::BASE64;
use http::StatusCode;
use serde_json::{Value, json};
use tenantry_domain::{Clock, Millis};
use tenantry_payments::{HttpClient, Patience, Payment, alipay, wechat};
use tenantry_store::Store;

/// Our app there.
pub const APP: &str = "2021000000000001";
/// Ourselves there.
pub const SELLER: &str = "2088000000000001";
/// Ourselves at WeChat Pay.
pub const MERCHANT: &str = "1900000001";
/// Our app at WeChat Pay.
pub const WECHAT_APP: &str = "wx0000000000000001";
/// When everything is paid, as Alipay writes it: noon in UTC.
const PAID: &str = "2026-11-20 20:00:01";

#[derive(Default, Clone)]
struct Trade {
    amount: String,
    status: &'static str,
    paid: bool,
    refunds: BTreeMap<String, u64>,
}

struct Shared {
    key: KeyPair,
    trades: Mutex<HashMap<String, Trade>>,
    loses_answers: AtomicBool,
    calls: AtomicU64,
}

/// The running vendor.
#[derive(Clone)]
pub struct Alipay {
    shared: Arc<Shared>,
    gateway: String,
    ours: String,
    theirs: String,
}

struct StoreClock(Store);

impl Clock for StoreClock {
    fn now(&self) -> Millis {
        self.0.now()
    }
}

impl Alipay {
    /// Starts it.
    pub async fn start() -> Self {
        let (key, app) = (generate(), generate());
        let private: Pkcs8V1Der<'_> = app.as_der().expect("a key");
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a key");
        let (ours, theirs) = (BASE64.encode(private.as_ref()), BASE64.encode(public.as_ref()));
        let (trades, loses_answers, calls) = (Mutex::default(), AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { key, trades, loses_answers, calls });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let gateway = format!("http://{}/gateway.do", listener.local_addr().expect("an address"));
        let router = Router::new().route("/gateway.do", post(call)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared, gateway, ours, theirs }
    }

    /// Our client of it, on the clock of `store`.
    #[must_use]
    pub fn client(&self, store: &Store) -> Payment {
        let config = alipay::AlipayConfig {
            app_id: APP.to_owned(),
            seller_id: SELLER.to_owned(),
            app_key: self.ours.clone(),
            alipay_keys: vec![self.theirs.clone()],
            notify_url: "http://127.0.0.1/webhooks/alipay".to_owned(),
            gateway: self.gateway.clone(),
            patience: once(),
        };
        let clock = Arc::new(StoreClock(store.clone()));
        Payment::Alipay(alipay::Alipay::new(config, HttpClient::new(), clock).expect("settings"))
    }

    /// A client of WeChat Pay that nobody answers: what it holds messages against.
    #[must_use]
    pub fn wechat_client(&self, store: &Store) -> Payment {
        let config = wechat::WeChatConfig {
            merchant: MERCHANT.to_owned(),
            app_id: WECHAT_APP.to_owned(),
            merchant_serial: "0A".to_owned(),
            merchant_key: self.ours.clone(),
            api_v3_key: "0".repeat(32),
            platform_keys: vec![wechat::PlatformKey { id: "PUB_KEY_ID_1".to_owned(), pem: self.theirs.clone() }],
            notify_url: "http://127.0.0.1/webhooks/wechat".to_owned(),
            base_url: self.gateway.replace("/gateway.do", ""),
            patience: once(),
        };
        let clock = Arc::new(StoreClock(store.clone()));
        Payment::WeChat(wechat::WeChatPay::new(config, HttpClient::new(), clock).expect("settings"))
    }

    /// Somebody scans the QR code of an order; from then on there is a trade.
    pub fn scan(&self, number: &str) {
        if let Some(trade) = self.shared.trades().get_mut(number).filter(|trade| trade.status.is_empty()) {
            trade.status = "WAIT_BUYER_PAY";
        }
    }

    /// And pays. Whether that could be done.
    pub fn pay(&self, number: &str) -> bool {
        self.scan(number);
        let mut trades = self.shared.trades();
        let Some(trade) = trades.get_mut(number).filter(|trade| trade.status == "WAIT_BUYER_PAY") else { return false };
        (trade.status, trade.paid) = ("TRADE_SUCCESS", true);
        true
    }

    /// From now on everything is done and not answered, or answered again.
    pub fn lose_answers(&self, lose: bool) {
        self.shared.loses_answers.store(lose, Ordering::SeqCst);
    }

    /// What was given back of an order, in fen, refund by refund.
    #[must_use]
    pub fn refunds(&self, number: &str) -> Vec<u64> {
        self.shared.trades().get(number).map(|trade| trade.refunds.values().copied().collect()).unwrap_or_default()
    }

    /// How often it was called.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }
}

/// No second tries: a test that loses answers would wait for them.
fn once() -> Patience {
    Patience { attempts: 1, attempt: Duration::from_secs(5), pause: Duration::ZERO }
}

fn generate() -> KeyPair {
    KeyPair::generate(KeySize::Rsa2048).expect("randomness")
}

impl Shared {
    fn trades(&self) -> MutexGuard<'_, HashMap<String, Trade>> {
        self.trades.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &str, content: &Value) -> Value {
        let text = |name: &str| content[name].as_str().unwrap_or_default().to_owned();
        let refused = |code: &str| json!({"code": "40004", "msg": "Business Failed", "sub_code": code, "sub_msg": ""});
        let number = text("out_trade_no");
        let mut trades = self.trades();
        if method == "alipay.trade.precreate" {
            let fresh = Trade { amount: text("total_amount"), ..Trade::default() };
            trades.entry(number.clone()).or_insert(fresh);
            let qr_code = format!("https://qr.alipay.com/{number}");
            return json!({"code": "10000", "out_trade_no": number, "qr_code": qr_code});
        }
        let Some(trade) = trades.get_mut(&number).filter(|trade| !trade.status.is_empty()) else {
            return refused("ACQ.TRADE_NOT_EXIST");
        };
        let fen = |yuan: &str| yuan.replace('.', "").parse::<u64>().expect("yuan");
        match method {
            "alipay.trade.query" => {
                let mut found = json!({
                    "code": "10000", "out_trade_no": number, "trade_no": format!("t_{number}"),
                    "trade_status": trade.status, "total_amount": trade.amount,
                });
                if trade.paid {
                    found["send_pay_date"] = PAID.into();
                }
                found
            }
            "alipay.trade.close" if trade.status == "WAIT_BUYER_PAY" => {
                trade.status = "TRADE_CLOSED";
                json!({"code": "10000", "out_trade_no": number})
            }
            "alipay.trade.refund" if trade.paid => {
                let (request, amount) = (text("out_request_no"), fen(&text("refund_amount")));
                let before: u64 = trade.refunds.values().sum();
                let known = trade.refunds.contains_key(&request);
                if !known && before + amount > fen(&trade.amount) {
                    return refused("ACQ.SELLER_BALANCE_NOT_ENOUGH");
                }
                trade.refunds.insert(request, amount);
                if !known && before + amount == fen(&trade.amount) {
                    trade.status = "TRADE_CLOSED";
                }
                json!({"code": "10000", "out_trade_no": number, "fund_change": if known { "N" } else { "Y" }})
            }
            "alipay.trade.fastpay.refund.query" => match trade.refunds.get(&text("out_request_no")) {
                None => json!({"code": "10000"}),
                Some(amount) => json!({
                    "code": "10000", "out_trade_no": number, "out_request_no": text("out_request_no"),
                    "refund_amount": tenantry_payments::yuan(*amount), "refund_status": "REFUND_SUCCESS",
                }),
            },
            _ => refused("ACQ.REASON_TRADE_STATUS_INVALID"),
        }
    }
}

async fn call(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    body: String,
) -> Response {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let method = &query["method"];
    let form = Query::<HashMap<String, String>>::try_from_uri(&format!("/?{body}").parse().expect("a form"));
    let content: Value = serde_json::from_str(&form.expect("a form")["biz_content"]).expect("JSON");
    let answer = shared.answer(method, &content).to_string();
    if shared.loses_answers.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let mut signature = vec![0; shared.key.public_modulus_len()];
    shared.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), answer.as_bytes(), &mut signature).expect("signing");
    let (name, sign) = (method.replace('.', "_"), BASE64.encode(&signature));
    format!(r#"{{"{name}_response":{answer},"sign":"{sign}"}}"#).into_response()
}

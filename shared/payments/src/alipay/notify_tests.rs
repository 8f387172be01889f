//! The real notification, to an app that expects it.

use std::sync::Arc;

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
};
use data_encoding::BASE64;
use tenantry_domain::{Clock, Millis};

use super::*;
use crate::{HttpClient, Patience, Payment, alipay::AlipayConfig, time::civil};

struct At(Millis);

impl Clock for At {
    fn now(&self) -> Millis {
        self.0
    }
}

/// 2019-08-15 15:56:25 in Beijing.
const SENT: Millis = 1_565_855_785_000;

fn vector() -> serde_json::Value {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../testdata/vectors.json")).unwrap();
    vectors["alipay_notify_rsa2"].clone()
}

fn app(now: Millis) -> Payment {
    let own = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let config = AlipayConfig {
        app_id: "2019073166072302".into(),
        seller_id: "2088531891668739".into(),
        app_key: BASE64.encode(own.as_der().unwrap().as_ref()),
        alipay_keys: vec![vector()["public_key_base64_der"].as_str().unwrap().to_owned()],
        notify_url: "https://example.com/webhooks/alipay".into(),
        gateway: super::super::GATEWAY.into(),
        patience: Patience::default(),
    };
    Payment::Alipay(Alipay::new(config, HttpClient::new(), Arc::new(At(now))).unwrap())
}

fn form() -> String {
    let params: sign::Params = serde_json::from_value(vector()["params"].clone()).unwrap();
    form_urlencoded::Serializer::new(String::new()).extend_pairs(&params).finish()
}

#[test]
fn the_real_notification_is_read_with_all_that_is_to_be_checked() {
    let app = app(SENT);
    let notification = app.parse_notification(&http::HeaderMap::new(), form().as_bytes()).unwrap();
    assert_eq!(notification.id, "2019081500222155624068450559358070");
    assert_eq!(notification.sent_at, SENT);
    let Event::Trade(trade) = notification.event else { panic!() };
    let expected = Trade {
        vendor: Vendor::Alipay,
        app_id: Some("2019073166072302".into()),
        merchant: Some("2088531891668739".into()),
        out_trade_no: "20190815155618536-564-57".into(),
        amount: Some(10),
        currency: "CNY".into(),
        state: TradeState::Paid(Receipt {
            vendor_transaction: "2019081522001468450512505578".into(),
            paid_at: Some(SENT - 1000),
        }),
    };
    assert_eq!(trade, expected);
    assert_eq!(app.expectation("20190815155618536-564-57", 10).check(&trade), Ok(()));
    assert!(app.expectation("20190815155618536-564-57", 11).check(&trade).is_err());
}

#[test]
fn it_is_believed_for_two_days() {
    let read = |now| app(now).parse_notification(&http::HeaderMap::new(), form().as_bytes());
    assert!(read(SENT + OLDEST_MILLIS).is_ok());
    assert!(matches!(read(SENT + OLDEST_MILLIS + 1), Err(PaymentError::BadSignature(_))));
    assert!(read(SENT - AHEAD_MILLIS).is_ok());
    assert!(matches!(read(SENT - AHEAD_MILLIS - 1), Err(PaymentError::BadSignature(_))));
    assert_eq!(civil(SENT), "2019-08-15 15:56:25");
}

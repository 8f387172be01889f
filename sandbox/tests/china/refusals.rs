//! Calls that no client of ours makes: the doubles refuse them in the vendors' shapes.

use std::collections::BTreeMap;

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{RSA_PKCS1_SHA256, UnparsedPublicKey},
};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tenantry_domain::{Clock as _, Millis};
use tenantry_payments::TradeState;
use tenantry_sandbox::china::Vendor;

use crate::{
    raw::{Answer, send},
    shop::{MINUTE, ORDER, Shop},
};

fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64.decode(lines.as_bytes()).unwrap()
}

/// A good key that nobody knows.
fn strangers_key() -> String {
    BASE64.encode(KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap().as_ref())
}

fn sign(pem: &str, text: &str) -> String {
    let key = KeyPair::from_pkcs8(&der(pem)).unwrap();
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    BASE64.encode(&signature)
}

/// A request to WeChat Pay, by hand.
struct Wire<'a> {
    shop: &'a Shop,
    method: &'static str,
    path: String,
    body: String,
    merchant: String,
    serial: String,
    at: Millis,
    scheme: &'static str,
    kind: &'static str,
}

impl<'a> Wire<'a> {
    fn new(shop: &'a Shop, method: &'static str, path: &str, body: &str) -> Self {
        let settings = shop.china.wechat();
        Self {
            shop,
            method,
            path: path.to_owned(),
            body: body.to_owned(),
            merchant: settings.merchant.clone(),
            serial: settings.merchant_serial.clone(),
            at: shop.clock.now(),
            scheme: "WECHATPAY2-SHA256-RSA2048",
            kind: "application/json",
        }
    }

    fn authorization(&self, key: &str) -> String {
        let at = self.at / 1000;
        let text = format!("{}\n/_dev/wechatpay{}\n{at}\nNONCE\n{}\n", self.method, self.path, self.body);
        format!(
            "{} mchid=\"{}\",serial_no=\"{}\",nonce_str=\"NONCE\",timestamp=\"{at}\",signature=\"{}\"",
            self.scheme,
            self.merchant,
            self.serial,
            sign(key, &text)
        )
    }

    async fn send(&self) -> Answer {
        self.send_with(&self.authorization(&self.shop.china.wechat().merchant_key), &self.body).await
    }

    async fn send_with(&self, authorization: &str, body: &str) -> Answer {
        let url = format!("{}{}", self.shop.china.wechat().base_url, self.path);
        let mut headers = vec![("content-type", self.kind), ("accept", "application/json")];
        if !authorization.is_empty() {
            headers.push(("authorization", authorization));
        }
        send(self.method, &url, &headers, body).await
    }
}

fn native(shop: &Shop) -> Value {
    let settings = shop.china.wechat();
    json!({
        "appid": settings.app_id, "mchid": settings.merchant, "out_trade_no": ORDER, "description": "x",
        "notify_url": "https://shop.example/webhooks/wechat", "amount": {"total": 1, "currency": "CNY"},
    })
}

/// Is it signed with the certificate, which is what one gets without asking?
fn signed_by_certificate(shop: &Shop, answer: &Answer) -> bool {
    let key = &shop.china.wechat().platform_keys[1];
    let (time, nonce) = (answer.header("wechatpay-timestamp"), answer.header("wechatpay-nonce"));
    let text = format!("{time}\n{nonce}\n{}\n", answer.text());
    let signature = BASE64.decode(answer.header("wechatpay-signature").as_bytes()).unwrap();
    let public = UnparsedPublicKey::new(&aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256, der(&key.pem));
    answer.header("wechatpay-serial") == key.id && public.verify(text.as_bytes(), &signature).is_ok()
}

#[tokio::test]
async fn wechat_believes_the_merchant_alone() {
    let shop = Shop::open().await;
    let body = native(&shop).to_string();
    let wire = || Wire::new(&shop, "POST", "/v3/pay/transactions/native", &body);
    let own = shop.china.wechat().merchant_key.clone();
    let right = wire().authorization(&own);
    let stale = Wire { at: shop.clock.now() - 5 * MINUTE - 1000, ..wire() };
    let early = Wire { at: shop.clock.now() + 5 * MINUTE + 1000, ..wire() };
    let stranger = Wire { merchant: "1900000002".to_owned(), ..wire() };
    let serial = Wire { serial: "00".to_owned(), ..wire() };
    let scheme = Wire { scheme: "WECHATPAY2-SM2-WITH-SM3", ..wire() };
    let path = Wire { path: "/v3/pay/transactions/native?x=1".to_owned(), ..wire() };
    let other_key = wire().authorization(&strangers_key());
    let altered = body.replace("\"total\":1", "\"total\":2");
    assert_ne!(altered, body);
    let refused = [
        ("no header", wire().send_with("", &body).await),
        ("no header to speak of", wire().send_with("WECHATPAY2-SHA256-RSA2048", &body).await),
        ("without a nonce", wire().send_with(&right.replace("nonce_str", "nonce"), &body).await),
        ("stale", stale.send().await),
        ("early", early.send().await),
        ("another merchant", stranger.send().await),
        ("another certificate", serial.send().await),
        ("another scheme", scheme.send().await),
        ("another path", path.send_with(&right, &body).await),
        ("another key", wire().send_with(&other_key, &body).await),
        ("another body", wire().send_with(&right, &altered).await),
    ];
    for (what, answer) in refused {
        assert_eq!(answer.status, 401, "{what}");
        let json = answer.json();
        assert_eq!(json["code"], "SIGN_ERROR", "{what}");
        assert!(!json["message"].as_str().unwrap().is_empty() && json["detail"]["location"] == "authorization");
        assert!(!answer.headers.contains_key("wechatpay-signature"), "{what}: nobody to sign it for");
    }
    assert_eq!(shop.state(Vendor::WeChat, ORDER).await, TradeState::Absent, "nothing was done");
    let taken = wire().send_with(&right, &body).await;
    assert_eq!(taken.status, 200);
    assert!(taken.json()["code_url"].is_string() && signed_by_certificate(&shop, &taken));
}

#[tokio::test]
async fn wechat_names_the_parameter_at_fault() {
    let shop = Shop::open().await;
    let cases = [
        ("/mchid", json!(null), "PARAM_ERROR"),
        ("/mchid", json!("1900000002"), "MCH_NOT_EXISTS"),
        ("/appid", json!("wx2"), "APPID_MCHID_NOT_MATCH"),
        ("/out_trade_no", json!("short"), "PARAM_ERROR"),
        ("/out_trade_no", json!("with space"), "PARAM_ERROR"),
        ("/description", json!(""), "PARAM_ERROR"),
        ("/description", json!("长".repeat(128)), "PARAM_ERROR"),
        ("/description", json!("🎉"), "PARAM_ERROR"),
        ("/notify_url", json!(null), "PARAM_ERROR"),
        ("/notify_url", json!("https://shop.example/?a=1"), "PARAM_ERROR"),
        ("/amount/total", json!(0), "PARAM_ERROR"),
        ("/amount/total", json!("1"), "PARAM_ERROR"),
        ("/amount/total", json!(1.5), "PARAM_ERROR"),
        ("/amount/currency", json!("USD"), "PARAM_ERROR"),
        ("/time_expire", json!("2026-11-20 20:30:00"), "PARAM_ERROR"),
        ("/time_expire", json!("2026-11-20T20:00:00+08:00"), "PARAM_ERROR"),
    ];
    for (pointer, value, code) in cases {
        let mut body = native(&shop);
        body["time_expire"] = json!("2026-11-20T20:30:00+08:00");
        *body.pointer_mut(pointer).unwrap() = value.clone();
        let answer = Wire::new(&shop, "POST", "/v3/pay/transactions/native", &body.to_string()).send().await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)), "{pointer} {value}");
        if code == "PARAM_ERROR" {
            assert_eq!(answer.json()["detail"]["field"], pointer);
        }
        assert!(signed_by_certificate(&shop, &answer), "{pointer}: refusals are signed as well");
    }
    assert_eq!(shop.state(Vendor::WeChat, ORDER).await, TradeState::Absent);
}

#[tokio::test]
async fn wechat_wants_to_know_whose_order_is_meant() {
    let shop = Shop::open().await;
    shop.paid(Vendor::WeChat, ORDER).await;
    let path = format!("/v3/pay/transactions/out-trade-no/{ORDER}");
    let refund =
        json!({"out_trade_no": ORDER, "out_refund_no": "r", "amount": {"refund": 1, "total": 2, "currency": "CNY"}});
    let refunds = "/v3/refund/domestic/refunds";
    let text = Wire { kind: "text/plain", ..Wire::new(&shop, "POST", refunds, &refund.to_string()) };
    let cases = [
        (Wire::new(&shop, "GET", &path, ""), 400, "PARAM_ERROR"),
        (Wire::new(&shop, "GET", &format!("{path}?mchid="), ""), 400, "PARAM_ERROR"),
        (Wire::new(&shop, "GET", &format!("{path}?mchid=1"), ""), 400, "MCH_NOT_EXISTS"),
        (Wire::new(&shop, "POST", &format!("{path}/close"), "{}"), 400, "PARAM_ERROR"),
        (Wire::new(&shop, "POST", &format!("{path}/close"), "no JSON"), 400, "PARAM_ERROR"),
        (Wire::new(&shop, "POST", refunds, &refund.to_string()), 400, "INVALID_REQUEST"),
        (Wire::new(&shop, "GET", &format!("{refunds}/none"), ""), 404, "RESOURCE_NOT_EXISTS"),
        (Wire::new(&shop, "GET", "/v3/certificates", ""), 404, "NOT_FOUND"),
        (text, 415, "PARAM_ERROR"),
    ];
    for (wire, status, code) in cases {
        let answer = wire.send().await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{} {}",
            wire.path,
            wire.body
        );
    }
}

/// Parameters and their new values.
type Changes<'a> = &'a [(&'a str, &'a str)];

/// A call of Alipay, by hand, with these parameters changed (`""`: left out) before and after signing.
async fn alipay(shop: &Shop, before: Changes<'_>, after: Changes<'_>) -> Answer {
    let settings = shop.china.alipay();
    let pairs = [
        ("app_id", settings.app_id.as_str()),
        ("method", "alipay.trade.query"),
        ("format", "JSON"),
        ("charset", "utf-8"),
        ("sign_type", "RSA2"),
        ("timestamp", "2026-11-20 20:00:00"),
        ("version", "1.0"),
        ("biz_content", "{\"out_trade_no\":\"ord_00000001\"}"),
    ];
    let mut params = BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let change = |params: &mut BTreeMap<String, String>, changes: Changes<'_>| {
        for (name, value) in changes {
            match *value {
                "" => drop(params.remove(*name)),
                value => drop(params.insert((*name).to_owned(), value.to_owned())),
            }
        }
    };
    change(&mut params, before);
    let text: Vec<String> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    params.insert("sign".to_owned(), sign(&settings.app_key, &text.join("&")));
    change(&mut params, after);
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&params).finish();
    crate::raw::post_form(&settings.gateway, &form).await
}

#[tokio::test]
async fn alipay_believes_the_app_alone() {
    let shop = Shop::open().await;
    shop.paid(Vendor::Alipay, ORDER).await;
    let wrong_sign = sign(&shop.china.alipay().app_key, "x");
    let cases: [(Changes<'_>, Changes<'_>, &str); 14] = [
        (&[("app_id", "")], &[], "isv.missing-app-id"),
        (&[("app_id", "9021000000000002")], &[], "isv.invalid-app-id"),
        (&[("sign_type", "")], &[], "isv.missing-signature-type"),
        (&[("sign_type", "RSA")], &[], "isv.invalid-signature-type"),
        (&[], &[("sign", "")], "isv.missing-signature"),
        (&[], &[("sign", &wrong_sign)], "isv.invalid-signature"),
        (&[], &[("biz_content", "{\"out_trade_no\":\"ord_00000002\"}")], "isv.invalid-signature"),
        (&[], &[("extra", "1")], "isv.invalid-signature"),
        (&[("timestamp", "")], &[], "isv.missing-timestamp"),
        (&[("timestamp", "2026-11-20T20:00:00Z")], &[], "isv.invalid-timestamp"),
        (&[("version", "2.0")], &[], "isv.invalid-parameter"),
        (&[("charset", "GBK")], &[], "isv.invalid-charset"),
        (&[("biz_content", "no JSON")], &[], "isv.invalid-parameter"),
        (&[("method", "alipay.trade.pay")], &[], "isv.invalid-method"),
    ];
    for (before, after, sub_code) in cases {
        let json = alipay(&shop, before, after).await.json();
        let name = if sub_code == "isv.invalid-method" { "error_response" } else { "alipay_trade_query_response" };
        assert_eq!(json[name]["sub_code"], sub_code, "{json}");
        assert_eq!(json.get("sign").is_some(), !sub_code.ends_with("app-id"), "{json}");
    }
    let answer = alipay(&shop, &[], &[]).await.json();
    assert_eq!(answer["alipay_trade_query_response"]["trade_status"], "TRADE_SUCCESS", "{answer}");
}

#[tokio::test]
async fn alipay_refuses_contents_that_make_no_sense() {
    let shop = Shop::open().await;
    let good = json!({"out_trade_no": ORDER, "total_amount": "1.00", "subject": "x"});
    let cases = [
        ("out_trade_no", json!("with-dash")),
        ("out_trade_no", json!("")),
        ("total_amount", json!("0.00")),
        ("total_amount", json!("1.001")),
        ("total_amount", json!("100000000.01")),
        ("subject", json!("")),
        ("subject", json!("a=b")),
        ("time_expire", json!("2026-11-20 20:00:00")),
        ("time_expire", json!("tomorrow")),
    ];
    for (name, value) in cases {
        let mut content = good.clone();
        content[name] = value;
        let content = content.to_string();
        let call = [("method", "alipay.trade.precreate"), ("biz_content", content.as_str())];
        let json = alipay(&shop, &call, &[]).await.json();
        assert_eq!(json["alipay_trade_precreate_response"]["sub_code"], "ACQ.INVALID_PARAMETER", "{content}");
    }
    // Not everything that is valid JSON is a page.
    let content = good.to_string();
    let call = [("method", "alipay.trade.page.pay"), ("biz_content", content.as_str())];
    let page = alipay(&shop, &call, &[]).await;
    assert!(page.status == 400 && page.text().contains("ACQ.INVALID_PARAMETER"), "without a product code");
    assert!(shop.china.scan(Vendor::Alipay, ORDER).is_err());
}

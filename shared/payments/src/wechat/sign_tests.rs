use ::http::{HeaderName, HeaderValue};
use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use data_encoding::BASE64;

use super::*;

/// A real key of the vendor and what it signed.
fn vector() -> serde_json::Value {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../testdata/vectors.json")).unwrap();
    vectors["wechat_pay_v3_notification"].clone()
}

fn keys(vector: &serde_json::Value) -> PlatformKeys {
    let key = VerifyingKey::parse("certificate", vector["certificate"].as_str().unwrap()).unwrap();
    PlatformKeys::new(vec![(vector["serial"].as_str().unwrap().to_owned(), key)]).unwrap()
}

fn headers(vector: &serde_json::Value) -> HeaderMap {
    ["serial", "signature", "timestamp", "nonce"]
        .into_iter()
        .map(|name| {
            let value = HeaderValue::from_str(vector[name].as_str().unwrap()).unwrap();
            (HeaderName::try_from(format!("wechatpay-{name}")).unwrap(), value)
        })
        .collect()
}

#[test]
fn a_notification_of_the_vendor_is_believed_and_nothing_like_it() {
    let vector = vector();
    let (keys, headers, body) = (keys(&vector), headers(&vector), vector["body"].as_str().unwrap());
    let now = 1_624_523_846_000;
    let verify = |headers: &HeaderMap, body: &str, now| keys.verify(headers, body.as_bytes(), now);
    assert_eq!(verify(&headers, body, now), Ok(()));
    assert_eq!(verify(&headers, body, now + 299_000), Ok(()));
    assert_eq!(verify(&headers, body, now - 299_000), Ok(()));
    for at in [now + 300_000, now - 300_000, now + 86_400_000, 0] {
        assert!(matches!(verify(&headers, body, at), Err(PaymentError::BadSignature(_))), "{at}");
    }
    assert!(verify(&headers, &body.replacen("payscore", "payscorf", 1), now).is_err());
    assert!(verify(&headers, &format!("{body} "), now).is_err());
    for (name, value) in [
        ("wechatpay-timestamp", "1624523847"),
        ("wechatpay-timestamp", "+1624523846"),
        ("wechatpay-timestamp", ""),
        ("wechatpay-nonce", "EcZ9Cmy4Xyx1i6RlJQzLcCyEqDa26NBZ"),
        ("wechatpay-serial", "D7CE59D1F522D702"),
        ("wechatpay-signature", "WECHATPAY/SIGNTEST/tJHIiIS9eB2hAYstmAmbbD3ZE5LiIm"),
    ] {
        let mut other = headers.clone();
        other.insert(name, HeaderValue::from_static(value));
        assert!(matches!(verify(&other, body, now), Err(PaymentError::BadSignature(_))), "{name} {value}");
    }
    for name in ["wechatpay-timestamp", "wechatpay-nonce", "wechatpay-serial", "wechatpay-signature"] {
        let mut other = headers.clone();
        let value = other.remove(name).unwrap();
        assert!(verify(&other, body, now).is_err(), "without {name}");
        other.append(name, value.clone());
        other.append(name, value);
        assert!(verify(&other, body, now).is_err(), "two of {name}");
    }
}

#[test]
fn the_key_is_chosen_by_its_id_and_a_public_key_is_asked_for() {
    let vector = vector();
    let key = || VerifyingKey::parse("certificate", vector["certificate"].as_str().unwrap()).unwrap();
    let keys = |ids: &[&str]| PlatformKeys::new(ids.iter().map(|id| ((*id).to_owned(), key())).collect());
    assert_eq!(keys(&["D7CE59D1F522D701"]).unwrap().preferred(), None);
    assert_eq!(keys(&["D7CE59D1F522D701", "PUB_KEY_ID_01"]).unwrap().preferred(), Some("PUB_KEY_ID_01"));
    assert!(keys(&[]).is_err());
    assert!(keys(&["PUB_KEY_ID_01", "PUB_KEY_ID_01"]).is_err());
}

#[test]
fn a_request_is_signed_over_five_lines() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let key = SigningKey::parse("key", &BASE64.encode(pair.as_der().unwrap().as_ref())).unwrap();
    let signer = Signer { merchant: "1900000001", serial: "5157F09EFDC096DE15EBE81A47057A72", key: &key };
    let header = signer.authorization("POST", "/v3/x?a=b", b"{}", 1_554_208_460_999).unwrap();
    let (scheme, parts) = header.split_once(' ').unwrap();
    assert_eq!(scheme, "WECHATPAY2-SHA256-RSA2048");
    let parts: Vec<(&str, &str)> =
        parts.split(',').map(|part| part.split_once('=').map(|(k, v)| (k, v.trim_matches('"'))).unwrap()).collect();
    let [mchid, nonce, timestamp, serial, signature] = parts[..] else { panic!("{header}") };
    assert_eq!(mchid, ("mchid", "1900000001"));
    assert_eq!(timestamp, ("timestamp", "1554208460"));
    assert_eq!(serial, ("serial_no", "5157F09EFDC096DE15EBE81A47057A72"));
    assert_eq!((nonce.0, nonce.1.len()), ("nonce_str", 32));
    let public = VerifyingKey::parse("public", &BASE64.encode(pair.public_key().as_ref())).unwrap();
    let text = format!("POST\n/v3/x?a=b\n1554208460\n{}\n{{}}\n", nonce.1);
    assert!(public.verifies(text.as_bytes(), &format!("{}==", signature.1.trim_end_matches('='))));
    assert_ne!(header, signer.authorization("POST", "/v3/x?a=b", b"{}", 1_554_208_460_999).unwrap());
}

use super::*;

fn vector() -> (String, Vec<VerifyingKey>) {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../testdata/vectors.json")).unwrap();
    let vector = &vectors["alipay_response_rsa2"];
    let key = VerifyingKey::parse("key", vector["public_key"].as_str().unwrap()).unwrap();
    (vector["body"].as_str().unwrap().to_owned(), vec![key])
}

const METHOD: &str = "alipay.open.file.upload";

#[test]
fn a_real_answer_is_believed_as_it_was_written() {
    let (body, keys) = vector();
    let (text, signed) = believe(body.as_bytes(), METHOD, &keys).unwrap();
    assert!(signed);
    assert_eq!(text, r#"{"code":"10000","msg":"Success","file_id":"CAxAToWB1JsAAAAAAAAAAAAADgSLAQBr"}"#);
    // Around the signed part anything may stand.
    let spaced = body.replacen(':', " : ", 1).replacen(",\"sign\":", " , \"alipay_cert_sn\":\"x\", \"sign\" : ", 1);
    assert_eq!(believe(spaced.as_bytes(), METHOD, &keys).unwrap().0, text);
}

#[test]
fn an_altered_answer_is_not() {
    let (body, keys) = vector();
    for altered in [
        body.replacen("10000", "10001", 1),
        body.replacen("CAx", "CAy", 1),
        body.replacen("\"code\"", " \"code\"", 1),
        body.replacen("\"sign\":\"F", "\"sign\":\"G", 1),
    ] {
        assert_ne!(altered, body);
        assert!(matches!(believe(altered.as_bytes(), METHOD, &keys), Err(PaymentError::BadSignature(_))), "{altered}");
    }
    assert!(believe(body.as_bytes(), "alipay.trade.query", &keys).is_err(), "an answer to another call");
    let twice = body.replacen('{', r#"{"alipay_open_file_upload_response":{"code":"10000"},"#, 1);
    assert!(believe(twice.as_bytes(), METHOD, &keys).is_err(), "two answers");
    let second = body.replacen('{', r#"{"error_response":{"code":"10000"},"#, 1);
    assert!(believe(second.as_bytes(), METHOD, &keys).is_err(), "two answers");
}

#[test]
fn without_a_signature_only_a_refusal_is_heard() {
    let (body, keys) = vector();
    let unsigned = body.split_once(",\"sign\"").unwrap().0.to_owned() + "}";
    let (text, signed) = believe(unsigned.as_bytes(), METHOD, &keys).unwrap();
    assert!(!signed);
    let read = |text: &str, signed| super::read::<Value>(text, signed).map_err(PaymentError::from);
    assert!(matches!(read(&text, false), Err(PaymentError::BadSignature(_))));
    assert!(read(&text, true).is_ok());
    let refusal = r#"{"code":"40004","msg":"Business Failed","sub_code":"ACQ.TRADE_NOT_EXIST","sub_msg":"交易不存在"}"#;
    let expected = PaymentError::refused("ACQ.TRADE_NOT_EXIST", "交易不存在");
    assert_eq!(read(refusal, true), Err(expected));
    assert!(matches!(read(refusal, false), Err(PaymentError::Denied { .. })));
    let says = |signed| super::read::<Value>(refusal, signed).is_err_and(|e| e.says(&["ACQ.TRADE_NOT_EXIST"]));
    assert!(says(true) && !says(false), "an unsigned refusal says nothing about an order");
    // As while the app's key is exchanged: signed, and about us.
    let ours = r#"{"code":"40002","msg":"Invalid Arguments","sub_code":"isv.invalid-signature","sub_msg":"验签出错"}"#;
    assert!(matches!(read(ours, true), Err(PaymentError::Denied { code, .. }) if code == "isv.invalid-signature"));
    let parameter = ours.replace("invalid-signature", "invalid-parameter");
    assert!(matches!(read(&parameter, true), Err(PaymentError::Refused { .. })));
    for open in [
        r#"{"code":"20000","msg":"Service Currently Unavailable","sub_code":"isp.unknow-error"}"#,
        r#"{"code":"40004","sub_code":"ACQ.SYSTEM_ERROR"}"#,
        r#"{"code":"40004","sub_code":"aop.ACQ.SYSTEM_ERROR"}"#,
    ] {
        assert!(matches!(read(open, true), Err(PaymentError::Unavailable(_))), "{open}");
    }
    assert!(matches!(read("{}", true), Err(PaymentError::Malformed(_))));
}

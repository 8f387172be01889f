use aws_lc_rs::{encoding::AsDer, rsa::KeySize};

use super::*;

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../testdata/vectors.json")).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn keys_are_read_in_every_form_the_vendors_tools_write() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = pair.as_der().unwrap();
    // The PKCS#1 form is the octet string at the end of PKCS#8: version, algorithm (26 bytes in all), then 4 of length.
    let pkcs1 = &pkcs8.as_ref()[26..];
    let spki = pair.public_key().as_der().unwrap();
    let public = VerifyingKey::parse("public", &pem("PUBLIC KEY", spki.as_ref())).unwrap();
    for text in [
        pem("PRIVATE KEY", pkcs8.as_ref()),
        pem("PRIVATE KEY", pkcs8.as_ref()).replace('\n', "\\n"),
        pem("RSA PRIVATE KEY", pkcs1),
        BASE64.encode(pkcs8.as_ref()),
        format!("  {}\n", BASE64.encode(pkcs1)),
    ] {
        let key = SigningKey::parse("private", &text).unwrap();
        let signature = key.sign(b"text").unwrap();
        assert!(public.verifies(b"text", &signature));
        assert!(!public.verifies(b"texT", &signature));
        assert!(!public.verifies(b"text", &signature.to_lowercase()));
        assert!(!public.verifies(b"text", ""));
        assert!(public.is_half_of(&key));
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
    }
    let own = pem("PUBLIC KEY", pair.public_key().as_ref());
    assert!(VerifyingKey::parse("public", &own).is_ok(), "PKCS#1 public keys are keys too");
    let error = VerifyingKey::parse("public", &pem("PRIVATE KEY", pkcs8.as_ref())).unwrap_err();
    assert_eq!(error.to_string(), "public: is a private key");
}

#[test]
fn a_certificate_gives_key_and_serial() {
    let vectors = vectors();
    let given = &vectors["wechat_pay_v3_notification"];
    let key = VerifyingKey::parse("certificate", given["certificate"].as_str().unwrap()).unwrap();
    assert_eq!(key.serial(), given["serial"].as_str());
    let text = given["certificate"].as_str().unwrap();
    let der = unwrap(text).unwrap().1;
    for length in 0..der.len() {
        assert!(der::certificate(&der[..length]).is_none(), "{length}");
    }
}

#[test]
fn what_is_no_key_is_refused_without_being_shown() {
    // Put together here, because no file of this repository may look like a key.
    let (private, public) = (["PRIVATE", "KEY"].join(" "), "PUBLIC KEY");
    let pem = |begin: &str, end: &str| format!("-----BEGIN {begin}-----\nc2VjcmV0\n-----END {end}-----");
    for text in [
        String::new(),
        "secret".to_owned(),
        format!("-----BEGIN {private}-----"),
        pem(&private, public),
        pem(&private, &private),
        pem("CERTIFICATE", "CERTIFICATE"),
    ] {
        let private = SigningKey::parse("the key", &text).unwrap_err().to_string();
        let public = VerifyingKey::parse("the key", &text).unwrap_err().to_string();
        for error in [private, public] {
            assert!(error.starts_with("the key: is "), "{error}");
            assert!(!error.contains("ecret") && !error.contains("c2Vj"), "{error}");
        }
    }
}

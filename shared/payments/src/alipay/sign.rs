//! What is signed: <https://opendocs.alipay.com/common/02khjm> (requests), <https://opendocs.alipay.com/common/02mse7>
//! (notifications). RSA2 always, whatever a message says of itself: `sign_type` is written by whoever wrote the message.

use std::collections::BTreeMap;

use crate::{error::PaymentError, rsa::VerifyingKey};

/// Parameters in the order in which they are signed.
pub(super) type Params = BTreeMap<String, String>;

/// `a=1&b=2`, by name, values as they are. In requests the parameters without a value are left out by not being there.
pub(super) fn text<'p>(params: impl IntoIterator<Item = (&'p String, &'p String)>) -> String {
    let mut text = String::new();
    for (name, value) in params {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}

/// The parameters of a form. A name that comes twice is refused: which of its values was signed?
pub(super) fn parse_form(body: &[u8]) -> Result<Params, PaymentError> {
    let mut params = Params::new();
    for (name, value) in form_urlencoded::parse(body) {
        if params.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(PaymentError::BadSignature("a parameter comes twice"));
        }
    }
    Ok(params)
}

/// Takes `sign` and `sign_type` out of a notification and checks the first over all that is left.
pub(super) fn verify_notification(params: &mut Params, keys: &[VerifyingKey]) -> Result<(), PaymentError> {
    let sign = params.remove("sign").ok_or(PaymentError::BadSignature("there is no signature"))?;
    params.remove("sign_type");
    let text = text(&*params);
    if keys.iter().any(|key| key.verifies(text.as_bytes(), &sign)) {
        Ok(())
    } else {
        Err(PaymentError::BadSignature("the signature is not of this message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector() -> (Params, Vec<VerifyingKey>, String) {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../testdata/vectors.json")).unwrap();
        let vector = &vectors["alipay_notify_rsa2"];
        let params = serde_json::from_value(vector["params"].clone()).unwrap();
        let key = VerifyingKey::parse("key", vector["public_key_base64_der"].as_str().unwrap()).unwrap();
        (params, vec![key], vector["signed_string"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_notification_of_the_vendor_is_believed_and_nothing_like_it() {
        let (given, keys, signed) = vector();
        let verify = |mut params: Params| verify_notification(&mut params, &keys);
        let mut params = given.clone();
        assert_eq!(verify_notification(&mut params, &keys), Ok(()));
        assert_eq!(text(&params), signed);
        // What it claims to be signed with changes nothing.
        for kind in ["RSA", "none", ""] {
            let mut params = given.clone();
            params.insert("sign_type".into(), kind.into());
            assert_eq!(verify(params), Ok(()));
        }
        for name in given.keys().filter(|name| *name != "sign_type") {
            let mut params = given.clone();
            params.get_mut(name).unwrap().push('0');
            assert!(matches!(verify(params.clone()), Err(PaymentError::BadSignature(_))), "{name} changed");
            params.remove(name);
            assert!(matches!(verify(params), Err(PaymentError::BadSignature(_))), "without {name}");
        }
        let mut more = given;
        more.insert("refund_fee".into(), String::new());
        assert!(verify(more).is_err(), "an empty parameter is one");
    }

    #[test]
    fn forms_are_decoded_first() {
        let (given, keys, _) = vector();
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&given).finish();
        let mut params = parse_form(form.as_bytes()).unwrap();
        assert_eq!(params, given);
        assert_eq!(verify_notification(&mut params, &keys), Ok(()));
        let twice = format!("{form}&total_amount=0.10");
        assert!(matches!(parse_form(twice.as_bytes()), Err(PaymentError::BadSignature(_))));
    }
}

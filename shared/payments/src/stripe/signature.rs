//! Stripe's signature of a webhook (<https://docs.stripe.com/webhooks#verify-manually>).

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use tenantry_domain::Millis;

use super::{
    SettingsError,
    events::{Delivery, parse},
};

/// How far the time of a signature may be from ours, either way; Stripe's libraries allow as much.
pub const TOLERANCE: Millis = 300_000;
/// More signatures than that in one header are not looked at. Stripe sends one for each secret that is valid.
const MAX_SIGNATURES: usize = 16;

/// The secrets that a webhook may be signed with. `Debug` shows how many.
#[derive(Clone, Default)]
pub struct WebhookSecrets(Vec<hmac::Key>);

/// Why a webhook is not believed. Every one of them is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not `t=…,v1=…`.
    #[error("the Stripe-Signature header is malformed")]
    Malformed,
    /// No signature is by one of the secrets.
    #[error("the signature is not Stripe's")]
    Forged,
    /// Rightly signed, but too long ago or in the future.
    #[error("the signature's time is not within five minutes")]
    Stale,
}

impl WebhookSecrets {
    /// These secrets, `whsec_…`, each whole.
    ///
    /// # Errors
    /// [`SettingsError::WebhookSecret`] when one is empty, or was read with its line's end.
    pub fn new(secrets: Vec<String>) -> Result<Self, SettingsError> {
        let unfit = |secret: &String| secret.is_empty() || secret.trim() != secret;
        if secrets.iter().any(unfit) {
            return Err(SettingsError::WebhookSecret);
        }
        Ok(Self(secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())).collect()))
    }

    /// The event in `payload`, the body as it came, when `header` (`Stripe-Signature`) is a signature of it by one of the
    /// secrets at about `now`. Compares in constant time.
    ///
    /// # Errors
    /// [`SignatureError`]. Without secrets nothing is believed. What is rightly signed and cannot be read is
    /// [`Delivery::Unreadable`] and no error.
    pub fn verify(&self, payload: &[u8], header: &str, now: Millis) -> Result<Delivery, SignatureError> {
        let (time, signatures) = fields(header)?;
        let seconds: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
        let message = message(time, payload);
        let signed = |signature: &Vec<u8>| self.0.iter().any(|key| hmac::verify(key, &message, signature).is_ok());
        if !signatures.iter().any(signed) {
            return Err(SignatureError::Forged);
        }
        if now.abs_diff(seconds.saturating_mul(1_000)) > TOLERANCE.unsigned_abs() {
            return Err(SignatureError::Stale);
        }
        Ok(parse(payload))
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({})", self.0.len())
    }
}

/// The time as it is written and the `v1` signatures. Other schemes (`v0` is for tests) are passed over.
fn fields(header: &str) -> Result<(&str, Vec<Vec<u8>>), SignatureError> {
    let (mut time, mut signatures) = (None, Vec::new());
    for field in header.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or(SignatureError::Malformed)?;
        match name {
            "t" if time.is_some() || value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(SignatureError::Malformed);
            }
            "t" => time = Some(value),
            "v1" if signatures.len() < MAX_SIGNATURES => {
                // One that is no hexadecimal is nobody's signature; the next may be.
                signatures.extend(HEXLOWER_PERMISSIVE.decode(value.as_bytes()));
            }
            _ => {}
        }
    }
    match time {
        Some(time) if !signatures.is_empty() => Ok((time, signatures)),
        _ => Err(SignatureError::Malformed),
    }
}

fn message(time: &str, payload: &[u8]) -> Vec<u8> {
    [time.as_bytes(), b".", payload].concat()
}

/// The header that Stripe would send with `payload` at `at`, for sandboxes and tests.
#[must_use]
pub fn sign(payload: &[u8], secret: &str, at: Millis) -> String {
    let time = at.div_euclid(1_000).to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("t={time},v1={}", HEXLOWER.encode(hmac::sign(&key, &message(&time, payload)).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;
    const PAYLOAD: &[u8] = br#"{"id":"evt_1","object":"event","type":"plan.created","created":1,"livemode":false,"api_version":null,"data":{"object":{"object":"plan","id":"gold"}}}"#;

    fn secrets(secrets: &[&str]) -> WebhookSecrets {
        WebhookSecrets::new(secrets.iter().map(|&secret| secret.to_owned()).collect()).unwrap()
    }

    fn verdict(accepted: &[&str], payload: &[u8], header: &str, now: Millis) -> Option<SignatureError> {
        secrets(accepted).verify(payload, header, now).err()
    }

    #[test]
    fn a_signature_made_elsewhere_is_right() {
        // printf '1800000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_one
        let header = "t=1800000000,v1=1b1175c4f27446431d116ab61cb6ec9bbac7dd5c3be4a273ba6645a112bb4bb4";
        assert_eq!(verdict(&["whsec_one"], br#"{"id":"evt_1"}"#, header, NOW), None);
        assert_eq!(sign(br#"{"id":"evt_1"}"#, "whsec_one", NOW), header);
    }

    #[test]
    fn either_secret_is_right_while_they_are_rotated_and_no_other() {
        let header = sign(PAYLOAD, "whsec_old", NOW);
        assert_eq!(verdict(&["whsec_new", "whsec_old"], PAYLOAD, &header, NOW), None);
        assert_eq!(verdict(&["whsec_old"], PAYLOAD, &header, NOW), None);
        // The same delivery once the old secret is gone.
        assert_eq!(verdict(&["whsec_new"], PAYLOAD, &header, NOW), Some(SignatureError::Forged));
        assert_eq!(verdict(&[], PAYLOAD, &header, NOW), Some(SignatureError::Forged));
        let empty = sign(PAYLOAD, "", NOW);
        assert_eq!(verdict(&["whsec_new"], PAYLOAD, &empty, NOW), Some(SignatureError::Forged));
    }

    #[test]
    fn any_of_several_signatures_is_enough() {
        let right = sign(PAYLOAD, "whsec_one", NOW);
        let (time, right) = right.split_once(',').unwrap();
        let wrong = format!("v1={}", "0".repeat(64));
        for header in [
            format!("{time},{wrong},{right}"),
            format!("{right},{time},{wrong}"),
            format!("{time},v0=1,v1=zz,{right}"),
            format!("{time}, {}", right.to_uppercase().replace("V1", "v1")),
        ] {
            assert_eq!(verdict(&["whsec_one"], PAYLOAD, &header, NOW), None, "{header}");
        }
        // The right one in a scheme that proves nothing, cut short, or lengthened.
        for header in [
            format!("{time},{wrong},{}", right.replace("v1", "v0")),
            format!("{time},{}", &right[..right.len() - 2]),
            format!("{time},{right}00"),
            format!("{time},{wrong}"),
        ] {
            assert_eq!(verdict(&["whsec_one"], PAYLOAD, &header, NOW), Some(SignatureError::Forged), "{header}");
        }
        // So many that comparing would be work.
        let many = format!("{time},{}{right}", format!("{wrong},").repeat(1_000));
        assert_eq!(verdict(&["whsec_one"], PAYLOAD, &many, NOW), Some(SignatureError::Forged));
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let header = sign(PAYLOAD, "whsec_one", NOW);
        for at in 0..PAYLOAD.len() {
            let mut altered = PAYLOAD.to_vec();
            altered[at] ^= 1;
            assert_eq!(verdict(&["whsec_one"], &altered, &header, NOW), Some(SignatureError::Forged), "{at}");
        }
        let later = header.replace("t=1800000000", "t=1800000001");
        assert_eq!(verdict(&["whsec_one"], PAYLOAD, &later, NOW), Some(SignatureError::Forged));
    }

    #[test]
    fn five_minutes_either_way() {
        let header = sign(PAYLOAD, "whsec_one", NOW);
        for (now, stale) in [
            (NOW - TOLERANCE, false),
            (NOW + TOLERANCE, false),
            (NOW - TOLERANCE - 1, true),
            (NOW + TOLERANCE + 1, true),
            (Millis::MIN, true),
            (Millis::MAX, true),
        ] {
            assert_eq!(verdict(&["whsec_one"], PAYLOAD, &header, now), stale.then_some(SignatureError::Stale), "{now}");
        }
    }

    #[test]
    fn other_headers_are_malformed() {
        let right = sign(PAYLOAD, "whsec_one", NOW);
        let bare = right.split_once(',').unwrap().1;
        for header in [
            "",
            "t=",
            "v1=00",
            "t=1800000000",
            "t=1800000000,v1",
            "t=+1800000000,v1=00",
            "t=-1,v1=00",
            "t=99999999999999999999,v1=00",
            "t=1800000000,v1=",
            "nonsense",
            bare,
            &format!("t=1800000000,{right}"),
        ] {
            let error = verdict(&["whsec_one"], PAYLOAD, header, NOW).unwrap();
            let empty = header.ends_with("v1=");
            assert_eq!(error, if empty { SignatureError::Forged } else { SignatureError::Malformed }, "{header}");
        }
    }
}

//! RSA keys of both vendors, PKCS#1 v1.5 with SHA-256 (WeChat Pay's `SHA256-RSA2048`, Alipay's `RSA2`).
//!
//! Keys come as PEM or, as Alipay's key tool hands them out, as bare base64. Line ends may be lost, as they are in
//! variables of the environment.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKey},
    signature::{self, KeyPair as _, ParsedPublicKey},
};
use data_encoding::{BASE64, HEXUPPER};

use crate::error::{ConfigError, PaymentError};

mod der;

/// RSA-2048, the least that either vendor takes.
const LEAST_MODULUS_BYTES: usize = 256;

/// Our private key.
#[derive(Clone)]
pub struct SigningKey(Arc<KeyPair>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// Reads PKCS#8 or PKCS#1. `setting` is what the error names.
    ///
    /// # Errors
    /// When the text is no RSA private key of at least 2048 bits.
    pub fn parse(setting: &'static str, text: &str) -> Result<Self, ConfigError> {
        let (_, der) = unwrap(text).ok_or(ConfigError::new(setting, "is neither PEM nor base64"))?;
        let key = KeyPair::from_pkcs8(&der)
            .or_else(|_| KeyPair::from_der(&der))
            .map_err(|_| ConfigError::new(setting, "is no RSA private key in PKCS#8 or PKCS#1"))?;
        if key.public_modulus_len() < LEAST_MODULUS_BYTES {
            return Err(ConfigError::new(setting, "has less than 2048 bits"));
        }
        Ok(Self(Arc::new(key)))
    }

    /// The signature of a text, in base64.
    pub(crate) fn sign(&self, text: &[u8]) -> Result<String, PaymentError> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
            .map_err(|_| PaymentError::unavailable("signing failed"))?;
        Ok(BASE64.encode(&signature))
    }

    /// The public half.
    fn public(&self) -> &PublicKey {
        self.0.public_key()
    }
}

/// A vendor's public key.
#[derive(Clone)]
pub struct VerifyingKey {
    key: ParsedPublicKey,
    der: Vec<u8>,
    /// Of the certificate that it came in.
    serial: Option<String>,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// Reads a public key or a certificate. The certificate's issuer and dates are not looked at: whoever configured it
    /// vouches for it.
    ///
    /// # Errors
    /// When the text is neither, or the key is not RSA of 2048 to 8192 bits.
    pub fn parse(setting: &'static str, text: &str) -> Result<Self, ConfigError> {
        let (label, der) = unwrap(text).ok_or(ConfigError::new(setting, "is neither PEM nor base64"))?;
        let (der, serial) = match label {
            Some("CERTIFICATE") => {
                let (serial, key) =
                    der::certificate(&der).ok_or(ConfigError::new(setting, "is no X.509 certificate"))?;
                (key.to_vec(), Some(HEXUPPER.encode(serial)))
            }
            Some("PRIVATE KEY" | "RSA PRIVATE KEY") => return Err(ConfigError::new(setting, "is a private key")),
            _ => (der, None),
        };
        let parsed = ParsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der.clone());
        let not_rsa = |_| ConfigError::new(setting, "is no RSA public key of 2048 bits or more");
        Ok(Self { key: parsed.map_err(not_rsa)?, der, serial })
    }

    /// The serial number of the certificate, as `Wechatpay-Serial` writes it.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// Is this base64 text a signature of `text`?
    pub(crate) fn verifies(&self, text: &[u8], signature: &str) -> bool {
        BASE64.decode(signature.as_bytes()).is_ok_and(|signature| self.key.verify_sig(text, &signature).is_ok())
    }

    /// The mistake of every second set-up: our own public key in the place of the vendor's.
    pub(crate) fn is_half_of(&self, ours: &SigningKey) -> bool {
        let public = ours.public().as_ref();
        // An SPKI ends with the PKCS#1 form.
        self.der.ends_with(public)
    }
}

/// The label of a PEM text, if it is one, and the bytes in it.
fn unwrap(text: &str) -> Option<(Option<&str>, Vec<u8>)> {
    let text = text.trim().trim_end_matches("\\n").trim();
    let (label, inner) = match text.strip_prefix("-----BEGIN ") {
        Some(rest) => {
            let (label, rest) = rest.split_once("-----")?;
            let (inner, end) = rest.split_once("-----END ")?;
            if end.strip_suffix("-----")? != label {
                return None;
            }
            (Some(label), inner)
        }
        None => (None, text),
    };
    // `\n` spelled out is what is left of a line end in many a .env file.
    let inner: String = inner.replace("\\n", "").split_whitespace().collect();
    let der = BASE64.decode(inner.as_bytes()).ok()?;
    (!der.is_empty()).then_some((label, der))
}

#[cfg(test)]
#[path = "rsa_tests.rs"]
mod tests;

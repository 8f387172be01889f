//! Keys, made when the doubles start and never written down.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::AsDer,
    rand::{self, SystemRandom},
    rsa::{KeyPair, KeySize},
    signature::{self, KeyPair as _, UnparsedPublicKey},
};
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};

/// There is no randomness.
#[derive(Debug)]
pub(super) struct NoKeys;

/// All keys. Making one takes a tenth of a second, so those that never meet are the same: a shop has one key for both
/// vendors, and WeChat Pay's certificate has Alipay's.
#[derive(Clone)]
pub(super) struct Keys {
    /// The merchant's at WeChat Pay.
    pub(super) merchant: RsaKey,
    /// WeChat Pay's: the public key that replaces certificates.
    pub(super) wechat: RsaKey,
    /// WeChat Pay's, of its certificate.
    pub(super) certificate: RsaKey,
    /// The app's at Alipay.
    pub(super) app: RsaKey,
    /// Alipay's.
    pub(super) alipay: RsaKey,
    /// Nobody's: what a forger has.
    pub(super) stranger: RsaKey,
}

impl Keys {
    pub(super) fn make() -> Result<Self, NoKeys> {
        let (shop, wechat, alipay) = (RsaKey::generate()?, RsaKey::generate()?, RsaKey::generate()?);
        Ok(Self {
            merchant: shop.clone(),
            app: shop.clone(),
            // Any valid key will do for a forger.
            stranger: shop,
            certificate: alipay.clone(),
            wechat,
            alipay,
        })
    }
}

/// A pair of RSA keys of 2048 bits.
#[derive(Clone)]
pub(super) struct RsaKey(Arc<KeyPair>);

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(…)")
    }
}

impl RsaKey {
    fn generate() -> Result<Self, NoKeys> {
        KeyPair::generate(KeySize::Rsa2048).map(|key| Self(Arc::new(key))).map_err(|_| NoKeys)
    }

    /// SHA-256 with PKCS#1 v1.5, base64. The empty text should signing fail, which no verifier takes.
    pub(super) fn sign(&self, text: &[u8]) -> String {
        let mut signature = vec![0; self.0.public_modulus_len()];
        match self.0.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature) {
            Ok(()) => BASE64.encode(&signature),
            Err(_) => String::new(),
        }
    }

    /// Is this base64 text a signature by this key?
    pub(super) fn verifies(&self, text: &[u8], signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, self.0.public_key().as_ref());
        BASE64.decode(signature.as_bytes()).is_ok_and(|signature| key.verify(text, &signature).is_ok())
    }

    /// PKCS#8, PEM.
    pub(super) fn private_pem(&self) -> Result<String, NoKeys> {
        self.0.as_der().map(|der| pem("PRIVATE KEY", der.as_ref())).map_err(|_| NoKeys)
    }

    /// SubjectPublicKeyInfo, PEM.
    pub(super) fn public_pem(&self) -> Result<String, NoKeys> {
        self.0.public_key().as_der().map(|der| pem("PUBLIC KEY", der.as_ref())).map_err(|_| NoKeys)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Upper-case hexadecimal of so many random bytes, as serial numbers are written.
pub(super) fn serial(bytes: usize) -> Result<String, NoKeys> {
    random(bytes).map(|bytes| HEXUPPER.encode(&bytes))
}

/// Lower-case hexadecimal of so many random bytes.
pub(super) fn secret(bytes: usize) -> Result<String, NoKeys> {
    random(bytes).map(|bytes| HEXLOWER.encode(&bytes))
}

fn random(bytes: usize) -> Result<Vec<u8>, NoKeys> {
    let mut random = vec![0; bytes];
    rand::fill(&mut random).map_err(|_| NoKeys)?;
    Ok(random)
}

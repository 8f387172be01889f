//! RSA keys, made when they are first wanted and kept for the process: making one takes a tenth of a second.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{self, KeyPair as _, UnparsedPublicKey},
};
use data_encoding::BASE64;

use super::NoKeys;

/// A pair of keys.
#[derive(Clone)]
pub(crate) struct RsaKey(Arc<KeyPair>);

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(…)")
    }
}

impl RsaKey {
    /// The key of this role in this process.
    pub(crate) fn of(role: &'static str) -> Result<Self, NoKeys> {
        static KEYS: LazyLock<Mutex<HashMap<&'static str, RsaKey>>> = LazyLock::new(Mutex::default);
        let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(role) {
            return Ok(key.clone());
        }
        let key = Self(Arc::new(KeyPair::generate(KeySize::Rsa2048).map_err(|_| NoKeys)?));
        keys.insert(role, key.clone());
        Ok(key)
    }

    /// SHA-256 with PKCS#1 v1.5, base64. The empty text should signing fail, which no verifier takes.
    pub(crate) fn sign(&self, text: &[u8]) -> String {
        let mut signature = vec![0; self.0.public_modulus_len()];
        match self.0.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature) {
            Ok(()) => BASE64.encode(&signature),
            Err(_) => String::new(),
        }
    }

    /// Is this base64 text a signature by this key?
    pub(crate) fn verifies(&self, text: &[u8], signature: &str) -> bool {
        verifies(self.0.public_key().as_ref(), text, signature)
    }

    /// PKCS#8, PEM.
    pub(crate) fn private_pem(&self) -> Result<String, NoKeys> {
        self.0.as_der().map(|der| pem("PRIVATE KEY", der.as_ref())).map_err(|_| NoKeys)
    }

    /// SubjectPublicKeyInfo, PEM.
    pub(crate) fn public_pem(&self) -> Result<String, NoKeys> {
        self.0.public_key().as_der().map(|der| pem("PUBLIC KEY", der.as_ref())).map_err(|_| NoKeys)
    }
}

/// Is this base64 text a signature by the owner of this public key?
pub(crate) fn verifies(public: &[u8], text: &[u8], signature: &str) -> bool {
    let key = UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public);
    BASE64.decode(signature.as_bytes()).is_ok_and(|signature| key.verify(text, &signature).is_ok())
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = BASE64.encode(der);
    while !rest.is_empty() {
        let tail = rest.split_off(rest.len().min(64));
        text.push_str(&rest);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

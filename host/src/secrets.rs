//! The keys of a laptop's platform: made at the first start, kept beside the data, readable by the owner.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tenantry_web::auth::SigningKey;

use crate::HostError;

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// P-256, PKCS #8, base64.
    jwt_signing_key: String,
    /// 32 bytes, base64.
    secret_key: String,
}

/// The keys.
pub(crate) struct Secrets {
    signing_key: Vec<u8>,
    secret_key: [u8; 32],
}

impl Secrets {
    /// The keys in `folder`, made there if there are none; without a folder, keys for this run.
    pub(crate) fn load(folder: Option<&Path>) -> Result<Self, HostError> {
        let Some(folder) = folder else { return Self::generate() };
        let path = folder.join("secrets.json");
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| {
                HostError::data(
                    &path,
                    "is damaged; without it nobody stays signed in. Move it away to start with new keys.",
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Self::generate()?;
                let stored = Stored {
                    jwt_signing_key: BASE64.encode(&secrets.signing_key),
                    secret_key: BASE64.encode(&secrets.secret_key),
                };
                let text = serde_json::to_string_pretty(&stored).map_err(|error| HostError::data(&path, error))?;
                write_private(&path, &text)?;
                Ok(secrets)
            }
            Err(error) => Err(HostError::data(&path, error)),
        }
    }

    fn generate() -> Result<Self, HostError> {
        let mut secret_key = [0; 32];
        aws_lc_rs::rand::fill(&mut secret_key).map_err(|_| HostError::Demo("no randomness".into()))?;
        Ok(Self { signing_key: SigningKey::generate()?, secret_key })
    }

    fn parse(text: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        let secret_key = BASE64.decode(stored.secret_key.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { signing_key: BASE64.decode(stored.jwt_signing_key.as_bytes()).ok()?, secret_key })
    }

    pub(crate) fn signing_key(&self, issuer: &str) -> Result<SigningKey, HostError> {
        Ok(SigningKey::from_pkcs8(&self.signing_key, issuer)?)
    }

    pub(crate) const fn secret_key(&self) -> &[u8; 32] {
        &self.secret_key
    }
}

/// Makes the data folder and takes it for this process: two platforms on one folder would each believe
/// that the holds of the other had expired.
pub(crate) fn lock(folder: &Path) -> Result<File, HostError> {
    private_folder(folder)?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| HostError::data(&path, error))?;
    file.try_lock().map_err(|_| {
        HostError::data(
            folder,
            "is in use by another tenantry process. Stop that one, or give this one a --data-dir of its own.",
        )
    })?;
    Ok(file)
}

/// Makes a folder that only its owner can enter; one that is there stays as it is.
pub(crate) fn private_folder(folder: &Path) -> Result<(), HostError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| HostError::data(folder, error))
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), HostError> {
    let next = path.with_extension("next");
    let _ = fs::remove_file(&next);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || {
        let mut file = options.open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|error| HostError::data(path, error))
}

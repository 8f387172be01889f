//! Hashing passwords: Argon2id, off the async threads, with bounds on memory and on waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::{Error, phc::PasswordHash},
};
use tenantry_web::{ApiError, Code};
use tokio::sync::Semaphore;

use crate::password::Password;

// OWASP's minimum for Argon2id: 19 MiB, two passes, one lane. The crate's defaults are just that; should
// they ever change, this fails to compile instead of weakening or slowing hashes silently.
const _: () = assert!(Params::DEFAULT_M_COST == 19_456 && Params::DEFAULT_T_COST == 2 && Params::DEFAULT_P_COST == 1);

/// How many hashes may wait for their turn. A hash takes some 20 ms, so the last one waits for a second
/// or two; whoever comes then is told to come again rather than kept until the gateway gives up.
const MAX_WAITING: usize = 64;

/// The most hashes at once: each takes 19 MiB, and one core.
const MAX_PARALLEL: usize = 4;

/// Stands in for the hash of an account that does not exist. Its parameters are those of real hashes, so
/// checking against it takes as long; nobody knows a password for it, and success would be ignored.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEhIQ$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

/// Hashes and checks passwords. Clones share the bounds, so one per process is enough.
#[derive(Clone)]
pub struct Hasher {
    entered: Arc<Semaphore>,
    running: Arc<Semaphore>,
    done: Arc<AtomicU64>,
}

impl Default for Hasher {
    /// As many hashes at once as the machine has cores, 4 at most; 64 may wait.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(cores.min(MAX_PARALLEL), MAX_WAITING)
    }
}

impl Hasher {
    /// `parallel` hashes at once (19 MiB each), `waiting` more may wait for their turn.
    #[must_use]
    pub fn new(parallel: usize, waiting: usize) -> Self {
        let parallel = parallel.max(1);
        Self {
            entered: Arc::new(Semaphore::new(parallel + waiting)),
            running: Arc::new(Semaphore::new(parallel)),
            done: Arc::default(),
        }
    }

    /// How many hashes were made: whether two answers took the same work can be counted, and hardly timed.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The hash of a password as a PHC string, with a salt of its own.
    ///
    /// # Errors
    /// 503 when too many are waiting.
    pub async fn hash(&self, password: Password) -> Result<String, ApiError> {
        let hashed = self.run(move || argon2().hash_password(password.as_bytes())).await?;
        hashed.map(|hash| hash.to_string()).map_err(|error| ApiError::internal(format!("hashing failed: {error}")))
    }

    /// Whether `password` is the one that `hash` was made of. Without a hash the answer is no, after the
    /// same work.
    ///
    /// # Errors
    /// 503 when too many are waiting.
    pub async fn verify(&self, password: Password, hash: Option<&str>) -> Result<bool, ApiError> {
        let (known, hash) = (hash.is_some(), hash.unwrap_or(NOBODY).to_owned());
        let checked = self.run(move || {
            let hash = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
            match argon2().verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        });
        let matches =
            checked.await?.map_err(|error| ApiError::internal(format!("a stored hash is unusable: {error}")))?;
        Ok(known && matches)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let overloaded = |_| {
            ApiError::new(Code::Unavailable, "Too many people are signing in at this moment. Try again.")
                .retry_after(Duration::from_secs(1))
        };
        let stopped = |error: &dyn std::fmt::Display| ApiError::internal(format!("hashing stopped: {error}"));
        let entered = Arc::clone(&self.entered).try_acquire_owned().map_err(overloaded)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|error| stopped(&error))?;
        self.done.fetch_add(1, Ordering::Relaxed);
        let task = tokio::task::spawn_blocking(move || {
            // The permits belong to the work, not to whoever waits for it: a client that leaves does not
            // make room, because its hash goes on.
            let _permits = (entered, running);
            work()
        });
        task.await.map_err(|error| stopped(&error))
    }
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_matches() {
        let hasher = Hasher::default();
        let hash = hasher.hash(Password::given("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.verify(Password::given("correct horse"), Some(&hash)).await.unwrap());
        assert!(!hasher.verify(Password::given("correct horsE"), Some(&hash)).await.unwrap());
        assert!(!hasher.verify(Password::given("correct horse"), None).await.unwrap());
        assert_ne!(hasher.hash(Password::given("correct horse")).await.unwrap(), hash, "each has its own salt");
    }

    #[tokio::test]
    async fn nobody_costs_what_somebody_costs() {
        let real = Hasher::default().hash(Password::given("correct horse")).await.unwrap();
        let (real, nobody) = (PasswordHash::new(&real).unwrap(), PasswordHash::new(NOBODY).unwrap());
        assert_eq!(nobody.params, real.params);
        assert_eq!((nobody.algorithm, nobody.version), (real.algorithm, real.version));
        assert_eq!(nobody.hash.unwrap().len(), real.hash.unwrap().len());
        assert_eq!(nobody.salt.unwrap().len(), real.salt.unwrap().len());
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let hasher = Hasher::new(1, 1);
        let (block, wait) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.run(move || wait.recv().is_ok()).await }
        });
        while hasher.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.run(|| true).await }
        });
        while hasher.entered.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = hasher.run(|| true).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        block.send(()).unwrap();
        assert!(first.await.unwrap().unwrap() && second.await.unwrap().unwrap());
        assert!(hasher.run(|| true).await.unwrap(), "room again");
    }
}

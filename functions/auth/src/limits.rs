//! How often anybody may try what anybody may try. All numbers stand here.
//!
//! Nothing depends on whether an account exists: an address is counted by its text, a device by an id that
//! only its owner knows. Sources are addresses of the network; those of one IPv6 subscriber count as one.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tenantry_domain::{Email, Millis, OrgId, UserId, Username};
use tenantry_store::{Admitted, GuessRule, Origin, Store, WindowRule};
use tenantry_web::{ApiError, Code, auth::MacKey};

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;

/// Wrong passwords of one account, or of one device of its owner: five, then 30 s, doubling up to 15 minutes,
/// until one is right or a day goes by. That leaves a guesser a hundred a day.
const PASSWORDS: GuessRule =
    GuessRule { free: 5, first_wait: 30 * SECOND, longest_wait: 15 * MINUTE, forget_after: 24 * HOUR };

/// Wrong passwords from one source, for whichever accounts: an office behind one address stays below that.
const FAILED_LOGINS: WindowRule = WindowRule { most: 100, window: 10 * MINUTE };

/// Attempts at one account that were admitted, right ones included: each is a hash, and a right one a session.
const SIGN_INS: WindowRule = WindowRule { most: 300, window: HOUR };

/// Passwords that one tenant gives to its users: each is a hash.
const TENANT_PASSWORDS: WindowRule = WindowRule { most: 1000, window: 10 * MINUTE };

/// Registrations from one source, and for one address.
const REGISTRATIONS: [WindowRule; 2] = [WindowRule { most: 120, window: HOUR }, WindowRule { most: 30, window: HOUR }];

/// Mails that somebody who is not signed in orders, from one source and to one address. The mailer sends no
/// more than five of a kind an hour either.
const MAILS: [WindowRule; 2] = [WindowRule { most: 60, window: HOUR }, WindowRule { most: 5, window: HOUR }];

/// One-time tokens from one source. Guessing 128 bits is hopeless; this is about the reads.
const TOKENS: WindowRule = WindowRule { most: 60, window: 10 * MINUTE };

/// The throttle of one request.
pub(crate) struct Throttle<'a> {
    store: &'a Store,
    source: String,
}

impl<'a> Throttle<'a> {
    pub(crate) fn new(store: &'a Store, origin: &Origin) -> Self {
        Self { store, source: source(origin.ip.as_deref()) }
    }

    /// Counts a registration.
    pub(crate) async fn registration(&self, email: &Email) -> Result<(), ApiError> {
        self.both("register", email, &REGISTRATIONS).await
    }

    /// Counts a mail that somebody orders to `email`; `kind` tells templates apart.
    pub(crate) async fn mail(&self, kind: &str, email: &Email) -> Result<(), ApiError> {
        self.both(kind, email, &MAILS).await
    }

    async fn both(&self, kind: &str, email: &Email, [by_source, by_address]: &[WindowRule; 2]) -> Result<(), ApiError> {
        self.count(&format!("{kind}\nsource\n{}", self.source), by_source).await?;
        self.count(&format!("{kind}\naddress\n{email}"), by_address).await
    }

    /// Counts a one-time token that is to be redeemed.
    pub(crate) async fn token(&self) -> Result<(), ApiError> {
        self.count(&format!("token\nsource\n{}", self.source), &TOKENS).await
    }

    async fn count(&self, subject: &str, rule: &WindowRule) -> Result<(), ApiError> {
        admitted(self.store.count_try(subject, rule).await?)
    }

    /// Forgets the guesses at the password of `email`: its owner has set another.
    pub(crate) async fn forget(&self, email: &Email) -> Result<(), ApiError> {
        Ok(self.store.forget_guesses(&Account::Address(email).subject()).await?)
    }

    /// Counts a password that is to be checked as if it were wrong, before it is looked at.
    pub(crate) async fn password(&self, account: Account<'_>) -> Result<Guess<'a>, ApiError> {
        let source = format!("login\nsource\n{}", self.source);
        self.count(&source, &FAILED_LOGINS).await?;
        let subject = account.subject();
        admitted(self.store.reserve_guess(&subject, &PASSWORDS).await?)?;
        // Behind the other: who is made to wait there, which anybody can bring about, uses nothing up here.
        let sign_ins = self.store.count_try(&subject, &SIGN_INS).await?;
        let guess = Guess { store: self.store, subject, source };
        if let Err(refused) = admitted(sign_ins) {
            guess.was_not_checked().await?;
            return Err(refused);
        }
        Ok(guess)
    }
}

/// Counts a password that `org` gives to one of its users.
pub(crate) async fn tenant_password(store: &Store, org: &OrgId) -> Result<(), ApiError> {
    admitted(store.count_try(&format!("password\ntenant\n{org}"), &TENANT_PASSWORDS).await?)
}

/// Whose password is guessed at.
pub(crate) enum Account<'a> {
    /// That of the account with this address, if there is one.
    Address(&'a Email),
    /// The same from a device that its owner signed in from: strangers who guess do not lock it out.
    Device(&'a UserId, &'a str),
    /// That of a tenant user, if there is one.
    TenantUser(&'a OrgId, &'a Username),
    /// The own one, by somebody who is signed in.
    Own(&'a UserId),
}

impl Account<'_> {
    fn subject(&self) -> String {
        match self {
            Self::Address(email) => format!("password\naddress\n{email}"),
            Self::Device(user, device) => format!("password\ndevice\n{user}\n{device}"),
            Self::TenantUser(org, name) => format!("password\ntenant user\n{org}\n{name}"),
            Self::Own(user) => format!("password\nown\n{user}"),
        }
    }
}

/// A password that was counted as wrong. It stays so unless it turns out otherwise.
pub(crate) struct Guess<'a> {
    store: &'a Store,
    subject: String,
    source: String,
}

impl Guess<'_> {
    /// Writes into the log that it was wrong. Account and source have names of their own there, the same every time,
    /// which only the key tells: one sees that many lines are about one account, and not about whose.
    pub(crate) fn was_wrong(&self, names: &MacKey) {
        let pseudonym = |of: &str| {
            let tag = u64::from_be_bytes(names.tag(of.as_bytes())[..8].try_into().unwrap_or_default());
            format!("{tag:016x}")
        };
        tracing::warn!(account = pseudonym(&self.subject), source = pseudonym(&self.source), "a password was wrong");
    }

    /// It was right: all guesses are forgotten.
    pub(crate) async fn was_right(self) -> Result<(), ApiError> {
        self.store.forget_guesses(&self.subject).await?;
        self.store.take_back_try(&self.source, &FAILED_LOGINS).await?;
        Ok(())
    }

    /// Nobody looked at it.
    pub(crate) async fn was_not_checked(self) -> Result<(), ApiError> {
        self.store.take_back_guess(&self.subject).await?;
        self.store.take_back_try(&self.source, &FAILED_LOGINS).await?;
        Ok(())
    }
}

fn admitted(admitted: Admitted) -> Result<(), ApiError> {
    match admitted {
        Admitted::Now => Ok(()),
        Admitted::In(wait) => Err(ApiError::new(Code::RateLimited, "Too many attempts. Wait, then try again.")
            .retry_after(Duration::from_millis(wait.unsigned_abs()))),
    }
}

/// An IPv6 subscriber has a whole /64 to send from. Who comes from nowhere shares one counter.
fn source(ip: Option<&str>) -> String {
    match ip.and_then(|ip| ip.parse::<IpAddr>().ok()) {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.to_string(),
            None => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).to_string(),
        },
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_is_one_source() {
        assert_eq!(source(Some("192.0.2.7")), "192.0.2.7");
        assert_eq!(source(Some("::ffff:192.0.2.7")), "192.0.2.7");
        assert_eq!(source(Some("2001:db8:1:2:3:4:5:6")), "2001:db8:1:2::");
        assert_eq!(source(Some("2001:db8:1:2::1")), source(Some("2001:db8:1:2:ffff::")));
        assert_eq!(source(None), source(Some("nonsense")));
    }
}

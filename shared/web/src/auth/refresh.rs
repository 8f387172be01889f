//! Refresh tokens: `rt1.<user>.<session>.<counter>.<mac>` for people, and
//! `rt1t.<organization>.<tenant user>.<session>.<counter>.<mac>` for tenant users. The state is in the session's row; the token
//! only says which row and which turn, and the MAC that we said so.

use data_encoding::BASE64URL_NOPAD;
use tenantry_domain::{OrgId, SessionId, TenantUserId, UserId};
use tenantry_store::TenantScope;

use super::mac::MacKey;

const VERSION: &str = "rt1";
const TENANT_VERSION: &str = "rt1t";

/// What a refresh token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// Whose session.
    pub user: UserId,
    /// Which session.
    pub session: SessionId,
    /// Which turn of it.
    pub counter: u64,
}

/// What a refresh token of a tenant user says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRefreshToken {
    /// The tenant.
    pub org: OrgId,
    /// Whose session.
    pub user: TenantUserId,
    /// Which session.
    pub session: SessionId,
    /// Which turn of it.
    pub counter: u64,
}

/// Makes and checks refresh tokens.
#[derive(Clone)]
pub struct RefreshTokens(MacKey);

impl RefreshTokens {
    /// With a key derived from `secret`.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(MacKey::derive(secret, "refresh-token"))
    }

    /// The token as text. The same session and turn give the same text, so a lost answer can be repeated.
    #[must_use]
    pub fn seal(&self, token: &RefreshToken) -> String {
        let body = format!("{VERSION}.{}.{}.{}", token.user.short(), token.session.short(), token.counter);
        self.signed(&body)
    }

    /// The same for a tenant user.
    #[must_use]
    pub fn seal_tenant(&self, token: &TenantRefreshToken) -> String {
        let TenantRefreshToken { org, user, session, counter } = token;
        self.signed(&format!("{TENANT_VERSION}.{}.{}.{}.{counter}", org.short(), user.short(), session.short()))
    }

    fn signed(&self, body: &str) -> String {
        let mac = BASE64URL_NOPAD.encode(&self.0.tag(body.as_bytes()));
        format!("{body}.{mac}")
    }

    /// What stands before the MAC, if the MAC is ours.
    fn body<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (body, mac) = text.rsplit_once('.')?;
        let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
        self.0.verify(body.as_bytes(), &mac).then_some(body)
    }

    /// The token in `text`, if we made it.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<RefreshToken> {
        let mut parts = self.body(text)?.split('.');
        let (VERSION, user, session, counter, None) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        Some(RefreshToken {
            user: UserId::from_short(user).ok()?,
            session: SessionId::from_short(session).ok()?,
            counter: counter.parse().ok()?,
        })
    }

    /// The same for a token of a tenant user, with the scope of the tenant.
    #[must_use]
    pub fn open_tenant(&self, text: &str) -> Option<(TenantScope, TenantRefreshToken)> {
        let parts: Vec<_> = self.body(text)?.split('.').collect();
        let [TENANT_VERSION, org, user, session, counter] = parts[..] else { return None };
        let org = OrgId::from_short(org).ok()?;
        #[allow(clippy::disallowed_methods, reason = "the MAC proves that a user of this tenant was given the token")]
        let scope = TenantScope::authenticated(org.clone());
        let token = TenantRefreshToken {
            org,
            user: TenantUserId::from_short(user).ok()?,
            session: SessionId::from_short(session).ok()?,
            counter: counter.parse().ok()?,
        };
        Some((scope, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_untouched_tokens_open() {
        let tokens = RefreshTokens::new(&[1; 32]);
        let token = RefreshToken { user: UserId::new(), session: SessionId::new(), counter: 7 };
        let text = tokens.seal(&token);
        assert_eq!(tokens.open(&text).unwrap(), token);
        assert_eq!(tokens.seal(&token), text);
        assert!(RefreshTokens::new(&[2; 32]).open(&text).is_none());
        assert!(tokens.open(&text.replace(".7.", ".8.")).is_none());
        assert!(tokens.open("").is_none());
        let token =
            TenantRefreshToken { org: OrgId::new(), user: TenantUserId::new(), session: SessionId::new(), counter: 7 };
        let other = tokens.seal_tenant(&token);
        assert_eq!(tokens.open_tenant(&other).unwrap().1, token);
        assert!(tokens.open(&other).is_none() && tokens.open_tenant(&text).is_none(), "one is not the other");
        assert!(tokens.open_tenant(&other.replace(".7.", ".8.")).is_none());
    }
}

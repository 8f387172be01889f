//! Refresh tokens: `rt1.<user>.<session>.<counter>.<mac>`. The state is in the session's row; the token
//! only says which row and which turn, and the MAC that we said so.

use data_encoding::BASE64URL_NOPAD;
use tenantry_domain::{SessionId, UserId};

use super::mac::MacKey;

const VERSION: &str = "rt1";

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
        let mac = BASE64URL_NOPAD.encode(&self.0.tag(body.as_bytes()));
        format!("{body}.{mac}")
    }

    /// The token in `text`, if we made it.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<RefreshToken> {
        let (body, mac) = text.rsplit_once('.')?;
        let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
        if !self.0.verify(body.as_bytes(), &mac) {
            return None;
        }
        let mut parts = body.split('.');
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
    }
}

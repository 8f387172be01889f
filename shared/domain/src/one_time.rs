//! One-time tokens: what a link in a mail carries, to confirm an address, to choose a new password, to join
//! an organization.
//!
//! A letter for the purpose, the ids of the row that it opens, and 128 random bits. So the token itself says
//! where to look, and one row holds one token: a newer one takes the older one's place. Only the SHA-256 of
//! the whole text is stored, purpose and ids included.

use aws_lc_rs::rand;
use data_encoding::BASE64URL_NOPAD;

use crate::{
    ids::{ENCODED_LEN, InviteId, OrgId, UserId},
    secret::{NoRandomness, sha256_hex},
};

/// 128 bits in base64.
const SECRET_LEN: usize = 22;

/// What a token is good for, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To confirm that an address is its owner's.
    VerifyEmail,
    /// To choose a new password.
    ResetPassword,
    /// To join an organization.
    Invite,
}

impl Purpose {
    const fn letter(self) -> char {
        match self {
            Self::VerifyEmail => 'v',
            Self::ResetPassword => 'r',
            Self::Invite => 'i',
        }
    }

    /// How many ids stand in a token.
    const fn ids(self) -> usize {
        match self {
            Self::VerifyEmail | Self::ResetPassword => 1,
            Self::Invite => 2,
        }
    }
}

/// A token: letters, digits, `-` and `_`. Never logged: it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeToken {
    purpose: Purpose,
    text: String,
}

impl OneTimeToken {
    /// A new token for a person.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn for_user(purpose: Purpose, user: &UserId) -> Result<Self, NoRandomness> {
        Self::generate(purpose, user.short())
    }

    /// A new token for an invitation.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn for_invite(org: &OrgId, invite: &InviteId) -> Result<Self, NoRandomness> {
        Self::generate(Purpose::Invite, &format!("{}{}", org.short(), invite.short()))
    }

    fn generate(purpose: Purpose, ids: &str) -> Result<Self, NoRandomness> {
        let mut secret = [0; 16];
        rand::fill(&mut secret).map_err(|_| NoRandomness)?;
        let text = format!("{}{ids}{}", purpose.letter(), BASE64URL_NOPAD.encode(&secret));
        Ok(Self { purpose, text })
    }

    /// The token in `text`, when it is well-formed and made for `purpose`.
    #[must_use]
    pub fn parse(purpose: Purpose, text: &str) -> Option<Self> {
        let rest = text.strip_prefix(purpose.letter())?;
        let fits = rest.len() == purpose.ids() * ENCODED_LEN + SECRET_LEN
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits.then(|| Self { purpose, text: text.to_owned() })
    }

    /// The text that goes into the mail, and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What it is good for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Lower-case hex of the SHA-256, which is what is stored.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256_hex(self.text.as_bytes())
    }

    /// The person whom a token for a person names. Until the hash was compared, that is only a claim.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        if self.purpose.ids() == 1 { UserId::from_short(self.id(0)?).ok() } else { None }
    }

    /// The organization and the invitation that a token for one names. Until the hash was compared, that is
    /// only a claim.
    #[must_use]
    pub fn invite(&self) -> Option<(OrgId, InviteId)> {
        if self.purpose != Purpose::Invite {
            return None;
        }
        OrgId::from_short(self.id(0)?).ok().zip(InviteId::from_short(self.id(1)?).ok())
    }

    fn id(&self, index: usize) -> Option<&str> {
        self.text.get(1 + index * ENCODED_LEN..1 + (index + 1) * ENCODED_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_it_belongs() {
        let (user, org, invite) = (UserId::new(), OrgId::new(), InviteId::new());
        let token = OneTimeToken::for_user(Purpose::ResetPassword, &user).unwrap();
        let parsed = OneTimeToken::parse(Purpose::ResetPassword, token.expose()).unwrap();
        assert!(parsed == token && parsed.user() == Some(user.clone()) && parsed.invite().is_none());
        assert_ne!(OneTimeToken::for_user(Purpose::ResetPassword, &user).unwrap().hash(), token.hash());
        let token = OneTimeToken::for_invite(&org, &invite).unwrap();
        let parsed = OneTimeToken::parse(Purpose::Invite, token.expose()).unwrap();
        assert!(parsed.invite() == Some((org, invite)) && parsed.user().is_none());
    }

    #[test]
    fn one_purpose_is_never_another() {
        let token = OneTimeToken::for_user(Purpose::VerifyEmail, &UserId::new()).unwrap();
        assert!(OneTimeToken::parse(Purpose::ResetPassword, token.expose()).is_none());
        let swapped = token.expose().replacen('v', "r", 1);
        let swapped = OneTimeToken::parse(Purpose::ResetPassword, &swapped).unwrap();
        assert_ne!(swapped.hash(), token.hash(), "the hash is of the purpose too");
    }

    #[test]
    fn what_is_no_token_is_none() {
        let token = OneTimeToken::for_user(Purpose::VerifyEmail, &UserId::new()).unwrap().expose().to_owned();
        let short = &token[..token.len() - 1];
        for text in ["", "v", "ä", short, &format!("{token}A"), &format!("{short}#"), &format!("{short}ä")] {
            assert!(OneTimeToken::parse(Purpose::VerifyEmail, text).is_none(), "{text:?} was taken");
        }
        let claims_nobody = format!("v{}", "U".repeat(48));
        assert!(OneTimeToken::parse(Purpose::VerifyEmail, &claims_nobody).unwrap().user().is_none());
    }
}

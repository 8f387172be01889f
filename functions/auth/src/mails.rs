//! The mails that are ordered here, and in which language.
//!
//! Where an answer must not tell whether an account exists, a mail is ordered either way: one that is
//! [`Content::Nothing`] takes as long to order as any.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header};
use tenantry_domain::{
    Email, Millis, RequestId, UserId,
    one_time::{OneTimeToken, Purpose},
};
use tenantry_store::{Device, Origin, Store, User};
use tenantry_web::{
    ApiError, Code,
    mail::{Content, Language, Mail, MailQueue},
};

/// How long a link to confirm an address is good for: a day.
const VERIFY_MINUTES: u32 = 24 * 60;

/// How long a link to a new password is good for.
const RESET_MINUTES: u32 = 30;

/// Where the mails of this function are ordered.
#[derive(Clone)]
pub(crate) struct Mails {
    store: Store,
    queue: Arc<dyn MailQueue>,
}

impl Mails {
    pub(crate) fn new(store: Store, queue: Arc<dyn MailQueue>) -> Self {
        Self { store, queue }
    }

    /// Orders a link for `user`, who confirms the address with it or chooses a new password. Without a user
    /// it is the same work, and no mail.
    ///
    /// # Errors
    /// 503 when the order is not taken.
    pub(crate) async fn link(
        &self,
        purpose: Purpose,
        user: Option<&User>,
        to: &Email,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        let content = |token: String| match (user, purpose) {
            (Some(user), Purpose::VerifyEmail) => {
                Content::Verification { name: name(user), token, valid_minutes: VERIFY_MINUTES }
            }
            (Some(user), Purpose::ResetPassword) => {
                Content::PasswordReset { name: name(user), token, valid_minutes: RESET_MINUTES }
            }
            _ => Content::Nothing {},
        };
        self.token_and(purpose, user, to, headers, content).await
    }

    /// Tells the owner of an account that somebody registered with its address: as much work as
    /// [`link`](Self::link).
    ///
    /// # Errors
    /// 503 when the order is not taken.
    pub(crate) async fn already_registered(&self, user: &User, headers: &HeaderMap) -> Result<(), ApiError> {
        let content =
            |_| if user.disabled { Content::Nothing {} } else { Content::AlreadyRegistered { name: name(user) } };
        self.token_and(Purpose::VerifyEmail, None, &user.email, headers, content).await
    }

    async fn token_and(
        &self,
        purpose: Purpose,
        user: Option<&User>,
        to: &Email,
        headers: &HeaderMap,
        content: impl FnOnce(String) -> Content,
    ) -> Result<(), ApiError> {
        let minutes = if purpose == Purpose::ResetPassword { RESET_MINUTES } else { VERIFY_MINUTES };
        // Nobody's token lies where nobody looks, until its time is over.
        let owner = user.map_or_else(UserId::new, |user| user.id.clone());
        let token = OneTimeToken::for_user(purpose, &owner).map_err(|error| ApiError::internal(error.to_string()))?;
        self.store.put_one_time(&owner, &token, Millis::from(minutes) * 60_000).await?;
        self.order(to, language(user, headers), content(token.expose().to_owned())).await
    }

    /// Tells the owner that the password was changed. A change that was made is not undone when this fails.
    pub(crate) async fn password_changed(&self, user: &User, headers: &HeaderMap) {
        let content = Content::PasswordChanged { name: name(user), at: self.store.now() };
        let ordered = self.order(&user.email, language(Some(user), headers), content).await;
        noted(ordered, "nobody tells the owner of an account that the password was changed");
    }

    /// Tells the owner about a login from a device that was not seen before.
    pub(crate) async fn new_device(&self, user: &User, device: &Device, origin: &Origin, headers: &HeaderMap) {
        let label = [&device.name, &device.kind, &device.user_agent].into_iter().flatten().next();
        let content = Content::NewDevice {
            name: name(user),
            device: label.cloned().unwrap_or_else(|| "?".to_owned()),
            address: origin.ip.clone().unwrap_or_else(|| "?".to_owned()),
            at: self.store.now(),
        };
        let ordered = self.order(&user.email, language(Some(user), headers), content).await;
        noted(ordered, "nobody tells the owner of an account about a new device");
    }

    async fn order(&self, to: &Email, language: Language, content: Content) -> Result<(), ApiError> {
        let id = format!("{}.{}", content.template(), RequestId::new().short());
        let mail = Mail { id, language, to: to.clone(), content };
        self.queue.send(&mail).await.map_err(|error| {
            tracing::error!(%error, template = mail.content.template(), "a mail was not ordered");
            ApiError::new(Code::Unavailable, "Mail cannot be sent at this moment. Try again.")
                .retry_after(Duration::from_secs(5))
        })
    }
}

fn noted(ordered: Result<(), ApiError>, what: &str) {
    if ordered.is_err() {
        tracing::warn!("{what}");
    }
}

/// What the person is called; empty when they did not say.
fn name(user: &User) -> String {
    user.full_name.clone().unwrap_or_default()
}

/// The person's language, or else the one that the client asks for, or else English.
fn language(user: Option<&User>, headers: &HeaderMap) -> Language {
    match user.and_then(|user| user.preferred_language.as_deref()) {
        Some("zh") => Language::Zh,
        Some(_) => Language::En,
        None => {
            headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).map_or(Language::En, accepted)
        }
    }
}

/// The best of the languages that there are templates for (RFC 9110, 12.5.4); the first of two that are as good.
fn accepted(header: &str) -> Language {
    let mut best = (0.0, Language::En);
    for range in header.split(',').take(20) {
        let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
        let quality = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.parse::<f32>().ok()).unwrap_or(0.0);
        let language = match tag.trim().split('-').next() {
            Some(tag) if tag.eq_ignore_ascii_case("zh") => Language::Zh,
            Some(tag) if tag.eq_ignore_ascii_case("en") => Language::En,
            _ => continue,
        };
        if quality > best.0 {
            best = (quality, language);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_language_that_there_is() {
        for (header, language) in [
            ("", Language::En),
            ("fr", Language::En),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Zh),
            ("en-GB, zh", Language::En),
            ("en;q=0.2, ZH-hant;q=0.3", Language::Zh),
            ("zh;q=0", Language::En),
            ("zh;q=x", Language::En),
        ] {
            assert_eq!(accepted(header), language, "{header:?}");
        }
    }
}

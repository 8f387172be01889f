//! What register, login and refresh answer: a session as tokens, and who it is for.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use tenantry_domain::{Millis, OrgId, SessionId, UserId, roles::Role, time::rfc3339};
use tenantry_store::{Device, MemberOf, Session, User as StoredUser};
use tenantry_web::{
    ApiError, Caller, Code,
    auth::{ACCESS_TOKEN_SECONDS, RefreshToken, RoleName},
};
use utoipa::ToSchema;

use crate::State;

/// How long a session lasts, in milliseconds: 30 days. NIST SP 800-63B asks for a fresh sign-in at least
/// that often at its lowest level, and using the session does not make it longer.
pub(crate) const SESSION_LASTS: Millis = 30 * 24 * 60 * 60 * 1000;

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    /// The person.
    #[schema(value_type = String, example = "usr_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: UserId,
    /// Address, in lower case.
    email: String,
    /// Name.
    #[schema(required)]
    full_name: Option<String>,
    /// When the address was confirmed; `null` when it was not.
    #[schema(required, format = DateTime)]
    email_verified_at: Option<String>,
    /// Address of a picture.
    #[schema(required)]
    avatar_url: Option<String>,
    /// Telephone number in the form of E.164.
    #[schema(required)]
    phone: Option<String>,
    /// Language of mails, `en` or `zh`; `null` for that of the client.
    #[schema(required, value_type = Option<crate::profile::Language>)]
    preferred_language: Option<String>,
    /// How the console looks: `light`, `dark` or `system`.
    #[schema(required, value_type = Option<crate::profile::Theme>)]
    theme_preference: Option<String>,
    /// When they registered.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<&StoredUser> for User {
    fn from(user: &StoredUser) -> Self {
        Self {
            id: user.id.clone(),
            email: user.email.to_string(),
            full_name: user.full_name.clone(),
            email_verified_at: user.email_verified_at.map(rfc3339),
            avatar_url: user.avatar_url.clone(),
            phone: user.phone.clone(),
            preferred_language: user.preferred_language.clone(),
            theme_preference: user.theme_preference.clone(),
            created_at: rfc3339(user.created_at),
        }
    }
}

/// An organization that a person belongs to.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OrganizationOfUser)]
pub(crate) struct Organization {
    /// The organization.
    #[schema(value_type = String, example = "org_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    pub(crate) id: OrgId,
    /// Its name.
    pub(crate) name: String,
    /// The person's role in it.
    pub(crate) role: RoleName,
    /// When it will be erased, while it is being deleted; absent otherwise.
    #[schema(format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deletes_at: Option<String>,
}

impl From<MemberOf> for Organization {
    fn from(member: MemberOf) -> Self {
        let MemberOf { organization, role, .. } = member;
        let deletes_at = organization.deletes_at.map(rfc3339);
        Self { id: organization.id, name: organization.name, role: role.into(), deletes_at }
    }
}

impl Organization {
    /// What the access token says the person may do there: nothing while it is being deleted.
    fn role_in_token(&self) -> Option<Role> {
        self.deletes_at.is_none().then(|| self.role.into())
    }
}

/// Tokens, and who they are for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// Send it as `Authorization: Bearer`. A JWT signed with ES256.
    access_token: String,
    /// Exchange it for new tokens before the access token expires; each is good for one exchange.
    refresh_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 600)]
    expires_in: i64,
    /// The person.
    user: User,
    /// The organization that the tokens act for.
    organization: Organization,
}

/// Who is signed in has no account, membership or session any more.
pub(crate) fn gone() -> ApiError {
    ApiError::new(Code::Unauthenticated, "This session, its account or its membership has ended. Sign in again.")
}

/// The caller's account and session, both good at this moment. An access token lives on for minutes when they are not.
pub(crate) async fn signed_in(state: &State, caller: &Caller) -> Result<(StoredUser, Session), ApiError> {
    let (user, session) = caller.user()?;
    let (user, session) = tokio::try_join!(state.store.user(user), state.store.session(user, session))?;
    let (user, session) = user.filter(|user| !user.disabled).zip(session).ok_or_else(gone)?;
    if user.epoch == session.epoch { Ok((user, session)) } else { Err(gone()) }
}

/// Begins a session of `user` in `organization`. The oldest ends when there are too many.
pub(crate) async fn begin(
    state: &State,
    user: &StoredUser,
    organization: &Organization,
    device: Device,
) -> Result<Session, ApiError> {
    let now = state.store.now();
    let session = Session {
        id: SessionId::new(),
        user: user.id.clone(),
        org: organization.id.clone(),
        counter: 0,
        expires_at: now + SESSION_LASTS,
        created_at: now,
        last_used_at: None,
        epoch: user.epoch,
        device,
    };
    state.store.create_session(&session).await?;
    state.store.trim_sessions(&user.id).await?;
    Ok(session)
}

/// The tokens of a session as it stands.
pub(crate) fn tokens(
    state: &State,
    user: &StoredUser,
    organization: Organization,
    session: &Session,
) -> Result<Tokens, ApiError> {
    let ends_at = state.store.now().div_euclid(1000) + ACCESS_TOKEN_SECONDS;
    let access_token = access_token(state, user, &organization, session, ends_at)?;
    let refresh_token = refresh_token(state, session);
    Ok(Tokens {
        access_token,
        refresh_token,
        token_type: "Bearer",
        expires_in: ACCESS_TOKEN_SECONDS,
        user: user.into(),
        organization,
    })
}

/// An access token of a session, good until `ends_at`, in seconds since 1970.
pub(crate) fn access_token(
    state: &State,
    user: &StoredUser,
    organization: &Organization,
    session: &Session,
    ends_at: i64,
) -> Result<String, ApiError> {
    let (role, now) = (organization.role_in_token(), state.store.now());
    state
        .signing_key
        .issue_until(&user.id, &organization.id, role, &session.id, now, ends_at)
        .map_err(|error| ApiError::internal(format!("signing an access token failed: {error}")))
}

/// The current refresh token of a session.
pub(crate) fn refresh_token(state: &State, session: &Session) -> String {
    let (user, session, counter) = (session.user.clone(), session.id.clone(), session.counter);
    state.refresh_tokens.seal(&RefreshToken { user, session, counter })
}

/// JSON that no cache may keep, because there is a secret in it.
pub(crate) struct NotStored<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for NotStored<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

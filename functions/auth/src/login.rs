//! `POST /auth/login`: tokens for e-mail and password. Whatever is wrong with them, the answer is the same
//! and takes as long.

use axum::extract::State as Shared;
use http::{HeaderMap, header};
use serde::Deserialize;
use tenantry_domain::{Email, UserId};
use tenantry_store::{Store, User};
use tenantry_web::{ApiError, Code, Json, error::Problem, extract::optional_line};
use utoipa::ToSchema;

use crate::{
    State,
    password::Password,
    tokens::{NotStored, Tokens, begin},
};

/// Most characters of what a client says about its device.
const DEVICE_CHARS: usize = 100;

/// Most characters of a user agent that are kept. It is for people to recognize a device by.
const USER_AGENT_CHARS: usize = 200;

/// E-mail and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// Address that the account was registered with.
    #[schema(format = Email, example = "ada@example.com")]
    email: String,
    /// The account's password.
    #[schema(format = Password)]
    password: String,
    /// The device that the session is for.
    device: Option<Device>,
}

/// What a client says about its device, shown to the person in the list of sessions.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Device {
    /// The client's own name for the device.
    #[schema(min_length = 1, max_length = 100)]
    id: Option<String>,
    /// Name for people.
    #[schema(min_length = 1, max_length = 100, example = "Ada's phone")]
    name: Option<String>,
    /// Kind of device.
    #[schema(min_length = 1, max_length = 100, example = "phone")]
    r#type: Option<String>,
    /// Version of the client's program.
    #[schema(min_length = 1, max_length = 100, example = "2.4.1")]
    app_version: Option<String>,
}

impl Device {
    fn checked(&self, headers: &HeaderMap) -> Result<tenantry_store::Device, ApiError> {
        let line = |pointer, text: &Option<String>| optional_line(pointer, text.as_deref(), DEVICE_CHARS);
        Ok(tenantry_store::Device {
            id: line("/device/id", &self.id)?,
            name: line("/device/name", &self.name)?,
            kind: line("/device/type", &self.r#type)?,
            app_version: line("/device/app_version", &self.app_version)?,
            ip: None,
            user_agent: user_agent(headers),
        })
    }
}

/// Log in
///
/// Begins a session. Unknown address, wrong password and disabled account are answered alike.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    operation_id = "login",
    request_body = LoginRequest,
    security(()),
    responses(
        (status = 200, description = "Signed in.", body = Tokens),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`invalid_credentials`: no account that may sign in has these.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The person belongs to no organization any more.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is not allowed; `errors` names the field.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn login(
    Shared(state): Shared<State>,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<NotStored<Tokens>, ApiError> {
    let email: Email = request.email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    let device = request.device.unwrap_or_default().checked(&headers)?;
    let user = find(&state.store, &email).await?;
    let password = Password::given(&request.password);
    let matches = state.hasher.verify(password, user.as_ref().map(|user| user.password_hash.as_str())).await?;
    let user = user.filter(|user| matches && !user.disabled).ok_or_else(|| {
        ApiError::new(Code::InvalidCredentials, "E-mail and password do not match an account that may sign in.")
    })?;
    let first = state.store.organizations_of(&user.id, 1, None).await?.items.into_iter().next();
    let organization = first.ok_or_else(|| {
        ApiError::new(Code::Forbidden, "You do not belong to an organization any more; ask to be invited again.")
    })?;
    Ok(NotStored(begin(&state, &user, organization.into(), device).await?))
}

/// The account, in as many reads whether there is one or not: time on the wire would tell the difference.
async fn find(store: &Store, email: &Email) -> Result<Option<User>, ApiError> {
    let found = store.user_by_email(email).await?;
    if found.is_none() {
        store.user(&UserId::new()).await?;
    }
    Ok(found)
}

/// The beginning of the user agent, without control characters.
pub(crate) fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?.trim();
    let kept: String = text.chars().filter(|c| !c.is_control()).take(USER_AGENT_CHARS).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_checked_field_by_field() {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "x".repeat(500).parse().unwrap());
        let device = Device { name: Some(" Ada's phone ".into()), ..Device::default() };
        let checked = device.checked(&headers).unwrap();
        assert_eq!(checked.name.as_deref(), Some("Ada's phone"));
        assert_eq!(checked.user_agent.map(|text| text.len()), Some(USER_AGENT_CHARS));
        let device = Device { r#type: Some("x".repeat(101)), ..Device::default() };
        let error = device.checked(&headers).unwrap_err();
        assert_eq!(error.to_problem("").errors[0].pointer, "/device/type");
    }
}

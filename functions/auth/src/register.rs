//! `POST /auth/register`: a person, and the organization they own.

use axum::{
    extract::State as Shared,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tenantry_domain::{Email, OrgId, UserId, one_time::Purpose, plans::Plan, roles::Role};
use tenantry_store::{NewUser, Store, User};
use tenantry_web::{
    ApiError, Code, Json,
    error::Problem,
    extract::{line, optional_line},
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{
    Hasher, State,
    email::EmailVerification,
    limits::Throttle,
    login::{find, of_origin},
    password::Password,
    tokens::{NotStored, Organization, Tokens, begin, tokens},
};

/// Most characters of a name.
pub(crate) const NAME_CHARS: usize = 100;

/// A registration.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterRequest {
    /// Address of the person; upper and lower case are the same account.
    #[schema(format = Email, max_length = 254, example = "ada@example.com")]
    email: String,
    /// Any characters; not one of the most common passwords, and not the address again.
    #[schema(format = Password, min_length = 8, max_length = 128)]
    password: String,
    /// Name of the person.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "Ada Lovelace"
    )]
    full_name: Option<String>,
    /// Name of the organization; made from the person's when left out.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "Analytical Engines"
    )]
    organization_name: Option<String>,
}

/// Register
///
/// Creates a person and an organization that they own, on the first plan, signs them in, and mails a link to
/// confirm the address. Where addresses have to be confirmed first (`EMAIL_VERIFICATION=required`), nobody is
/// signed in, and the answer is 202 whether or not the address is taken; the mail says which.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    operation_id = "register",
    request_body = RegisterRequest,
    security(()),
    responses(
        (status = 201, description = "Registered and signed in.", body = Tokens),
        (status = 202, description = "Where addresses have to be confirmed first: a mail is on its way."),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`email_taken`: the address belongs to an account.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is not allowed; `errors` names the field.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn register(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    Json(request): Json<RegisterRequest>,
) -> Result<Response, ApiError> {
    let (full_name, organization_name) = (request.full_name.as_deref(), request.organization_name.as_deref());
    let address: Email = request.email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    Throttle::new(&state.store, &origin).registration(&address).await?;
    let plan = state.store.plans().first();
    let RegisterRequest { email, password, .. } = &request;
    let registered = register_named(&state.store, &state.hasher, email, password, full_name, organization_name, plan);
    let registered = registered.await?;
    if state.verification == EmailVerification::Required {
        return confirm_first(&state, &address, registered.is_some(), &headers).await;
    }
    let (user, organization) = registered.ok_or_else(|| {
        ApiError::field(Code::EmailTaken, "/email", "belongs to an account already; sign in, or use another address")
    })?;
    if state.mails.link(Purpose::VerifyEmail, Some(&user), &address, &headers).await.is_err() {
        // They are registered all the same, and can order the mail again.
        tracing::warn!(user = %user.id, "a mail to confirm an address was not ordered");
    }
    let session = begin(&state, &user, &organization, of_origin(&origin)).await?;
    Ok((StatusCode::CREATED, NotStored(tokens(&state, &user, organization, &session)?)).into_response())
}

/// Answers the same for a new address and a taken one, after the same work: hashing and the attempt to write
/// the account are behind us, now the account is read, a token written and a mail ordered.
async fn confirm_first(state: &State, email: &Email, new: bool, headers: &HeaderMap) -> Result<Response, ApiError> {
    match find(&state.store, email).await? {
        Some(user) if new => state.mails.link(Purpose::VerifyEmail, Some(&user), email, headers).await?,
        Some(user) => state.mails.already_registered(&user, headers).await?,
        // Erased within this very moment.
        None => state.mails.link(Purpose::VerifyEmail, None, email, headers).await?,
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Registers a person by the rules of the route, with an organization on `plan`. `None` when the address
/// is taken; then nothing was written.
///
/// # Errors
/// 422 for a value that the route refuses, 503 when hashing or the store is overloaded.
pub async fn register_user(
    store: &Store,
    hasher: &Hasher,
    email: &str,
    password: &str,
    full_name: Option<&str>,
    organization_name: Option<&str>,
    plan: &Plan,
) -> Result<Option<(User, OrgId)>, ApiError> {
    let registered = register_named(store, hasher, email, password, full_name, organization_name, plan).await?;
    Ok(registered.map(|(user, organization)| (user, organization.id)))
}

async fn register_named(
    store: &Store,
    hasher: &Hasher,
    email: &str,
    password: &str,
    full_name: Option<&str>,
    organization_name: Option<&str>,
    plan: &Plan,
) -> Result<Option<(User, Organization)>, ApiError> {
    let email: Email = email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    let password = Password::chosen("/password", password, &email)?;
    let full_name = optional_line("/full_name", full_name, NAME_CHARS)?;
    let organization_name = match organization_name {
        Some(name) => line("/organization_name", name, NAME_CHARS)?,
        None => organization_of(full_name.as_deref().unwrap_or_else(|| email.local_part())),
    };
    // Hashed before anybody looks whether the address is taken, so both take as long.
    let password_hash = hasher.hash(password).await?;
    let created_at = store.now();
    let user = User::new(UserId::new(), email, password_hash, full_name, created_at);
    let org = OrgId::new();
    let created = store.create_user(&NewUser { user: &user, org: &org, org_name: &organization_name, plan }).await?;
    let organization = Organization { id: org, name: organization_name, role: Role::Owner.into(), deletes_at: None };
    Ok(created.then_some((user, organization)))
}

/// A name for the organization of somebody who gave none.
pub(crate) fn organization_of(owner: &str) -> String {
    const SUFFIX: &str = "'s organization";
    let owner: String = owner.chars().take(NAME_CHARS - SUFFIX.len()).collect();
    format!("{owner}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_is_an_allowed_name() {
        assert_eq!(organization_of("Ada"), "Ada's organization");
        assert!(line("/organization_name", &organization_of(&"ä".repeat(100)), NAME_CHARS).is_ok());
    }
}

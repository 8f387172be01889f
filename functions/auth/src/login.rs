//! `POST /auth/login`: tokens for e-mail and password. Whatever is wrong with them, the answer is the same
//! and takes as long.

use axum::extract::State as Shared;
use http::HeaderMap;
use serde::Deserialize;
use tenantry_domain::{
    Email, OrgId, UserId,
    roles::{Actor, Permission},
};
use tenantry_store::{AuditActor, Change, MemberOf, NewAudit, Origin, Seen, Store, User};
use tenantry_web::{
    ApiError, Code, Json,
    error::Problem,
    extract::{Object, optional_line},
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{
    State,
    email::EmailVerification,
    limits::{Account, Throttle},
    password::Password,
    register::organization_of,
    tenant_login::{self, SignedIn},
    tokens::{NotStored, begin, tokens},
};

/// Most characters of what a client says about its device.
const DEVICE_CHARS: usize = 100;

/// How many organizations that are being deleted are looked through for one to bring back: more than one person may
/// create.
const MOST_DELETED: u16 = 50;

/// E-mail and password of a person; or name and password of a tenant user, with an API key of their tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// Address that the account was registered with.
    #[schema(format = Email, example = "ada@example.com")]
    email: Option<String>,
    /// An API key of the scope `login`: it says whose customer the tenant user is.
    api_key: Option<String>,
    /// The tenant user's name.
    #[schema(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._@+-]+$", example = "mike")]
    username: Option<String>,
    /// The account's password.
    #[schema(format = Password)]
    password: String,
    /// The device that the session is for.
    #[schema(value_type = Option<Device>)]
    device: Option<Object<Device>>,
}

/// What a client says about its device, shown to the person in the list of sessions.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Device {
    /// The client's own name for the device.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    id: Option<String>,
    /// Name for people.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "Ada's phone"
    )]
    name: Option<String>,
    /// Kind of device.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "phone"
    )]
    r#type: Option<String>,
    /// Version of the client's program.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "2.4.1"
    )]
    app_version: Option<String>,
}

impl Device {
    fn checked(&self, origin: &Origin) -> Result<tenantry_store::Device, ApiError> {
        let line = |pointer, text: &Option<String>| optional_line(pointer, text.as_deref(), DEVICE_CHARS);
        Ok(tenantry_store::Device {
            id: line("/device/id", &self.id)?,
            name: line("/device/name", &self.name)?,
            kind: line("/device/type", &self.r#type)?,
            app_version: line("/device/app_version", &self.app_version)?,
            ..of_origin(origin)
        })
    }
}

/// What the connection alone tells of a device.
pub(crate) fn of_origin(origin: &Origin) -> tenantry_store::Device {
    tenantry_store::Device { ip: origin.ip.clone(), user_agent: origin.user_agent.clone(), ..Default::default() }
}

/// Log in
///
/// Begins a session. Unknown address, wrong password and disabled account are answered alike. After five wrong
/// passwords for an address each further one has to wait, 30 s at first and 15 minutes at last, whether or not
/// there is such an account; a device that the owner signed in from before, and that sends its `device.id`, is
/// counted by itself.
///
/// Who belongs to no organization any more gets a new one of their own. Who owns one that is being deleted, and has no
/// other, gets tokens that bring it back: `organization.deletes_at` says so, `POST /organizations/{id}/restore` and the
/// person's own routes take the access token, and the refresh token is good once the organization is restored.
///
/// Tenant users come with an API key of the scope `login`, their name and their password instead of an address, and get
/// tokens of the type `tenant_user`, which are for the tenant's own services.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    operation_id = "login",
    request_body = LoginRequest,
    security(()),
    responses(
        (status = 200, description = "Signed in.", body = SignedIn),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`invalid_credentials`: no account that may sign in has these. `invalid_api_key`: the key is not valid.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`email_not_verified`: the password is right, and the address has to be confirmed first. `forbidden`: the person belongs to no organization any more and has created as many as one may, or the key lacks the scope `login`.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is not allowed; `errors` names the field.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn login(
    Shared(state): Shared<State>,
    RequestOrigin(origin): RequestOrigin,
    headers: HeaderMap,
    Json(request): Json<LoginRequest>,
) -> Result<NotStored<SignedIn>, ApiError> {
    let LoginRequest { email, api_key, username, password, device } = request;
    let device = device.unwrap_or_default().0.checked(&origin)?;
    let missing =
        |name: &str| ApiError::field(Code::InvalidBody, format!("/{name}"), format!("missing field `{name}`"));
    let email = match (email, api_key, username) {
        (Some(email), None, None) => email,
        (None, Some(key), Some(username)) => {
            let tokens = tenant_login::login(&state, &origin, &key, &username, &password, device).await?;
            return Ok(NotStored(SignedIn::TenantUser(Box::new(tokens))));
        }
        (None, None, None) => return Err(missing("email")),
        (None, None, Some(_)) => return Err(missing("api_key")),
        (None, Some(_), None) => return Err(missing("username")),
        (Some(_), ..) => {
            let detail = "Send either email, or api_key and username.";
            return Err(ApiError::new(Code::InvalidBody, detail));
        }
    };
    let email: Email = email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    let user = find(&state.store, &email).await?;
    let known = known_device(&state.store, user.as_ref(), &device).await?;
    let account = known.map_or(Account::Address(&email), |(user, device)| Account::Device(user, device));
    let guess = Throttle::new(&state.store, &origin).password(account).await?;
    let hash = user.as_ref().map(|user| user.password_hash.as_str());
    let password = Password::given(&password);
    let user = user.as_ref().filter(|user| !user.disabled);
    let right = state.check_password(guess, password, hash, user.is_some()).await?;
    let user = user.filter(|_| right).ok_or_else(|| {
        ApiError::new(Code::InvalidCredentials, "E-mail and password do not match an account that may sign in.")
    })?;
    confirmed(&state, user)?;
    let organization = where_to(&state, user, &origin).await?.into();
    let session = begin(&state, user, &organization, device).await?;
    if state.store.remember_device(&session, &origin).await? == Seen::Never {
        state.mails.new_device(user, &session.device, &origin, &headers).await;
    }
    Ok(NotStored(SignedIn::Person(Box::new(tokens(&state, user, organization, &session)?))))
}

/// Whether the account may be used with its address as it is.
pub(crate) fn confirmed(state: &State, user: &User) -> Result<(), ApiError> {
    if state.verification == EmailVerification::Optional || user.email_verified_at.is_some() {
        return Ok(());
    }
    Err(ApiError::new(
        Code::EmailNotVerified,
        "Confirm your e-mail address first, with the link that was mailed to you. \
         POST /api/v1/auth/verify-email/resend orders another mail.",
    ))
}

/// The organization that a new session acts for: the first that the person can use. Without one it is one of theirs
/// that they may still bring back. Who has none of either gets one as at registration: without a session they could
/// not even accept an invitation.
async fn where_to(state: &State, user: &User, origin: &Origin) -> Result<MemberOf, ApiError> {
    let store = &state.store;
    if let Some(first) = store.organizations_of(&user.id, 1, None).await?.items.into_iter().next() {
        return Ok(first);
    }
    let now = store.now();
    let may_restore = |member: &MemberOf| {
        Actor::User(member.role).may(Permission::OwnOrganization)
            && member.organization.deletes_at.is_some_and(|at| at > now)
    };
    let deleted = store.organizations_of_in_any_state(&user.id, MOST_DELETED, None).await?.items;
    if let Some(theirs) = deleted.into_iter().find(may_restore) {
        return Ok(theirs);
    }
    let name = organization_of(user.full_name.as_deref().unwrap_or_else(|| user.email.local_part()));
    let org = OrgId::new();
    let audit = NewAudit {
        action: "organization.created",
        actor: AuditActor::User(user.id.clone()),
        target: Some(org.as_str()),
        changes: vec![Change { field: "name", old: None, new: Some(name.clone()) }],
        origin,
    };
    store.create_organization(&user.id, &org, &name, store.plans().first(), &audit).await?.ok_or_else(|| {
        ApiError::new(Code::Forbidden, "You do not belong to an organization any more; ask to be invited again.")
    })
}

/// Whose device it is, if the owner of the account signed in from it before. One read, whether or not there is
/// an account.
async fn known_device<'a>(
    store: &Store,
    user: Option<&'a User>,
    device: &'a tenantry_store::Device,
) -> Result<Option<(&'a UserId, &'a str)>, ApiError> {
    let Some(device) = device.id.as_deref() else { return Ok(None) };
    let nobody = UserId::new();
    let known = store.is_device_of(user.map_or(&nobody, |user| &user.id), device).await?;
    Ok(user.filter(|_| known).map(|user| (&user.id, device)))
}

/// The account, in as many reads whether there is one or not: time on the wire would tell the difference.
pub(crate) async fn find(store: &Store, email: &Email) -> Result<Option<User>, ApiError> {
    let found = store.user_by_email(email).await?;
    if found.is_none() {
        store.user(&UserId::new()).await?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_checked_field_by_field() {
        let origin = Origin { ip: Some("192.0.2.7".into()), ..Origin::default() };
        let device = Device { name: Some(" Ada's phone ".into()), ..Device::default() };
        let checked = device.checked(&origin).unwrap();
        assert_eq!(checked.name.as_deref(), Some("Ada's phone"));
        assert_eq!(checked.ip.as_deref(), Some("192.0.2.7"));
        let device = Device { r#type: Some("x".repeat(101)), ..Device::default() };
        let error = device.checked(&origin).unwrap_err();
        assert_eq!(error.to_problem("").errors[0].pointer, "/device/type");
    }
}

//! Invitations: made by owners and admins, mailed, and accepted by whoever has the address.

use std::time::Duration;

use axum::{
    Json as Answer,
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    Email, InviteId, Millis, UserId,
    features::Counted,
    one_time::{OneTimeToken, Purpose},
    plans::Limit,
    roles::Permission,
    time::rfc3339,
};
use tenantry_store::{Accepted, Admitted, AuditActor, Invite as Stored, Invited, NewAudit, StoreError, WindowRule};
use tenantry_web::{
    ApiError, Caller, Code, Json, Query, Tagged,
    auth::RoleName,
    cursor::{Cursors, ListQuery},
    error::Problem,
    mail::{Content, Language, Mail},
    origin::RequestOrigin,
    plan::OnPlan,
};
use utoipa::ToSchema;

use crate::{
    State,
    acting::{Acting, Ids},
    members::{GivenRole, busy, role_change},
    organizations::{Organization, of_member},
    refusals::{ActRefusals, ReadRefusals, WriteRefusals},
};

/// How long an invitation may be accepted: a week.
const VALID_MINUTES: u32 = 7 * 24 * 60;

/// Invitations of one organization: each is a mail with words of its own, to an address that did not ask.
const INVITES: WindowRule = WindowRule { most: 200, window: 24 * 60 * 60 * 1000 };

/// An invitation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invite {
    /// The invitation.
    #[schema(value_type = String, example = "inv_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^inv_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: InviteId,
    /// Who is invited.
    email: String,
    /// What they will be.
    role: RoleName,
    /// Who invited them.
    #[schema(value_type = String, example = "usr_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    invited_by: UserId,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// Until when it may be accepted.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<Stored> for Invite {
    fn from(invite: Stored) -> Self {
        Self {
            id: invite.id,
            email: invite.email.to_string(),
            role: invite.role.into(),
            invited_by: invite.invited_by,
            created_at: rfc3339(invite.created_at),
            expires_at: rfc3339(invite.expires_at),
        }
    }
}

/// An invitation that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedInvite {
    /// The invitation.
    #[serde(flatten)]
    invite: Invite,
    /// Whether its mail was ordered. If not, the link is lost: invite the address once more.
    mailed: bool,
}

/// A page of invitations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InviteList {
    /// The invitations that may still be accepted, oldest first.
    data: Vec<Invite>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Whom to invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteRequest {
    /// Their address.
    #[schema(format = Email, max_length = 254, example = "grace@example.com")]
    email: String,
    /// What they will be.
    role: GivenRole,
}

/// The token of a mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptRequest {
    /// As it stands in the link.
    token: String,
}

/// Invite a member
///
/// Mails a link to the address, good for a week and once, and for as long as who made it may invite to that role. A
/// newer invitation to the same address takes the place of the older one. An organization makes 200 a day. When the mail
/// cannot be ordered, `mailed` is false: the invitation stands, and another one to the address brings another mail.
#[utoipa::path(
    post,
    path = "/api/v1/organizations/{id}/members",
    tag = "members",
    operation_id = "invite_member",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")),
    request_body = InviteRequest,
    security(("bearer" = [])),
    responses(
        (status = 201, description = "Invited.", body = CreatedInvite),
        (status = 429, description = "The organization has invited very many people today; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
        WriteRefusals,
    ),
)]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<InviteRequest>,
) -> Result<Response, ApiError> {
    let acting = Acting::changing(&state, &caller, &ids, Permission::ManageMembers).await?;
    let role = request.role.into();
    if !acting.role.may_grant(role) {
        return Err(ApiError::new(Code::Forbidden, "Nobody invites to a role above their own; ask an owner."));
    }
    let email: Email = request.email.parse().map_err(|error| ApiError::invalid("/email", format!("{error}")))?;
    let on = OnPlan::of(&state.store, &acting.scope).await?;
    // A kindness: what decides is the count when the invitation is accepted.
    if let Limit::Of(limit) = on.plan().limits.members
        && acting.organization.members >= limit
    {
        return Err(on.full(Counted::Members));
    }
    if belongs(&state, &acting, &email).await? {
        return Err(ApiError::new(Code::Conflict, "They belong to the organization already."));
    }
    let subject = format!("invite\norganization\n{}", acting.scope.org());
    if let Admitted::In(wait) = state.store.count_try(&subject, &INVITES).await? {
        return Err(ApiError::new(
            Code::RateLimited,
            "The organization has invited very many people today. Try later.",
        )
        .retry_after(Duration::from_millis(wait.unsigned_abs())));
    }
    let now = state.store.now();
    let invite = Stored {
        id: InviteId::new(),
        email,
        role,
        invited_by: acting.user.clone(),
        created_at: now,
        expires_at: now + Millis::from(VALID_MINUTES) * 60_000,
    };
    let token = OneTimeToken::for_invite(acting.scope.org(), &invite.id)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let changes = vec![role_change(None, Some(role))];
    let audit = acting.audit("member.invited", invite.id.as_str(), changes, &origin);
    match state.store.create_invite(&acting.scope, &invite, &token, acting.role, &audit).await? {
        Invited::Done => {}
        Invited::ActorChanged => return Err(busy()),
        Invited::Gone => return Err(ApiError::not_found()),
    }
    // From here on it is made, and says so: an error would have the client try again what was done.
    let mailed = match invitation_mail(&state, &acting, &invite, &token).await {
        Ok(mail) => state.mails.send(&mail).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = &mailed {
        tracing::error!(error, invite = %invite.id, "the mail of an invitation was not ordered");
    }
    let created = CreatedInvite { invite: invite.into(), mailed: mailed.is_ok() };
    Ok((StatusCode::CREATED, Answer(created)).into_response())
}

/// Whether the owner of the address is a member: as many reads whether there is an account or not, since time on the
/// wire would tell the difference.
async fn belongs(state: &State, acting: &Acting, email: &Email) -> Result<bool, ApiError> {
    let nobody = UserId::new();
    let known = state.store.user_by_email(email).await?;
    if known.is_none() {
        state.store.user(&nobody).await?;
    }
    let user = known.as_ref().map_or(&nobody, |user| &user.id);
    Ok(state.store.member(&acting.scope, user).await?.is_some())
}

async fn invitation_mail(
    state: &State,
    acting: &Acting,
    invite: &Stored,
    token: &OneTimeToken,
) -> Result<Mail, StoreError> {
    let inviter = state.store.user(&acting.user).await?;
    // Without a name the part of the address that people know each other by; the rest is not the invited one's.
    let inviter = inviter.map(|user| user.full_name.unwrap_or_else(|| user.email.local_part().to_owned()));
    let language = match acting.organization.default_language.as_deref() {
        Some("zh") => Language::Zh,
        _ => Language::En,
    };
    Ok(Mail {
        id: format!("invite.{}", invite.id),
        language,
        to: invite.email.clone(),
        content: Content::Invite {
            organization: acting.organization.name.clone(),
            inviter: inviter.unwrap_or_default(),
            token: token.expose().to_owned(),
            valid_minutes: VALID_MINUTES,
        },
    })
}

/// List invitations
///
/// Those that may still be accepted, without their tokens.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}/invites",
    tag = "members",
    operation_id = "list_invites",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), ListQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "A page of invitations.", body = InviteList), ReadRefusals),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    Query(query): Query<ListQuery>,
) -> Result<Answer<InviteList>, ApiError> {
    let acting = Acting::reading(&state, &caller, &ids, Permission::ManageMembers).await?;
    let cursors = Cursors::new(&state.cursor_key, acting.scope.org().as_str(), "invites");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.invites(&acting.scope, query.limit.0, position.as_deref()).await?;
    let next_cursor = page.next.map(|position| cursors.seal(&position));
    Ok(Answer(InviteList { data: page.items.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Revoke an invitation
///
/// Its link is worthless at once.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}/invites/{invite_id}",
    tag = "members",
    operation_id = "revoke_invite",
    params(
        ("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
        ("invite_id" = String, Path, description = "The invitation.", pattern = "^inv_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
    ),
    security(("bearer" = [])),
    responses((status = 204, description = "Revoked."), ActRefusals),
)]
pub(crate) async fn revoke(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
) -> Result<StatusCode, ApiError> {
    let acting = Acting::changing(&state, &caller, &ids, Permission::ManageMembers).await?;
    let id: InviteId = ids.at(1)?;
    let audit = acting.audit("invite.revoked", id.as_str(), vec![], &origin);
    if state.store.revoke_invite(&acting.scope, &id, &audit).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found())
    }
}

/// Accept an invitation
///
/// The caller, who has the address that was invited, becomes a member. Whatever is wrong with a token, or if it is
/// another address's, the answer is the same.
#[utoipa::path(
    post,
    path = "/api/v1/invites/accept",
    tag = "members",
    operation_id = "accept_invite",
    request_body = AcceptRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "The organization.", body = Organization), WriteRefusals),
)]
pub(crate) async fn accept(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<AcceptRequest>,
) -> Result<Tagged<Answer<Organization>>, ApiError> {
    let unknown = || {
        ApiError::new(
            Code::NotFound,
            "This invitation is not good (any more), or not for your address. Ask for another.",
        )
    };
    let (user, _) = caller.user()?;
    caller.still_signed_in(&state.store).await?;
    let token = OneTimeToken::parse(Purpose::Invite, &request.token).ok_or_else(unknown)?;
    let email = state.store.user(user).await?.ok_or_else(unknown)?.email;
    let (scope, invite) = state.store.invite_of(&token, &email).await?.ok_or_else(unknown)?;
    let on = OnPlan::of(&state.store, &scope).await?;
    let audit = NewAudit {
        action: "member.joined",
        actor: AuditActor::User(user.clone()),
        target: Some(invite.id.as_str()),
        changes: vec![role_change(None, Some(invite.role))],
        origin: &origin,
    };
    match state.store.accept_invite(&scope, &invite, &token, user, on.plan().limits.members, &audit).await? {
        Accepted::Done(_) => {}
        Accepted::Already => return Err(ApiError::new(Code::Conflict, "You belong to the organization already.")),
        Accepted::Full => return Err(on.full(Counted::Members)),
        Accepted::Unknown => return Err(unknown()),
    }
    let member = state.store.organization_of(user, scope.org()).await?.ok_or_else(unknown)?;
    of_member(&state, member).await
}

//! `/organizations/{id}/members`: who belongs to an organization, and as what.

use axum::{Json as Answer, extract::State as Shared};
use futures_util::future::try_join_all;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tenantry_domain::{
    UserId,
    roles::{Actor, Permission, Role},
    time::rfc3339,
};
use tenantry_store::{Change, Member as Stored, MemberChange, OfMember};
use tenantry_web::{
    ApiError, Caller, Code, Json, Query,
    auth::RoleName,
    cursor::{Cursors, ListQuery},
    extract::Object,
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{
    State,
    acting::{Acting, Ids, change, forbidden},
    budgets::{BudgetChange, MonthlyBudget, in_words},
    organizations::given,
    refusals::{ActRefusals, ReadRefusals, WriteRefusals},
};

/// How often a change is tried while others change the same people.
const TRIES: usize = 5;

/// A member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Member {
    /// The person.
    #[schema(value_type = String, example = "usr_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    user_id: UserId,
    /// Their address. To those who manage no members, the others' are shown as `g***@example.com`.
    #[schema(required, example = "grace@example.com")]
    email: Option<String>,
    /// Their name.
    #[schema(required)]
    full_name: Option<String>,
    /// Their role.
    role: RoleName,
    /// What they may use in a month, in a session and with every API key that they made; `null` when the plan alone says.
    #[schema(required, nullable)]
    budget: Option<MonthlyBudget>,
    /// How many requests they may make in a minute, likewise; `null` when the plan alone says.
    #[schema(required)]
    requests_per_minute: Option<u64>,
    /// When they joined.
    #[schema(format = DateTime)]
    joined_at: String,
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberList {
    /// The members, in the order in which they registered.
    data: Vec<Member>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A role as bodies name it.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GivenRole {
    /// Everything, the organization itself included.
    Owner,
    /// Members, keys and billing.
    Admin,
    /// Use of the product.
    Member,
}

impl From<GivenRole> for Role {
    fn from(role: GivenRole) -> Self {
        match role {
            GivenRole::Owner => Self::Owner,
            GivenRole::Admin => Self::Admin,
            GivenRole::Member => Self::Member,
        }
    }
}

/// What is changed about a member. What is left out stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateMemberRequest {
    /// The role.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = GivenRole)]
    role: Option<GivenRole>,
    /// What they may use in a month, all parts of it, in a session and with every API key that they made; as much as the
    /// plan allows when `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<MonthlyBudget>)]
    budget: Option<Option<Object<MonthlyBudget>>>,
    /// How many requests they may make in a minute, likewise; as many as the plan allows when `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 60_000)]
    requests_per_minute: Option<Option<u64>>,
}

/// Who takes an organization over.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransferRequest {
    /// One of its members.
    #[schema(example = "usr_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    user_id: String,
}

/// List members
///
/// Who belongs to the organization. Addresses of others are shown to owners and admins alone.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}/members",
    tag = "members",
    operation_id = "list_members",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), ListQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "A page of members.", body = MemberList), ReadRefusals),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    Query(query): Query<ListQuery>,
) -> Result<Answer<MemberList>, ApiError> {
    let acting = Acting::reading(&state, &caller, &ids, Permission::ReadMembers).await?;
    let cursors = Cursors::new(&state.cursor_key, acting.scope.org().as_str(), "members");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.members(&acting.scope, query.limit.0, position.as_deref()).await?;
    let manages = Actor::User(acting.role).may(Permission::ManageMembers);
    let each = page.items.into_iter().map(async |member| {
        let whole = manages || member.user == acting.user;
        let mut member = shown(&state, member).await?;
        if !whole {
            member.email = member.email.as_deref().map(masked);
        }
        Ok::<_, ApiError>(member)
    });
    let data = try_join_all(each).await?;
    Ok(Answer(MemberList { data, next_cursor: page.next.map(|position| cursors.seal(&position)) }))
}

/// Change a member
///
/// Their role, and what they may use. Nobody gives a role above their own, owners are changed by owners alone, the last
/// owner stays one, and nobody but an owner changes their own budget. Access tokens that are out say the old role for ten
/// minutes at most; what manages the organization looks at the new one. A budget reaches every process within half a minute.
#[utoipa::path(
    patch,
    path = "/api/v1/organizations/{id}/members/{user_id}",
    tag = "members",
    operation_id = "update_member",
    params(
        ("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
        ("user_id" = String, Path, description = "The member.", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
    ),
    request_body = UpdateMemberRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "As they are now.", body = Member), WriteRefusals),
)]
pub(crate) async fn update(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<UpdateMemberRequest>,
) -> Result<Answer<Member>, ApiError> {
    let budgets = BudgetChange::checked(request.budget, request.requests_per_minute);
    for _ in 0..TRIES {
        let acting = Acting::changing(&state, &caller, &ids, Permission::ManageMembers).await?;
        let budgets = budgets.as_ref().map_err(Clone::clone)?;
        let user: UserId = ids.at(1)?;
        let member = state.store.member(&acting.scope, &user).await?.ok_or_else(ApiError::not_found)?;
        let role = request.role.map_or(member.role, Role::from);
        if !acting.role.may_change(member.role) || !acting.role.may_grant(role) {
            return Err(above());
        }
        let wanted = budgets.of(&member.budgets).filter(|wanted| *wanted != member.budgets);
        if wanted.is_some() && user == acting.user && acting.role != Role::Owner {
            return Err(ApiError::new(Code::Forbidden, "Nobody but an owner changes their own budget; ask one."));
        }
        let (mut action, mut changes) = ("member.budget_changed", vec![]);
        if role != member.role {
            action = "member.role_changed";
            changes.push(role_change(Some(member.role), Some(role)));
        }
        if let Some(wanted) = &wanted {
            changes.push(change("budget", Some(in_words(&member.budgets)), Some(in_words(wanted))));
        }
        if changes.is_empty() {
            return shown(&state, member).await.map(Answer);
        }
        let audit = acting.audit(action, user.as_str(), changes, &origin);
        let of = of(&acting, &user, member.role);
        let limits = wanted.as_ref().map(|wanted| (&member.budgets, wanted));
        if settled(state.store.change_member(&acting.scope, of, role, limits, &audit).await?)? {
            let budgets = wanted.unwrap_or_else(|| member.budgets.clone());
            return shown(&state, Stored { role, budgets, ..member }).await.map(Answer);
        }
    }
    Err(busy())
}

/// Remove a member
///
/// Their sessions there end at once, their access tokens within ten minutes. API keys that they made are the
/// organization's and stay. Everybody may remove themselves, but for the last owner.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}/members/{user_id}",
    tag = "members",
    operation_id = "remove_member",
    params(
        ("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
        ("user_id" = String, Path, description = "The member.", pattern = "^usr_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
    ),
    security(("bearer" = [])),
    responses((status = 204, description = "Removed."), ActRefusals),
)]
pub(crate) async fn remove(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
) -> Result<StatusCode, ApiError> {
    for _ in 0..TRIES {
        let acting = Acting::changing(&state, &caller, &ids, Permission::ReadMembers).await?;
        let user = ids.at::<UserId>(1);
        let leaving = user.as_ref().is_ok_and(|user| *user == acting.user);
        // Who may remove nobody else learns nothing about whom there is.
        if !leaving && !acting.role.may_grant(Role::Member) {
            return Err(forbidden());
        }
        let user = user?;
        let member = state.store.member(&acting.scope, &user).await?.ok_or_else(ApiError::not_found)?;
        if !leaving && !acting.role.may_change(member.role) {
            return Err(above());
        }
        let action = if leaving { "member.left" } else { "member.removed" };
        let changes = vec![role_change(Some(member.role), None)];
        let audit = acting.audit(action, user.as_str(), changes, &origin);
        if settled(state.store.remove_member(&acting.scope, of(&acting, &user, member.role), &audit).await?)? {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    Err(busy())
}

/// Transfer ownership
///
/// Makes a member an owner, and the owner who asks for it an admin.
#[utoipa::path(
    post,
    path = "/api/v1/organizations/{id}/transfer",
    tag = "members",
    operation_id = "transfer_organization",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")),
    request_body = TransferRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "The new owner.", body = Member), WriteRefusals),
)]
pub(crate) async fn transfer(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    RequestOrigin(origin): RequestOrigin,
    Json(request): Json<TransferRequest>,
) -> Result<Answer<Member>, ApiError> {
    let nobody = || ApiError::invalid("/user_id", "is not a member of this organization");
    for _ in 0..TRIES {
        let acting = Acting::changing(&state, &caller, &ids, Permission::OwnOrganization).await?;
        let user: UserId = request.user_id.parse().map_err(|_| nobody())?;
        let member = state.store.member(&acting.scope, &user).await?.ok_or_else(nobody)?;
        if member.role == Role::Owner {
            return Err(ApiError::new(Code::Conflict, "They own the organization already."));
        }
        let changes = vec![role_change(Some(member.role), Some(Role::Owner))];
        let audit = acting.audit("organization.transferred", user.as_str(), changes, &origin);
        let of = of(&acting, &user, member.role);
        if settled(state.store.transfer_ownership(&acting.scope, of, &audit).await?)? {
            return shown(&state, Stored { role: Role::Owner, ..member }).await.map(Answer);
        }
    }
    Err(busy())
}

fn of<'a>(acting: &'a Acting, user: &'a UserId, role: Role) -> OfMember<'a> {
    OfMember { actor: &acting.user, actor_role: acting.role, user, role }
}

/// Whether the change was made; if not, it is to be looked at again.
fn settled(change: MemberChange) -> Result<bool, ApiError> {
    match change {
        MemberChange::Done => Ok(true),
        MemberChange::ActorChanged | MemberChange::MemberChanged => Ok(false),
        MemberChange::LastOwner => {
            Err(ApiError::new(Code::Conflict, "An organization has an owner. Make somebody else one first."))
        }
        MemberChange::Gone => Err(ApiError::not_found()),
    }
}

fn above() -> ApiError {
    ApiError::new(Code::Forbidden, "This is about a role above your own; ask an owner.")
}

/// The same people were changed by others each time.
pub(crate) fn busy() -> ApiError {
    ApiError::new(Code::Unavailable, "Others are changing the same at this moment. Try again.")
        .retry_after(std::time::Duration::from_secs(1))
}

pub(crate) fn role_change(old: Option<Role>, new: Option<Role>) -> Change {
    change("role", old.map(Role::name), new.map(Role::name))
}

/// Enough of an address to tell two people of one name apart, and too little to write to them.
fn masked(email: &str) -> String {
    let (local, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    let first: String = local.chars().take(1).collect();
    format!("{first}***@{domain}")
}

async fn shown(state: &State, member: Stored) -> Result<Member, ApiError> {
    let user = state.store.user(&member.user).await?;
    Ok(Member {
        user_id: member.user,
        email: user.as_ref().map(|user| user.email.to_string()),
        full_name: user.and_then(|user| user.full_name),
        role: member.role.into(),
        budget: MonthlyBudget::of(&member.budgets),
        requests_per_minute: member.budgets.whole.requests_per_minute,
        joined_at: rfc3339(member.joined_at),
    })
}

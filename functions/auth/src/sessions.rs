//! `GET /auth/sessions` and `DELETE /auth/sessions/{id}`: where somebody is signed in.

use axum::{Json, extract::State as Shared};
use http::StatusCode;
use serde::Serialize;
use tenantry_domain::{OrgId, SessionId, time::rfc3339};
use tenantry_store::Session as Stored;
use tenantry_web::{
    ApiError, Caller, Path, Query,
    cursor::{Cursors, ListQuery},
    error::Problem,
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{State, tokens::signed_in};

/// A login on one device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// The session.
    #[schema(value_type = String, example = "ses_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^ses_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    id: SessionId,
    /// Whether it is the one that asks.
    current: bool,
    /// The organization that it acts for.
    #[schema(value_type = String, example = "org_068b0kx0fawcp8yv9p2zkv5a5r", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")]
    organization_id: OrgId,
    /// Where it began.
    device: Device,
    /// When it began.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its refresh token was last used; when it began, if it never was.
    #[schema(format = DateTime)]
    last_used_at: String,
    /// When it ends, whatever is done with it.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Where a session began, as client and connection told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionDevice)]
pub(crate) struct Device {
    /// The client's own name for the device.
    #[schema(required)]
    id: Option<String>,
    /// Name for people.
    #[schema(required)]
    name: Option<String>,
    /// Kind of device.
    #[schema(required)]
    r#type: Option<String>,
    /// Version of the client's program.
    #[schema(required)]
    app_version: Option<String>,
    /// Address of the login.
    #[schema(required)]
    ip: Option<String>,
    /// The program, as it called itself.
    #[schema(required)]
    user_agent: Option<String>,
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// The sessions, newest first.
    data: Vec<Session>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List sessions
///
/// Where the caller is signed in, in whichever organization.
#[utoipa::path(
    get,
    path = "/api/v1/auth/sessions",
    tag = "auth",
    operation_id = "list_sessions",
    params(ListQuery),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of sessions.", body = SessionList),
        (status = 400, description = "A parameter is wrong.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key has no sessions.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<SessionList>, ApiError> {
    let (user, own) = caller.user()?;
    let cursors = Cursors::new(&state.cursor_key, user.as_str(), "sessions");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.sessions_page(user, query.limit.0, position.as_deref()).await?;
    let data = page.items.into_iter().map(|session| shown(session, own)).collect();
    Ok(Json(SessionList { data, next_cursor: page.next.map(|position| cursors.seal(&position)) }))
}

/// End a session
///
/// Its refresh token is worthless at once, its access token within ten minutes.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/sessions/{id}",
    tag = "auth",
    operation_id = "revoke_session",
    params(("id" = String, Path, description = "The session.", pattern = "^ses_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$")),
    security(("bearer" = [])),
    responses(
        (status = 204, description = "Ended."),
        (status = 401, description = "No valid access token.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key has no sessions.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The caller has no such session.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn revoke(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    // Whose session was ended from elsewhere does not end the others in turn.
    let (user, _) = signed_in(&state, &caller).await?;
    let id: SessionId = id.parse().map_err(|_| ApiError::not_found())?;
    if state.store.revoke_session(&user.id, &id, &origin).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found())
    }
}

fn shown(session: Stored, own: &SessionId) -> Session {
    let device = session.device;
    Session {
        current: session.id == *own,
        id: session.id,
        organization_id: session.org,
        device: Device {
            id: device.id,
            name: device.name,
            r#type: device.kind,
            app_version: device.app_version,
            ip: device.ip,
            user_agent: device.user_agent,
        },
        created_at: rfc3339(session.created_at),
        last_used_at: rfc3339(session.last_used_at.unwrap_or(session.created_at)),
        expires_at: rfc3339(session.expires_at),
    }
}

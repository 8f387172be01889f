//! `GET /organizations/{id}/export`: everything that an organization has here, page by page, as JSON lines.

use axum::{
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tenantry_domain::{
    Resource,
    account::Account,
    metering::Meter,
    orders::{Goods, Order},
    roles::Permission,
    time::rfc3339,
    usage::UsageEvent,
};
use tenantry_store::{ApiKey, AuditRow, Exported, RollUp};
use tenantry_web::{ApiError, Caller, Query, cursor::Cursors, json::members};
use utoipa::IntoParams;

use crate::{
    State,
    acting::{Acting, Ids},
    refusals::ReadRefusals,
};

/// Rows of a page. The largest are tenant users with 4 KB of their own; a function answers 6 MB at most.
const ROWS: u16 = 500;

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// `x-next-cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{22,}$")]
    cursor: Option<String>,
}

/// Export an organization
///
/// All its data as JSON lines, each an object with a `type`: `organization`, `member`, `invite`, `api_key`,
/// `tenant_user`, `meter` (what is left of the period), `closing` (what was left of one that ended), `usage_record`,
/// `usage_roll_up`, `billing_account`, `subscription_event`, `ledger_entry`, `order` or `audit_entry`. Secrets and their hashes are left out. A page has up to 500 lines; the next one's
/// cursor is in `x-next-cursor`. What changes meanwhile may be in it or not.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}/export",
    tag = "organizations",
    operation_id = "export_organization",
    params(("id" = String, Path, description = "The organization.", pattern = "^org_[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"), ExportQuery),
    security(("bearer" = [])),
    responses(
        (
            status = 200,
            description = "A page of lines.",
            content((String = "application/jsonl")),
            headers(("x-next-cursor" = String, description = "Where the next page begins; absent on the last one.")),
        ),
        ReadRefusals,
    ),
)]
pub(crate) async fn export(
    Shared(state): Shared<State>,
    caller: Caller,
    ids: Ids,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let acting = Acting::changing(&state, &caller, &ids, Permission::ExportData).await?;
    let cursors = Cursors::new(&state.cursor_key, acting.scope.org().as_str(), "export");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store.export(&acting.scope, ROWS, position.as_deref()).await?;
    let lines: String = page.items.into_iter().map(|exported| format!("{}\n", line(exported))).collect();
    let mut response = lines.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    let name = HeaderValue::from_static("attachment; filename=\"export.jsonl\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    if let Some(next) = page.next.and_then(|position| HeaderValue::from_str(&cursors.seal(&position)).ok()) {
        headers.insert(HeaderName::from_static("x-next-cursor"), next);
    }
    Ok(response)
}

fn line(exported: Exported) -> Value {
    match exported {
        Exported::Organization(organization) => json!({
            "type": "organization",
            "id": organization.id,
            "name": organization.name,
            "support_email": organization.support_email,
            "default_language": organization.default_language,
            "model_budgets": organization.model_budgets,
            "created_at": rfc3339(organization.created_at),
        }),
        Exported::Member(member) => json!({
            "type": "member",
            "user_id": member.user,
            "role": member.role,
            "budget": member.budgets,
            "joined_at": rfc3339(member.joined_at),
        }),
        Exported::Invite(invite) => json!({
            "type": "invite",
            "id": invite.id,
            "email": invite.email,
            "role": invite.role,
            "invited_by": invite.invited_by,
            "created_at": rfc3339(invite.created_at),
            "expires_at": rfc3339(invite.expires_at),
        }),
        Exported::ApiKey(key) => api_key(key),
        Exported::TenantUser(user) => json!({
            "type": "tenant_user",
            "id": user.id,
            "username": user.username.as_str(),
            "display_name": user.display_name,
            "metadata": user.metadata.and_then(|text| members(text.as_bytes()).ok()),
            "has_password": user.password_hash.is_some(),
            "disabled": user.disabled,
            "created_at": rfc3339(user.created_at),
        }),
        Exported::Meter(meter) => allowances("meter", &meter),
        Exported::Closing(meter) => allowances("closing", &meter),
        Exported::Record(event) => record(event),
        Exported::RollUp(row) => roll_up(&row),
        Exported::Audit(row) => audit_entry(row),
        Exported::Account(account) => billing_account(account),
        Exported::AccountEvent(event) => json!({
            "type": "subscription_event",
            "id": event.id,
            "at": rfc3339(event.at),
            "kind": event.kind,
            "subscription_id": event.subscription,
            "status": event.status,
            "plan": event.plan,
        }),
        Exported::Ledger(row) => json!({
            "type": "ledger_entry",
            "id": row.id,
            "at": rfc3339(row.at),
            "kind": row.kind.name(),
            "amount": row.amount,
            "short": row.short,
            "reference": row.reference,
            "expires_at": row.expires_at.map(rfc3339),
        }),
        Exported::Order(order) => self::order(order),
    }
}

fn billing_account(account: Account) -> Value {
    let subscription = account.subscription.map(|subscription| {
        json!({
            "id": subscription.id,
            "status": subscription.standing.status.as_str(),
            "plan": subscription.plan,
            "paid": subscription.paid.map(|paid| json!({"plan": paid.plan, "until": rfc3339(paid.until)})),
            "period_start": rfc3339(subscription.period_start),
            "period_end": rfc3339(subscription.period_end),
        })
    });
    let prepaid = account.prepaid.map(|prepaid| json!({"plan": prepaid.plan, "until": rfc3339(prepaid.until)}));
    json!({
        "type": "billing_account",
        "stripe_customer": account.customer,
        "subscription": subscription,
        "prepaid": prepaid,
    })
}

fn order(order: Order) -> Value {
    let goods = match &order.goods {
        Goods::Package { id, credits, .. } => json!({"package": id, "credits": credits}),
        Goods::Months { plan, months } => json!({"plan": plan, "months": months}),
    };
    json!({
        "type": "order",
        "id": order.id,
        "provider": order.provider.name(),
        "state": order.state().name(),
        "goods": goods,
        "amount": order.amount,
        "currency": order.currency,
        "refunded": order.refunded(),
        "created_at": rfc3339(order.created_at),
        "paid_at": order.paid.map(|paid| rfc3339(paid.at)),
        "created_by": order.created_by,
    })
}

fn api_key(key: ApiKey) -> Value {
    json!({
        "type": "api_key",
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "last4": key.last4,
        "scopes": key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>(),
        "disabled": key.disabled,
        "budget": key.budgets,
        "expires_at": key.expires_at.map(rfc3339),
        "last_used_at": key.last_used_at.map(rfc3339),
        "created_by": key.created_by,
        "created_at": rfc3339(key.created_at),
    })
}

fn allowances(kind: &str, meter: &Meter) -> Value {
    let of = |resource: Resource| {
        let (given, left) = (meter.given.get(resource).number(), meter.left.get(resource).number());
        (resource.name().to_owned(), json!({"given": given, "left": left}))
    };
    let resources: serde_json::Map<_, _> = Resource::ALL.into_iter().map(of).collect();
    json!({
        "type": kind,
        "period": meter.period.to_string(),
        "plan": meter.plan,
        "resources": resources,
        "credits": meter.credits,
    })
}

fn charged(amounts: &tenantry_domain::Amounts) -> Value {
    Resource::ALL.into_iter().map(|resource| (resource.name().to_owned(), json!(amounts.get(resource)))).collect()
}

fn record(event: UsageEvent) -> Value {
    let own = event.own.as_ref();
    json!({
        "type": "usage_record",
        "id": event.id,
        "at": rfc3339(event.at),
        "period": event.period().to_string(),
        "operation": event.operation.name(),
        "model": own.is_none().then_some(&event.model),
        "status": event.status.name(),
        "api_key_id": event.key,
        "member_id": event.member,
        "prompt_tokens": event.tokens.prompt,
        "cached_tokens": event.tokens.cached,
        "completion_tokens": event.tokens.completion,
        "reasoning_tokens": event.tokens.reasoning,
        "charged": charged(&event.charged),
        "credits": event.credits,
        "request_id": event.request_id,
        "resource": own.map(|_| &event.model),
        "amount": own.map(|own| own.amount),
        "metadata": own.map(|own| &own.metadata),
    })
}

fn roll_up(row: &RollUp) -> Value {
    json!({
        "type": "usage_roll_up",
        "day": row.key.day,
        "model": row.key.own_resource().is_none().then_some(&row.key.model),
        "resource": row.key.own_resource(),
        "api_key_id": row.key.key,
        "member_id": row.key.member,
        "operation": row.key.operation,
        "requests": row.sums.requests,
        "errors": row.sums.errors,
        "prompt_tokens": row.sums.tokens.prompt,
        "cached_tokens": row.sums.tokens.cached,
        "completion_tokens": row.sums.tokens.completion,
        "reasoning_tokens": row.sums.tokens.reasoning,
        "charged": charged(&row.sums.charged),
        "credits": row.sums.credits,
        "amount": row.key.own_resource().map(|_| row.sums.amount),
    })
}

fn audit_entry(row: AuditRow) -> Value {
    let change =
        |(field, old, new): &(String, Option<String>, Option<String>)| json!({"field": field, "old": old, "new": new});
    json!({
        "type": "audit_entry",
        "id": row.id,
        "at": row.at,
        "action": row.action,
        "actor": row.actor,
        "target": row.target,
        "changes": row.changes.iter().map(change).collect::<Vec<_>>(),
        "ip": row.ip,
        "user_agent": row.user_agent,
        "request_id": row.request_id,
    })
}

//! What was: changes of the subscription as Stripe told them, and invoices.

use axum::{Json as Answer, extract::State as Shared};
use serde::Serialize;
use tenantry_domain::{roles::Permission, time::rfc3339};
use tenantry_payments::stripe::Invoice as AtStripe;
use tenantry_store::AccountEvent;
use tenantry_web::{
    ApiError, Caller, Query,
    cursor::{Cursors, ListQuery},
};
use utoipa::ToSchema;

use crate::{
    State,
    money::Money,
    refusals::{ReadRefusals, refused},
};

/// Something that happened to a subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionEvent {
    /// Stripe's id of it.
    id: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Stripe's word for it.
    #[schema(example = "customer.subscription.updated")]
    kind: String,
    /// The subscription.
    #[schema(required)]
    subscription_id: Option<String>,
    /// How it stood then.
    #[schema(required, example = "active")]
    status: Option<String>,
    /// The plan that it paid for.
    #[schema(required, example = "pro")]
    plan: Option<String>,
    /// Whether it was going to end with its period.
    cancel_at_period_end: bool,
}

impl From<AccountEvent> for SubscriptionEvent {
    fn from(event: AccountEvent) -> Self {
        Self {
            id: event.id,
            at: rfc3339(event.at),
            kind: event.kind,
            subscription_id: event.subscription,
            status: event.status,
            plan: event.plan,
            cancel_at_period_end: event.cancel_at_period_end,
        }
    }
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionEventList {
    /// The newest first.
    data: Vec<SubscriptionEvent>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Subscription history
///
/// What happened to the organization's subscriptions, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/subscriptions/history",
    tag = "billing",
    operation_id = "list_subscription_events",
    params(ListQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "A page.", body = SubscriptionEventList), ReadRefusals),
)]
pub(crate) async fn subscription(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<SubscriptionEventList>, ApiError> {
    let scope = caller.scope(Permission::ManageBilling)?;
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), "subscription history");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store().account_history(scope, query.limit.0, position.as_deref()).await?;
    Ok(Answer(SubscriptionEventList {
        data: page.items.into_iter().map(SubscriptionEvent::from).collect(),
        next_cursor: page.next.map(|position| cursors.seal(&position)),
    }))
}

/// An invoice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invoice {
    /// Stripe's id of it.
    #[schema(example = "in_1QK4vK2eZvKYlo2C")]
    id: String,
    /// What stands on it, once it is final.
    #[schema(required, example = "ABCD-0001")]
    number: Option<String>,
    /// How it stands: `draft`, `open`, `paid`, `uncollectible` or `void`; `null` for a state that is newer than this.
    #[schema(required, example = "paid")]
    status: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Taxes and discounts included.
    total: Money,
    /// What was paid.
    amount_paid: Money,
    /// What is left to pay.
    amount_remaining: Money,
    /// When payment is tried again.
    #[schema(required, format = DateTime)]
    next_payment_attempt: Option<String>,
    /// Stripe's page of it, where it can be paid. Whoever has the address sees the invoice.
    #[schema(required)]
    hosted_url: Option<String>,
    /// To be downloaded.
    #[schema(required)]
    pdf_url: Option<String>,
}

impl From<AtStripe> for Invoice {
    fn from(invoice: AtStripe) -> Self {
        let money = |amount| Money::new(amount, &invoice.currency);
        Self {
            total: money(invoice.total),
            amount_paid: money(invoice.amount_paid),
            amount_remaining: money(invoice.amount_remaining),
            id: invoice.id,
            number: invoice.number,
            status: invoice.status.map(|status| status.as_str().to_owned()),
            created_at: rfc3339(invoice.created),
            next_payment_attempt: invoice.next_payment_attempt.map(rfc3339),
            hosted_url: invoice.hosted_invoice_url,
            pdf_url: invoice.pdf,
        }
    }
}

/// A page of invoices.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InvoiceList {
    /// The newest first.
    data: Vec<Invoice>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Invoices
///
/// The organization's invoices at Stripe, the newest first. Orders through WeChat Pay and Alipay have none: see
/// `GET /payments/orders`.
#[utoipa::path(
    get,
    path = "/api/v1/billing/invoices",
    tag = "billing",
    operation_id = "list_invoices",
    params(ListQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "A page.", body = InvoiceList), ReadRefusals),
)]
pub(crate) async fn invoices(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<InvoiceList>, ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), "invoices");
    let after = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let Some(customer) = state.store().account(scope).await?.customer else {
        return Ok(Answer(InvoiceList { data: vec![], next_cursor: None }));
    };
    let refused = |error| refused(error, "/cursor");
    let stripe = state.commerce.stripe().map_err(refused)?;
    let limit = u8::try_from(query.limit.0).unwrap_or(u8::MAX);
    let page = stripe.invoices_of(&customer, limit, after.as_deref()).await.map_err(|error| refused(error.into()))?;
    Ok(Answer(InvoiceList {
        data: page.items.into_iter().map(Invoice::from).collect(),
        next_cursor: page.next.map(|position| cursors.seal(&position)),
    }))
}

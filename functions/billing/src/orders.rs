//! Orders: what is paid for once, through WeChat Pay, Alipay or Stripe.

use axum::{
    Json as Answer,
    extract::{Path, State as Shared},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tenantry_commerce::{Buyer, ChinaOrder, Wanted};
use tenantry_domain::{
    OrderId,
    orders::{Goods, Order as Stored, Provider},
    roles::Permission,
    time::rfc3339,
};
use tenantry_payments::{Show, Vendor};
use tenantry_store::{Origin, TenantScope};
use tenantry_web::{
    ApiError, Caller, Json, Query,
    cursor::{Cursors, ListQuery},
    origin::RequestOrigin,
};
use utoipa::ToSchema;

use crate::{
    State,
    money::Money,
    refusals::{BuyRefusals, ReadRefusals, refused},
};

/// What is wanted: a package of credits, or months of a plan.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateOrderRequest {
    /// A package of `GET /billing/packages`; then neither `plan` nor `months`.
    #[schema(example = "small", min_length = 1, max_length = 32)]
    package_id: Option<String>,
    /// A plan of `GET /subscriptions/plans` with a `prepaid_month`.
    #[schema(min_length = 1, max_length = 32)]
    plan: Option<String>,
    /// How many months of it.
    #[schema(minimum = 1, maximum = 36)]
    months: Option<u32>,
    /// Alipay: with it the browser is sent to Alipay's page and comes back there, to a page of this product; without it a QR
    /// code is shown. WeChat Pay always shows one.
    #[schema(max_length = 2048, pattern = "^https?://")]
    return_url: Option<String>,
}

/// What was ordered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OrderedGoods {
    /// A package of credits.
    Package {
        /// Its id.
        package_id: String,
        /// Micro-credits.
        credits: u64,
    },
    /// Months of a plan.
    Months {
        /// The plan.
        plan: String,
        /// How many.
        months: u32,
    },
}

/// An order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Order {
    /// Its id.
    #[schema(value_type = String, example = "ord_068b0kx0fawcp8yv9p2zkv5a5r")]
    id: OrderId,
    /// `stripe`, `wechat` or `alipay`.
    #[schema(example = "wechat")]
    provider: &'static str,
    /// `created`, `pending`, `paid`, `closed`, `failed`, `partially_refunded` or `refunded`.
    #[schema(example = "paid")]
    state: &'static str,
    /// What was ordered.
    goods: OrderedGoods,
    /// What it costs.
    price: Money,
    /// What was given back of it.
    refunded: Money,
    /// Whether what was ordered has been given.
    fulfilled: bool,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Until when it can be paid.
    #[schema(format = DateTime)]
    expires_at: String,
    /// When it was paid.
    #[schema(required, format = DateTime)]
    paid_at: Option<String>,
}

impl From<Stored> for Order {
    fn from(order: Stored) -> Self {
        Self {
            provider: order.provider.name(),
            state: order.state().name(),
            price: Money::of(order.amount, &order.currency),
            refunded: Money::of(order.refunded(), &order.currency),
            fulfilled: order.fulfilled,
            created_at: rfc3339(order.created_at),
            expires_at: rfc3339(order.expires_at),
            paid_at: order.paid.map(|paid| rfc3339(paid.at)),
            id: order.id,
            goods: match order.goods {
                Goods::Package { id, credits, .. } => OrderedGoods::Package { package_id: id, credits },
                Goods::Months { plan, months } => OrderedGoods::Months { plan, months },
            },
        }
    }
}

/// What the payer is to be shown.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Shown {
    /// The text that a QR code is to hold, for the vendor's app.
    QrCode {
        /// The text.
        text: String,
    },
    /// Where to send the browser.
    Redirect {
        /// The address.
        url: String,
    },
}

impl Shown {
    /// Of an order that waits for its payment.
    pub(crate) fn of(order: &Stored) -> Option<Self> {
        let text = order.show.clone().filter(|text| order.state().is_open() && !text.is_empty())?;
        // Alipay's page is called by the name of its method, its QR codes are not.
        let is_page = order.provider == Provider::Stripe || text.contains("alipay.trade.page.pay");
        Some(if is_page { Self::Redirect { url: text } } else { Self::QrCode { text } })
    }
}

/// An order, and how to pay it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderToPay {
    /// The order.
    #[serde(flatten)]
    pub(crate) order: Order,
    /// What the payer is to be shown; `null` when the order does not wait for a payment.
    #[schema(required)]
    pub(crate) pay: Option<Shown>,
}

impl From<Stored> for OrderToPay {
    fn from(order: Stored) -> Self {
        let pay = Shown::of(&order);
        Self { order: order.into(), pay }
    }
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderList {
    /// The newest first.
    data: Vec<Order>,
    /// Where the next page begins; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Order through WeChat Pay
///
/// Makes an order, and answers with the QR code for the payer's WeChat, which is good for a quarter of an hour.
#[utoipa::path(
    post,
    path = "/api/v1/payments/wechat/create",
    tag = "billing",
    operation_id = "create_wechat_order",
    request_body = CreateOrderRequest,
    security(("bearer" = [])),
    responses((status = 201, description = "The order.", body = OrderToPay), BuyRefusals),
)]
pub(crate) async fn create_wechat(
    state: Shared<State>,
    caller: Caller,
    origin: RequestOrigin,
    request: Json<CreateOrderRequest>,
) -> Result<(StatusCode, Answer<OrderToPay>), ApiError> {
    create(&state, &caller, &origin.0, Vendor::WeChat, request.0).await
}

/// Order through Alipay
///
/// Makes an order, and answers with a QR code for the payer's Alipay or, when there is a `return_url`, with Alipay's page.
#[utoipa::path(
    post,
    path = "/api/v1/payments/alipay/create",
    tag = "billing",
    operation_id = "create_alipay_order",
    request_body = CreateOrderRequest,
    security(("bearer" = [])),
    responses((status = 201, description = "The order.", body = OrderToPay), BuyRefusals),
)]
pub(crate) async fn create_alipay(
    state: Shared<State>,
    caller: Caller,
    origin: RequestOrigin,
    request: Json<CreateOrderRequest>,
) -> Result<(StatusCode, Answer<OrderToPay>), ApiError> {
    create(&state, &caller, &origin.0, Vendor::Alipay, request.0).await
}

async fn create(
    state: &State,
    caller: &Caller,
    origin: &Origin,
    vendor: Vendor,
    request: CreateOrderRequest,
) -> Result<(StatusCode, Answer<OrderToPay>), ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    let wanted = match (&request.package_id, &request.plan, request.months) {
        (Some(package), None, None) => Wanted::Package(package),
        (None, Some(plan), Some(months)) => Wanted::Months { plan, months },
        _ => return Err(ApiError::invalid("/package_id", "give either package_id, or plan and months")),
    };
    let order = in_china(state, caller, scope, origin, vendor, wanted, request.return_url.as_deref()).await?;
    Ok((StatusCode::CREATED, Answer(order)))
}

/// An order through WeChat Pay or Alipay.
pub(crate) async fn in_china(
    state: &State,
    caller: &Caller,
    scope: &TenantScope,
    origin: &Origin,
    vendor: Vendor,
    wanted: Wanted<'_>,
    return_url: Option<&str>,
) -> Result<OrderToPay, ApiError> {
    let back = return_url.map(|url| state.pages.back("/return_url", Some(url), "/billing")).transpose()?;
    let show = match (vendor, &back) {
        (Vendor::Alipay, Some(url)) => Show::Page { return_url: Some(url) },
        _ => Show::QrCode,
    };
    let field = match wanted {
        Wanted::Package(_) => "/package_id",
        Wanted::Months { .. } => "/plan",
    };
    let buyer = Buyer { user: caller.user()?.0, origin };
    let made = state.commerce.order_in_china(scope, &ChinaOrder { vendor, wanted, show }, &buyer).await;
    let (order, _) = made.map_err(|error| refused(error, field))?;
    Ok(order.into())
}

/// List orders
///
/// What the organization ordered, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/payments/orders",
    tag = "billing",
    operation_id = "list_orders",
    params(ListQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "A page.", body = OrderList), ReadRefusals),
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<OrderList>, ApiError> {
    let scope = caller.scope(Permission::ManageBilling)?;
    let cursors = Cursors::new(&state.cursor_key, scope.org().as_str(), "orders");
    let position = query.cursor.as_deref().map(|cursor| cursors.open(cursor)).transpose()?;
    let page = state.store().orders(scope, query.limit.0, position.as_deref()).await?;
    Ok(Answer(OrderList {
        data: page.items.into_iter().map(Order::from).collect(),
        next_cursor: page.next.map(|position| cursors.seal(&position)),
    }))
}

/// Get an order
///
/// How an order stands. One that waits for its payment is asked for at the vendor, so this is what a page that shows a QR
/// code asks every few seconds.
#[utoipa::path(
    get,
    path = "/api/v1/payments/orders/{id}",
    tag = "billing",
    operation_id = "get_order",
    params(("id" = String, Path, description = "The order.")),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The order.", body = OrderToPay),
        (status = 404, description = "The organization has no such order.", body = tenantry_web::error::Problem, content_type = "application/problem+json"),
        ReadRefusals,
    ),
)]
pub(crate) async fn get(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<OrderToPay>, ApiError> {
    let scope = caller.scope(Permission::ManageBilling)?;
    let id: OrderId = id.parse().map_err(|_| ApiError::not_found())?;
    let order = state.store().order(scope, &id).await?.ok_or_else(ApiError::not_found)?;
    // What we know is an answer too, when the vendor gives none.
    let order = match state.commerce.look(scope, order.clone()).await {
        Ok(order) => order,
        Err(error) => {
            tracing::warn!(org = %scope.org(), order = %id, %error, "an order could not be looked at");
            order
        }
    };
    Ok(Answer(order.into()))
}

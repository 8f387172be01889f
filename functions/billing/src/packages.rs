//! Packages of credits: what there is, and buying one through any vendor.

use axum::{
    Json as Answer,
    extract::{Path, State as Shared},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tenantry_commerce::{Buyer, CheckoutPages, Wanted};
use tenantry_domain::{plans::Package, roles::Permission};
use tenantry_payments::Vendor;
use tenantry_web::{ApiError, Caller, Json, origin::RequestOrigin};
use utoipa::ToSchema;

use crate::{
    State,
    checkout::customer,
    money::Money,
    orders::{OrderToPay, Shown, in_china},
    refusals::{BuyRefusals, ReadRefusals, refused},
};

/// A package of credits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreditPackage {
    /// Its id.
    #[schema(example = "small")]
    id: String,
    /// For people.
    #[schema(example = "Credits, small")]
    name: String,
    /// Micro-credits.
    #[schema(example = 10_000_000)]
    credits: u64,
    /// How long they can be used; `null` for ever.
    #[schema(required)]
    expires_after_days: Option<u32>,
    /// What it costs, in each currency that it is sold for: `usd` through Stripe, `cny` through WeChat Pay and Alipay.
    prices: Vec<Money>,
}

impl From<&Package> for CreditPackage {
    fn from(package: &Package) -> Self {
        let price = |amount: Option<u64>, currency| amount.map(|amount| Money::of(amount, currency));
        let prices = [price(package.price.usd, "usd"), price(package.price.cny, "cny")];
        Self {
            id: package.id.clone(),
            name: package.name.clone(),
            credits: package.credits,
            expires_after_days: package.expires_after_days,
            prices: prices.into_iter().flatten().collect(),
        }
    }
}

/// All packages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreditPackages {
    /// In the order of the catalogue.
    data: Vec<CreditPackage>,
}

/// Through whom to pay.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProviderName {
    /// By card and more, in US dollars.
    Stripe,
    /// WeChat Pay, in renminbi.
    Wechat,
    /// Alipay, in renminbi.
    Alipay,
}

/// How to pay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageCheckoutRequest {
    /// Through whom.
    provider: ProviderName,
    /// Stripe: where the browser goes after the purchase. Alipay: with it the browser is sent to Alipay's page, and comes
    /// back there; without it a QR code is shown.
    #[schema(max_length = 2048, pattern = "^https?://")]
    success_url: Option<String>,
    /// Stripe: where the browser goes when nothing was bought.
    #[schema(max_length = 2048, pattern = "^https?://")]
    cancel_url: Option<String>,
}

/// List packages of credits
#[utoipa::path(
    get,
    path = "/api/v1/billing/packages",
    tag = "billing",
    operation_id = "list_packages",
    responses((status = 200, description = "The packages.", body = CreditPackages), ReadRefusals),
)]
pub(crate) async fn list(Shared(state): Shared<State>, caller: Caller) -> Result<Answer<CreditPackages>, ApiError> {
    caller.scope(Permission::ReadUsage)?;
    let data = state.store().plans().packages().iter().map(CreditPackage::from).collect();
    Ok(Answer(CreditPackages { data }))
}

/// Buy a package of credits
///
/// Makes an order, and answers with what the payer is to be shown. The credits are there once the vendor tells of the
/// payment, which takes seconds: ask `GET /payments/orders/{id}`.
#[utoipa::path(
    post,
    path = "/api/v1/billing/packages/{id}/checkout",
    tag = "billing",
    operation_id = "buy_package",
    params(("id" = String, Path, description = "The package.", example = "small")),
    request_body = PackageCheckoutRequest,
    security(("bearer" = [])),
    responses((status = 201, description = "The order.", body = OrderToPay), BuyRefusals),
)]
pub(crate) async fn checkout(
    Shared(state): Shared<State>,
    caller: Caller,
    RequestOrigin(origin): RequestOrigin,
    Path(id): Path<String>,
    Json(request): Json<PackageCheckoutRequest>,
) -> Result<(StatusCode, Answer<OrderToPay>), ApiError> {
    let scope = caller.still_may(state.store(), Permission::ManageBilling).await?;
    if state.store().plans().package(&id).is_none() {
        return Err(ApiError::not_found());
    }
    let (success, cancel) = (request.success_url.as_deref(), request.cancel_url.as_deref());
    let vendor = match request.provider {
        ProviderName::Stripe => {
            let success_url = state.pages.back("/success_url", success, "/billing?order=paid")?;
            let cancel_url = state.pages.back("/cancel_url", cancel, "/billing?order=canceled")?;
            let customer = customer(&state, &caller, scope).await?;
            let buyer = Buyer { user: caller.user()?.0, origin: &origin };
            let pages = CheckoutPages { success_url: &success_url, cancel_url: &cancel_url };
            let made = state.commerce.order_package(scope, &customer, &id, &buyer, pages).await;
            let (order, _) = made.map_err(|error| refused(error, "/provider"))?;
            let shown = Shown::of(&order);
            return Ok((StatusCode::CREATED, Answer(OrderToPay { order: order.into(), pay: shown })));
        }
        ProviderName::Wechat => Vendor::WeChat,
        ProviderName::Alipay => Vendor::Alipay,
    };
    let order = in_china(&state, &caller, scope, &origin, vendor, Wanted::Package(&id), success).await?;
    Ok((StatusCode::CREATED, Answer(order)))
}

//! Notifications of WeChat Pay and Alipay.

use axum::{
    extract::{Request, State as Shared},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use tenantry_domain::secret::sha256_hex;
use tenantry_payments::{Notification, PaymentError, Vendor};
use tenantry_web::{ApiError, extract::body, telemetry};

use crate::{
    Refusals, State,
    work::{Told, not_believed, not_configured},
};

/// Notifications of WeChat Pay
///
/// API v3, signed by the `Wechatpay-*` headers over the raw body, at most five minutes ago.
#[utoipa::path(
    post,
    path = "/webhooks/wechat",
    tag = "webhooks",
    operation_id = "wechat_webhook",
    security(()),
    responses((status = 204, description = "Taken; or kept for people, because it fits no order."), Refusals),
)]
pub(crate) async fn wechat(Shared(state): Shared<State>, request: Request) -> Result<Response, ApiError> {
    notified(&state, Vendor::WeChat, request).await
}

/// Notifications of Alipay
///
/// A form, signed by its parameter `sign`.
#[utoipa::path(
    post,
    path = "/webhooks/alipay",
    tag = "webhooks",
    operation_id = "alipay_webhook",
    security(()),
    responses(
        (status = 200, description = "`success`: taken; or kept for people, because it fits no order.", body = String, content_type = "text/plain"),
        Refusals,
    ),
)]
pub(crate) async fn alipay(Shared(state): Shared<State>, request: Request) -> Result<Response, ApiError> {
    notified(&state, Vendor::Alipay, request).await
}

async fn notified(state: &State, vendor: Vendor, request: Request) -> Result<Response, ApiError> {
    let payment = state.commerce.payment(vendor).map_err(|_| not_configured())?;
    let headers = request.headers().clone();
    let body = body(request, &()).await?;
    let notification = match payment.parse_notification(&headers, &body) {
        Ok(notification) => notification,
        Err(error) => return Err(unread(state, vendor, error, &body).await),
    };
    let Notification { id, .. } = &notification;
    let told = Told { vendor: vendor.as_str(), id, body: &body };
    state.once(&told, state.commerce.hear(vendor, &notification)).await?;
    let answer = payment.answer(true);
    let status = StatusCode::from_u16(answer.status).map_err(|error| ApiError::internal(error.to_string()))?;
    if answer.body.is_empty() {
        return Ok(status.into_response());
    }
    Ok((status, [(header::CONTENT_TYPE, answer.content_type)], answer.body).into_response())
}

/// What is signed and cannot be read is kept, and comes again: that the key it is encrypted with is another one than the
/// configured is mended within the day for which the vendors repeat.
async fn unread(state: &State, vendor: Vendor, error: PaymentError, body: &[u8]) -> ApiError {
    let (store, vendor) = (state.commerce.store(), vendor.as_str());
    match error {
        PaymentError::Malformed(why) => {
            tracing::error!(vendor, why, "a message cannot be read, and is kept for people");
            telemetry::metric(store.now(), "WebhooksUnreadable", 1);
            let id = sha256_hex(body);
            match store.keep_unreadable_event(vendor, &id, &String::from_utf8_lossy(body)).await {
                Ok(()) => ApiError::internal(format!("{vendor}: {why}")),
                Err(error) => error.into(),
            }
        }
        error => not_believed(store, vendor, &error, "This is not signed by the vendor, or too old."),
    }
}

//! The door of `/v1`: who calls, in which version, whether it was asked before; then the call of that path.

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{Request, State as Extract},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::{
    StripeSandbox, catalogue, charges, checkout, coupons, customers, disputes,
    error::{Answer, StripeError},
    events::{self, Cause},
    expansion, form, idempotency, intents, invoice_payments, invoices,
    object::Kind,
    params::Params,
    payment_methods, portal, preview, refunds,
    settings::{API_VERSION, Fault},
    setup,
    state::State,
    subscription_update, subscriptions,
};

/// Larger than any call.
const BODY_LIMIT: usize = 1 << 20;
const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Tells clients whether trying again makes sense.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");

/// Every call below `/v1`.
pub(super) async fn handle(Extract(stripe): Extract<StripeSandbox>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return StripeError::invalid("Request body too large").status(StatusCode::PAYLOAD_TOO_LARGE).into_response();
    };
    let body = String::from_utf8_lossy(&body);
    let call = Call { method: parts.method, path: parts.uri.path(), query: parts.uri.query(), body: &body };
    call.answer(&stripe, &parts.headers)
}

struct Call<'a> {
    method: Method,
    path: &'a str,
    query: Option<&'a str>,
    body: &'a str,
}

impl Call<'_> {
    fn answer(&self, stripe: &StripeSandbox, headers: &HeaderMap) -> Response {
        let mut s = stripe.lock();
        let request = s.id("req_");
        let mut response = self.within(&mut s, headers, &request);
        let answered = response.headers_mut();
        if let Ok(request) = HeaderValue::from_str(&request) {
            answered.insert(REQUEST_ID, request);
        }
        answered.insert(VERSION, HeaderValue::from_static(API_VERSION));
        if let Some(key) = headers.get(KEY) {
            answered.insert(KEY, key.clone());
        }
        response
    }

    fn within(&self, s: &mut State, headers: &HeaderMap, request: &str) -> Response {
        let checked = authenticate(headers, &s.settings.secret_key)
            .and_then(|()| self.allowed(s))
            .and_then(|()| version(headers))
            .and_then(|()| form::parse(if self.body.is_empty() { self.query.unwrap_or_default() } else { self.body }))
            .and_then(|params| {
                let key = headers.get(KEY).map(|key| key.to_str().unwrap_or_default());
                Ok((params, idempotency::required(&self.method, key)?))
            });
        let (params, key) = match checked {
            Ok(checked) => checked,
            Err(error) => return error.into_response(),
        };
        let is_lost = key.is_some() && s.losing.as_deref().is_some_and(|below| self.path.starts_with(below));
        let fault = s.faults.pop_front().or_else(|| is_lost.then_some(Fault::AnswerLost));
        match fault {
            Some(Fault::Refused) => {
                return StripeError::api(StatusCode::INTERNAL_SERVER_ERROR, "Sandbox: nothing was done")
                    .into_response();
            }
            Some(Fault::RateLimited) => {
                let error = StripeError::invalid("Too many requests hit the API too quickly.").code("rate_limit");
                return error.status(StatusCode::TOO_MANY_REQUESTS).into_response();
            }
            Some(Fault::AnswerLost) | None => {}
        }
        let mut replayed = false;
        let (status, body) = match key.map(|key| s.replay(key, self.path, &params)).transpose() {
            Err(error) => return error.into_response(),
            Ok(Some(Some(kept))) => {
                replayed = true;
                (StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK), kept.body)
            }
            Ok(_) => {
                s.cause = Cause { request: Some(request.to_owned()), key: key.map(str::to_owned) };
                let (status, body) = self.carry_out(s, Params::new(params.clone()));
                s.cause = Cause::default();
                if let Some(key) = key {
                    s.keep(key, self.path, params, status, &body);
                }
                (status, body)
            }
        };
        if fault == Some(Fault::AnswerLost) {
            return StripeError::api(StatusCode::BAD_GATEWAY, "Sandbox: the answer is lost").into_response();
        }
        let mut response = (status, Json(body)).into_response();
        if replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if !status.is_success() {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }

    /// <https://docs.stripe.com/keys/restricted-api-keys>
    fn allowed(&self, s: &State) -> Answer<()> {
        if s.denied.as_deref().is_some_and(|below| self.path.starts_with(below)) {
            let message = "The provided key does not have the required permissions for this endpoint.";
            return Err(StripeError::invalid(message).status(StatusCode::FORBIDDEN));
        }
        Ok(())
    }

    fn carry_out(&self, s: &mut State, mut params: Params) -> (StatusCode, Value) {
        let segments: Vec<&str> = self.path.trim_matches('/').split('/').skip(1).collect();
        let done = params.texts("expand").and_then(|paths| {
            let mut value = route(s, &self.method, &segments, params).unwrap_or_else(|| {
                let message = format!("Unrecognized request URL ({}: {}).", self.method, self.path);
                Err(StripeError::invalid(message).status(StatusCode::NOT_FOUND))
            })?;
            paths.unwrap_or_default().iter().try_for_each(|path| expansion::expand(s, &mut value, path))?;
            Ok(value)
        });
        match done {
            Ok(value) => (StatusCode::OK, value),
            Err(error) => (error.status, serde_json::json!({ "error": error.to_json() })),
        }
    }
}

/// The call that a path names.
fn route(s: &mut State, method: &Method, path: &[&str], p: Params) -> Option<Answer> {
    let get = method == Method::GET;
    let post = method == Method::POST;
    let delete = method == Method::DELETE;
    Some(match *path {
        ["customers"] if post => customers::create(s, p),
        ["customers"] if get => customers::list(s, p),
        ["customers", "search"] if get => customers::search(s, p),
        ["customers", id] if get => customers::retrieve(s, id, p),
        ["customers", id] if post => customers::update(s, id, p),
        ["customers", id] if delete => customers::delete(s, id, p),
        ["customers", id, "payment_methods"] if get => payment_methods::list(s, Some(id), p),
        ["products"] if post => catalogue::create_product(s, p),
        ["products"] if get => catalogue::list_products(s, p),
        ["products", id] if get => retrieve(s, Kind::Product, id, p),
        ["products", id] if post => catalogue::update_product(s, id, p),
        ["prices"] if post => catalogue::create_price(s, p),
        ["prices"] if get => catalogue::list_prices(s, p),
        ["prices", id] if get => retrieve(s, Kind::Price, id, p),
        ["prices", id] if post => catalogue::update_price(s, id, p),
        ["coupons"] if post => coupons::create(s, p),
        ["coupons", id] if get => retrieve(s, Kind::Coupon, id, p),
        ["promotion_codes"] if post => coupons::create_code(s, p),
        ["promotion_codes"] if get => coupons::list_codes(s, p),
        ["promotion_codes", id] if get => retrieve(s, Kind::PromotionCode, id, p),
        ["promotion_codes", id] if post => coupons::update_code(s, id, p),
        ["checkout", "sessions"] if post => checkout::create(s, p),
        ["checkout", "sessions"] if get => checkout::list(s, p),
        ["checkout", "sessions", id] if get => retrieve(s, Kind::Session, id, p),
        ["checkout", "sessions", id, "expire"] if post => checkout::expire(s, id, p),
        ["checkout", "sessions", id, "line_items"] if get => checkout::line_items(s, id, p),
        ["billing_portal", "sessions"] if post => portal::create(s, p),
        ["subscriptions"] if post => subscriptions::create(s, p),
        ["subscriptions"] if get => subscriptions::list(s, p),
        ["subscriptions", id] if get => retrieve(s, Kind::Subscription, id, p),
        ["subscriptions", id] if post => subscription_update::update(s, id, p),
        ["subscriptions", id] if delete => subscriptions::cancel(s, id, p),
        ["subscriptions", id, "resume"] if post => subscriptions::resume(s, id, p),
        ["invoices"] if get => invoices::list(s, p),
        ["invoices", "create_preview"] if post => preview::create(s, p),
        ["invoices", id] if get => retrieve(s, Kind::Invoice, id, p),
        ["invoices", id, "pay"] if post => invoices::pay(s, id, p),
        ["invoices", id, "finalize"] if post => invoices::finalize_now(s, id, p),
        ["invoices", id, "void"] if post => invoices::void(s, id, p),
        ["invoices", id, "mark_uncollectible"] if post => invoices::mark_uncollectible(s, id, p),
        ["invoices", id, "lines"] if get => invoices::lines(s, id, p),
        ["invoice_payments"] if get => invoice_payments::list(s, p),
        ["invoice_payments", id] if get => retrieve(s, Kind::InvoicePayment, id, p),
        ["payment_intents"] if post => intents::create(s, p),
        ["payment_intents"] if get => intents::list(s, p),
        ["payment_intents", id] if get => retrieve(s, Kind::PaymentIntent, id, p),
        ["payment_intents", id, "confirm"] if post => intents::confirm_now(s, id, p),
        ["payment_intents", id, "cancel"] if post => intents::cancel(s, id, p),
        ["setup_intents"] if post => setup::create(s, p),
        ["setup_intents", id] if get => retrieve(s, Kind::SetupIntent, id, p),
        ["payment_methods"] if get => payment_methods::list(s, None, p),
        ["payment_methods", id] if get => retrieve(s, Kind::PaymentMethod, id, p),
        ["payment_methods", id, "attach"] if post => payment_methods::attach_named(s, id, p),
        ["payment_methods", id, "detach"] if post => payment_methods::detach(s, id, p),
        ["charges"] if get => charges::list(s, p),
        ["charges", id] if get => retrieve(s, Kind::Charge, id, p),
        ["refunds"] if post => refunds::create(s, p),
        ["refunds"] if get => refunds::list(s, p),
        ["refunds", id] if get => retrieve(s, Kind::Refund, id, p),
        ["disputes"] if get => disputes::list(s, p),
        ["disputes", id] if get => retrieve(s, Kind::Dispute, id, p),
        ["events"] if get => events::list(s, p),
        ["events", id] if get => retrieve(s, Kind::Event, id, p),
        _ => return None,
    })
}

fn retrieve(s: &State, kind: Kind, id: &str, p: Params) -> Answer {
    p.done()?;
    s.named(kind, id)
}

/// The key comes as a bearer token, or as the user name of Basic: <https://docs.stripe.com/api/authentication>.
fn authenticate(headers: &HeaderMap, key: &str) -> Answer<()> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(token.trim().to_owned());
        }
        let user = BASE64.decode(token.trim().as_bytes()).ok()?;
        scheme.eq_ignore_ascii_case("basic").then(|| String::from_utf8_lossy(&user).trim_end_matches(':').to_owned())
    });
    match given {
        Some(given) if given == key => Ok(()),
        Some(given) if ["sk_live_", "rk_live_"].iter().any(|live| given.starts_with(live)) => {
            Err(StripeError::unauthorized(
                "This is a test double of Stripe, and that is a key of live mode. Take it out of wherever it came from",
            ))
        }
        Some(_) => Err(StripeError::unauthorized("Invalid API Key provided")),
        None => Err(StripeError::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer \
             auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )),
    }
}

fn version(headers: &HeaderMap) -> Answer<()> {
    match headers.get(VERSION).map(|version| version.to_str().unwrap_or_default()) {
        Some(API_VERSION) => Ok(()),
        Some(other) => Err(StripeError::invalid(format!(
            "Invalid Stripe API version: {other}. The sandbox answers in the shapes of {API_VERSION} and no other"
        ))),
        None => Err(StripeError::invalid(format!(
            "The header Stripe-Version is missing: without it Stripe answers in the version of the account. Send \
             {API_VERSION}"
        ))),
    }
}

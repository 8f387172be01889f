//! Somebody who works on deliveries, and dies at a write: before it is made, or after it and before its answer. The dead do
//! nothing any more, so whatever the work would do next fails as well.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut},
        retry::RetryConfig,
    },
    error::BoxError,
};
use axum::{Router, body::Body};
use http::{HeaderValue, Request, StatusCode};
use tenantry_commerce::Commerce;
use tenantry_payments::stripe::{Stripe, sign};
use tenantry_store::Store;
use tenantry_tests::platform::Platform;
use tenantry_web::{
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};
use tower::ServiceExt as _;

use super::case::Moment;

#[derive(Debug, Default)]
struct Fate {
    /// Which of its writes is the last.
    crash: Option<(usize, Moment)>,
    writes: usize,
    /// The last write is made, and not answered yet.
    dying: bool,
    dead: bool,
}

/// What stands between a worker and the database.
#[derive(Debug, Default, Clone)]
struct Mortal(Arc<Mutex<Fate>>);

impl Mortal {
    fn with<T>(&self, f: impl FnOnce(&mut Fate) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn alive(&self) -> Result<(), BoxError> {
        if self.with(|fate| fate.dead) { Err("the worker is dead".into()) } else { Ok(()) }
    }
}

impl Intercept for Mortal {
    fn name(&self) -> &'static str {
        "Mortal"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = context.request().headers().get("x-amz-target").unwrap_or_default();
        if !operation.ends_with(".GetItem") && !operation.ends_with(".Query") {
            self.with(|fate| {
                fate.writes += 1;
                match fate.crash {
                    Some((last, Moment::Before)) if last == fate.writes => fate.dead = true,
                    Some((last, Moment::After)) if last == fate.writes => fate.dying = true,
                    _ => {}
                }
            });
        }
        self.alive()
    }

    fn modify_before_deserialization(
        &self,
        _: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.with(|fate| fate.dead |= fate.dying);
        self.alive()
    }
}

impl MailQueue for Mortal {
    fn send<'a>(&'a self, _: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async { self.alive().map_err(|error| QueueError(error.to_string())) })
    }
}

/// The routes over a store of their own.
pub(super) struct Worker {
    fate: Mortal,
    router: Router,
}

impl Worker {
    pub(super) fn new(platform: &Platform, stripe: &Stripe) -> Self {
        let (fate, store) = (Mortal::default(), platform.store());
        let config = platform.host().database().config().to_builder();
        let config = config.interceptor(fate.clone()).retry_config(RetryConfig::disabled()).build();
        let store = Store::new(Client::from_conf(config), tenantry_host::TABLE, store.plans().clone(), store.clock());
        let commerce = Commerce::new(store).with_stripe(stripe.clone(), false);
        let router = tenantry_webhooks::router(tenantry_webhooks::State::new(commerce, Arc::new(fate.clone())));
        Self { fate, router }
    }

    /// Whether a delivery that is signed at `now` is taken by one who dies so. `None` when nobody died who should have.
    pub(super) async fn takes(&self, body: &str, now: i64, crash: Option<(usize, Moment)>) -> Answer {
        self.fate.with(|fate| *fate = Fate { crash, ..Fate::default() });
        let mut request = Request::post("/webhooks/stripe").body(Body::from(body.to_owned())).unwrap();
        let signature = sign(body.as_bytes(), super::life::WEBHOOK_SECRET, now);
        request.headers_mut().insert("stripe-signature", HeaderValue::from_str(&signature).unwrap());
        let status = self.router.clone().oneshot(request).await.unwrap().status();
        Answer { status, died: self.fate.with(|fate| fate.dead) }
    }
}

/// What came of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) died: bool,
}

impl Answer {
    pub(super) fn is_taken(self) -> bool {
        self.status == StatusCode::NO_CONTENT
    }
}

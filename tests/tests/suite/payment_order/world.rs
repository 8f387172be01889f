//! The double as it was after every act of a life, behind one address. Which act it is, is for a case to say.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, body::Body, extract::State};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tenantry_domain::{Clock, Millis};
use tenantry_payments::stripe::{Stripe, StripeSettings};
use tenantry_sandbox::{
    AheadClock,
    stripe::{Settings, StripeSandbox},
};
use tenantry_tests::platform::TestClock;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

/// Stands still where an act ended.
struct Then(Millis);

impl Clock for Then {
    fn now(&self) -> Millis {
        self.0
    }
}

/// The end of an act.
pub(super) struct Act {
    pub(super) at: Millis,
    /// The double's memory.
    pub(super) saved: String,
}

/// An answer that is on its way for as long as somebody wants.
struct Held {
    /// After so many others.
    after: usize,
    reached: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

struct Stage {
    acts: Vec<(Millis, Router)>,
    clock: Arc<TestClock>,
    act: usize,
    /// The last act that is looked at.
    last: usize,
    /// After so many questions the next act begins.
    moves_on: Option<usize>,
    held: Option<Held>,
    /// What was answered. Nothing changes within an act, so it would be answered again.
    answers: HashMap<(usize, String), (StatusCode, Bytes)>,
}

impl Stage {
    fn go_to(&mut self, act: usize) {
        self.act = act.min(self.last);
        let at = self.acts[self.act].0;
        if self.clock.now() < at {
            self.clock.set(at);
        }
    }
}

/// The vendor of a life that was led.
#[derive(Clone)]
pub(super) struct World {
    stage: Arc<Mutex<Stage>>,
    stripe: Stripe,
}

impl World {
    pub(super) async fn new(acts: &[Act], clock: &Arc<TestClock>) -> Self {
        let as_it_was = |act: &Act| {
            let clock = Arc::new(AheadClock::new(Arc::new(Then(act.at)), 0));
            let double = StripeSandbox::restored(clock, Settings::default(), &act.saved).unwrap();
            (act.at, double.router())
        };
        let acts = acts.iter().map(as_it_was).collect();
        let (act, last, moves_on, held, answers) = (0, 0, None, None, HashMap::new());
        let stage = Stage { acts, clock: clock.clone(), act, last, moves_on, held, answers };
        let stage = Arc::new(Mutex::new(stage));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(stage.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let settings = Settings::default();
        let settings = StripeSettings::new(settings.secret_key, vec![settings.webhook_secret]);
        Self { stage, stripe: Stripe::new(StripeSettings { base_url, ..settings }).unwrap() }
    }

    /// The client of it.
    pub(super) const fn stripe(&self) -> &Stripe {
        &self.stripe
    }

    /// An act ends; later ones are not taken back. It is not earlier than that from now on.
    pub(super) fn go_to(&self, act: usize) {
        let mut stage = lock(&self.stage);
        let act = stage.act.max(act);
        stage.go_to(act);
    }

    /// Back to the beginning of what are so many acts now.
    pub(super) fn begin(&self, acts: usize) {
        let mut stage = lock(&self.stage);
        stage.last = acts - 1;
        let at = stage.acts[0].0;
        stage.clock.set(at);
        (stage.act, stage.moves_on, stage.held) = (0, None, None);
    }

    /// The next act begins after so many questions, or does not.
    pub(super) fn moves_on(&self, after: Option<usize>) {
        lock(&self.stage).moves_on = after;
    }

    /// After so many others an answer is held back: who receives is told when, who sends lets it go.
    pub(super) fn holds(&self, after: usize) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((reached, is_reached), (lets_go, go)) = (oneshot::channel(), oneshot::channel());
        lock(&self.stage).held = Some(Held { after, reached, go });
        (is_reached, lets_go)
    }

    /// No answer is held back any more.
    pub(super) fn holds_none(&self) {
        lock(&self.stage).held = None;
    }
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(stage): State<Arc<Mutex<Stage>>>, request: Request<Body>) -> Response<Body> {
    assert_eq!(request.method(), Method::GET, "who is told of something changes nothing: {}", request.uri());
    let (key, router) = {
        let mut stage = lock(&stage);
        match stage.moves_on {
            Some(0) => {
                stage.moves_on = None;
                let next = stage.act + 1;
                stage.go_to(next);
            }
            Some(left) => stage.moves_on = Some(left - 1),
            None => {}
        }
        ((stage.act, request.uri().to_string()), stage.acts[stage.act].1.clone())
    };
    let known = lock(&stage).answers.get(&key).cloned();
    let (status, body) = match known {
        Some(known) => known,
        None => {
            let (head, body) = router.oneshot(request).await.unwrap().into_parts();
            let answered = (head.status, body.collect().await.unwrap().to_bytes());
            lock(&stage).answers.insert(key, answered.clone());
            answered
        }
    };
    let held = {
        let mut stage = lock(&stage);
        match &mut stage.held {
            Some(Held { after: 0, .. }) => stage.held.take(),
            Some(held) => {
                held.after -= 1;
                None
            }
            None => None,
        }
    };
    if let Some(Held { reached, go, .. }) = held
        && reached.send(()).is_ok()
    {
        go.await.ok();
    }
    Response::builder().status(status).header("content-type", "application/json").body(Body::from(body)).unwrap()
}

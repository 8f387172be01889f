//! A Stripe that says what a test tells it to say: objects by their path, over real HTTP on a port of 127.0.0.1. It has no
//! behaviour of its own; a test turns the world by setting an object, and tells of it, or does not.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tenantry_payments::stripe::{Event, EventObject, Stripe, StripeSettings};

#[derive(Default)]
struct Said {
    objects: HashMap<String, Value>,
    writes: Vec<(String, String)>,
}

/// The running server.
#[derive(Clone)]
pub struct Scripted {
    said: Arc<Mutex<Said>>,
    base_url: String,
}

impl Scripted {
    /// Starts it, with nothing to say.
    pub async fn start() -> Self {
        let said = Arc::new(Mutex::new(Said::default()));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let base_url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(said.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { said, base_url }
    }

    /// Our client of it.
    #[must_use]
    pub fn client(&self) -> Stripe {
        let settings = StripeSettings::new("sk_test_1", vec![]);
        Stripe::new(StripeSettings { base_url: self.base_url.clone(), ..settings }).expect("settings")
    }

    /// From now on this stands at a path, `charges/ch_1`; an array is a list. Whoever writes there gets it as well.
    pub fn set(&self, path: &str, object: Value) {
        lock(&self.said).objects.insert(path.to_owned(), object);
    }

    /// The bodies of all writes to a path.
    #[must_use]
    pub fn writes(&self, path: &str) -> Vec<String> {
        lock(&self.said).writes.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }
}

/// An event about an object.
#[must_use]
pub fn event(kind: &str, object: EventObject) -> Event {
    let (id, kind) = (format!("evt_{kind}"), kind.to_owned());
    Event { id, kind, created: crate::platform::NOON, livemode: false, api_version: None, object }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(said): State<Arc<Mutex<Said>>>, method: Method, uri: Uri, body: String) -> Response {
    let path = uri.path().trim_start_matches("/v1/").to_owned();
    let mut said = lock(&said);
    let object = said.objects.get(&path).cloned();
    if method != Method::GET {
        said.writes.push((path, body));
        // What a list is written to makes its newest entry.
        let made = object.map(|object| object.as_array().and_then(|all| all.last()).cloned().unwrap_or(object));
        return made.map_or_else(missing, |object| Json(object).into_response());
    }
    match object {
        Some(Value::Array(data)) => Json(json!({"object": "list", "data": data, "has_more": false})).into_response(),
        Some(object) => Json(object).into_response(),
        // Nothing is in a list that nobody spoke of.
        None if !path.contains("_1") && !path.contains("_2") => {
            Json(json!({"object": "list", "data": [], "has_more": false})).into_response()
        }
        None => missing(),
    }
}

fn missing() -> Response {
    let error = json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}});
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}

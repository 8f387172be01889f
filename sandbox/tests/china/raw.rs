//! HTTP without the clients: as a browser sends it, as somebody else would, and a shop that keeps what it gets.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    }
}

pub(crate) async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

pub(crate) async fn get(url: &str) -> Answer {
    send("GET", url, &[], "").await
}

pub(crate) async fn post_form(url: &str, form: &str) -> Answer {
    send("POST", url, &[("content-type", "application/x-www-form-urlencoded")], form).await
}

pub(crate) async fn post_json(url: &str, json: Value) -> Answer {
    send("POST", url, &[("content-type", "application/json")], &json.to_string()).await
}

#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A shop's server that answers what it is told to, and believes anything.
pub(crate) struct Site {
    pub(crate) url: String,
    state: Arc<Mutex<(u16, &'static str, Vec<Received>)>>,
}

type Shared = State<Arc<Mutex<(u16, &'static str, Vec<Received>)>>>;

async fn receive(State(state): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    let mut state = state.lock().unwrap();
    state.2.push(Received { path: uri.path().to_owned(), headers, body });
    (StatusCode::from_u16(state.0).unwrap(), state.1)
}

impl Site {
    pub(crate) async fn open() -> Self {
        let state = Arc::new(Mutex::new((200, "", vec![])));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/webhooks/{vendor}", post(receive)).with_state(state.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, state }
    }

    pub(crate) fn answer(&self, status: u16, body: &'static str) {
        let mut state = self.state.lock().unwrap();
        (state.0, state.1) = (status, body);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().2.clone()
    }
}

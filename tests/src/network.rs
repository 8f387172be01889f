//! Calls over the network, for what only sockets show.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::platform::chat_body;

/// An HTTP client that opens as many connections as there are requests at a time.
pub type Http = Client<HttpConnector, Full<Bytes>>;

/// A client without connections.
#[must_use]
pub fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// One chat call: the status and the whole body, or `None` when the connection broke.
pub async fn chat(http: &Http, base_url: &str, key: &str, prompt: &str, stream: bool) -> Option<(u16, String)> {
    let request = Request::post(format!("{base_url}/chat/completions"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::from(chat_body(prompt, stream).to_string()))
        .expect("a request");
    let response = http.request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

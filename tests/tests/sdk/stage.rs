//! What the SDK tests need: of a platform a port and three organizations, of the double of Stripe its webhooks.

use axum::{Json, Router, routing::get};
use tenantry_sandbox::stripe::StripeSandbox;
use tenantry_tests::platform::Platform;
use tenantry_tests::upstream::{Upstream, VENDOR_KEY};

/// A chat model of the catalogue that the upstream serves.
pub(crate) const CHAT_MODEL: &str = "gpt-4.1-mini";
/// An embedding model of the catalogue that the upstream serves.
pub(crate) const EMBEDDING_MODEL: &str = "text-embedding-3-small";

/// A platform that listens on a port, with what the scripts need to know. It stops when it is dropped.
pub(crate) struct Stage {
    /// Ends in `/api/v1`.
    pub(crate) base_url: String,
    /// Of an organization on the `team` plan.
    pub(crate) api_key: String,
    /// Of an organization on the `free` plan that has exactly two messages of its month left.
    pub(crate) free_api_key: String,
    /// Of another organization on the `free` plan: 10 requests a minute, its quota untouched.
    pub(crate) rate_limited_api_key: String,
    _platform: Platform,
}

impl Stage {
    /// Starts a platform whose vendor is `upstream`.
    pub(crate) async fn start(upstream: &Upstream) -> Self {
        let platform = Platform::start_with_upstream(&upstream.base_url(), VENDOR_KEY).await;
        Self {
            base_url: platform.base_url(),
            api_key: platform.api_key("team").await,
            free_api_key: platform.api_key_with_messages_left("free", 2).await,
            rate_limited_api_key: platform.api_key("free").await,
            _platform: platform,
        }
    }
}

/// Serves the deliveries that wait, each as its signature and its body. Returns where.
pub(crate) async fn deliveries(sandbox: &StripeSandbox) -> String {
    let sandbox = sandbox.clone();
    let take = get(async move || {
        let taken = sandbox.take_events();
        Json(taken.iter().map(|it| [it.signature().to_owned(), it.body.clone()]).collect::<Vec<_>>())
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", take)).await });
    format!("http://{address}/")
}

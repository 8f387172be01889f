//! The doubles of all payment vendors as a program, for a platform that runs elsewhere: `cargo xtask e2e` has them bill on
//! emulated AWS.
//!
//! It says its address in one line and listens there until its standard input ends, which it does when whoever started it
//! is gone, however it went. `POST /shop`, with the platform's address as the body, opens the doubles: it answers with the
//! variables that the platform is to be configured with, and from then on notifications go to `<address>/webhooks/…`.
//! An address in between, because a deployment is told the doubles' before it has one of its own.

use std::{
    io::{self, Write as _},
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::StatusCode;
use serde_json::json;
use tenantry_sandbox::{
    AheadClock,
    china::ChinaSandbox,
    stripe::{Settings, StripeSandbox},
};
use tokio::{net::TcpListener, sync::watch};
use tower::ServiceExt as _;

/// Where the doubles are to be, and once they are open, their routes.
struct Street {
    site: String,
    doubles: OnceLock<Router>,
    /// Tells those who deliver to stop, by being dropped: they end with the process.
    stop: watch::Sender<bool>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let site = format!("http://{}", listener.local_addr()?);
    writeln!(io::stdout(), "{site}")?;
    let street = Arc::new(Street { site, doubles: OnceLock::new(), stop: watch::Sender::new(false) });
    let routes = Router::new().route("/shop", post(open)).fallback(forward).with_state(street);
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
    tokio::select! {
        served = axum::serve(listener, routes).into_future() => served,
        _ = ended => Ok(()),
    }
}

/// Opens the doubles for the platform at the address in the body.
async fn open(State(street): State<Arc<Street>>, shop: String) -> Response {
    let clock = Arc::new(AheadClock::default());
    let settings = Settings {
        webhook_url: Some(format!("{shop}/webhooks/stripe")),
        public_url: street.site.clone(),
        ..Settings::default()
    };
    let (secret_key, webhook_secret) = (settings.secret_key.clone(), settings.webhook_secret.clone());
    let stripe = StripeSandbox::new(clock.clone(), settings);
    let china = match ChinaSandbox::new(clock, &street.site, &shop) {
        Ok(china) => china,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    if street.doubles.set(stripe.router().merge(china.router())).is_err() {
        return (StatusCode::CONFLICT, "the doubles have a shop").into_response();
    }
    let variables = json!({
        "STRIPE_SECRET_KEY": secret_key,
        "STRIPE_WEBHOOK_SECRETS": webhook_secret,
        "WECHAT_PAY": china.wechat().to_json(),
        "ALIPAY": china.alipay().to_json(),
    });
    tokio::spawn(stripe.run(street.stop.subscribe()));
    let stop = street.stop.subscribe();
    tokio::spawn(async move { china.run(stop).await });
    Json(variables).into_response()
}

/// To the doubles.
async fn forward(State(street): State<Arc<Street>>, request: Request) -> Response {
    match street.doubles.get() {
        Some(doubles) => doubles.clone().oneshot(request).await.into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the doubles have no shop yet").into_response(),
    }
}

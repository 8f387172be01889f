//! Delivers webhooks over HTTP, in the order of the events, and again after a pause when an endpoint does not take one:
//! any answer but 2xx. <https://docs.stripe.com/webhooks#retries>

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tenantry_domain::Clock as _;
use tokio::sync::watch;

use super::{
    StripeSandbox,
    events::{Queued, SignedDelivery},
};

/// Milliseconds before each further attempt. Stripe tries for three days; a laptop's developer waits for a restart.
const DELAYS: [i64; 9] = [1_000, 5_000, 15_000, 60_000, 300_000, 1_800_000, 7_200_000, 28_800_000, 86_400_000];
/// How long an endpoint may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take once the double is to stop.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a delivery waits after so many attempts; `None`: it is given up.
fn delay(attempts: usize) -> Option<i64> {
    DELAYS.get(attempts.checked_sub(1)?).copied()
}

type Http = Client<HttpConnector, Full<Bytes>>;

impl StripeSandbox {
    /// Delivers what there is to deliver to [`webhook_url`](super::Settings::webhook_url), and lets time pass, until `stop`
    /// says so. Without an address time passes and events wait.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let http: Http = Client::builder(TokioExecutor::new()).build_http();
        let url = self.lock().settings.webhook_url.clone();
        while !*stop.borrow() {
            while let Some((url, delivery)) = url.as_ref().and_then(|url| Some((url, self.next_due()?))) {
                let patience = async {
                    let _ = stop.wait_for(|stop| *stop).await;
                    tokio::time::sleep(LAST_PATIENCE).await;
                };
                let taken = tokio::select! {
                    taken = post(&http, url, delivery.clone()) => taken,
                    () = patience => false,
                };
                if taken {
                    self.acknowledge(&delivery);
                } else {
                    self.put_back(&delivery);
                }
                if *stop.borrow() {
                    return;
                }
            }
            drop(self.lock());
            tokio::select! {
                () = self.inner.bell.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes the first delivery whose time has come.
    fn next_due(&self) -> Option<SignedDelivery> {
        let mut s = self.lock();
        if s.held {
            return None;
        }
        let now = self.clock().now();
        let position = s.queue.iter().position(|queued| queued.due <= now)?;
        let queued = s.queue.remove(position);
        self.sealed(&s, &queued)
    }

    /// The endpoint did not take the delivery: it waits for its next attempt.
    fn put_back(&self, delivery: &SignedDelivery) {
        let attempts = delivery.attempts + 1;
        let Some(delay) = delay(attempts) else { return };
        let due = self.clock().now() + delay;
        self.lock().queue.push(Queued { event: delivery.event.clone(), attempts, due });
    }
}

async fn post(http: &Http, url: &str, delivery: SignedDelivery) -> bool {
    let event = delivery.event;
    let Ok(mut request) = Request::post(url).body(Full::new(Bytes::from(delivery.body))) else {
        tracing::warn!(url, "the webhook's address is none");
        return false;
    };
    *request.headers_mut() = delivery.headers;
    match tokio::time::timeout(PATIENCE, http.request(request)).await {
        Ok(Ok(answer)) if answer.status().is_success() => true,
        Ok(Ok(answer)) => {
            tracing::info!(event, status = answer.status().as_u16(), "a webhook was refused");
            false
        }
        Ok(Err(error)) => {
            tracing::info!(event, %error, "a webhook's endpoint was not reached");
            false
        }
        Err(_) => {
            tracing::info!(event, "a webhook's endpoint took too long");
            false
        }
    }
}

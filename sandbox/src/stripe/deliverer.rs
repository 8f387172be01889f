//! Delivers webhooks over HTTP, in the order of the events, and again after a pause when an endpoint does not take one:
//! any answer but 2xx. <https://docs.stripe.com/webhooks#retries>

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::watch;

use super::{Stripe, events::Delivery};

/// Milliseconds before each further attempt. Stripe tries for three days; a laptop's developer waits for a restart.
const DELAYS: [i64; 9] = [1_000, 5_000, 15_000, 60_000, 300_000, 1_800_000, 7_200_000, 28_800_000, 86_400_000];
/// How long an endpoint may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a delivery waits after so many attempts; `None`: it is given up.
pub(super) fn delay(attempts: usize) -> Option<i64> {
    DELAYS.get(attempts.checked_sub(1)?).copied()
}

type Http = Client<HttpConnector, Full<Bytes>>;

impl Stripe {
    /// Delivers what there is to deliver, and lets time pass, until `stop` says so.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let http: Http = Client::builder(TokioExecutor::new()).build_http();
        while !*stop.borrow() {
            while let Some(delivery) = self.next_due() {
                if post(&http, &delivery).await {
                    self.acknowledge(&delivery);
                } else {
                    self.put_back(&delivery);
                }
                if *stop.borrow() {
                    return;
                }
            }
            tokio::select! {
                () = self.inner.bell.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes the first delivery whose time has come.
    fn next_due(&self) -> Option<Delivery> {
        let mut s = self.lock();
        if s.held {
            return None;
        }
        // What has happened since is addressed only when the lock is let go: the next round sees it.
        let now = self.settings().clock.now();
        let position = s.queue.iter().position(|queued| queued.due <= now)?;
        let queued = s.queue.remove(position);
        self.sealed(&s, &queued)
    }
}

async fn post(http: &Http, delivery: &Delivery) -> bool {
    let request = Request::post(&delivery.url)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header(header::USER_AGENT, "Stripe/1.0 (+https://stripe.com/docs/webhooks; sandbox)")
        .header("stripe-signature", &delivery.signature)
        .body(Full::new(Bytes::from(delivery.body.clone())));
    let Ok(request) = request else {
        tracing::warn!(url = delivery.url, "the webhook's address is none");
        return false;
    };
    match tokio::time::timeout(PATIENCE, http.request(request)).await {
        Ok(Ok(answer)) if answer.status().is_success() => true,
        Ok(Ok(answer)) => {
            tracing::info!(event = delivery.event, status = answer.status().as_u16(), "a webhook was refused");
            false
        }
        Ok(Err(error)) => {
            tracing::info!(event = delivery.event, %error, "a webhook's endpoint was not reached");
            false
        }
        Err(_) => {
            tracing::info!(event = delivery.event, "a webhook's endpoint took too long");
            false
        }
    }
}

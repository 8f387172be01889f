//! A double that listens on a port of this machine, for clients that speak HTTP.

use std::{io, net::Ipv4Addr, ops::Deref, sync::Arc};

use tokio::{net::TcpListener, task::JoinHandle};

use super::{Settings, StripeSandbox};
use crate::AheadClock;

/// A [`StripeSandbox`] that listens, until this is dropped.
pub struct Sandbox {
    /// Where a client of Stripe is pointed, `http://127.0.0.1:…`.
    pub base_url: String,
    /// The key that the client calls with.
    pub secret_key: String,
    /// What deliveries are signed with.
    pub webhook_secret: String,
    stripe: StripeSandbox,
    server: JoinHandle<()>,
}

impl StripeSandbox {
    /// A new account that listens on a free port of this machine.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(clock: Arc<AheadClock>, settings: Settings) -> io::Result<Sandbox> {
        Self::new(clock, settings).serve().await
    }

    /// Listens on a free port of this machine. Pages are there too when [`Settings::public_url`] names no other place.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn serve(self) -> io::Result<Sandbox> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let (secret_key, webhook_secret) = {
            let mut s = self.lock();
            if s.settings.public_url.is_empty() {
                s.settings.public_url.clone_from(&base_url);
            }
            (s.settings.secret_key.clone(), s.settings.webhook_secret.clone())
        };
        let router = self.router();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the Stripe sandbox listens no longer");
            }
        });
        Ok(Sandbox { base_url, secret_key, webhook_secret, stripe: self, server })
    }
}

impl Deref for Sandbox {
    type Target = StripeSandbox;
    fn deref(&self) -> &StripeSandbox {
        &self.stripe
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

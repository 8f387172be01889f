//! A write that is held back on its way to the database until something else has happened.

use std::sync::{Mutex, mpsc};

use aws_sdk_dynamodb::{
    Client,
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
    error::BoxError,
};
use tokio::sync::oneshot;

use crate::platform::Platform;

/// The other side of the way: tells when the write is about to be sent, and lets it go.
#[derive(Debug)]
pub struct Gate {
    reached: oneshot::Receiver<()>,
    go: mpsc::Sender<()>,
}

impl Gate {
    /// A client of the platform's database whose first `UpdateItem` waits at the gate. The wait blocks its thread.
    #[must_use]
    pub fn before_update(platform: &Platform) -> (Client, Self) {
        let ((tell, reached), (go, may_go)) = (oneshot::channel(), mpsc::channel());
        let keeper = Keeper { reached: Mutex::new(Some(tell)), may_go: Mutex::new(may_go) };
        let config = platform.host().database().config().to_builder().interceptor(keeper).build();
        (Client::from_conf(config), Self { reached, go })
    }

    /// Does something between the decision to write and the write.
    ///
    /// # Panics
    /// When the write is never made.
    pub async fn meanwhile(self, something: impl Future<Output = ()>) {
        self.reached.await.expect("a write");
        something.await;
        self.go.send(()).expect("a writer that waits");
    }
}

/// Keeps the gate.
#[derive(Debug)]
struct Keeper {
    reached: Mutex<Option<oneshot::Sender<()>>>,
    may_go: Mutex<mpsc::Receiver<()>>,
}

impl Intercept for Keeper {
    fn name(&self) -> &'static str {
        "Gate"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target").unwrap_or_default();
        if target.ends_with("UpdateItem")
            && let Some(reached) = self.reached.lock().expect("a lock").take()
        {
            reached.send(()).map_err(|()| "nobody is at the gate")?;
            self.may_go.lock().expect("a lock").recv()?;
        }
        Ok(())
    }
}

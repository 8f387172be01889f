//! A verified message, worked on by one at a time and to its end once.

use std::{future::Future, time::Duration};

use tenantry_commerce::{CommerceError, Handled, Mismatch};
use tenantry_store::{EventClaim, Store};
use tenantry_web::{ApiError, error::Code, telemetry};

use crate::State;

/// When a vendor is asked to come again. All of them have a mind of their own about that.
const LATER: Duration = Duration::from_secs(30);

/// A message whose signature was verified.
pub(crate) struct Told<'a> {
    /// The vendor, as keys and logs call it.
    pub(crate) vendor: &'static str,
    /// The vendor's id of the message, the same however often it comes.
    pub(crate) id: &'a str,
    /// The whole of it.
    pub(crate) body: &'a [u8],
}

impl State {
    /// Does `work`, unless that is done or under way, and tells people what they should know.
    ///
    /// The mails are ordered before the message is marked as done, so none is lost; they have ids, so none is sent twice.
    ///
    /// # Errors
    /// The vendor shall come again: the claim was given back, or ends by itself.
    pub(crate) async fn once(
        &self,
        told: &Told<'_>,
        work: impl Future<Output = Result<Handled, CommerceError>> + Send,
    ) -> Result<(), ApiError> {
        let store = self.commerce.store();
        let claim = match store.claim_event(told.vendor, told.id).await? {
            EventClaim::Mine(claim) => claim,
            EventClaim::Done => return Ok(()),
            EventClaim::Busy => {
                let busy = ApiError::new(Code::Conflict, "The message is being worked on. Send it again.");
                return Err(busy.retry_after(LATER));
            }
        };
        let worked = match work.await {
            Ok(handled) => self.tell(told, &handled).await,
            Err(CommerceError::Mismatch(mismatch)) => self.refuse(told, &mismatch).await,
            Err(error) => Err(failed(error)),
        };
        let ended = match worked {
            Ok(()) => store.finish_event(&claim).await.map_err(ApiError::from),
            Err(error) => Err(error),
        };
        if ended.is_err()
            && let Err(error) = store.release_event(&claim).await
        {
            tracing::warn!(vendor = told.vendor, id = told.id, %error, "a claim ends only with its time");
        }
        ended
    }

    async fn tell(&self, told: &Told<'_>, handled: &Handled) -> Result<(), ApiError> {
        if let Some(org) = &handled.org {
            tracing::Span::current().record("org", org.as_str());
        }
        for mail in self.commerce.mails(told.id, handled).await.map_err(failed)? {
            self.mails.send(&mail).await.map_err(|error| unavailable(&error))?;
        }
        Ok(())
    }

    /// Coming again would not make it fit, so it is kept and the vendor is told that all is well.
    async fn refuse(&self, told: &Told<'_>, mismatch: &Mismatch) -> Result<(), ApiError> {
        let (store, Mismatch { object, why }) = (self.commerce.store(), mismatch);
        let (vendor, id) = (told.vendor, told.id);
        tracing::error!(vendor, id, object, %why, "a message does not fit, and is kept for people; nothing was done");
        telemetry::metric(store.now(), "PaymentMismatches", 1);
        store.keep_refused_event(vendor, id, &mismatch.to_string(), &String::from_utf8_lossy(told.body)).await?;
        Ok(())
    }
}

/// What failed may go well when the vendor comes again; for what will not, somebody has to look.
pub(crate) fn failed(error: CommerceError) -> ApiError {
    match error {
        CommerceError::Store(error) => error.into(),
        error if error.is_transient() => unavailable(&error),
        error => ApiError::internal(error.to_string()),
    }
}

/// For what is not signed by its vendor, altered or too old: nothing is read or written, and whoever tries it is counted.
/// One is a scanner, or a probe of WeChat Pay's; many are somebody who tries, or a wrong secret, and then nothing is heard.
pub(crate) fn not_believed(
    store: &Store,
    vendor: &'static str,
    error: &dyn std::fmt::Display,
    told: impl Into<String>,
) -> ApiError {
    tracing::warn!(vendor, %error, "a message is not believed");
    telemetry::metric(store.now(), "WebhooksForged", 1);
    ApiError::new(Code::InvalidParameter, told)
}

/// For every path of a vendor that is not configured.
pub(crate) fn not_configured() -> ApiError {
    ApiError::not_found()
}

fn unavailable(error: &dyn std::fmt::Display) -> ApiError {
    let later = ApiError::new(Code::Unavailable, "It cannot be handled at this moment. Send it again.");
    later.retry_after(LATER).because(error.to_string())
}

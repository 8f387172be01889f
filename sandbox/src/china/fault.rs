//! Things that go wrong on purpose.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

/// What happens to the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Status 500; nothing was done.
    Error500,
    /// It is refused as not ours, as with a key that was exchanged: by WeChat Pay with 401 and unsigned, by Alipay as
    /// `isv.invalid-signature`. Nothing was done.
    Denied,
    /// It is understood and refused; nothing was done.
    Refused,
    /// Status 500 after it was done.
    Error500Applied,
    /// It is done, and the connection breaks before the answer is whole.
    BreakOff,
    /// It is done, and no answer ever comes.
    Hang,
    /// It is done, and answered after so many milliseconds.
    Slow(u32),
    /// The answer is changed after it was signed.
    Tamper,
    /// The answer has no signature.
    Unsigned,
    /// The answer is signed with somebody else's key.
    WrongKey,
    /// The answer was signed ten minutes ago (WeChat Pay; Alipay's carry no time).
    Stale,
    /// The answer has the signature by which WeChat Pay tests whether signatures are checked; at Alipay no signature.
    Probe,
    /// The call is served as usual: keeps a place in the queue.
    None,
}

impl Fault {
    /// Is the call not to be carried out at all?
    pub(super) const fn prevents(self) -> bool {
        matches!(self, Self::Error500)
    }

    /// What becomes of a finished answer.
    pub(super) async fn spoil(self, answer: Response) -> Response {
        match self {
            Self::Error500 | Self::Error500Applied => {
                let mut answer =
                    Response::new(Body::from(r#"{"code":"SYSTEM_ERROR","message":"a fault was ordered"}"#));
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                answer
            }
            Self::BreakOff => {
                let broken = stream::iter([Err::<Bytes, io::Error>(io::ErrorKind::ConnectionReset.into())]);
                let (mut head, _) = answer.into_parts();
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("1000"));
                Response::from_parts(head, Body::from_stream(broken))
            }
            Self::Hang => std::future::pending().await,
            Self::Slow(millis) => {
                tokio::time::sleep(Duration::from_millis(millis.into())).await;
                answer
            }
            Self::Denied
            | Self::Refused
            | Self::Tamper
            | Self::Unsigned
            | Self::WrongKey
            | Self::Stale
            | Self::Probe
            | Self::None => answer,
        }
    }
}

/// The faults of the next calls, one each.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    /// Orders faults for the calls to come, after those already ordered.
    pub fn order(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// Forgets what was ordered.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is still ordered.
    #[must_use]
    pub fn left(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(super) fn next(&self) -> Fault {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Fault::None)
    }
}

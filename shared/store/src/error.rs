//! What can go wrong between here and DynamoDB.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Short for results of this crate.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A failed store operation. Conditions that callers decide on (taken, missing, refused) are not errors
/// but part of the operation's answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB cannot be reached, is throttling or answered nonsense. Trying again later may help.
    #[error("the database did not answer: {0}")]
    Unavailable(String),
    /// DynamoDB refuses the request itself, and will refuse it again. A fault of ours, or hostile data.
    #[error("the database refused a request: {0}")]
    Rejected(String),
    /// An item is not what this version writes. Somebody has to look.
    #[error("stored item {key}: {what}")]
    Corrupt {
        /// Where it lies.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// Many writers met on one item and this one lost every time. Trying again will help.
    #[error("too many concurrent writes on one item")]
    Contention,
    /// The request was claimed by somebody else meanwhile, because this one took too long. Nothing was written.
    #[error("the request belongs to a later try of it")]
    Superseded,
    /// Who wants it is not in the role any more that allows it. Nothing was written.
    #[error("the role changed meanwhile")]
    ActorChanged,
    /// A cursor that was not handed out for this list.
    #[error("the cursor is not one of this list")]
    BadCursor,
}

impl StoreError {
    pub(crate) fn from_sdk<E>(error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let code = error.code().unwrap_or("no answer").to_owned();
        let message = error.message().map(ToOwned::to_owned).unwrap_or_else(|| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        });
        let text = format!("{code}: {message}");
        match code.as_str() {
            "ValidationException" => Self::Rejected(text),
            // A transaction was writing the item at that moment. The SDK does not try that again.
            "TransactionConflictException" => Self::Contention,
            _ => Self::Unavailable(text),
        }
    }
}

//! What can go wrong with a payment vendor, without a word about HTTP.

use thiserror::Error;

/// How much of a vendor's message is kept.
const LONGEST_MESSAGE: usize = 300;

/// Why a vendor's call has no result. The texts hold no keys and no signatures.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PaymentError {
    /// The vendor understood and said no; nothing happened.
    #[error("refused: {code}: {message}")]
    Refused {
        /// The vendor's code, `ORDER_CLOSED` or `ACQ.TRADE_HAS_SUCCESS` for example.
        code: String,
        /// The vendor's words, shortened.
        message: String,
    },
    /// The vendor does not take us for who we are, or does not let us call it: our key, our certificate, our clock, our
    /// rights. **It says nothing about what was asked for**, which an earlier call may have done.
    #[error("the vendor does not take our calls: {code}: {message}")]
    Denied {
        /// The vendor's code, `SIGN_ERROR` or `isv.invalid-signature` for example.
        code: String,
        /// The vendor's words, shortened.
        message: String,
    },
    /// No answer, or one that says "later". **It may have been applied**: ask for the state before doing anything else.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// What came is not signed by the vendor, or too old: it is not believed, whatever it says.
    #[error("not believed: {0}")]
    BadSignature(&'static str),
    /// The vendor signed it, and it still makes no sense here.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The call is against the vendor's rules; nothing was sent.
    #[error("invalid: {0}")]
    Invalid(&'static str),
}

impl PaymentError {
    /// Whether the same may go well later, with the same numbers.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub(crate) fn refused(code: &str, message: &str) -> Self {
        Self::Refused { code: short(code), message: short(message) }
    }

    pub(crate) fn malformed(what: impl std::fmt::Display) -> Self {
        Self::Malformed(short(&what.to_string()))
    }

    pub(crate) fn unavailable(why: impl std::fmt::Display) -> Self {
        Self::Unavailable(short(&why.to_string()))
    }
}

/// An error of a call, with refusals apart: one of us, or without the vendor's signature (a wrong key of ours cannot be
/// answered with one), tells the operator what is wrong, and says nothing about orders.
pub(crate) enum Failed {
    /// The vendor, or somebody, said no; to what was asked for, if it was `heard`.
    Refused { code: String, message: String, heard: bool },
    /// Anything else.
    Other(PaymentError),
}

impl Failed {
    pub(crate) fn refused(code: &str, message: &str, heard: bool) -> Self {
        Self::Refused { code: code.to_owned(), message: message.to_owned(), heard }
    }

    /// Did the vendor itself refuse with one of these codes?
    pub(crate) fn says(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Refused { code, heard: true, .. } if codes.contains(&code.as_str()))
    }

    pub(crate) const fn is_transient(&self) -> bool {
        matches!(self, Self::Other(PaymentError::Unavailable(_)))
    }
}

impl From<PaymentError> for Failed {
    fn from(error: PaymentError) -> Self {
        Self::Other(error)
    }
}

impl From<Failed> for PaymentError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused { code, message, heard: true } => Self::refused(&code, &message),
            Failed::Refused { code, message, heard: false } => {
                Self::Denied { code: short(&code), message: short(&message) }
            }
            Failed::Other(error) => error,
        }
    }
}

/// Vendors echo what they were sent; a log line needs the beginning only, in one line.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_MESSAGE).collect()
}

/// Why a vendor cannot be set up. Names the setting, never its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    /// The setting at fault.
    pub setting: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl ConfigError {
    pub(crate) const fn new(setting: &'static str, problem: &'static str) -> Self {
        Self { setting, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_words_are_cut_and_kept_in_one_line() {
        let PaymentError::Refused { message, .. } = PaymentError::refused("X", &"长\n".repeat(400)) else { panic!() };
        assert_eq!(message.chars().count(), LONGEST_MESSAGE);
        assert!(!message.contains('\n'));
    }
}

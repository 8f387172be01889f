//! Mails as other functions order them from the mailer.
//!
//! A mail carries what its template needs and no link: the mailer makes links, from its own configuration.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tenantry_domain::{Email, Millis};

use crate::queue::{BoxFuture, QueueError, SqsQueue};

/// A mail to be sent, as it stands in the queue: `{"id", "language", "to", "template", "data"}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// Names this mail: 1 to 100 letters, digits, `.`, `_` or `-`. Of two with one id, one is sent.
    pub id: String,
    /// What the recipient reads.
    pub language: Language,
    /// The recipient.
    #[serde(deserialize_with = "address")]
    pub to: Email,
    /// The template with what goes into it.
    #[serde(flatten)]
    pub content: Content,
}

impl fmt::Debug for Mail {
    /// Without the recipient and the token: this may end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail")
            .field("id", &self.id)
            .field("language", &self.language)
            .field("template", &self.content.template())
            .finish_non_exhaustive()
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Email, D::Error> {
    // The text itself stays out of the error: it is a person's.
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// A language that there are templates for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    En,
    /// Chinese, simplified.
    Zh,
}

/// Whose limit a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// The plan's.
    Plan,
    /// What the organization set for a model.
    Organization,
    /// A member's.
    Member,
    /// An API key's.
    ApiKey,
}

/// A template, and what goes into it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "template", content = "data", rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// Proves that an address is its owner's.
    Verification {
        /// What the person is called.
        name: String,
        /// The one-time token.
        token: String,
        /// How long the token is good for.
        valid_minutes: u32,
    },
    /// Lets a person choose a new password.
    PasswordReset {
        /// What the person is called.
        name: String,
        /// The one-time token.
        token: String,
        /// How long the token is good for.
        valid_minutes: u32,
    },
    /// Asks somebody into an organization.
    Invite {
        /// The organization's name.
        organization: String,
        /// Who asks.
        inviter: String,
        /// The one-time token.
        token: String,
        /// How long the token is good for.
        valid_minutes: u32,
    },
    /// Tells the owner of an account, who may not have done it.
    PasswordChanged {
        /// What the person is called.
        name: String,
        /// When.
        at: Millis,
    },
    /// Tells the owner of an account about a sign-in from a device that was not seen before.
    NewDevice {
        /// What the person is called.
        name: String,
        /// What the device says of itself.
        device: String,
        /// The address it came from.
        address: String,
        /// When.
        at: Millis,
    },
    /// Tells the owner of an account that somebody registered with its address, and how to get in.
    AlreadyRegistered {
        /// What the person is called.
        name: String,
    },
    /// Tells an owner that a payment failed.
    PaymentFailed {
        /// What the person is called.
        name: String,
        /// The organization's name.
        organization: String,
        /// When the plan ends, if nothing is paid.
        until: Millis,
    },
    /// Tells an owner that a trial ends soon.
    TrialEnding {
        /// What the person is called.
        name: String,
        /// The organization's name.
        organization: String,
        /// When.
        at: Millis,
    },
    /// Tells an owner that a plan has ended.
    PlanEnded {
        /// What the person is called.
        name: String,
        /// The organization's name.
        organization: String,
        /// The name of the plan that ended.
        plan: String,
        /// The name of the plan from now on.
        now: String,
    },
    /// Tells an owner that credits run out.
    LowBalance {
        /// What the person is called.
        name: String,
        /// The organization's name.
        organization: String,
        /// What is left, in micro-credits.
        credits: u64,
    },
    /// Tells an owner that a limit of the month is nearly used up, or used up.
    LimitReached {
        /// What the person is called.
        name: String,
        /// The organization's name.
        organization: String,
        /// Whose limit.
        by: LimitedBy,
        /// What the API key or the member is called; empty where it is neither's.
        who: String,
        /// The model that it is for; empty where it is for all.
        model: String,
        /// What is limited: a resource, or `credits`.
        resource: String,
        /// How much of it was used, as the threshold that was reached.
        percent: u8,
        /// What was used.
        used: u64,
        /// The limit.
        limit: u64,
        /// When it starts afresh.
        resets_at: Millis,
    },
    /// Tells an owner that credits could not be bought by themselves, and that this is off now.
    TopUpFailed {
        /// What the person is called.
        name: String,
        /// The organization's name.
        organization: String,
    },
    /// No mail. Ordered where none is due, so that the answer takes as long as where one is, and tells nobody
    /// which it was.
    Nothing {},
}

impl Content {
    /// The template's name, as in `functions/mailer/templates`.
    #[must_use]
    pub const fn template(&self) -> &'static str {
        match self {
            Self::Verification { .. } => "verification",
            Self::PasswordReset { .. } => "password_reset",
            Self::Invite { .. } => "invite",
            Self::PasswordChanged { .. } => "password_changed",
            Self::NewDevice { .. } => "new_device",
            Self::AlreadyRegistered { .. } => "already_registered",
            Self::PaymentFailed { .. } => "payment_failed",
            Self::TrialEnding { .. } => "trial_ending",
            Self::PlanEnded { .. } => "plan_ended",
            Self::LowBalance { .. } => "low_balance",
            Self::LimitReached { .. } => "limit_reached",
            Self::TopUpFailed { .. } => "top_up_failed",
            Self::Nothing {} => "nothing",
        }
    }
}

/// Where mails are ordered. One that was accepted is sent once, or ends among the dead letters.
pub trait MailQueue: Send + Sync + 'static {
    /// Accepts one mail.
    ///
    /// # Errors
    /// [`QueueError`] when it was not accepted.
    fn send<'a>(&'a self, mail: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>>;
}

/// The mail queue on AWS.
pub struct SqsMailQueue(SqsQueue);

impl SqsMailQueue {
    /// Orders mails through `queue`.
    #[must_use]
    pub const fn new(queue: SqsQueue) -> Self {
        Self(queue)
    }
}

impl MailQueue for SqsMailQueue {
    fn send<'a>(&'a self, mail: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.0.send_json(mail, Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_in_the_queue_is_the_contracts_json() {
        let content = Content::PasswordReset { name: "Ada".into(), token: "t0ken".into(), valid_minutes: 30 };
        let mail =
            Mail { id: "reset.1".into(), language: Language::Zh, to: "ada@example.com".parse().unwrap(), content };
        let json = serde_json::to_value(&mail).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"id": "reset.1", "language": "zh", "to": "ada@example.com", "template": "password_reset",
                "data": {"name": "Ada", "token": "t0ken", "valid_minutes": 30}})
        );
        assert_eq!(serde_json::from_value::<Mail>(json).unwrap(), mail);
        assert!(!format!("{mail:?}").contains("t0ken") && !format!("{mail:?}").contains('@'));
    }

    #[test]
    fn half_a_mail_is_none() {
        let whole = serde_json::json!({"id": "1", "language": "en", "to": "ada@example.com",
            "template": "invite", "data": {"organization": "A", "inviter": "B", "token": "t", "valid_minutes": 60}});
        assert!(serde_json::from_value::<Mail>(whole.clone()).is_ok());
        for (pointer, value) in [
            ("/data", serde_json::json!({"organization": "A", "token": "t", "valid_minutes": 60})),
            ("/data/token", serde_json::Value::Null),
            ("/template", "newsletter".into()),
            ("/language", "fr".into()),
            ("/to", "nobody".into()),
        ] {
            let mut half = whole.clone();
            *half.pointer_mut(pointer).unwrap() = value;
            let error = serde_json::from_value::<Mail>(half).unwrap_err().to_string();
            assert!(!error.contains("nobody"), "{error}");
        }
    }
}

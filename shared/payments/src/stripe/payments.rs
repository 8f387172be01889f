//! Money that came and went: payments, charges, refunds, disputes.

use serde::Deserialize;
use stripe_core::{
    charge::RetrieveCharge,
    dispute::{ListDispute, RetrieveDispute},
    payment_intent::{
        CreatePaymentIntent, CreatePaymentIntentAutomaticPaymentMethods,
        CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects, CreatePaymentIntentOffSession, ListPaymentIntent,
        RetrievePaymentIntent,
    },
    refund::{CreateRefund, CreateRefundReason, ListRefund, RetrieveRefund},
};
use stripe_types::RangeQueryTs;
use tenantry_domain::Millis;

use super::{
    OperationKey, Stripe, StripeError,
    customers::owner,
    prices::currency,
    wire::{self, Listed, Metadata, path_id, seconds, words},
};

words! {
    /// How a payment stands.
    PaymentIntentStatus {
        /// Declined, or not begun.
        RequiresPaymentMethod = "requires_payment_method",
        /// To be confirmed.
        RequiresConfirmation = "requires_confirmation",
        /// Its owner must do something.
        RequiresAction = "requires_action",
        /// At the bank.
        Processing = "processing",
        /// Authorized.
        RequiresCapture = "requires_capture",
        /// Never made.
        Canceled = "canceled",
        /// Made.
        Succeeded = "succeeded",
    }
    /// How a charge stands.
    ChargeStatus {
        /// The money came.
        Succeeded = "succeeded",
        /// On its way.
        Pending = "pending",
        /// It did not come.
        Failed = "failed",
    }
    /// How a refund stands.
    RefundStatus {
        /// On its way.
        Pending = "pending",
        /// The customer must do something.
        RequiresAction = "requires_action",
        /// Done, as far as Stripe can tell.
        Succeeded = "succeeded",
        /// The money came back to us.
        Failed = "failed",
        /// Taken back.
        Canceled = "canceled",
    }
    /// How a dispute stands. The money is gone from the first `needs_response`, and comes back when it is won.
    DisputeStatus {
        /// An inquiry; no money is gone.
        WarningNeedsResponse = "warning_needs_response",
        /// An inquiry that was answered.
        WarningUnderReview = "warning_under_review",
        /// An inquiry that came to nothing.
        WarningClosed = "warning_closed",
        /// To be answered.
        NeedsResponse = "needs_response",
        /// Answered.
        UnderReview = "under_review",
        /// The money came back.
        Won = "won",
        /// It did not.
        Lost = "lost",
        /// Settled before it began.
        Prevented = "prevented",
    }
}

/// A payment (<https://docs.stripe.com/api/payment_intents/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentIntent {
    /// `pi_…`
    pub id: String,
    /// How it stands.
    pub status: PaymentIntentStatus,
    /// What is to be paid.
    pub amount: i64,
    /// What came.
    #[serde(default)]
    pub amount_received: i64,
    /// `usd`
    pub currency: String,
    /// Who pays.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub customer: Option<String>,
    /// With what.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub payment_method: Option<String>,
    /// The newest attempt.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub latest_charge: Option<String>,
    /// Why the newest attempt failed.
    #[serde(default)]
    pub last_payment_error: Option<PaymentFailure>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// When it was made.
    #[serde(deserialize_with = "wire::millis")]
    pub created: Millis,
    /// Whether it is about real money.
    pub livemode: bool,
}

/// Why a payment failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentFailure {
    /// `card_declined`
    #[serde(default)]
    pub code: Option<String>,
    /// `insufficient_funds`
    #[serde(default)]
    pub decline_code: Option<String>,
}

/// An attempt to get money (<https://docs.stripe.com/api/charges/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Charge {
    /// `ch_…`
    pub id: String,
    /// How it stands.
    pub status: ChargeStatus,
    /// What was to be paid.
    pub amount: i64,
    /// What came.
    pub amount_captured: i64,
    /// What went back, all refunds together.
    pub amount_refunded: i64,
    /// `usd`
    pub currency: String,
    /// Who paid.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub customer: Option<String>,
    /// The payment that it belongs to; through it, [`Stripe::invoice_paid_by`] finds the invoice.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub payment_intent: Option<String>,
    /// Whether it was paid.
    pub paid: bool,
    /// Whether all of it went back.
    pub refunded: bool,
    /// Whether its owner disputes it.
    pub disputed: bool,
    /// Why it failed.
    #[serde(default)]
    pub failure_code: Option<String>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// When it was made.
    #[serde(deserialize_with = "wire::millis")]
    pub created: Millis,
    /// Whether it is about real money.
    pub livemode: bool,
}

/// Money that goes back (<https://docs.stripe.com/api/refunds/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refund {
    /// `re_…`
    pub id: String,
    /// How it stands.
    #[serde(default)]
    pub status: Option<RefundStatus>,
    /// How much.
    pub amount: i64,
    /// `usd`
    pub currency: String,
    /// Of which charge.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub charge: Option<String>,
    /// Of which payment.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub payment_intent: Option<String>,
    /// Why it was made.
    #[serde(default)]
    pub reason: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// When it was made.
    #[serde(deserialize_with = "wire::millis")]
    pub created: Millis,
}

impl Refund {
    /// Whether the money has left us, or is about to. That of a failed refund comes back.
    #[must_use]
    pub const fn took_money(&self) -> bool {
        !matches!(self.status, Some(RefundStatus::Failed | RefundStatus::Canceled))
    }
}

/// A payment that its owner takes back through the bank (<https://docs.stripe.com/api/disputes/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dispute {
    /// `dp_…`, `du_…`
    pub id: String,
    /// How it stands.
    pub status: DisputeStatus,
    /// How much.
    pub amount: i64,
    /// `usd`
    pub currency: String,
    /// Which charge.
    #[serde(deserialize_with = "wire::id")]
    pub charge: String,
    /// Which payment.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub payment_intent: Option<String>,
    /// `fraudulent`, `product_not_received`, …
    pub reason: String,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// When it was made.
    #[serde(deserialize_with = "wire::millis")]
    pub created: Millis,
    /// Whether it is about real money.
    pub livemode: bool,
}

impl DisputeStatus {
    /// Whether the money is gone, for good or until it is won.
    #[must_use]
    pub const fn took_money(&self) -> bool {
        matches!(self, Self::NeedsResponse | Self::UnderReview | Self::Lost)
    }

    /// Whether the money came back.
    #[must_use]
    pub const fn is_won(&self) -> bool {
        matches!(self, Self::Won)
    }
}

/// What is refunded or disputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentRef<'a> {
    /// `pi_…`
    Intent(&'a str),
    /// `ch_…`
    Charge(&'a str),
}

/// Why money goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundReason {
    /// Paid twice.
    Duplicate,
    /// Fraud; Stripe blocks the card.
    Fraudulent,
    /// The customer asked for it.
    RequestedByCustomer,
}

/// A payment without the customer's presence, with a saved payment method.
#[derive(Debug, Clone, Copy)]
pub struct SavedMethodCharge<'a> {
    /// Who pays.
    pub customer: &'a str,
    /// With what; it must have been saved for this ([`super::PaymentCheckout::save_payment_method`]).
    pub payment_method: &'a str,
    /// For whom.
    pub org: &'a str,
    /// More metadata of the same kind.
    pub metadata: &'a [(&'a str, &'a str)],
    /// Minor units.
    pub amount: i64,
    /// `usd`
    pub currency: &'a str,
    /// What the customer reads on the receipt.
    pub description: &'a str,
}

impl Stripe {
    /// Charges a saved payment method now. When the bank declines or wants its owner, that is a `Refused` with the
    /// `payment_intent`; a payment that is [`Processing`](PaymentIntentStatus::Processing) is not paid yet.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn charge_saved_method(
        &self,
        charge: &SavedMethodCharge<'_>,
        key: &OperationKey,
    ) -> Result<PaymentIntent, StripeError> {
        let more = charge.metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let metadata: std::collections::HashMap<_, _> = more.chain([owner(charge.org)]).collect();
        let mut methods = CreatePaymentIntentAutomaticPaymentMethods::new(true);
        // Nobody is there to be sent to a bank's page.
        methods.allow_redirects = Some(CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never);
        let request = CreatePaymentIntent::new(charge.amount, currency(charge.currency)?)
            .customer(charge.customer)
            .payment_method(charge.payment_method)
            .automatic_payment_methods(methods)
            .metadata(metadata)
            .description(charge.description)
            .off_session(CreatePaymentIntentOffSession::Bool(true))
            .confirm(true);
        self.change(request, key).await
    }

    /// A payment as it stands now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn payment_intent(&self, id: &str) -> Result<PaymentIntent, StripeError> {
        self.get(RetrievePaymentIntent::new(path_id("intent", id)?)).await
    }

    /// The payments of a customer since `since`, as they stand now, at most a hundred, newest first.
    ///
    /// # Errors
    /// [`StripeError`]; `Malformed` when there are more, because some would be missing.
    pub async fn payments_of(&self, customer: &str, since: Millis) -> Result<Vec<PaymentIntent>, StripeError> {
        let request = ListPaymentIntent::new().customer(customer).created(RangeQueryTs::gte(seconds(since))).limit(100);
        let listed = self.get::<Listed<PaymentIntent>>(request).await?;
        if listed.has_more {
            return Err(StripeError::Malformed("more payments than can be listed".to_owned()));
        }
        Ok(listed.data)
    }

    /// A charge as it stands now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn charge(&self, id: &str) -> Result<Charge, StripeError> {
        self.get(RetrieveCharge::new(path_id("charge", id)?)).await
    }

    /// Gives money back: `amount` of it, or all that is left. More than is left is refused.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn refund(
        &self,
        of: PaymentRef<'_>,
        amount: Option<i64>,
        reason: Option<RefundReason>,
        metadata: &[(&str, &str)],
        key: &OperationKey,
    ) -> Result<Refund, StripeError> {
        let mut request = match of {
            PaymentRef::Intent(id) => CreateRefund::new().payment_intent(id),
            PaymentRef::Charge(id) => CreateRefund::new().charge(id),
        };
        if let Some(amount) = amount {
            request = request.amount(amount);
        }
        if let Some(reason) = reason {
            request = request.reason(match reason {
                RefundReason::Duplicate => CreateRefundReason::Duplicate,
                RefundReason::Fraudulent => CreateRefundReason::Fraudulent,
                RefundReason::RequestedByCustomer => CreateRefundReason::RequestedByCustomer,
            });
        }
        if !metadata.is_empty() {
            let words = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            request = request.metadata(words.collect::<std::collections::HashMap<_, _>>());
        }
        self.change(request, key).await
    }

    /// A refund as it stands now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn refund_by_id(&self, id: &str) -> Result<Refund, StripeError> {
        self.get(RetrieveRefund::new(path_id("refund", id)?)).await
    }

    /// The refunds of a payment, at most a hundred, newest first.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn refunds_of(&self, payment: PaymentRef<'_>) -> Result<Vec<Refund>, StripeError> {
        let request = match payment {
            PaymentRef::Intent(id) => ListRefund::new().payment_intent(id),
            PaymentRef::Charge(id) => ListRefund::new().charge(id),
        };
        Ok(self.get::<Listed<Refund>>(request.limit(100)).await?.data)
    }

    /// The disputes of a payment, at most a hundred, newest first.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn disputes_of(&self, payment: PaymentRef<'_>) -> Result<Vec<Dispute>, StripeError> {
        let request = match payment {
            PaymentRef::Intent(id) => ListDispute::new().payment_intent(id),
            PaymentRef::Charge(id) => ListDispute::new().charge(id),
        };
        Ok(self.get::<Listed<Dispute>>(request.limit(100)).await?.data)
    }

    /// A dispute as it stands now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn dispute(&self, id: &str) -> Result<Dispute, StripeError> {
        self.get(RetrieveDispute::new(path_id("dispute", id)?)).await
    }
}

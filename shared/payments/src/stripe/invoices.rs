//! Invoices and what paid them (<https://docs.stripe.com/api/invoices>).

use serde::Deserialize;
use stripe_billing::{
    invoice::{ListInvoice, RetrieveInvoice},
    invoice_payment::{ListInvoicePayment, ListInvoicePaymentPayment, ListInvoicePaymentPaymentType},
};
use stripe_client_core::StripeRequest;
use tenantry_domain::Millis;

use super::{
    Page, Stripe, StripeError,
    wire::{self, Listed, Metadata, path_id, words},
};

words! {
    /// How an invoice stands.
    InvoiceStatus {
        /// Can still be changed.
        Draft = "draft",
        /// To be paid.
        Open = "open",
        /// Paid.
        Paid = "paid",
        /// Not expected to be paid.
        Uncollectible = "uncollectible",
        /// Taken back.
        Void = "void",
    }
    /// How a payment of an invoice stands.
    InvoicePaymentStatus {
        /// Not made yet.
        Open = "open",
        /// Made.
        Paid = "paid",
        /// Never made.
        Canceled = "canceled",
    }
}

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "InvoiceWire")]
pub struct Invoice {
    /// `in_…`
    pub id: String,
    /// What stands on it, once it is final.
    pub number: Option<String>,
    /// How it stands.
    pub status: Option<InvoiceStatus>,
    /// Who pays.
    pub customer: Option<String>,
    /// The subscription that it is for.
    pub subscription: Option<String>,
    /// The subscription's metadata when the invoice was made.
    pub subscription_metadata: Metadata,
    /// `subscription_create`, `subscription_cycle`, `subscription_update`, `manual`, …
    pub billing_reason: Option<String>,
    /// `usd`
    pub currency: String,
    /// Before taxes and discounts.
    pub subtotal: i64,
    /// With them.
    pub total: i64,
    /// What is to be paid: the total less what the customer has with us.
    pub amount_due: i64,
    /// What was paid.
    pub amount_paid: i64,
    /// What is left to pay.
    pub amount_remaining: i64,
    /// Attempts to charge it.
    pub attempt_count: i64,
    /// When it is tried again.
    pub next_payment_attempt: Option<Millis>,
    /// Stripe's page of it. Whoever has it sees the invoice.
    pub hosted_invoice_url: Option<String>,
    /// To be downloaded.
    pub pdf: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// The time that usage is counted in. The period that is paid for stands in the lines.
    pub period_start: Millis,
    /// Its end.
    pub period_end: Millis,
    /// Our words.
    pub metadata: Metadata,
    /// What it is for, ten at most.
    pub lines: Vec<InvoiceLine>,
    /// Whether there are more lines than these.
    pub more_lines: bool,
    /// Whether it is about real money.
    pub livemode: bool,
}

/// A line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "LineWire")]
pub struct InvoiceLine {
    /// For people.
    pub description: Option<String>,
    /// Negative when it gives back.
    pub amount: i64,
    /// `usd`
    pub currency: String,
    /// When what is paid for begins.
    pub period_start: Millis,
    /// When it ends.
    pub period_end: Millis,
    /// Whether it settles the rest of a period.
    pub proration: bool,
    /// `price_…`
    pub price: Option<String>,
    /// What the price is for, `prod_…` or a name of ours.
    pub product: Option<String>,
}

/// What an invoice was or is to be paid by (<https://docs.stripe.com/api/invoice-payment/object>). It is what leads from
/// a refund or a dispute to the invoice and back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "PaymentWire")]
pub struct InvoicePayment {
    /// `inpay_…`
    pub id: String,
    /// `in_…`
    pub invoice: String,
    /// How it stands.
    pub status: InvoicePaymentStatus,
    /// What was paid.
    pub amount_paid: Option<i64>,
    /// What was asked for.
    pub amount_requested: i64,
    /// `usd`
    pub currency: String,
    /// `pi_…`
    pub payment_intent: Option<String>,
    /// `ch_…`, of old payments that have no intent.
    pub charge: Option<String>,
}

#[derive(Deserialize)]
struct InvoiceWire {
    id: String,
    #[serde(default)]
    number: Option<String>,
    #[serde(default)]
    status: Option<InvoiceStatus>,
    #[serde(default, deserialize_with = "wire::opt_id")]
    customer: Option<String>,
    // Demanded, though it may be null: older versions of the API do not have it, and say the subscription elsewhere.
    #[serde(deserialize_with = "parent")]
    parent: Option<Parent>,
    #[serde(default)]
    billing_reason: Option<String>,
    currency: String,
    subtotal: i64,
    total: i64,
    amount_due: i64,
    amount_paid: i64,
    amount_remaining: i64,
    #[serde(default)]
    attempt_count: i64,
    #[serde(default, deserialize_with = "wire::opt_millis")]
    next_payment_attempt: Option<Millis>,
    #[serde(default)]
    hosted_invoice_url: Option<String>,
    #[serde(default)]
    invoice_pdf: Option<String>,
    #[serde(deserialize_with = "wire::millis")]
    created: Millis,
    #[serde(deserialize_with = "wire::millis")]
    period_start: Millis,
    #[serde(deserialize_with = "wire::millis")]
    period_end: Millis,
    #[serde(default, deserialize_with = "wire::or_default")]
    metadata: Metadata,
    lines: Listed<InvoiceLine>,
    livemode: bool,
}

fn parent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Parent>, D::Error> {
    Option::deserialize(deserializer)
}

#[derive(Deserialize)]
struct Parent {
    #[serde(default)]
    subscription_details: Option<SubscriptionDetails>,
}

#[derive(Deserialize)]
struct SubscriptionDetails {
    #[serde(deserialize_with = "wire::id")]
    subscription: String,
    #[serde(default, deserialize_with = "wire::or_default")]
    metadata: Metadata,
}

impl From<InvoiceWire> for Invoice {
    fn from(wire: InvoiceWire) -> Self {
        let details = wire.parent.and_then(|parent| parent.subscription_details);
        let (subscription, subscription_metadata) =
            details.map_or_else(Default::default, |details| (Some(details.subscription), details.metadata));
        Self {
            id: wire.id,
            number: wire.number,
            status: wire.status,
            customer: wire.customer,
            subscription,
            subscription_metadata,
            billing_reason: wire.billing_reason,
            currency: wire.currency,
            subtotal: wire.subtotal,
            total: wire.total,
            amount_due: wire.amount_due,
            amount_paid: wire.amount_paid,
            amount_remaining: wire.amount_remaining,
            attempt_count: wire.attempt_count,
            next_payment_attempt: wire.next_payment_attempt,
            hosted_invoice_url: wire.hosted_invoice_url,
            pdf: wire.invoice_pdf,
            created: wire.created,
            period_start: wire.period_start,
            period_end: wire.period_end,
            metadata: wire.metadata,
            lines: wire.lines.data,
            more_lines: wire.lines.has_more,
            livemode: wire.livemode,
        }
    }
}

#[derive(Deserialize)]
struct LineWire {
    #[serde(default)]
    description: Option<String>,
    amount: i64,
    currency: String,
    period: LinePeriod,
    #[serde(default)]
    parent: Option<LineParent>,
    #[serde(default)]
    pricing: Option<Pricing>,
}

#[derive(Deserialize)]
struct LinePeriod {
    #[serde(deserialize_with = "wire::millis")]
    start: Millis,
    #[serde(deserialize_with = "wire::millis")]
    end: Millis,
}

#[derive(Deserialize)]
struct LineParent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subscription_item_details: Option<Prorated>,
    #[serde(default)]
    invoice_item_details: Option<Prorated>,
}

#[derive(Deserialize)]
struct Prorated {
    proration: bool,
}

#[derive(Deserialize)]
struct Pricing {
    #[serde(default)]
    price_details: Option<PriceDetails>,
}

#[derive(Deserialize)]
struct PriceDetails {
    #[serde(deserialize_with = "wire::id")]
    price: String,
    #[serde(default)]
    product: Option<String>,
}

impl From<LineWire> for InvoiceLine {
    fn from(wire: LineWire) -> Self {
        let details = wire.parent.and_then(|parent| match parent.kind.as_str() {
            "subscription_item_details" => parent.subscription_item_details,
            "invoice_item_details" => parent.invoice_item_details,
            _ => None,
        });
        let details_of_price = wire.pricing.and_then(|pricing| pricing.price_details);
        let (price, product) = details_of_price.map(|details| (details.price, details.product)).unzip();
        Self {
            description: wire.description,
            amount: wire.amount,
            currency: wire.currency,
            period_start: wire.period.start,
            period_end: wire.period.end,
            proration: details.is_some_and(|details| details.proration),
            price,
            product: product.flatten(),
        }
    }
}

#[derive(Deserialize)]
struct PaymentWire {
    id: String,
    #[serde(deserialize_with = "wire::id")]
    invoice: String,
    status: InvoicePaymentStatus,
    #[serde(default)]
    amount_paid: Option<i64>,
    amount_requested: i64,
    currency: String,
    payment: PaidBy,
}

#[derive(Deserialize)]
struct PaidBy {
    #[serde(default, deserialize_with = "wire::opt_id")]
    payment_intent: Option<String>,
    #[serde(default, deserialize_with = "wire::opt_id")]
    charge: Option<String>,
}

impl From<PaymentWire> for InvoicePayment {
    fn from(wire: PaymentWire) -> Self {
        Self {
            id: wire.id,
            invoice: wire.invoice,
            status: wire.status,
            amount_paid: wire.amount_paid,
            amount_requested: wire.amount_requested,
            currency: wire.currency,
            payment_intent: wire.payment.payment_intent,
            charge: wire.payment.charge,
        }
    }
}

impl Stripe {
    /// An invoice.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn invoice(&self, id: &str) -> Result<Invoice, StripeError> {
        self.get(RetrieveInvoice::new(path_id("invoice", id)?)).await
    }

    /// A page of a customer's invoices, newest first: `limit` (1 to 100) of them after the one called `after`.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn invoices_of(
        &self,
        customer: &str,
        limit: u8,
        after: Option<&str>,
    ) -> Result<Page<Invoice>, StripeError> {
        let mut request = ListInvoice::new().customer(customer).limit(i64::from(limit));
        if let Some(after) = after {
            request = request.starting_after(after);
        }
        self.get::<Listed<Invoice>>(request).await?.page(|invoice| Some(&invoice.id))
    }

    /// What an invoice was or is to be paid by.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn payments_of_invoice(&self, invoice: &str) -> Result<Vec<InvoicePayment>, StripeError> {
        self.invoice_payments(ListInvoicePayment::new().invoice(invoice).limit(100)).await
    }

    /// The invoice that a payment paid; none when it paid no invoice.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn invoice_paid_by(&self, payment_intent: &str) -> Result<Option<InvoicePayment>, StripeError> {
        let mut payment = ListInvoicePaymentPayment::new(ListInvoicePaymentPaymentType::PaymentIntent);
        payment.payment_intent = Some(payment_intent.to_owned());
        let found = self.invoice_payments(ListInvoicePayment::new().payment(payment).limit(100)).await?;
        Ok(found.into_iter().find(|found| found.payment_intent.as_deref() == Some(payment_intent)))
    }

    async fn invoice_payments(&self, request: impl StripeRequest) -> Result<Vec<InvoicePayment>, StripeError> {
        Ok(self.get::<Listed<InvoicePayment>>(request).await?.data)
    }
}

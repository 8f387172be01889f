//! Checkout: Stripe's page where a customer pays (<https://docs.stripe.com/api/checkout/sessions>).

use std::collections::HashMap;

use serde::Deserialize;
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionAutomaticTax, CreateCheckoutSessionCustomerUpdate,
    CreateCheckoutSessionCustomerUpdateAddress, CreateCheckoutSessionCustomerUpdateName,
    CreateCheckoutSessionInvoiceCreation, CreateCheckoutSessionInvoiceCreationInvoiceData,
    CreateCheckoutSessionLineItems, CreateCheckoutSessionLineItemsPriceData, CreateCheckoutSessionPaymentIntentData,
    CreateCheckoutSessionPaymentIntentDataSetupFutureUsage, CreateCheckoutSessionSetupIntentData,
    CreateCheckoutSessionSubscriptionData, ExpireCheckoutSession, ProductData, RetrieveCheckoutSession,
};
use stripe_shared::CheckoutSessionMode;
use tenantry_domain::Millis;

use super::{
    OperationKey, Stripe, StripeError,
    customers::owner,
    prices::currency,
    wire::{self, Metadata, path_id, seconds, words},
};

words! {
    /// What a checkout is for.
    CheckoutMode {
        /// A purchase.
        Payment = "payment",
        /// Saving a payment method.
        Setup = "setup",
        /// A subscription.
        Subscription = "subscription",
    }
    /// How far a checkout has come.
    CheckoutStatus {
        /// The page can be used.
        Open = "open",
        /// The customer is through; whether the money came, [`PaymentStatus`] says.
        Complete = "complete",
        /// The page can be used no more, and nothing was bought.
        Expired = "expired",
    }
    /// Whether a checkout was paid.
    PaymentStatus {
        /// The money came.
        Paid = "paid",
        /// Not yet: payments by bank take days.
        Unpaid = "unpaid",
        /// There is nothing to pay, as in a trial.
        NoPaymentRequired = "no_payment_required",
    }
}

/// A checkout.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CheckoutSession {
    /// `cs_…`
    pub id: String,
    /// What it is for.
    pub mode: CheckoutMode,
    /// How far it has come.
    #[serde(default)]
    pub status: Option<CheckoutStatus>,
    /// Whether it was paid.
    pub payment_status: PaymentStatus,
    /// Who pays.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub customer: Option<String>,
    /// What was subscribed, once complete.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub subscription: Option<String>,
    /// The payment of a purchase.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub payment_intent: Option<String>,
    /// The payment method's saving.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub setup_intent: Option<String>,
    /// The invoice, once there is one.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub invoice: Option<String>,
    /// Everything together, taxes and discounts included.
    #[serde(default)]
    pub amount_total: Option<i64>,
    /// Before taxes and discounts.
    #[serde(default)]
    pub amount_subtotal: Option<i64>,
    /// `usd`
    #[serde(default)]
    pub currency: Option<String>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// Our word for what it is about.
    #[serde(default)]
    pub client_reference_id: Option<String>,
    /// The page, while it is open.
    #[serde(default)]
    pub url: Option<String>,
    /// When the page closes.
    #[serde(deserialize_with = "wire::millis")]
    pub expires_at: Millis,
    /// When it was made.
    #[serde(deserialize_with = "wire::millis")]
    pub created: Millis,
    /// Whether it is about real money.
    pub livemode: bool,
}

/// What all checkouts need.
#[derive(Debug, Clone, Copy)]
pub struct CheckoutPages<'a> {
    /// Who pays.
    pub customer: &'a str,
    /// For whom; stands in the metadata of everything that comes out of it.
    pub org: &'a str,
    /// More metadata of the same kind.
    pub metadata: &'a [(&'a str, &'a str)],
    /// Where the customer goes afterwards; `{CHECKOUT_SESSION_ID}` in it is replaced by Stripe.
    pub success_url: &'a str,
    /// Where the customer goes who goes back.
    pub cancel_url: &'a str,
    /// When the page closes, 30 minutes to 24 hours from now. The same key must come with the same moment.
    pub expires_at: Option<Millis>,
}

/// A checkout of a subscription.
#[derive(Debug, Clone, Copy)]
pub struct SubscriptionCheckout<'a> {
    /// Who and where.
    pub pages: CheckoutPages<'a>,
    /// `price_…`
    pub price: &'a str,
    /// Days before the first payment.
    pub trial_days: Option<u32>,
    /// Whether the page takes promotion codes.
    pub promotion_codes: bool,
    /// Whether Stripe Tax computes taxes.
    pub automatic_tax: bool,
}

/// What is bought once.
#[derive(Debug, Clone, Copy)]
pub enum Goods<'a> {
    /// So many of something that Stripe has a price for.
    Price {
        /// `price_…`
        price: &'a str,
        /// How many.
        quantity: u64,
    },
    /// Something that Stripe has no price for.
    Amount {
        /// What stands on the page and the invoice.
        name: &'a str,
        /// `usd`
        currency: &'a str,
        /// Minor units.
        amount: i64,
    },
}

/// A checkout of a purchase.
#[derive(Debug, Clone, Copy)]
pub struct PaymentCheckout<'a> {
    /// Who and where.
    pub pages: CheckoutPages<'a>,
    /// What is bought.
    pub goods: Goods<'a>,
    /// Whether the payment method is kept for payments without the customer.
    pub save_payment_method: bool,
    /// Whether the page takes promotion codes.
    pub promotion_codes: bool,
    /// Whether Stripe Tax computes taxes.
    pub automatic_tax: bool,
    /// Whether an invoice is written.
    pub invoice: bool,
}

/// A checkout that saves a payment method.
#[derive(Debug, Clone, Copy)]
pub struct SetupCheckout<'a> {
    /// Who and where.
    pub pages: CheckoutPages<'a>,
    /// The currency that the payment method must be able to pay.
    pub currency: &'a str,
}

impl CheckoutPages<'_> {
    fn metadata(&self) -> HashMap<String, String> {
        let more = self.metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        // Last, so that no other word takes its place.
        more.chain([owner(self.org)]).collect()
    }

    fn request(&self, mode: CheckoutSessionMode) -> CreateCheckoutSession {
        let request = CreateCheckoutSession::new()
            .mode(mode)
            .customer(self.customer)
            .client_reference_id(self.org)
            .metadata(self.metadata())
            .success_url(self.success_url)
            .cancel_url(self.cancel_url);
        match self.expires_at {
            Some(at) => request.expires_at(seconds(at)),
            None => request,
        }
    }
}

/// Taxes depend on where the customer is, so the page must be allowed to write the address down.
fn taxed(request: CreateCheckoutSession) -> CreateCheckoutSession {
    let mut update = CreateCheckoutSessionCustomerUpdate::new();
    update.address = Some(CreateCheckoutSessionCustomerUpdateAddress::Auto);
    update.name = Some(CreateCheckoutSessionCustomerUpdateName::Auto);
    request.automatic_tax(CreateCheckoutSessionAutomaticTax::new(true)).customer_update(update)
}

impl Goods<'_> {
    fn line(&self) -> Result<CreateCheckoutSessionLineItems, StripeError> {
        let mut line = CreateCheckoutSessionLineItems::new();
        match *self {
            Goods::Price { price, quantity } => {
                line.price = Some(price.to_owned());
                line.quantity = Some(quantity);
            }
            Goods::Amount { name, currency: of, amount } => {
                let mut price = CreateCheckoutSessionLineItemsPriceData::new(currency(of)?);
                price.product_data = Some(ProductData::new(name));
                price.unit_amount = Some(amount);
                line.price_data = Some(price);
                line.quantity = Some(1);
            }
        }
        Ok(line)
    }
}

impl Stripe {
    /// Opens a page where a subscription is bought.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn subscription_checkout(
        &self,
        checkout: &SubscriptionCheckout<'_>,
        key: &OperationKey,
    ) -> Result<CheckoutSession, StripeError> {
        let mut subscription = CreateCheckoutSessionSubscriptionData::new();
        subscription.metadata = Some(checkout.pages.metadata());
        subscription.trial_period_days = checkout.trial_days;
        let goods = Goods::Price { price: checkout.price, quantity: 1 };
        let mut request = checkout
            .pages
            .request(CheckoutSessionMode::Subscription)
            .line_items([goods.line()?])
            .subscription_data(subscription);
        if checkout.promotion_codes {
            request = request.allow_promotion_codes(true);
        }
        if checkout.automatic_tax {
            request = taxed(request);
        }
        self.change(request, key).await
    }

    /// Opens a page where something is bought once.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn payment_checkout(
        &self,
        checkout: &PaymentCheckout<'_>,
        key: &OperationKey,
    ) -> Result<CheckoutSession, StripeError> {
        let mut payment = CreateCheckoutSessionPaymentIntentData::new();
        payment.metadata = Some(checkout.pages.metadata());
        if checkout.save_payment_method {
            payment.setup_future_usage = Some(CreateCheckoutSessionPaymentIntentDataSetupFutureUsage::OffSession);
        }
        let mut request = checkout
            .pages
            .request(CheckoutSessionMode::Payment)
            .line_items([checkout.goods.line()?])
            .payment_intent_data(payment);
        if checkout.invoice {
            let mut data = CreateCheckoutSessionInvoiceCreationInvoiceData::new();
            data.metadata = Some(checkout.pages.metadata());
            let mut invoice = CreateCheckoutSessionInvoiceCreation::new(true);
            invoice.invoice_data = Some(data);
            request = request.invoice_creation(invoice);
        }
        if checkout.promotion_codes {
            request = request.allow_promotion_codes(true);
        }
        if checkout.automatic_tax {
            request = taxed(request);
        }
        self.change(request, key).await
    }

    /// Opens a page where a payment method is saved.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn setup_checkout(
        &self,
        checkout: &SetupCheckout<'_>,
        key: &OperationKey,
    ) -> Result<CheckoutSession, StripeError> {
        let mut setup = CreateCheckoutSessionSetupIntentData::new();
        setup.metadata = Some(checkout.pages.metadata());
        let request = checkout
            .pages
            .request(CheckoutSessionMode::Setup)
            .currency(currency(checkout.currency)?)
            .setup_intent_data(setup);
        self.change(request, key).await
    }

    /// A checkout as it stands now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn checkout(&self, id: &str) -> Result<CheckoutSession, StripeError> {
        self.get(RetrieveCheckoutSession::new(path_id("session", id)?)).await
    }

    /// Closes the page. Refused when the customer is through, or when it is closed.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn expire_checkout(&self, id: &str, key: &OperationKey) -> Result<CheckoutSession, StripeError> {
        self.change(ExpireCheckoutSession::new(path_id("session", id)?), key).await
    }
}

//! Customers: one for each organization, and how they pay.

use serde::Deserialize;
use stripe_core::{
    customer::{
        CreateCustomer, ListPaymentMethodsCustomer, RetrieveCustomer, SearchCustomer, UpdateCustomer,
        UpdateCustomerInvoiceSettings,
    },
    setup_intent::RetrieveSetupIntent,
};
use tenantry_domain::Millis;

use super::{
    METADATA_ORG, OperationKey, Stripe, StripeError,
    wire::{self, Listed, Metadata, path_id},
};

/// A customer (<https://docs.stripe.com/api/customers/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Customer {
    /// `cus_…`
    pub id: String,
    /// Where invoices go.
    #[serde(default)]
    pub email: Option<String>,
    /// On invoices.
    #[serde(default)]
    pub name: Option<String>,
    /// [`METADATA_ORG`] says whose customer it is.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
    /// What invoices are paid with.
    #[serde(default, rename = "invoice_settings", deserialize_with = "default_payment_method")]
    pub default_payment_method: Option<String>,
    /// The currency of its subscriptions, once there is one.
    #[serde(default)]
    pub currency: Option<String>,
    /// Deleted for good. Of such a customer only the id is known.
    #[serde(default)]
    pub deleted: bool,
    /// When it was made.
    #[serde(default, deserialize_with = "wire::opt_millis")]
    pub created: Option<Millis>,
}

fn default_payment_method<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(default, deserialize_with = "wire::opt_id")]
        default_payment_method: Option<String>,
    }
    Ok(Option::<Settings>::deserialize(deserializer)?.and_then(|settings| settings.default_payment_method))
}

/// A saved way to pay (<https://docs.stripe.com/api/payment_methods/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentMethod {
    /// `pm_…`
    pub id: String,
    /// `card`, `link`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a card.
    #[serde(default)]
    pub card: Option<Card>,
}

/// What may be shown of a card.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Card {
    /// `visa`
    pub brand: String,
    /// The last four digits.
    #[serde(default)]
    pub last4: Option<String>,
    /// 1 to 12.
    pub exp_month: i64,
    /// Four digits.
    pub exp_year: i64,
}

/// A payment method on its way to be saved (<https://docs.stripe.com/api/setup_intents/object>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SetupIntent {
    /// `seti_…`
    pub id: String,
    /// `succeeded` when the payment method can be used.
    pub status: String,
    /// Whose it is.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub customer: Option<String>,
    /// What was saved.
    #[serde(default, deserialize_with = "wire::opt_id")]
    pub payment_method: Option<String>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
}

impl Stripe {
    /// The customer of organization `org`, made when there is none.
    ///
    /// A crash between Stripe's making it and our remembering it makes no second one: within a day the same `key` gets
    /// the same answer, and from a minute on Stripe's search finds it. Hence nothing that may change (name, address) is
    /// sent here: the key would be refused with it. [`Stripe::update_customer`] does that next. When there are several
    /// all the same, the oldest is the customer.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn find_or_create_customer(&self, org: &str, key: &OperationKey) -> Result<Customer, StripeError> {
        let org = path_id(METADATA_ORG, org)?;
        let query = format!("metadata[\"{METADATA_ORG}\"]:\"{org}\"");
        let found: Listed<Customer> = self.get(SearchCustomer::new(query).limit(100)).await?;
        let ours =
            |customer: &Customer| !customer.deleted && customer.metadata.get(METADATA_ORG).is_some_and(|o| o == org);
        let oldest = found.data.into_iter().filter(ours).min_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        match oldest {
            Some(customer) => Ok(customer),
            None => self.change(CreateCustomer::new().metadata([owner(org)]), key).await,
        }
    }

    /// A customer by its id; a deleted one too.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn customer(&self, id: &str) -> Result<Customer, StripeError> {
        self.get(RetrieveCustomer::new(path_id("customer", id)?)).await
    }

    /// Sets where invoices go and whose name stands on them.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn update_customer(
        &self,
        id: &str,
        email: &str,
        name: &str,
        key: &OperationKey,
    ) -> Result<Customer, StripeError> {
        self.change(UpdateCustomer::new(path_id("customer", id)?).email(email).name(name), key).await
    }

    /// Sets what invoices are paid with.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn set_default_payment_method(
        &self,
        id: &str,
        payment_method: &str,
        key: &OperationKey,
    ) -> Result<Customer, StripeError> {
        let mut settings = UpdateCustomerInvoiceSettings::new();
        settings.default_payment_method = Some(payment_method.to_owned());
        self.change(UpdateCustomer::new(path_id("customer", id)?).invoice_settings(settings), key).await
    }

    /// The saved ways to pay, at most a hundred.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn payment_methods(&self, customer: &str) -> Result<Vec<PaymentMethod>, StripeError> {
        let request = ListPaymentMethodsCustomer::new(path_id("customer", customer)?).limit(100);
        Ok(self.get::<Listed<PaymentMethod>>(request).await?.data)
    }

    /// What a checkout that saves a payment method came to.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn setup_intent(&self, id: &str) -> Result<SetupIntent, StripeError> {
        self.get(RetrieveSetupIntent::new(path_id("setup_intent", id)?)).await
    }
}

/// The pair that says whose an object is.
pub(super) fn owner(org: &str) -> (String, String) {
    (METADATA_ORG.to_owned(), org.to_owned())
}

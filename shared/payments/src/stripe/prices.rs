//! Products and prices, and how the plans get theirs (<https://docs.stripe.com/api/prices>).

use serde::Deserialize;
use stripe_product::{
    price::{CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, ListPrice},
    product::{CreateProduct, RetrieveProduct, UpdateProduct},
};
use stripe_types::Currency;

use super::{
    OperationKey, Stripe, StripeError,
    error::Refusal,
    wire::{self, Listed, Metadata, path_id, words},
};

/// Lookup keys that one request may ask for.
const MAX_LOOKUP_KEYS: usize = 10;

words! {
    /// What a price is repeated by.
    Interval {
        /// Day by day.
        Day = "day",
        /// Week by week.
        Week = "week",
        /// Month by month.
        Month = "month",
        /// Year by year.
        Year = "year",
    }
}

/// A price. Once made, its amount never changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Price {
    /// `price_…`
    pub id: String,
    /// What it is for.
    #[serde(deserialize_with = "wire::id")]
    pub product: String,
    /// Whether something new can be bought for it.
    pub active: bool,
    /// `usd`
    pub currency: String,
    /// Minor units; none for prices by tiers.
    #[serde(default)]
    pub unit_amount: Option<i64>,
    /// How it is repeated; none when it is paid once.
    #[serde(default)]
    pub recurring: Option<Recurring>,
    /// Our word for it; at any time one price has it.
    #[serde(default)]
    pub lookup_key: Option<String>,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
}

/// How a price is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recurring {
    /// By what.
    pub interval: Interval,
    /// Every how many of them.
    pub interval_count: u64,
}

/// Something that is sold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Product {
    /// Ours are of our choosing, `tenantry_pro`.
    pub id: String,
    /// What stands on pages and invoices.
    pub name: String,
    /// Whether it is sold.
    pub active: bool,
    /// Our words.
    #[serde(default, deserialize_with = "wire::or_default")]
    pub metadata: Metadata,
}

/// A price as it shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceSpec<'a> {
    /// Our word for it, `pro_usd_month`.
    pub lookup_key: &'a str,
    /// What it is for.
    pub product: &'a str,
    /// `usd`
    pub currency: &'a str,
    /// Minor units.
    pub unit_amount: i64,
    /// Month by month or year by year; none when it is paid once.
    pub interval: Option<BillingInterval>,
}

/// How our plans are paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BillingInterval {
    /// Every month.
    Month,
    /// Every year.
    Year,
}

impl BillingInterval {
    const fn word(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

impl PriceSpec<'_> {
    /// Whether that is the price: whoever buys for it pays this amount, this often, for this product.
    #[must_use]
    pub fn is(&self, price: &Price) -> bool {
        let recurring = price.recurring.as_ref().map(|every| (every.interval.as_str(), every.interval_count));
        price.active
            && price.product == self.product
            && price.currency == self.currency
            && price.unit_amount == Some(self.unit_amount)
            && recurring == self.interval.map(|interval| (interval.word(), 1))
    }
}

impl Stripe {
    /// The prices that can be bought, by our words for them. Words without a price are passed over.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn prices(&self, lookup_keys: &[&str]) -> Result<Vec<Price>, StripeError> {
        let mut prices = Vec::new();
        for keys in lookup_keys.chunks(MAX_LOOKUP_KEYS) {
            let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
            let request = ListPrice::new().lookup_keys(keys).active(true).limit(100);
            prices.extend(self.get::<Listed<Price>>(request).await?.data);
        }
        Ok(prices)
    }

    /// The product called `id`, made or renamed when it is not there or called otherwise. May be repeated.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn ensure_product(&self, id: &str, name: &str) -> Result<Product, StripeError> {
        let id = path_id("product", id)?;
        match self.get::<Product>(RetrieveProduct::new(id)).await {
            Ok(product) if product.name == name && product.active => Ok(product),
            // To set the same again is harmless, and a replayed answer would hide a change in between.
            Ok(_) => self.change(UpdateProduct::new(id).name(name).active(true), &OperationKey::fresh()?).await,
            Err(error) if error.is_missing() => {
                // Two at once cannot make it twice: the id is taken.
                self.change(CreateProduct::new(name).id(id), &OperationKey::new("product", &[id, name])).await
            }
            Err(error) => Err(error),
        }
    }

    /// The price that `spec` describes. When another has its lookup key, a new one is made and takes the key over;
    /// subscriptions keep the price that they were bought for. May be repeated.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn ensure_price(&self, spec: &PriceSpec<'_>) -> Result<Price, StripeError> {
        let holder = self.prices(&[spec.lookup_key]).await?.into_iter().next();
        let before = match holder {
            Some(price) if spec.is(&price) => return Ok(price),
            Some(price) => price.id,
            None => "none".to_owned(),
        };
        // With the holder in the key, an amount that is set, changed and set again is made again.
        let (amount, interval) = (spec.unit_amount.to_string(), spec.interval.map_or("once", BillingInterval::word));
        let parts = [spec.lookup_key, spec.product, spec.currency, &amount, interval, &before];
        let mut request = CreatePrice::new(currency(spec.currency)?)
            .product(spec.product)
            .unit_amount(spec.unit_amount)
            .lookup_key(spec.lookup_key)
            .transfer_lookup_key(true);
        if let Some(interval) = spec.interval {
            request = request.recurring(CreatePriceRecurring::new(match interval {
                BillingInterval::Month => CreatePriceRecurringInterval::Month,
                BillingInterval::Year => CreatePriceRecurringInterval::Year,
            }));
        }
        self.change(request, &OperationKey::new("price", &parts)).await
    }
}

/// Stripe's name of a currency: three letters, lower case.
pub(super) fn currency(word: &str) -> Result<Currency, StripeError> {
    let unknown = || {
        let param = Some("currency".to_owned());
        StripeError::Refused(Box::new(Refusal { status: 400, param, ..Refusal::default() }))
    };
    if word.len() != 3 || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(unknown());
    }
    word.parse().map_err(|_| unknown())
}

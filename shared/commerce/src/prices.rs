//! What plans cost at Stripe: which price is for which plan, and how the prices get there.

use tenantry_domain::plans::{Interval, Plan, plan_price_key, plan_product_id};
use tenantry_payments::stripe::{BillingInterval, Price, PriceSpec};

use crate::{Commerce, CommerceError};

/// A plan that can be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The plan.
    pub plan: Plan,
    /// How often it is paid.
    pub interval: Interval,
    /// At Stripe.
    pub price: Price,
}

impl Commerce {
    /// The plans that can be subscribed to now. One whose price is not at Stripe yet, or is for something else there, is
    /// left out.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn offers(&self) -> Result<Vec<Offer>, CommerceError> {
        let wanted = self.wanted_prices();
        let keys: Vec<&str> = wanted.iter().map(|(key, ..)| key.as_str()).collect();
        let prices = self.stripe()?.prices(&keys).await?;
        let offers = wanted.iter().filter_map(|(key, plan, interval, _)| {
            let product = plan_product_id(&plan.id);
            let price =
                prices.iter().find(|price| price.lookup_key.as_ref() == Some(key) && price.product == product)?;
            Some(Offer { plan: (*plan).clone(), interval: *interval, price: price.clone() })
        });
        Ok(offers.collect())
    }

    /// The one with this price.
    ///
    /// # Errors
    /// [`CommerceError::Unknown`] when there is none.
    pub async fn offer(&self, price: &str) -> Result<Offer, CommerceError> {
        let offer = self.offers().await?.into_iter().find(|offer| offer.price.id == price);
        offer.ok_or(CommerceError::Unknown("there is no such price"))
    }

    /// Makes the products and prices of the catalogue at Stripe, or what of them is not there as it should be. May be
    /// repeated; subscriptions keep the price that they were bought for.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn put_up_for_sale(&self) -> Result<Vec<Offer>, CommerceError> {
        let stripe = self.stripe()?;
        let mut offers = vec![];
        for (lookup_key, plan, interval, amount) in self.wanted_prices() {
            let product = stripe.ensure_product(&plan_product_id(&plan.id), &plan.name).await?;
            let spec = PriceSpec {
                lookup_key: &lookup_key,
                product: &product.id,
                currency: "usd",
                unit_amount: i64::try_from(amount).unwrap_or(i64::MAX),
                interval: Some(match interval {
                    Interval::Month => BillingInterval::Month,
                    Interval::Year => BillingInterval::Year,
                }),
            };
            let price = stripe.ensure_price(&spec).await?;
            offers.push(Offer { plan: plan.clone(), interval, price });
        }
        Ok(offers)
    }

    fn wanted_prices(&self) -> Vec<(String, &Plan, Interval, u64)> {
        let plans = self.store.plans().all().iter();
        let each = plans.flat_map(|plan| Interval::ALL.map(|interval| (plan, interval)));
        each.filter_map(|(plan, interval)| {
            Some((plan_price_key(&plan.id, interval), plan, interval, plan.price.usd(interval)?))
        })
        .collect()
    }
}

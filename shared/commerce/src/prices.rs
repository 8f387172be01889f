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

/// A price that the catalogue wants.
struct Wanted<'a> {
    lookup_key: String,
    product: String,
    plan: &'a Plan,
    interval: Interval,
    amount: u64,
}

impl Wanted<'_> {
    fn spec(&self) -> PriceSpec<'_> {
        PriceSpec {
            lookup_key: &self.lookup_key,
            product: &self.product,
            currency: "usd",
            unit_amount: i64::try_from(self.amount).unwrap_or(i64::MAX),
            interval: Some(match self.interval {
                Interval::Month => BillingInterval::Month,
                Interval::Year => BillingInterval::Year,
            }),
        }
    }

    fn offer(&self, price: Price) -> Offer {
        Offer { plan: self.plan.clone(), interval: self.interval, price }
    }
}

impl Commerce {
    /// The plans that can be subscribed to now. One whose price is not at Stripe yet, or is for something else or of another
    /// amount there, is left out: nobody pays another price than the catalogue's, which is shown.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn offers(&self) -> Result<Vec<Offer>, CommerceError> {
        let wanted = self.wanted_prices();
        let keys: Vec<&str> = wanted.iter().map(|wanted| wanted.lookup_key.as_str()).collect();
        let prices = self.stripe()?.prices(&keys).await?;
        let offers = wanted.iter().filter_map(|wanted| {
            let has_key = |price: &&Price| price.lookup_key.as_ref() == Some(&wanted.lookup_key);
            let price = prices.iter().filter(has_key).find(|price| wanted.spec().is(price))?;
            Some(wanted.offer(price.clone()))
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
        for wanted in self.wanted_prices() {
            stripe.ensure_product(&wanted.product, &wanted.plan.name).await?;
            let price = stripe.ensure_price(&wanted.spec()).await?;
            offers.push(wanted.offer(price));
        }
        Ok(offers)
    }

    fn wanted_prices(&self) -> Vec<Wanted<'_>> {
        let plans = self.store.plans().all().iter();
        let each = plans.flat_map(|plan| Interval::ALL.map(|interval| (plan, interval)));
        let wanted = each.filter_map(|(plan, interval)| {
            let amount = plan.price.usd(interval)?;
            let (lookup_key, product) = (plan_price_key(&plan.id, interval), plan_product_id(&plan.id));
            Some(Wanted { lookup_key, product, plan, interval, amount })
        });
        wanted.collect()
    }
}

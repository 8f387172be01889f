//! What a deployer does once at Stripe, and again after the plans' prices have changed.

use std::sync::Arc;

use tenantry_commerce::Commerce;
use tenantry_domain::{SystemClock, plans::Plans};
use tenantry_store::Store;
use tenantry_web::config::Env;

use crate::{HostError, TABLE, dynamodb::Embedded};

pub use tenantry_commerce::Offer;

/// Makes the products and prices of `plans` at Stripe, with the key in `STRIPE_SECRET_KEY`, or what of them is not there as
/// it should be. Nothing else is touched: no data of any platform is opened.
///
/// # Errors
/// [`HostError::Config`] without a key, and [`HostError::Sale`] when Stripe refuses.
pub async fn put_up_for_sale(plans: Plans, env: &Env) -> Result<Vec<Offer>, HostError> {
    env.required("STRIPE_SECRET_KEY")?;
    // The plans are the store's; its table is not asked.
    let engine = Embedded::in_memory().map_err(|error| HostError::Database(error.to_string()))?;
    let store = Store::new(engine.client(), TABLE, plans, Arc::new(SystemClock));
    let offers = Commerce::from_env(env, store)?.put_up_for_sale().await;
    offers.map_err(|error| HostError::Sale(error.to_string()))
}

//! What a deployer does at Stripe before anybody can subscribe: `cargo run -- --put-up-for-sale`.

use tenantry_domain::plans::{DEFAULT_PLANS, Plans};
use tenantry_host::{
    HostError,
    sale::{Offer, put_up_for_sale},
};
use tenantry_sandbox::{
    AheadClock,
    stripe::{Sandbox, Settings, StripeSandbox},
};
use tenantry_web::config::Env;

async fn stripe() -> Sandbox {
    StripeSandbox::start(AheadClock::default().into(), Settings::default()).await.unwrap()
}

async fn sell(stripe: &Sandbox, key: &str, plans: &str) -> Result<Vec<Offer>, HostError> {
    let variables = [("STRIPE_SECRET_KEY", key), ("STRIPE_BASE_URL", &stripe.base_url)];
    let env: Env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    put_up_for_sale(Plans::parse(plans).unwrap(), &env).await
}

#[tokio::test]
async fn plans_are_put_up_for_sale_once_however_often() {
    let stripe = stripe().await;
    let first = sell(&stripe, &stripe.secret_key, DEFAULT_PLANS).await.unwrap();
    let keys: Vec<_> = first.iter().map(|offer| offer.price.lookup_key.as_deref().unwrap()).collect();
    let prices = |offers: &[Offer]| offers.iter().map(|offer| offer.price.clone()).collect::<Vec<_>>();
    assert_eq!(keys, ["pro_usd_month", "pro_usd_year", "team_usd_month"]);
    assert_eq!(sell(&stripe, &stripe.secret_key, DEFAULT_PLANS).await.unwrap(), first);

    // Another amount is another price, and the others stay.
    let dearer = DEFAULT_PLANS.replacen("usd_month = 1_900", "usd_month = 2_100", 1);
    let second = sell(&stripe, &stripe.secret_key, &dearer).await.unwrap();
    assert_ne!(second[0].price.id, first[0].price.id);
    assert_eq!((second[0].price.unit_amount, second[0].price.lookup_key.as_deref()), (Some(2_100), Some(keys[0])));
    assert_eq!(prices(&second[1..]), prices(&first[1..]));
}

#[tokio::test]
async fn without_a_key_of_stripes_nothing_is_put_up_for_sale() {
    let stripe = stripe().await;
    for (key, said) in [("", "STRIPE_SECRET_KEY"), ("sk_test_another", "401")] {
        let error = sell(&stripe, key, DEFAULT_PLANS).await.unwrap_err().to_string();
        assert!(error.contains(said), "{key}: {error}");
    }
}

//! The page where people pay, or do not.

use tenantry_domain::SubscriptionStatus;
use tenantry_payments::stripe::{
    CheckoutStatus, Goods, InvoiceStatus, PaymentCheckout, PaymentIntentStatus, PaymentStatus, SetupCheckout,
};
use tenantry_sandbox::stripe::{Card, Payer};

use crate::stage::{DAY, NOON, ORG, Stage, key, pages};

#[tokio::test]
async fn a_customer_is_made_once_and_found_again() {
    let stage = Stage::new().await;
    let made = stage.customer().await;
    assert_eq!(stage.stripe.find_or_create_customer(ORG, &key("later")).await.unwrap().id, made.id);
    assert_ne!(stage.stripe.find_or_create_customer("org_2", &key("other")).await.unwrap().id, made.id);
    let named = stage.stripe.update_customer(&made.id, "a@b.example", "Ada", &key("name")).await.unwrap();
    assert_eq!((named.email.as_deref(), named.name.as_deref()), (Some("a@b.example"), Some("Ada")));
    assert_eq!(named.metadata["org"], ORG);
}

#[tokio::test]
async fn a_price_that_changes_takes_the_lookup_key_along() {
    let stage = Stage::new().await;
    let first = stage.monthly("basic", 2000).await;
    assert_eq!(stage.monthly("basic", 2000).await, first);
    let second = stage.monthly("basic", 2500).await;
    assert_ne!(second, first);
    let found = stage.stripe.prices(&["basic"]).await.unwrap();
    assert_eq!(
        found.iter().map(|price| (price.id.as_str(), price.unit_amount)).collect::<Vec<_>>(),
        [(second.as_str(), Some(2500))]
    );
}

#[tokio::test]
async fn whoever_clicks_pay_is_subscribed_and_sent_back() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let price = stage.monthly("basic", 2000).await;
    let session = stage.checkout(&customer, &price, None).await;
    assert_eq!((session.status, session.payment_status), (Some(CheckoutStatus::Open), PaymentStatus::Unpaid));
    assert_eq!((session.amount_total, session.expires_at), (Some(2000), NOON + DAY));
    let url = session.url.unwrap();
    let page = stage.look(&url).await.html;
    assert!(page.contains("test double of Stripe") && page.contains("No payment here is one"), "{page}");
    assert!(page.contains("20.00 USD"), "{page}");
    stage.told();

    let sent = stage.click(&url, "action=pay").await;
    assert_eq!(sent.location, format!("https://app.example/done?session={}", session.id));
    let session = stage.stripe.checkout(&session.id).await.unwrap();
    assert_eq!((session.status, session.payment_status), (Some(CheckoutStatus::Complete), PaymentStatus::Paid));
    let subscription = stage.subscription(&session.subscription.unwrap()).await;
    assert_eq!(subscription.status, SubscriptionStatus::Active);
    assert_eq!((subscription.customer.as_str(), subscription.currency.as_str()), (customer.as_str(), "usd"));
    assert_eq!((subscription.metadata["org"].as_str(), subscription.metadata["plan"].as_str()), (ORG, "basic"));
    let item = &subscription.items[0];
    assert_eq!((item.price.id.as_str(), item.quantity), (price.as_str(), Some(1)));
    // From 20 November to 20 December.
    assert_eq!((item.period_start, item.period_end), (NOON, NOON + 30 * DAY));
    assert!(!subscription.livemode && subscription.default_payment_method.is_some());

    let invoice = stage.stripe.invoice(&session.invoice.unwrap()).await.unwrap();
    assert_eq!((invoice.status, invoice.amount_paid, invoice.total), (Some(InvoiceStatus::Paid), 2000, 2000));
    assert_eq!(invoice.subscription.as_deref(), Some(subscription.id.as_str()));
    assert_eq!(invoice.billing_reason.as_deref(), Some("subscription_create"));
    assert_eq!(invoice.subscription_metadata["org"], ORG);
    let paid = stage.stripe.payments_of_invoice(&invoice.id).await.unwrap();
    let intent = paid[0].payment_intent.clone().unwrap();
    assert_eq!(stage.stripe.invoice_paid_by(&intent).await.unwrap().unwrap().invoice, invoice.id);
    assert_eq!(stage.stripe.payment_intent(&intent).await.unwrap().status, PaymentIntentStatus::Succeeded);

    let kinds = stage.kinds();
    for kind in ["checkout.session.completed", "customer.subscription.created", "invoice.paid", "invoice_payment.paid"]
    {
        assert!(kinds.iter().any(|told| told == kind), "{kind}: {kinds:?}");
    }
    // Once paid, the page is no more.
    assert!(stage.look(&url).await.html.contains("This session is complete"));
    assert_eq!(stage.click(&url, "action=pay").await.status, 400);
}

#[tokio::test]
async fn a_card_that_declines_leaves_the_page_open_for_another() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let price = stage.monthly("basic", 2000).await;
    let session = stage.checkout(&customer, &price, None).await;
    let url = session.url.unwrap();
    stage.told();
    let page = stage.click(&url, "action=decline").await;
    assert!(page.html.contains("Your card was declined. You can try again."), "{}", page.html);
    let kinds = stage.kinds();
    assert!(kinds.contains(&"payment_intent.payment_failed".to_owned()), "{kinds:?}");
    assert!(!kinds.iter().any(|kind| kind.starts_with("checkout.") || kind.contains("subscription")), "{kinds:?}");
    assert_eq!(stage.stripe.checkout(&session.id).await.unwrap().status, Some(CheckoutStatus::Open));
    assert!(stage.stripe.subscriptions_of(&customer).await.unwrap().is_empty());

    assert_eq!(stage.click(&url, "action=pay").await.status, 303);
    assert_eq!(stage.stripe.subscriptions_of(&customer).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_page_that_is_left_expires_by_itself_or_by_call() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let (first, second) = (stage.monthly("basic", 2000).await, stage.monthly("pro", 5000).await);
    let (left, closed) =
        (stage.checkout(&customer, &first, None).await, stage.checkout(&customer, &second, None).await);
    let sent = stage.click(left.url.as_ref().unwrap(), "action=abandon").await;
    assert_eq!(sent.location, "https://app.example/back");
    assert_eq!(stage.stripe.checkout(&left.id).await.unwrap().status, Some(CheckoutStatus::Open));

    let expired = stage.stripe.expire_checkout(&closed.id, &key("expire")).await.unwrap();
    assert_eq!((expired.status, expired.url), (Some(CheckoutStatus::Expired), None));
    stage.told();
    stage.sandbox.advance(DAY);
    assert_eq!(stage.kinds(), ["checkout.session.expired"]);
    assert_eq!(stage.stripe.checkout(&left.id).await.unwrap().status, Some(CheckoutStatus::Expired));
    assert!(stage.sandbox.pay(&left.id).is_err());
    assert!(stage.stripe.subscriptions_of(&customer).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_purchase_is_paid_once_and_has_an_invoice() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let goods = Goods::Amount { name: "100 credits", currency: "usd", amount: 1250 };
    let checkout = purchase(&customer, goods);
    let session = stage.stripe.payment_checkout(&checkout, &key("buy")).await.unwrap();
    stage.sandbox.pay(&session.id).unwrap();
    let session = stage.stripe.checkout(&session.id).await.unwrap();
    assert_eq!((session.payment_status, session.amount_total), (PaymentStatus::Paid, Some(1250)));
    let intent = stage.stripe.payment_intent(&session.payment_intent.unwrap()).await.unwrap();
    assert_eq!((intent.status, intent.amount_received), (PaymentIntentStatus::Succeeded, 1250));
    assert_eq!(intent.metadata["org"], ORG);
    let invoice = stage.stripe.invoice(&session.invoice.unwrap()).await.unwrap();
    assert_eq!((invoice.status, invoice.amount_paid), (Some(InvoiceStatus::Paid), 1250));
    assert_eq!((invoice.subscription, invoice.metadata["org"].as_str()), (None, ORG));
    assert_eq!(invoice.lines[0].description.as_deref(), Some("100 credits"));
    assert_eq!(stage.stripe.invoice_paid_by(&intent.id).await.unwrap().unwrap().invoice, invoice.id);
    // The card was kept for later.
    assert_eq!(stage.stripe.payment_methods(&customer).await.unwrap().len(), 1);
    stage.told();
}

fn purchase<'a>(customer: &'a str, goods: Goods<'a>) -> PaymentCheckout<'a> {
    PaymentCheckout {
        pages: pages(customer),
        goods,
        save_payment_method: true,
        promotion_codes: true,
        automatic_tax: true,
        invoice: true,
    }
}

#[tokio::test]
async fn a_payment_that_settles_later_is_paid_when_it_does() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    for (word, paid, told) in [
        ("well", true, "checkout.session.async_payment_succeeded"),
        ("ill", false, "checkout.session.async_payment_failed"),
    ] {
        let goods = Goods::Amount { name: "100 credits", currency: "usd", amount: 1250 };
        let session = stage.stripe.payment_checkout(&purchase(&customer, goods), &key(word)).await.unwrap();
        stage.sandbox.pay_as(&session.id, &Payer { delayed: true, ..Payer::default() }).unwrap();
        let waiting = stage.stripe.checkout(&session.id).await.unwrap();
        let state = (waiting.status, waiting.payment_status, waiting.invoice);
        assert_eq!(state, (Some(CheckoutStatus::Complete), PaymentStatus::Unpaid, None));
        assert!(stage.kinds().contains(&"checkout.session.completed".to_owned()));
        stage.sandbox.settle(&session.id, paid).unwrap();
        let kinds = stage.kinds();
        assert!(kinds.contains(&told.to_owned()), "{kinds:?}");
        let ended = stage.stripe.checkout(&session.id).await.unwrap();
        assert_eq!((ended.payment_status == PaymentStatus::Paid, ended.invoice.is_some()), (paid, paid));
        assert!(stage.sandbox.settle(&session.id, true).is_err());
    }
}

#[tokio::test]
async fn a_payment_method_is_saved_without_a_payment() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let checkout = SetupCheckout { pages: pages(&customer), currency: "usd" };
    let session = stage.stripe.setup_checkout(&checkout, &key("setup")).await.unwrap();
    stage.sandbox.decline(&session.id).unwrap();
    assert!(stage.stripe.payment_methods(&customer).await.unwrap().is_empty());
    stage.sandbox.pay(&session.id).unwrap();
    let session = stage.stripe.checkout(&session.id).await.unwrap();
    assert_eq!(session.payment_status, PaymentStatus::NoPaymentRequired);
    let intent = stage.stripe.setup_intent(&session.setup_intent.unwrap()).await.unwrap();
    assert_eq!((intent.status.as_str(), intent.metadata["org"].as_str()), ("succeeded", ORG));
    let saved = stage.stripe.payment_methods(&customer).await.unwrap();
    assert_eq!(intent.payment_method.as_ref(), Some(&saved[0].id));
    let customer = stage.stripe.set_default_payment_method(&customer, &saved[0].id, &key("default")).await.unwrap();
    assert_eq!(customer.default_payment_method.as_ref(), Some(&saved[0].id));
    stage.told();
}

#[tokio::test]
async fn a_promotion_code_takes_off_what_its_coupon_says_once() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let price = stage.monthly("basic", 2000).await;
    let call = |path: &'static str, form: &'static str| stage.post(path, form);
    assert_eq!(call("/v1/coupons", "id=quarter&percent_off=25&duration=once").await.0, 200);
    let form = "promotion[type]=coupon&promotion[coupon]=quarter&code=WELCOME&max_redemptions=1";
    assert_eq!(call("/v1/promotion_codes", form).await.0, 200);

    let session = stage.checkout(&customer, &price, None).await;
    let wrong = stage.sandbox.pay_as(&session.id, &typed("NOBODY")).unwrap_err();
    assert_eq!(wrong.to_string(), "This code is invalid.");
    stage.sandbox.pay_as(&session.id, &typed("welcome")).unwrap();
    let session = stage.stripe.checkout(&session.id).await.unwrap();
    assert_eq!((session.amount_subtotal, session.amount_total), (Some(2000), Some(1500)));
    let invoice = stage.stripe.invoice(&session.invoice.unwrap()).await.unwrap();
    assert_eq!((invoice.subtotal, invoice.total, invoice.amount_paid), (2000, 1500, 1500));

    // Used up, and for one month only.
    let pro = stage.monthly("pro", 5000).await;
    let again = stage.checkout(&customer, &pro, None).await;
    assert!(stage.sandbox.pay_as(&again.id, &typed("WELCOME")).is_err());
    stage.sandbox.advance(31 * DAY);
    let renewed = stage.stripe.invoices_of(&customer, 1, None).await.unwrap().items.remove(0);
    assert_eq!((renewed.status, renewed.total), (Some(InvoiceStatus::Paid), 2000));
    stage.told();
}

fn typed(code: &str) -> Payer {
    Payer { promotion_code: Some(code.to_owned()), ..Payer::default() }
}

#[tokio::test]
async fn whoever_is_at_the_page_confirms_what_the_card_asks_for() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let price = stage.monthly("basic", 2000).await;
    let session = stage.checkout(&customer, &price, None).await;
    stage.sandbox.pay_as(&session.id, &Payer { card: Card::Authenticates, ..Payer::default() }).unwrap();
    let subscription = stage.stripe.subscriptions_of(&customer).await.unwrap().remove(0);
    assert_eq!(subscription.status, SubscriptionStatus::Active);
    // The renewal finds nobody.
    stage.told();
    stage.sandbox.advance(31 * DAY);
    assert_eq!(stage.subscription(&subscription.id).await.status, SubscriptionStatus::PastDue);
    assert!(stage.kinds().contains(&"invoice.payment_action_required".to_owned()));
}

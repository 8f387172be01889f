//! What becomes of a subscription that is not paid for.

use tenantry_domain::SubscriptionStatus;
use tenantry_payments::stripe::InvoiceStatus;
use tenantry_sandbox::stripe::{AfterRetries, Card, Settings};

use crate::stage::{DAY, NOON, Stage};

/// A subscription whose second month nobody pays for, a bit after it began.
async fn past_due(stage: &Stage) -> (String, String) {
    let subscription = stage.subscribed().await;
    stage.sandbox.set_cards(&subscription.customer, Card::Declines).unwrap();
    stage.told();
    stage.sandbox.advance(30 * DAY + 3_600_000);
    let late = stage.subscription(&subscription.id).await;
    assert_eq!(late.status, SubscriptionStatus::PastDue);
    let kinds = stage.kinds();
    assert!(kinds.contains(&"invoice.payment_failed".to_owned()), "{kinds:?}");
    (late.id, late.latest_invoice.unwrap())
}

#[tokio::test]
async fn a_card_that_pays_again_heals_it_at_the_next_attempt() {
    let stage = Stage::new().await;
    let (id, invoice) = past_due(&stage).await;
    let open = stage.stripe.invoice(&invoice).await.unwrap();
    assert_eq!((open.status, open.attempt_count), (Some(InvoiceStatus::Open), 1));
    assert_eq!(open.next_payment_attempt, Some(NOON + 33 * DAY + 3_600_000));
    let customer = stage.subscription(&id).await.customer;
    stage.sandbox.set_cards(&customer, Card::Pays).unwrap();
    stage.sandbox.advance(3 * DAY);
    let paid = stage.stripe.invoice(&invoice).await.unwrap();
    assert_eq!((paid.status, paid.attempt_count), (Some(InvoiceStatus::Paid), 2));
    assert_eq!(stage.subscription(&id).await.status, SubscriptionStatus::Active);
    assert_eq!(stage.kinds().iter().filter(|kind| *kind == "invoice.paid").count(), 1);
}

#[tokio::test]
async fn whoever_pays_the_invoice_by_hand_heals_it_at_once() {
    let stage = Stage::new().await;
    let (id, invoice) = past_due(&stage).await;
    let url = stage.stripe.invoice(&invoice).await.unwrap().hosted_invoice_url.unwrap();
    assert!(stage.click(&url, "action=pay").await.html.contains("Your card was declined."));
    assert_eq!(stage.subscription(&id).await.status, SubscriptionStatus::PastDue);
    let customer = stage.subscription(&id).await.customer;
    stage.sandbox.set_cards(&customer, Card::Pays).unwrap();
    stage.sandbox.pay_invoice(&invoice).unwrap();
    assert_eq!(stage.subscription(&id).await.status, SubscriptionStatus::Active);
    assert!(stage.sandbox.pay_invoice(&invoice).is_err(), "it is paid");
}

#[tokio::test]
async fn after_the_last_attempt_it_is_over() {
    let stage = Stage::new().await;
    let (id, invoice) = past_due(&stage).await;
    // Attempts after 3, 5 and 7 days.
    for (days, attempts, over) in [(3, 2, false), (5, 3, false), (7, 4, true)] {
        stage.sandbox.advance(days * DAY);
        let open = stage.stripe.invoice(&invoice).await.unwrap();
        assert_eq!((open.attempt_count, open.next_payment_attempt.is_none()), (attempts, over));
        let status = if over { SubscriptionStatus::Canceled } else { SubscriptionStatus::PastDue };
        assert_eq!(stage.subscription(&id).await.status, status);
    }
    let kinds = stage.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "invoice.payment_failed").count(), 3);
    assert_eq!(kinds.iter().filter(|kind| *kind == "customer.subscription.deleted").count(), 1);
    // It never comes back.
    let customer = stage.subscription(&id).await.customer;
    stage.sandbox.set_cards(&customer, Card::Pays).unwrap();
    stage.sandbox.advance_months(2);
    assert_eq!(stage.subscription(&id).await.status, SubscriptionStatus::Canceled);
}

#[tokio::test]
async fn an_account_can_leave_it_unpaid_and_draft_what_nobody_is_asked_for() {
    let stage = Stage::with(Settings { after_retries: AfterRetries::Unpaid, ..Settings::default() }).await;
    let (id, _) = past_due(&stage).await;
    stage.sandbox.advance(15 * DAY);
    assert_eq!(stage.subscription(&id).await.status, SubscriptionStatus::Unpaid);
    stage.sandbox.advance(31 * DAY);
    let subscription = stage.subscription(&id).await;
    assert_eq!(subscription.status, SubscriptionStatus::Unpaid);
    let draft = stage.stripe.invoice(subscription.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!((draft.status, draft.attempt_count), (Some(InvoiceStatus::Draft), 0));
}

#[tokio::test]
async fn a_first_payment_that_never_comes_is_waited_for_for_a_day() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let price = stage.monthly("basic", 2000).await;
    let (status, made) = stage.post("/v1/subscriptions", &format!("customer={customer}&items[0][price]={price}")).await;
    assert_eq!((status, made["status"].as_str()), (200, Some("incomplete")), "{made}");
    stage.told();
    stage.sandbox.advance(23 * 3_600_000);
    let subscription = stage.subscription(made["id"].as_str().unwrap()).await;
    assert_eq!(subscription.status, SubscriptionStatus::IncompleteExpired);
    let invoice = stage.stripe.invoice(subscription.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!(invoice.status, Some(InvoiceStatus::Void));
    let kinds = stage.kinds();
    assert!(kinds.contains(&"invoice.voided".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"customer.subscription.updated".to_owned()), "{kinds:?}");
}

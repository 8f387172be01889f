//! What becomes of a subscription that is paid for.

use tenantry_domain::SubscriptionStatus;
use tenantry_payments::stripe::{InvoiceStatus, PaymentBehavior, PriceChange, Proration};
use tenantry_sandbox::stripe::Card;

use crate::stage::{DAY, NOON, Stage, change, key, refusal};

#[tokio::test]
async fn every_month_is_paid_an_hour_after_it_began() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    stage.told();
    stage.sandbox.advance(30 * DAY);
    let renewed = stage.subscription(&subscription.id).await;
    assert_eq!(renewed.items[0].period_start, NOON + 30 * DAY);
    // From 20 December to 20 January.
    assert_eq!(renewed.items[0].period_end, NOON + 61 * DAY);
    let draft = stage.stripe.invoice(renewed.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!((draft.status, draft.number), (Some(InvoiceStatus::Draft), None));
    assert_eq!(stage.kinds(), ["customer.subscription.updated", "invoice.created"]);
    stage.sandbox.advance(3_600_000);
    let paid = stage.stripe.invoice(&draft.id).await.unwrap();
    assert_eq!((paid.status, paid.amount_paid), (Some(InvoiceStatus::Paid), 2000));
    assert_eq!(paid.billing_reason.as_deref(), Some("subscription_cycle"));
    assert!(stage.kinds().contains(&"invoice.paid".to_owned()));

    // However far the clock jumps, no month is left out.
    stage.sandbox.advance_months(12);
    let invoices = stage.stripe.invoices_of(&subscription.customer, 100, None).await.unwrap();
    assert_eq!(invoices.items.len(), 1 + 1 + 12);
    let paid = invoices.items.iter().filter(|invoice| invoice.status == Some(InvoiceStatus::Paid)).count();
    assert_eq!(paid, 14);
    stage.told();
}

#[tokio::test]
async fn an_upgrade_costs_what_its_preview_said() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let pro = stage.monthly("pro", 5000).await;
    stage.told();
    stage.sandbox.advance(15 * DAY);
    let mut upgrade = change(&subscription, &pro);
    upgrade.proration_date = Some(NOON + 15 * DAY);
    let preview = stage.stripe.preview_change(&upgrade).await.unwrap();
    // Half of 50 dollars, less half of 20.
    assert_eq!((preview.proration_total, preview.amount_due), (Some(1500), 1500));
    assert_eq!(stage.kinds(), [""; 0], "a preview changes nothing");
    assert_eq!(stage.subscription(&subscription.id).await.items[0].price.id, subscription.items[0].price.id);

    // Some minutes later, at the same price.
    stage.sandbox.advance(600_000);
    let changed = stage.stripe.change_price(&upgrade, PaymentBehavior::Pending, &key("up")).await.unwrap();
    assert_eq!((changed.items[0].price.id.as_str(), changed.status), (pro.as_str(), SubscriptionStatus::Active));
    assert_eq!(changed.items[0].id, subscription.items[0].id);
    assert_eq!((changed.items[0].period_end, changed.pending_update), (subscription.items[0].period_end, None));
    let invoice = stage.stripe.invoice(changed.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!((invoice.status, invoice.amount_paid), (Some(InvoiceStatus::Paid), preview.amount_due));
    let amounts: Vec<_> = invoice.lines.iter().map(|line| (line.amount, line.proration)).collect();
    assert_eq!(amounts, [(-1000, true), (2500, true)]);
    stage.told();
}

#[tokio::test]
async fn a_downgrade_for_the_next_invoice_leaves_a_credit_for_it() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let lite = stage.monthly("lite", 500).await;
    stage.sandbox.advance(15 * DAY);
    let mut downgrade = change(&subscription, &lite);
    downgrade.proration = Proration::NextInvoice;
    let preview = stage.stripe.preview_change(&downgrade).await.unwrap();
    assert_eq!((preview.proration_total, preview.total), (Some(-750), -750 + 500));
    let changed = stage.stripe.change_price(&downgrade, PaymentBehavior::Allow, &key("down")).await.unwrap();
    assert_eq!(changed.latest_invoice, subscription.latest_invoice);
    stage.sandbox.advance(16 * DAY);
    // The credit is larger than the month: the rest of it waits on the customer's balance for the month after.
    let page = stage.stripe.invoices_of(&subscription.customer, 1, None).await.unwrap();
    assert_eq!((page.items[0].total, page.items[0].amount_due), (-250, 0));
    stage.sandbox.advance(31 * DAY);
    let page = stage.stripe.invoices_of(&subscription.customer, 1, None).await.unwrap();
    assert_eq!((page.items[0].total, page.items[0].amount_due, page.items[0].amount_paid), (500, 250, 250));
    stage.told();
}

#[tokio::test]
async fn an_upgrade_that_is_not_paid_waits_and_is_forgotten() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let pro = stage.monthly("pro", 5000).await;
    stage.sandbox.set_cards(&subscription.customer, Card::NoFunds).unwrap();
    let upgrade = change(&subscription, &pro);
    let waits = stage.stripe.change_price(&upgrade, PaymentBehavior::Pending, &key("up")).await.unwrap();
    assert_eq!(
        (waits.items[0].price.id.as_str(), waits.status),
        (subscription.items[0].price.id.as_str(), SubscriptionStatus::Active)
    );
    assert_eq!(waits.pending_update.unwrap().expires_at, NOON + 23 * 3_600_000);
    let refused = refusal(stage.stripe.change_price(&upgrade, PaymentBehavior::Pending, &key("again")).await);
    assert_eq!(refused.status, 400);
    stage.told();
    stage.sandbox.advance(DAY);
    let kinds = stage.kinds();
    assert!(kinds.contains(&"customer.subscription.pending_update_expired".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"invoice.voided".to_owned()), "{kinds:?}");
    let after = stage.subscription(&subscription.id).await;
    assert_eq!((after.pending_update, after.status), (None, SubscriptionStatus::Active));

    // Paid in time, it is made.
    let waits = stage.stripe.change_price(&upgrade, PaymentBehavior::Pending, &key("third")).await.unwrap();
    stage.sandbox.set_cards(&subscription.customer, Card::Pays).unwrap();
    stage.told();
    let invoice = stage.stripe.invoice(waits.latest_invoice.as_ref().unwrap()).await.unwrap();
    let page = stage.click(invoice.hosted_invoice_url.as_ref().unwrap(), "action=pay").await;
    assert!(page.html.contains("is paid"), "{}", page.html);
    assert!(stage.kinds().contains(&"customer.subscription.pending_update_applied".to_owned()));
    assert_eq!(stage.subscription(&subscription.id).await.items[0].price.id, pro);
}

#[tokio::test]
async fn an_upgrade_is_refused_outright_when_that_was_asked_for() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let pro = stage.monthly("pro", 5000).await;
    stage.sandbox.set_cards(&subscription.customer, Card::Declines).unwrap();
    stage.told();
    let upgrade = change(&subscription, &pro);
    let refused = refusal(stage.stripe.change_price(&upgrade, PaymentBehavior::Refuse, &key("up")).await);
    assert_eq!((refused.status, refused.code.as_deref()), (402, Some("card_declined")));
    assert_eq!(stage.kinds(), [""; 0]);
    let after = stage.subscription(&subscription.id).await;
    assert_eq!((after.items, after.latest_invoice), (subscription.items, subscription.latest_invoice));
}

#[tokio::test]
async fn a_cancellation_waits_for_the_periods_end() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let ending = stage.stripe.cancel_at_period_end(&subscription.id, Some("too dear"), &key("end")).await.unwrap();
    let end = subscription.items[0].period_end;
    assert!(ending.cancel_at_period_end);
    assert_eq!((ending.cancel_at, ending.canceled_at, ending.ended_at), (Some(end), Some(NOON), None));
    assert_eq!(ending.status, SubscriptionStatus::Active);
    let resumed = stage.stripe.resume(&ending, &key("resume")).await.unwrap();
    assert_eq!((resumed.cancel_at_period_end, resumed.cancel_at), (false, None));
    stage.stripe.cancel_at_period_end(&subscription.id, None, &key("end-2")).await.unwrap();
    stage.told();
    stage.sandbox.advance(30 * DAY);
    assert_eq!(stage.kinds(), ["customer.subscription.deleted"]);
    let over = stage.subscription(&subscription.id).await;
    assert_eq!((over.status, over.ended_at), (SubscriptionStatus::Canceled, Some(end)));
    // And costs nothing any more.
    stage.sandbox.advance_months(3);
    assert_eq!(stage.stripe.invoices_of(&subscription.customer, 100, None).await.unwrap().items.len(), 1);
    assert_eq!(
        stage.stripe.cancel_now(&subscription.id, &key("now")).await.unwrap().status,
        SubscriptionStatus::Canceled
    );
}

#[tokio::test]
async fn a_cancellation_at_once_ends_it_at_once() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    stage.told();
    let over = stage.stripe.cancel_now(&subscription.id, &key("now")).await.unwrap();
    assert_eq!((over.status, over.ended_at), (SubscriptionStatus::Canceled, Some(NOON)));
    assert_eq!(stage.kinds(), ["customer.subscription.deleted"]);
}

#[tokio::test]
async fn a_trial_is_announced_before_it_is_paid_for() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed_after(Some(14)).await;
    let end = NOON + 14 * DAY;
    assert_eq!((subscription.status, subscription.trial_end), (SubscriptionStatus::Trialing, Some(end)));
    assert_eq!(subscription.items[0].period_end, end);
    let first = stage.stripe.invoice(subscription.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!((first.status, first.amount_due), (Some(InvoiceStatus::Paid), 0));
    stage.told();
    stage.sandbox.advance(11 * DAY);
    assert_eq!(stage.kinds(), ["customer.subscription.trial_will_end"]);
    stage.sandbox.advance(3 * DAY + 3_600_000);
    let kinds = stage.kinds();
    assert!(kinds.contains(&"invoice.paid".to_owned()), "{kinds:?}");
    let active = stage.subscription(&subscription.id).await;
    assert_eq!((active.status, active.items[0].period_start), (SubscriptionStatus::Active, end));
    let invoice = stage.stripe.invoice(active.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!((invoice.status, invoice.amount_paid), (Some(InvoiceStatus::Paid), 2000));
}

#[tokio::test]
async fn a_trial_that_a_change_ends_is_paid_for_at_once_or_goes_on() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed_after(Some(14)).await;
    let pro = stage.monthly("pro", 5000).await;
    stage.sandbox.advance(4 * DAY);
    let ends = PriceChange { ends_trial: true, ..change(&subscription, &pro) };
    let preview = stage.stripe.preview_change(&ends).await.unwrap();
    assert_eq!((preview.proration_total, preview.amount_due), (Some(0), 5000));
    stage.sandbox.set_cards(&subscription.customer, Card::NoFunds).unwrap();
    let waits = stage.stripe.change_price(&ends, PaymentBehavior::Pending, &key("one")).await.unwrap();
    assert_eq!((&waits.status, &waits.trial_end), (&SubscriptionStatus::Trialing, &subscription.trial_end));
    let shown = stage.sandbox.object(&subscription.id).unwrap()["pending_update"].clone();
    assert_eq!(shown["trial_end"].as_i64(), Some((NOON + 4 * DAY) / 1_000), "{shown}");
    stage.sandbox.advance(DAY);
    let waited = stage.subscription(&subscription.id).await;
    assert_eq!((waited.pending_update, waited.status), (None, SubscriptionStatus::Trialing));

    stage.sandbox.set_cards(&subscription.customer, Card::Pays).unwrap();
    stage.told();
    let changed = stage.stripe.change_price(&ends, PaymentBehavior::Pending, &key("two")).await.unwrap();
    assert_eq!((changed.status, changed.trial_end), (SubscriptionStatus::Active, Some(NOON + 5 * DAY)));
    assert_eq!((changed.items[0].price.id.as_str(), changed.items[0].period_start), (pro.as_str(), NOON + 5 * DAY));
    let invoice = stage.stripe.invoice(changed.latest_invoice.as_ref().unwrap()).await.unwrap();
    assert_eq!((invoice.status, invoice.amount_paid), (Some(InvoiceStatus::Paid), 5000));
    let lines: Vec<_> = invoice.lines.iter().map(|line| (line.amount, line.proration)).collect();
    assert_eq!(lines, [(5000, false)], "the trial was worth nothing");
    stage.told();
}

#[tokio::test]
async fn a_trial_without_a_card_pauses_and_goes_on_when_it_is_resumed() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let price = stage.monthly("basic", 2000).await;
    let form = format!(
        "customer={customer}&items[0][price]={price}&trial_period_days=7\
         &trial_settings[end_behavior][missing_payment_method]=pause"
    );
    let (status, made) = stage.post("/v1/subscriptions", &form).await;
    assert_eq!(status, 200, "{made}");
    let id = made["id"].as_str().unwrap();
    stage.told();
    stage.sandbox.advance(7 * DAY);
    assert_eq!(stage.kinds(), ["customer.subscription.trial_will_end", "customer.subscription.paused"]);
    assert_eq!(stage.subscription(id).await.status, SubscriptionStatus::Paused);

    let (status, method) = stage.post("/v1/payment_methods/pm_card_visa/attach", &format!("customer={customer}")).await;
    assert_eq!(status, 200, "{method}");
    let method = method["id"].as_str().unwrap();
    stage.stripe.set_default_payment_method(&customer, method, &key("default")).await.unwrap();
    let (status, resumed) = stage.post(&format!("/v1/subscriptions/{id}/resume"), "billing_cycle_anchor=now").await;
    assert_eq!((status, resumed["status"].as_str()), (200, Some("active")), "{resumed}");
    assert!(stage.kinds().contains(&"customer.subscription.resumed".to_owned()));
    assert_eq!(stage.subscription(id).await.items[0].period_start, NOON + 7 * DAY);
}

#[tokio::test]
async fn the_portal_cancels_and_resumes() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let portal = stage.stripe.portal(&subscription.customer, "https://app.example/back", &key("portal")).await.unwrap();
    let page = stage.look(&portal.url).await.html;
    assert!(page.contains(&subscription.id) && page.contains("https://app.example/back"), "{page}");
    assert_eq!(stage.click(&portal.url, &format!("action=cancel&subscription={}", subscription.id)).await.status, 303);
    assert!(stage.subscription(&subscription.id).await.cancel_at_period_end);
    assert_eq!(stage.click(&portal.url, &format!("action=resume&subscription={}", subscription.id)).await.status, 303);
    assert!(!stage.subscription(&subscription.id).await.cancel_at_period_end);
    // Nobody else's.
    let other = stage.stripe.find_or_create_customer("org_2", &key("other")).await.unwrap();
    let foreign = stage.stripe.portal(&other.id, "https://app.example/back", &key("foreign")).await.unwrap();
    assert_eq!(stage.click(&foreign.url, &format!("action=cancel&subscription={}", subscription.id)).await.status, 404);
    assert!(!stage.subscription(&subscription.id).await.cancel_at_period_end);
}

//! Who is told what came of an event: once, in their language, and only at an address that is theirs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::Method;
use serde_json::json;
use tenantry_commerce::CheckoutPages;
use tenantry_domain::time::rfc3339;
use tenantry_sandbox::stripe::Card;
use tenantry_tests::{
    http::text,
    platform::{NOON, Platform},
};
use tenantry_web::{
    mail::{Mail, MailQueue},
    queue::{BoxFuture, QueueError},
};
use tower::ServiceExt as _;

use super::{DAY, STRIPE, Stage, confirm_address};

impl Stage {
    /// The tenant subscribes to the plan `pro`; returns its customer.
    async fn subscribed(&self, trial_days: Option<u32>) -> String {
        let (commerce, scope) = (self.platform.host().commerce(), &self.tenant.scope);
        let customer = self.customer_of(&self.tenant).await;
        let offers = commerce.offers().await.unwrap();
        let price = &offers.iter().find(|offer| offer.plan.id == "pro").unwrap().price.id;
        let pages = CheckoutPages { success_url: "https://s.example", cancel_url: "https://c.example" };
        let session = commerce.subscribe(scope, &customer, price, trial_days, pages, "1").await.unwrap();
        self.stripe.pay(&session.id).unwrap();
        self.tell_all().await;
        assert_eq!(self.platform.meter(&self.tenant).await.plan, "pro");
        customer
    }

    /// Subjects of the letters to the owner.
    async fn subjects(&self) -> Vec<String> {
        let letters = self.platform.letters_to(&self.tenant.email).await;
        letters.into_iter().map(|letter| letter.subject).collect()
    }
}

async fn prefer(platform: &Platform, stage: &Stage, language: &str) {
    let tokens = platform.login(&stage.tenant).await;
    let body = json!({"preferred_language": language});
    platform.call(Method::PATCH, "/api/v1/auth/me", text(&tokens, "/access_token"), body).await.expect(200);
}

#[tokio::test]
async fn owners_are_told_that_a_payment_failed_and_that_the_plan_has_ended_once_each() {
    let stage = Stage::set().await;
    confirm_address(&stage.platform, &stage.tenant).await;
    let customer = stage.subscribed(None).await;
    stage.stripe.set_cards(&customer, Card::Declines).unwrap();
    stage.stripe.advance_months(1);
    stage.stripe.advance(2 * 3_600_000);
    let told = stage.tell_all().await;
    assert!(told.iter().any(|delivery| delivery.kind == "invoice.payment_failed"));
    for delivery in &told {
        stage.tell(&stage.stripe.signed_again(delivery)).await.expect(204);
    }
    let letters = stage.platform.letters_to(&stage.tenant.email).await;
    let failed: Vec<_> = letters.iter().filter(|letter| letter.subject.contains("failed")).collect();
    assert_eq!(failed.len(), 1, "{letters:?}");
    // The invoice was made with the new month; the plan outlives it by a week.
    let invoiced = tenantry_domain::time::months_later(NOON, 1);
    let until = rfc3339(invoiced + 7 * DAY);
    assert!(failed[0].text.contains(&until[..13].replace('T', " ")), "{until}: {}", failed[0].text);
    assert!(failed[0].text.contains("/billing\n"), "{}", failed[0].text);
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "pro", "for the week of grace");

    prefer(&stage.platform, &stage, "zh").await;
    stage.stripe.advance(3 * DAY);
    stage.tell_all().await;
    let subjects = stage.subjects().await;
    assert_eq!(subjects.iter().filter(|subject| subject.contains("付款失败")).count(), 1, "{subjects:?}");
    // The next tries come after the grace, when there is nothing left to save.
    for _ in 0..4 {
        stage.stripe.advance(7 * DAY);
        stage.tell_all().await;
    }
    assert_eq!(stage.platform.meter(&stage.tenant).await.plan, "free");
    let subjects = stage.subjects().await;
    assert_eq!(subjects.iter().filter(|subject| subject.contains("套餐已终止")).count(), 1, "{subjects:?}");
    assert_eq!(subjects.len(), 3, "{subjects:?}");
}

#[tokio::test]
async fn owners_are_told_that_a_trial_ends_and_strangers_are_not() {
    let stage = Stage::set().await;
    stage.subscribed(Some(14)).await;
    stage.stripe.advance(11 * DAY + 3_600_000);
    // Nobody has said yet that the address is theirs.
    let told = stage.stripe.take_events();
    let ending = told.iter().find(|delivery| delivery.kind == "customer.subscription.trial_will_end").unwrap();
    stage.tell(ending).await.expect(204);
    assert_eq!(stage.subjects().await, Vec::<String>::new());

    // Who has canceled meanwhile need not be told.
    let stage = Stage::set().await;
    confirm_address(&stage.platform, &stage.tenant).await;
    stage.subscribed(Some(14)).await;
    stage.platform.host().commerce().cancel(&stage.tenant.scope, false, None, "1").await.unwrap();
    stage.stripe.advance(11 * DAY + 3_600_000);
    stage.tell_all().await;
    assert_eq!(stage.subjects().await, Vec::<String>::new());

    let stage = Stage::set().await;
    confirm_address(&stage.platform, &stage.tenant).await;
    stage.subscribed(Some(14)).await;
    stage.stripe.advance(11 * DAY + 3_600_000);
    stage.tell_all().await;
    let letters = stage.platform.letters_to(&stage.tenant.email).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].subject.contains("trial ends soon"), "{letters:?}");
    let ends = rfc3339(NOON + 14 * DAY);
    assert!(letters[0].text.contains(&ends[..16].replace('T', " ")), "{}", letters[0].text);
}

/// Refuses mails until it is told not to, and passes them on.
struct Broken(AtomicBool, tenantry_host::queue::LocalQueue);

impl MailQueue for Broken {
    fn send<'a>(&'a self, mail: &'a Mail) -> BoxFuture<'a, Result<(), QueueError>> {
        if self.0.load(Ordering::SeqCst) {
            return Box::pin(async { Err(QueueError("the queue is down".to_owned())) });
        }
        MailQueue::send(&self.1, mail)
    }
}

#[tokio::test]
async fn a_mail_that_could_not_be_ordered_is_ordered_when_the_event_comes_again() {
    let stage = Stage::set().await;
    confirm_address(&stage.platform, &stage.tenant).await;
    stage.subscribed(Some(14)).await;
    stage.stripe.advance(11 * DAY + 3_600_000);
    let ending = stage.only("customer.subscription.trial_will_end");
    let host = stage.platform.host();
    let queue = Arc::new(Broken(AtomicBool::new(true), host.mail_queue().clone()));
    let router = tenantry_webhooks::router(tenantry_webhooks::State::new(host.commerce().clone(), queue.clone()));
    let tell = async || {
        let mut request = http::Request::post(STRIPE).body(axum::body::Body::from(ending.body.clone())).unwrap();
        *request.headers_mut() = ending.headers.clone();
        router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(tell().await, 503);
    assert_eq!(stage.subjects().await, Vec::<String>::new());
    queue.0.store(false, Ordering::SeqCst);
    assert_eq!((tell().await, tell().await), (204, 204));
    assert_eq!(stage.subjects().await.len(), 1);
}

//! Stripe's events.

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, header};
use tenantry_commerce::{Buyer, CheckoutPages, Commerce};
use tenantry_payments::stripe::{METADATA_ORG, OperationKey, sign};
use tenantry_sandbox::stripe::{Fault, SignedDelivery};
use tenantry_store::{EventClaim, Origin};
use tenantry_tests::{
    http::{problem, text},
    log::Log,
    platform::{NOON, Tenant},
};

use super::{CREDITS, DAY, MINUTE, STRIPE, Stage, kept, post, rows, tenants_rows, without_a_trace};

/// Stripe's signature of `body`.
fn signed(body: &str, secret: &str, at: i64) -> HeaderMap {
    HeaderMap::from_iter([(
        "stripe-signature".parse().unwrap(),
        HeaderValue::from_str(&sign(body.as_bytes(), secret, at)).unwrap(),
    )])
}

impl Stage {
    /// An order of a package of credits, paid; what Stripe tells of it.
    async fn package_paid(&self, tenant: &Tenant) -> SignedDelivery {
        let customer = self.customer_of(tenant).await;
        let origin = Origin::default();
        let buyer = Buyer { user: &tenant.user, origin: &origin };
        let pages = CheckoutPages { success_url: "https://s.example", cancel_url: "https://c.example" };
        let commerce = self.platform.host().commerce();
        let ordered = commerce.order_package(&tenant.scope, &customer, "small", &buyer, pages).await.unwrap();
        self.stripe().pay(&ordered.1.id).unwrap();
        self.only("checkout.session.completed")
    }

    async fn credits(&self, tenant: &Tenant) -> (u64, usize) {
        self.platform.books(tenant).await;
        (self.platform.meter(tenant).await.credits, self.platform.ledger(tenant).await.len())
    }
}

#[tokio::test]
async fn what_stripe_did_not_sign_reads_and_writes_nothing() {
    let stage = Stage::set().await;
    let paid = stage.package_paid(&stage.tenant).await;
    let (body, genuine) = (paid.body.clone(), paid.headers.clone());
    let header = |value: &str| HeaderMap::from_iter([("stripe-signature".parse().unwrap(), value.parse().unwrap())]);
    let mut twice = genuine.clone();
    twice.append("stripe-signature", genuine["stripe-signature"].clone());
    let altered = body.replacen("\"livemode\": false", "\"livemode\": true", 1);
    assert_ne!(altered, body);
    let mut refused = vec![
        ("no signature", HeaderMap::new(), body.clone()),
        ("an empty one", header(""), body.clone()),
        ("a time without signature", header(&format!("t={}", NOON / 1000)), body.clone()),
        ("another's", signed(&body, "whsec_other", NOON), body.clone()),
        ("the empty secret's", signed(&body, "", NOON), body.clone()),
        ("two headers", twice, body.clone()),
        ("altered", genuine.clone(), altered),
        ("shortened", genuine.clone(), body[..body.len() - 1].to_owned()),
        ("lengthened", genuine.clone(), format!("{body} ")),
        ("nothing at all", HeaderMap::new(), String::new()),
        (
            "five minutes and a second old",
            signed(&body, &stage.stripe().webhook_secret, NOON - 5 * MINUTE - 1000),
            body.clone(),
        ),
        (
            "five minutes and a second ahead",
            signed(&body, &stage.stripe().webhook_secret, NOON + 5 * MINUTE + 1000),
            body.clone(),
        ),
    ];
    // JSON or not, signed or not, an empty body is an empty body.
    refused.push(("a signature of something else", signed("{}", &stage.stripe().webhook_secret, NOON), String::new()));
    without_a_trace(&stage.platform, &stage.capacity, async {
        for (what, headers, body) in refused {
            let reply = post(stage.platform.router(), STRIPE, &headers, body).await;
            assert_eq!(reply.status, 400, "{what}: {}", reply.text());
            problem(&reply, 400, "invalid_parameter");
        }
        let large = post(stage.platform.router(), STRIPE, &genuine, vec![b' '; 1024 * 1024 + 1]).await;
        problem(&large, 413, "body_too_large");
        // Recorded, and sent again when nobody remembers.
        stage.platform.clock().advance(5 * MINUTE + 1000);
        problem(&stage.tell(&paid).await, 400, "invalid_parameter");
    })
    .await;
    stage.tell(&stage.stripe().signed_again(&paid)).await.expect(204);
    assert_eq!(stage.credits(&stage.tenant).await, (CREDITS, 1));
}

#[tokio::test]
async fn without_a_secret_nobody_is_believed_and_without_a_vendor_nobody_is_there() {
    let stage = Stage::set().await;
    let paid = stage.package_paid(&stage.tenant).await;
    let nowhere = stage.hearing(Commerce::new(stage.platform.store().clone()));
    without_a_trace(&stage.platform, &stage.capacity, async {
        for none in ["", " ", " , "] {
            let router = stage.with_secrets(none);
            for headers in
                ["", " ", ",", " , ", &stage.stripe().webhook_secret].map(|secret| signed(&paid.body, secret, NOON))
            {
                let reply = post(router.clone(), STRIPE, &headers, paid.body.clone()).await;
                problem(&reply, 400, "invalid_parameter");
            }
        }
        for path in [STRIPE, "/webhooks/wechat", "/webhooks/alipay"] {
            problem(&post(nowhere.clone(), path, &paid.headers, paid.body.clone()).await, 404, "not_found");
        }
    })
    .await;
}

#[tokio::test]
async fn both_secrets_are_good_while_they_are_rotated() {
    let stage = Stage::set().await;
    let (before, meanwhile, after) =
        (stage.with_secrets("whsec_old"), stage.with_secrets("whsec_new, whsec_old"), stage.with_secrets("whsec_new"));
    for (router, good, bad) in [
        (before, &["whsec_old"][..], Some("whsec_new")),
        (meanwhile, &["whsec_old", "whsec_new"], None),
        (after, &["whsec_new"], Some("whsec_old")),
    ] {
        for (secret, status) in good.iter().map(|secret| (*secret, 204)).chain(bad.map(|secret| (secret, 400))) {
            let tenant = stage.platform.tenant("free").await;
            let paid = stage.package_paid(&tenant).await;
            post(router.clone(), STRIPE, &signed(&paid.body, secret, NOON), paid.body.clone()).await.expect(status);
            let credited = if status == 204 { (CREDITS, 1) } else { (0, 0) };
            assert_eq!(stage.credits(&tenant).await, credited, "{secret}");
        }
    }
}

#[tokio::test]
async fn deliveries_at_the_same_moment_are_worked_on_once() {
    let stage = Stage::set().await;
    let paid = stage.package_paid(&stage.tenant).await;
    let told = join_all((0..8).map(|_| stage.tell(&paid))).await;
    let statuses: Vec<_> = told.iter().map(|reply| reply.status.as_u16()).collect();
    assert!(statuses.contains(&204) && statuses.iter().all(|status| [204, 409].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&409), "none of them met another: {statuses:?}");
    for busy in told.iter().filter(|reply| reply.status == 409) {
        problem(busy, 409, "conflict");
        assert!(!busy.header(header::RETRY_AFTER.as_str()).is_empty());
    }
    assert_eq!(stage.credits(&stage.tenant).await, (CREDITS, 1));

    // What is done is done, a minute and three days later, for one write that fails.
    let before = rows(&stage.platform);
    for later in [MINUTE, 3 * DAY] {
        stage.platform.clock().advance(later);
        let reads = stage.capacity.read_units();
        stage.tell(&stage.stripe().signed_again(&paid)).await.expect(204);
        assert_eq!(stage.capacity.read_units() - reads, 0.0);
    }
    assert_eq!(rows(&stage.platform), before);
}

#[tokio::test]
async fn a_delivery_that_failed_is_taken_when_it_comes_again() {
    let stage = Stage::set().await;
    let paid = stage.package_paid(&stage.tenant).await;
    let before = tenants_rows(&stage.platform);
    // As often as the client asks.
    (0..3).for_each(|_| stage.stripe().fail_next(Fault::Refused));
    let failed = stage.tell(&paid).await;
    problem(&failed, 503, "unavailable");
    assert!(!failed.header(header::RETRY_AFTER.as_str()).is_empty());
    assert_eq!(tenants_rows(&stage.platform), before);
    // At once: the claim was given back.
    stage.tell(&paid).await.expect(204);
    assert_eq!(stage.credits(&stage.tenant).await, (CREDITS, 1));
}

#[tokio::test]
async fn who_dies_over_an_event_keeps_it_from_nobody() {
    let stage = Stage::set().await;
    let paid = stage.package_paid(&stage.tenant).await;
    let store = stage.platform.store();
    let EventClaim::Mine(_) = store.claim_event("stripe", &paid.event).await.unwrap() else {
        panic!("somebody has it")
    };
    problem(&stage.tell(&paid).await, 409, "conflict");
    // And a worker that dies after the work, before it could say so.
    stage.platform.clock().advance(2 * MINUTE);
    stage.tell(&stage.stripe().signed_again(&paid)).await.expect(204);
    assert_eq!(stage.credits(&stage.tenant).await, (CREDITS, 1));
    let body = paid.body.replace(&paid.event, "evt_same_under_another_name");
    assert_ne!(body, paid.body);
    let headers = signed(&body, &stage.stripe().webhook_secret, NOON + 2 * MINUTE);
    post(stage.platform.router(), STRIPE, &headers, body).await.expect(204);
    assert_eq!(stage.credits(&stage.tenant).await, (CREDITS, 1), "the same work done twice");
}

#[tokio::test]
async fn what_names_another_tenant_is_refused_for_good_and_kept() {
    let stage = Stage::set().await;
    let other = stage.platform.tenant("free").await;
    stage.customer_of(&other).await;
    let customer = stage.customer_of(&stage.tenant).await;
    let commerce = stage.platform.host().commerce();
    let price = commerce.offers().await.unwrap().remove(0).price.id;
    let pages = tenantry_payments::stripe::CheckoutPages {
        customer: &customer,
        // Somebody's else, as whoever may write in the vendor's dashboard could put there.
        org: other.org.as_str(),
        metadata: &[],
        success_url: "https://s.example",
        cancel_url: "https://c.example",
        expires_at: None,
    };
    let checkout = tenantry_payments::stripe::SubscriptionCheckout {
        pages,
        price: &price,
        trial_days: None,
        promotion_codes: false,
        automatic_tax: false,
    };
    let key = OperationKey::new("test", &["foreign"]);
    let session = commerce.stripe().unwrap().subscription_checkout(&checkout, &key).await.unwrap();
    let _ = stage.stripe().take_events();
    stage.stripe().pay(&session.id).unwrap();

    let before = tenants_rows(&stage.platform);
    let log = Log::capture();
    let told = stage.stripe().take_events();
    let about = |kind: &str| told.iter().find(|delivery| delivery.kind == kind).unwrap();
    let events = ["checkout.session.completed", "customer.subscription.created", "invoice.paid"].map(about);
    for delivery in events {
        // So that it does not come for three days.
        stage.tell(delivery).await.expect(204);
        stage.tell(delivery).await.expect(204);
    }
    assert_eq!(tenants_rows(&stage.platform), before, "nobody got or lost anything");
    let kept = kept(&stage.platform, " REFUSED");
    assert_eq!(kept.len(), events.len());
    for row in &kept {
        // Two weeks, and no more: it tells of people.
        assert_eq!(text(row, "/ttl/N"), (NOON / 1000 + 14 * 24 * 3600).to_string());
        assert!(text(row, "/why/S").contains("names another organization than its customer is"), "{row}");
        assert!(events.iter().any(|delivery| delivery.body == text(row, "/body/S")), "{row}");
    }
    let lines = log.text();
    let alarmed = lines.lines().filter(|line| line.contains("\"ERROR\"") && line.contains("does not fit"));
    assert_eq!(alarmed.count(), events.len(), "{lines}");
    assert!(!lines.contains(METADATA_ORG) || !lines.contains(&stage.tenant.email), "{lines}");
}

#[tokio::test]
async fn what_cannot_be_read_is_taken_and_kept() {
    let stage = Stage::set().await;
    // A subscription had its period itself before 2025-03-31.basil.
    let old = r#"{"id":"evt_old","object":"event","type":"customer.subscription.updated","created":1795176000,"livemode":false,
        "api_version":"2024-06-20","data":{"object":{"object":"subscription","id":"sub_1","current_period_end":1795176000}}}"#;
    let before = tenants_rows(&stage.platform);
    let log = Log::capture();
    for body in [old, "[]", "not JSON", ""] {
        let headers = signed(body, &stage.stripe().webhook_secret, NOON);
        for _ in 0..2 {
            post(stage.platform.router(), STRIPE, &headers, body.to_owned()).await.expect(204);
        }
    }
    assert_eq!(tenants_rows(&stage.platform), before);
    let kept = kept(&stage.platform, " UNREADABLE");
    let mut bodies: Vec<_> = kept.iter().map(|row| text(row, "/body/S")).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["", "[]", "not JSON", old]);
    assert!(log.text().lines().any(|line| line.contains("\"ERROR\"") && line.contains("2024-06-20")));
}

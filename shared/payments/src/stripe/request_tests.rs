//! What is sent, call by call.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value, json};

use super::{
    server::{Asked, KEY, answer, example, form, key, list, scripted},
    *,
};

fn pages<'a>() -> CheckoutPages<'a> {
    CheckoutPages {
        customer: "cus_1",
        org: "org_1",
        metadata: &[("order", "ord_1"), ("org", "org_2")],
        success_url: "https://example.com/ok?s={CHECKOUT_SESSION_ID}",
        cancel_url: "https://example.com/",
        expires_at: Some(1_800_000_000_000),
    }
}

fn change<'a>() -> PriceChange<'a> {
    PriceChange {
        subscription: "sub_1",
        item: "si_1",
        price: "price_2",
        proration: Proration::Now,
        proration_date: Some(1_800_000_000_000),
        ends_trial: false,
        metadata: &[],
    }
}

/// Makes the one call of a write and checks what every write sends.
async fn written<T, F: AsyncFnOnce(Stripe) -> Result<T, StripeError>>(object: &str, call: F) -> (String, Vec<String>) {
    let (stripe, log) = scripted([answer(200, &example(object))]).await;
    if let Err(error) = call(stripe).await {
        panic!("{error}");
    }
    let asked = log.lock().await[0].clone();
    assert_eq!(asked.header("idempotency-key"), Some("test:one"));
    assert_eq!(asked.header("stripe-version"), Some("2026-09-30.endive"));
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    if asked.line.starts_with("POST") {
        assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    }
    (asked.line, form(&asked.body))
}

/// Makes the one call of a read and gives its request.
async fn asked<T, F: AsyncFnOnce(Stripe) -> Result<T, StripeError>>(result: &Value, call: F) -> String {
    let (stripe, log) = scripted([answer(200, result)]).await;
    if let Err(error) = call(stripe).await {
        panic!("{error}");
    }
    let asked = log.lock().await[0].clone();
    assert_eq!((asked.header("idempotency-key"), asked.body.as_str()), (None, ""));
    assert_eq!(asked.header("stripe-version"), Some("2026-09-30.endive"));
    form(&asked.line).join("&")
}

#[tokio::test]
async fn checkouts_carry_whose_they_are() {
    let checkout = SubscriptionCheckout {
        pages: pages(),
        price: "price_1",
        trial_days: Some(14),
        promotion_codes: true,
        automatic_tax: true,
    };
    let (line, body) = written("checkout.session", async |s| s.subscription_checkout(&checkout, &key()).await).await;
    assert_eq!(line, "POST /v1/checkout/sessions");
    assert_eq!(
        body,
        [
            "allow_promotion_codes=true",
            "automatic_tax[enabled]=true",
            "cancel_url=https://example.com/",
            "client_reference_id=org_1",
            "customer=cus_1",
            "customer_update[address]=auto",
            "customer_update[name]=auto",
            "expires_at=1800000000",
            "line_items[0][price]=price_1",
            "line_items[0][quantity]=1",
            "metadata[order]=ord_1",
            "metadata[org]=org_1",
            "mode=subscription",
            "subscription_data[metadata][order]=ord_1",
            "subscription_data[metadata][org]=org_1",
            "subscription_data[trial_period_days]=14",
            "success_url=https://example.com/ok?s={CHECKOUT_SESSION_ID}",
        ]
    );

    let bare = SubscriptionCheckout {
        pages: CheckoutPages { metadata: &[], expires_at: None, ..pages() },
        trial_days: None,
        promotion_codes: false,
        automatic_tax: false,
        ..checkout
    };
    let (_, body) = written("checkout.session", async |s| s.subscription_checkout(&bare, &key()).await).await;
    let left_out = ["allow_promotion_codes", "automatic_tax", "trial", "expires_at", "order"];
    assert!(!body.iter().any(|pair| left_out.iter().any(|word| pair.contains(word))), "{body:?}");

    let payment = PaymentCheckout {
        pages: pages(),
        goods: Goods::Amount { name: "1,000 credits & more", currency: "usd", amount: 1_000 },
        save_payment_method: true,
        promotion_codes: false,
        automatic_tax: false,
        invoice: true,
    };
    let (_, body) = written("checkout.session", async |s| s.payment_checkout(&payment, &key()).await).await;
    for pair in [
        "mode=payment",
        "line_items[0][price_data][currency]=usd",
        "line_items[0][price_data][unit_amount]=1000",
        "line_items[0][price_data][product_data][name]=1,000 credits & more",
        "line_items[0][quantity]=1",
        "payment_intent_data[setup_future_usage]=off_session",
        "payment_intent_data[metadata][org]=org_1",
        "payment_intent_data[metadata][order]=ord_1",
        "invoice_creation[enabled]=true",
        "invoice_creation[invoice_data][metadata][org]=org_1",
    ] {
        assert!(body.iter().any(|found| found == pair), "{pair} is not in {body:?}");
    }

    let setup = SetupCheckout { pages: pages(), currency: "usd" };
    let (_, body) = written("checkout.session", async |s| s.setup_checkout(&setup, &key()).await).await;
    for pair in ["mode=setup", "currency=usd", "setup_intent_data[metadata][org]=org_1"] {
        assert!(body.iter().any(|found| found == pair), "{pair} is not in {body:?}");
    }

    let (line, _) = written("checkout.session", async |s| s.expire_checkout("cs_1", &key()).await).await;
    assert_eq!(line, "POST /v1/checkout/sessions/cs_1/expire");
}

#[tokio::test]
async fn every_other_write_says_what_is_meant() {
    let (line, body) =
        written("billing_portal.session", async |s| s.portal("cus_1", "https://e.com/", &key()).await).await;
    assert_eq!(
        (line.as_str(), body),
        ("POST /v1/billing_portal/sessions", vec!["customer=cus_1".to_owned(), "return_url=https://e.com/".to_owned()])
    );

    let (line, body) =
        written("customer", async |s| s.update_customer("cus_1", "a+b@e.com", "Ü & Co", &key()).await).await;
    assert_eq!(
        (line.as_str(), body),
        ("POST /v1/customers/cus_1", vec!["email=a+b@e.com".to_owned(), "name=Ü & Co".to_owned()])
    );
    let (_, body) = written("customer", async |s| s.set_default_payment_method("cus_1", "pm_1", &key()).await).await;
    assert_eq!(body, ["invoice_settings[default_payment_method]=pm_1"]);

    let (line, body) =
        written("subscription", async |s| s.change_price(&change(), PaymentBehavior::Pending, &key()).await).await;
    assert_eq!(line, "POST /v1/subscriptions/sub_1");
    assert_eq!(
        body,
        [
            "items[0][id]=si_1",
            "items[0][price]=price_2",
            "payment_behavior=pending_if_incomplete",
            "proration_behavior=always_invoice",
            "proration_date=1800000000",
        ]
    );
    let ends_trial = PriceChange { proration_date: None, ends_trial: true, ..change() };
    let (_, body) =
        written("subscription", async |s| s.change_price(&ends_trial, PaymentBehavior::Pending, &key()).await).await;
    assert_eq!(body[4..], ["trial_end=now"]);
    let later = PriceChange { proration: Proration::None, metadata: &[("a", "1"), ("b", "")], ..ends_trial };
    let later = PriceChange { ends_trial: false, ..later };
    let (_, body) =
        written("subscription", async |s| s.change_price(&later, PaymentBehavior::Allow, &key()).await).await;
    assert_eq!(
        body[2..],
        ["metadata[a]=1", "metadata[b]=", "payment_behavior=allow_incomplete", "proration_behavior=none"]
    );
    let (_, body) =
        written("subscription", async |s| s.cancel_at_period_end("sub_1", Some("too dear"), &key()).await).await;
    assert_eq!(body, ["cancel_at_period_end=true", "cancellation_details[comment]=too dear"]);
    let (line, _) = written("subscription", async |s| s.cancel_now("sub_1", &key()).await).await;
    assert_eq!(line, "DELETE /v1/subscriptions/sub_1");

    let (line, body) = written("refund", async |s| {
        let reason = Some(RefundReason::RequestedByCustomer);
        s.refund(PaymentRef::Intent("pi_1"), Some(500), reason, &[("order", "ord_1")], &key()).await
    })
    .await;
    assert_eq!(line, "POST /v1/refunds");
    assert_eq!(body, ["amount=500", "metadata[order]=ord_1", "payment_intent=pi_1", "reason=requested_by_customer"]);
    let (_, body) =
        written("refund", async |s| s.refund(PaymentRef::Charge("ch_1"), None, None, &[], &key()).await).await;
    assert_eq!(body, ["charge=ch_1"]);

    let charge = SavedMethodCharge {
        customer: "cus_1",
        payment_method: "pm_1",
        org: "org_1",
        metadata: &[("order", "ord_1")],
        amount: 2_000,
        currency: "usd",
        description: "Credits",
    };
    let (line, body) = written("payment_intent", async |s| s.charge_saved_method(&charge, &key()).await).await;
    assert_eq!(line, "POST /v1/payment_intents");
    assert_eq!(
        body,
        [
            "amount=2000",
            "automatic_payment_methods[allow_redirects]=never",
            "automatic_payment_methods[enabled]=true",
            "confirm=true",
            "currency=usd",
            "customer=cus_1",
            "description=Credits",
            "metadata[order]=ord_1",
            "metadata[org]=org_1",
            "off_session=true",
            "payment_method=pm_1",
        ]
    );
}

#[tokio::test]
async fn a_cancellation_is_taken_back_as_it_was_made() {
    let mut subscription: Subscription = wire::read(example("subscription").to_string().as_bytes()).unwrap();
    subscription.cancel_at_period_end = true;
    let (_, body) = written("subscription", async |s| s.resume(&subscription, &key()).await).await;
    assert_eq!(body, ["cancel_at_period_end=false"]);
    subscription.cancel_at_period_end = false;
    let (line, body) = written("subscription", async |s| s.resume(&subscription, &key()).await).await;
    assert_eq!((line, body), (format!("POST /v1/subscriptions/{}", subscription.id), vec!["cancel_at=".to_owned()]));
}

#[tokio::test]
async fn reads_have_no_key() {
    let got = [
        (asked(&example("subscription"), async |s| s.subscription("sub_1").await).await, "GET /v1/subscriptions/sub_1"),
        (asked(&example("invoice"), async |s| s.invoice("in_1").await).await, "GET /v1/invoices/in_1"),
        (asked(&example("charge"), async |s| s.charge("ch_1").await).await, "GET /v1/charges/ch_1"),
        (asked(&example("dispute"), async |s| s.dispute("dp_1").await).await, "GET /v1/disputes/dp_1"),
        (asked(&example("refund"), async |s| s.refund_by_id("re_1").await).await, "GET /v1/refunds/re_1"),
        (
            asked(&example("payment_intent"), async |s| s.payment_intent("pi_1").await).await,
            "GET /v1/payment_intents/pi_1",
        ),
        (
            asked(&example("setup_intent"), async |s| s.setup_intent("seti_1").await).await,
            "GET /v1/setup_intents/seti_1",
        ),
        (asked(&example("deleted_customer"), async |s| s.customer("cus_1").await).await, "GET /v1/customers/cus_1"),
        (
            asked(&example("checkout.session"), async |s| s.checkout("cs_1").await).await,
            "GET /v1/checkout/sessions/cs_1",
        ),
        (asked(&example("event"), async |s| s.event("evt_1").await).await, "GET /v1/events/evt_1"),
        (
            asked(&list("payment_method"), async |s| s.payment_methods("cus_1").await).await,
            "GET /v1/customers/cus_1/payment_methods?limit=100",
        ),
        (
            asked(&list("invoice"), async |s| s.invoices_of("cus_1", 12, Some("in_1")).await).await,
            "GET /v1/invoices?customer=cus_1&limit=12&starting_after=in_1",
        ),
        (
            asked(&list("invoice_payment"), async |s| s.payments_of_invoice("in_1").await).await,
            "GET /v1/invoice_payments?invoice=in_1&limit=100",
        ),
        (
            asked(&list("invoice_payment"), async |s| s.invoice_paid_by("pi_1").await).await,
            "GET /v1/invoice_payments?limit=100&payment[payment_intent]=pi_1&payment[type]=payment_intent",
        ),
        (
            asked(&list("refund"), async |s| s.refunds_of(PaymentRef::Charge("ch_1")).await).await,
            "GET /v1/refunds?charge=ch_1&limit=100",
        ),
        (
            asked(&list("dispute"), async |s| s.disputes_of(PaymentRef::Intent("pi_1")).await).await,
            "GET /v1/disputes?limit=100&payment_intent=pi_1",
        ),
        (
            asked(&list("price"), async |s| s.prices(&["pro_usd_month", "team_usd_month"]).await).await,
            "GET /v1/prices?active=true&limit=100&lookup_keys[0]=pro_usd_month&lookup_keys[1]=team_usd_month",
        ),
    ];
    for (got, expected) in got {
        assert_eq!(got, expected);
    }
}

#[tokio::test]
async fn a_preview_of_a_change() {
    let mut invoice = example("invoice");
    let mut line = invoice["lines"]["data"][0].clone();
    line["amount"] = json!(-300);
    let mut whole = line.clone();
    whole["amount"] = json!(9_900);
    whole["parent"]["type"] = json!("subscription_item_details");
    whole["parent"]["subscription_item_details"]["proration"] = json!(false);
    invoice["lines"]["data"].as_array_mut().unwrap().extend([line, whole]);
    invoice["total"] = json!(10_600);
    let (stripe, log) = scripted([answer(200, &invoice)]).await;
    let preview = stripe.preview_change(&change()).await.unwrap();
    assert_eq!((preview.proration_total, preview.total, preview.lines.len()), (Some(700), 10_600, 3));
    assert_eq!((preview.currency.as_str(), preview.amount_due), ("usd", 1_000));
    let log = log.lock().await;
    assert_eq!(log[0].line, "POST /v1/invoices/create_preview");
    assert!(log[0].header("idempotency-key").is_some_and(|key| key.starts_with("fresh:")));
    assert_eq!(
        form(&log[0].body),
        [
            "subscription=sub_1",
            "subscription_details[items][0][id]=si_1",
            "subscription_details[items][0][price]=price_2",
            "subscription_details[proration_behavior]=always_invoice",
            "subscription_details[proration_date]=1800000000",
        ]
    );
    let (stripe, log) = scripted([answer(200, &invoice)]).await;
    let ends_trial = PriceChange { proration_date: None, ends_trial: true, ..change() };
    stripe.preview_change(&ends_trial).await.unwrap();
    assert_eq!(form(&log.lock().await[0].body)[4..], ["subscription_details[trial_end]=now"]);
    invoice["lines"]["has_more"] = json!(true);
    let (stripe, _) = scripted([answer(200, &invoice)]).await;
    assert_eq!(stripe.preview_change(&change()).await.unwrap().proration_total, None);
}

#[tokio::test]
async fn the_same_operation_is_the_same_bytes_whoever_repeats_it() {
    let (stripe, log) = scripted((0..12).map(|_| answer(200, &example("refund")))).await;
    let metadata = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5"), ("f", "6")];
    for _ in 0..12 {
        stripe.refund(PaymentRef::Intent("pi_1"), Some(1), None, &metadata, &key()).await.unwrap();
    }
    assert!(log.lock().await.windows(2).all(|two: &[Asked]| two[0].body == two[1].body));
}

#[tokio::test]
async fn an_id_that_would_lead_elsewhere_is_not_asked_for() {
    let (stripe, log) = scripted([]).await;
    let long = "x".repeat(256);
    for id in ["", "..", "a/b", "sub_1?expand[]=customer", "sub_1#", "sub 1", "%2e%2e", "é", &long] {
        assert!(stripe.subscription(id).await.unwrap_err().is_missing(), "{id}");
        assert!(stripe.cancel_now(id, &key()).await.unwrap_err().is_missing(), "{id}");
        assert!(stripe.invoice(id).await.unwrap_err().is_missing(), "{id}");
        assert!(stripe.find_or_create_customer(id, &key()).await.unwrap_err().is_missing(), "{id}");
    }
    for currency in ["", "USD", "usdt", "us", "ü€"] {
        let setup = SetupCheckout { pages: pages(), currency };
        let error = stripe.setup_checkout(&setup, &key()).await.unwrap_err();
        assert_eq!(error.refusal().and_then(|refusal| refusal.param.as_deref()), Some("currency"));
    }
    assert!(log.lock().await.is_empty());
}

#[tokio::test]
async fn undelivered_events_are_read_one_by_one() {
    let mut old = example("subscription");
    old["items"]["data"][0].as_object_mut().unwrap().remove("current_period_end");
    let event = |id: &str, object: Value| {
        json!({"id": id, "object": "event", "type": "customer.subscription.updated", "created": 5, "livemode": false,
            "api_version": "2024-06-20", "data": {"object": object}, "pending_webhooks": 1, "request": null})
    };
    let page = json!({"object": "list", "url": "/", "has_more": true,
        "data": [event("evt_2", example("subscription")), event("evt_1", old)]});
    let (stripe, log) = scripted([answer(200, &page)]).await;
    let page = stripe.undelivered_events(1_800_000_000_999, Some("evt_3")).await.unwrap();
    let [Delivery::Event(read), Delivery::Unreadable(unreadable)] = page.items.as_slice() else { panic!("{page:?}") };
    assert!(matches!(&read.object, EventObject::Subscription(_)));
    assert_eq!(unreadable.id.as_deref(), Some("evt_1"));
    assert_eq!(unreadable.api_version.as_deref(), Some("2024-06-20"));
    assert_eq!(page.next.as_deref(), Some("evt_1"));
    assert_eq!(
        form(&log.lock().await[0].line).join("&"),
        "GET /v1/events?created[gte]=1800000000&delivery_success=false&limit=100&starting_after=evt_3"
    );
}

#[tokio::test]
async fn a_payment_leads_to_its_invoice() {
    let mut payments = list("invoice_payment");
    payments["data"][0]["payment"] = json!({"type": "payment_intent", "payment_intent": "pi_1"});
    for (intent, found) in [("pi_1", true), ("pi_2", false)] {
        let (stripe, _) = scripted([answer(200, &payments)]).await;
        let invoice = stripe.invoice_paid_by(intent).await.unwrap();
        assert_eq!(invoice.is_some_and(|payment| payment.invoice == "invoice"), found);
    }
}

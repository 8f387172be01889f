//! Stripe's examples of every object that we read, by both ways on which objects come.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenantry_domain::SubscriptionStatus;

use super::{server::example, *};

const NOW: i64 = 1_800_000_000_000;

/// As it comes in an answer.
fn answered<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    wire::read(value.to_string().as_bytes())
}

/// As it comes in a webhook.
fn delivered(kind: &str, object: &Value) -> Delivery {
    let event = json!({"id": "evt_1", "object": "event", "type": kind, "created": 1_799_999_999, "livemode": false,
        "api_version": API_VERSION, "data": {"object": object, "previous_attributes": {}}, "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null}});
    let body = event.to_string();
    let secrets = WebhookSecrets::new(vec!["whsec_one".to_owned()]).unwrap();
    secrets.verify(body.as_bytes(), &sign(body.as_bytes(), "whsec_one", NOW), NOW).unwrap()
}

fn object(kind: &str, object: &Value) -> EventObject {
    match delivered(kind, object) {
        Delivery::Event(event) => {
            assert_eq!((event.id.as_str(), event.kind.as_str(), event.created), ("evt_1", kind, 1_799_999_999_000));
            event.object
        }
        Delivery::Unreadable(why) => panic!("{why:?}"),
    }
}

fn why(delivery: Delivery) -> String {
    match delivery {
        Delivery::Unreadable(unreadable) => {
            assert_eq!((unreadable.id.as_deref(), unreadable.kind.is_some()), (Some("evt_1"), true));
            unreadable.why
        }
        Delivery::Event(event) => panic!("{event:?}"),
    }
}

/// The example as async-stripe reads it, which demands and checks every member: an example that passes is of the pinned
/// version, so the names that we read are that version's.
fn generated<T: miniserde::Deserialize>(name: &str) -> T {
    miniserde::json::from_str(&example(name).to_string()).unwrap_or_else(|_| panic!("{name} is of another version"))
}

#[test]
fn a_subscription() {
    let mut value = example("subscription");
    let theirs: stripe_shared::Subscription = generated("subscription");
    let ours: Subscription = answered(&value).unwrap();
    assert_eq!(object("customer.subscription.updated", &value), EventObject::Subscription(Box::new(ours.clone())));
    assert_eq!(ours.id, theirs.id.as_str());
    assert_eq!(ours.customer, theirs.customer.id().as_str());
    assert_eq!(ours.status.as_str(), theirs.status.as_str());
    assert_eq!(ours.cancel_at_period_end, theirs.cancel_at_period_end);
    assert_eq!((ours.cancel_at, ours.canceled_at), (Some(1_234_567_890_000), Some(1_234_567_890_000)));
    assert_eq!(ours.trial_end, theirs.trial_end.map(|at| at * 1_000));
    let (item, their_item) = (&ours.items[0], &theirs.items.data[0]);
    assert_eq!(item.id, their_item.id.as_str());
    assert_eq!((item.period_start, item.period_end), (1_896_570_518_000, 976_287_773_000));
    assert_eq!((item.quantity, item.price.unit_amount), (Some(1), Some(2_000)));
    assert_eq!(item.price.product, "prod_QXg1hqf4jFNsqG");
    let every = item.price.recurring.clone().unwrap();
    assert_eq!((every.interval, every.interval_count), (Interval::Month, 1));
    assert_eq!(ours.pending_update.unwrap().expires_at, 833_811_170_000);

    // References may be expanded, and words may be new.
    value["customer"] = json!({"id": "cus_2", "object": "customer", "nested": {"id": "not this"}});
    value["latest_invoice"] = example("invoice");
    value["default_payment_method"] = json!("pm_1");
    value["status"] = json!("hibernating");
    value["metadata"] = json!({"org": "org_1"});
    value["pending_update"] = Value::Null;
    value["invented"] = json!([1, {"a": 2}]);
    let ours: Subscription = answered(&value).unwrap();
    assert_eq!(ours.customer, "cus_2");
    assert_eq!(ours.latest_invoice.as_deref(), value["latest_invoice"]["id"].as_str());
    assert_eq!(ours.default_payment_method.as_deref(), Some("pm_1"));
    assert_eq!(ours.status, SubscriptionStatus::Unknown("hibernating".to_owned()));
    assert_eq!(ours.metadata[METADATA_ORG], "org_1");
    assert_eq!(ours.pending_update, None);
}

#[test]
fn an_invoice_and_what_paid_it() {
    let mut value = example("invoice");
    let theirs: stripe_shared::Invoice = generated("invoice");
    let ours: Invoice = answered(&value).unwrap();
    assert_eq!(object("invoice.paid", &value), EventObject::Invoice(Box::new(ours.clone())));
    assert_eq!(Some(ours.id.as_str()), theirs.id.as_ref().map(|id| id.as_str()));
    assert_eq!(ours.customer.as_deref(), theirs.customer.as_ref().map(|customer| customer.id().as_str()));
    assert_eq!(ours.status, Some(InvoiceStatus::Draft));
    assert_eq!((ours.total, ours.amount_due, ours.amount_paid, ours.amount_remaining), (1_000, 1_000, 0, 1_000));
    assert_eq!(ours.subscription.as_deref(), Some("subscription"));
    assert_eq!(ours.billing_reason.as_deref(), Some("manual"));
    assert_eq!((ours.lines[0].amount, ours.lines[0].proration, ours.more_lines), (1_000, true, false));

    value["parent"] = json!({"type": "subscription_details", "quote_details": null,
        "subscription_details": {"subscription": "sub_1", "metadata": {"org": "org_1"}}});
    value["status"] = json!("frozen");
    value["lines"]["data"][0]["parent"]["invoice_item_details"]["proration"] = json!(false);
    value["lines"]["data"][0]["pricing"] = json!({"type": "price_details", "unit_amount_decimal": "1000",
        "price_details": {"price": "price_1", "product": "prod_1"}});
    let ours: Invoice = answered(&value).unwrap();
    assert_eq!(ours.subscription.as_deref(), Some("sub_1"));
    assert_eq!(ours.subscription_metadata[METADATA_ORG], "org_1");
    assert_eq!(ours.status, Some(InvoiceStatus::Unknown("frozen".to_owned())));
    assert_eq!((ours.lines[0].proration, ours.lines[0].price.as_deref()), (false, Some("price_1")));
    assert_eq!(ours.lines[0].product.as_deref(), Some("prod_1"));
    value["parent"] = Value::Null;
    assert_eq!(answered::<Invoice>(&value).unwrap().subscription, None);

    let mut value = example("invoice_payment");
    generated::<stripe_shared::InvoicePayment>("invoice_payment");
    value["payment"] = json!({"type": "payment_intent", "payment_intent": "pi_1"});
    let ours: InvoicePayment = answered(&value).unwrap();
    assert_eq!((ours.invoice.as_str(), ours.payment_intent.as_deref()), ("invoice", Some("pi_1")));
    assert_eq!(object("invoice_payment.paid", &value), EventObject::InvoicePayment(Box::new(ours)));
}

#[test]
fn a_checkout() {
    let mut value = example("checkout.session");
    let theirs: stripe_shared::CheckoutSession = generated("checkout.session");
    let ours: CheckoutSession = answered(&value).unwrap();
    assert_eq!(object("checkout.session.completed", &value), EventObject::CheckoutSession(Box::new(ours.clone())));
    assert_eq!((ours.id.as_str(), ours.url.as_deref()), (theirs.id.as_str(), theirs.url.as_deref()));
    assert_eq!((ours.mode, ours.payment_status), (CheckoutMode::Payment, PaymentStatus::Unpaid));
    assert_eq!(ours.status, Some(CheckoutStatus::Open));
    assert_eq!(ours.payment_intent.as_deref(), theirs.payment_intent.as_ref().map(|intent| intent.id().as_str()));
    value["customer"] = json!("cus_1");
    value["subscription"] = json!("sub_1");
    value["amount_total"] = json!(1_900);
    value["currency"] = json!("usd");
    let ours: CheckoutSession = answered(&value).unwrap();
    assert_eq!((ours.customer.as_deref(), ours.subscription.as_deref()), (Some("cus_1"), Some("sub_1")));
    assert_eq!((ours.amount_total, ours.currency.as_deref()), (Some(1_900), Some("usd")));
}

#[test]
fn money_that_came_and_went() {
    let (value, theirs) = (example("charge"), generated::<stripe_shared::Charge>("charge"));
    let ours: Charge = answered(&value).unwrap();
    assert_eq!(
        (ours.id.as_str(), ours.amount, ours.amount_refunded),
        (theirs.id.as_str(), 100, theirs.amount_refunded)
    );
    assert_eq!((ours.status.as_str(), ours.refunded), (theirs.status.as_str(), theirs.refunded));
    assert_eq!(object("charge.refunded", &value), EventObject::Charge(Box::new(ours)));

    let (value, theirs) = (example("refund"), generated::<stripe_shared::Refund>("refund"));
    let ours: Refund = answered(&value).unwrap();
    assert_eq!((ours.id.as_str(), ours.amount), (theirs.id.as_str(), theirs.amount));
    assert_eq!(
        (ours.status.as_ref(), ours.charge.as_deref()),
        (Some(&RefundStatus::Succeeded), value["charge"].as_str())
    );
    assert_eq!(object("charge.refund.updated", &value), EventObject::Refund(Box::new(ours)));

    let (value, theirs) = (example("dispute"), generated::<stripe_shared::Dispute>("dispute"));
    let ours: Dispute = answered(&value).unwrap();
    assert_eq!((ours.id.as_str(), ours.amount), (theirs.id.as_str(), theirs.amount));
    assert_eq!((ours.status.as_str(), ours.charge.as_str()), (theirs.status.as_str(), theirs.charge.id().as_str()));
    assert_eq!(object("charge.dispute.created", &value), EventObject::Dispute(Box::new(ours)));

    let (value, theirs) = (example("payment_intent"), generated::<stripe_shared::PaymentIntent>("payment_intent"));
    let ours: PaymentIntent = answered(&value).unwrap();
    assert_eq!((ours.id.as_str(), ours.amount), (theirs.id.as_str(), theirs.amount));
    assert_eq!(ours.status.as_str(), theirs.status.as_str());
    assert_eq!(object("payment_intent.succeeded", &value), EventObject::PaymentIntent(Box::new(ours)));
}

#[test]
fn customers_and_how_they_pay() {
    let (value, theirs) = (example("customer"), generated::<stripe_shared::Customer>("customer"));
    let ours: Customer = answered(&value).unwrap();
    assert_eq!((ours.id.as_str(), ours.email.as_deref()), (theirs.id.as_str(), theirs.email.as_deref()));
    assert!(!ours.deleted && ours.created == Some(1_234_567_890_000));
    assert_eq!(object("customer.deleted", &value), EventObject::Customer(Box::new(ours)));
    assert!(answered::<Customer>(&example("deleted_customer")).unwrap().deleted);

    let (value, theirs) = (example("payment_method"), generated::<stripe_shared::PaymentMethod>("payment_method"));
    let ours: PaymentMethod = answered(&value).unwrap();
    assert_eq!((ours.id.as_str(), ours.kind.as_str()), (theirs.id.as_str(), theirs.type_.as_str()));
    assert_eq!(object("payment_method.attached", &value), EventObject::PaymentMethod(Box::new(ours)));

    let (value, theirs) = (example("setup_intent"), generated::<stripe_shared::SetupIntent>("setup_intent"));
    let ours: SetupIntent = answered(&value).unwrap();
    assert_eq!((ours.id.as_str(), ours.status.as_str()), (theirs.id.as_str(), theirs.status.as_str()));
    assert_eq!(object("setup_intent.succeeded", &value), EventObject::SetupIntent(Box::new(ours)));

    let ours: PortalSession = answered(&example("billing_portal.session")).unwrap();
    assert_eq!(Some(ours.url.as_str()), example("billing_portal.session")["url"].as_str());
    let ours: Price = answered(&example("price")).unwrap();
    assert_eq!(ours.id, generated::<stripe_shared::Price>("price").id.as_str());
    let ours: Product = answered(&example("product")).unwrap();
    assert_eq!(ours.id, generated::<stripe_shared::Product>("product").id.as_str());
}

#[test]
fn what_billing_does_not_look_at_is_other() {
    for name in ["plan", "coupon", "payout", "product", "price", "test_helpers.test_clock"] {
        let value = example(name);
        let other = EventObject::Other { object: Some(name.to_owned()), id: value["id"].as_str().map(str::to_owned) };
        assert_eq!(object(&format!("{name}.created"), &value), other);
    }
    assert_eq!(object("a.new.kind", &json!({})), EventObject::Other { object: None, id: None });
    assert_eq!(
        object("a.new.kind", &json!({"object": "gift", "id": "gift_1", "subscription": 1})),
        EventObject::Other { object: Some("gift".to_owned()), id: Some("gift_1".to_owned()) }
    );
    // Stripe's own example of an event is about a plan.
    let Delivery::Event(event) = events::parse(example("event").to_string().as_bytes()) else { panic!() };
    assert_eq!((event.kind.as_str(), event.api_version), ("plan.created", None));
    // An invoice that is yet to be made has no id, and nothing can be asked of it.
    let mut upcoming = example("invoice");
    upcoming.as_object_mut().unwrap().remove("id");
    assert_eq!(
        object("invoice.upcoming", &upcoming),
        EventObject::Other { object: Some("invoice".to_owned()), id: None }
    );
    // A new kind of event about a subscription is about a subscription.
    assert!(matches!(
        object("customer.subscription.teleported", &example("subscription")),
        EventObject::Subscription(_)
    ));
}

#[test]
fn objects_of_older_versions_are_unreadable_and_no_error() {
    // Before 2025-03-31.basil the period stood in the subscription itself.
    let mut old = example("subscription");
    old["items"]["data"][0].as_object_mut().unwrap().retain(|name, _| !name.starts_with("current_period"));
    old["current_period_start"] = json!(1);
    old["current_period_end"] = json!(2);
    let said = why(delivered("customer.subscription.updated", &old));
    assert!(said.starts_with("missing field `current_period_start`"), "{said}");
    // And an invoice named its subscription itself.
    let mut old = example("invoice");
    old.as_object_mut().unwrap().remove("parent");
    old["subscription"] = json!("sub_1");
    assert!(why(delivered("invoice.paid", &old)).starts_with("missing field `parent`"));
}

#[test]
fn what_is_missing_is_named_and_what_stands_there_is_not() {
    for (name, kind, members) in [
        (
            "subscription",
            "customer.subscription.updated",
            &["id", "customer", "status", "items", "cancel_at_period_end"][..],
        ),
        ("invoice", "invoice.paid", &["id", "currency", "total", "amount_paid", "lines", "livemode"]),
        ("checkout.session", "checkout.session.completed", &["id", "mode", "payment_status", "livemode"]),
        ("charge", "charge.refunded", &["id", "amount", "amount_refunded", "currency", "status"]),
        ("refund", "refund.created", &["id", "amount", "currency"]),
        ("dispute", "charge.dispute.created", &["id", "amount", "charge", "status"]),
        ("payment_intent", "payment_intent.succeeded", &["id", "amount", "currency", "status"]),
    ] {
        for member in members {
            let mut broken = example(name);
            broken.as_object_mut().unwrap().remove(*member);
            let said = why(delivered(kind, &broken));
            assert!(said.starts_with(&format!("missing field `{member}`")), "{name}: {said}");
            broken[*member] = json!([["secret"]]);
            let said = why(delivered(kind, &broken));
            assert!(said.starts_with("wrong at line 1") && !said.contains("secret"), "{name}.{member}: {said}");
        }
    }
}

#[test]
fn signed_nonsense_is_unreadable() {
    let secrets = WebhookSecrets::new(vec!["whsec_one".to_owned()]).unwrap();
    for (body, id) in [
        (&b""[..], None),
        (b"null", None),
        (b"[]", None),
        (b"\xff", None),
        (b"{\"id\":\"evt_1\"", None),
        (b"{\"id\":\"evt_1\"}", Some("evt_1")),
        (b"{\"id\":\"evt_1\",\"type\":\"a\",\"created\":1,\"livemode\":false,\"data\":{}}", Some("evt_1")),
        (b"{\"id\":\"evt_1\",\"type\":\"a\",\"created\":1,\"livemode\":false,\"data\":{\"object\":[]}}", Some("evt_1")),
    ] {
        let delivery = secrets.verify(body, &sign(body, "whsec_one", NOW), NOW).unwrap();
        assert!(matches!(delivery, Delivery::Unreadable(_)), "{delivery:?}");
        assert_eq!(delivery.id(), id);
    }
    let deep = format!("{{\"id\":\"evt_1\",\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let delivery = secrets.verify(deep.as_bytes(), &sign(deep.as_bytes(), "whsec_one", NOW), NOW).unwrap();
    assert!(matches!(delivery, Delivery::Unreadable(_)));
}

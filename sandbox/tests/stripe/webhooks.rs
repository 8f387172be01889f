//! What is told, how it is signed, and who takes it.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use tenantry_domain::{Clock as _, SystemClock};
use tenantry_payments::stripe::{Delivery, EventObject, SignatureError};
use tenantry_sandbox::{
    AheadClock,
    stripe::{Settings, StripeSandbox},
};
use tokio::sync::{Notify, watch};

use crate::stage::{DAY, NOON, Stage, key};

#[tokio::test]
async fn deliveries_are_signed_for_the_time_at_which_they_are_made() {
    let stage = Stage::new().await;
    stage.customer().await;
    let delivery = stage.sandbox.take_events().remove(0);
    assert_eq!(
        (delivery.kind.as_str(), delivery.headers["content-type"].to_str().unwrap()),
        ("customer.created", "application/json; charset=utf-8")
    );
    let verify = |body: &str, signature: &str, now| stage.stripe.webhooks().verify(body.as_bytes(), signature, now);
    let Ok(Delivery::Event(event)) = verify(&delivery.body, delivery.signature(), NOON) else { panic!("not read") };
    assert_eq!((event.id.as_str(), event.livemode), (delivery.event.as_str(), false));
    assert!(matches!(event.object, EventObject::Customer(_)));
    let forged = delivery.body.replace("org_1", "org_2");
    assert_eq!(verify(&forged, delivery.signature(), NOON).unwrap_err(), SignatureError::Forged);
    assert_eq!(verify(&delivery.body, delivery.signature(), NOON + DAY).unwrap_err(), SignatureError::Stale);
    stage.sandbox.advance(DAY);
    let again = stage.sandbox.signed_again(&delivery);
    assert_eq!((&again.body, &again.event), (&delivery.body, &delivery.event));
    assert!(verify(&again.body, again.signature(), NOON + DAY).is_ok());
}

#[tokio::test]
async fn an_event_holds_its_object_as_it_was_then() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    stage.stripe.update_customer(&customer, "a@b.example", "Ada", &key("one")).await.unwrap();
    stage.stripe.update_customer(&customer, "a@b.example", "Bob", &key("two")).await.unwrap();
    let names = stage.told().into_iter().map(|event| match event.object {
        EventObject::Customer(customer) => customer.name,
        other => panic!("{other:?}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), [None, Some("Ada".to_owned()), Some("Bob".to_owned())]);
    let last = stage.sandbox.events().pop().unwrap();
    assert_eq!(last["data"]["previous_attributes"], serde_json::json!({"name": "Ada"}));
    assert_eq!(last["request"]["idempotency_key"], key("two").as_str());
}

#[tokio::test]
async fn what_nobody_took_can_be_asked_for() {
    let stage = Stage::new().await;
    stage.customer().await;
    stage.monthly("basic", 2000).await;
    let taken = stage.sandbox.take_events();
    assert!(stage.sandbox.take_events().is_empty());
    stage.sandbox.acknowledge(&taken[0]);
    let missed = stage.stripe.undelivered_events(NOON, None).await.unwrap();
    let ids: Vec<_> = missed.items.iter().filter_map(Delivery::id).collect();
    assert_eq!(ids, [taken[2].event.as_str(), taken[1].event.as_str()]);
    assert_eq!(stage.stripe.event(&taken[0].event).await.unwrap().id(), Some(taken[0].event.as_str()));
    stage.sandbox.repeat(&taken[0].event).unwrap();
    assert_eq!(stage.sandbox.take_events()[0].body.len(), {
        // As delivered, but for what is still to be delivered.
        let event = stage.sandbox.object(&taken[0].event).unwrap();
        serde_json::to_string_pretty(&event).unwrap().len()
    });
}

#[tokio::test]
async fn the_same_calls_tell_the_same_events() {
    let mut told = vec![];
    for _ in 0..2 {
        let stage = Stage::new().await;
        stage.subscribed().await;
        stage.sandbox.advance_months(3);
        let bodies = stage.sandbox.take_events().into_iter().map(|delivery| delivery.body);
        // Where the pages are differs by the port.
        told.push(bodies.map(|body| body.replace(&stage.sandbox.base_url, "")).collect::<Vec<_>>());
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].len() > 20);
}

#[tokio::test]
async fn an_account_that_was_saved_goes_on() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let changes = stage.sandbox.changes();
    stage.sandbox.advance(DAY);
    assert_eq!(stage.sandbox.changes(), changes, "nothing was due");
    let saved = stage.sandbox.saved();
    let again = StripeSandbox::restored(stage.clock.clone(), Settings::default(), &saved).unwrap();
    assert_eq!(again.object(&subscription.id), stage.sandbox.object(&subscription.id));
    assert_eq!(again.take_events(), stage.sandbox.take_events());
    again.advance_months(1);
    assert_eq!(again.object(&subscription.id).unwrap()["status"], "active");
    assert!(again.changes() > 0);
    assert!(StripeSandbox::restored(stage.clock.clone(), Settings::default(), "{").is_err());
}

/// An endpoint that refuses the first two deliveries.
#[derive(Default)]
struct Endpoint {
    taken: Mutex<Vec<String>>,
    refusals: Mutex<usize>,
    arrived: Notify,
}

#[tokio::test]
async fn deliveries_go_over_http_and_again_when_they_are_refused() {
    let endpoint = Arc::new(Endpoint::default());
    let sink = endpoint.clone();
    let router = Router::new().route(
        "/webhooks/stripe",
        post(async move |body: Bytes| {
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let mut refusals = sink.refusals.lock().unwrap();
            if *refusals < 2 {
                *refusals += 1;
                sink.arrived.notify_one();
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            sink.taken.lock().unwrap().push(event["type"].as_str().unwrap().to_owned());
            sink.arrived.notify_one();
            StatusCode::NO_CONTENT
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks/stripe", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let clock = Arc::new(AheadClock::new(Arc::new(SystemClock), 0));
    let before = clock.now();
    let settings = Settings { webhook_url: Some(url), ..Settings::default() };
    let sandbox = StripeSandbox::start(clock, settings).await.unwrap();
    let stripe = crate::stage::client(&sandbox, &sandbox.secret_key.clone());
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn((*sandbox).clone().run(stopped));
    stripe.ensure_product("basic", "Basic").await.unwrap();
    stripe.ensure_product("pro", "Pro").await.unwrap();
    for _ in 0..2 {
        endpoint.arrived.notified().await;
    }
    while endpoint.taken.lock().unwrap().len() < 2 {
        // The pause before another attempt is over at once.
        sandbox.advance(DAY);
        endpoint.arrived.notified().await;
    }
    assert_eq!(*endpoint.taken.lock().unwrap(), ["product.created", "product.created"]);
    stop.send(true).unwrap();
    running.await.unwrap();
    assert!(stripe.undelivered_events(before - DAY, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_never_answers_holds_nobody_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks/stripe", listener.local_addr().unwrap());
    let settings = Settings { webhook_url: Some(url), ..Settings::default() };
    let sandbox = StripeSandbox::start(Arc::new(AheadClock::default()), settings).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn((*sandbox).clone().run(stopped));
    crate::stage::client(&sandbox, &sandbox.secret_key.clone()).ensure_product("basic", "Basic").await.unwrap();
    let connection = listener.accept().await.unwrap();
    // From here on time is what timers say, and no machine is too slow.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    stop.send(true).unwrap();
    running.await.unwrap();
    assert!(before.elapsed() < std::time::Duration::from_secs(10), "it stops soon: {:?}", before.elapsed());
    drop(connection);
    assert_eq!(sandbox.take_events().len(), 1, "nobody took it, so it waits");
}

#[tokio::test]
async fn the_operators_page_turns_everything() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let page = format!("{}/_dev/stripe", stage.sandbox.base_url);
    let html = stage.look(&page).await.html;
    assert!(html.contains("test double of Stripe") && html.contains(&subscription.id), "{html}");
    let customer = &subscription.customer;
    let waiting = stage.sandbox.take_events();
    for (fields, does) in [
        (format!("action=cards_decline&id={customer}"), "fails the cards"),
        ("action=month&id=".to_owned(), "turns the clock"),
        ("action=day&id=".to_owned(), "collects"),
    ] {
        assert_eq!(stage.click(&page, &fields).await.status, 303, "{does}");
    }
    assert_eq!(stage.subscription(&subscription.id).await.status, tenantry_domain::SubscriptionStatus::PastDue);
    let event = &waiting[0].event;
    stage.told();
    for fields in ["action=hold", "action=release", "action=reverse", "action=delay", "action=hour"] {
        assert_eq!(stage.click(&page, fields).await.status, 303, "{fields}");
    }
    assert_eq!(stage.click(&page, &format!("action=repeat&id={event}")).await.status, 303);
    assert_eq!(&stage.sandbox.take_events()[0].event, event);
    assert_eq!(stage.click(&page, "action=repeat&id=evt_none").await.status, 404);
    assert_eq!(stage.click(&page, "action=explode").await.status, 400);
}

#[tokio::test]
async fn another_sites_page_clicks_nothing() {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;
    let stage = Stage::new().await;
    let click = |from: &'static str| {
        let request = Request::post("/_dev/stripe").header("sec-fetch-site", from);
        stage.sandbox.router().oneshot(request.body(Body::from("action=day")).unwrap())
    };
    assert_eq!(click("cross-site").await.unwrap().status(), 403);
    assert_eq!(click("same-site").await.unwrap().status(), 403);
    assert_eq!(stage.clock.now(), NOON);
    assert_eq!(click("same-origin").await.unwrap().status(), 303);
    assert_eq!(stage.clock.now(), NOON + DAY);
}

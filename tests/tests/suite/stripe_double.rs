//! The double of Stripe in the process of a laptop: it stands in as long as no key of Stripe's is configured, shares the
//! platform's clock, and outlives the process.

use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tenantry_domain::{Clock as _, SystemClock};
use tenantry_host::{HostError, Options, Platform as Host};
use tenantry_sandbox::stripe::API_VERSION;
use tenantry_tests::{
    platform::{NOON, Platform, Reply, Setup, request},
    process::Folder,
};
use tower::ServiceExt as _;

const DAY: i64 = 86_400_000;

/// A call of Stripe's API at `host`.
async fn call(host: &Host, method: Method, path: &str, key: &str, form: &str) -> Reply {
    let mut request = request(method, &format!("/_dev/stripe/v1/{path}"), key, &Value::Null);
    request.headers_mut().insert("stripe-version", API_VERSION.parse().unwrap());
    request.headers_mut().insert("idempotency-key", format!("{path}?{form}").parse().unwrap());
    *request.body_mut() = form.to_owned().into();
    let (head, body) = host.router().oneshot(request).await.unwrap().into_parts();
    Reply { status: head.status, headers: head.headers, bytes: body.collect().await.unwrap().to_bytes().to_vec() }
}

fn options(folder: &Folder) -> Options {
    let plans = tenantry_domain::plans::Plans::parse(tenantry_domain::plans::DEFAULT_PLANS).unwrap();
    let mut options = Options::in_memory(plans, tenantry_web::config::Env::default());
    options.data_dir = Some(folder.path().to_owned());
    options.site = Some("http://127.0.0.1:8787".to_owned());
    options.background = false;
    options
}

#[tokio::test]
async fn without_a_key_of_stripes_its_double_stands_in() {
    let platform = Platform::start(Setup::default()).await;
    let sandbox = platform.host().stripe_sandbox().unwrap();
    let page = platform.get("/_dev/stripe", "").await.expect(200).text();
    assert!(page.contains("test double of Stripe") && page.contains("No payment here is one"), "{page}");
    call(platform.host(), Method::GET, "customers", "sk_test_other", "").await.expect(401);
    let key = &sandbox.secret_key;
    let customer = call(platform.host(), Method::POST, "customers", key, "name=Ada").await.expect(200).json();
    assert_eq!(sandbox.object(customer["id"].as_str().unwrap()).unwrap()["name"], "Ada");
    assert_eq!(sandbox.take_events()[0].kind, "customer.created");
}

#[tokio::test]
async fn with_a_key_of_stripes_there_is_no_double() {
    let platform = Platform::start(Setup::default().variable("STRIPE_SECRET_KEY", "sk_test_mine")).await;
    assert!(platform.host().stripe_sandbox().is_none());
    platform.get("/_dev/stripe", "").await.expect(404);
    call(platform.host(), Method::GET, "customers", "sk_test_mine", "").await.expect(404);
}

#[tokio::test]
async fn the_double_and_the_platform_have_one_clock() {
    let platform = Platform::start(Setup::default()).await;
    let sandbox = platform.host().stripe_sandbox().unwrap();
    platform.clock().advance(DAY);
    assert_eq!(sandbox.now() * 1000, NOON + DAY);
    sandbox.advance(DAY);
    assert_eq!(platform.store().now(), NOON + 2 * DAY);
}

#[tokio::test]
async fn the_double_remembers_what_the_platform_remembers() {
    let folder = Folder::new();
    let host = Host::start(options(&folder)).await.unwrap();
    let sandbox = host.stripe_sandbox().unwrap();
    // What was put up for sale.
    let _ = sandbox.take_events();
    let key = sandbox.secret_key.clone();
    let customer = call(&host, Method::POST, "customers", &key, "name=Ada").await.expect(200).json();
    let form = "mode=setup&currency=usd&success_url=http://localhost:5173/done";
    let session = call(&host, Method::POST, "checkout/sessions", &key, form).await.expect(200).json();
    let url = session["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:8787/_dev/stripe/checkout/cs_test_"), "{url}");
    host.stripe_sandbox().unwrap().advance(DAY);
    host.stop().await;

    let host = Host::start(options(&folder)).await.unwrap();
    let sandbox = host.stripe_sandbox().unwrap();
    assert_eq!(sandbox.object(customer["id"].as_str().unwrap()).unwrap(), customer);
    assert_eq!(sandbox.object(session["id"].as_str().unwrap()).unwrap()["status"], "expired");
    assert!(host.clock().now() >= SystemClock.now() + DAY - 60_000, "the clock went back");
    assert_eq!(sandbox.take_events().len(), 2, "what was not delivered still waits");
    host.stop().await;

    std::fs::write(folder.path().join("stripe.json"), "{").unwrap();
    let Err(HostError::Data { path, why }) = Host::start(options(&folder)).await else { panic!("it started") };
    assert!(path.ends_with("stripe.json") && why.contains("damaged"), "{path}: {why}");
}

#[tokio::test]
async fn webhooks_go_to_the_platform_or_where_they_are_sent() {
    use axum::{Router, http::HeaderMap, routing::post};
    let arrived = Arc::new(tokio::sync::Notify::new());
    let heard = arrived.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    let take = post(async move |headers: HeaderMap| {
        assert!(headers["stripe-signature"].to_str().unwrap().starts_with("t="));
        heard.notify_one();
    });
    let router = Router::new().route("/webhooks/stripe", take.clone()).route("/elsewhere", take);
    tokio::spawn(async move { axum::serve(listener, router).await });
    for elsewhere in [None, Some(format!("{site}/elsewhere"))] {
        let mut options = options(&Folder::new());
        (options.data_dir, options.background) = (None, true);
        (options.site, options.stripe_webhooks) = (Some(site.clone()), elsewhere);
        let host = Host::start(options).await.unwrap();
        let key = host.stripe_sandbox().unwrap().secret_key.clone();
        call(&host, Method::POST, "customers", &key, "name=Ada").await.expect(200);
        arrived.notified().await;
        host.stop().await;
    }
}

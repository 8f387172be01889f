//! The doubles of WeChat Pay and Alipay as `cargo run` mounts them: on the platform's own port, with its clock.

use std::{net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tenantry_domain::{
    Clock as _, SystemClock,
    plans::{DEFAULT_PLANS, Plans},
};
use tenantry_host::{Options, Platform};
use tenantry_payments::{
    HttpClient, NewOrder, Payment, Presentation, Show, TradeState,
    alipay::{Alipay, AlipayConfig},
    wechat::{WeChatConfig, WeChatPay},
};
use tenantry_sandbox::china::Vendor;
use tenantry_web::config::Env;
use tokio::net::TcpListener;

async fn send(method: &str, url: &str, form: &'static str) -> (StatusCode, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_order_is_paid_by_hand_on_the_platforms_own_port() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    let mut options = Options::in_memory(Plans::parse(DEFAULT_PLANS).unwrap(), Env::default());
    options.background = false;
    options.site = Some(site.clone());
    let platform = Platform::start(options).await.unwrap();
    tokio::spawn(axum::serve(listener, platform.router()).into_future());

    let china = platform.china().unwrap().clone();
    let (http, clock) = (HttpClient::new(), Arc::new(SystemClock));
    let wechat = WeChatConfig::from_json(&china.wechat().to_json()).unwrap();
    let alipay = AlipayConfig::from_json(&china.alipay().to_json()).unwrap();
    let clients = [
        (Vendor::WeChat, Payment::WeChat(WeChatPay::new(wechat, http.clone(), clock.clone()).unwrap())),
        (Vendor::Alipay, Payment::Alipay(Alipay::new(alipay, http, clock).unwrap())),
    ];
    for (vendor, client) in clients {
        let order = NewOrder {
            out_trade_no: "ord_00000001",
            amount: 8880,
            description: "一个月 Pro",
            expires_at: SystemClock.now() + 1_800_000,
            show: Show::QrCode,
        };
        let Presentation::QrCode(url) = client.create(&order).await.unwrap() else { panic!() };
        assert_eq!(url, format!("{site}/_dev/pay/{}/ord_00000001", vendor.as_str()));
        let (status, page) = send("POST", &url, "action=pay").await;
        assert!(status.is_success() && page.contains("not exist"), "{page}");
        assert!(matches!(client.query("ord_00000001").await.unwrap().state, TradeState::Paid(_)));
    }
    // The notifications reach the platform's own port, whatever it says to them.
    assert_eq!(china.deliver_due().await, 2);
    let listed = china.notifications();
    let urls = [format!("{site}/webhooks/wechat"), format!("{site}/webhooks/alipay")];
    assert_eq!(listed.iter().map(|it| it.url.as_str()).collect::<Vec<_>>(), urls);
    assert!(listed.iter().all(|it| it.attempts == 1 && it.last_answer.is_some()), "{listed:?}");
    let (status, overview) = send("GET", &format!("{site}/_dev/pay"), "").await;
    assert!(status == StatusCode::OK && overview.contains("ord_00000001") && overview.contains("test double"));
}

#[tokio::test]
async fn a_platform_without_an_address_has_none() {
    let options = Options::in_memory(Plans::parse(DEFAULT_PLANS).unwrap(), Env::default());
    let platform = Platform::start(Options { background: false, ..options }).await.unwrap();
    assert!(platform.china().is_none());
    let request = Request::get("/_dev/pay").body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(platform.router(), request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

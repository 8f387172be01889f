//! The pages that people click, and the controls.

use serde_json::json;
use tenantry_payments::TradeState;
use tenantry_sandbox::china::{Fault, Vendor};

use crate::{
    raw::{get, post_form, post_json},
    shop::{ORDER, Shop, code, header},
};

fn site(shop: &Shop) -> String {
    shop.china.alipay().gateway.split("/_dev/").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_person_scans_declines_leaves_and_pays() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        let url = code(client.create(&shop.order(ORDER)).await.unwrap());
        let page = get(&url).await;
        assert_eq!(page.status, 200);
        let text = page.text();
        assert!(text.contains("test double") && text.contains("no money moves") && text.contains("¥88.80"), "{text}");
        assert!(header(&page.headers, "content-security-policy").contains("default-src 'none'"));
        assert_eq!(shop.state(vendor, ORDER).await, TradeState::NotPaid, "scanned");

        assert!(post_form(&url, "action=decline").await.text().contains("was declined"));
        assert!(post_form(&url, "action=abandon").await.text().contains("You have left"));
        assert_eq!(post_form(&url, "action=other").await.status, 409);
        assert_eq!(shop.state(vendor, ORDER).await, TradeState::NotPaid);
        assert!(post_form(&url, "action=pay").await.text().contains("money that does not exist"));
        assert!(matches!(shop.state(vendor, ORDER).await, TradeState::Paid(_)));
        let again = post_form(&url, "action=pay").await;
        assert_eq!(again.status, 409);
        assert!(!again.text().contains("<button"), "nothing left to choose");
        assert_eq!(get(&url.replace(ORDER, "ord_none")).await.status, 404);
        shop.the_notification();
    }
}

#[tokio::test]
async fn the_overview_shows_orders_and_notifications() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        let mut order = shop.order(ORDER);
        order.description = "<b>bold";
        client.create(&order).await.unwrap();
        shop.china.pay(vendor, ORDER).unwrap();
    }
    let text = get(&format!("{}/_dev/pay", site(&shop))).await.text();
    assert!(text.contains("test double") && text.contains("WeChat Pay payment") && text.contains("Alipay payment"));
    assert!(text.contains("&lt;b&gt;bold") && !text.contains("<b>"), "{text}");
    let json = get(&format!("{}/_dev/pay.json", site(&shop))).await.json();
    assert_eq!(json["orders"]["wechat"][0]["state"], "SUCCESS");
    assert_eq!(json["orders"]["alipay"][0]["state"], "TRADE_SUCCESS");
    assert_eq!(json["notifications"].as_array().unwrap().len(), 2);
    let secrets = [&shop.china.wechat().api_v3_key, &shop.china.wechat().merchant_key, &shop.china.alipay().app_key];
    assert!(
        secrets.iter().all(|secret| !json.to_string().contains(secret.as_str()) && !text.contains(secret.as_str()))
    );
}

#[tokio::test]
async fn other_sites_and_other_names_see_nothing() {
    let shop = Shop::open().await;
    let url = code(shop.wechat.create(&shop.order(ORDER)).await.unwrap());
    let (kind, form) = ("content-type", "application/x-www-form-urlencoded");
    for (headers, status) in [
        (vec![("host", "evil.example")], 404),
        (vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), (kind, form)], 403),
    ] {
        let answer = crate::raw::send("POST", &url, &headers, "action=pay").await;
        assert_eq!(answer.status, status);
        let overview = format!("{}/_dev/pay", site(&shop));
        assert_eq!(crate::raw::send("GET", &overview, &headers, "").await.status, status);
    }
    assert_eq!(shop.state(Vendor::WeChat, ORDER).await, TradeState::NotPaid);
}

#[tokio::test]
async fn notifications_are_held_reordered_repeated_and_forged_by_hand() {
    let receiver = crate::raw::Site::open().await;
    receiver.answer(200, "success");
    let shop = Shop::notified_at(&receiver.url).await;
    let control = |path: &str| format!("{}/_dev/pay/{path}", site(&shop));
    assert_eq!(post_json(&control("notifications/hold?held=true"), json!({})).await.status, 204);
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.pay(vendor, ORDER).unwrap();
    }
    let list = get(&control("notifications")).await.json();
    assert_eq!(list["held"], true);
    let ids: Vec<String> = (0..2).map(|at| list["data"][at]["id"].as_str().unwrap().to_owned()).collect();

    let order = json!({"ids": [ids[1]]});
    assert_eq!(post_json(&control("notifications/reorder"), order).await.status, 204);
    assert_eq!(post_json(&control("notifications/reorder"), json!({"ids": ["none"]})).await.status, 404);
    let delay = control(&format!("notifications/{}/delay?seconds=60", ids[0]));
    assert_eq!(post_json(&delay, json!({})).await.status, 204);
    assert_eq!(shop.china.deliver_due().await, 1, "the other one waits");
    shop.clock.advance(60_000);
    assert_eq!(shop.china.deliver_due().await, 1);

    assert_eq!(post_json(&control(&format!("notifications/{}/repeat", ids[0])), json!({})).await.status, 204);
    assert_eq!(shop.china.deliver_due().await, 1);
    let forged = control(&format!("notifications/{}/deliver?disguise=wrong_key", ids[0]));
    assert_eq!(post_json(&forged, json!({})).await.json()["data"]["progress"], "delivered", "this shop takes anything");
    // A browser's button leads back to the overview.
    let pressed = post_form(&control(&format!("notifications/{}/deliver", ids[0])), "").await;
    assert_eq!((pressed.status, pressed.header("location").as_str()), (303, "/_dev/pay"));

    let received = receiver.received();
    let paths: Vec<&str> = received.iter().map(|it| it.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(paths, ["alipay", "wechat", "wechat", "wechat", "wechat"]);
    let believed: Vec<bool> =
        received.iter().skip(1).map(|it| shop.wechat.parse_notification(&it.headers, &it.body).is_ok()).collect();
    assert_eq!(believed, [true, true, false, true]);
}

#[tokio::test]
async fn faults_are_ordered_over_http() {
    let shop = Shop::open().await;
    let url = format!("{}/_dev/pay/faults/alipay", site(&shop));
    let ordered = json!({"faults": ["break_off", {"slow": 5}, "none"]});
    assert_eq!(post_json(&url, ordered.clone()).await.status, 204);
    assert_eq!(get(&url).await.json(), ordered);
    assert_eq!(shop.china.faults(Vendor::Alipay).left(), [Fault::BreakOff, Fault::Slow(5), Fault::None]);
    assert_eq!(post_form(&format!("{url}/next?fault=hang"), "").await.status, 303);
    assert_eq!(shop.china.faults(Vendor::Alipay).left().len(), 4);
    assert_eq!(crate::raw::send("DELETE", &url, &[], "").await.status, 204);
    assert_eq!(shop.china.faults(Vendor::Alipay).left(), []);
    assert_eq!(get(&url.replace("alipay", "stripe")).await.status, 404);
}

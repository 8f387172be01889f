//! What Alipay alone does and refuses.

use tenantry_payments::{Closing, PaymentError, Presentation, Show, TradeState};
use tenantry_sandbox::china::Vendor;

use crate::shop::{MINUTE, ORDER, Shop, refund, refused};

#[tokio::test]
async fn there_is_no_trade_before_the_code_is_scanned() {
    let shop = Shop::open().await;
    shop.alipay.create(&shop.order(ORDER)).await.unwrap();
    assert_eq!(shop.state(Vendor::Alipay, ORDER).await, TradeState::Absent);
    assert_eq!(shop.alipay.close(ORDER).await.unwrap(), Closing::Absent);
    // Hence another amount is no contradiction yet …
    let mut dearer = shop.order(ORDER);
    dearer.amount = 9000;
    shop.alipay.create(&dearer).await.unwrap();
    shop.china.scan(Vendor::Alipay, ORDER).unwrap();
    assert_eq!(shop.state(Vendor::Alipay, ORDER).await, TradeState::NotPaid);
    assert_eq!(shop.alipay.query(ORDER).await.unwrap().amount, Some(9000));
    // … and afterwards it is.
    assert_eq!(refused(shop.alipay.create(&shop.order(ORDER)).await), "ACQ.CONTEXT_INCONSISTENT");
    shop.alipay.create(&dearer).await.unwrap();
}

#[tokio::test]
async fn a_code_that_was_not_scanned_survives_its_closing_and_not_its_expiry() {
    let shop = Shop::open().await;
    shop.alipay.create(&shop.order(ORDER)).await.unwrap();
    assert_eq!(shop.alipay.close(ORDER).await.unwrap(), Closing::Absent);
    shop.china.pay(Vendor::Alipay, ORDER).expect("it can still be paid");

    shop.alipay.create(&shop.order("ord_late")).await.unwrap();
    shop.clock.advance(30 * MINUTE);
    assert!(shop.china.pay(Vendor::Alipay, "ord_late").is_err());
    assert_eq!(shop.state(Vendor::Alipay, "ord_late").await, TradeState::Absent);
}

#[tokio::test]
async fn a_trade_that_runs_out_of_time_closes_itself() {
    let shop = Shop::open().await;
    shop.alipay.create(&shop.order(ORDER)).await.unwrap();
    shop.china.scan(Vendor::Alipay, ORDER).unwrap();
    shop.clock.advance(30 * MINUTE);
    assert_eq!(shop.state(Vendor::Alipay, ORDER).await, TradeState::Closed);
    assert_eq!(refused(shop.alipay.create(&shop.order(ORDER)).await), "ACQ.TRADE_HAS_CLOSE");
}

#[tokio::test]
async fn a_part_refunded_leaves_the_trade_paid() {
    let shop = Shop::open().await;
    shop.paid(Vendor::Alipay, ORDER).await;
    shop.alipay.refund(&refund(ORDER, "ref_1", 8879)).await.unwrap();
    assert!(matches!(shop.state(Vendor::Alipay, ORDER).await, TradeState::Paid(_)));
    let different = shop.alipay.refund(&refund(ORDER, "ref_1", 8878)).await;
    assert_eq!(refused(different), "ACQ.DISCORDANT_REPEAT_REQUEST");
    let too_much = shop.alipay.refund(&refund(ORDER, "ref_2", 2)).await;
    assert_eq!(refused(too_much), "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL");
}

#[tokio::test]
async fn the_page_is_for_browsers() {
    let shop = Shop::open().await;
    let order = tenantry_payments::NewOrder {
        show: Show::Page { return_url: Some("https://shop.example/back?order=1") },
        ..shop.order(ORDER)
    };
    let Presentation::Redirect(url) = shop.alipay.create(&order).await.unwrap() else { panic!() };
    assert_eq!(shop.china.pay(Vendor::Alipay, ORDER).unwrap_err().0, "There is no such order here.");
    let answer = crate::raw::get(&url).await;
    assert_eq!((answer.status, answer.header("location")), (303, format!("/_dev/pay/alipay/{ORDER}")));
    assert_eq!(shop.state(Vendor::Alipay, ORDER).await, TradeState::Absent, "nobody has looked at it");
    let site = url.split("/_dev/").next().unwrap();
    let page = crate::raw::get(&format!("{site}/_dev/pay/alipay/{ORDER}")).await;
    assert!(page.text().contains("href=\"https://shop.example/back?order=1\""), "{}", page.text());
    assert_eq!(shop.state(Vendor::Alipay, ORDER).await, TradeState::NotPaid);

    // The link is a signed call: nobody changes the price in it.
    assert!(url.contains("88.80"));
    let cheaper = crate::raw::get(&url.replace("88.80", "0.01")).await;
    assert_eq!(cheaper.status, 400);
    assert!(cheaper.text().contains("isv.invalid-signature"));
    assert_eq!(shop.alipay.query(ORDER).await.unwrap().amount, Some(8880));
}

#[tokio::test]
async fn nothing_is_created_that_has_expired() {
    let shop = Shop::open().await;
    let mut order = shop.order(ORDER);
    order.expires_at = 0;
    assert!(matches!(shop.alipay.create(&order).await, Err(PaymentError::Invalid(_))));
}

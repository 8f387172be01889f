//! What WeChat Pay alone does and refuses.

use tenantry_payments::{PaymentError, RefundState, TradeState};
use tenantry_sandbox::china::{RefundOutcome, Vendor};

use crate::shop::{MINUTE, ORDER, Shop, code, refund, refund_notice, refused};

#[tokio::test]
async fn an_order_may_be_created_again_but_not_another_by_its_number() {
    let shop = Shop::open().await;
    let first = code(shop.wechat.create(&shop.order(ORDER)).await.unwrap());
    assert_eq!(code(shop.wechat.create(&shop.order(ORDER)).await.unwrap()), first);
    assert_eq!(shop.state(Vendor::WeChat, ORDER).await, TradeState::NotPaid, "there without a scan");
    let mut dearer = shop.order(ORDER);
    dearer.amount += 1;
    assert_eq!(refused(shop.wechat.create(&dearer).await), "INVALID_REQUEST");
    // An order that has run out of time is not closed before somebody closes it.
    shop.clock.advance(30 * MINUTE);
    assert_eq!(shop.state(Vendor::WeChat, ORDER).await, TradeState::NotPaid);
    shop.wechat.close(ORDER).await.unwrap();
    assert_eq!(refused(shop.wechat.create(&shop.order(ORDER)).await), "ORDER_CLOSED");
}

#[tokio::test]
async fn emoji_are_refused_before_anything_is_sent() {
    let shop = Shop::open().await;
    let mut order = shop.order(ORDER);
    order.description = "Pro 🎉";
    assert!(matches!(shop.wechat.create(&order).await, Err(PaymentError::Invalid(_))));
    shop.alipay.create(&order).await.expect("Alipay takes them");
}

#[tokio::test]
async fn a_part_refunded_shows_in_the_orders_state() {
    let shop = Shop::open().await;
    shop.paid(Vendor::WeChat, ORDER).await;
    shop.wechat.refund(&refund(ORDER, "ref_1", 1)).await.unwrap();
    assert!(matches!(shop.state(Vendor::WeChat, ORDER).await, TradeState::Refunded(_)));
}

#[tokio::test]
async fn a_refund_takes_its_time_and_may_fail() {
    let shop = Shop::open().await;
    shop.paid(Vendor::WeChat, ORDER).await;
    shop.china.set_refund_outcome(RefundOutcome::Processing);
    let made = shop.wechat.refund(&refund(ORDER, "ref_1", 8880)).await.unwrap();
    assert_eq!((made.state, made.refunded_at), (RefundState::Processing, None));
    assert!(shop.china.take_notifications().is_empty());
    refused(shop.wechat.refund(&refund(ORDER, "ref_2", 1)).await);

    shop.china.settle_refund("ref_1", RefundOutcome::Closed).unwrap();
    assert!(shop.china.settle_refund("ref_1", RefundOutcome::Success).is_err(), "it has ended");
    assert_eq!(refund_notice(shop.the_notification()).state, RefundState::Closed);
    assert_eq!(shop.wechat.query_refund(ORDER, "ref_1").await.unwrap().state, RefundState::Closed);
    assert!(matches!(shop.state(Vendor::WeChat, ORDER).await, TradeState::Paid(_)), "nothing went back");

    shop.china.set_refund_outcome(RefundOutcome::Abnormal);
    shop.wechat.refund(&refund(ORDER, "ref_2", 8880)).await.unwrap();
    let notice = refund_notice(shop.the_notification());
    assert_eq!((notice.state, notice.refunded_at), (RefundState::Abnormal, None));
    assert_eq!(shop.wechat.query_refund(ORDER, "ref_2").await.unwrap().state, RefundState::Abnormal);
}

#[tokio::test]
async fn the_number_of_a_refund_belongs_to_one_order() {
    let shop = Shop::open().await;
    shop.paid(Vendor::WeChat, ORDER).await;
    shop.paid(Vendor::WeChat, "ord_00000002").await;
    shop.wechat.refund(&refund(ORDER, "ref_1", 1)).await.unwrap();
    assert_eq!(refused(shop.wechat.refund(&refund("ord_00000002", "ref_1", 1)).await), "INVALID_REQUEST");
}

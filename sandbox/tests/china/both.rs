//! What holds for both vendors alike.

use tenantry_payments::{Closing, Mismatch, PaymentError, RefundState, TradeState};
use tenantry_sandbox::china::{Fault, Refusal, Vendor};

use crate::shop::{HOUR, MINUTE, ORDER, Shop, receipt, refund, refund_notice, refused, trade};

#[tokio::test]
async fn an_order_is_paid_and_notification_and_query_say_the_same() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        assert!(shop.china.take_notifications().is_empty());
        shop.clock.advance(MINUTE);
        let transaction = shop.china.pay(vendor, ORDER).unwrap();

        let paid_at = tenantry_domain::Clock::now(&*shop.clock);
        let told = trade(shop.the_notification());
        assert_eq!(client.expectation(ORDER, 8880).check(&told), Ok(()));
        assert_eq!(client.expectation(ORDER, 8881).check(&told), Err(Mismatch::Amount(Some(8880))));
        let asked = client.query(ORDER).await.unwrap();
        assert_eq!(client.expectation(ORDER, 8880).check(&asked), Ok(()));
        for said in [told.state, asked.state] {
            assert!(matches!(said, TradeState::Paid(_)), "{said:?}");
            assert_eq!(receipt(&said).vendor_transaction, transaction);
            assert_eq!(receipt(&said).paid_at, Some(paid_at));
        }
        assert_eq!(shop.china.pay(vendor, ORDER), Err(Refusal("It is already paid.")), "nobody pays twice");
        assert!(shop.china.take_notifications().is_empty());
    }
}

#[tokio::test]
async fn a_declined_payment_leaves_the_order_payable() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.decline(vendor, ORDER).unwrap();
        assert_eq!(shop.state(vendor, ORDER).await, TradeState::NotPaid);
        assert!(shop.china.take_notifications().is_empty());
        shop.china.pay(vendor, ORDER).unwrap();
        assert!(matches!(shop.state(vendor, ORDER).await, TradeState::Paid(_)));
        shop.the_notification();
    }
}

#[tokio::test]
async fn a_closed_order_cannot_be_paid_and_a_paid_one_not_closed() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.scan(vendor, ORDER).unwrap();
        assert_eq!(client.close(ORDER).await.unwrap(), Closing::Closed);
        assert_eq!(client.close(ORDER).await.unwrap(), Closing::Closed, "again");
        assert_eq!(shop.state(vendor, ORDER).await, TradeState::Closed);
        assert_eq!(shop.china.pay(vendor, ORDER), Err(Refusal("The order is closed.")));
        refused(client.create(&shop.order(ORDER)).await);

        let transaction = shop.paid(vendor, "ord_paid").await;
        let Closing::AlreadyPaid(found) = client.close("ord_paid").await.unwrap() else { panic!() };
        assert_eq!(receipt(&found.state).vendor_transaction, transaction);
        refused(client.create(&shop.order("ord_paid")).await);

        assert_eq!(client.close("ord_none").await.unwrap(), Closing::Absent);
        assert_eq!(shop.state(vendor, "ord_none").await, TradeState::Absent);
        assert_eq!(shop.china.pay(vendor, "ord_none"), Err(Refusal("There is no such order here.")));
    }
}

#[tokio::test]
async fn time_runs_out_for_orders_and_for_codes() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        let mut long = shop.order("ord_long");
        long.expires_at += 5 * HOUR;
        client.create(&long).await.unwrap();
        shop.clock.advance(30 * MINUTE);
        assert_eq!(shop.china.pay(vendor, ORDER), Err(Refusal("The order has expired.")));
        shop.clock.advance(90 * MINUTE);
        let expired = Refusal("The code has expired; the shop has to make another one.");
        assert_eq!(shop.china.scan(vendor, "ord_long"), Err(expired));
        client.create(&long).await.unwrap();
        shop.china.pay(vendor, "ord_long").unwrap();
        shop.the_notification();
    }
}

#[tokio::test]
async fn refunds_in_parts_up_to_the_whole_and_each_number_once() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        let transaction = shop.paid(vendor, ORDER).await;
        assert_eq!(client.query_refund(ORDER, "ref_1").await.unwrap().state, RefundState::Absent);
        for _ in 0..3 {
            let made = client.refund(&refund(ORDER, "ref_1", 880)).await.unwrap();
            assert_eq!(made.amount, Some(880));
            assert!(matches!(made.state, RefundState::Processing | RefundState::Succeeded));
        }
        let notice = refund_notice(shop.the_notification());
        assert_eq!(client.expectation(ORDER, 8880).check_refund(&notice), Ok(()));
        assert_eq!(notice.vendor_transaction, transaction);
        assert_eq!(notice.out_refund_no.as_deref(), Some("ref_1"));
        assert_eq!(notice.state, RefundState::Succeeded);
        assert_eq!(notice.refunded_at, Some(tenantry_domain::Clock::now(&*shop.clock)));
        assert_eq!(
            (notice.amount, notice.refunded_in_all),
            match vendor {
                Vendor::WeChat => (Some(880), None),
                Vendor::Alipay => (None, Some(880)),
            }
        );
        let found = client.query_refund(ORDER, "ref_1").await.unwrap();
        assert_eq!((found.state, found.amount), (RefundState::Succeeded, Some(880)));

        // The same number over another amount, too much, and of orders that have nothing to give back.
        refused(client.refund(&refund(ORDER, "ref_1", 881)).await);
        refused(client.refund(&refund(ORDER, "ref_2", 8001)).await);
        refused(client.refund(&refund("ord_none", "ref_3", 1)).await);
        client.create(&shop.order("ord_unpaid")).await.unwrap();
        shop.china.scan(vendor, "ord_unpaid").unwrap();
        refused(client.refund(&refund("ord_unpaid", "ref_3", 1)).await);
        assert!(shop.china.take_notifications().is_empty());

        client.refund(&refund(ORDER, "ref_2", 8000)).await.unwrap();
        let notice = refund_notice(shop.the_notification());
        assert_eq!(notice.out_refund_no.as_deref(), Some("ref_2"));
        assert!(matches!(shop.state(vendor, ORDER).await, TradeState::Refunded(_)));
        refused(client.refund(&refund(ORDER, "ref_4", 1)).await);
    }
}

#[tokio::test]
async fn after_a_year_nothing_is_refunded() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        shop.paid(vendor, ORDER).await;
        shop.clock.advance(366 * crate::shop::DAY);
        refused(client.refund(&refund(ORDER, "ref_1", 8880)).await);
        assert!(matches!(shop.state(vendor, ORDER).await, TradeState::Paid(_)));
    }
}

#[tokio::test]
async fn answers_that_are_lost_are_asked_for_again_and_nothing_happens_twice() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        let faults = shop.china.faults(vendor);
        for fault in [Fault::Error500, Fault::Error500Applied, Fault::BreakOff] {
            faults.order([fault]);
            client.create(&shop.order(ORDER)).await.unwrap();
            assert_eq!(faults.left(), []);
        }
        shop.china.pay(vendor, ORDER).unwrap();
        shop.the_notification();
        faults.order([Fault::BreakOff, Fault::Error500Applied]);
        client.refund(&refund(ORDER, "ref_1", 8000)).await.unwrap();
        assert_eq!(client.query_refund(ORDER, "ref_1").await.unwrap().state, RefundState::Succeeded);
        shop.the_notification();
        client.refund(&refund(ORDER, "ref_2", 880)).await.unwrap();
        shop.the_notification();
        faults.order([Fault::Error500; 3]);
        assert!(matches!(client.query(ORDER).await, Err(PaymentError::Unavailable(_))));
        faults.order([Fault::Slow(1)]);
        client.query(ORDER).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_waited_for() {
    let shop = Shop::open().await.in_haste();
    for (vendor, client) in shop.both() {
        let faults = shop.china.faults(vendor);
        faults.order([Fault::Hang, Fault::Hang]);
        client.create(&shop.order(ORDER)).await.unwrap();
        assert_eq!(faults.left(), []);
        shop.china.pay(vendor, ORDER).unwrap();
        shop.the_notification();
    }
}

#[tokio::test]
async fn answers_that_the_vendor_did_not_sign_are_not_believed() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        shop.paid(vendor, ORDER).await;
        let faults = shop.china.faults(vendor);
        for fault in [Fault::Tamper, Fault::Unsigned, Fault::WrongKey, Fault::Stale, Fault::Probe] {
            if (vendor, fault) == (Vendor::Alipay, Fault::Stale) {
                continue;
            }
            faults.order([fault]);
            let answer = client.query(ORDER).await;
            assert!(matches!(answer, Err(PaymentError::BadSignature(_))), "{vendor:?} {fault:?}: {answer:?}");
        }
        client.query(ORDER).await.unwrap();
    }
}

#[tokio::test]
async fn the_vendors_do_not_know_each_others_orders() {
    let shop = Shop::open().await;
    shop.paid(Vendor::WeChat, ORDER).await;
    assert_eq!(shop.state(Vendor::Alipay, ORDER).await, TradeState::Absent);
    let alipay = shop.paid(Vendor::Alipay, ORDER).await;
    let TradeState::Paid(receipt) = shop.state(Vendor::WeChat, ORDER).await else { panic!() };
    assert_ne!(receipt.vendor_transaction, alipay);
}

//! Notifications: genuine ones in any order, and all that are not.

use std::collections::HashSet;

use serde_json::Value;
use tenantry_payments::{Event, PaymentError};
use tenantry_sandbox::china::{Disguise, Progress, SignedNotification, Vendor};

use crate::shop::{DAY, MINUTE, ORDER, Shop, header, refund};

/// The notification of a payment at each vendor.
async fn one_each(shop: &Shop) -> Vec<SignedNotification> {
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.pay(vendor, ORDER).unwrap();
    }
    shop.china.take_notifications()
}

#[tokio::test]
async fn they_are_taken_once_and_can_be_read_again_and_again() {
    let shop = Shop::open().await;
    let taken = one_each(&shop).await;
    assert_eq!(taken.iter().map(|it| it.vendor).collect::<Vec<_>>(), [Vendor::WeChat, Vendor::Alipay]);
    assert!(shop.china.take_notifications().is_empty());
    for notification in &taken {
        assert_eq!((notification.out_trade_no.as_str(), notification.event), (ORDER, "payment"));
        let url = format!("https://shop.example/webhooks/{}", notification.vendor.as_str());
        assert_eq!(notification.url, url);
        let first = shop.read(notification).unwrap();
        assert_eq!(first.id, notification.id);
        assert_eq!(shop.read(notification).unwrap(), first);
        // A repetition is signed anew, and has the same id.
        shop.clock.advance(4 * MINUTE);
        let again = shop.china.notification(&notification.id, Disguise::Genuine).unwrap();
        assert_ne!(again.body, notification.body);
        assert_eq!(shop.read(&again).unwrap().id, first.id);
        assert_eq!(shop.read(&again).unwrap().event, first.event);
    }
}

#[tokio::test]
async fn a_payment_and_its_refunds_can_be_told_in_any_order() {
    let shop = Shop::open().await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.pay(vendor, ORDER).unwrap();
        client.refund(&refund(ORDER, "ref_1", 80)).await.unwrap();
        client.refund(&refund(ORDER, "ref_2", 8800)).await.unwrap();
    }
    let taken = shop.china.take_notifications();
    let events: Vec<&str> = taken.iter().map(|it| it.event).collect();
    assert_eq!(events, ["payment", "refund", "refund", "payment", "refund", "refund"]);
    assert_eq!(taken.iter().map(|it| &it.id).collect::<HashSet<_>>().len(), 6);
    for notification in taken.iter().rev() {
        let read = shop.read(notification).unwrap();
        assert_eq!(matches!(read.event, Event::Refund(_)), notification.event == "refund");
    }
}

#[tokio::test]
async fn what_is_not_the_vendors_is_refused() {
    let shop = Shop::open().await;
    for notification in one_each(&shop).await {
        let disguised = |disguise| shop.read(&shop.china.notification(&notification.id, disguise).unwrap());
        for disguise in [Disguise::Probe, Disguise::WrongKey, Disguise::Stale, Disguise::Altered] {
            let read = disguised(disguise);
            assert!(matches!(read, Err(PaymentError::BadSignature(_))), "{disguise:?}: {read:?}");
        }
        let unknown = disguised(Disguise::UnknownSerial);
        assert_eq!(unknown.is_err(), notification.vendor == Vendor::WeChat, "{unknown:?}");
        disguised(Disguise::Certificate).expect("either key may have signed");
        // The other vendor's client does not take it.
        for (vendor, client) in shop.both() {
            let read = client.parse_notification(&notification.headers, &notification.body);
            assert_eq!(read.is_ok(), vendor == notification.vendor);
        }
    }
}

#[tokio::test]
async fn every_byte_of_a_notification_counts() {
    let shop = Shop::open().await;
    for notification in one_each(&shop).await {
        for at in 0..notification.body.len() {
            let mut body = notification.body.to_vec();
            body[at] ^= 1;
            let altered = SignedNotification { body: body.into(), ..notification.clone() };
            // A form may name its signature's type as it likes; nothing else may differ.
            let read = shop.read(&altered);
            let form = String::from_utf8_lossy(&notification.body).into_owned();
            let kind = form.find("sign_type=").filter(|_| notification.vendor == Vendor::Alipay);
            let is_kind =
                kind.is_some_and(|kind| (kind + "sign_type=".len()..kind + "sign_type=RSA2".len()).contains(&at));
            if is_kind {
                continue;
            }
            assert!(read.is_err(), "byte {at} of {}", String::from_utf8_lossy(&altered.body));
        }
        let longer = [&notification.body[..], b" "].concat();
        let longer = SignedNotification { body: longer.into(), ..notification.clone() };
        assert!(shop.read(&longer).is_err());
    }
}

#[tokio::test]
async fn wechats_headers_are_each_needed_once() {
    let shop = Shop::open().await;
    let notification = one_each(&shop).await.remove(0);
    for name in ["wechatpay-serial", "wechatpay-signature", "wechatpay-timestamp", "wechatpay-nonce"] {
        let mut without = notification.clone();
        without.headers.remove(name);
        assert!(shop.read(&without).is_err(), "without {name}");
        let mut twice = notification.clone();
        twice.headers.append(name, twice.headers[name].clone());
        assert!(shop.read(&twice).is_err(), "{name} twice");
        let mut other = notification.clone();
        other.headers.insert(name, format!("1{}", header(&other.headers, name)).parse().unwrap());
        assert!(shop.read(&other).is_err(), "{name} changed");
    }
    // The probe is told by the signature alone, whatever follows.
    let probe = shop.china.notification(&notification.id, Disguise::Probe).unwrap();
    assert!(header(&probe.headers, "wechatpay-signature").starts_with("WECHATPAY/SIGNTEST/"));
}

#[tokio::test]
async fn old_ones_are_refused() {
    let shop = Shop::open().await;
    let [wechat, alipay]: [SignedNotification; 2] = one_each(&shop).await.try_into().unwrap();
    shop.clock.advance(5 * MINUTE);
    assert!(matches!(shop.read(&wechat), Err(PaymentError::BadSignature(_))));
    shop.read(&alipay).unwrap();
    shop.clock.advance(2 * DAY);
    assert!(matches!(shop.read(&alipay), Err(PaymentError::BadSignature(_))));
}

#[tokio::test]
async fn nothing_in_the_clear_says_who_paid() {
    let shop = Shop::open().await;
    let wechat = one_each(&shop).await.remove(0);
    let envelope: Value = serde_json::from_slice(&wechat.body).unwrap();
    assert_eq!(envelope["event_type"], "TRANSACTION.SUCCESS");
    assert_eq!(envelope["resource"]["algorithm"], "AEAD_AES_256_GCM");
    assert!(!String::from_utf8_lossy(&wechat.body).contains(ORDER));
}

#[tokio::test]
async fn deliveries_over_http_are_repeated_until_the_shop_takes_them() {
    let site = crate::raw::Site::open().await;
    let shop = Shop::notified_at(&site.url).await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.pay(vendor, ORDER).unwrap();
    }
    site.answer(500, "fail");
    assert_eq!(shop.china.deliver_due().await, 2);
    assert_eq!(shop.china.deliver_due().await, 0, "not before their time");
    // Alipay wants its word, WeChat Pay looks at the status.
    site.answer(200, "SUCCESS");
    shop.clock.advance(MINUTE);
    assert_eq!(shop.china.deliver_due().await, 2);
    let progress = || shop.china.notifications().iter().map(|it| it.progress).collect::<Vec<_>>();
    assert_eq!(progress(), [Progress::Delivered, Progress::Waiting]);
    site.answer(200, "success");
    shop.clock.advance(MINUTE);
    assert_eq!(shop.china.deliver_due().await, 1);
    assert_eq!(progress(), [Progress::Delivered, Progress::Delivered]);

    let received = site.received();
    let paths: Vec<&str> = received.iter().map(|it| it.path.as_str()).collect();
    let (wechat, alipay) = ("/webhooks/wechat", "/webhooks/alipay");
    assert_eq!(paths, [wechat, alipay, wechat, alipay, alipay]);
    let client = |path: &str| shop.client(if path == wechat { Vendor::WeChat } else { Vendor::Alipay });
    let last: Vec<_> =
        received.iter().skip(3).map(|it| client(&it.path).parse_notification(&it.headers, &it.body)).collect();
    assert!(last.iter().all(Result::is_ok), "{last:?}");
    assert_eq!(last[0].as_ref().unwrap().id, last[1].as_ref().unwrap().id);
}

#[tokio::test]
async fn the_vendors_give_up() {
    let site = crate::raw::Site::open().await;
    site.answer(500, "");
    let shop = Shop::notified_at(&site.url).await;
    for (vendor, client) in shop.both() {
        client.create(&shop.order(ORDER)).await.unwrap();
        shop.china.pay(vendor, ORDER).unwrap();
    }
    let mut sent = 0;
    for _ in 0..20 {
        sent += shop.china.deliver_due().await;
        shop.clock.advance(DAY);
    }
    assert_eq!(sent, 16 + 8, "15 repetitions, and 7");
    let listed = shop.china.notifications();
    assert!(listed.iter().all(|it| it.progress == Progress::GivenUp), "{listed:?}");
}

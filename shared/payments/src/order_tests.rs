use super::*;

const EXPECTED: Expectation<'_> = Expectation {
    vendor: Vendor::Alipay,
    app_id: "app",
    merchant: "seller",
    out_trade_no: "ord_000001",
    amount: 19_900,
};

fn trade() -> Trade {
    Trade {
        vendor: Vendor::Alipay,
        app_id: Some("app".into()),
        merchant: Some("seller".into()),
        out_trade_no: "ord_000001".into(),
        amount: Some(19_900),
        currency: "CNY".into(),
        state: TradeState::NotPaid,
    }
}

#[test]
fn every_difference_has_a_name() {
    assert_eq!(EXPECTED.check(&trade()), Ok(()));
    let other = |change: &dyn Fn(&mut Trade)| {
        let mut trade = trade();
        change(&mut trade);
        EXPECTED.check(&trade)
    };
    assert_eq!(other(&|t| t.vendor = Vendor::WeChat), Err(Mismatch::Vendor(Vendor::WeChat)));
    assert_eq!(other(&|t| t.app_id = Some("App".into())), Err(Mismatch::AppId("App".into())));
    assert_eq!(other(&|t| t.merchant = Some(String::new())), Err(Mismatch::Merchant(String::new())));
    assert_eq!(other(&|t| t.out_trade_no.push('0')), Err(Mismatch::OutTradeNo("ord_0000010".into())));
    assert_eq!(other(&|t| t.amount = Some(199)), Err(Mismatch::Amount(Some(199))));
    assert_eq!(other(&|t| t.amount = None), Err(Mismatch::Amount(None)));
    assert_eq!(other(&|t| t.currency = "HKD".into()), Err(Mismatch::Currency("HKD".into())));
    assert_eq!(other(&|t| (t.app_id, t.merchant) = (None, None)), Ok(()));
}

#[test]
fn what_a_vendor_would_refuse_is_not_sent() {
    let order = NewOrder {
        out_trade_no: "ord_01jz0000000000000000000000",
        amount: 1,
        description: "专业版 1 个月",
        expires_at: 2,
        show: Show::QrCode,
    };
    assert_eq!(order.check(1), Ok(()));
    let long = "x".repeat(128);
    for wrong in [
        NewOrder { out_trade_no: "ord_1", ..order },
        NewOrder { out_trade_no: "ord_01/../refund", ..order },
        NewOrder { out_trade_no: &long, ..order },
        NewOrder { amount: 0, ..order },
        NewOrder { amount: LARGEST + 1, ..order },
        NewOrder { description: " ", ..order },
        NewOrder { description: &long, ..order },
        NewOrder { description: "a&b", ..order },
        NewOrder { description: "a\nb", ..order },
        NewOrder { expires_at: 1, ..order },
    ] {
        assert!(matches!(wrong.check(1), Err(PaymentError::Invalid(_))), "{wrong:?}");
    }
    let refund =
        NewRefund { out_trade_no: "ord_000001", out_refund_no: "ref_1", amount: 5, order_amount: 5, reason: "" };
    assert_eq!(refund.check(), Ok(()));
    for wrong in [
        NewRefund { amount: 0, ..refund },
        NewRefund { amount: 6, ..refund },
        NewRefund { out_refund_no: "", ..refund },
        NewRefund { out_refund_no: "a?b", ..refund },
        NewRefund { reason: &long, ..refund },
    ] {
        assert!(matches!(wrong.check(), Err(PaymentError::Invalid(_))), "{wrong:?}");
    }
}

use proptest::prelude::*;

use super::*;

fn order() -> Order {
    let new = NewOrder {
        id: OrderId::from_short("01ka00000000000000000000r0").unwrap(),
        provider: Provider::WeChat,
        goods: Goods::Package { id: "small".into(), credits: 1_000, expires_after_days: None },
        amount: 300,
        currency: "cny".into(),
        expires_at: 10,
        created_by: UserId::from_short("01ka00000000000000000000r0").unwrap(),
    };
    Order::new(new, 1, 5)
}

fn paid() -> Fact {
    Fact::Paid { payment: "t1".into(), at: 7 }
}

fn fact() -> impl Strategy<Value = Fact> {
    let word = || (0..3_u8).prop_map(|n| format!("w{n}"));
    prop_oneof![
        (proptest::option::of(word()), word()).prop_map(|(vendor_id, show)| Fact::Opened { vendor_id, show }),
        (word(), 0..4_i64).prop_map(|(payment, at)| Fact::Paid { payment, at }),
        Just(Fact::Closed),
        Just(Fact::Failed),
        (word(), 0..200_u64).prop_map(|(number, amount)| Fact::Refund { number, amount }),
        (0..400_u64).prop_map(|total| Fact::RefundedTo { total }),
    ]
}

proptest! {
    #[test]
    fn facts_may_come_in_any_order_and_any_number(
        (facts, shuffled) in proptest::collection::vec(fact(), 0..8).prop_flat_map(|facts| {
            let twice: Vec<_> = facts.iter().chain(&facts).cloned().collect();
            (Just(facts), Just(twice).prop_shuffle())
        })
    ) {
        let once = facts.iter().fold(order(), Order::with);
        let mixed = shuffled.iter().fold(order(), Order::with);
        prop_assert_eq!(once, mixed);
    }

    #[test]
    fn an_order_never_becomes_less_paid(facts in proptest::collection::vec(fact(), 0..8), next in fact()) {
        let before = facts.iter().fold(order(), Order::with);
        let after = before.clone().with(&next);
        prop_assert!(before.paid.is_none() || after.paid.is_some());
        prop_assert!(before.refunded() <= after.refunded() && after.refunded() <= after.amount);
    }

    #[test]
    fn shares_of_refunds_add_up_to_that_of_their_total(whole in 0..u64::MAX, steps in proptest::collection::vec(0..100_u64, 0..6)) {
        let (order, mut total, mut taken) = (order(), 0, 0_u64);
        for step in steps {
            taken += order.share(whole, total, total + step);
            total += step;
        }
        prop_assert_eq!(taken, pro_rata(whole, 300, total));
        prop_assert!(total < 300 || taken == whole);
    }
}

#[test]
fn the_states_one_after_the_other() {
    let opened = Fact::Opened { vendor_id: None, show: "weixin://pay".into() };
    let steps = [
        (Fact::RefundedTo { total: 0 }, OrderState::Created),
        (opened, OrderState::Pending),
        (Fact::Closed, OrderState::Closed),
        (Fact::Failed, OrderState::Failed),
        (paid(), OrderState::Paid),
        (Fact::Refund { number: "1".into(), amount: 100 }, OrderState::PartiallyRefunded),
        (Fact::Refund { number: "1".into(), amount: 100 }, OrderState::PartiallyRefunded),
        (Fact::RefundedTo { total: 300 }, OrderState::Refunded),
        (paid(), OrderState::Refunded),
        (Fact::Closed, OrderState::Refunded),
    ];
    let mut order = order();
    for (fact, state) in steps {
        order = order.with(&fact);
        assert_eq!(order.state(), state, "{fact:?}");
    }
    for state in OrderState::ALL {
        assert_eq!(state.is_open(), ["created", "pending"].contains(&state.name()));
    }
}

#[test]
fn what_is_left_to_do_is_known() {
    let order = order();
    assert!(!order.is_settled());
    assert!(order.clone().with(&Fact::Closed).is_settled());
    let late = order.with(&Fact::Closed).with(&paid());
    assert!(late.is_owed() && !late.is_settled(), "paid after it was closed");
    let given = Order { fulfilled: true, ..late };
    assert!(given.is_settled());
    let back = given.clone().with(&Fact::RefundedTo { total: 100 });
    assert!(back.is_due_back() && !back.is_settled());
    let taking = back.with_taking_back();
    let more = taking.with(&Fact::RefundedTo { total: 300 }).with_taking_back();
    assert_eq!(more.taking_back, Some(100), "one step after the other");
    let more = more.with_taken_back(100).with_taking_back();
    assert_eq!((more.taken_back, more.taking_back), (100, Some(300)));
    assert_eq!(more.clone().with_taken_back(100), more, "the same step again");
    assert!(more.with_taken_back(300).is_settled());
}

fn wanted(operation: &str, amount: Option<u64>) -> RefundWanted<'_> {
    RefundWanted { operation, amount, reason: "late" }
}

#[test]
fn one_refund_is_under_way_at_a_time() {
    let refused = |order: &Order, operation, amount| order.with_refund(&wanted(operation, amount)).unwrap_err();
    assert_eq!(refused(&order(), "a", None), NoRefund::NotPaid);
    let order = Order { fulfilled: true, ..order().with(&paid()) };
    assert_eq!(refused(&order, "a", Some(301)), NoRefund::TooMuch { left: 300 });
    assert_eq!(refused(&order, "a", Some(0)), NoRefund::TooMuch { left: 300 });
    let first = order.with_refund(&wanted("a", Some(100))).unwrap();
    assert_eq!(first.refund.as_ref().map(|refund| (refund.number, refund.total)), Some((1, 100)));
    for amount in [Some(100), None] {
        assert_eq!(first.with_refund(&wanted("a", amount)), Ok(first.clone()), "the same goes on");
    }
    assert_eq!(refused(&first, "a", Some(200)), NoRefund::OtherAmount { amount: 100 });
    assert_eq!(refused(&first, "b", Some(100)), NoRefund::Busy { amount: 100 });
    let begun = |order: &Order| order.refund.clone().unwrap();
    let other = RefundBegun { number: 2, ..begun(&first) };
    assert_eq!(first.clone().with_refund_ended(&other, RefundEnd::Made, None), first);
    let dropped = first.clone().with_refund_ended(&begun(&first), RefundEnd::Refused, None);
    assert_eq!((dropped.refunded(), refused(&dropped, "a", Some(100))), (0, NoRefund::Refused));
    assert_eq!(dropped.with_refund(&wanted("b", None)).unwrap().refund.unwrap().number, 2);
    let done = first.clone().with_refund_ended(&begun(&first), RefundEnd::Made, Some(&Fact::RefundedTo { total: 100 }));
    assert_eq!(done.with_refund(&wanted("a", Some(100))), Ok(done.clone()), "it is made once");
    let second = done.with_refund(&wanted("b", None)).unwrap();
    assert_eq!(second.refund.as_ref().map(|refund| (refund.number, refund.amount)), Some((2, 200)));
    let all =
        second.clone().with_refund_ended(&begun(&second), RefundEnd::Made, Some(&Fact::RefundedTo { total: 300 }));
    assert_eq!(refused(&all, "c", None), NoRefund::AllBack);
    assert_eq!(all.with_refund(&wanted("a", None)), Ok(all.clone()));
}

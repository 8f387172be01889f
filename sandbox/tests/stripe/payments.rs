//! Saved cards, refunds, disputes.

use tenantry_payments::stripe::{
    ChargeStatus, DisputeStatus, EventObject, PaymentIntent, PaymentIntentStatus, PaymentRef, RefundReason,
    RefundStatus, SavedMethodCharge, StripeError,
};
use tenantry_sandbox::stripe::Card;

use crate::stage::{ORG, Stage, key, refusal};

/// A customer with a saved card.
async fn saved(stage: &Stage) -> (String, String) {
    let subscription = stage.subscribed().await;
    stage.told();
    (subscription.customer, subscription.default_payment_method.unwrap())
}

async fn charge(stage: &Stage, owner: (&str, &str), word: &str) -> Result<PaymentIntent, StripeError> {
    let charge = SavedMethodCharge {
        customer: owner.0,
        payment_method: owner.1,
        org: ORG,
        metadata: &[("order", word)],
        amount: 1000,
        currency: "usd",
        description: "Credits",
    };
    stage.stripe.charge_saved_method(&charge, &key(word)).await
}

#[tokio::test]
async fn a_saved_card_is_charged_once_however_often_it_is_asked_for() {
    let stage = Stage::new().await;
    let (customer, method) = saved(&stage).await;
    let first = charge(&stage, (&customer, &method), "one").await.unwrap();
    assert_eq!((first.status, first.amount_received), (PaymentIntentStatus::Succeeded, 1000));
    assert_eq!((first.metadata["org"].as_str(), first.metadata["order"].as_str()), (ORG, "one"));
    let again = charge(&stage, (&customer, &method), "one").await.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(stage.kinds(), ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]);
    assert!(stage.stripe.invoice_paid_by(&first.id).await.unwrap().is_none(), "it pays no invoice");
}

#[tokio::test]
async fn a_saved_card_that_does_not_pay_says_why() {
    let stage = Stage::new().await;
    let (customer, method) = saved(&stage).await;
    for (card, code, decline) in [
        (Card::Declines, "card_declined", "generic_decline"),
        (Card::NoFunds, "card_declined", "insufficient_funds"),
        (Card::Authenticates, "authentication_required", "authentication_required"),
    ] {
        stage.sandbox.set_cards(&customer, card).unwrap();
        let refused = refusal(charge(&stage, (&customer, &method), decline).await);
        assert_eq!((refused.status, refused.kind.as_deref()), (402, Some("card_error")));
        assert_eq!((refused.code.as_deref(), refused.decline_code.as_deref()), (Some(code), Some(decline)));
        let intent = stage.stripe.payment_intent(&refused.payment_intent.unwrap()).await.unwrap();
        assert_eq!(intent.status, PaymentIntentStatus::RequiresPaymentMethod);
        assert_eq!(intent.last_payment_error.unwrap().decline_code.as_deref(), Some(decline));
        // The refusal is kept as well: the same key asks no bank again.
        let refused_again = refusal(charge(&stage, (&customer, &method), decline).await);
        assert_eq!(refused_again.payment_intent.as_deref(), Some(intent.id.as_str()));
    }
    stage.told();
}

#[tokio::test]
async fn nobody_pays_with_anothers_card() {
    let stage = Stage::new().await;
    let (_, method) = saved(&stage).await;
    let other = stage.stripe.find_or_create_customer("org_2", &key("other")).await.unwrap();
    let refused = refusal(charge(&stage, (&other.id, &method), "one").await);
    assert_eq!((refused.status, refused.param.as_deref()), (400, Some("payment_method")));
    let attach = format!("/v1/payment_methods/{method}/attach");
    let (status, answer) = stage.post(&attach, &format!("customer={}", other.id)).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("payment_method_unexpected_state")));
}

#[tokio::test]
async fn a_charge_is_given_back_in_parts_and_no_more_than_it_was() {
    let stage = Stage::new().await;
    let (customer, method) = saved(&stage).await;
    let intent = charge(&stage, (&customer, &method), "one").await.unwrap();
    let of = PaymentRef::Intent(&intent.id);
    stage.told();
    let reason = Some(RefundReason::RequestedByCustomer);
    let part = stage.stripe.refund(of, Some(300), reason, &[("order", "one")], &key("part")).await.unwrap();
    assert_eq!((part.status, part.amount), (Some(RefundStatus::Succeeded), 300));
    assert_eq!((part.reason.as_deref(), part.metadata["order"].as_str()), (Some("requested_by_customer"), "one"));
    assert_eq!(stage.kinds(), ["refund.created", "charge.refunded", "refund.updated"]);
    let again = stage.stripe.refund(of, Some(300), reason, &[("order", "one")], &key("part")).await.unwrap();
    assert_eq!(again.id, part.id);
    let refused = refusal(stage.stripe.refund(of, Some(701), None, &[], &key("much")).await);
    assert_eq!((refused.status, refused.param.as_deref()), (400, Some("amount")));
    let rest = stage.stripe.refund(of, None, None, &[], &key("rest")).await.unwrap();
    assert_eq!(rest.amount, 700);
    let charge = stage.stripe.charge(intent.latest_charge.as_ref().unwrap()).await.unwrap();
    assert_eq!((charge.status, charge.amount_refunded, charge.refunded), (ChargeStatus::Succeeded, 1000, true));
    let refused = refusal(stage.stripe.refund(of, None, None, &[], &key("none")).await);
    assert_eq!(refused.code.as_deref(), Some("charge_already_refunded"));
    let all: Vec<_> = stage.stripe.refunds_of(of).await.unwrap().into_iter().map(|refund| refund.id).collect();
    assert_eq!(all, [rest.id.as_str(), part.id.as_str()]);

    // A bank can send a refund back.
    stage.told();
    stage.sandbox.fail_refund(&part.id).unwrap();
    assert_eq!(stage.kinds(), ["refund.failed", "charge.updated"]);
    assert_eq!(stage.stripe.refund_by_id(&part.id).await.unwrap().status, Some(RefundStatus::Failed));
    assert_eq!(stage.stripe.charge(&charge.id).await.unwrap().amount_refunded, 700);
}

#[tokio::test]
async fn a_dispute_takes_the_money_and_is_won_or_lost() {
    let stage = Stage::new().await;
    let (customer, method) = saved(&stage).await;
    for (word, won, status, kinds) in [
        ("won", true, DisputeStatus::Won, &["charge.dispute.funds_reinstated", "charge.dispute.closed"][..]),
        ("lost", false, DisputeStatus::Lost, &["charge.dispute.closed"]),
    ] {
        let intent = charge(&stage, (&customer, &method), word).await.unwrap();
        stage.told();
        let id = stage.sandbox.open_dispute(intent.latest_charge.as_ref().unwrap(), None, "fraudulent").unwrap();
        assert_eq!(stage.kinds(), ["charge.dispute.created", "charge.dispute.funds_withdrawn"]);
        let open = stage.stripe.disputes_of(PaymentRef::Intent(&intent.id)).await.unwrap().remove(0);
        assert_eq!((open.id.as_str(), open.status, open.amount), (id.as_str(), DisputeStatus::NeedsResponse, 1000));
        assert_eq!((open.reason.as_str(), Some(&open.charge)), ("fraudulent", intent.latest_charge.as_ref()));
        assert!(stage.stripe.charge(&open.charge).await.unwrap().disputed);
        let of = PaymentRef::Intent(&intent.id);
        assert_eq!(refusal(stage.stripe.refund(of, None, None, &[], &key(&format!("back-{word}"))).await).status, 400);

        stage.sandbox.close_dispute(&id, won).unwrap();
        let told = stage.told();
        assert_eq!(told.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), kinds);
        let EventObject::Dispute(closed) = &told.last().unwrap().object else { panic!("{told:?}") };
        assert_eq!(closed.status, status);
        assert_eq!(stage.stripe.dispute(&id).await.unwrap().status, status);
        assert!(stage.sandbox.close_dispute(&id, true).is_err());
    }
}

#[tokio::test]
async fn an_invoice_of_a_subscription_is_refunded_through_its_payment() {
    let stage = Stage::new().await;
    let subscription = stage.subscribed().await;
    let invoice = subscription.latest_invoice.unwrap();
    let payment = stage.stripe.payments_of_invoice(&invoice).await.unwrap().remove(0);
    let intent = payment.payment_intent.unwrap();
    let refund = stage.stripe.refund(PaymentRef::Intent(&intent), None, None, &[], &key("all")).await.unwrap();
    assert_eq!((refund.amount, refund.payment_intent.as_deref()), (2000, Some(intent.as_str())));
    // In the dashboard too, where there is nothing left.
    assert!(stage.sandbox.refund(refund.charge.as_ref().unwrap(), None).is_err());
}

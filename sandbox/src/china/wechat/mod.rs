//! The double of WeChat Pay, API v3: native orders, which the payer scans.
//! <https://pay.weixin.qq.com/doc/v3/merchant/4012791874>

mod api;
mod failure;
mod orders;
mod seal;
mod sign;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tenantry_domain::{Clock, Millis};

use super::{
    Bill, Desk, Faults, RefundOutcome, Refusal, Vendor, WeChatSettings,
    book::{Book, Order, Refund},
    keys::{Keys, secret},
    outbox::{NewLetter, Outbox},
    time::rfc3339,
};

pub(super) use api::router;
pub(super) use seal::WeChatSeal;

/// How transaction numbers begin.
const TRANSACTION: &str = "4200";
/// How numbers of refunds begin.
const REFUND: &str = "5030";

/// The double.
pub(super) struct WeChat {
    keys: Keys,
    settings: Arc<WeChatSettings>,
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    site: String,
    faults: Faults,
    book: Mutex<Book>,
    outcome: Mutex<RefundOutcome>,
}

impl fmt::Debug for WeChat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeChat").finish_non_exhaustive()
    }
}

impl WeChat {
    pub(super) fn new(
        keys: Keys,
        settings: Arc<WeChatSettings>,
        outbox: Arc<Outbox>,
        clock: Arc<dyn Clock>,
        site: &str,
    ) -> Self {
        let (faults, book, outcome) = (Faults::default(), Mutex::default(), Mutex::default());
        Self { keys, settings, outbox, clock, site: site.to_owned(), faults, book, outcome }
    }

    pub(super) fn settings(&self) -> &WeChatSettings {
        &self.settings
    }

    pub(super) fn set_refund_outcome(&self, outcome: RefundOutcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a query says, and what a notification of a payment holds.
    /// <https://pay.weixin.qq.com/doc/v3/merchant/4012791879>
    fn transaction(&self, order: &Order) -> Value {
        let mut transaction = json!({
            "appid": self.settings.app_id,
            "mchid": self.settings.merchant,
            "out_trade_no": order.number,
            "trade_state": state(order),
            "trade_state_desc": description(order),
            "amount": {"total": order.amount, "currency": "CNY"},
        });
        if let (Some(paid_at), Some((trade, _))) = (order.paid_at, &order.trade) {
            transaction["transaction_id"] = trade.as_str().into();
            transaction["trade_type"] = "NATIVE".into();
            transaction["bank_type"] = "OTHERS".into();
            transaction["attach"] = "".into();
            transaction["success_time"] = rfc3339(paid_at).into();
            transaction["payer"] = json!({"openid": "oTestPayer0000000000000000001"});
            transaction["amount"] = json!({
                "total": order.amount, "payer_total": order.amount, "currency": "CNY", "payer_currency": "CNY",
            });
        }
        transaction
    }

    /// <https://pay.weixin.qq.com/doc/v3/merchant/4012268885>
    fn refund_notice(&self, order: &Order, refund: &Refund) -> Value {
        let mut notice = json!({
            "mchid": self.settings.merchant,
            "out_trade_no": order.number,
            "transaction_id": order.trade.as_ref().map(|(trade, _)| trade),
            "out_refund_no": refund.number,
            "refund_id": refund.id,
            "refund_status": status(refund.outcome),
            "user_received_account": "支付用户零钱",
            "amount": {
                "total": order.amount, "refund": refund.amount,
                "payer_total": order.amount, "payer_refund": refund.amount,
            },
        });
        if let (RefundOutcome::Success, Some(at)) = (refund.outcome, refund.ended_at) {
            notice["success_time"] = rfc3339(at).into();
        }
        notice
    }

    /// Ends a refund, which the shop is told about.
    fn end_refund(&self, order: &mut Order, at: usize, outcome: RefundOutcome, now: Millis) {
        if let Some(refund) = order.refunds.get_mut(at) {
            refund.outcome = outcome;
            refund.ended_at = (outcome != RefundOutcome::Processing).then_some(now);
        }
        let order = &*order;
        if let Some(refund) = order.refunds.get(at)
            && outcome != RefundOutcome::Processing
            && let Some(url) = &refund.notify_url
        {
            self.notify(order, "refund", url, self.refund_notice(order, refund));
        }
    }

    pub(super) fn settle_refund(&self, number: &str, outcome: RefundOutcome) -> Result<(), Refusal> {
        let now = self.clock.now();
        let processing = |refund: &Refund| refund.number == number && refund.outcome == RefundOutcome::Processing;
        let mut book = self.book();
        for order in book.orders_mut() {
            if let Some(at) = order.refunds.iter().position(processing) {
                self.end_refund(order, at, outcome, now);
                return Ok(());
            }
        }
        Err(Refusal("No such refund is processing."))
    }

    fn notify(&self, order: &Order, event: &'static str, url: &str, content: Value) {
        // Unique across processes, because the shop remembers what it has seen.
        let Ok(id) = secret(16) else { return };
        self.outbox.push(NewLetter { vendor: Vendor::WeChat, id, order: &order.number, event, url, content });
    }
}

/// An order that has run out of time stays `NOTPAY`: the time is the payer's last chance, not the order's end.
/// <https://pay.weixin.qq.com/doc/v3/merchant/4012791877>
fn state(order: &Order) -> &'static str {
    match order {
        Order { paid_at: Some(_), refunds, .. } if refunds.iter().any(|it| it.outcome != RefundOutcome::Closed) => {
            "REFUND"
        }
        Order { paid_at: Some(_), .. } => "SUCCESS",
        Order { closed: true, .. } => "CLOSED",
        Order { .. } => "NOTPAY",
    }
}

fn description(order: &Order) -> &'static str {
    match state(order) {
        "REFUND" => "订单发生过退款，退款详情请查询退款单",
        "SUCCESS" => "支付成功",
        "CLOSED" => "订单已关闭",
        _ => "订单未支付",
    }
}

const fn status(outcome: RefundOutcome) -> &'static str {
    match outcome {
        RefundOutcome::Success => "SUCCESS",
        RefundOutcome::Processing => "PROCESSING",
        RefundOutcome::Abnormal => "ABNORMAL",
        RefundOutcome::Closed => "CLOSED",
    }
}

impl Desk for WeChat {
    fn vendor(&self) -> Vendor {
        Vendor::WeChat
    }

    fn bills(&self) -> Vec<Bill> {
        let now = self.clock.now();
        self.book().orders().map(|order| bill(order, now)).collect()
    }

    fn bill(&self, order: &str) -> Option<Bill> {
        self.book().get(order).map(|order| bill(order, self.clock.now()))
    }

    fn scan(&self, order: &str) -> Result<(), Refusal> {
        self.book().scan(order, TRANSACTION, self.clock.now()).map(|_| ())
    }

    fn pay(&self, order: &str) -> Result<String, Refusal> {
        let now = self.clock.now();
        let mut book = self.book();
        let order = book.scan(order, TRANSACTION, now)?;
        order.paid_at = Some(now);
        if let Some(url) = &order.notify_url {
            self.notify(order, "payment", url, self.transaction(order));
        }
        Ok(order.trade.as_ref().map(|(trade, _)| trade.clone()).unwrap_or_default())
    }

    /// Nothing changes: the payer may try again with another card.
    fn decline(&self, order: &str) -> Result<(), Refusal> {
        self.scan(order)
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }
}

fn bill(order: &Order, now: Millis) -> Bill {
    Bill {
        order: order.number.clone(),
        description: order.description.clone(),
        amount: order.amount,
        refunded: order.refunded(),
        state: state(order),
        payable: order.payable(now).is_ok(),
        return_url: None,
    }
}

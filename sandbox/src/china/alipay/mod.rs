//! The double of Alipay's open platform: QR codes (`alipay.trade.precreate`) and its page (`alipay.trade.page.pay`).
//! <https://opendocs.alipay.com/open/194/105072>
//!
//! As there, a code or a page is no trade before a payer has looked at it: until then queries find nothing.

mod api;
mod seal;
mod trades;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tenantry_domain::{Clock, Millis};

use super::{
    AlipaySettings, Bill, Desk, Faults, Refusal, Vendor,
    book::{Book, Order, Refund},
    keys::{Keys, secret},
    outbox::{NewLetter, Outbox},
    time::civil,
};

pub(super) use api::router;
pub(super) use seal::AlipaySeal;

/// How trade numbers begin, before the time.
const TRADE: &str = "";
/// After a year a trade is finished: nothing of it can be refunded any more.
const REFUNDABLE_MILLIS: Millis = 365 * 86_400_000;

/// The double.
pub(super) struct Alipay {
    keys: Keys,
    settings: Arc<AlipaySettings>,
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    site: String,
    faults: Faults,
    book: Mutex<Book>,
}

impl fmt::Debug for Alipay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alipay").finish_non_exhaustive()
    }
}

impl Alipay {
    pub(super) fn new(
        keys: Keys,
        settings: Arc<AlipaySettings>,
        outbox: Arc<Outbox>,
        clock: Arc<dyn Clock>,
        site: &str,
    ) -> Self {
        let (faults, book) = (Faults::default(), Mutex::default());
        Self { keys, settings, outbox, clock, site: site.to_owned(), faults, book }
    }

    pub(super) fn settings(&self) -> &AlipaySettings {
        &self.settings
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the shop of a payment, or of a refund. <https://opendocs.alipay.com/open/194/103296>
    fn notify(&self, order: &Order, refund: Option<&Refund>, now: Millis) {
        let (Some(url), Some((trade, made_at)), Some(paid_at)) = (&order.notify_url, &order.trade, order.paid_at)
        else {
            return;
        };
        let amount = yuan(order.amount);
        let mut content = json!({
            "notify_type": "trade_status_sync",
            "charset": "utf-8",
            "version": "1.0",
            "app_id": self.settings.app_id,
            "auth_app_id": self.settings.app_id,
            "trade_no": trade,
            "out_trade_no": order.number,
            "seller_id": self.settings.seller_id,
            "buyer_id": "2088000000000002",
            "trade_status": status(order, now),
            "total_amount": amount,
            "receipt_amount": amount,
            "invoice_amount": amount,
            "buyer_pay_amount": amount,
            "point_amount": "0.00",
            "subject": order.description,
            "gmt_create": civil(*made_at),
            "gmt_payment": civil(paid_at),
            "fund_bill_list": json!([{"amount": amount, "fundChannel": "ALIPAYACCOUNT"}]).to_string(),
        });
        if let Some(refund) = refund {
            content["refund_fee"] = yuan(order.refunded()).into();
            content["gmt_refund"] = format!("{}.320", civil(refund.made_at)).into();
            content["out_biz_no"] = refund.number.as_str().into();
        }
        // Unique across processes, because the shop remembers what it has seen.
        let Ok(id) = secret(17) else { return };
        let event = if refund.is_some() { "refund" } else { "payment" };
        self.outbox.push(NewLetter { vendor: Vendor::Alipay, id, order: &order.number, event, url, content });
    }
}

/// An order with a trade, in the vendor's words. <https://opendocs.alipay.com/open/82ea786a_alipay.trade.query>
fn status(order: &Order, now: Millis) -> &'static str {
    match order.paid_at {
        Some(_) if order.refunded() >= order.amount => "TRADE_CLOSED",
        Some(paid_at) if now - paid_at > REFUNDABLE_MILLIS => "TRADE_FINISHED",
        Some(_) => "TRADE_SUCCESS",
        None if order.closed || order.is_expired(now) => "TRADE_CLOSED",
        None => "WAIT_BUYER_PAY",
    }
}

impl Desk for Alipay {
    fn vendor(&self) -> Vendor {
        Vendor::Alipay
    }

    fn bills(&self) -> Vec<Bill> {
        let now = self.clock.now();
        self.book().orders().map(|order| bill(order, now)).collect()
    }

    fn bill(&self, order: &str) -> Option<Bill> {
        self.book().get(order).map(|order| bill(order, self.clock.now()))
    }

    fn scan(&self, order: &str) -> Result<(), Refusal> {
        self.book().scan(order, TRADE, self.clock.now()).map(|_| ())
    }

    fn pay(&self, order: &str) -> Result<String, Refusal> {
        let now = self.clock.now();
        let mut book = self.book();
        let order = book.scan(order, TRADE, now)?;
        order.paid_at = Some(now);
        self.notify(order, None, now);
        Ok(order.trade.as_ref().map(|(trade, _)| trade.clone()).unwrap_or_default())
    }

    /// The trade exists and waits: the payer may try again.
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
        state: if order.trade.is_some() { status(order, now) } else { "not scanned" },
        payable: order.payable(now).is_ok(),
        return_url: order.return_url.clone(),
    }
}

/// `88.80` of 8880 fen.
fn yuan(fen: u64) -> String {
    format!("{}.{:02}", fen / 100, fen % 100)
}

/// Fen of `88.80`: at most two decimals, from 0.01 to 100,000,000.
fn fen(yuan: &Value) -> Option<u64> {
    let text = match yuan {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || decimals.len() > 2 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let fen = format!("{whole}{decimals:0<2}").parse::<u64>().ok()?;
    (1..=10_000_000_000).contains(&fen).then_some(fen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, expected) in [("0.01", Some(1)), ("88.8", Some(8880)), ("4.35", Some(435)), ("12", Some(1200))] {
            assert_eq!(fen(&json!(text)), expected, "{text}");
        }
        for text in ["0", "0.00", "1.001", "-1", "", ".5", "1e2", "100000000.01", "１"] {
            assert_eq!(fen(&json!(text)), None, "{text}");
        }
        assert_eq!(yuan(8880), "88.80");
    }
}

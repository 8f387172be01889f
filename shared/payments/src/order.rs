//! What the two vendors have in common: an order, what they say about it, and whether that is what was expected.

use std::fmt;

use tenantry_domain::Millis;
use thiserror::Error;

use crate::{error::PaymentError, money::Fen};

/// The one currency of both.
pub(crate) const CNY: &str = "CNY";

/// Who takes the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// WeChat Pay, API v3.
    WeChat,
    /// Alipay, open platform.
    Alipay,
}

impl Vendor {
    /// As routes and records write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeChat => "wechat",
            Self::Alipay => "alipay",
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An order to be paid. The same order may be created again: the vendor answers as it did the first time.
#[derive(Debug, Clone, Copy)]
pub struct NewOrder<'a> {
    /// Our number of the order: 6 to 32 letters, digits and `_`, which is what both vendors take. Never used for another
    /// amount.
    pub out_trade_no: &'a str,
    /// More than nothing.
    pub amount: Fen,
    /// What the payer reads: 1 to 127 characters, without `/`, `=`, `&` and line ends.
    pub description: &'a str,
    /// When it can no longer be paid. An Alipay QR code cannot be closed before it is scanned, so keep it short.
    pub expires_at: Millis,
    /// What the payer is given.
    pub show: Show<'a>,
}

/// How the payer gets to the vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show<'a> {
    /// A QR code for the vendor's app.
    QrCode,
    /// The vendor's page in the browser (Alipay only), which leads back to this address. That somebody came back proves
    /// nothing: ask for the state.
    Page {
        /// Where the browser goes after the payment.
        return_url: Option<&'a str>,
    },
}

/// What the payer is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presentation {
    /// The text that a QR code is to hold.
    QrCode(String),
    /// Where to send the browser.
    Redirect(String),
}

/// A refund to be made. The same number with the same amount refunds once, however often it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct NewRefund<'a> {
    /// The paid order.
    pub out_trade_no: &'a str,
    /// Our number of the refund: up to 64 letters, digits and `_`.
    pub out_refund_no: &'a str,
    /// What goes back now.
    pub amount: Fen,
    /// What the order was over.
    pub order_amount: Fen,
    /// The payer reads it: up to 80 characters.
    pub reason: &'a str,
}

/// What a vendor says about an order. **Nothing of it is checked against ours**: see [`Expectation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    /// Who says so.
    pub vendor: Vendor,
    /// The app that it was sold through. Alipay's answers to queries leave it out.
    pub app_id: Option<String>,
    /// Who got the money: WeChat Pay's `mchid`, Alipay's `seller_id`. Alipay's answers to queries leave it out.
    pub merchant: Option<String>,
    /// Our number.
    pub out_trade_no: String,
    /// What the order is over, before the vendor's vouchers, which cost us nothing.
    pub amount: Option<Fen>,
    /// ISO 4217.
    pub currency: String,
    /// Where it stands.
    pub state: TradeState,
}

/// Where an order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TradeState {
    /// The vendor knows no such order. An Alipay QR code that nobody has scanned looks like this, and can still be paid.
    Absent,
    /// It waits for the payer.
    NotPaid,
    /// It is paid. Alipay says so too after a refund of a part.
    Paid(Receipt),
    /// It was paid, and a refund was asked for: of a part or the whole (WeChat Pay), of the whole (Alipay).
    Refunded(Receipt),
    /// It was never paid and cannot be any more.
    Closed,
    /// A state that this program does not know: change nothing, and raise an alarm.
    Unknown(String),
}

/// Proof of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The vendor's number of the payment.
    pub vendor_transaction: String,
    /// When it was paid, where the vendor says so.
    pub paid_at: Option<Millis>,
}

/// How an order was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// It can no longer be paid.
    Closed,
    /// The payer was faster, or it has been refunded meanwhile.
    AlreadyPaid(Box<Trade>),
    /// The vendor knows no such order. An Alipay QR code remains payable until it expires.
    Absent,
}

/// What a vendor says about a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Our number of the order.
    pub out_trade_no: String,
    /// Our number of the refund.
    pub out_refund_no: String,
    /// The vendor's number of the refund; Alipay has none.
    pub vendor_refund: Option<String>,
    /// What goes back, where the vendor says so.
    pub amount: Option<Fen>,
    /// Where it stands.
    pub state: RefundState,
    /// When the money went back, where the vendor says so.
    pub refunded_at: Option<Millis>,
}

/// Where a refund stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundState {
    /// The vendor knows no such refund, or (Alipay) it failed, or it is so young that it does not show yet: ask for the
    /// same refund again, with the same number.
    Absent,
    /// On its way.
    Processing,
    /// The money is back.
    Succeeded,
    /// It will not happen; a new refund needs a new number.
    Closed,
    /// The payer's account does not take it: somebody has to look into it at the vendor's.
    Abnormal,
    /// A state that this program does not know.
    Unknown(String),
}

/// A message of a vendor whose signature holds. It may come several times, late and in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The same for each repetition of a message.
    pub id: String,
    /// When the vendor made it.
    pub sent_at: Millis,
    /// What it says.
    pub event: Event,
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An order.
    Trade(Trade),
    /// A refund.
    Refund(RefundNotice),
    /// Something else that was not asked for: take it and forget it.
    Other(String),
}

/// What a message says about a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundNotice {
    /// Who says so.
    pub vendor: Vendor,
    /// The app; WeChat Pay leaves it out.
    pub app_id: Option<String>,
    /// Whose money it was.
    pub merchant: String,
    /// Our number of the order.
    pub out_trade_no: String,
    /// The vendor's number of the payment.
    pub vendor_transaction: String,
    /// Our number of the refund, where there is one: refunds that were made by hand on Alipay's site have none.
    pub out_refund_no: Option<String>,
    /// What the order was over.
    pub order_amount: Fen,
    /// What this refund gave back. Alipay does not say.
    pub amount: Option<Fen>,
    /// What all refunds of the order have given back. WeChat Pay does not say.
    pub refunded_in_all: Option<Fen>,
    /// Where it stands.
    pub state: RefundState,
    /// When the money went back.
    pub refunded_at: Option<Millis>,
}

/// What we know of an order, to be held against what a vendor says. Made by [`Payment::expectation`](crate::Payment).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation<'a> {
    /// Who was to be paid through.
    pub vendor: Vendor,
    /// Our app at the vendor.
    pub app_id: &'a str,
    /// Ourselves at the vendor.
    pub merchant: &'a str,
    /// Our number.
    pub out_trade_no: &'a str,
    /// What the order is over.
    pub amount: Fen,
}

/// The first thing that is not as expected. Such a payment is never credited; it is a case for an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Another vendor.
    #[error("the vendor is {0}")]
    Vendor(Vendor),
    /// Another app.
    #[error("the app id is {0}")]
    AppId(String),
    /// Somebody else got the money.
    #[error("the merchant is {0}")]
    Merchant(String),
    /// Another order.
    #[error("the order is {0}")]
    OutTradeNo(String),
    /// Another amount, or none.
    #[error("the amount is {0:?} fen")]
    Amount(Option<Fen>),
    /// Another currency.
    #[error("the currency is {0}")]
    Currency(String),
}

impl Expectation<'_> {
    /// Is this our order, over our amount, paid to us?
    ///
    /// # Errors
    /// The first [`Mismatch`]. What the vendor left out (see [`Trade`]) does not differ, but for the amount.
    pub fn check(&self, trade: &Trade) -> Result<(), Mismatch> {
        self.check_names(trade.vendor, trade.app_id.as_deref(), trade.merchant.as_deref(), &trade.out_trade_no)?;
        if trade.amount != Some(self.amount) {
            return Err(Mismatch::Amount(trade.amount));
        }
        if trade.currency != CNY {
            return Err(Mismatch::Currency(trade.currency.clone()));
        }
        Ok(())
    }

    /// The same for a message about a refund, whose own amount is another matter.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn check_refund(&self, refund: &RefundNotice) -> Result<(), Mismatch> {
        self.check_names(refund.vendor, refund.app_id.as_deref(), Some(&refund.merchant), &refund.out_trade_no)?;
        if refund.order_amount != self.amount {
            return Err(Mismatch::Amount(Some(refund.order_amount)));
        }
        Ok(())
    }

    fn check_names(
        &self,
        vendor: Vendor,
        app_id: Option<&str>,
        merchant: Option<&str>,
        out_trade_no: &str,
    ) -> Result<(), Mismatch> {
        let other = |found: Option<&str>, expected| found.filter(|found| *found != expected).map(ToOwned::to_owned);
        if vendor != self.vendor {
            return Err(Mismatch::Vendor(vendor));
        }
        if let Some(app_id) = other(app_id, self.app_id) {
            return Err(Mismatch::AppId(app_id));
        }
        if let Some(merchant) = other(merchant, self.merchant) {
            return Err(Mismatch::Merchant(merchant));
        }
        other(Some(out_trade_no), self.out_trade_no).map_or(Ok(()), |found| Err(Mismatch::OutTradeNo(found)))
    }
}

/// The largest amount of a single order that either vendor takes by default.
const LARGEST: Fen = 10_000_000_000;

impl NewOrder<'_> {
    pub(crate) fn check(&self, now: Millis) -> Result<(), PaymentError> {
        check_order_no(self.out_trade_no)?;
        let unfit = |c: char| c.is_control() || matches!(c, '/' | '=' | '&');
        if self.amount == 0 || self.amount > LARGEST {
            return Err(PaymentError::Invalid("the amount must be from 0.01 to 100,000,000 yuan"));
        }
        if self.description.trim().is_empty() || self.description.chars().count() > 127 {
            return Err(PaymentError::Invalid("the description must have 1 to 127 characters"));
        }
        if self.description.contains(unfit) {
            return Err(PaymentError::Invalid("the description must not hold '/', '=', '&' or control characters"));
        }
        if self.expires_at <= now {
            return Err(PaymentError::Invalid("the order has expired"));
        }
        Ok(())
    }
}

impl NewRefund<'_> {
    pub(crate) fn check(&self) -> Result<(), PaymentError> {
        check_order_no(self.out_trade_no)?;
        check_refund_no(self.out_refund_no)?;
        if self.amount == 0 || self.amount > self.order_amount {
            return Err(PaymentError::Invalid("a refund must be more than nothing and at most the order's amount"));
        }
        if self.reason.chars().count() > 80 || self.reason.contains(char::is_control) {
            return Err(PaymentError::Invalid("the reason must have at most 80 characters, none of control"));
        }
        Ok(())
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(crate) fn check_order_no(text: &str) -> Result<(), PaymentError> {
    let fits = (6..=32).contains(&text.len()) && is_word(text);
    if fits { Ok(()) } else { Err(PaymentError::Invalid("an order's number has 6 to 32 letters, digits and '_'")) }
}

pub(crate) fn check_refund_no(text: &str) -> Result<(), PaymentError> {
    let fits = (1..=64).contains(&text.len()) && is_word(text);
    if fits { Ok(()) } else { Err(PaymentError::Invalid("a refund's number has 1 to 64 letters, digits and '_'")) }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;

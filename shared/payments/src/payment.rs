//! One face for both vendors.

use ::http::HeaderMap;

use crate::{
    alipay::Alipay,
    error::PaymentError,
    money::Fen,
    order::{Closing, Expectation, NewOrder, NewRefund, Notification, Presentation, Refund, Trade, Vendor},
    wechat::WeChatPay,
};

/// A vendor that is set up. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Payment {
    /// WeChat Pay.
    WeChat(WeChatPay),
    /// Alipay.
    Alipay(Alipay),
}

/// What a vendor's notification is to be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// The whole body.
    pub body: &'static str,
}

impl Payment {
    /// Which one it is.
    #[must_use]
    pub const fn vendor(&self) -> Vendor {
        match self {
            Self::WeChat(_) => Vendor::WeChat,
            Self::Alipay(_) => Vendor::Alipay,
        }
    }

    /// Creates an order, or finds it created.
    ///
    /// # Errors
    /// [`PaymentError`]. After [`PaymentError::Unavailable`] the order may exist; creating it again is safe.
    pub async fn create(&self, order: &NewOrder<'_>) -> Result<Presentation, PaymentError> {
        match self {
            Self::WeChat(vendor) => vendor.create(order).await,
            Self::Alipay(vendor) => vendor.create(order).await,
        }
    }

    /// Where an order stands.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn query(&self, out_trade_no: &str) -> Result<Trade, PaymentError> {
        match self {
            Self::WeChat(vendor) => vendor.query(out_trade_no).await,
            Self::Alipay(vendor) => vendor.query(out_trade_no).await,
        }
    }

    /// Closes an order that has not been paid. Where the vendor will not, it is asked why.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn close(&self, out_trade_no: &str) -> Result<Closing, PaymentError> {
        match self {
            Self::WeChat(vendor) => vendor.close(out_trade_no).await,
            Self::Alipay(vendor) => vendor.close(out_trade_no).await,
        }
    }

    /// Gives money back, or finds it given.
    ///
    /// # Errors
    /// [`PaymentError`]. After [`PaymentError::Unavailable`] it may have been given; asking again with the same number is
    /// safe, with another number it is not.
    pub async fn refund(&self, refund: &NewRefund<'_>) -> Result<Refund, PaymentError> {
        match self {
            Self::WeChat(vendor) => vendor.refund(refund).await,
            Self::Alipay(vendor) => vendor.refund(refund).await,
        }
    }

    /// Where a refund stands.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn query_refund(&self, out_trade_no: &str, out_refund_no: &str) -> Result<Refund, PaymentError> {
        match self {
            Self::WeChat(vendor) => vendor.query_refund(out_trade_no, out_refund_no).await,
            Self::Alipay(vendor) => vendor.query_refund(out_trade_no, out_refund_no).await,
        }
    }

    /// Reads a notification from the headers and the raw bytes of the body. Whether it came before is the caller's
    /// affair, by [`Notification::id`].
    ///
    /// # Errors
    /// [`PaymentError::BadSignature`] and [`PaymentError::Malformed`].
    pub fn parse_notification(&self, headers: &HeaderMap, body: &[u8]) -> Result<Notification, PaymentError> {
        match self {
            Self::WeChat(vendor) => vendor.parse_notification(headers, body),
            Self::Alipay(vendor) => vendor.parse_notification(body),
        }
    }

    /// What an order of ours must look like when the vendor speaks of it.
    #[must_use]
    pub fn expectation<'a>(&'a self, out_trade_no: &'a str, amount: Fen) -> Expectation<'a> {
        let (app_id, merchant) = match self {
            Self::WeChat(vendor) => (vendor.app_id(), vendor.merchant()),
            Self::Alipay(vendor) => (vendor.app_id(), vendor.merchant()),
        };
        Expectation { vendor: self.vendor(), app_id, merchant, out_trade_no, amount }
    }

    /// The answer to a notification: `taken` ends the vendor's repetitions, the other asks for more.
    #[must_use]
    pub const fn answer(&self, taken: bool) -> Answer {
        const JSON: &str = "application/json";
        const TEXT: &str = "text/plain; charset=utf-8";
        match (self, taken) {
            // WeChat Pay looks at the status alone: <https://pay.weixin.qq.com/doc/v3/merchant/4012791882>.
            (Self::WeChat(_), true) => Answer { status: 204, content_type: JSON, body: "" },
            (Self::WeChat(_), false) => {
                Answer { status: 500, content_type: JSON, body: r#"{"code":"FAIL","message":"not taken"}"# }
            }
            // Alipay looks for exactly this word: <https://opendocs.alipay.com/open/270/105902>.
            (Self::Alipay(_), true) => Answer { status: 200, content_type: TEXT, body: "success" },
            (Self::Alipay(_), false) => Answer { status: 500, content_type: TEXT, body: "fail" },
        }
    }
}

//! The payment vendors, one module each. What a payment does to a tenant is no business of this crate.
//!
//! [`stripe::Stripe`] sells subscriptions and more. [`Payment`] is WeChat Pay or Alipay behind one face: both sell one order at a time, show a QR code and call back.
//! Whoever uses it checks each [`Trade`] against an [`Expectation`] before crediting anything, and treats
//! [`PaymentError::Unavailable`] as "it may have happened": the vendor is asked again before anything else is decided.

pub mod alipay;
mod error;
mod http;
mod money;
mod order;
mod payment;
mod retry;
mod rsa;
mod settings;
pub mod stripe;
mod time;
pub mod wechat;

pub use error::{ConfigError, PaymentError};
pub use http::HttpClient;
pub use money::{Fen, parse_yuan, yuan};
pub use order::{
    Closing, Event, Expectation, Mismatch, NewOrder, NewRefund, Notification, Presentation, Receipt, Refund,
    RefundNotice, RefundState, Show, Trade, TradeState, Vendor,
};
pub use payment::{Answer, Payment};
pub use retry::Patience;
pub use rsa::{SigningKey, VerifyingKey};

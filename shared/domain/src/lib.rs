//! The rules of the product, without I/O.
//!
//! Nothing here awaits, reads the environment, knows AWS or HTTP. Ids, money, plans, the model
//! catalogue and what a request costs are plain values, so every rule can be tested alone.

pub mod account;
pub mod billing;
pub mod budget;
pub mod catalogue;
pub mod credit_watch;
pub mod email;
pub mod features;
pub mod ids;
pub mod ledger;
pub mod metering;
pub mod one_time;
pub mod orders;
pub mod own;
pub mod plans;
pub mod roles;
pub mod secret;
pub mod sharding;
pub mod time;
pub mod usage;
pub mod username;
pub mod warnings;

pub use billing::{Entitlement, Standing, SubscriptionStatus};
pub use email::Email;
pub use features::Feature;
pub use ids::{InviteId, KeyId, LedgerId, OrderId, OrgId, RequestId, SessionId, TenantUserId, UserId};
pub use metering::{Amounts, Resource};
pub use time::{Clock, Millis, Period, SystemClock};
pub use username::Username;

//! The platform's own client of Stripe against the double, over HTTP on this machine.

mod checkout;
mod payments;
mod refusals;
mod stage;
mod subscriptions;
mod unpaid;
mod webhooks;

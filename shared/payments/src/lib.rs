//! The payment vendors, one module each. What a payment does to a tenant is no business of this crate.

pub mod stripe;

//! One-time tokens of people: one row per person and purpose, so a newer token takes the older one's place.
//!
//! The row is deleted by whoever redeems the token, on the condition that it is still this token's and has
//! not expired; of many who try at once, one succeeds.

use aws_sdk_dynamodb::types::{Delete, TransactWriteItem};
use tenantry_domain::{Millis, UserId, one_time::OneTimeToken};

use crate::{
    Store,
    db::build,
    error::{Result, StoreError},
    item::{NewItem, Reader, n, s},
    keys,
    table::TTL,
};

/// What has to hold of a row for a token to be redeemed.
pub(crate) const REDEEMABLE: &str = "#hash = :hash AND expires_at > :now";

impl Store {
    /// Writes the person's token of this purpose, good for `lasts` milliseconds; an older one is worthless
    /// from here on. For a person who does not exist it is the same work.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_one_time(&self, user: &UserId, token: &OneTimeToken, lasts: Millis) -> Result<()> {
        let expires_at = self.now() + lasts;
        let item = NewItem::at(&keys::one_time(user, token.purpose()))
            .text("hash", token.hash())
            .number("expires_at", expires_at)
            .number(TTL, expires_at.div_euclid(1000));
        let put = self.db.put_item().table_name(&*self.table).set_item(Some(item.build()));
        put.send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// Whether the token could be redeemed at this moment: to refuse it before there is work to do. Only
    /// redeeming it decides.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_one_time_open(&self, user: &UserId, token: &OneTimeToken) -> Result<bool> {
        let Some(row) = self.get(&keys::one_time(user, token.purpose()), true).await? else { return Ok(false) };
        let reader = Reader(&row);
        Ok(reader.text("hash")? == token.hash() && reader.number::<Millis>("expires_at")? > self.now())
    }

    /// The write that redeems the token, to stand in one transaction with what the token permits.
    pub(crate) fn redeem_write(&self, user: &UserId, token: &OneTimeToken) -> Result<TransactWriteItem> {
        let delete = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(keys::one_time(user, token.purpose()).attributes()))
            .condition_expression(REDEEMABLE)
            .expression_attribute_names("#hash", "hash")
            .expression_attribute_values(":hash", s(token.hash()))
            .expression_attribute_values(":now", n(self.now()));
        Ok(TransactWriteItem::builder().delete(build(delete.build())?).build())
    }
}

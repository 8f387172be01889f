//! Which mails were sent, and how many to whom: rows that live as long as a queue could repeat a message.

use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use tenantry_domain::{Email, Millis};

use crate::{
    Store,
    error::{Result, StoreError},
    item::n,
    keys::{self, Key},
    meter::failed_condition,
    table::TTL,
};

/// SQS keeps a message for 14 days at most.
const REMEMBERED: Millis = 15 * 24 * HOUR;
const HOUR: Millis = 3_600_000;

/// The answer to who may send a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailClaim {
    /// The caller, who is the first to try.
    First,
    /// The caller; an earlier try came to nothing.
    Again,
    /// Nobody: it was dealt with.
    Done,
    /// Somebody who is at it.
    Busy,
}

impl Store {
    /// Claims the mail called `id` (without `#`) until `until`, by when the caller has sent it, given it back, or died.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_mail(&self, id: &str, until: Millis) -> Result<MailClaim> {
        let now = self.now();
        let claim = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(keys::mail(id).attributes()))
            .update_expression("SET lease = :until, #ttl = :ttl")
            .condition_expression("attribute_not_exists(done) AND (attribute_not_exists(lease) OR lease <= :now)")
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":until", n(until))
            .expression_attribute_values(":now", n(now))
            .expression_attribute_values(":ttl", n(seconds(now + REMEMBERED)))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match claim {
            // A row that is new has no old attributes, or in some engines none but its key.
            Ok(output) if output.attributes().is_some_and(|old| old.contains_key(TTL)) => Ok(MailClaim::Again),
            Ok(_) => Ok(MailClaim::First),
            Err(error) => {
                let done = failed_condition(error)?.is_some_and(|item| item.contains_key("done"));
                Ok(if done { MailClaim::Done } else { MailClaim::Busy })
            }
        }
    }

    /// Notes that the mail needs no sending any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_mail(&self, id: &str) -> Result<()> {
        let finish = self.db.update_item().table_name(&*self.table).set_key(Some(keys::mail(id).attributes()));
        let finish = finish.update_expression("SET done = :now REMOVE lease");
        finish.expression_attribute_values(":now", n(self.now())).send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// Gives the claim back, so that the next delivery need not wait for its end.
    ///
    /// # Errors
    /// [`StoreError`]; the claim ends by itself then.
    pub async fn release_mail(&self, id: &str) -> Result<()> {
        let release = self.db.update_item().table_name(&*self.table).set_key(Some(keys::mail(id).attributes()));
        release.update_expression("REMOVE lease").send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// Counts one more mail of `template` to `to` in this hour. `false`, and not counted, when there were
    /// `limit` already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_mail(&self, to: &Email, template: &str, limit: u32) -> Result<bool> {
        let now = self.now();
        let key: Key = keys::mails_to(to, template, now.div_euclid(HOUR));
        let count = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(key.attributes()))
            .update_expression("SET #ttl = :ttl ADD mails :one")
            .condition_expression("attribute_not_exists(mails) OR mails < :limit")
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":ttl", n(seconds(now + 2 * HOUR)))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":limit", n(limit))
            .send()
            .await;
        match count {
            Ok(_) => Ok(true),
            Err(error) => failed_condition(error).map(|_| false),
        }
    }
}

const fn seconds(at: Millis) -> i64 {
    at.div_euclid(1000)
}

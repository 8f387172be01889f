//! What payment vendors have told: each event is worked on by one at a time, and to its end once.
//!
//! An event is claimed, worked on and marked as done. A claim that is not finished ends by itself, so that a worker that
//! died keeps nothing from the vendor's next try; the work itself can be done twice without harm.

use aws_sdk_dynamodb::{error::SdkError, operation::put_item::PutItemError};
use tenantry_domain::Millis;

use crate::{
    Store,
    error::{Result, StoreError},
    item::{NewItem, n, s},
    keys,
    table::TTL,
};

/// How long a claim keeps others away: longer than any function runs that handles an event.
const CLAIMED_FOR: Millis = 90_000;

/// How long it is remembered that an event was handled, in seconds. Vendors repeat for three days at most, and their
/// lists of events reach back 30.
const REMEMBERED: i64 = 40 * 24 * 3600;

/// How long what people shall look at is kept, in seconds. It tells of persons, and nobody knows for sure of whose
/// customers: so nothing of it outlasts the erasure of a tenant by more than this.
const KEPT: i64 = 14 * 24 * 3600;

/// Whose event it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventClaim {
    /// The caller's, until [`Store::finish_event`] or [`Store::release_event`].
    Mine(ClaimedEvent),
    /// Nobody's any more: it was handled.
    Done,
    /// Somebody else's.
    Busy,
}

/// A claim that was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedEvent {
    key: keys::Key,
    until: Millis,
}

impl Store {
    /// Claims an event of `vendor`, by the vendor's id for it.
    ///
    /// # Errors
    /// [`StoreError`]; the vendor is told to come again.
    pub async fn claim_event(&self, vendor: &str, id: &str) -> Result<EventClaim> {
        let (key, now) = (keys::vendor_event(vendor, id), self.now());
        let until = now + CLAIMED_FOR;
        let item = NewItem::at(&key).number("until", until).number(TTL, now.div_euclid(1000) + REMEMBERED).build();
        let put = self
            .db
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk) OR (attribute_not_exists(done) AND #until <= :now)")
            .expression_attribute_names("#until", "until")
            .expression_attribute_values(":now", n(now))
            .return_values_on_condition_check_failure(
                aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld,
            );
        match put.send().await {
            Ok(_) => Ok(EventClaim::Mine(ClaimedEvent { key, until })),
            Err(error) => match failed(&error) {
                Some(done) => Ok(if done { EventClaim::Done } else { EventClaim::Busy }),
                None => Err(StoreError::from_sdk(error)),
            },
        }
    }

    /// Marks a claimed event as handled.
    ///
    /// # Errors
    /// [`StoreError`]; the vendor comes again, and the work is done a second time, without harm.
    pub async fn finish_event(&self, claim: &ClaimedEvent) -> Result<()> {
        let update = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(claim.key.attributes()))
            .update_expression("SET done = :now")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":now", n(self.now()));
        match update.send().await {
            Ok(_) => Ok(()),
            Err(error) => crate::meter::failed_condition(error).map(|_| ()),
        }
    }

    /// Gives a claimed event back, so that the vendor's next try is not kept waiting.
    ///
    /// # Errors
    /// [`StoreError`]; the claim ends by itself.
    pub async fn release_event(&self, claim: &ClaimedEvent) -> Result<()> {
        let update = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(claim.key.attributes()))
            .update_expression("SET #until = :past")
            .condition_expression("attribute_exists(pk) AND attribute_not_exists(done) AND #until = :mine")
            .expression_attribute_names("#until", "until")
            .expression_attribute_values(":past", n(0))
            .expression_attribute_values(":mine", n(claim.until));
        match update.send().await {
            Ok(_) => Ok(()),
            Err(error) => crate::meter::failed_condition(error).map(|_| ()),
        }
    }

    /// Keeps something that could not be understood, for a person to look at. `body` is what came, cut to what an item
    /// holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_unreadable_event(&self, vendor: &str, id: &str, body: &str) -> Result<()> {
        self.keep(&keys::unreadable_event(vendor, id), vendor, None, body).await
    }

    /// Keeps something that was understood and refused, with the reason, for a person to look at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_refused_event(&self, vendor: &str, id: &str, why: &str, body: &str) -> Result<()> {
        self.keep(&keys::refused_event(vendor, id), vendor, Some(why), body).await
    }

    async fn keep(&self, key: &keys::Key, vendor: &str, why: Option<&str>, body: &str) -> Result<()> {
        /// Well below DynamoDB's 400 KB for an item.
        const MOST: usize = 200_000;
        let cut = body.floor_char_boundary(MOST);
        let item = NewItem::at(key)
            .text("body", &body[..cut])
            .optional("why", why)
            .set("at", n(self.now()))
            .set("vendor", s(vendor))
            .number(TTL, self.now().div_euclid(1000) + KEPT)
            .build();
        self.db.put_item().table_name(&*self.table).set_item(Some(item)).send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }
}

/// Whether the event that kept the claim away was done, if that was what failed.
fn failed(error: &SdkError<PutItemError>) -> Option<bool> {
    match error.as_service_error() {
        Some(PutItemError::ConditionalCheckFailedException(failed)) => {
            Some(failed.item().is_some_and(|item| item.contains_key("done")))
        }
        _ => None,
    }
}

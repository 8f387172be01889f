//! Requests that must not be carried out twice: a row for each `Idempotency-Key`, kept for a day.
//!
//! The row is claimed before the request is worked on. The first transaction of that work takes a write along
//! that marks the row as carried out, on the condition that it still belongs to this claim. So a marked row
//! means that the work was done, an unmarked one that it was not and, once the row is claimed anew or gone,
//! never will be: whoever comes late finds its transaction refused. That is what makes it safe to try again
//! after a crash. See docs/adr/0008.
//!
//! - Work runs inside [`IdempotencyClaim::around`]; [`Store::transact`] finds the claim there, so no aggregate
//!   has to think of it. What a handler creates, it creates in one transaction.
//! - Upkeep on the way (rolling a meter over, settling what expired) is no part of the work and goes through
//!   `transact_apart`.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_sdk_dynamodb::{
    operation::{delete_item::DeleteItemError, update_item::builders::UpdateItemFluentBuilder},
    primitives::Blob,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use tenantry_domain::Millis;

use crate::{
    Store, TenantScope,
    db::build,
    error::{Result, StoreError},
    item::{Item, Reader, n, s},
    keys::{self, Key},
    meter::failed_condition,
    table::TTL,
};

/// How long a key is remembered: 24 hours.
const REMEMBERED: Millis = 24 * 60 * 60 * 1000;

const ANSWER: &str = "answer";
const CARRIED_OUT: &str = "carried_out";

tokio::task_local! {
    static CLAIM: Arc<Claimed>;
}

/// A request that is made under a key.
pub struct KeyedRequest<'a> {
    /// Hash of route, caller and key: where the row lies in the tenant's partition.
    pub id: &'a str,
    /// What tells this request from another one under the same key.
    pub fingerprint: &'a str,
    /// How long whoever works on it has, in milliseconds. Afterwards they are taken for dead.
    pub lease: Millis,
}

/// What is known of a request.
pub enum Claim {
    /// Nothing: it is the caller's to work on.
    Yours(IdempotencyClaim),
    /// Its answer, as it was sealed.
    Answered(Vec<u8>),
    /// Somebody is working on it.
    InFlight,
    /// It was carried out, and whoever did it was gone before the answer was kept.
    AnswerLost,
    /// The key stands for another request.
    Reused,
}

/// The right to work on a request.
#[derive(Clone)]
pub struct IdempotencyClaim(Arc<Claimed>);

struct Claimed {
    key: Key,
    id: String,
    /// Whether a transaction has carried the mark.
    marked: AtomicBool,
}

impl IdempotencyClaim {
    /// Does the work. Its first transaction marks the row.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        CLAIM.scope(self.0.clone(), work).await
    }
}

/// The mark that a transaction takes along.
pub(crate) struct Mark(Arc<Claimed>);

impl Mark {
    /// The mark of the work at hand, if it is done under a key and none of its transactions had it.
    pub(crate) fn pending() -> Option<Self> {
        let claim = CLAIM.try_with(Arc::clone).ok()?;
        (!claim.marked.load(Ordering::Acquire)).then_some(Self(claim))
    }

    pub(crate) fn was_set(&self) {
        self.0.marked.store(true, Ordering::Release);
    }

    pub(crate) fn write(&self, store: &Store) -> Result<TransactWriteItem> {
        let update = store
            .update(&self.0.key)
            .update_expression("SET carried_out = :now")
            .condition_expression("claim = :claim AND attribute_not_exists(carried_out)")
            .expression_attribute_values(":now", n(store.now()))
            .expression_attribute_values(":claim", s(&self.0.id));
        Ok(TransactWriteItem::builder().update(build(update.build())?).build())
    }
}

impl Store {
    /// Claims a request for `claim`, a text that no other claim has, unless something is known of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_keyed_request(
        &self,
        scope: &TenantScope,
        request: &KeyedRequest<'_>,
        claim: String,
    ) -> Result<Claim> {
        let claimed = Claimed { key: keys::idempotency(scope, request.id), id: claim, marked: AtomicBool::new(false) };
        let claimed = IdempotencyClaim(Arc::new(claimed));
        let now = self.now();
        // A row counts for a day, also where DynamoDB has not come round to removing it.
        let free = ("attribute_not_exists(pk) OR expires <= :is", n(now));
        let Some(found) = self.put_claim(scope, &claimed.0, request, free).await? else {
            return Ok(Claim::Yours(claimed));
        };
        let row = Reader(&found);
        if row.text("fingerprint")? != request.fingerprint {
            return Ok(Claim::Reused);
        }
        if let Some(AttributeValue::B(sealed)) = found.get(ANSWER) {
            return Ok(Claim::Answered(sealed.clone().into_inner()));
        }
        if now < row.number("lease")? {
            return Ok(Claim::InFlight);
        }
        if found.contains_key(CARRIED_OUT) {
            return Ok(Claim::AnswerLost);
        }
        // Whoever claimed it is late or dead, and has changed nothing. From here on it never will.
        let abandoned = ("claim = :is AND attribute_not_exists(carried_out)", s(row.text("claim")?));
        match self.put_claim(scope, &claimed.0, request, abandoned).await? {
            None => Ok(Claim::Yours(claimed)),
            Some(_) => Ok(Claim::InFlight),
        }
    }

    /// Writes the claim where `condition` holds (`:is` is its value), else returns the row that is there.
    async fn put_claim(
        &self,
        scope: &TenantScope,
        claim: &Claimed,
        request: &KeyedRequest<'_>,
        (condition, is): (&str, AttributeValue),
    ) -> Result<Option<Item>> {
        let now = self.now();
        let put = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(claim.key.attributes()))
            .update_expression(
                "SET org = :org, claim = :claim, fingerprint = :fingerprint, lease = :lease, expires = :expires, \
                 #ttl = :ttl REMOVE answer, carried_out",
            )
            .condition_expression(condition)
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":is", is)
            .expression_attribute_values(":org", s(scope.org().as_str()))
            .expression_attribute_values(":claim", s(&claim.id))
            .expression_attribute_values(":fingerprint", s(request.fingerprint))
            .expression_attribute_values(":lease", n(now + request.lease))
            .expression_attribute_values(":expires", n(now + REMEMBERED))
            // Seconds, and none of them too early.
            .expression_attribute_values(":ttl", n((now + REMEMBERED).div_euclid(1000) + 1))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(None),
            // Without the row: somebody gave it up at this moment, and the next try will find it free.
            Err(error) => failed_condition(error)?
                .filter(|item| item.contains_key("claim"))
                .map_or(Err(StoreError::Contention), |item| Ok(Some(item))),
        }
    }

    /// Keeps the answer. `false` when somebody else works on the request by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_answer(&self, claim: &IdempotencyClaim, sealed: Vec<u8>) -> Result<bool> {
        let keep = self
            .change_claim(claim)
            .update_expression("SET answer = :answer, carried_out = if_not_exists(carried_out, :now) REMOVE lease")
            .expression_attribute_values(":answer", AttributeValue::B(Blob::new(sealed)))
            .expression_attribute_values(":now", n(self.now()));
        match keep.send().await {
            Ok(_) => Ok(true),
            Err(error) => failed_condition(error).map(|_| false),
        }
    }

    /// Gives a request up: as if it had never been made if nothing was carried out, else with its answer lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_up(&self, claim: &IdempotencyClaim) -> Result<()> {
        let delete = self
            .db
            .delete_item()
            .table_name(&*self.table)
            .set_key(Some(claim.0.key.attributes()))
            .condition_expression("claim = :claim AND attribute_not_exists(carried_out)")
            .expression_attribute_values(":claim", s(&claim.0.id));
        let error = match delete.send().await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !error.as_service_error().is_some_and(DeleteItemError::is_conditional_check_failed_exception) {
            return Err(StoreError::from_sdk(error));
        }
        let end = self
            .change_claim(claim)
            .update_expression("SET lease = :now")
            .expression_attribute_values(":now", n(self.now()));
        match end.send().await {
            Ok(_) => Ok(()),
            // It is somebody else's by now.
            Err(error) => failed_condition(error).map(|_| ()),
        }
    }

    fn change_claim(&self, claim: &IdempotencyClaim) -> UpdateItemFluentBuilder {
        self.db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(claim.0.key.attributes()))
            .condition_expression("claim = :claim")
            .expression_attribute_values(":claim", s(&claim.0.id))
    }
}

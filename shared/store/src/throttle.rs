//! Who tried what how often: counters that refuse, for places where anybody may try.
//!
//! - *Guesses* at a secret: a few are free, then each has to wait longer than the one before. A guess is counted
//!   before it is looked at, on the condition that it may be made now; so however many come at once, no more
//!   get through than one after the other would.
//! - *Tries* within a window of time: so many, then none until the next window.
//!
//! A subject is any text; only its hash is stored.

use aws_sdk_dynamodb::{operation::delete_item::DeleteItemError, types::ReturnValuesOnConditionCheckFailure};
use tenantry_domain::Millis;

use crate::{
    Store,
    error::{Result, StoreError},
    item::{Item, Reader, n},
    keys::{self, Key},
    meter::failed_condition,
    table::TTL,
};

/// How often a guess is counted anew when others were counted at the same moment. Each of those brought the
/// counter nearer to where it refuses, so a few are enough.
const COUNT_TRIES: u32 = 16;

/// How guesses at one secret are slowed down.
#[derive(Debug, Clone, Copy)]
pub struct GuessRule {
    /// So many guesses need not wait for each other.
    pub free: u32,
    /// The wait after the last free one; it doubles with each further guess.
    pub first_wait: Millis,
    /// The longest wait.
    pub longest_wait: Millis,
    /// How long after the last guess all are forgotten.
    pub forget_after: Millis,
}

impl GuessRule {
    /// How long the next guess has to wait after guess number `count`.
    fn wait_after(&self, count: u32) -> Millis {
        match count.checked_sub(self.free) {
            None => 0,
            Some(more) => self.first_wait.saturating_mul(1 << more.min(30)).min(self.longest_wait),
        }
    }
}

/// How many tries there are in a window of time.
#[derive(Debug, Clone, Copy)]
pub struct WindowRule {
    /// So many.
    pub most: u32,
    /// The window's length.
    pub window: Millis,
}

/// Whether something may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Admitted {
    /// It may, and has been counted.
    Now,
    /// Not for so many milliseconds.
    In(Millis),
}

impl Store {
    /// Counts a guess at the secret of `subject`, unless it has to wait.
    ///
    /// # Errors
    /// [`StoreError`]; then there is no guess either.
    pub async fn reserve_guess(&self, subject: &str, rule: &GuessRule) -> Result<Admitted> {
        let (key, now) = (keys::guesses(subject), self.now());
        // What the counter is believed to be: at first nothing, which is what it is nearly always.
        let mut believed: u32 = 0;
        for _ in 0..COUNT_TRIES {
            let count = believed.saturating_add(1);
            let open_at = now + rule.wait_after(count);
            let forget_at = open_at + rule.forget_after;
            let update = self
                .db
                .update_item()
                .table_name(&*self.table)
                .set_key(Some(key.attributes()))
                .update_expression("SET guesses = :count, open_at = :open_at, forget_at = :forget_at, #ttl = :ttl")
                .expression_attribute_names("#ttl", TTL)
                .expression_attribute_values(":count", n(count))
                .expression_attribute_values(":open_at", n(open_at))
                .expression_attribute_values(":forget_at", n(forget_at))
                .expression_attribute_values(":ttl", n(forget_at.div_euclid(1000)))
                .expression_attribute_values(":now", n(now))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            let update = if believed == 0 {
                update.condition_expression("attribute_not_exists(pk) OR forget_at <= :now")
            } else {
                update
                    .condition_expression("guesses = :believed AND open_at <= :now AND forget_at > :now")
                    .expression_attribute_values(":believed", n(believed))
            };
            let Err(error) = update.send().await else { return Ok(Admitted::Now) };
            believed = match failed_condition(error)?.as_ref().map(counted).transpose()? {
                Some((_, _, forget_at)) if forget_at <= now => 0,
                Some((_, open_at, _)) if open_at > now => return Ok(Admitted::In(open_at - now)),
                Some((count, ..)) => count,
                None => 0,
            };
        }
        Err(StoreError::Contention)
    }

    /// Takes one guess back that could not be looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_back_guess(&self, subject: &str) -> Result<()> {
        let update = self.db.update_item().table_name(&*self.table).set_key(Some(keys::guesses(subject).attributes()));
        let taken_back = update
            .update_expression("SET guesses = guesses - :one, open_at = :now")
            .condition_expression("guesses > :one")
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":now", n(self.now()))
            .send()
            .await;
        let Err(error) = taken_back else { return Ok(()) };
        failed_condition(error)?;
        // It was the only one, and there is no counter of none.
        let delete = self.db.delete_item().table_name(&*self.table).set_key(Some(keys::guesses(subject).attributes()));
        let delete = delete.condition_expression("guesses = :one").expression_attribute_values(":one", n(1));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(StoreError::from_sdk(error)),
        }
    }

    /// Forgets the guesses: one was right.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_guesses(&self, subject: &str) -> Result<()> {
        let delete = self.db.delete_item().table_name(&*self.table);
        let key = keys::guesses(subject).attributes();
        delete.set_key(Some(key)).send().await.map_err(StoreError::from_sdk)?;
        Ok(())
    }

    /// Counts one more try of `subject` in this window, unless there were enough.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_try(&self, subject: &str, rule: &WindowRule) -> Result<Admitted> {
        let now = self.now();
        let (key, ends_at) = window(subject, rule, now);
        let count = self
            .db
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(key.attributes()))
            .update_expression("SET #ttl = :ttl ADD tries :one")
            .condition_expression("attribute_not_exists(tries) OR tries < :most")
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":ttl", n(ends_at.div_euclid(1000) + 60))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":most", n(rule.most))
            .send()
            .await;
        match count {
            Ok(_) => Ok(Admitted::Now),
            Err(error) => failed_condition(error).map(|_| Admitted::In(ends_at - now)),
        }
    }

    /// Takes a try of this window back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_back_try(&self, subject: &str, rule: &WindowRule) -> Result<()> {
        let (key, _) = window(subject, rule, self.now());
        let update = self.db.update_item().table_name(&*self.table).set_key(Some(key.attributes()));
        let taken_back = update
            .update_expression("ADD tries :minus_one")
            .condition_expression("tries > :none")
            .expression_attribute_values(":minus_one", n(-1))
            .expression_attribute_values(":none", n(0))
            .send()
            .await;
        taken_back.map(drop).or_else(|error| failed_condition(error).map(drop))
    }
}

/// Guesses so far, when the next may be made, when they are forgotten.
fn counted(item: &Item) -> Result<(u32, Millis, Millis)> {
    let reader = Reader(item);
    Ok((reader.number("guesses")?, reader.number("open_at")?, reader.number("forget_at")?))
}

fn window(subject: &str, rule: &WindowRule, now: Millis) -> (Key, Millis) {
    let number = now.div_euclid(rule.window);
    (keys::tries(subject, number), (number + 1) * rule.window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let rule = GuessRule { free: 5, first_wait: 30, longest_wait: 900, forget_after: 1 };
        let waits: Vec<_> = (1..=12).map(|count| rule.wait_after(count)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(rule.wait_after(u32::MAX), 900);
    }
}

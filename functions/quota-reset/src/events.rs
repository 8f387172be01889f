//! The events that Stripe could not deliver.

use std::time::Duration;

use tenantry_domain::Millis;
use tenantry_store::TimeIsUp;

use crate::{Job, JobError, Message, State, Tally};

/// How far back the night looks: Stripe tries for three days.
pub(crate) const SINCE: Millis = 5 * 24 * 3_600_000;

pub(crate) async fn catch_up(
    state: &State,
    job: Job,
    since: Millis,
    mut after: Option<String>,
    time_is_up: TimeIsUp<'_>,
) -> Result<Tally, JobError> {
    let mut tally = Tally::of(job);
    let mut failed = 0;
    loop {
        let caught_up = state.commerce.catch_up(since, after.as_deref(), &*state.mails, time_is_up).await?;
        tally.repaired += caught_up.repaired;
        tally.mismatches += caught_up.mismatches;
        failed += caught_up.failed;
        after = caught_up.next;
        if after.is_none() || time_is_up() {
            break;
        }
    }
    if after.is_some() {
        state.queue.send(&Message::Events { job, since, after }, Duration::ZERO).await?;
    }
    // Those that were handled are passed over when the message comes again.
    if failed > 0 { Err(JobError::Events(failed)) } else { Ok(tally) }
}

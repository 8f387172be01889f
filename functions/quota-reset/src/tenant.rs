//! What is done for one tenant.

use std::time::Duration;

use tenantry_commerce::{CommerceError, Compared};
use tenantry_domain::OrgId;
use tenantry_store::{Difference, Erased, Look, Suspicion, TenantScope, TimeIsUp};
use tenantry_web::telemetry;

use crate::{Job, JobError, Message, State, Tally};

/// How long after a suspicion the second look comes. The aggregator's delay is seconds; what is still not written
/// after this is late enough to be called a difference.
pub(crate) const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Thresholds of limits that people were told of.
const LIMIT_WARNINGS: &str = "LimitWarnings";

/// Log lines about one tenant; the count says how many there are.
const MOST_LINES: usize = 20;

/// What came of a visit.
pub(crate) enum Visit {
    /// All done; so many things were changed.
    Done(u64),
    /// The books are to be looked at again.
    Suspicious(Suspicion),
    /// There was not enough time.
    Unfinished,
    /// There is more to do, which goes on in another message.
    More,
    /// What was bought was held against what Stripe says.
    Compared(Compared),
    /// So many things were changed, and nothing could be done about credits that run out.
    Unwatched(u64),
}

pub(crate) async fn visit(
    state: &State,
    job: Job,
    scope: &TenantScope,
    time_is_up: TimeIsUp<'_>,
) -> Result<Visit, JobError> {
    let (store, commerce) = (&state.store, &state.commerce);
    match job {
        Job::Reset => Ok(Visit::Done(store.begin_period(scope).await?.into())),
        Job::Sweep => {
            let due = store.sweep_if_due(scope).await?;
            let planned = due.plan && commerce.entitle(scope).await?.before.is_some();
            let mut done = due.settled as u64 + u64::from(planned);
            if due.limits {
                let warned = commerce.warn_of_limits(scope, &*state.mails).await?;
                if warned > 0 {
                    telemetry::metric(store.now(), LIMIT_WARNINGS, warned);
                }
                done += warned;
            }
            if !due.credits {
                return Ok(Visit::Done(done));
            }
            match commerce.watch_credits(scope, &*state.mails).await {
                Ok(changed) => Ok(Visit::Done(done + u64::from(changed))),
                Err(CommerceError::Store(error)) => Err(error.into()),
                // It is due again with the next sweep. While a vendor is away, it shall not hold up those whom it does not
                // concern, nor fill the queue.
                Err(error) => {
                    tracing::error!(org = %scope.org(), %error, "credits run out, and nothing could be done about it");
                    Ok(Visit::Unwatched(done))
                }
            }
        }
        Job::Erase => {
            if !store.begin_erasure_if_due(scope).await? {
                return Ok(Visit::Done(0));
            }
            // First of all, and with whatever it takes: afterwards nothing says any more who pays for what.
            commerce.part(scope).await?;
            Ok(match store.erase_if_due(scope, time_is_up).await? {
                Erased::NotDue => Visit::Done(0),
                Erased::All => Visit::Done(1),
                Erased::Unfinished => Visit::More,
            })
        }
        Job::Payments => Ok(Visit::Compared(commerce.compare(scope).await?)),
        Job::Reconcile => Ok(match store.look(scope, time_is_up).await? {
            Look::Clean => Visit::Done(0),
            Look::Suspicious(suspicion) => Visit::Suspicious(suspicion),
            Look::Unfinished => Visit::Unfinished,
        }),
    }
}

/// A message for one tenant: it has the whole time of the function.
pub(crate) async fn alone(
    state: &State,
    job: Job,
    org: &OrgId,
    suspicion: Option<&Suspicion>,
    time_is_up: TimeIsUp<'_>,
) -> Result<Tally, JobError> {
    let mut tally = Tally { visited: 1, ..Tally::of(job) };
    let Some(scope) = state.store.tenant(org).await? else {
        tracing::info!(%org, ?job, "the tenant is gone");
        return Ok(tally);
    };
    let unchecked = |tally: &mut Tally| {
        tracing::error!(%org, "too many records to check the books in one run of the function");
        tally.unchecked += 1;
    };
    if let Some(suspicion) = suspicion {
        match state.store.look_again(&scope, suspicion, time_is_up).await? {
            Some(differences) => {
                report(org, &differences);
                tally.differences = differences.len() as u64;
            }
            None => unchecked(&mut tally),
        }
        return Ok(tally);
    }
    match visit(state, job, &scope, time_is_up).await? {
        Visit::Done(changed) => tally.changed += changed,
        Visit::Compared(compared) => tally.compared(compared),
        Visit::Unwatched(changed) => tally.unwatched(changed),
        Visit::Suspicious(suspicion) => {
            let again = Message::Tenant { job, tenant: org.clone(), suspicion: Some(suspicion) };
            state.queue.send(&again, LOOK_AGAIN_AFTER).await?;
        }
        Visit::More => {
            let on = Message::Tenant { job, tenant: org.clone(), suspicion: None };
            state.queue.send(&on, Duration::ZERO).await?;
        }
        Visit::Unfinished => unchecked(&mut tally),
    }
    Ok(tally)
}

fn report(org: &OrgId, differences: &[Difference]) {
    for difference in differences.iter().take(MOST_LINES) {
        match difference {
            Difference::Meter { period, resource, charged, recorded } => tracing::error!(
                %org, %period, resource = resource.name(), charged, recorded,
                "the meter charged something else than the records say"
            ),
            Difference::Credits { charged, recorded } => {
                tracing::error!(%org, charged, recorded, "credits went that no record and no row of the ledger tells of");
            }
            Difference::RollUp(repair) => {
                tracing::error!(%org, ?repair, "a roll-up was not the sum of its records, and was repaired");
            }
        }
    }
    if differences.len() > MOST_LINES {
        tracing::error!(%org, differences = differences.len(), "there are more differences");
    }
}

//! `POST /_dev/reconcile`: do the books agree, now? What `cargo xtask reconcile` asks, of every tenant.
//!
//! Deployed, the second look comes ten minutes after the first, because usage may be on its way in a queue that nobody can
//! look into. Here the queue is in the process: once what was in it at the first look is written, nothing is on its way,
//! and the second look can judge. It is the same look, with the same rules: docs/metering-internals.md.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::post};
use http::{HeaderMap, header};
use serde::Serialize;
use tenantry_domain::{OrgId, Resource};
use tenantry_store::{Difference, Look, Repair, Store, StoreError, Suspicion, TenantScope};
use tenantry_web::{ApiError, Code};

use crate::{inbox::site, queue::LocalQueue};

/// Tenants of one page of the register.
const PAGE: u16 = 100;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// How many tenants were looked at.
    organizations: u64,
    /// What does not agree, or did not.
    differences: Vec<Found>,
    /// Tenants whose books could not be read, and why.
    failed: Vec<Failed>,
    /// Usage that could not be written, so that nothing could be judged that looked wrong.
    unwritten: u64,
    /// Usage that was given up: it is charged and has no record.
    dead_letters: u64,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Found {
    /// Allowance − left − holds is not what the records add up to. It is money, so nobody repairs it.
    Meter { organization: OrgId, period: String, resource: &'static str, charged: i64, recorded: u64, repaired: bool },
    /// Ledger − credits − holds is not what the records add up to. Nobody repairs that either.
    Credits { organization: OrgId, charged: i64, recorded: u64, repaired: bool },
    /// A roll-up was not the sum of its records.
    RollUp {
        organization: OrgId,
        day: String,
        /// The model, or the resource of the tenant's own.
        of: String,
        operation: &'static str,
        changes: Vec<Corrected>,
        repaired: bool,
    },
}

#[derive(Debug, Serialize)]
struct Corrected {
    name: &'static str,
    stored: u64,
    recorded: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    organization: OrgId,
    error: String,
}

impl Found {
    fn of(organization: &OrgId, difference: Difference) -> Self {
        let organization = organization.clone();
        match difference {
            Difference::Meter { period, resource, charged, recorded } => Self::Meter {
                organization,
                period: period.to_string(),
                resource: Resource::name(resource),
                charged,
                recorded,
                repaired: false,
            },
            Difference::Credits { charged, recorded } => {
                Self::Credits { organization, charged, recorded, repaired: false }
            }
            Difference::RollUp(repair) => {
                let Repair { key, stored, recorded } = *repair;
                let pairs = stored.unwrap_or_default().numbers().into_iter().zip(recorded.numbers());
                let changes = pairs.filter(|(stored, recorded)| stored != recorded);
                let changes = changes.map(|((name, stored), (_, recorded))| Corrected { name, stored, recorded });
                let (day, of, operation) = (key.day, key.model, key.operation);
                Self::RollUp { organization, day, of, operation, changes: changes.collect(), repaired: true }
            }
        }
    }
}

/// Where the books are.
pub(crate) struct Books {
    store: Store,
    queue: LocalQueue,
}

impl Books {
    pub(crate) const fn new(store: Store, queue: LocalQueue) -> Self {
        Self { store, queue }
    }

    async fn reconcile(&self) -> Result<Report, ApiError> {
        let mut report = Report::default();
        let suspicious = self.look_at_all(&mut report).await?;
        let failed = |error: rusqlite::Error| ApiError::internal(error.to_string());
        report.unwritten = self.queue.deliver_what_waits(&self.store).await.map_err(failed)?;
        report.dead_letters = self.queue.depth().map_err(failed)?.1;
        if report.unwritten > 0 {
            return Ok(report);
        }
        for (scope, suspicion) in suspicious {
            match self.store.look_again(&scope, &suspicion, &|| false).await {
                Ok(found) => {
                    let found = found.into_iter().flatten().map(|difference| Found::of(scope.org(), difference));
                    report.differences.extend(found);
                }
                Err(error) => report.failed(&scope, &error),
            }
        }
        Ok(report)
    }

    async fn look_at_all(&self, report: &mut Report) -> Result<Vec<(TenantScope, Suspicion)>, ApiError> {
        let mut suspicious = vec![];
        for shard in 0..Store::shards() {
            let mut after = None;
            loop {
                let (tenants, more) = self.store.tenants(shard, after.as_ref(), PAGE).await?;
                after = tenants.last().map(|scope| scope.org().clone()).or(after);
                for scope in tenants {
                    report.organizations += 1;
                    match self.store.look(&scope, &|| false).await {
                        Ok(Look::Suspicious(suspicion)) => suspicious.push((scope, suspicion)),
                        // There is all the time that there is.
                        Ok(Look::Clean | Look::Unfinished) => {}
                        Err(error) => report.failed(&scope, &error),
                    }
                }
                if !more {
                    break;
                }
            }
        }
        Ok(suspicious)
    }
}

impl Report {
    fn failed(&mut self, scope: &TenantScope, error: &StoreError) {
        tracing::error!(org = %scope.org(), %error, "books could not be read");
        self.failed.push(Failed { organization: scope.org().clone(), error: error.to_string() });
    }
}

/// `/_dev/reconcile`.
pub(crate) fn router(books: Books) -> Router {
    Router::new().route("/_dev/reconcile", post(reconcile)).with_state(Arc::new(books))
}

async fn reconcile(State(books): State<Arc<Books>>, headers: HeaderMap) -> Result<Json<Report>, ApiError> {
    site(&headers)?;
    // Programs send neither; a page that is open in the browser has no business here.
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(ApiError::new(Code::Forbidden, "This is for `cargo xtask reconcile`."));
    }
    books.reconcile().await.map(Json)
}

//! What people are told about an event, and whom: the owners, each in their language.
//!
//! What they are told is decided by what is so by now, because events come late, and not by what a call changed, because
//! they come again.

use tenantry_domain::{SubscriptionStatus, account::Subscription, plans::Plan, roles::Role, secret::sha256_hex};
use tenantry_payments::stripe::Event;
use tenantry_store::{TenantScope, User};
use tenantry_web::mail::{Content, Language, Mail};

use crate::{Commerce, CommerceError, Handled, Notice, Planned};

/// As many members as are read at once.
const PAGE: u16 = 100;

impl Commerce {
    /// What should be told about a subscription to `plan`, where `planned` is what the tenant is on now.
    pub(crate) async fn notice_of_subscription(
        &self,
        scope: &TenantScope,
        event: &Event,
        id: &str,
        plan: Option<&Plan>,
        planned: Option<Planned>,
    ) -> Result<Option<Notice>, CommerceError> {
        match (&*event.kind, plan, planned) {
            ("customer.subscription.trial_will_end", ..) => {
                let trial = self.subscribed(scope, id, &SubscriptionStatus::Trialing).await?;
                // Who has canceled knows.
                let ending = trial.filter(|trial| !trial.cancel_at_period_end).and_then(|trial| trial.trial_end);
                Ok(ending.map(|at| Notice::TrialEnding { subscription: id.to_owned(), at }))
            }
            ("customer.subscription.deleted", Some(plan), Some(Planned { plan: now, .. })) => {
                let is_smaller = now != plan.id && self.store.plans().larger(&plan.id, &now) == plan.id;
                Ok(is_smaller.then(|| Notice::PlanEnded { plan: plan.id.clone(), now }))
            }
            _ => Ok(None),
        }
    }

    /// What should be told about an invoice that was not paid: nothing of one that began a subscription or a change, which
    /// do not come about, and nothing once the grace is over.
    pub(crate) async fn notice_of_late_payment(
        &self,
        scope: &TenantScope,
        invoice: &str,
        subscription: &str,
    ) -> Result<Option<Notice>, CommerceError> {
        let late = self.subscribed(scope, subscription, &SubscriptionStatus::PastDue).await?;
        let until = late.and_then(|late| late.standing.past_due_since).map(|since| since.saturating_add(self.grace));
        let until = until.filter(|until| *until > self.store.now());
        Ok(until.map(|until| Notice::PaymentFailed { invoice: invoice.to_owned(), until }))
    }

    /// The subscription `id`, if it is the one that counts and has this status.
    async fn subscribed(
        &self,
        scope: &TenantScope,
        id: &str,
        status: &SubscriptionStatus,
    ) -> Result<Option<Subscription>, CommerceError> {
        let known = self.store.account(scope).await?.subscription;
        Ok(known.filter(|known| known.id == id && known.standing.status == *status))
    }

    /// The mails that the event `event` calls for. They have the same ids whenever it is asked, so the mailer sends each
    /// once, however often they are ordered.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn mails(&self, event: &str, handled: &Handled) -> Result<Vec<Mail>, CommerceError> {
        let Handled { scope: Some(scope), notices, .. } = handled else { return Ok(vec![]) };
        if notices.is_empty() {
            return Ok(vec![]);
        }
        // Who deleted the organization has been told enough.
        let organization = self.store.organization(scope).await?.filter(|found| found.deletes_at.is_none());
        let Some(organization) = organization else { return Ok(vec![]) };
        let owners = self.owners(scope).await?;
        if owners.is_empty() {
            tracing::warn!(org = %scope.org(), "no owner with a confirmed address can be told");
        }
        let event = sha256_hex(event.as_bytes());
        let event = event.get(..32).unwrap_or(&event);
        let mut mails = vec![];
        for notice in notices {
            for owner in &owners {
                let content = self.content(notice, &organization.name, owner);
                let id = format!("{}.{event}.{}", content.template(), owner.id.short());
                let language = match owner.preferred_language.as_deref().or(organization.default_language.as_deref()) {
                    Some("zh") => Language::Zh,
                    _ => Language::En,
                };
                mails.push(Mail { id, language, to: owner.email.clone(), content });
            }
        }
        Ok(mails)
    }

    fn content(&self, notice: &Notice, organization: &str, owner: &User) -> Content {
        let (name, organization) = (owner.full_name.clone().unwrap_or_default(), organization.to_owned());
        let called = |id: &str| self.store.plans().find(id).map_or_else(|| id.to_owned(), |plan| plan.name.clone());
        match notice {
            Notice::PaymentFailed { until, .. } => Content::PaymentFailed { name, organization, until: *until },
            Notice::TrialEnding { at, .. } => Content::TrialEnding { name, organization, at: *at },
            Notice::LowBalance { credits } => Content::LowBalance { name, organization, credits: *credits },
            Notice::LimitReached { by, who, model, reached, resets_at } => Content::LimitReached {
                name,
                organization,
                by: *by,
                who: who.clone(),
                model: model.clone().unwrap_or_default(),
                resource: reached.what.name().to_owned(),
                percent: reached.percent,
                used: reached.used,
                limit: reached.limit,
                resets_at: *resets_at,
            },
            Notice::TopUpFailed => Content::TopUpFailed { name, organization },
            Notice::PlanEnded { plan, now } => {
                Content::PlanEnded { name, organization, plan: called(plan), now: called(now) }
            }
        }
    }

    /// The owners who can be written to: an address that nobody confirmed may be a stranger's.
    async fn owners(&self, scope: &TenantScope) -> Result<Vec<User>, CommerceError> {
        let (mut owners, mut cursor) = (vec![], None);
        loop {
            let page = self.store.members(scope, PAGE, cursor.as_deref()).await?;
            for member in page.items.iter().filter(|member| member.role == Role::Owner) {
                let user = self.store.user(&member.user).await?;
                owners.extend(user.filter(|user| !user.disabled && user.email_verified_at.is_some()));
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(owners),
            }
        }
    }
}

//! A tenant's data as a whole, page by page, for the tenant to take along. Secrets and their hashes are left out, and
//! so are rows that only serve the platform's own work.

use tenantry_domain::{account::Account, ledger::LedgerRow, metering::Meter, orders::Order, usage::UsageEvent};

use crate::{
    AccountEvent, ApiKey, AuditRow, Invite, Member, Organization, Page, RollUp, Store, TenantScope, TenantUser,
    api_keys, audit, billing_account,
    db::Range,
    error::Result,
    invites,
    item::{Item, Reader},
    keys, ledger, members,
    meter::{read_closing, read_meter},
    orders, organizations, tenant_users, usage,
};

/// One thing of a tenant.
#[allow(clippy::large_enum_variant, reason = "a page of them is made, written out and dropped")]
pub enum Exported {
    /// The organization.
    Organization(Organization),
    /// A member.
    Member(Member),
    /// An invitation.
    Invite(Invite),
    /// An API key.
    ApiKey(ApiKey),
    /// A tenant user.
    TenantUser(TenantUser),
    /// What is left of the current period.
    Meter(Meter),
    /// What was left when a period ended.
    Closing(Meter),
    /// A metered request.
    Record(UsageEvent),
    /// Sums of a day.
    RollUp(RollUp),
    /// A row of the audit log.
    Audit(AuditRow),
    /// What was bought that lasts.
    Account(Account),
    /// Something that happened to a subscription.
    AccountEvent(AccountEvent),
    /// A row of the ledger of credits.
    Ledger(LedgerRow),
    /// Something that was ordered.
    Order(Order),
}

impl Store {
    /// A page of everything that the tenant has, in the order of the keys. A page may be short, or empty, and still
    /// have a next one.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError); `BadCursor` for a cursor of another list.
    pub async fn export(&self, scope: &TenantScope, limit: u16, cursor: Option<&str>) -> Result<Page<Exported>> {
        let pk = keys::tenant(scope);
        let range = Range { cursor, limit: limit.into(), consistent: true, ..Range::between(&pk, " ", "\u{7f}") };
        let (items, next) = self.page(range).await?;
        let mut exported = vec![];
        for item in &items {
            exported.extend(match read_any(item)? {
                // What its shards are together.
                Some(Exported::Meter(meter)) if meter.shards.made > 1 => {
                    Some(Exported::Meter(self.meter_as_it_is(scope).await?))
                }
                Some(Exported::Closing(meter)) if meter.shards.made > 1 => {
                    self.closed_meter(scope, meter.period).await?.map(Exported::Closing)
                }
                other => other,
            });
        }
        Ok(Page { items: exported, next })
    }
}

fn read_any(item: &Item) -> Result<Option<Exported>> {
    let reader = Reader(item);
    Ok(Some(match reader.text(keys::SK)?.split('#').next().unwrap_or_default() {
        "ORG" => Exported::Organization(organizations::read_organization(item)?),
        "METER" => Exported::Meter(read_meter(item)?),
        "MEMBER" => Exported::Member(members::read_member(item)?),
        "INVITE" => Exported::Invite(invites::read_invite(item)?),
        "KEY" => Exported::ApiKey(api_keys::read_key(item)?),
        "TUSER" => Exported::TenantUser(tenant_users::read_tenant_user(item)?),
        "REC" => Exported::Record(usage::read_record(item)?),
        "ROLL" => Exported::RollUp(usage::read_roll_up(item)?),
        "CLOSE" => Exported::Closing(read_closing(item)?),
        "AUDIT" => Exported::Audit(audit::read_audit(item)?),
        "ACCOUNT" if reader.text(keys::SK)? == keys::ACCOUNT => Exported::Account(billing_account::read_account(item)?),
        "ACCOUNT" => Exported::AccountEvent(billing_account::read_event(item)?),
        "LEDGER" => Exported::Ledger(ledger::read_row(item)?),
        "ORDER" => Exported::Order(orders::read_order(item)?),
        // Places of invited addresses, answers that are kept to be repeated, and the like.
        _ => return Ok(None),
    }))
}

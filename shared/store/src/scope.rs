//! The proof that a caller was authenticated as a tenant.

use tenantry_domain::OrgId;

use crate::{organizations::Membership, sessions::Session};

/// One tenant's data, and the right to touch it. There is no other way to a tenant's keys, so a missing
/// check is a missing argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantScope {
    org: OrgId,
}

impl TenantScope {
    /// The scope of `org`. Whoever calls this vouches that the caller was authenticated as `org`;
    /// `clippy.toml` forbids it everywhere but where access tokens are verified and where usage events are
    /// consumed.
    #[must_use]
    pub const fn authenticated(org: OrgId) -> Self {
        Self { org }
    }

    /// The tenant.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        &self.org
    }

    /// An API key's row names the tenant it acts for.
    pub(crate) const fn of_key(org: OrgId) -> Self {
        Self { org }
    }

    /// A session's row names the tenant it acts for.
    pub(crate) fn of_session(session: &Session) -> Self {
        Self { org: session.org.clone() }
    }

    /// The register lists the tenants there are, for work that is done for each of them.
    pub(crate) const fn of_registered(org: OrgId) -> Self {
        Self { org }
    }

    /// A membership row names the tenant that its user may act in.
    pub(crate) fn of_membership(membership: &Membership) -> Self {
        Self { org: membership.org.clone() }
    }

    /// An invitation's token names the tenant; whoever holds one looks at the invitation's row, and at more only
    /// when the row has the token's hash.
    pub(crate) const fn of_invite(org: OrgId) -> Self {
        Self { org }
    }

    /// A tenant that is being created has nothing to protect yet.
    pub(crate) fn new_tenant(org: &OrgId) -> Self {
        Self { org: org.clone() }
    }
}

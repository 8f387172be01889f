//! Who may do what: one matrix, read by every handler.

use serde::{Deserialize, Serialize};

/// A user's role in an organization, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, the organization itself included.
    Owner,
    /// Members, keys and billing.
    Admin,
    /// Use of the product.
    Member,
}

impl Role {
    /// The stored and shown word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Member].into_iter().find(|role| role.name() == name)
    }

    /// Whether somebody in this role may give `role` to others. Nobody gives more than they have.
    #[must_use]
    pub const fn may_grant(self, role: Self) -> bool {
        match self {
            Self::Owner => true,
            Self::Admin => !matches!(role, Self::Owner),
            Self::Member => false,
        }
    }

    /// Whether somebody in this role may change or remove a member in `role`. Owners are changed by owners alone.
    #[must_use]
    pub const fn may_change(self, role: Self) -> bool {
        self.may_grant(role)
    }
}

/// Something a caller may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Call models.
    CallModels,
    /// See usage and what is left.
    ReadUsage,
    /// Record usage of the organization's own resources.
    RecordUsage,
    /// See the organization.
    ReadOrganization,
    /// List, create and revoke API keys.
    ManageKeys,
    /// See who belongs to the organization.
    ReadMembers,
    /// Invite people, and change and remove members below one's own role.
    ManageMembers,
    /// Name and settings of the organization.
    ManageOrganization,
    /// Delete the organization, bring it back, hand it over.
    OwnOrganization,
    /// See, create, change and delete tenant users.
    ManageTenantUsers,
    /// Sign tenant users in.
    LoginTenantUsers,
    /// Read the audit log.
    ReadAudit,
    /// Take out all of the organization's data.
    ExportData,
    /// Buy and end plans, buy credits, and see what was paid.
    ManageBilling,
}

/// What an API key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// Call models.
    Models,
    /// See usage and what is left.
    Usage,
    /// Sign tenant users in. Such a key sits in shipped apps, so it is best given nothing else.
    Login,
    /// Record usage of the organization's own resources.
    Record,
}

impl KeyScope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Models, Self::Usage, Self::Login, Self::Record];

    /// The stored and shown word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Usage => "usage",
            Self::Login => "login",
            Self::Record => "record",
        }
    }
}

/// The scopes of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyScopes(u8);

impl Default for KeyScopes {
    /// Calling models and seeing usage. What else a key may do is said when it is made.
    fn default() -> Self {
        [KeyScope::Models, KeyScope::Usage].into_iter().collect()
    }
}

impl KeyScopes {
    /// Whether `scope` is among them.
    #[must_use]
    pub const fn has(self, scope: KeyScope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// They, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = KeyScope> {
        KeyScope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// Their words with commas between, as they are stored.
    #[must_use]
    pub fn words(self) -> String {
        self.iter().map(KeyScope::name).collect::<Vec<_>>().join(",")
    }

    /// The scopes that [`words`](Self::words) wrote.
    #[must_use]
    pub fn parse(words: &str) -> Option<Self> {
        let scope = |word: &str| KeyScope::ALL.into_iter().find(|scope| scope.name() == word);
        words.split(',').filter(|word| !word.is_empty()).map(scope).collect()
    }
}

impl FromIterator<KeyScope> for KeyScopes {
    fn from_iter<I: IntoIterator<Item = KeyScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }
}

/// Who calls: a person in a role, or an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A signed-in person.
    User(Role),
    /// A program with an API key of these scopes.
    Key(KeyScopes),
    /// A signed-in person whose organization is being deleted.
    Waiting,
}

impl Actor {
    /// The matrix. Keys sit in shipped programs, so they use the product and manage nothing.
    #[must_use]
    pub const fn may(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Self::User(Role::Owner) => !matches!(permission, P::LoginTenantUsers),
            Self::User(Role::Admin) => match permission {
                P::CallModels
                | P::ReadUsage
                | P::RecordUsage
                | P::ReadOrganization
                | P::ReadMembers
                | P::ManageKeys
                | P::ManageMembers
                | P::ManageOrganization
                | P::ManageTenantUsers
                | P::ManageBilling => true,
                P::OwnOrganization | P::ReadAudit | P::ExportData | P::LoginTenantUsers => false,
            },
            Self::User(Role::Member) => match permission {
                P::CallModels | P::ReadUsage | P::RecordUsage | P::ReadOrganization | P::ReadMembers => true,
                P::ManageKeys
                | P::ManageMembers
                | P::ManageOrganization
                | P::ManageTenantUsers
                | P::ManageBilling
                | P::OwnOrganization
                | P::ReadAudit
                | P::ExportData
                | P::LoginTenantUsers => false,
            },
            // What brings the organization back asks for the role that is stored.
            Self::Waiting => matches!(permission, P::ReadOrganization),
            Self::Key(scopes) => match permission {
                P::ReadOrganization => true,
                P::CallModels => scopes.has(KeyScope::Models),
                P::ReadUsage => scopes.has(KeyScope::Usage),
                P::RecordUsage => scopes.has(KeyScope::Record),
                P::LoginTenantUsers => scopes.has(KeyScope::Login),
                P::ManageKeys
                | P::ReadMembers
                | P::ManageMembers
                | P::ManageOrganization
                | P::ManageTenantUsers
                | P::OwnOrganization
                | P::ReadAudit
                | P::ExportData
                | P::ManageBilling => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_and_admins_manage_keys() {
        let may = |actor: Actor| actor.may(Permission::ManageKeys);
        assert!(may(Actor::User(Role::Owner)) && may(Actor::User(Role::Admin)));
        assert!(!may(Actor::User(Role::Member)) && !may(Actor::Key(KeyScope::ALL.into_iter().collect())));
        assert!(Actor::Key(KeyScopes::default()).may(Permission::CallModels));
        assert_eq!(Role::parse("admin"), Some(Role::Admin));
        assert_eq!(Role::parse("Admin"), None);
    }

    #[test]
    fn owners_alone_own_read_the_log_and_take_the_data_out() {
        for permission in [Permission::OwnOrganization, Permission::ReadAudit, Permission::ExportData] {
            assert!(Actor::User(Role::Owner).may(permission));
            assert!(!Actor::User(Role::Admin).may(permission) && !Actor::User(Role::Member).may(permission));
            assert!(!Actor::Key(KeyScope::ALL.into_iter().collect()).may(permission));
        }
    }

    #[test]
    fn who_waits_for_an_erasure_sees_the_organization_and_no_more() {
        assert!(Actor::Waiting.may(Permission::ReadOrganization));
        for permission in [
            Permission::CallModels,
            Permission::ReadUsage,
            Permission::RecordUsage,
            Permission::ManageKeys,
            Permission::ReadMembers,
            Permission::ManageMembers,
            Permission::ManageOrganization,
            Permission::OwnOrganization,
            Permission::ManageTenantUsers,
            Permission::LoginTenantUsers,
            Permission::ReadAudit,
            Permission::ExportData,
        ] {
            assert!(!Actor::Waiting.may(permission), "{permission:?}");
        }
    }

    #[test]
    fn nobody_grants_more_than_they_have() {
        let roles = [Role::Owner, Role::Admin, Role::Member];
        for (role, grants) in roles.into_iter().zip([[true, true, true], [false, true, true], [false; 3]]) {
            assert_eq!(roles.map(|other| role.may_grant(other)), grants, "{role:?}");
        }
    }

    #[test]
    fn a_key_may_do_what_its_scopes_say() {
        for (scope, permission) in [
            (KeyScope::Models, Permission::CallModels),
            (KeyScope::Usage, Permission::ReadUsage),
            (KeyScope::Login, Permission::LoginTenantUsers),
            (KeyScope::Record, Permission::RecordUsage),
        ] {
            for other in KeyScope::ALL {
                assert_eq!(Actor::Key([other].into_iter().collect()).may(permission), other == scope);
            }
        }
        assert!(!KeyScopes::default().has(KeyScope::Login) && !KeyScopes::default().has(KeyScope::Record));
        assert_eq!(KeyScopes::parse(&KeyScopes::default().words()), Some(KeyScopes::default()));
        assert_eq!(KeyScopes::parse("models,everything"), None);
        assert!(KeyScopes::parse("").is_some_and(KeyScopes::is_empty));
    }
}

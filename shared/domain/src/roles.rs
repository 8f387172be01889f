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
}

/// Something a caller may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Call models.
    CallModels,
    /// See usage and what is left.
    ReadUsage,
    /// See the organization.
    ReadOrganization,
    /// List, create and revoke API keys.
    ManageKeys,
}

/// Who calls: a person in a role, or an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A signed-in person.
    User(Role),
    /// A program with an API key.
    Key,
}

impl Actor {
    /// The matrix. Keys sit in shipped programs, so they use the product and manage nothing.
    #[must_use]
    pub const fn may(self, permission: Permission) -> bool {
        match permission {
            Permission::CallModels | Permission::ReadUsage | Permission::ReadOrganization => true,
            Permission::ManageKeys => matches!(self, Self::User(Role::Owner | Role::Admin)),
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
        assert!(!may(Actor::User(Role::Member)) && !may(Actor::Key));
        assert!(Actor::Key.may(Permission::CallModels));
        assert_eq!(Role::parse("admin"), Some(Role::Admin));
        assert_eq!(Role::parse("Admin"), None);
    }
}

//! Users: people, global, found by e-mail.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use tenantry_domain::{Email, Millis, OrgId, UserId, plans::Plan};

use crate::{
    Store, TenantScope, Version,
    db::{Transacted, build},
    error::Result,
    item::{Item, NewItem, Reader},
    keys,
    organizations::new_organization,
    version::VERSION,
};

/// A user as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The person.
    pub id: UserId,
    /// Normalized address.
    pub email: Email,
    /// Argon2id in PHC string format.
    pub password_hash: String,
    /// Name for people.
    pub full_name: Option<String>,
    /// May not sign in any more.
    pub disabled: bool,
    /// When the address was confirmed.
    pub email_verified_at: Option<Millis>,
    /// Where a picture is.
    pub avatar_url: Option<String>,
    /// Number in the form of E.164.
    pub phone: Option<String>,
    /// Language of mails, `en` or `zh`.
    pub preferred_language: Option<String>,
    /// `light`, `dark` or `system`.
    pub theme_preference: Option<String>,
    /// How often the password was changed. Sessions of earlier epochs are over.
    pub epoch: u64,
    /// The profile's version.
    pub version: Version,
    /// When the user registered.
    pub created_at: Millis,
}

impl User {
    /// Somebody who registers now.
    #[must_use]
    pub const fn new(
        id: UserId,
        email: Email,
        password_hash: String,
        full_name: Option<String>,
        created_at: Millis,
    ) -> Self {
        Self {
            id,
            email,
            password_hash,
            full_name,
            disabled: false,
            email_verified_at: None,
            avatar_url: None,
            phone: None,
            preferred_language: None,
            theme_preference: None,
            epoch: 0,
            version: Version::FIRST,
            created_at,
        }
    }
}

/// A registration: a person, and the organization that is created with them.
pub struct NewUser<'a> {
    /// The person.
    pub user: &'a User,
    /// The organization's id.
    pub org: &'a OrgId,
    /// The organization's name.
    pub org_name: &'a str,
    /// The plan it starts on.
    pub plan: &'a Plan,
}

impl Store {
    /// Creates a user with an organization they own, its meter full. `false` when the address is taken;
    /// then nothing was written.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn create_user(&self, new: &NewUser<'_>) -> Result<bool> {
        let (user, now) = (new.user, new.user.created_at);
        let scope = TenantScope::new_tenant(new.org);
        let email = NewItem::at(&keys::email(&user.email)).text("user", user.id.as_str());
        let profile = NewItem::at(&keys::user(&user.id))
            .text("user", user.id.as_str())
            .text("email", user.email.as_str())
            .text("password_hash", &user.password_hash)
            .optional("full_name", user.full_name.as_deref())
            .number(VERSION, user.version.number())
            .number("created_at", now);
        let organization = new_organization(&scope, new.org_name, new.plan, &user.id, now);
        let items = [email.build(), profile.build()].into_iter().chain(organization);
        let mut writes = vec![];
        for item in items {
            let put = Put::builder()
                .table_name(&*self.table)
                .set_item(Some(item))
                .condition_expression("attribute_not_exists(pk)");
            writes.push(TransactWriteItem::builder().put(build(put.build())?).build());
        }
        Ok(matches!(self.transact(writes).await?, Transacted::Done))
    }

    /// The user with this address.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn user_by_email(&self, email: &Email) -> Result<Option<User>> {
        let Some(owner) = self.get(&keys::email(email), true).await? else { return Ok(None) };
        self.user(&Reader(&owner).parsed("user")?).await
    }

    /// The user.
    ///
    /// # Errors
    /// [`StoreError`](crate::StoreError).
    pub async fn user(&self, id: &UserId) -> Result<Option<User>> {
        self.get(&keys::user(id), true).await?.map(|item| read_user(&item)).transpose()
    }
}

pub(crate) fn read_user(item: &Item) -> Result<User> {
    let reader = Reader(item);
    let text = |name| reader.optional_text(name).map(|text| text.map(ToOwned::to_owned));
    Ok(User {
        id: reader.parsed("user")?,
        email: reader.parsed("email")?,
        password_hash: reader.text("password_hash")?.to_owned(),
        full_name: text("full_name")?,
        disabled: reader.flag("disabled"),
        email_verified_at: reader.optional_number("email_verified_at")?,
        avatar_url: text("avatar_url")?,
        phone: text("phone")?,
        preferred_language: text("preferred_language")?,
        theme_preference: text("theme_preference")?,
        epoch: reader.optional_number("epoch")?.unwrap_or_default(),
        version: Version::read(&reader)?,
        created_at: reader.number("created_at")?,
    })
}

//! Versions of rows that people change: a number that every change counts up, and the condition of a change
//! that is meant for one version. The write itself checks it, so of two who saw the same version one loses.
//!
//! A row is written with [`VERSION`] = [`Version::FIRST`]; one without the attribute is as good as that. The
//! helpers bring the whole expression of the change, so that an aggregate says no more than what it sets.

use aws_sdk_dynamodb::types::{
    AttributeValue, Delete,
    builders::{DeleteBuilder, UpdateBuilder},
};

use crate::{
    Store,
    error::Result,
    item::{Item, Reader, n},
    keys::Key,
};

/// Attribute with the version. No reserved word, so expressions name it as it is.
pub(crate) const VERSION: &str = "version";

/// Which state of a row something is about. It grows with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// What a row begins with.
    pub const FIRST: Self = Self(1);

    /// The version with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The version after a change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(crate) fn read(item: &Reader<'_>) -> Result<Self> {
        Ok(item.optional_number(VERSION)?.map_or(Self::FIRST, Self))
    }
}

/// What a change is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// The row as it is, whatever its version.
    #[default]
    Any,
    /// One of these versions, and no other. Of none when it is empty.
    OneOf(Vec<Version>),
}

impl Precondition {
    /// Whether a row of this version is meant.
    #[must_use]
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }

    /// The condition that the row exists in a version that is meant. It needs [`values`](Self::values).
    pub(crate) fn condition(&self) -> String {
        let Self::OneOf(versions) = self else { return "attribute_exists(pk)".to_owned() };
        // No row has version 0: it stands for "none", for which DynamoDB knows no word.
        let places: Vec<_> = (0..versions.len().max(1)).map(|place| format!(":version_{place}")).collect();
        let unversioned =
            if versions.contains(&Version::FIRST) { " OR attribute_not_exists(version)" } else { Default::default() };
        format!("attribute_exists(pk) AND (version IN ({}){unversioned})", places.join(", "))
    }

    /// The values of [`condition`](Self::condition).
    pub(crate) fn values(&self) -> Vec<(String, AttributeValue)> {
        match self {
            Self::Any => vec![],
            Self::OneOf(versions) if versions.is_empty() => vec![(":version_0".to_owned(), n(0))],
            Self::OneOf(versions) => {
                let place = |(place, version): (usize, &Version)| (format!(":version_{place}"), n(version.number()));
                versions.iter().enumerate().map(place).collect()
            }
        }
    }
}

/// How a change with a precondition ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed<T> {
    /// It was made.
    Done(T),
    /// There is no such row.
    Missing,
    /// The row has another version than the one that was meant, and was left alone.
    Stale,
}

impl<T> Changed<T> {
    /// The same about something made of `T`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> std::result::Result<U, E>) -> std::result::Result<Changed<U>, E> {
        Ok(match self {
            Self::Done(value) => Changed::Done(f(value)?),
            Self::Missing => Changed::Missing,
            Self::Stale => Changed::Stale,
        })
    }
}

/// Attributes to set, or to remove where there is no value.
pub(crate) type Changes<'a> = &'a [(&'a str, Option<AttributeValue>)];

impl Store {
    /// The change of a row that is there in a version that is meant, to stand in a transaction. It counts the
    /// version up. When the transaction is refused, [`why_refused`](Self::why_refused) tells missing and stale
    /// apart. A further condition joins [`Precondition::condition`] by `condition_expression`.
    pub(crate) fn versioned_update(&self, key: &Key, expected: &Precondition, changes: Changes<'_>) -> UpdateBuilder {
        let mut set = vec!["version = if_not_exists(version, :version_step) + :version_step".to_owned()];
        let mut remove = vec![];
        let mut update = self.update(key).expression_attribute_values(":version_step", n(1));
        for (place, (name, value)) in changes.iter().enumerate() {
            update = update.expression_attribute_names(format!("#c{place}"), *name);
            if let Some(value) = value {
                set.push(format!("#c{place} = :c{place}"));
                update = update.expression_attribute_values(format!(":c{place}"), value.clone());
            } else {
                remove.push(format!("#c{place}"));
            }
        }
        for (name, value) in expected.values() {
            update = update.expression_attribute_values(name, value);
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        update.update_expression(expression).condition_expression(expected.condition())
    }

    /// The removal of a row that is there in a version that is meant, to stand in a transaction.
    pub(crate) fn versioned_delete(&self, key: &Key, expected: &Precondition) -> DeleteBuilder {
        let mut delete = Delete::builder().table_name(&*self.table).set_key(Some(key.attributes()));
        for (name, value) in expected.values() {
            delete = delete.expression_attribute_values(name, value);
        }
        delete.condition_expression(expected.condition())
    }

    /// Why a change with this precondition was refused: the row as it is now, when the precondition is none of
    /// the reasons and some other condition must be.
    pub(crate) async fn why_refused(&self, key: &Key, expected: &Precondition) -> Result<Changed<Item>> {
        let Some(item) = self.get(key, true).await? else { return Ok(Changed::Missing) };
        let version = Version::read(&Reader(&item))?;
        Ok(if expected.holds(version) { Changed::Done(item) } else { Changed::Stale })
    }

    /// The same where the precondition must be the reason: what else was in the way is gone by now, and the
    /// caller is told to look again.
    pub(crate) async fn why_changed_refused<T>(&self, key: &Key, expected: &Precondition) -> Result<Changed<T>> {
        Ok(match self.why_refused(key, expected).await? {
            Changed::Missing => Changed::Missing,
            Changed::Stale | Changed::Done(_) => Changed::Stale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_the_values_it_names_and_no_others() {
        let one_of = |numbers: &[u64]| Precondition::OneOf(numbers.iter().copied().map(Version::new).collect());
        for (expected, condition) in [
            (Precondition::Any, "attribute_exists(pk)"),
            (one_of(&[]), "attribute_exists(pk) AND (version IN (:version_0))"),
            (one_of(&[7]), "attribute_exists(pk) AND (version IN (:version_0))"),
            (one_of(&[7, 8]), "attribute_exists(pk) AND (version IN (:version_0, :version_1))"),
            (one_of(&[1]), "attribute_exists(pk) AND (version IN (:version_0) OR attribute_not_exists(version))"),
        ] {
            assert_eq!(expected.condition(), condition);
            let values = expected.values();
            assert_eq!(values.len(), condition.matches(":version_").count());
            assert!(values.iter().all(|(name, _)| condition.contains(name)));
        }
    }

    #[test]
    fn a_row_without_the_attribute_is_in_its_first_version() {
        assert_eq!(Version::read(&Reader(&Item::new())).unwrap(), Version::FIRST);
        let item = Item::from([(VERSION.to_owned(), n(4))]);
        assert_eq!(Version::read(&Reader(&item)).unwrap(), Version::new(4));
        assert!(!Precondition::OneOf(vec![]).holds(Version::FIRST));
        assert!(Precondition::Any.holds(Version::new(4)));
    }
}

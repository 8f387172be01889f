//! Cursors of lists: opaque, authenticated and bound to tenant and list.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;

use crate::{
    auth::MacKey,
    error::{ApiError, Code},
};

const MAC_LEN: usize = 16;

/// The purpose that cursors' [`MacKey`] is derived for.
pub const CURSOR_KEY: &str = "cursor";

/// `limit` of a list: how many items a page has at most, 1 to 100, 50 when left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit(pub u16);

impl Default for PageLimit {
    fn default() -> Self {
        Self(50)
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let number = text.parse().ok().filter(|number| (1..=100).contains(number));
        number.map(Self).ok_or_else(|| serde::de::Error::custom("must be a whole number from 1 to 100"))
    }
}

/// The part of a list that is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// How many items at most.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    pub limit: PageLimit,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{22,}$")]
    pub cursor: Option<String>,
}

/// Seals and opens cursors of one list of one tenant.
pub struct Cursors<'a> {
    key: &'a MacKey,
    context: String,
}

impl<'a> Cursors<'a> {
    /// Cursors for `list` (any text that tells lists apart) of `tenant`.
    #[must_use]
    pub fn new(key: &'a MacKey, tenant: &str, list: &str) -> Self {
        Self { key, context: format!("{tenant}\n{list}\n") }
    }

    fn mac(&self, position: &[u8]) -> [u8; 32] {
        self.key.tag(&[self.context.as_bytes(), position].concat())
    }

    /// The cursor for a position in the list.
    #[must_use]
    pub fn seal(&self, position: &str) -> String {
        let mac = self.mac(position.as_bytes());
        BASE64URL_NOPAD.encode(&[&mac[..MAC_LEN], position.as_bytes()].concat())
    }

    /// The position in a cursor that came back.
    ///
    /// # Errors
    /// 400 when it is not one of this list and tenant.
    pub fn open(&self, cursor: &str) -> Result<String, ApiError> {
        let bad = || ApiError::new(Code::InvalidParameter, "cursor: not one that this list handed out");
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| bad())?;
        let (mac, position) = bytes.split_at_checked(MAC_LEN).ok_or_else(bad)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(mac, &self.mac(position)[..MAC_LEN]).map_err(|_| bad())?;
        String::from_utf8(position.to_vec()).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_only_where_it_was_sealed() {
        let key = MacKey::derive(&[7; 32], "cursor");
        let mine = Cursors::new(&key, "org_a", "keys");
        let sealed = mine.seal("KEY#1");
        assert_eq!(mine.open(&sealed).unwrap(), "KEY#1");
        assert!(Cursors::new(&key, "org_b", "keys").open(&sealed).is_err());
        assert!(Cursors::new(&key, "org_a", "records").open(&sealed).is_err());
        assert!(mine.open(&format!("A{}", &sealed[1..])).is_err());
        assert!(mine.open("").is_err());
    }
}

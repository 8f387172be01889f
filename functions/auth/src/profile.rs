//! `PATCH /auth/me`: what people say about themselves.

use axum::{Json as Answer, extract::State as Shared};
use serde::{Deserialize, Deserializer, Serialize};
use tenantry_domain::roles::Permission;
use tenantry_store::ProfileChanges;
use tenantry_web::{
    ApiError, Caller, Json,
    error::Problem,
    etag::{IfMatch, Tagged, changed},
    extract::line,
};
use utoipa::ToSchema;

use crate::{
    State,
    me::{Me, me_of},
    register::NAME_CHARS,
    tokens::signed_in,
};

/// Longest address of a picture.
const URL_CHARS: usize = 2048;

/// Fields to change. What is left out stays; `null` empties a field.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProfileRequest {
    /// Name.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$", example = "Ada Lovelace")]
    full_name: Option<Option<String>>,
    /// Address of a picture, `https` only.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?][A-Za-z0-9._~:/?!$&'()*+,;=%-]*)?$", example = "https://example.com/ada.png")]
    avatar_url: Option<Option<String>>,
    /// Telephone number in the form of E.164: `+`, country code and number, digits only.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, pattern = r"^\+[1-9][0-9]{6,14}$", example = "+441632960961")]
    phone: Option<Option<String>>,
    /// Language of mails.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Language>)]
    preferred_language: Option<Option<Language>>,
    /// How the console looks.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Theme>)]
    theme_preference: Option<Option<Theme>>,
}

/// A language that there are mails in.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PreferredLanguage)]
pub(crate) enum Language {
    /// English.
    En,
    /// Chinese, simplified.
    Zh,
}

/// How the console looks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ThemePreference)]
pub(crate) enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
    /// As the system is.
    System,
}

/// `Some(None)` for `null`; a field that is left out is the default, `None`.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ProfileRequest {
    fn checked(self) -> Result<ProfileChanges, ApiError> {
        Ok(ProfileChanges {
            full_name: each(self.full_name, |name| line("/full_name", &name, NAME_CHARS))?,
            avatar_url: each(self.avatar_url, avatar)?,
            phone: each(self.phone, phone)?,
            preferred_language: each(self.preferred_language, |language| {
                Ok(match language {
                    Language::En => "en".to_owned(),
                    Language::Zh => "zh".to_owned(),
                })
            })?,
            theme_preference: each(self.theme_preference, |theme| {
                Ok(match theme {
                    Theme::Light => "light".to_owned(),
                    Theme::Dark => "dark".to_owned(),
                    Theme::System => "system".to_owned(),
                })
            })?,
        })
    }
}

fn each<T>(
    change: Option<Option<T>>,
    check: impl FnOnce(T) -> Result<String, ApiError>,
) -> Result<Option<Option<String>>, ApiError> {
    change.map(|value| value.map(check).transpose()).transpose()
}

/// `https://host…`: other people's browsers will fetch it.
fn avatar(text: String) -> Result<String, ApiError> {
    let bad = || ApiError::invalid("/avatar_url", "must be an https:// address");
    let uri: http::Uri = text.parse().map_err(|_| bad())?;
    let host = uri.authority().map(|authority| (authority.host(), authority.as_str().contains('@')));
    match (uri.scheme_str(), host) {
        (Some("https"), Some((host, false))) if !host.is_empty() && text.chars().count() <= URL_CHARS => Ok(text),
        _ => Err(bad()),
    }
}

fn phone(text: String) -> Result<String, ApiError> {
    let digits = text.strip_prefix('+').unwrap_or_default();
    let fits =
        (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if fits { Ok(text) } else { Err(ApiError::invalid("/phone", "must be in the form of E.164, like +441632960961")) }
}

/// Change my profile
///
/// With `If-Match` only in the version that the `ETag` of an earlier answer names.
#[utoipa::path(
    patch,
    path = "/api/v1/auth/me",
    tag = "auth",
    operation_id = "update_me",
    params(IfMatch),
    request_body = ProfileRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The person as they are now; `ETag` names the version.", body = Me, headers(("ETag" = String, description = "The version, for `If-Match`."))),
        (status = 400, description = "The body is malformed or has an unknown field.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid access token, or the account or membership is gone.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API key is no person.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The profile was changed meanwhile.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is not allowed; `errors` names the field.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn update(
    Shared(state): Shared<State>,
    caller: Caller,
    IfMatch(expected): IfMatch,
    Json(request): Json<ProfileRequest>,
) -> Result<Tagged<Answer<Me>>, ApiError> {
    let (id, _) = caller.user()?;
    let org = caller.scope(Permission::ReadOrganization)?.org();
    let changes = request.checked()?;
    // The access tokens of an ended session live on for minutes; the profile stays as it is.
    signed_in(&state, &caller).await?;
    let user = changed(state.store.change_profile(id, &changes, &expected).await?)?;
    me_of(&state, user, org, &caller).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_browsers_may_fetch() {
        for good in ["https://example.com/a.png?x=1", "https://[2001:db8::1]:8443/a"] {
            assert!(avatar(good.into()).is_ok(), "{good}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2048));
        for bad in [
            "",
            "http://example.com/a",
            "javascript:alert(1)",
            "//example.com/a",
            "https://",
            "/a",
            "https://u:p@example.com/",
            "https://exa mple.com/",
            &long,
        ] {
            assert!(avatar(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_numbers_that_can_be_dialled_from_everywhere() {
        for good in ["+441632960961", "+8613912345678", "+1234567"] {
            assert!(phone(good.into()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "+",
            "441632960961",
            "+0441632960961",
            "+44 1632 960961",
            "+1234567890123456",
            "+123456",
            "+１２３４５６７８",
        ] {
            assert!(phone(bad.into()).is_err(), "{bad}");
        }
    }
}

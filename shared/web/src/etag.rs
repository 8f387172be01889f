//! Versions of resources on the wire: `ETag` on answers, `If-Match` on changes (RFC 9110, 8.8.3 and 13.1.1).
//!
//! A handler that changes or deletes takes [`IfMatch`] and hands its [`Precondition`] to the store, whose write
//! checks it; nothing is read and compared before. [`changed`] turns the store's answer into one of ours, and
//! [`Tagged`] writes the version on it:
//!
//! ```ignore
//! async fn rename(…, IfMatch(expected): IfMatch, Json(new): Json<Rename>) -> Result<Tagged<Answer<Thing>>, ApiError> {
//!     let thing = changed(state.store.rename(scope, &new.name, &expected).await?)?;
//!     Ok(Tagged(thing.version, Answer(thing.into())))
//! }
//! ```
//!
//! Without the header there is no precondition, and `*` is none either: what does not exist answers 404 with and
//! without it (RFC 9110, 13.2.1: preconditions count only where the answer would be a success).

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use tenantry_store::{Changed, Precondition, Version};
use utoipa::openapi::{
    Required,
    path::{Parameter, ParameterBuilder, ParameterIn},
    schema::{ObjectBuilder, Type},
};

use crate::error::{ApiError, Code};

/// How many versions one `If-Match` may name. Clients name one.
const MOST_TAGS: usize = 16;

/// What is well-formed, for the API document: `*`, or tags with commas between (RFC 9110, 13.1.1).
const PATTERN: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*"){0,15})$"#;

/// What `If-Match` asks for. Documented by listing it among the operation's `params`.
#[derive(Debug)]
pub struct IfMatch(pub Precondition);

/// An answer about a resource in this version.
#[derive(Debug)]
pub struct Tagged<T>(pub Version, pub T);

impl<T: IntoResponse> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(version, answer) = self;
        let mut response = answer.into_response();
        if let Ok(tag) = HeaderValue::from_str(&tag(version)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        precondition(&parts.headers).map(Self)
    }
}

impl utoipa::IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(PATTERN)).examples(["\"3\""]).build();
        let parameter = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "The `ETag` of the version that the change is meant for. When there is another by now, nothing is \
                 changed, and the answer is 412.",
            ))
            .schema(Some(text));
        vec![parameter.build()]
    }
}

/// What was changed.
///
/// # Errors
/// 404 when there is nothing, 412 when there is another version.
pub fn changed<T>(changed: Changed<T>) -> Result<T, ApiError> {
    match changed {
        Changed::Done(value) => Ok(value),
        Changed::Missing => Err(ApiError::not_found()),
        Changed::Stale => Err(ApiError::stale()),
    }
}

/// The entity tag of a version: strong, since a version is one state.
fn tag(version: Version) -> String {
    format!("\"{}\"", version.number())
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let malformed = || {
        ApiError::new(
            Code::InvalidParameter,
            "If-Match: must be the ETag of an answer, as \"3\" with its quotes, several with commas between, or *",
        )
    };
    let mut lines = headers.get_all(header::IF_MATCH).iter().peekable();
    if lines.peek().is_none() {
        return Ok(Precondition::Any);
    }
    // Several lines are one list (RFC 9110, 5.2).
    let list = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b',');
    if list.trim_ascii() == b"*" {
        return Ok(Precondition::Any);
    }
    let tags = tags(&list).filter(|tags| (1..=MOST_TAGS).contains(&tags.len())).ok_or_else(malformed)?;
    // A tag that is none of ours is well-formed and matches nothing; so is a weak one (RFC 9110, 8.8.3.2).
    let ours = tags.into_iter().filter(|tag| !tag.weak).filter_map(|tag| version(tag.opaque));
    let mut versions: Vec<_> = ours.collect();
    versions.dedup();
    Ok(Precondition::OneOf(versions))
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

/// The tags of a list, `None` when it is malformed. Commas may stand in tags, and places of the list be empty.
fn tags(mut list: &[u8]) -> Option<Vec<Tag<'_>>> {
    let mut tags = vec![];
    loop {
        list = list.trim_ascii_start();
        while let [b',', rest @ ..] = list {
            list = rest.trim_ascii_start();
        }
        if list.is_empty() {
            return Some(tags);
        }
        let (weak, quoted) = list.strip_prefix(b"W/").map_or((false, list), |rest| (true, rest));
        let rest = quoted.strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let (opaque, rest) = (&rest[..end], &rest[end + 1..]);
        if !opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags.push(Tag { weak, opaque });
        list = rest.trim_ascii_start();
        if !list.is_empty() && !list.starts_with(b",") {
            return None;
        }
    }
}

/// The version that [`tag`] wrote this for: one text for each number, and no other text.
fn version(opaque: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(opaque).ok()?;
    let number: u64 = text.parse().ok().filter(|number: &u64| number.to_string() == text)?;
    Some(Version::new(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str]) -> Option<Precondition> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, HeaderValue::from_static(line));
        }
        precondition(&headers).ok()
    }

    fn one_of(numbers: &[u64]) -> Option<Precondition> {
        Some(Precondition::OneOf(numbers.iter().copied().map(Version::new).collect()))
    }

    #[test]
    fn a_list_of_tags_is_read_as_http_writes_it() {
        assert_eq!(of(&[]), Some(Precondition::Any));
        assert_eq!(of(&[" * "]), Some(Precondition::Any));
        assert_eq!(of(&["\"3\""]), one_of(&[3]));
        assert_eq!(of(&[", \"3\" ,, \"4\","]), one_of(&[3, 4]));
        assert_eq!(of(&["\"3\"", "\"4\""]), one_of(&[3, 4]));
        // None of ours, or weak: nothing that could match.
        for foreign in ["W/\"3\"", "\"\"", "\"a,b\"", "\"03\"", "\"+3\"", "\"-3\"", "\"99999999999999999999\""] {
            assert_eq!(of(&[foreign]), one_of(&[]), "{foreign}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for malformed in ["", ",", "3", "\"3", "3\"", "\"3\"\"4\"", "\"3\" \"4\"", "*, \"3\"", "\"a b\"", "w/\"3\""] {
            assert_eq!(of(&[malformed]), None, "{malformed:?}");
        }
        assert_eq!(of(&["\"3\"", "*"]), None);
        assert_eq!(
            of(&[
                "\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"",
                "\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\""
            ]),
            None
        );
    }

    #[test]
    fn a_version_comes_back_as_it_went_out() {
        for number in [1, 42, u64::MAX] {
            let version = Version::new(number);
            let answer = Tagged(version, "body").into_response();
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, answer.headers()[header::ETAG].clone());
            assert_eq!(precondition(&headers).unwrap(), Precondition::OneOf(vec![version]));
        }
    }
}

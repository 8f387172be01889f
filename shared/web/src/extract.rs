//! Extractors whose errors name the field, in the one error type.

use std::{fmt, marker::PhantomData, str::FromStr};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use http::{HeaderMap, header, request::Parts};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::error::{ApiError, Code};

/// A JSON body. Unknown fields are up to `T`; most types deny them.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        require_json(request.headers())?;
        parse_object(&body(request, state).await?).map(Self)
    }
}

/// A JSON body that may be left out, or be `null`; then it is the default.
pub struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let bytes = body(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        require_json(&headers)?;
        if bytes.trim_ascii() == b"null" {
            return Ok(Self(T::default()));
        }
        parse_object(&bytes).map(Self)
    }
}

/// A text of one line, as names are: trimmed, 1 to `max` characters, none of them a control character.
/// `pointer` names the field in the body.
///
/// # Errors
/// 422.
pub fn line(pointer: &str, text: &str, max: usize) -> Result<String, ApiError> {
    let text = text.trim();
    if !(1..=max).contains(&text.chars().count()) {
        return Err(ApiError::invalid(pointer, format!("must be 1 to {max} characters")));
    }
    if text.chars().any(|c| c.is_control() || breaks_lines(c)) {
        return Err(ApiError::invalid(pointer, "must be one line without control characters"));
    }
    Ok(text.to_owned())
}

/// Separators of lines and paragraphs, and what turns the direction of the text around it (Unicode, UAX 9): a name
/// with one of these changes how others beside it are read.
const fn breaks_lines(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// [`line()`] for a field that may be left out.
///
/// # Errors
/// 422.
pub fn optional_line(pointer: &str, text: Option<&str>, max: usize) -> Result<Option<String>, ApiError> {
    text.map(|text| line(pointer, text, max)).transpose()
}

/// The whole body, within the router's limit.
///
/// # Errors
/// 413 over the limit, 400 when the connection broke.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::new(Code::BodyTooLarge, "The body is larger than this route takes.")
        } else {
            ApiError::new(Code::InvalidBody, "The body ended early.")
        }
    })
}

/// Refuses what is not plain JSON before a byte of it is parsed; compressed bodies would let a few
/// kilobytes become gigabytes.
///
/// # Errors
/// 415.
pub fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or("");
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(Code::UnsupportedMediaType, "Send JSON with content-type: application/json."));
    }
    if !matches!(text(header::CONTENT_ENCODING).trim(), "" | "identity") {
        return Err(ApiError::new(Code::UnsupportedMediaType, "Send the body uncompressed."));
    }
    Ok(())
}

/// Parses JSON; an error names the field by its JSON pointer.
///
/// # Errors
/// 400 for what is not JSON, 400 for an unknown or missing field or a wrong type, 422 for a value that
/// the field's own type refuses.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        let code = match inner.classify() {
            // A custom error of a field's own type: the JSON is fine, the value is not.
            serde_json::error::Category::Data if !is_shape(&inner.to_string()) => Code::InvalidValue,
            _ => Code::InvalidBody,
        };
        let text = inner.to_string();
        let detail = text.split(" at line ").next().unwrap_or(&text).to_owned();
        if pointer.is_empty() {
            ApiError::new(code, format!("The body: {text}."))
        } else {
            ApiError::field(code, pointer, detail)
        }
    })?;
    deserializer.end().map_err(|_| ApiError::new(Code::InvalidBody, "The body goes on behind the JSON value."))?;
    Ok(value)
}

/// [`parse`] for bodies that are objects. Serde takes an array for a struct too, its items for the fields
/// in their order; nobody means that, and it would break with every new field.
fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') | None => parse(bytes),
        Some(_) => Err(ApiError::new(Code::InvalidBody, "The body must be a JSON object.")),
    }
}

/// A field that is an object, for types whose fields are read by name: the rule of [`parse_object`] inside a body.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Whether serde complains about the shape of the body and not about a value.
fn is_shape(message: &str) -> bool {
    ["invalid type", "missing field", "unknown field", "duplicate field", "invalid length"]
        .iter()
        .any(|start| message.starts_with(start))
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// A path parameter. One that is not even well-formed names nothing, so it is a 404 like any unknown id.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: FromStr + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Path(text) =
            axum::extract::Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::not_found())?;
        text.parse().map(Self).map_err(|_| ApiError::not_found())
    }
}

/// Query parameters.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let detail = text.rsplit_once("string: ").map_or(text.as_str(), |(_, detail)| detail);
                Err(ApiError::new(Code::InvalidParameter, format!("query: {detail}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code)]
        name: String,
        #[allow(dead_code)]
        list: Vec<u8>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Outer {
        inner: Option<Object<Body>>,
    }

    #[test]
    fn a_line_is_trimmed_and_counted_in_characters() {
        assert_eq!(line("/name", "  Ada ", 3).unwrap(), "Ada");
        assert_eq!(line("/name", "äöü", 3).unwrap(), "äöü");
        for text in ["", "  ", "four", "a\nb", "a\0b", "a\u{2028}b", "a\u{202e}b"] {
            let error = line("/name", text, 3).unwrap_err();
            assert_eq!(error.code(), Code::InvalidValue, "{text:?}");
            assert!(error.to_problem("").detail.starts_with("name: "));
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (text, code, says) in [
            ("{", Code::InvalidBody, "EOF"),
            ("[]", Code::InvalidBody, "invalid"),
            (r#"{"name":1,"list":[]}"#, Code::InvalidBody, "name"),
            (r#"{"name":"a","list":[1,-1]}"#, Code::InvalidValue, "list.1"),
            (r#"{"name":"a","list":[],"x":1}"#, Code::InvalidBody, "x"),
            (r#"{"name":"a","list":[]} x"#, Code::InvalidBody, "behind"),
            ("{\"name\":\"\u{fffd}", Code::InvalidBody, "EOF"),
        ] {
            let error = parse::<Body>(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{text}");
            assert!(error.to_problem("").detail.contains(says), "{text}: {error:?}");
        }
        assert_eq!(parse_object::<Body>(br#" ["a",[]]"#).unwrap_err().code(), Code::InvalidBody);
        assert!(parse_object::<Body>(br#" {"name":"a","list":[]}"#).is_ok());
        let outer = |text: &[u8]| parse_object::<Outer>(text).map(|outer| outer.inner.map(|Object(body)| body.name));
        assert_eq!(outer(br#"{"inner":{"name":"a","list":[]}}"#).unwrap().as_deref(), Some("a"));
        assert_eq!(outer(br#"{"inner":null}"#).unwrap(), None);
        let array = outer(br#"{"inner":["a",[]]}"#).unwrap_err();
        assert_eq!(array.code(), Code::InvalidBody);
        assert!(array.to_problem("").detail.starts_with("inner: invalid type: sequence"), "{array:?}");
        let deeper = outer(br#"{"inner":{"name":"a","list":[-1]}}"#).unwrap_err();
        assert!(deeper.to_problem("").detail.starts_with("inner.list.0: "), "{deeper:?}");
        let deep = "[".repeat(100_000);
        assert_eq!(parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().code(), Code::InvalidBody);
        assert_eq!(parse::<Body>(b"{\"name\":\"\xff\",\"list\":[]}").unwrap_err().code(), Code::InvalidBody);
    }
}

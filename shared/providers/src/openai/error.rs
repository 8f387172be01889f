//! An error answer of a vendor, made fit for the client.

use std::time::Duration;

use ::http::{HeaderMap, StatusCode, header};
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

use crate::error::{ErrorBody, StatusError, is_about_key};
use crate::key::VendorKey;

/// Of an error body no more than this many bytes are read.
pub const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The longest wait that is passed on: an hour. Beyond it vendors mean something else, such as the end of the month.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How many characters of a body that is no error object go into the operator's log.
const DETAIL: usize = 300;

/// Turns a vendor's answer with an error status into what the client gets.
///
/// | vendor | client |
/// |---|---|
/// | 401, 402, 403, 407, "API key not valid" | 502 `upstream_auth`: our key or account is at fault, not the tenant's |
/// | 408, 504 | 504 |
/// | 429 | 429 `upstream_rate_limited` with `Retry-After` |
/// | other 4xx | the same status and the vendor's own error |
/// | 503, 529 | 503 with `Retry-After` |
/// | everything else | 502 |
///
/// Bodies that are not an error object are replaced, never echoed, and nothing like `key` is left in what is kept.
pub fn map_error(upstream: StatusCode, headers: &HeaderMap, body: &[u8], key: &VendorKey) -> StatusError {
    let said = vendor_error(body, key);
    let detail = match &said {
        Some(error) => format!("{} ({}, {:?})", error.message, error.kind, error.code),
        None => key.redact(&String::from_utf8_lossy(body)).chars().take(DETAIL).collect(),
    };
    let (status, body) = match upstream.as_u16() {
        _ if is_about_key(upstream) || said.as_ref().is_some_and(ErrorBody::is_upstream_auth) => {
            (StatusCode::BAD_GATEWAY, ErrorBody::upstream_auth())
        }
        408 | 504 => (
            StatusCode::GATEWAY_TIMEOUT,
            ErrorBody::upstream("upstream_timeout", "The model's provider took too long to answer."),
        ),
        // The vendor's text speaks of our account and its limits.
        429 => (
            StatusCode::TOO_MANY_REQUESTS,
            ErrorBody {
                kind: "rate_limit_error".to_owned(),
                ..ErrorBody::upstream(
                    "upstream_rate_limited",
                    "The model's provider is limiting requests. Try again later.",
                )
            },
        ),
        400..=499 => (upstream, said.unwrap_or_else(|| refused(upstream))),
        503 | 529 => (
            StatusCode::SERVICE_UNAVAILABLE,
            said.unwrap_or_else(|| {
                ErrorBody::upstream("upstream_unavailable", "The model's provider is overloaded or down.")
            }),
        ),
        _ => (
            StatusCode::BAD_GATEWAY,
            said.unwrap_or_else(|| ErrorBody::upstream("upstream_error", "The model's provider failed to answer.")),
        ),
    };
    let waits = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = if waits { retry_after(headers) } else { None };
    StatusError { upstream_status: upstream, status, retry_after, body, detail }
}

fn refused(status: StatusCode) -> ErrorBody {
    ErrorBody {
        message: format!("The model's provider refused the request ({}).", status.as_u16()),
        kind: "invalid_request_error".to_owned(),
        param: None,
        code: Some("upstream_refused".to_owned()),
    }
}

/// The error object of a body: under `error` as OpenAI does it, or the body itself as FastAPI and older vLLM do.
fn vendor_error(body: &[u8], key: &VendorKey) -> Option<ErrorBody> {
    let body: Value = serde_json::from_slice(body).ok()?;
    match body.get("error") {
        Some(error) if !error.is_null() => ErrorBody::from_vendor(error, key),
        _ if body.is_object() => {
            ErrorBody::from_vendor(&body, key).or_else(|| ErrorBody::from_vendor(body.get("detail")?, key))
        }
        _ => None,
    }
}

/// `retry-after-ms`, else `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); rounded up to whole seconds, and at
/// most [`MAX_RETRY_AFTER`]. A date is compared with the answer's own `Date`, which every server with a clock sends, so
/// that no clock of ours comes in. What cannot be read is as good as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    let date = |text: &str| DateTimeParser::new().parse_timestamp(text).ok();
    let seconds = if let Some(milliseconds) = text("retry-after-ms").and_then(number) {
        milliseconds / 1000.0
    } else {
        let value = text(header::RETRY_AFTER.as_str())?;
        match number(value) {
            Some(seconds) => seconds,
            None => {
                let then = date(value)?;
                let now = text(header::DATE.as_str()).and_then(date)?;
                then.duration_since(now).as_secs_f64()
            }
        }
    };
    // A conversion from float saturates, and NaN was no number to begin with.
    let seconds = seconds.ceil().clamp(0.0, MAX_RETRY_AFTER.as_secs_f64()) as u64;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ::http::HeaderValue;

    use super::*;

    const KEY: &str = "sk-vendor-0123456789abcdef";

    fn map(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> StatusError {
        let mut all = HeaderMap::from_iter([(header::DATE, HeaderValue::from_static("Fri, 20 Nov 2026 12:00:00 GMT"))]);
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_static(value));
        }
        let error = map_error(StatusCode::from_u16(status).unwrap(), &all, body.as_bytes(), &VendorKey::new(KEY));
        assert!(!format!("{error} {error:?}").contains("0123456789abcdef"), "{error:?}");
        error
    }

    #[test]
    fn statuses() {
        for (upstream, client, code) in [
            (400, 400, "upstream_refused"),
            (401, 502, "upstream_auth"),
            (402, 502, "upstream_auth"),
            (403, 502, "upstream_auth"),
            (404, 404, "upstream_refused"),
            (408, 504, "upstream_timeout"),
            (413, 413, "upstream_refused"),
            (422, 422, "upstream_refused"),
            (429, 429, "upstream_rate_limited"),
            (301, 502, "upstream_error"),
            (500, 502, "upstream_error"),
            (502, 502, "upstream_error"),
            (503, 503, "upstream_unavailable"),
            (504, 504, "upstream_timeout"),
            (529, 503, "upstream_unavailable"),
        ] {
            let error = map(upstream, &[], &format!("<html><b>nginx {KEY}</b></html>"));
            assert_eq!((error.status.as_u16(), error.body.code.as_deref()), (client, Some(code)), "{upstream}");
            assert!(!error.body.message.contains("nginx"));
            assert!(error.detail.contains("nginx"), "the operator may see it");
        }
    }

    #[test]
    fn error_objects_are_kept() {
        let body = r#"{"error":{"message":"Bad 'x'.","type":"invalid_request_error","param":"x","code":"bad_x"}}"#;
        assert_eq!(map(400, &[], body).body.to_json(), body);
        assert_eq!(map(500, &[], body).body.to_json(), body);
        assert_eq!(
            map(429, &[], body).body.to_json(),
            r#"{"error":{"message":"The model's provider is limiting requests. Try again later.","type":"rate_limit_error","param":null,"code":"upstream_rate_limited"}}"#
        );
        for (body, message, code) in [
            (r#"{"error":"no such model"}"#, "no such model", None),
            (r#"{"error":{"message":"m","code":1261}}"#, "m", Some("1261")),
            (r#"{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}"#, "m", Some("400")),
            (r#"{"detail":"Not Found"}"#, "Not Found", None),
        ] {
            let error = map(404, &[], body).body;
            assert_eq!((error.message.as_str(), error.code.as_deref()), (message, code));
        }
    }

    #[test]
    fn keys_never_get_out() {
        let error = map(
            400,
            &[],
            &format!(
                r#"{{"error":{{"message":"key {KEY} and sk-ven***cdef","type":"{KEY}","code":"{KEY}","param":"{KEY}"}}}}"#
            ),
        );
        assert_eq!(error.body.message, "key [redacted] and [redacted]");
        let error = map(400, &[], r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#);
        assert_eq!((error.status.as_u16(), error.body.code.as_deref()), (502, Some("upstream_auth")));
        let error = map(400, &[], r#"{"error":{"message":"API key not valid. Please pass a valid API key."}}"#);
        assert_eq!(error.status, 502);
    }

    #[test]
    fn long_messages_are_cut() {
        let error = map(400, &[], &format!(r#"{{"error":"{}"}}"#, "天".repeat(10_000)));
        assert_eq!(error.body.message.chars().count(), 2000);
    }

    #[test]
    fn waits() {
        fn wait(status: u16, headers: &[(&'static str, &'static str)]) -> Option<u64> {
            map(status, headers, "").retry_after.map(|wait| wait.as_secs())
        }
        for (value, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("1.2", Some(2)),
            ("99999999999999999999999", Some(3600)),
            ("inf", Some(3600)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("Fri, 20 Nov 2026 12:00:30 GMT", Some(30)),
            ("Fri, 20 Nov 2026 11:00:00 GMT", Some(0)),
            ("Sat, 20 Nov 2027 11:00:00 GMT", Some(3600)),
        ] {
            assert_eq!(wait(429, &[("retry-after", value)]), seconds, "{value}");
            assert_eq!(wait(503, &[("retry-after", value)]), seconds, "{value}");
            assert_eq!(wait(400, &[("retry-after", value)]), None, "{value}");
        }
        let skewed = [("retry-after", "Fri, 20 Nov 2026 15:00:30 GMT"), ("date", "Fri, 20 Nov 2026 15:00:00 GMT")];
        assert_eq!(wait(429, &skewed), Some(30));
        assert_eq!(wait(429, &[("retry-after", "9"), ("retry-after-ms", "1500")]), Some(2));
        assert_eq!(wait(429, &[]), None);
    }
}

//! What stands before everything, errors and preflights included: CORS and the headers that tell browsers what
//! they may do with an answer. [`crate::serve`] puts it before a function, `host` before all of them.

use std::time::Duration;

use axum::{Router, middleware, response::Response};
use http::{HeaderName, HeaderValue, Method, Uri, header, uri::Scheme};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    config::{ConfigError, Env},
    idempotency::{IDEMPOTENCY_KEY, REPLAYED},
    router::REQUEST_ID,
};

const CORS_ORIGINS: &str = "CORS_ORIGINS";

/// How long a browser may believe a preflight. Chrome believes none for longer.
const PREFLIGHT: Duration = Duration::from_secs(7200);

/// What pages of other origins may send: our own headers, and those of OpenAI's SDKs.
const ALLOWED_HEADERS: [HeaderName; 17] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    HeaderName::from_static(IDEMPOTENCY_KEY),
    HeaderName::from_static(REQUEST_ID),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("x-stainless-arch"),
    HeaderName::from_static("x-stainless-lang"),
    HeaderName::from_static("x-stainless-os"),
    HeaderName::from_static("x-stainless-package-version"),
    HeaderName::from_static("x-stainless-retry-count"),
    HeaderName::from_static("x-stainless-runtime"),
    HeaderName::from_static("x-stainless-runtime-version"),
    HeaderName::from_static("x-stainless-timeout"),
];

/// What they may read besides the body.
const EXPOSED_HEADERS: [HeaderName; 14] = [
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    HeaderName::from_static(REPLAYED),
    HeaderName::from_static(REQUEST_ID),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
    HeaderName::from_static("x-should-retry"),
];

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Headers of every answer that has none of its own. An answer is data: nothing in it is to be run, framed or
/// drawn into a page of another origin. That does not touch CORS, where the page reads the data itself.
const EVERY_ANSWER: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// How the world reaches a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over TLS, and over nothing else.
    Https,
    /// In the clear, on a machine's own address.
    Loopback,
}

/// What stands before a router.
#[derive(Clone)]
pub struct Front {
    cors: Option<CorsLayer>,
    transport: Transport,
}

impl Front {
    /// Without CORS: no page of another origin reads anything.
    #[must_use]
    pub const fn closed(transport: Transport) -> Self {
        Self { cors: None, transport }
    }

    /// For the origins in `CORS_ORIGINS`, separated by commas, or `*` for all; for none when it is empty.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env, transport: Transport) -> Result<Self, ConfigError> {
        let cors = env.optional(CORS_ORIGINS).map(cors).transpose()?;
        Ok(Self { cors, transport })
    }

    /// `router` behind it.
    pub fn before(&self, router: Router) -> Router {
        let router = match &self.cors {
            Some(cors) => router.layer(cors.clone()),
            None => router,
        };
        let transport = self.transport;
        router.layer(middleware::map_response(move |answer: Response| async move { headed(answer, transport) }))
    }
}

fn headed(mut answer: Response, transport: Transport) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in EVERY_ANSWER {
        headers.entry(name).or_insert(value);
    }
    if transport == Transport::Https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
    }
    answer
}

/// There are no cookies, so callers who may come from anywhere bring their token all the same.
fn cors(origins: &str) -> Result<CorsLayer, ConfigError> {
    let (origins, vary) = if origins.trim() == "*" {
        (AllowOrigin::any(), vec![])
    } else {
        let origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(origin);
        (AllowOrigin::list(origins.collect::<Result<Vec<_>, _>>()?), vec![header::ORIGIN])
    };
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(METHODS)
        .allow_headers(ALLOWED_HEADERS)
        .expose_headers(EXPOSED_HEADERS)
        .max_age(PREFLIGHT)
        .vary(vary))
}

/// An origin as browsers write it (RFC 6454, 6.2): anything else would never match, and nobody would see why.
fn origin(text: &str) -> Result<HeaderValue, ConfigError> {
    let wrong = || ConfigError::new(CORS_ORIGINS, format!("`{text}`: must be an origin like https://app.example.com"));
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (scheme, host) = uri.scheme().zip(uri.host()).ok_or_else(wrong)?;
    let default_port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Err(wrong()),
    };
    let port = match uri.port_u16().filter(|port| *port != default_port) {
        Some(port) => format!(":{port}"),
        None => String::new(),
    };
    let written = format!("{scheme}://{}{port}", host.to_ascii_lowercase());
    // In the clear only where nothing leaves the machine.
    let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    // A pattern would be taken for a name that nobody has.
    if written != text || host.contains('*') || (*scheme == Scheme::HTTP && !is_local) {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for right in ["https://a.example", "https://a.example:8443", "http://localhost:5173", "http://[::1]:3000"] {
            assert_eq!(origin(right).unwrap(), right);
        }
        for wrong in [
            "a.example",
            "https://a.example/",
            "https://a.example/x",
            "https://A.example",
            "https://a.example:443",
            "https://u@a.example",
            "http://a.example",
            "ftp://a.example",
            "https://*.example",
            "*",
            "null",
            "",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_origins_are_a_list_and_a_wrong_one_is_named() {
        assert!(cors("https://a.example, https://b.example").is_ok());
        assert!(cors(" * ").is_ok());
        let error = cors("https://a.example,*").err().unwrap().to_string();
        assert!(error.contains("CORS_ORIGINS") && error.contains("`*`"), "{error}");
    }
}

//! Where a request came from, for sessions, throttling and the audit log.

use std::{convert::Infallible, net::SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::{HeaderMap, header, request::Parts};
use lambda_http::request::RequestContext;
use tenantry_store::Origin;

use crate::router::TraceId;

/// Most characters that are kept of a user agent.
const USER_AGENT_CHARS: usize = 200;

/// The origin of the request at hand. The address is the one that API Gateway or the socket saw, never one
/// from a header: a client can write what it likes there.
#[derive(Debug, Clone)]
pub struct RequestOrigin(pub Origin);

impl<S: Send + Sync> FromRequestParts<S> for RequestOrigin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Origin {
            ip: source(parts),
            user_agent: user_agent(&parts.headers),
            request_id: parts.extensions.get::<TraceId>().map(|id| id.0.to_string()).unwrap_or_default(),
        }))
    }
}

fn source(parts: &Parts) -> Option<String> {
    if let Some(RequestContext::ApiGatewayV1(context)) = parts.extensions.get::<RequestContext>() {
        return context.identity.source_ip.clone();
    }
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_string())
}

/// The beginning of the user agent, without control characters.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?.trim();
    let kept: String = text.chars().filter(|c| !c.is_control()).take(USER_AGENT_CHARS).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn origin(request: http::request::Builder) -> Origin {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let RequestOrigin(origin) = RequestOrigin::from_request_parts(&mut parts, &()).await.unwrap();
        origin
    }

    #[tokio::test]
    async fn the_address_is_the_connections_and_no_headers() {
        let socket: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let request = http::Request::builder().header("x-forwarded-for", "198.51.100.1").extension(ConnectInfo(socket));
        assert_eq!(origin(request).await.ip.as_deref(), Some("192.0.2.7"));
        let request = http::Request::builder().header("x-forwarded-for", "198.51.100.1");
        assert_eq!(origin(request).await.ip, None);
    }

    #[tokio::test]
    async fn on_lambda_it_is_what_api_gateway_saw() {
        let event = r#"{"identity": {"sourceIp": "203.0.113.9"}, "resourceId": null, "httpMethod": "GET"}"#;
        let context = RequestContext::ApiGatewayV1(serde_json::from_str(event).unwrap());
        assert_eq!(origin(http::Request::builder().extension(context)).await.ip.as_deref(), Some("203.0.113.9"));
    }

    #[tokio::test]
    async fn a_long_user_agent_is_cut() {
        let request = http::Request::builder().header(header::USER_AGENT, "x".repeat(500));
        assert_eq!(origin(request).await.user_agent.map(|text| text.len()), Some(USER_AGENT_CHARS));
    }
}

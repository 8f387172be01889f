//! Who may see the payment page and the controls: this machine, by its own names, from pages of its own.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, StatusCode, header};

/// Answers 404 to requests by a foreign name (DNS rebinding) and 403 to those that another site's page makes.
pub async fn local_only(request: Request, next: Next) -> Response {
    match judge(request.headers()) {
        None => next.run(request).await,
        Some(status) => {
            let mut refusal = Response::default();
            *refusal.status_mut() = status;
            refusal
        }
    }
}

fn judge(headers: &HeaderMap) -> Option<StatusCode> {
    if let Some(host) = headers.get(header::HOST) {
        let host = host.to_str().unwrap_or_default();
        let (name, port) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).unwrap_or((host, "80"));
        let local = ["localhost", "127.0.0.1", "[::1]"].contains(&name) && port.parse::<u16>().is_ok();
        if !local {
            return Some(StatusCode::NOT_FOUND);
        }
    }
    // Browsers say where a request comes from; a link that was followed and programs do not count.
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    match site {
        None | Some(b"same-origin" | b"none") => None,
        // Coming here from a shop's page is how a payment begins; posting here from one is not.
        Some(_) if navigates && !headers.contains_key(header::CONTENT_TYPE) => None,
        Some(_) => Some(StatusCode::FORBIDDEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Option<u16> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        judge(&headers).map(|status| status.as_u16())
    }

    #[test]
    fn only_this_machine_and_its_own_pages_are_let_in() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("host", "127.0.0.1:8787")]), None);
        assert_eq!(of(&[("host", "localhost")]), None);
        assert_eq!(of(&[("host", "evil.example:8787")]), Some(404));
        assert_eq!(of(&[("host", "127.0.0.1.evil.example")]), Some(404));
        let post = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(of(&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate"), post]), None);
        assert_eq!(of(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), None);
        assert_eq!(of(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), post]), Some(403));
        assert_eq!(of(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]), Some(403));
    }
}

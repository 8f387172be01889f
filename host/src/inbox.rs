//! `/_dev/inbox`: the mails that this machine did not send, for whoever develops on it. The pages that links in
//! mails lead to belong to the product that is built; until there is one, each link comes with the call that it
//! is there for.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, header};
use serde::Serialize;
use tenantry_domain::{Clock, Millis, time::rfc3339};
use tenantry_mailer::{Letter, Mailer, Outbox, SendError};
use tenantry_web::{ApiError, queue::BoxFuture};

use crate::docs::escape;

/// How many letters are shown.
const CAPACITY: usize = 100;
/// The page runs nothing, whatever a letter says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// The last letters, with the time at which each would have been sent.
pub(crate) struct Inbox {
    outbox: Outbox,
    letters: Mutex<VecDeque<(Millis, Letter)>>,
    clock: Arc<dyn Clock>,
}

impl Inbox {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { outbox: Outbox::default(), letters: Mutex::default(), clock }
    }

    pub(crate) const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Newest first.
    fn entries(&self, site: &str) -> Vec<Entry> {
        let letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.iter().rev().map(|(at, letter)| Entry::of(*at, letter, site)).collect()
    }
}

impl Mailer for Inbox {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), SendError>> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() >= CAPACITY {
            letters.pop_front();
        }
        letters.push_back((self.clock.now(), letter.clone()));
        drop(letters);
        self.outbox.send(letter)
    }
}

#[derive(Serialize)]
struct Entry {
    at: String,
    to: String,
    subject: String,
    text: String,
    links: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    url: String,
    /// The one-time token in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The call that the page behind the link would make.
    #[serde(skip_serializing_if = "Option::is_none")]
    curl: Option<String>,
}

impl Entry {
    fn of(at: Millis, letter: &Letter, site: &str) -> Self {
        let words = letter.text.split_whitespace();
        let is_link = |word: &&str| word.starts_with("https://") || word.starts_with("http://");
        Self {
            at: rfc3339(at),
            to: letter.to.as_str().to_owned(),
            subject: letter.subject.clone(),
            text: letter.text.clone(),
            links: words.filter(is_link).map(|url| Link::of(url, site)).collect(),
        }
    }
}

impl Link {
    fn of(url: &str, site: &str) -> Self {
        let (page, token) = url.split_once("#token=").map_or((url, None), |(page, token)| (page, Some(token)));
        let call = |token| match page.rsplit('/').next()? {
            "verify-email" => Some(curl(site, "auth/verify-email", "", &format!("{{\"token\": \"{token}\"}}"))),
            "reset-password" => {
                let body = format!("{{\"token\": \"{token}\", \"password\": \"a new password\"}}");
                Some(curl(site, "auth/password/reset", "", &body))
            }
            "accept-invite" => {
                let signed_in = " -H \"Authorization: Bearer $ACCESS_TOKEN\"";
                Some(curl(site, "invites/accept", signed_in, &format!("{{\"token\": \"{token}\"}}")))
            }
            _ => None,
        };
        Self { url: url.to_owned(), token: token.map(ToOwned::to_owned), curl: token.and_then(call) }
    }
}

/// Tokens are letters, digits, `-` and `_` (the mailer takes no others), so nothing needs quoting.
fn curl(site: &str, route: &str, headers: &str, body: &str) -> String {
    format!("curl {site}/api/v1/{route} -H 'Content-Type: application/json'{headers} -d '{body}'")
}

/// `/_dev/inbox` and `/_dev/inbox.json`.
pub(crate) fn router(inbox: Arc<Inbox>) -> Router {
    Router::new().route("/_dev/inbox", get(page)).route("/_dev/inbox.json", get(json)).with_state(inbox)
}

async fn json(State(inbox): State<Arc<Inbox>>, headers: HeaderMap) -> Result<Response, ApiError> {
    Ok(Json(serde_json::json!({ "data": inbox.entries(&site(&headers)?) })).into_response())
}

async fn page(State(inbox): State<Arc<Inbox>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let page = Html(html(&inbox.entries(&site(&headers)?)));
    Ok(([(header::CONTENT_SECURITY_POLICY, POLICY)], page).into_response())
}

/// This server as the caller reached it. Mails open accounts: a name that somebody made to mean this machine
/// (DNS rebinding) finds nothing here.
pub(crate) fn site(headers: &HeaderMap) -> Result<String, ApiError> {
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().map_err(|_| ApiError::not_found())?,
        None => "127.0.0.1:8787",
    };
    let (name, port) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).unwrap_or((host, "80"));
    let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&name);
    if is_local && port.parse::<u16>().is_ok() { Ok(format!("http://{host}")) } else { Err(ApiError::not_found()) }
}

fn html(entries: &[Entry]) -> String {
    let mut list = String::new();
    for Entry { at, to, subject, text, links } in entries {
        // Writing to a string cannot fail.
        let _ = write!(
            list,
            "<article><h2>{}</h2><p>to {} at {}</p><pre>{}</pre>",
            escape(subject),
            escape(to),
            escape(at),
            escape(text)
        );
        for Link { url, token, curl } in links {
            let _ = write!(list, "<p><code>{}</code></p>", escape(url));
            if let Some(token) = token {
                let _ = write!(list, "<p>token <code>{}</code></p>", escape(token));
            }
            if let Some(curl) = curl {
                let _ = write!(list, "<pre>{}</pre>", escape(curl));
            }
        }
        list.push_str("</article>\n");
    }
    if entries.is_empty() {
        list.push_str("<p>No mail yet. What the platform would send appears here.</p>");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Inbox</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         article{{border-top:1px solid #ccc;margin:1.5rem 0}}pre{{white-space:pre-wrap;overflow-wrap:anywhere;\
         background:#f5f5f5;padding:.6rem}}code{{overflow-wrap:anywhere}}</style></head>\n\
         <body><h1>Inbox</h1><p>Mails are not sent from this machine. Newest first; as JSON: <code>/_dev/inbox.json</code></p>\n\
         {list}</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_of_this_machine_is_answered() {
        let of = |host: &'static str| site(&HeaderMap::from_iter([(header::HOST, host.parse().unwrap())])).ok();
        assert_eq!(of("localhost:8787").as_deref(), Some("http://localhost:8787"));
        assert_eq!(of("[::1]:9").as_deref(), Some("http://[::1]:9"));
        assert_eq!(of("[::1]").as_deref(), Some("http://[::1]"));
        for other in ["evil.example:8787", "localhost.evil.example", "127.0.0.1:x", "127.0.0.1:", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}

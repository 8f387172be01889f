//! `Idempotency-Key`: a POST that creates or pays is carried out once, however often it is sent
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! A function puts [`idempotent`] around its authenticated routes and [`Idempotency`] beneath them:
//!
//! ```ignore
//! pub fn routes() -> OpenApiRouter<State> { idempotent(OpenApiRouter::default().routes(…)) }
//! pub fn router(state: State) -> Router { finish(routes().layer(Extension(state.idempotency.clone())), state, …) }
//! ```
//!
//! No handler has to know. What one creates, it creates in one transaction of the store, which takes the mark
//! along that the request was carried out: see `store/src/idempotency.rs` and docs/adr/0008. Only a success is
//! kept: a refusal changed nothing, so trying again is as good as trying first.
//!
//! Answers may hold secrets that are shown once. They are sealed with a key that takes both `SECRET_KEY` and
//! the client's own text, so the table alone tells nothing.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest,
};
use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts as _, MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tenantry_domain::{Millis, RequestId, roles::Permission};
use tenantry_store::{Claim, IdempotencyClaim, KeyedRequest, Store};
use tracing::Instrument as _;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    auth::{Authenticator, Caller, MacKey},
    error::{ApiError, Code},
    extract,
};

mod document;

/// Name of the header with the client's text.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Name of the header on an answer that was given before.
pub const REPLAYED: &str = "idempotent-replayed";

/// How long a request may take before its key is taken over, in milliseconds. No function that uses this may
/// run as long; `tests/tests/suite/template.rs` sees to it.
pub const LEASE: Millis = 60_000;

/// Longest text of a client.
const KEY_CHARS: usize = 255;
/// Largest answer that is kept, in bytes: an item may have 400 KB.
const ANSWER_LIMIT: usize = 256 * 1024;
/// Headers that belong to an answer. All others are about the moment, and made anew.
const KEPT_HEADERS: [header::HeaderName; 4] =
    [header::CONTENT_TYPE, header::LOCATION, header::ETAG, header::CACHE_CONTROL];

/// What it takes to remember requests. To be laid beneath [`idempotent`] routes as an [`Extension`].
#[derive(Clone)]
pub struct Idempotency {
    authenticator: Authenticator,
    fingerprints: MacKey,
    answers: MacKey,
}

impl Idempotency {
    /// With keys derived from `secret`.
    #[must_use]
    pub fn new(authenticator: Authenticator, secret: &[u8; 32]) -> Self {
        Self {
            authenticator,
            fingerprints: MacKey::derive(secret, "idempotency fingerprint"),
            answers: MacKey::derive(secret, "idempotency answer"),
        }
    }

    const fn store(&self) -> &Store {
        &self.authenticator.store
    }
}

/// Lets every POST of `routes` be sent with an `Idempotency-Key`, and says so in their documentation. They all
/// need a caller. Without the header nothing is different, and nothing is read.
#[must_use]
pub fn idempotent<S: Clone + Send + Sync + 'static>(mut routes: OpenApiRouter<S>) -> OpenApiRouter<S> {
    document::write(routes.get_openapi_mut());
    routes.layer(middleware::from_fn(|request: Request, next: Next| async move {
        if request.method() != Method::POST || !request.headers().contains_key(IDEMPOTENCY_KEY) {
            return next.run(request).await;
        }
        keyed(request, next).await.unwrap_or_else(ApiError::into_response)
    }))
}

async fn keyed(request: Request, next: Next) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let text = client_text(&parts.headers)?;
    let Some(Extension(with)) = parts.extensions.get::<Idempotency>().cloned().map(Extension) else {
        return Err(ApiError::internal("routes are idempotent without an Idempotency beneath them"));
    };
    let caller = Caller::from_request_parts(&mut parts, &with.authenticator).await?;
    // Every caller may read their organization; which of them may do this is the handler's to say.
    let scope = caller.scope(Permission::ReadOrganization)?.clone();
    let body = extract::body(Request::from_parts(parts.clone(), body), &()).await?;

    let id = row_id(&parts, &caller, &text);
    let fingerprint = fingerprint(&with.fingerprints, &parts, &body);
    let keyed = KeyedRequest { id: &id, fingerprint: &fingerprint, lease: LEASE };
    let seal = Seal::new(&with.answers, &id, &text);
    let claim = match with.store().claim_keyed_request(&scope, &keyed, RequestId::new().to_string()).await? {
        Claim::Yours(claim) => claim,
        Claim::Answered(sealed) => return seal.open(sealed).map(Kept::replay),
        Claim::InFlight => return Err(in_flight()),
        Claim::AnswerLost => return Err(answer_lost()),
        Claim::Reused => return Err(reused()),
    };
    parts.extensions.insert(caller);
    let request = Request::from_parts(parts, Body::from(body));
    let store = with.store().clone();
    // A task of its own: a client that leaves is the one that will ask again.
    let work = async move {
        let answer = claim.around(next.run(request)).await;
        end(&store, &claim, &seal, answer).await
    };
    tokio::spawn(work.in_current_span()).await.map_err(|error| ApiError::internal(error.to_string()))
}

/// Keeps a success, and gives the request up otherwise.
async fn end(store: &Store, claim: &IdempotencyClaim, seal: &Seal, answer: Response) -> Response {
    let (answer, sealed) = if answer.status().is_success() { seal.close(answer).await } else { (answer, None) };
    let ended = match sealed {
        Some(sealed) => store.keep_answer(claim, sealed).await.map(|_| ()),
        None => store.give_up(claim).await,
    };
    if let Err(error) = ended {
        // The client has its answer all the same. Whoever asks again learns that it was lost, or tries again
        // what was not carried out.
        tracing::warn!(%error, "the end of a request with an idempotency key was not noted");
    }
    answer
}

/// The client's text, for a route that makes it a part of what it writes and needs no [`idempotent`].
///
/// # Errors
/// 400 when it is no text that a key may be.
pub fn key_in(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    headers.contains_key(IDEMPOTENCY_KEY).then(|| client_text(headers)).transpose()
}

/// Such a key was used for something else.
#[must_use]
pub fn reused() -> ApiError {
    let text = "This Idempotency-Key was used for a request with another path, query or body. Send another key.";
    ApiError::new(Code::IdempotencyKeyReused, text)
}

/// The client's text: 1 to 255 visible ASCII characters, once.
fn client_text(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (line, another) = (lines.next(), lines.next());
    let fits = |text: &&str| (1..=KEY_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let text = line.filter(|_| another.is_none()).and_then(|line| line.to_str().ok()).filter(fits);
    text.map(ToOwned::to_owned).ok_or_else(|| {
        ApiError::new(Code::InvalidParameter, "Idempotency-Key: must be 1 to 255 visible ASCII characters, once")
    })
}

/// Where the row lies: the key is the caller's own, for one route.
fn row_id(parts: &Parts, caller: &Caller, text: &str) -> String {
    let route = parts.extensions.get::<MatchedPath>().map_or_else(|| parts.uri.path(), MatchedPath::as_str);
    let actor = caller.audit_actor();
    let parts = length_prefixed(&[route.as_bytes(), actor.as_str().as_bytes(), text.as_bytes()]);
    HEXLOWER.encode(digest::digest(&digest::SHA256, &parts).as_ref())
}

/// What has to be the same in every try. Keyed: the body may hold a password, and a bare hash of it would be
/// a cheaper way to guess one than what is stored for signing in.
fn fingerprint(key: &MacKey, parts: &Parts, body: &Bytes) -> String {
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let all = length_prefixed(&[parts.method.as_str().as_bytes(), path.as_bytes(), query.as_bytes(), body]);
    HEXLOWER.encode(&key.tag(&all))
}

/// No part can run into the next.
fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let part = |part: &&[u8]| [&(part.len() as u64).to_be_bytes(), *part].concat();
    parts.iter().flat_map(part).collect()
}

fn in_flight() -> ApiError {
    let text = "A request with this Idempotency-Key is being worked on. Ask again for its answer.";
    ApiError::new(Code::IdempotencyInFlight, text).retry_after(std::time::Duration::from_secs(1))
}

fn answer_lost() -> ApiError {
    let text = "The request with this Idempotency-Key was carried out, but its answer was lost. Look at what is there; \
                to do it once more, send another key.";
    ApiError::new(Code::IdempotencyAnswerLost, text).waiting_is_useless()
}

/// An answer that is given again.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    #[serde(skip)]
    body: Vec<u8>,
}

impl Kept {
    fn replay(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or_default();
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// Seals and opens the answer of one row: AES-256-GCM, with a random nonce in front.
struct Seal {
    key: [u8; 32],
    id: String,
}

impl Seal {
    fn new(key: &MacKey, id: &str, text: &str) -> Self {
        Self { key: key.tag(&length_prefixed(&[id.as_bytes(), text.as_bytes()])), id: id.to_owned() }
    }

    /// The answer, and what is kept of it if it is small enough.
    async fn close(&self, answer: Response) -> (Response, Option<Vec<u8>>) {
        let (head, body) = answer.into_parts();
        // Ours, and whole already: it cannot fail, and has no end that is far away.
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return (ApiError::internal("an answer broke off").into_response(), None);
        };
        let header =
            |name: &header::HeaderName| Some((name.to_string(), head.headers.get(name)?.to_str().ok()?.to_owned()));
        let headers = KEPT_HEADERS.iter().filter_map(header).collect();
        let kept = Kept { status: head.status.as_u16(), headers, body: vec![] };
        let sealed = if body.len() <= ANSWER_LIMIT { self.encrypt(&kept, &body) } else { None };
        if sealed.is_none() {
            tracing::error!(bytes = body.len(), "an answer was not kept for its idempotency key");
        }
        (Response::from_parts(head, Body::from(body)), sealed)
    }

    fn encrypt(&self, kept: &Kept, body: &[u8]) -> Option<Vec<u8>> {
        let mut text = serde_json::to_vec(kept).ok()?;
        text.push(b'\n');
        text.extend_from_slice(body);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.key).ok()?;
        let nonce = key.seal_in_place_append_tag(Aad::from(&self.id), &mut text).ok()?;
        Some([nonce.as_ref().as_slice(), &text].concat())
    }

    fn open(&self, sealed: Vec<u8>) -> Result<Kept, ApiError> {
        self.decrypt(sealed).ok_or_else(|| ApiError::internal("a kept answer does not open"))
    }

    fn decrypt(&self, sealed: Vec<u8>) -> Option<Kept> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.key).ok()?;
        let text = key.open_in_place(nonce, Aad::from(&self.id), &mut text).ok()?;
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let kept: Kept = serde_json::from_slice(&text[..end]).ok()?;
        Some(Kept { body: text[end + 1..].to_vec(), ..kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[&'static [u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(line).unwrap());
        }
        client_text(&headers).ok()
    }

    #[test]
    fn a_key_is_visible_ascii_of_bounded_length() {
        const LONGEST: &[u8] = &[b'k'; 255];
        const LONGER: &[u8] = &[b'k'; 256];
        assert_eq!(texts(&[b"a-1\"~!"]).as_deref(), Some("a-1\"~!"));
        assert!(texts(&[LONGEST]).is_some());
        for wrong in [&[b"".as_slice()][..], &[b"a b"], &[b"a\tb"], &[b"\xc3\xa4"], &[LONGER], &[b"a", b"a"]] {
            assert!(texts(wrong).is_none(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_opens_with_the_clients_text_in_its_row_alone() {
        let key = MacKey::derive(&[7; 32], "test");
        let seal = Seal::new(&key, "row", "text");
        let answer = (StatusCode::CREATED, [(header::ETAG, "\"1\""), (header::SERVER, "x")], "wk_live_secret");
        let (_, sealed) = seal.close(answer.into_response()).await;
        let sealed = sealed.unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("secret"));
        let opened = Seal::new(&key, "row", "text").open(sealed.clone()).unwrap().replay();
        assert_eq!(opened.status(), StatusCode::CREATED);
        assert_eq!(opened.headers()[header::ETAG], "\"1\"");
        assert_eq!(opened.headers()[REPLAYED], "true");
        assert!(!opened.headers().contains_key(header::SERVER));
        assert_eq!(to_bytes(opened.into_body(), 100).await.unwrap(), "wk_live_secret");

        let other = MacKey::derive(&[8; 32], "test");
        for (key, id, text) in [(&key, "other row", "text"), (&key, "row", "other text"), (&other, "row", "text")] {
            assert!(Seal::new(key, id, text).open(sealed.clone()).is_err());
        }
        let mut moved = Seal::new(&key, "row", "text");
        "other row".clone_into(&mut moved.id);
        assert!(moved.open(sealed.clone()).is_err(), "a row's answer in another row");
        let mut changed = sealed;
        changed[NONCE_LEN] ^= 1;
        assert!(seal.open(changed).is_err());
        assert!(seal.open(vec![0; 5]).is_err());
    }

    #[tokio::test]
    async fn what_is_too_large_is_answered_and_not_kept() {
        let seal = Seal::new(&MacKey::derive(&[7; 32], "test"), "row", "text");
        let (answer, sealed) = seal.close("x".repeat(ANSWER_LIMIT + 1).into_response()).await;
        assert!(sealed.is_none());
        assert_eq!(to_bytes(answer.into_body(), usize::MAX).await.unwrap().len(), ANSWER_LIMIT + 1);
    }
}

//! Helpers for tests of accounts: requests from somewhere, and the mails that people get.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::{HeaderName, Method};
use serde_json::{Value, json};
use tenantry_mailer::Letter;

use crate::{
    http::PASSWORD,
    platform::{Platform, Reply, request},
};

/// The token in the link of a letter.
#[must_use]
pub fn token_in(letter: &Letter) -> String {
    let (_, rest) = letter.text.split_once("#token=").unwrap_or_else(|| panic!("no link: {}", letter.text));
    rest.split_whitespace().next().unwrap_or_default().to_owned()
}

impl Platform {
    /// The letters to somebody, oldest first, after all that were ordered have been written.
    pub async fn letters_to(&self, email: &str) -> Vec<Letter> {
        self.quiesce().await;
        self.host().outbox().letters().into_iter().filter(|letter| letter.to.as_str() == email).collect()
    }

    /// The last letter to somebody.
    pub async fn last_letter_to(&self, email: &str) -> Letter {
        self.letters_to(email).await.pop().unwrap_or_else(|| panic!("no letter"))
    }

    /// `POST` from an address of the network, with further headers.
    pub async fn post_from(&self, ip: &str, path: &str, headers: &[(&'static str, &str)], body: Value) -> Reply {
        let mut request = request(Method::POST, path, "", &body);
        let ip: IpAddr = ip.parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((ip, 4711))));
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), value.parse().expect("a header"));
        }
        self.send(request).await
    }

    /// Signs in with the password of [`register`](Self::register), from a device when it has an id.
    pub async fn sign_in(&self, email: &str, device: Option<&str>) -> Reply {
        self.try_password(email, PASSWORD, device).await
    }

    /// Tries a password, from a device when it has an id.
    pub async fn try_password(&self, email: &str, password: &str, device: Option<&str>) -> Reply {
        let mut body = json!({"email": email, "password": password});
        if let Some(id) = device {
            body["device"] = json!({"id": id});
        }
        self.post("/api/v1/auth/login", "", body).await
    }
}

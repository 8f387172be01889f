//! Access tokens: the life of a signing key, and what attackers send instead of tokens.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use http::Method;
use serde_json::{Value, json};
use tenantry_domain::{OrgId, SessionId, UserId, roles::Role};
use tenantry_tests::{
    http::{PASSWORD, Rows, Stage, problem, seen, text},
    platform::Reply,
};
use tenantry_web::auth::SigningKey;

const MINUTE: i64 = 60_000;
const ISSUER: &str = "https://rows.test";

const ME: &str = "/api/v1/auth/me";
const LOGIN: &str = "/api/v1/auth/login";
const JWKS: &str = "/.well-known/jwks.json";

/// A person with a session, and the means to make tokens for them.
struct Person {
    rows: Rows,
    user: UserId,
    org: OrgId,
    tokens: Value,
}

impl Person {
    async fn on(stage: Stage) -> Self {
        let rows = Rows::on(stage).await;
        let tokens = rows.register("ada@example.com").await;
        let id = |pointer| text(&tokens, pointer);
        let (user, org) = (id("/user/id").parse().unwrap(), id("/organization/id").parse().unwrap());
        Self { rows, user, org, tokens }
    }

    fn token(&self, key: &SigningKey, at: i64) -> String {
        key.issue(&self.user, &self.org, Role::Owner, &SessionId::new(), at).unwrap()
    }

    async fn me(&self, token: &str) -> Reply {
        self.rows.call(Method::GET, ME, token, Value::Null).await
    }
}

fn key(pkcs8: &[u8]) -> SigningKey {
    SigningKey::from_pkcs8(pkcs8, ISSUER).unwrap()
}

fn now() -> i64 {
    use tenantry_domain::Clock as _;
    tenantry_domain::SystemClock.now()
}

/// The document that publishes all of these keys.
fn published(keys: &[&SigningKey]) -> String {
    let of = |key: &&SigningKey| serde_json::from_str::<Value>(&key.jwks()).unwrap()["keys"][0].clone();
    json!({"keys": keys.iter().map(of).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn a_key_is_standby_then_current_then_previous_then_revoked() {
    let [old, current, next] = [(); 3].map(|()| SigningKey::generate().unwrap());
    let jwks = published(&[&key(&next), &key(&current), &key(&old)]);
    let person = Person::on(Stage { signing_key: current.clone(), jwks: Some(jwks), ..Stage::default() }).await;

    let published_now = person.rows.call(Method::GET, JWKS, "", Value::Null).await.expect(200).json();
    let kid = |pkcs8: &[u8]| serde_json::from_str::<Value>(&key(pkcs8).jwks()).unwrap()["keys"][0]["kid"].clone();
    let kids: Vec<_> = published_now["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids, [kid(&next), kid(&current), kid(&old)]);
    let header = jsonwebtoken::decode_header(text(&person.tokens, "/access_token")).unwrap();
    assert_eq!(header.kid.unwrap(), kid(&current), "tokens are signed with the current one alone");

    // Processes learn of a rotation one after the other, so all three are good.
    for good in [&old, &current, &next] {
        person.me(&person.token(&key(good), now())).await.expect(200);
    }

    // The next step: the standby key signs, the current is the previous, and the previous is revoked.
    let jwks = published(&[&key(&next), &key(&current)]);
    let person = Person::on(Stage { signing_key: next.clone(), jwks: Some(jwks), ..Stage::default() }).await;
    person.me(&person.token(&key(&current), now())).await.expect(200);
    person.me(&person.token(&key(&next), now())).await.expect(200);
    problem(&person.me(&person.token(&key(&old), now())).await, 401, "invalid_api_key");
    let signed_in = person.rows.post(LOGIN, json!({"email": "ada@example.com", "password": PASSWORD})).await;
    let header = jsonwebtoken::decode_header(text(&signed_in.expect(200).json(), "/access_token")).unwrap();
    assert_eq!(header.kid.unwrap(), kid(&next));
}

#[tokio::test]
async fn what_attackers_send_is_no_token() {
    let pkcs8 = SigningKey::generate().unwrap();
    let person = Person::on(Stage { signing_key: pkcs8.clone(), ..Stage::default() }).await;
    let token = text(&person.tokens, "/access_token").to_owned();
    let parts: Vec<_> = token.split('.').collect();
    let (claims, signature) = (parts[1], parts[2]);
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let jwk = serde_json::from_str::<Value>(&key(&pkcs8).jwks()).unwrap()["keys"][0].clone();
    let kid = text(&jwk, "/kid");
    // Signed by the real key, with a header of the attacker's liking.
    let signed = |header: Value, claims: &str| {
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &pkcs8,
        );
        let message = format!("{}.{claims}", encode(&header));
        let tag = pair.unwrap().sign(&aws_lc_rs::rand::SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let header = |kid: &str| json!({"alg": "ES256", "typ": "JWT", "kid": kid});
    let with = |change: Value| {
        let mut claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        encode(&claims)
    };
    let good = signed(header(kid), claims);
    person.me(&good).await.expect(200);

    let mut attacks: Vec<(&str, String)> = vec![];
    for alg in ["none", "None", "NONE", ""] {
        let head = encode(&json!({"alg": alg, "kid": kid}));
        attacks.push(("alg none", format!("{head}.{claims}.")));
        attacks.push(("alg none with a signature", format!("{head}.{claims}.{signature}")));
    }
    let point = [
        BASE64URL_NOPAD.decode(text(&jwk, "/x").as_bytes()).unwrap(),
        BASE64URL_NOPAD.decode(text(&jwk, "/y").as_bytes()).unwrap(),
    ]
    .concat();
    for secret in [
        jwk.to_string().into_bytes(),
        key(&pkcs8).jwks().into_bytes(),
        point.clone(),
        [vec![4], point].concat(),
        vec![],
    ] {
        let message = format!("{}.{claims}", encode(&json!({"alg": "HS256", "kid": kid})));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        attacks.push(("HS256 with the public key", format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))));
    }
    for strange in ["", "unknown", "../../etc/passwd", "' OR 1=1 --", "\0", "a\nb", "kid#T#", &"k".repeat(1000)] {
        attacks.push(("kid", signed(header(strange), claims)));
    }
    attacks.push(("no kid", signed(json!({"alg": "ES256"}), claims)));
    attacks.push(("a key of its own", {
        let own = SigningKey::generate().unwrap();
        person.token(&key(&own), now())
    }));
    attacks.push(("a key in the header", {
        let own = key(&SigningKey::generate().unwrap());
        let own_jwk = serde_json::from_str::<Value>(&own.jwks()).unwrap()["keys"][0].clone();
        signed(json!({"alg": "ES256", "jwk": own_jwk, "jku": "https://evil.example/jwks.json"}), claims)
    }));
    let at = now() / 1000;
    for (what, change) in [
        ("wrong audience", json!({"aud": "somebody-else"})),
        ("audiences", json!({"aud": ["somebody-else"]})),
        ("no audience", json!({"aud": null})),
        ("wrong issuer", json!({"iss": "https://evil.example"})),
        ("another type", json!({"typ": "refresh"})),
        ("no type", json!({"typ": null})),
        ("expired", json!({"exp": at - 1})),
        ("not yet valid", json!({"nbf": at + 60})),
        ("no expiry", json!({"exp": null})),
        ("expiry as text", json!({"exp": "never"})),
        ("no person", json!({"sub": "nobody"})),
        ("another role", json!({"role": "root"})),
        ("an id of another kind", json!({"org": person.user.as_str()})),
    ] {
        attacks.push((what, signed(header(kid), &with(change))));
    }
    attacks.push((
        "claims of another",
        format!("{}.{}.{signature}", parts[0], with(json!({"org": OrgId::new().as_str()}))),
    ));
    attacks.push(("a signature of zeros", format!("{}.{claims}.{}", parts[0], BASE64URL_NOPAD.encode(&[0; 64]))));
    attacks.push(("no signature", format!("{}.{claims}.", parts[0])));
    attacks.push(("two parts", format!("{}.{claims}", parts[0])));
    attacks.push(("four parts", format!("{token}.x")));
    attacks.push(("a refresh token", text(&person.tokens, "/refresh_token").to_owned()));
    // All its claims are right; it is only endless.
    attacks.push(("oversized", signed(header(kid), &with(json!({"x": "x".repeat(10_000)})))));
    let refused = seen(&person.me("nonsense").await);
    for (what, attack) in attacks {
        let reply = person.me(&attack).await;
        problem(&reply, 401, "invalid_api_key");
        assert_eq!(seen(&reply), refused, "{what}: every one gets the same answer");
    }
    let refresh = person.rows.post("/api/v1/auth/refresh", json!({"refresh_token": token})).await;
    problem(&refresh, 401, "unauthenticated");
    person.me(&person.token(person.rows.signing_key(), now() - 9 * MINUTE)).await.expect(200);
    person.me(&person.token(person.rows.signing_key(), now() - 11 * MINUTE)).await.expect(401);
}

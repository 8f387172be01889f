//! Access tokens: JWTs (RFC 7519) signed with ES256, ten minutes long, with a `kid` and a JWKS (RFC 7517).

use std::collections::HashMap;

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use tenantry_domain::{Millis, OrgId, SessionId, TenantUserId, UserId, roles::Role};
use utoipa::ToSchema;

/// How long an access token is good for, in seconds.
pub const ACCESS_TOKEN_SECONDS: i64 = 600;

/// Who the tokens are for.
const AUDIENCE: &str = "tenantry";

/// Longest token that is looked at. Ours have some 500 characters.
const LONGEST_TOKEN: usize = 4096;

/// `typ` of the claims: no other token of ours passes for an access token.
const ACCESS: &str = "access";

/// Who the tokens of tenant users are for: the tenants' own services. So none of them passes for an access token, with
/// whoever looks at signature and audience alone either.
const TENANT_AUDIENCE: &str = "tenantry:tenant_user";

/// `typ` of the claims of a tenant user.
const TENANT_USER: &str = "tenant_user";

/// What an access token of a tenant user says. No route of ours takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TenantUserClaims<'a> {
    iss: &'a str,
    aud: &'static str,
    typ: &'static str,
    sub: &'a TenantUserId,
    org: &'a OrgId,
    sid: &'a SessionId,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    iss: String,
    aud: String,
    typ: String,
    /// The user.
    pub sub: UserId,
    /// The organization it acts for.
    pub org: OrgId,
    /// The user's role there. None while the organization is being deleted: then the token only leads to bringing
    /// it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The session it came from.
    pub sid: SessionId,
    /// Issued at, seconds.
    pub iat: i64,
    /// Not before, seconds.
    pub nbf: i64,
    /// Expires at, seconds.
    pub exp: i64,
}

/// Why a token is refused. For the log; callers all get the same answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Not a JWT, or none of ours.
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// Signed with a key that we do not (any longer) know.
    #[error("unknown key")]
    UnknownKey,
    /// Too early, too late, or for another purpose.
    #[error("{0}")]
    Claims(&'static str),
    /// The keys themselves are wrong.
    #[error("{0}")]
    Keys(String),
}

/// The private key.
pub struct SigningKey {
    kid: String,
    issuer: String,
    key: EncodingKey,
    jwk: Jwk,
}

/// The public half of a signing key (RFC 7517, RFC 7518 6.2).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// Kind of key.
    #[schema(example = "EC")]
    kty: String,
    /// Curve.
    #[schema(example = "P-256")]
    crv: String,
    /// Algorithm it signs with.
    #[schema(example = "ES256")]
    alg: String,
    /// What it is for.
    #[schema(example = "sig")]
    r#use: String,
    /// Name of the key, as tokens carry it in their header.
    kid: String,
    /// The point's x, base64url.
    x: String,
    /// The point's y, base64url.
    y: String,
}

/// A JWKS document.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Jwks {
    /// The keys that tokens may be signed with.
    keys: Vec<Jwk>,
}

impl SigningKey {
    /// A new key, as PKCS #8 DER.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn generate() -> Result<Vec<u8>, VerifyError> {
        let failed = |_| VerifyError::Keys("no randomness".into());
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        Ok(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec())
    }

    /// The key in `pkcs8` (DER), whose tokens name `issuer`.
    ///
    /// # Errors
    /// When it is not a P-256 key.
    pub fn from_pkcs8(pkcs8: &[u8], issuer: &str) -> Result<Self, VerifyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|error| VerifyError::Keys(format!("not a P-256 key in PKCS #8: {error}")))?;
        // SEC 1, 2.3.3: 0x04, then x and y of 32 bytes each.
        let point = pair.public_key().as_ref();
        let (x, y) =
            point.get(1..33).zip(point.get(33..65)).ok_or(VerifyError::Keys("not an uncompressed point".into()))?;
        let kid = BASE64URL_NOPAD.encode(&digest::digest(&digest::SHA256, point).as_ref()[..12]);
        let jwk = Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            alg: "ES256".into(),
            r#use: "sig".into(),
            kid: kid.clone(),
            x: BASE64URL_NOPAD.encode(x),
            y: BASE64URL_NOPAD.encode(y),
        };
        Ok(Self { kid, issuer: issuer.to_owned(), key: EncodingKey::from_ec_der(pkcs8), jwk })
    }

    /// The public half, as a JWKS document.
    #[must_use]
    pub fn jwks(&self) -> String {
        serde_json::to_string(&Jwks { keys: vec![self.jwk.clone()] }).unwrap_or_default()
    }

    /// A token for a session of `user` in `org`, good from `now`.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue(
        &self,
        user: &UserId,
        org: &OrgId,
        role: Role,
        session: &SessionId,
        now: Millis,
    ) -> Result<String, VerifyError> {
        self.issue_until(user, org, Some(role), session, now, now.div_euclid(1000) + ACCESS_TOKEN_SECONDS)
    }

    /// The same with an end, in seconds since 1970; and without a role for who may only bring `org` back.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue_until(
        &self,
        user: &UserId,
        org: &OrgId,
        role: Option<Role>,
        session: &SessionId,
        now: Millis,
        expires_at: i64,
    ) -> Result<String, VerifyError> {
        let now = now.div_euclid(1000);
        let claims = AccessClaims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.into(),
            typ: ACCESS.into(),
            sub: user.clone(),
            org: org.clone(),
            role,
            sid: session.clone(),
            iat: now,
            nbf: now,
            exp: expires_at,
        };
        self.sign(&claims)
    }

    /// A token for a session of a tenant user of `org`, good from `now`.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue_to_tenant_user(
        &self,
        user: &TenantUserId,
        org: &OrgId,
        session: &SessionId,
        now: Millis,
    ) -> Result<String, VerifyError> {
        let now = now.div_euclid(1000);
        self.sign(&TenantUserClaims {
            iss: &self.issuer,
            aud: TENANT_AUDIENCE,
            typ: TENANT_USER,
            sub: user,
            org,
            sid: session,
            iat: now,
            nbf: now,
            exp: now + ACCESS_TOKEN_SECONDS,
        })
    }

    fn sign<T: Serialize>(&self, claims: &T) -> Result<String, VerifyError> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, claims, &self.key)?)
    }
}

/// The public keys.
pub struct TokenVerifier {
    keys: HashMap<String, DecodingKey>,
    jwks: String,
    validation: Validation,
}

impl TokenVerifier {
    /// The keys of a JWKS document as [`SigningKey::jwks`] writes it.
    ///
    /// # Errors
    /// When it is not one, or has no usable key.
    pub fn from_jwks(jwks: &str, issuer: &str) -> Result<Self, VerifyError> {
        let mut jwks: Jwks = serde_json::from_str(jwks).map_err(|error| VerifyError::Keys(error.to_string()))?;
        jwks.keys.retain(|jwk| jwk.crv == "P-256");
        let mut keys = HashMap::new();
        for jwk in &jwks.keys {
            keys.insert(jwk.kid.clone(), DecodingKey::from_ec_components(&jwk.x, &jwk.y)?);
        }
        if keys.is_empty() {
            return Err(VerifyError::Keys("no P-256 key in it".into()));
        }
        // The algorithm is ours to choose, never the token's (RFC 8725, 3.1).
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are checked below, against the store's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let jwks = serde_json::to_string(&jwks).map_err(|error| VerifyError::Keys(error.to_string()))?;
        Ok(Self { keys, jwks, validation })
    }

    /// The keys as a JWKS document, to be published. Only the members that a public key has are in it,
    /// whatever else stood in the configuration.
    #[must_use]
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The claims of a token that we signed and that is good at `now`.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, token: &str, now: Millis) -> Result<AccessClaims, VerifyError> {
        if token.len() > LONGEST_TOKEN {
            return Err(VerifyError::Claims("longer than any of ours"));
        }
        let kid = decode_header(token)?.kid.ok_or(VerifyError::UnknownKey)?;
        let key = self.keys.get(&kid).ok_or(VerifyError::UnknownKey)?;
        let claims = decode::<AccessClaims>(token, key, &self.validation)?.claims;
        let now = now.div_euclid(1000);
        if claims.typ != ACCESS {
            return Err(VerifyError::Claims("not an access token"));
        }
        if claims.exp <= now {
            return Err(VerifyError::Claims("expired"));
        }
        if claims.nbf > now {
            return Err(VerifyError::Claims("not yet valid"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    fn pair() -> (SigningKey, TokenVerifier) {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "https://issuer").unwrap();
        let verifier = TokenVerifier::from_jwks(&key.jwks(), "https://issuer").unwrap();
        (key, verifier)
    }

    fn issue(key: &SigningKey) -> String {
        key.issue(&UserId::new(), &OrgId::new(), Role::Owner, &SessionId::new(), NOW).unwrap()
    }

    #[test]
    fn what_is_published_is_public() {
        let (key, _) = pair();
        let leaky = key.jwks().replace(r#""kty":"EC""#, r#""kty":"EC","d":"secret""#);
        assert!(leaky.contains("secret"));
        assert_eq!(TokenVerifier::from_jwks(&leaky, "https://issuer").unwrap().jwks(), key.jwks());
    }

    #[test]
    fn a_token_is_good_for_ten_minutes() {
        let (key, verifier) = pair();
        let token = issue(&key);
        assert_eq!(verifier.verify(&token, NOW).unwrap().role, Some(Role::Owner));
        assert!(verifier.verify(&token, NOW + 599_999).is_ok());
        assert!(verifier.verify(&token, NOW + 600_000).is_err());
        assert!(verifier.verify(&token, NOW - 1_000).is_err());
    }

    #[test]
    fn forged_tokens_are_refused() {
        let (key, verifier) = pair();
        let token = issue(&key);
        let (other, _) = pair();
        assert!(verifier.verify(&issue(&other), NOW).is_err(), "another key");
        let foreign = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "https://elsewhere").unwrap();
        let trusting = TokenVerifier::from_jwks(&foreign.jwks(), "https://issuer").unwrap();
        assert!(trusting.verify(&issue(&foreign), NOW).is_err(), "another issuer");

        let parts: Vec<_> = token.split('.').collect();
        let header = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let none = header(&format!(r#"{{"alg":"none","kid":"{}"}}"#, key.kid));
        assert!(verifier.verify(&format!("{none}.{}.", parts[1]), NOW).is_err(), "alg none");
        // The classic confusion: the public key as an HMAC secret.
        let hs = header(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, key.kid));
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.jwks().as_bytes());
        let tag = aws_lc_rs::hmac::sign(&mac, format!("{hs}.{}", parts[1]).as_bytes());
        let forged = format!("{hs}.{}.{}", parts[1], BASE64URL_NOPAD.encode(tag.as_ref()));
        assert!(verifier.verify(&forged, NOW).is_err(), "HS256 with the public key");
        assert!(verifier.verify("", NOW).is_err());
        assert!(verifier.verify("a.b.c", NOW).is_err());
    }
}

//! Where a vendor's page leads back to. Only to the product's own site and to the pages that may call the API: a page that
//! was opened with our name on it must not end on somebody else's.

use std::sync::Arc;

use http::{Uri, uri::Scheme};
use tenantry_web::{
    ApiError,
    config::{ConfigError, Env},
};

/// Longest address, in characters.
const URL_CHARS: usize = 2048;

/// What Stripe puts the session's id in the place of
/// (<https://docs.stripe.com/payments/checkout/custom-success-page>).
const SESSION_ID: &str = "{CHECKOUT_SESSION_ID}";

/// The pages that people may come back to.
#[derive(Debug, Clone)]
pub struct Pages {
    site: Option<Arc<str>>,
    origins: Arc<[String]>,
}

impl Pages {
    /// `site` is where the product is, `origins` are the others whose pages may be come back to.
    fn new(site: Option<&str>, origins: impl IntoIterator<Item = String>) -> Self {
        let site = site.map(|site| site.trim_end_matches('/'));
        let own = site.and_then(|site| site.parse::<Uri>().ok()).as_ref().and_then(origin);
        Self { site: site.map(Arc::from), origins: own.into_iter().chain(origins).collect() }
    }

    /// From `PUBLIC_URL`, if there is a site, and the origins in `CORS_ORIGINS`; `*` there names no page.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let site = env.optional("PUBLIC_URL");
        if let Some(site) = site
            && site.parse::<Uri>().ok().as_ref().and_then(origin).is_none()
        {
            return Err(ConfigError::new("PUBLIC_URL", "must be an https:// address without query"));
        }
        let origins = env.optional("CORS_ORIGINS").unwrap_or_default().split(',').map(str::trim);
        Ok(Self::new(site, origins.filter(|origin| !origin.is_empty() && *origin != "*").map(str::to_owned)))
    }

    /// The address that the field `pointer` gave, or the product's own page at `path`.
    ///
    /// # Errors
    /// 422 for an address that is none, or leads elsewhere.
    pub(crate) fn back(&self, pointer: &str, given: Option<&str>, path: &str) -> Result<String, ApiError> {
        let Some(given) = given else {
            let site =
                self.site.as_deref().ok_or_else(|| ApiError::invalid(pointer, "is needed: there is no PUBLIC_URL"))?;
            return Ok(format!("{site}{path}"));
        };
        let plain = given.replace(SESSION_ID, "x");
        let is_text = given.chars().all(|c| c.is_ascii_graphic() && c != '\\') && given.len() <= URL_CHARS;
        let found = plain.parse::<Uri>().ok().as_ref().and_then(origin);
        match found.filter(|_| is_text) {
            Some(origin) if self.origins.contains(&origin) => Ok(given.to_owned()),
            Some(origin) => Err(ApiError::invalid(
                pointer,
                format!("must lead to a page of this product; {origin} is none (PUBLIC_URL, CORS_ORIGINS)"),
            )),
            None => Err(ApiError::invalid(pointer, "must be an https:// address")),
        }
    }
}

/// `https://host[:port]`, as browsers compare it; in the clear for this machine alone.
fn origin(uri: &Uri) -> Option<String> {
    let (scheme, authority) = (uri.scheme()?, uri.authority()?);
    let local = ["localhost", "127.0.0.1", "[::1]"].contains(&authority.host());
    if authority.as_str().contains('@') || !(*scheme == Scheme::HTTPS || (*scheme == Scheme::HTTP && local)) {
        return None;
    }
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let port = authority.port_u16().filter(|port| *port != default).map_or(String::new(), |port| format!(":{port}"));
    Some(format!("{scheme}://{}{port}", authority.host().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_come_back_to_our_own_pages_alone() {
        let pages = Pages::new(Some("https://app.example.com/x/"), ["http://localhost:5173".to_owned()]);
        assert_eq!(pages.back("/a", None, "/billing").unwrap(), "https://app.example.com/x/billing");
        for good in [
            "https://app.example.com",
            "https://APP.example.com:443/a?b=c",
            "https://app.example.com/done?session={CHECKOUT_SESSION_ID}",
            "http://localhost:5173/#/done",
        ] {
            assert_eq!(pages.back("/a", Some(good), "/").unwrap(), good);
        }
        let long = format!("https://app.example.com/{}", "x".repeat(URL_CHARS));
        for bad in [
            "https://evil.example",
            "https://app.example.com.evil.example/",
            "https://app.example.com@evil.example/",
            "https://evil.example\\@app.example.com/",
            "https://app.example.com:8443/",
            "http://app.example.com/",
            "//app.example.com/",
            "/billing",
            "javascript:alert(1)",
            "",
            &long,
        ] {
            pages.back("/a", Some(bad), "/").unwrap_err();
        }
    }

    #[test]
    fn a_site_that_is_no_address_is_a_fault_of_the_configuration() {
        let env = |site: &str| -> Env {
            [("PUBLIC_URL", site), ("CORS_ORIGINS", "*")]
                .map(|(name, value)| (name.into(), value.into()))
                .into_iter()
                .collect()
        };
        assert!(Pages::from_env(&env("https://app.example.com")).is_ok());
        let nowhere = Pages::from_env(&env("")).unwrap();
        assert!(nowhere.back("/a", None, "/").is_err() && nowhere.back("/a", Some("https://a.example"), "/").is_err());
        assert!(Pages::from_env(&env("app.example.com")).is_err());
    }
}

//! The API document and the page that shows it.

use std::{fmt::Write as _, sync::LazyLock};

use aws_lc_rs::digest;
use axum::{
    Router,
    response::{Html, IntoResponse},
    routing::get,
};
use data_encoding::BASE64;
use http::header;
use utoipa::openapi::{
    Info, OpenApi, OpenApiBuilder, Server,
    extensions::ExtensionsBuilder,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

/// Pinned release of the reference's viewer.
const SCALAR: &str = "https://cdn.jsdelivr.net/npm/@scalar/api-reference@1.25.0/dist/browser/standalone.js";
/// Its content: people paste keys into the page, so no other script may stand in (W3C Subresource Integrity).
const SCALAR_INTEGRITY: &str = "sha384-aYYa3Qxeo6+Z48D3AmUywxDcZRSrJHutGAgpJiBtkiofix52Px1F0p8tFptEbnNX";

/// What shows the viewer once it is loaded.
const START: &str = "if (window.Scalar) { document.getElementById('app').innerHTML = ''; \
                     Scalar.createApiReference('#app', { url: '/api/v1/openapi.json' }) }";

/// The page runs the two scripts above and no other, and sends what is pasted into it nowhere but here. The viewer
/// makes its styles while it runs, and fetches its fonts.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let start = BASE64.encode(digest::digest(&digest::SHA256, START.as_bytes()).as_ref());
    format!(
        "default-src 'none'; script-src {SCALAR} 'sha256-{start}'; style-src 'unsafe-inline'; \
         font-src https://fonts.scalar.com data:; img-src 'self' data: blob:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});
static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(document);
static JSON: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_pretty_json().unwrap_or_default() + "\n");
static PAGE: LazyLock<String> = LazyLock::new(page);

/// The API document of all functions: OpenAPI 3.1, pretty JSON.
#[must_use]
pub fn openapi() -> String {
    JSON.clone()
}

fn document() -> OpenApi {
    let mut info = Info::new("Tenantry", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Backend of an AI product sold by subscription. The model endpoints take and give what OpenAI's do; \
         all others answer errors as RFC 9457 problems. Times are RFC 3339 in UTC; money and tokens are integers."
            .to_owned(),
    );
    let mut document = OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new("/")]))
        .security(Some([SecurityRequirement::new("bearer", [""; 0]), SecurityRequirement::new("api_key", [""; 0])]))
        .build();
    for (function, mut part) in [
        ("auth", tenantry_auth::routes().split_for_parts().1),
        ("tenants", tenantry_tenants::routes().split_for_parts().1),
        ("usage", tenantry_usage::routes().split_for_parts().1),
        ("chat", tenantry_chat::routes().split_for_parts().1),
        ("billing", tenantry_billing::routes().split_for_parts().1),
        ("webhooks", tenantry_webhooks::routes().split_for_parts().1),
    ] {
        tell_function(&mut part, function);
        document.merge(part);
    }
    let schemes = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An access token of `/api/v1/auth/login`, or an API key."))
        .build();
    schemes.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let key = ApiKeyValue::with_description("X-API-Key", "An API key (`wk_live_…`).");
    schemes.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    document
}

/// Writes on every operation which Lambda function serves it: `infra/api.yaml` is made from that.
fn tell_function(part: &mut OpenApi, function: &str) {
    for item in part.paths.paths.values_mut() {
        let methods = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.options,
            &mut item.head,
            &mut item.patch,
            &mut item.trace,
        ];
        for operation in methods.into_iter().flatten() {
            let extensions = ExtensionsBuilder::new().add("x-function", function).build();
            operation.extensions.get_or_insert_default().merge(extensions);
        }
    }
}

/// `/docs` and `/api/v1/openapi.json`.
pub(crate) fn router() -> Router {
    let page = || async { ([(header::CONTENT_SECURITY_POLICY, POLICY.as_str())], Html(PAGE.as_str())) };
    Router::new().route("/docs", get(page)).route(
        "/api/v1/openapi.json",
        get(|| async { ([(header::CONTENT_TYPE, "application/json")], JSON.as_str()).into_response() }),
    )
}

/// A list of every operation, which the viewer replaces when it can be loaded.
fn page() -> String {
    let mut rows = String::new();
    for (path, item) in &DOCUMENT.paths.paths {
        let operations = [("GET", &item.get), ("POST", &item.post), ("PATCH", &item.patch), ("DELETE", &item.delete)];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let text = operation.summary.as_deref().or(operation.description.as_deref()).unwrap_or("");
            let _ = writeln!(
                rows,
                "<tr><td>{method}</td><td><code>{}</code></td><td>{}</td></tr>",
                escape(path),
                escape(text)
            );
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tenantry API</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>body{{font:16px/1.5 system-ui;max-width:70rem;margin:2rem auto;padding:0 1rem}}\
         td{{padding:.3rem .8rem .3rem 0;vertical-align:top}}code{{white-space:nowrap}}</style></head>\n<body>\
         <div id=\"app\"><h1>Tenantry API</h1>\
         <p>The whole document: <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>. \
         The interactive viewer is loaded from the network; this list needs none.</p>\
         <table>{rows}</table></div>\
         <script src=\"{SCALAR}\" integrity=\"{SCALAR_INTEGRITY}\" crossorigin=\"anonymous\"></script>\
         <script>{START}</script>\
         </body></html>\n"
    )
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

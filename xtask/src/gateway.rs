//! `infra/api.yaml`: what API Gateway has to know of the API document. Paths, methods, which function answers (it also
//! answers preflights, since it knows the origins), and how refusals of API Gateway's own look. Schemas stay out: the functions check what they are sent.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::steps::Result;

/// The functions whose answers stream, when the template's `ResponseMode` says so.
const STREAMING: [&str; 2] = ["chat", "usage"];
/// Methods of OpenAPI, as API Gateway knows them.
const METHODS: [&str; 6] = ["get", "put", "post", "delete", "head", "patch"];

const HEAD: &str = "\
# What API Gateway knows of the API. Written from docs/openapi.json by `cargo xtask openapi`; do not edit.
openapi: 3.0.1
";

/// What API Gateway refuses by itself, in the shape in which the functions refuse (RFC 9457).
const REFUSALS: [(&str, u16, &str, &str); 7] = [
    ("MISSING_AUTHENTICATION_TOKEN", 404, "not_found", "Not found"),
    ("RESOURCE_NOT_FOUND", 404, "not_found", "Not found"),
    ("REQUEST_TOO_LARGE", 413, "body_too_large", "The body is too large"),
    ("THROTTLED", 429, "rate_limited", "Too many requests"),
    ("INTEGRATION_TIMEOUT", 504, "unavailable", "Not available right now"),
    ("INTEGRATION_FAILURE", 502, "internal", "Internal error"),
    ("WAF_FILTERED", 403, "forbidden", "Not allowed"),
];

/// `infra/api.yaml` for this API document.
pub(crate) fn definition(document: &str) -> Result<String> {
    let document: Value =
        serde_json::from_str(document).map_err(|error| format!("docs/openapi.json is not JSON: {error}"))?;
    let version = document["info"]["version"].as_str().unwrap_or_default();
    let paths = document["paths"].as_object().ok_or("docs/openapi.json has no paths")?;
    let mut yaml = format!("{HEAD}info: {{ title: {{ Ref: \"AWS::StackName\" }}, version: \"{version}\" }}\npaths:\n");
    let sorted: BTreeSet<_> = paths.keys().collect();
    for path in sorted {
        let item = &paths[path.as_str()];
        let methods: Vec<_> = METHODS.into_iter().filter(|method| item.get(method).is_some()).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(yaml, "  {path}:");
        let mut answers_preflights = None;
        for method in &methods {
            let function = item[method]["x-function"]
                .as_str()
                .ok_or_else(|| format!("docs/openapi.json: {method} {path} does not say which function serves it"))?;
            let _ = write!(yaml, "    {method}:\n{}{}", parameters(path), integration(function));
            answers_preflights.get_or_insert(function);
        }
        // The function that has the path knows which origins may call. A browser believes it for two hours.
        if let Some(function) = answers_preflights {
            let _ = write!(yaml, "    options:\n{}{}", parameters(path), integration(function));
        }
    }
    yaml.push_str("x-amazon-apigateway-gateway-responses:\n");
    for (kind, status, code, title) in REFUSALS {
        yaml.push_str(&refusal(kind, status, code, title));
    }
    for kind in ["DEFAULT_4XX", "DEFAULT_5XX"] {
        let _ = write!(yaml, "  {kind}:\n{}", refusal_headers());
    }
    Ok(yaml)
}

/// The path's variables; API Gateway wants to be told.
fn parameters(path: &str) -> String {
    let mut yaml = String::new();
    for name in path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name) {
        let _ = writeln!(yaml, "        - {{ name: {name}, in: path, required: true, schema: {{ type: string }} }}");
    }
    if yaml.is_empty() { yaml } else { format!("      parameters:\n{yaml}") }
}

/// The function's `live` alias answers. A streaming one is invoked otherwise while `ResponseMode` is `stream`.
fn integration(function: &str) -> String {
    let alias = format!("{}FunctionAliaslive", pascal(function));
    let invoke = |api: &str, how: &str| {
        format!(
            "{{ \"Fn::Sub\": \"arn:${{AWS::Partition}}:apigateway:${{AWS::Region}}:lambda:path/{api}/functions/${{{alias}}}/{how}\" }}"
        )
    };
    let buffered = invoke("2015-03-31", "invocations");
    let mut yaml = "      responses: { default: { description: The function's answer } }\n      \
                    x-amazon-apigateway-integration:\n        type: aws_proxy\n        httpMethod: POST\n"
        .to_owned();
    if STREAMING.contains(&function) {
        let streamed = invoke("2021-11-15", "response-streaming-invocations");
        let _ = write!(
            yaml,
            "        uri:\n          Fn::If:\n            - Streams\n            - {streamed}\n            - {buffered}\n        \
             responseTransferMode: {{ \"Fn::If\": [Streams, STREAM, BUFFERED] }}\n        \
             timeoutInMillis: {{ \"Fn::If\": [Streams, 900000, 29000] }}\n"
        );
    } else {
        let _ = writeln!(yaml, "        uri: {buffered}");
    }
    yaml
}

/// What API Gateway's own answers carry, whatever they say. They hold no data, so every page may read them, and one that
/// has to wait can. A content security policy is not among them: its quotes cannot be written here.
const REFUSAL_HEADERS: [(&str, &str); 7] = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "retry-after,x-amzn-requestid"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Strict-Transport-Security", "max-age=31536000"),
    ("X-Content-Type-Options", "nosniff"),
];

fn refusal_headers() -> String {
    let mut yaml = "    responseParameters:\n".to_owned();
    for (name, value) in REFUSAL_HEADERS {
        let _ = writeln!(yaml, "      gatewayresponse.header.{name}: \"'{value}'\"");
    }
    yaml
}

fn refusal(kind: &str, status: u16, code: &str, title: &str) -> String {
    let body = format!(
        "{{\"type\":\"urn:tenantry:problem:{code}\",\"title\":\"{title}\",\"status\":{status},\
         \"detail\":$context.error.messageString,\"code\":\"{code}\",\"request_id\":\"$context.requestId\"}}"
    );
    format!(
        "  {kind}:\n    statusCode: {status}\n{}      \
         gatewayresponse.header.Content-Type: \"'application/problem+json'\"\n    \
         responseTemplates:\n      application/json: '{body}'\n",
        refusal_headers()
    )
}

/// `quota-reset` → `QuotaReset`, as the template's logical ids are written.
fn pascal(name: &str) -> String {
    name.split('-')
        .map(|word| word.split_at_checked(1).map(|(first, rest)| first.to_uppercase() + rest).unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::definition;

    const DOCUMENT: &str = r#"{
        "info": {"version": "1.2.3"},
        "paths": {
            "/b/{id}": {"get": {"x-function": "quota-reset"}, "delete": {"x-function": "quota-reset"}},
            "/a": {"post": {"x-function": "chat"}}
        }
    }"#;

    #[test]
    fn a_route_goes_to_its_function_and_only_those_stream_that_are_named() {
        let yaml = definition(DOCUMENT).unwrap();
        // Each path has preflights besides its methods.
        assert_eq!(yaml.matches("functions/${QuotaResetFunctionAliaslive}/invocations").count(), 3);
        assert_eq!(yaml.matches("functions/${ChatFunctionAliaslive}/response-streaming-invocations").count(), 2);
        assert_eq!(yaml.matches("responseTransferMode").count(), 2);
        assert!(yaml.find("  /a:").unwrap() < yaml.find("  /b/{id}:").unwrap());
        assert!(yaml.contains("- { name: id, in: path, required: true"));
    }

    #[test]
    fn a_route_without_a_function_is_refused() {
        let error = definition(r#"{"paths": {"/a": {"get": {}}}}"#).unwrap_err();
        assert!(error.contains("get /a"), "{error}");
    }
}

//! The API document is true: what it says of answers holds for every kind of caller, and what it says of bodies is what
//! is taken. The operations come from the document, so a new one is covered the day it appears. Schemathesis
//! (`cargo xtask fuzz-api`) tries far more, in minutes; what it found has its test here.

use http::{Method, Request, header};
use serde_json::{Value, json};
use tenantry_domain::{KeyId, OrgId, SessionId, UserId};
use tenantry_tests::{
    http::{problem, text},
    platform::{Platform, Reply, Setup, Tenant, chat_body, request},
};

use crate::isolation::{
    slots::{body_schema, document, example, operations, resolve},
    stage::Stage,
};

/// Members that somebody might hope to set along the way.
const HOPES: [&str; 16] = [
    "role",
    "plan",
    "quota",
    "limits",
    "credits",
    "tenant",
    "tenant_id",
    "organization_id",
    "org",
    "owner",
    "is_admin",
    "email_verified_at",
    "id",
    "user_id",
    "created_by",
    "created_at",
];

/// Roads that take what they do not know, and hand it to a vendor.
fn reaches_a_vendor(path: &str) -> bool {
    ["/api/v1/chat/completions", "/api/v1/embeddings"].contains(&path)
}

/// A platform without a vendor, a tenant on it that may have many of everything, and its owner's access token.
async fn stage() -> (Platform, Tenant, String) {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("team").await;
    let token = sign_in(&platform, &tenant).await;
    (platform, tenant, token)
}

async fn sign_in(platform: &Platform, tenant: &Tenant) -> String {
    text(&platform.login(tenant).await, "/access_token").to_owned()
}

/// The path with ids of the tenant's own where there are some, and of nobody's where not.
fn filled(path: &str, tenant: &Tenant) -> String {
    let id = |path: &str| match path {
        _ if path.contains("/organizations/") => tenant.org.to_string(),
        _ if path.contains("/api-keys/") => KeyId::new().to_string(),
        _ => SessionId::new().to_string(),
    };
    path.replace("{id}", &id(path))
        .replace("{user_id}", UserId::new().as_str())
        .replace("{invite_id}", OrgId::new().as_str())
        .replace("{username}", "nobody")
        .replace("{model}", "sandbox%2Fecho")
}

/// Fails when the document does not know this status for the operation, or not with this kind of body.
fn assert_documented(operation: &Value, reply: &Reply, what: &str) {
    let status = reply.status.as_u16().to_string();
    let documented = &operation["responses"][&status];
    assert!(documented.is_object(), "{what}: {status} is not documented: {}", reply.text());
    let kind = reply.header("content-type").split(';').next().unwrap_or_default();
    match documented["content"].as_object() {
        Some(kinds) => assert!(kinds.contains_key(kind), "{what}: {status} as {kind:?}; documented: {kinds:?}"),
        None => assert!(reply.bytes.is_empty(), "{what}: {status} with a body that is not documented"),
    }
}

#[tokio::test]
async fn every_caller_is_answered_as_the_document_says() {
    let document = document();
    // For the admin and the member, who need a vendor's platform no more than anybody else.
    let people = Stage::set().await;
    for (path, method, operation) in operations(&document) {
        let schema = body_schema(&document, &operation);
        let body = schema.as_ref().map_or(Value::Null, |schema| example(&document, schema));
        let (platform, tenant, owner) = stage().await;
        let key = async |scopes: Value| {
            let made = platform.post("/api/v1/api-keys", &owner, json!({"name": "k", "scopes": scopes})).await;
            text(&made.expect(201).json(), "/secret").to_owned()
        };
        let mut callers = vec![
            ("a key for all", key(json!(["models", "usage", "login", "record"])).await),
            ("a key for usage", key(json!(["usage"])).await),
            ("a key for logins", key(json!(["login"])).await),
            ("nobody", String::new()),
        ];
        // Last, because the owner may end it all.
        callers.push(("an owner", owner.clone()));
        for (name, credential) in callers {
            let what = format!("{method} {path} as {name}");
            let reply = platform.call(method.clone(), &filled(&path, &tenant), &credential, body.clone()).await;
            assert_documented(&operation, &reply, &what);
            assert!(!reply.status.is_server_error(), "{what}: {}", reply.text());
        }
        for caller in people.callers.iter().filter(|caller| ["an admin", "a member"].contains(&caller.name)) {
            let what = format!("{method} {path} as {}", caller.name);
            let path = filled(&path, &people.own);
            // Who signs out, or deletes, is not asked again.
            if method == Method::GET || !path.contains("/auth/") {
                let reply = people.platform.call(method.clone(), &path, &caller.credential, body.clone()).await;
                assert_documented(&operation, &reply, &what);
            }
        }
    }
}

#[tokio::test]
async fn a_stream_is_documented_as_one() {
    let (platform, tenant, _) = stage().await;
    let mut body = chat_body("Hello", true);
    body["model"] = json!("sandbox/echo");
    let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200);
    let operation = &document()["paths"]["/api/v1/chat/completions"]["post"];
    assert_documented(operation, &reply, "a stream");
    assert_eq!(reply.header("content-type").split(';').next(), Some("text/event-stream"));
}

/// Every operation with a body: its method and path, the body's schema, and a body that is in order.
fn bodies() -> Vec<(Method, String, Value, Value)> {
    let document = document();
    let operations = operations(&document).into_iter().filter_map(|(path, method, operation)| {
        let schema = body_schema(&document, &operation)?;
        let body = example(&document, &schema);
        (!reaches_a_vendor(&path)).then_some((method, path, schema, body))
    });
    operations.collect()
}

#[tokio::test]
async fn nobody_gives_themselves_what_a_body_does_not_ask_for() {
    let (platform, tenant, _) = stage().await;
    let mut refused = 0;
    for (method, path, schema, body) in bodies() {
        let token = sign_in(&platform, &tenant).await;
        let path = filled(&path, &tenant);
        let before = platform.host().all_items().unwrap();
        for hope in HOPES.into_iter().filter(|hope| schema["properties"][hope].is_null()) {
            let mut hopeful = body.clone();
            hopeful[hope] = json!("owner");
            let reply = platform.call(method.clone(), &path, &token, hopeful).await;
            let error = problem(&reply, 400, "invalid_body");
            assert!(text(&error, "/detail").contains(&format!("unknown field `{hope}`")), "{method} {path}: {error}");
            refused += 1;
        }
        assert_eq!(platform.host().all_items().unwrap(), before, "{method} {path} changed something");
        // What was refused was the member, not the rest.
        let reply = platform.call(method.clone(), &path, &token, body.clone()).await;
        assert!(!reply.text().contains("unknown field"), "{method} {path} with {body}: {}", reply.text());
    }
    assert!(refused > 200, "{refused}: the document was not understood");
}

#[tokio::test]
async fn objects_in_bodies_take_no_more_than_the_document_says_either() {
    let (platform, tenant, token) = stage().await;
    let organization = format!("/api/v1/organizations/{}", tenant.org);
    let login = json!({"email": tenant.email, "password": tenant.password});
    let before = platform.host().all_items().unwrap();
    for hope in HOPES.into_iter().filter(|hope| *hope != "id") {
        for (method, path, name, mut body) in [
            (Method::PATCH, &*organization, "settings", json!({})),
            (Method::POST, "/api/v1/auth/login", "device", login.clone()),
        ] {
            body[name] = json!({hope: "owner"});
            let error = problem(&platform.call(method, path, &token, body).await, 400, "invalid_body");
            assert!(text(&error, "/detail").contains(&format!("unknown field `{hope}`")), "{path}: {error}");
        }
    }
    // Serde reads an array as an object whose members come in their order.
    for (method, path, name, mut body) in [
        (Method::PATCH, &*organization, "settings", json!({})),
        (Method::POST, "/api/v1/auth/login", "device", login.clone()),
    ] {
        for array in [json!([]), json!([null, null]), json!(["a@example.com", "zh"]), json!(["a", "b", "c", "d"])] {
            body[name] = array;
            let error = problem(&platform.call(method.clone(), path, &token, body.clone()).await, 400, "invalid_body");
            assert_eq!(text(&error, "/errors/0/pointer"), format!("/{name}"));
        }
    }
    assert_eq!(platform.host().all_items().unwrap(), before);
}

#[tokio::test]
async fn what_goes_to_a_vendor_is_counted_for_the_caller_whatever_it_says() {
    let (platform, tenant, _) = stage().await;
    let other = platform.tenant("team").await;
    let mut body = chat_body("Hello", false);
    body["model"] = json!("sandbox/echo");
    for hope in HOPES {
        body[hope] = json!(other.org);
    }
    platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200);
    platform.quiesce().await;
    assert_eq!((platform.books(&tenant).await.len(), platform.books(&other).await.len()), (1, 0));
}

#[tokio::test]
async fn null_is_taken_where_the_document_says_so_and_nowhere_else() {
    let (platform, tenant, _) = stage().await;
    let document = document();
    let (mut taken, mut refused) = (0, 0);
    for (method, path, schema, body) in bodies() {
        for (name, property) in schema["properties"].as_object().unwrap() {
            let token = sign_in(&platform, &tenant).await;
            let mut with_null = body.clone();
            with_null[name] = Value::Null;
            let reply = platform.call(method.clone(), &filled(&path, &tenant), &token, with_null).await;
            let says = reply.text();
            // The second is said of a choice between words, the third of what may have any members.
            let no_null =
                ["invalid type: null", "expected value", "not an object"].iter().any(|word| says.contains(word));
            let minds = says.contains(&format!("\"pointer\":\"/{name}\"")) && no_null;
            assert_eq!(minds, !is_nullable(&document, property), "{method} {path}, {name}: {says}");
            *(if minds { &mut refused } else { &mut taken }) += 1;
        }
    }
    assert!(taken > 10 && refused > 10, "{taken} {refused}");
}

fn is_nullable(document: &Value, schema: &Value) -> bool {
    let schema = resolve(document, schema);
    let is_null = |kind: &Value| *kind == "null" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("null")));
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    is_null(&schema["type"]) || choices.into_iter().any(|choice| is_null(&choice["type"]))
}

#[tokio::test]
async fn a_key_has_one_page_of_organizations() {
    let (platform, tenant, _) = stage().await;
    let list = async |query: &str| platform.get(&format!("/api/v1/organizations{query}"), &tenant.api_key).await;
    assert_eq!(list("?limit=1").await.expect(200).json()["next_cursor"], Value::Null);
    for cursor in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        problem(&list(&format!("?cursor={cursor}")).await, 400, "invalid_parameter");
    }
}

#[tokio::test]
async fn lengths_are_counted_in_characters() {
    let (platform, _, token) = stage().await;
    for (chars, status) in [(1, 200), (100, 200), (101, 400)] {
        // Two bytes each.
        let actor = "%C3%A4".repeat(chars);
        platform.get(&format!("/api/v1/audit-log?actor={actor}"), &token).await.expect(status);
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_refused() {
    let (platform, tenant, token) = stage().await;
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        let known = |method: &Method| !item[method.as_str().to_lowercase()].is_null();
        for method in [Method::PUT, Method::TRACE, Method::POST, Method::DELETE, Method::PATCH] {
            if known(&method) {
                continue;
            }
            let asking = request(method.clone(), &filled(path, &tenant), &token, &Value::Null);
            let asking = Request::from_parts(asking.into_parts().0, axum::body::Body::empty());
            let reply = platform.send(asking).await.expect(405);
            assert_eq!(reply.code(), "method_not_allowed", "{method} {path}");
            assert!(!reply.header(header::ALLOW.as_str()).is_empty(), "{method} {path} (RFC 9110, 15.5.6)");
        }
    }
}

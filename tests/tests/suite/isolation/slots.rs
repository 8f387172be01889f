//! The places where ids stand, read out of the API document.

use std::fmt;

use http::Method;
use serde_json::{Map, Value, json};

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Organization,
    ApiKey,
    Session,
    Member,
    Invite,
    TenantUser,
    Order,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Organization, Self::ApiKey, Self::Session, Self::Member, Self::Invite, Self::TenantUser, Self::Order];

    /// What a parameter or field names; `None` for what names nothing of a tenant's.
    fn of(path: &str, name: &str) -> Option<Self> {
        let before = |segment: &str| path.contains(&format!("/{segment}/{{{name}}}"));
        match name {
            "id" if before("organizations") => Some(Self::Organization),
            "id" if before("api-keys") => Some(Self::ApiKey),
            "id" if before("sessions") => Some(Self::Session),
            "id" if before("orders") => Some(Self::Order),
            // Everybody's.
            "id" if before("packages") => None,
            "price_id" => None,
            "organization_id" => Some(Self::Organization),
            "user_id" | "actor" => Some(Self::Member),
            "invite_id" => Some(Self::Invite),
            "username" => Some(Self::TenantUser),
            // Of an audit row: anything's id.
            "target" => Some(Self::ApiKey),
            // Everybody's.
            "model" => None,
            // Of the client's own making: a device, and what a tenant user is to be called.
            "device_id" => None,
            _ => panic!("{path}: what does `{name}` name? Say so in {}", file!()),
        }
    }
}

/// Where in a request an id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
    Body,
}

/// One place of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) method: Method,
    path: String,
    name: String,
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    /// The path's other ids.
    pub(crate) beside: Vec<(String, Kind)>,
    /// A body that is in order.
    body: Value,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({:?} {})", self.method, self.path, self.place, self.name)
    }
}

impl Slot {
    /// Path and body of the request with `id` in this place, and `beside` in the path's others.
    pub(crate) fn with(&self, id: &str, beside: &[String]) -> (String, Value) {
        let mut body = self.body.clone();
        let mut path = self.path.clone();
        for ((name, _), id) in self.beside.iter().zip(beside) {
            path = path.replace(&format!("{{{name}}}"), &escape(id));
        }
        match self.place {
            Place::Path => path = path.replace(&format!("{{{}}}", self.name), &escape(id)),
            Place::Query => path = with_query(&path, &format!("{}={}", self.name, escape(id))),
            Place::Body => body[&self.name] = id.into(),
        }
        (path, body)
    }

    /// Whether a call that succeeds leaves the stage unfit for the next one.
    pub(crate) fn spoils(&self) -> bool {
        self.method != Method::GET && (self.kind == Kind::Organization || self.path.ends_with("/transfer"))
    }
}

/// Every byte that is not plain, as a URL has it.
pub(crate) fn escape(id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    id.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub(crate) fn with_query(path: &str, query: &str) -> String {
    format!("{path}{}{query}", if path.contains('?') { '&' } else { '?' })
}

pub(crate) fn document() -> Value {
    serde_json::from_str(&tenantry_host::openapi()).unwrap()
}

/// Path, method and description of every operation.
pub(crate) fn operations(document: &Value) -> Vec<(String, Method, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (path.clone(), method.to_uppercase().parse().unwrap(), operation.clone()))
    });
    operations.collect()
}

/// The ids by name that are still open in the path, and what they name.
pub(crate) fn ids_in_path(path: &str, operation: &Value) -> Vec<(String, Kind)> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let names = parameters.filter(|parameter| parameter["in"] == "path").map(|parameter| {
        let name = parameter["name"].as_str().unwrap();
        let is_open = path.contains(&format!("{{{name}}}"));
        if is_open { Some((name.to_owned(), Kind::of(path, name)?)) } else { None }
    });
    names.flatten().collect()
}

/// Every place of every operation where the id of something of a tenant's can stand.
pub(crate) fn all() -> Vec<Slot> {
    let document = document();
    let mut slots = vec![];
    for (path, method, operation) in operations(&document) {
        let schema = body_schema(&document, &operation);
        let body = schema.as_ref().map_or(Value::Null, |schema| example(&document, schema));
        let parameters = || operation["parameters"].as_array().into_iter().flatten();
        let in_path = ids_in_path(&path, &operation);
        let mut add = |name: &str, place, kind| {
            let beside = in_path.iter().filter(|(other, _)| place != Place::Path || other != name).cloned().collect();
            let (method, path, name, body) = (method.clone(), path.clone(), name.to_owned(), body.clone());
            slots.push(Slot { method, path, name, place, kind, beside, body });
        };
        for parameter in parameters() {
            let name = parameter["name"].as_str().unwrap();
            match parameter["in"].as_str().unwrap() {
                "path" => Kind::of(&path, name).into_iter().for_each(|kind| add(name, Place::Path, kind)),
                "query" if names_something(name) => {
                    Kind::of(&path, name).into_iter().for_each(|kind| add(name, Place::Query, kind));
                }
                _ => {}
            }
        }
        let fields = schema.as_ref().and_then(|schema| schema["properties"].as_object().cloned()).unwrap_or_default();
        // What a thing that is being made is to be called names nothing yet; a login names its own caller.
        let makes = method == Method::POST && !path.contains('{') && !path.starts_with("/api/v1/auth/switch");
        for name in fields.keys().filter(|name| names_something(name) && !makes) {
            Kind::of(&path, name).into_iter().for_each(|kind| add(name, Place::Body, kind));
        }
    }
    slots
}

/// `organization_id`, `user_id`, and what filters are called.
fn names_something(name: &str) -> bool {
    name == "id" || name.ends_with("_id") || ["actor", "target", "username"].contains(&name)
}

/// Paths of lists in pages; of an organization where they are one's.
pub(crate) fn lists(org: &str) -> Vec<String> {
    let is_list = |operation: &Value| {
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["name"] == "cursor")
    };
    let operations = operations(&document()).into_iter();
    let lists = operations.filter(|(_, method, operation)| *method == Method::GET && is_list(operation));
    let lists: Vec<_> =
        lists.map(|(path, ..)| path.replace("/organizations/{id}/", &format!("/organizations/{org}/"))).collect();
    assert!(lists.iter().all(|path| !path.contains('{')), "of what is this a list? {lists:?}");
    lists
}

/// Everything that can be read without an id.
pub(crate) fn plain_reads() -> Vec<String> {
    plain(|method, _| *method == Method::GET)
}

fn plain(wanted: impl Fn(&Method, &Value) -> bool) -> Vec<String> {
    let operations = operations(&document()).into_iter();
    operations
        .filter(|(path, method, operation)| !path.contains('{') && wanted(method, operation))
        .map(|(path, ..)| path)
        .collect()
}

pub(crate) fn body_schema(document: &Value, operation: &Value) -> Option<Value> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let schema = schema["oneOf"].as_array().map_or(schema, |choices| &choices[0]);
    (!schema.is_null()).then(|| resolve(document, schema))
}

pub(crate) fn resolve(document: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => schema.clone(),
    }
}

/// What has to be there, and of a body in which nothing has to be, the first thing that may.
pub(crate) fn example(document: &Value, schema: &Value) -> Value {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut names: Vec<_> = properties.keys().map(String::as_str).filter(|name| required.contains(name)).collect();
    if names.is_empty() {
        names.extend(properties.keys().map(String::as_str).take(1));
    }
    let fields = names.into_iter().map(|name| (name.to_owned(), value(document, &properties[name])));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn value(document: &Value, schema: &Value) -> Value {
    let schema = resolve(document, schema);
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    if let Some(choice) = schema["enum"].as_array().and_then(|choices| choices.last()) {
        return choice.clone();
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let choice = choices.iter().rfind(|choice| choice["type"] != "null");
        return value(document, choice.unwrap());
    }
    let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
    match kind.as_str() {
        Some("boolean") => json!(true),
        Some("integer") => schema["minimum"].as_u64().map_or(json!(1), Value::from),
        Some("object") => json!({}),
        Some("array") => json!([]),
        _ => json!("Probe"),
    }
}

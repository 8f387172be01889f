//! Events as AWS puts them before a function: API Gateway's (REST, format 1.0) and those of a queue.

use http::Method;
use serde_json::{Value, json};

/// The stage that requests come through: a part of the address that no route knows.
pub const STAGE: &str = "prod";

/// A request through API Gateway, with a credential (none when empty) and a JSON body (none when null).
#[must_use]
pub fn request(method: &Method, path: &str, credential: &str, body: &Value) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut headers = vec![("host", "api.example.com".to_owned()), ("user-agent", "tenantry-tests".to_owned())];
    if !credential.is_empty() {
        headers.push(("authorization", format!("Bearer {credential}")));
    }
    if !body.is_null() {
        headers.push(("content-type", "application/json".to_owned()));
    }
    let query: Vec<_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    json!({
        "resource": path,
        "path": path,
        "httpMethod": method.as_str(),
        "headers": one_each(headers.iter().map(|(name, value)| (*name, value.as_str()))),
        "multiValueHeaders": lists(headers.iter().map(|(name, value)| (*name, value.as_str()))),
        "queryStringParameters": one_each(query.iter().copied()),
        "multiValueQueryStringParameters": lists(query.iter().copied()),
        "pathParameters": null,
        "stageVariables": null,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "tests",
            "domainName": "api.example.com",
            "httpMethod": method.as_str(),
            "identity": {"sourceIp": "203.0.113.7", "userAgent": "tenantry-tests"},
            "path": format!("/{STAGE}{path}"),
            "protocol": "HTTP/1.1",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "requestTimeEpoch": 1_795_176_000_000_i64,
            "resourcePath": path,
            "stage": STAGE,
        },
        "body": if body.is_null() { Value::Null } else { Value::String(body.to_string()) },
        "isBase64Encoded": false,
    })
}

/// A batch of a queue. Each message is an id and a body.
#[must_use]
pub fn batch(messages: &[(&str, &str)]) -> Value {
    let record = |(id, body): &(&str, &str)| {
        json!({
            "messageId": id,
            "receiptHandle": "handle",
            "body": body,
            "attributes": {"ApproximateReceiveCount": "1"},
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:queue",
            "awsRegion": "eu-central-1",
        })
    };
    json!({"Records": messages.iter().map(record).collect::<Vec<_>>()})
}

fn one_each<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

fn lists<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    pairs.map(|(name, value)| (name.to_owned(), json!([value]))).collect::<serde_json::Map<_, _>>().into()
}

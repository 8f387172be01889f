//! `infra/template.yaml` against the code, both ways: no route without its function, no variable that nobody reads, no
//! right that nobody uses.

mod code;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use self::code::{Abilities, Sources};

/// Read by `lambda_http`, not by code of ours.
const RUNTIME_VARIABLES: [&str; 1] = ["AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH"];
/// Variables that Lambda sets.
const LAMBDAS_OWN: [&str; 1] = ["AWS_LAMBDA_FUNCTION_NAME"];
/// Every function writes its log and its traces. X-Ray's actions know no resources.
const EVERYBODYS: [&str; 4] =
    ["logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTraceSegments", "xray:PutTelemetryRecords"];
/// What Lambda does in a function's name when a queue triggers it.
const CONSUMERS: [&str; 3] = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn template() -> Value {
    yaml::parse(&read("infra/template.yaml"))
}

fn api() -> Value {
    yaml::parse(&read("infra/api.yaml"))
}

/// The functions: folder name and properties in the template.
fn functions(template: &Value) -> BTreeMap<String, Value> {
    resources(template, "AWS::Serverless::Function")
        .into_values()
        .map(|properties| {
            let code = properties["CodeUri"].as_str().unwrap();
            let package = code.strip_prefix("../target/lambda/tenantry-").and_then(|code| code.strip_suffix('/'));
            (package.unwrap_or_else(|| panic!("CodeUri {code}")).to_owned(), properties)
        })
        .collect()
}

fn resources(template: &Value, kind: &str) -> BTreeMap<String, Value> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let of_kind = resources.filter(|(_, resource)| resource["Type"] == kind);
    of_kind.map(|(name, resource)| (name.clone(), resource["Properties"].clone())).collect()
}

fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn abilities(function: &str) -> Abilities {
    Sources::read(&root(), function).abilities(function)
}

/// The statements of the function's role.
fn statements(template: &Value, properties: &Value) -> Vec<Value> {
    let role = properties["Role"]["Fn::GetAtt"][0].as_str().unwrap();
    let role = &template["Resources"][role]["Properties"];
    assert!(role.get("ManagedPolicyArns").is_none(), "a managed policy says more than is to be seen here");
    let policies = role["Policies"].as_array().unwrap();
    policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_crate_is_a_function_and_every_function_a_crate() {
    let folders: BTreeSet<_> = fs::read_dir(root().join("functions"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let functions: BTreeSet<_> = functions(&template()).into_keys().collect();
    assert_eq!(folders, functions);
}

#[test]
fn every_route_has_exactly_one_function() {
    let document: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let (template, api) = (template(), api());
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, value)| value.is_object()) {
            let function = operation["x-function"].as_str().unwrap_or_else(|| panic!("{method} {path}: no x-function"));
            let logical = format!("{}Function", pascal(function));
            assert_eq!(template["Resources"][&logical]["Type"], "AWS::Serverless::Function", "{method} {path}");
            let uri = api["paths"][path][method]["x-amazon-apigateway-integration"]["uri"].to_string();
            assert!(uri.contains(&format!("${{{logical}Aliaslive}}")), "{method} {path} does not lead to {function}");
            assert_eq!(uri.matches("Aliaslive").count(), uri.matches(&format!("{logical}Aliaslive")).count());
            routes.insert((path.clone(), method.clone()));
        }
    }
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|method| *method != "options") {
            assert!(
                routes.contains(&(path.clone(), method.clone())),
                "{method} {path} is no route of the API document"
            );
        }
    }
}

#[test]
fn only_the_functions_that_stream_are_streamed() {
    let mut streaming = BTreeSet::new();
    for (function, properties) in functions(&template()) {
        let streams = read(&format!("functions/{function}/src/main.rs")).contains("serve_streaming");
        assert_eq!(streams, !properties["Environment"]["Variables"]["RESPONSE_MODE"].is_null(), "{function}");
        if streams {
            streaming.insert(function);
        }
    }
    assert_eq!(streaming, BTreeSet::from(["chat", "usage"].map(str::to_owned)));
    let document: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    for (path, item) in api()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "options") {
            let function = document["paths"][path][method]["x-function"].as_str().unwrap();
            let integration = &operation["x-amazon-apigateway-integration"];
            let modes = &integration["responseTransferMode"]["Fn::If"];
            if streaming.contains(function) {
                // The condition, and what holds when it does and when it does not.
                assert_eq!(modes, &json!(["Streams", "STREAM", "BUFFERED"]), "{method} {path}");
                let [condition, streamed, buffered] = integration["uri"]["Fn::If"].as_array().unwrap().as_slice()
                else {
                    panic!("{method} {path}: {}", integration["uri"]);
                };
                assert_eq!(condition, "Streams");
                assert!(streamed.to_string().contains("2021-11-15/functions/"), "{streamed}");
                assert!(streamed.to_string().contains("/response-streaming-invocations"), "{streamed}");
                assert!(buffered.to_string().contains("2015-03-31/functions/"), "{buffered}");
            } else {
                assert!(modes.is_null(), "{method} {path}");
                assert!(!integration["uri"].to_string().contains("streaming"), "{method} {path}");
            }
        }
    }
}

#[test]
fn pages_of_other_origins_ask_a_function_of_the_path() {
    let api = api();
    for (path, item) in api["paths"].as_object().unwrap() {
        let asked = &item["options"]["x-amazon-apigateway-integration"];
        assert!(!asked.is_null(), "{path}");
        let methods = item.as_object().unwrap().iter().filter(|(method, _)| *method != "options");
        let mut answering = methods.map(|(_, operation)| &operation["x-amazon-apigateway-integration"]);
        assert!(answering.any(|integration| integration == asked), "{path}");
    }
    // What never reaches a function has to be readable as well.
    for (kind, answer) in api["x-amazon-apigateway-gateway-responses"].as_object().unwrap() {
        let headers = &answer["responseParameters"];
        assert_eq!(headers["gatewayresponse.header.Access-Control-Allow-Origin"], "'*'", "{kind}");
    }
}

#[test]
fn variables_are_set_if_and_only_if_they_are_read() {
    let template = template();
    let mut secret_and_read: BTreeSet<(String, String)> = BTreeSet::new();
    for (function, properties) in functions(&template) {
        let can = abilities(&function);
        let read: BTreeSet<_> =
            can.variables.iter().filter(|name| !LAMBDAS_OWN.contains(&name.as_str())).cloned().collect();
        let set = properties["Environment"]["Variables"].as_object().unwrap();
        let set: BTreeSet<String> =
            set.keys().filter(|name| !RUNTIME_VARIABLES.contains(&name.as_str())).cloned().collect();
        let in_secrets: BTreeSet<_> = secrets_of(&properties)
            .into_iter()
            .flat_map(|secret| {
                let variables = texts(&template["Resources"][&secret]["Metadata"]["Variables"]);
                variables.into_iter().map(move |variable| (secret.clone(), variable))
            })
            .collect();
        let names: BTreeSet<_> = in_secrets.iter().map(|(_, variable)| variable.clone()).collect();
        let missing: Vec<_> = read.difference(&set).filter(|name| !names.contains(*name)).collect();
        assert!(missing.is_empty(), "{function} reads what nobody sets:{}", can.explain(missing));
        assert_eq!(set.difference(&read).collect::<Vec<_>>(), Vec::<&String>::new(), "{function} does not read these");
        secret_and_read.extend(in_secrets.into_iter().filter(|(_, variable)| read.contains(variable)));
    }
    // A secret is shared by functions that do not all read all of it; somebody has to read each variable.
    for secret in resources(&template, "AWS::SecretsManager::Secret").into_keys() {
        for variable in texts(&template["Resources"][&secret]["Metadata"]["Variables"]) {
            assert!(
                secret_and_read.contains(&(secret.clone(), variable.clone())),
                "nobody reads {variable} of {secret}"
            );
        }
    }
}

/// The logical ids in `SECRET_IDS: !Sub "${A.Id},${B.Id}"`.
fn secrets_of(properties: &Value) -> Vec<String> {
    let ids = properties["Environment"]["Variables"]["SECRET_IDS"].to_string();
    ids.split("${").skip(1).filter_map(|rest| rest.split_once(".Id}")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn a_secret_reaches_only_who_reads_it() {
    let template = template();
    for (function, properties) in functions(&template) {
        let named = secrets_of(&properties);
        let allowed: BTreeSet<_> = statements(&template, &properties)
            .iter()
            .filter(|statement| texts(&statement["Action"]).contains("secretsmanager:GetSecretValue"))
            .flat_map(|statement| statement["Resource"].as_array().unwrap().clone())
            .map(|resource| resource["Fn::GetAtt"][0].as_str().unwrap().to_owned())
            .collect();
        for secret in resources(&template, "AWS::SecretsManager::Secret").into_keys() {
            assert_eq!(named.contains(&secret), allowed.contains(&secret), "{function}, {secret}");
        }
    }
}

#[test]
fn a_role_may_do_what_its_function_does_and_nothing_else() {
    let template = template();
    for (function, properties) in functions(&template) {
        let can = abilities(&function);
        let mut needed: BTreeSet<_> = can.actions.iter().cloned().chain(EVERYBODYS.map(str::to_owned)).collect();
        let events = properties["Events"].as_object().into_iter().flatten();
        if events.into_iter().any(|(_, event)| event["Type"] == "SQS") {
            needed.extend(CONSUMERS.map(str::to_owned));
        }
        let statements = statements(&template, &properties);
        let granted: BTreeSet<_> = statements.iter().flat_map(|statement| texts(&statement["Action"])).collect();
        let unused: Vec<_> = granted.difference(&needed).collect();
        assert_eq!(unused, Vec::<&String>::new(), "{function} may do what it does not");
        let missing: Vec<_> = needed.difference(&granted).collect();
        assert!(missing.is_empty(), "{function} does what it may not:{}", can.explain(missing));
        assert!(!granted.contains("dynamodb:Scan"), "{function} reads whole tables");

        let partitions: BTreeSet<_> = statements
            .iter()
            .flat_map(|statement| texts(&statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]))
            .map(|pattern| pattern.trim_end_matches('*').to_owned())
            .collect();
        assert_eq!(partitions, can.partitions, "{function}: partitions granted (left), used (right)");
    }
}

#[test]
fn statements_are_narrow() {
    let template = template();
    for (function, properties) in functions(&template) {
        for statement in statements(&template, &properties) {
            let sid = statement["Sid"].as_str().unwrap();
            let actions = texts(&statement["Action"]);
            assert_eq!(statement["Effect"], "Allow");
            assert!(actions.iter().all(|action| !action.contains('*')), "{function}, {sid}: {actions:?}");
            let resource = statement["Resource"].to_string();
            if actions.iter().any(|action| action.starts_with("xray:")) {
                assert!(actions.iter().all(|action| action.starts_with("xray:")), "{function}, {sid}: {actions:?}");
            } else {
                assert!(!resource.contains('*'), "{function}, {sid}: {resource}");
            }
            if actions.iter().any(|action| action.starts_with("dynamodb:")) {
                assert_eq!(statement["Resource"], json!({"Fn::GetAtt": ["Table", "Arn"]}), "{function}, {sid}");
                let keys = &statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
                assert!(keys.is_array(), "{function}, {sid} holds for every partition");
            }
        }
    }
}

#[test]
fn queues_wait_long_enough_and_give_up() {
    let template = template();
    for (function, properties) in functions(&template) {
        let events = properties["Events"].as_object().into_iter().flatten();
        for (name, event) in events.filter(|(_, event)| event["Type"] == "SQS") {
            let event = &event["Properties"];
            let queue = &template["Resources"][event["Queue"]["Fn::GetAtt"][0].as_str().unwrap()]["Properties"];
            let window = event["MaximumBatchingWindowInSeconds"].as_u64().unwrap_or(0);
            let visible_after = queue["VisibilityTimeout"].as_u64().unwrap();
            assert!(visible_after >= 6 * properties["Timeout"].as_u64().unwrap() + window, "{function}, {name}");
            assert!(
                event["BatchSize"].as_u64().unwrap() <= 10 || window > 0,
                "{function}, {name}: batches need a window"
            );
            assert_eq!(event["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]), "{function}, {name}");
            assert!(event["ScalingConfig"]["MaximumConcurrency"].as_u64().unwrap() >= 2, "{function}, {name}");
            assert_eq!(queue["RedrivePolicy"]["maxReceiveCount"], 5, "{function}, {name}");
        }
        let events = properties["Events"].as_object().into_iter().flatten();
        for (name, event) in events.filter(|(_, event)| event["Type"] == "ScheduleV2") {
            assert!(!event["Properties"]["DeadLetterConfig"].is_null(), "{function}, {name}");
            assert_eq!(event["Properties"]["OmitName"], true, "{function}, {name}: another stack may have the name");
            assert!(
                event["Properties"]["RetryPolicy"]["MaximumRetryAttempts"].as_u64().unwrap() <= 5,
                "{function}, {name}"
            );
        }
    }
}

#[test]
fn every_function_is_versioned_logged_traced_and_watched() {
    let template = template();
    for (function, properties) in functions(&template) {
        let errors = properties["DeploymentPreference"]["Alarms"][0]["Ref"].as_str().unwrap();
        assert_eq!(template["Resources"][errors]["Type"], "AWS::CloudWatch::Alarm", "{function}");
        let log = properties["LoggingConfig"]["LogGroup"]["Ref"].as_str().unwrap();
        assert!(!template["Resources"][log]["Properties"]["RetentionInDays"].is_null(), "{function}");
        assert_eq!(
            properties["AutoPublishAliasAllProperties"], true,
            "{function}: a changed variable is a new version"
        );
    }
    let globals = &template["Globals"]["Function"];
    assert_eq!(globals["AutoPublishAlias"], "live");
    assert_eq!(globals["Tracing"], "Active");
}

#[test]
fn metrics_on_the_dashboard_are_sent_and_metrics_sent_are_on_it() {
    let template = template();
    let sent: BTreeSet<_> = functions(&template).keys().flat_map(|function| abilities(function).metrics).collect();
    let dashboard = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"].as_str().unwrap();
    let shown: BTreeSet<_> =
        dashboard.split("\"Tenantry\", \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    for metric in dashboard.split("[\"Tenantry\", ").skip(1) {
        // Who sends it is a dimension: without it there would be nothing to see.
        let metric = metric.split(']').next().unwrap();
        let (name, sender) = metric.split_once("\", \"FunctionName\", \"${").expect(metric);
        let function = sender.trim_end_matches("}\"").trim_end_matches("Function");
        let senders: Vec<_> = functions(&template).into_keys().filter(|sends| pascal(sends) == function).collect();
        assert!(abilities(&senders[0]).metrics.contains(name.trim_matches('"')), "{function} does not send {name}");
    }
    assert_eq!(shown, sent, "on the dashboard (left), sent (right)");
    for (name, alarm) in resources(&template, "AWS::CloudWatch::Alarm") {
        if alarm["Namespace"] == "Tenantry" {
            assert!(sent.contains(alarm["MetricName"].as_str().unwrap()), "{name} watches what nobody sends");
            assert_eq!(alarm["Dimensions"][0]["Name"], "FunctionName", "{name}");
        }
    }
    // With the placeholders filled in it has to be JSON, or CloudWatch refuses it.
    serde_json::from_str::<Value>(dashboard).unwrap();
}

#[test]
fn a_request_is_over_before_its_idempotency_key_is_taken_over() {
    let mut idempotent = 0;
    for (function, properties) in functions(&template()) {
        if read(&format!("functions/{function}/src/lib.rs")).contains("idempotent(") {
            let timeout = properties["Timeout"].as_i64().unwrap() * 1000;
            assert!(timeout < tenantry_web::idempotency::LEASE, "{function}");
            idempotent += 1;
        }
    }
    assert!(idempotent > 0);
}

#[test]
fn what_carries_data_outlives_the_stack() {
    let template = template();
    for kind in ["AWS::DynamoDB::Table", "AWS::SecretsManager::Secret"] {
        for name in resources(&template, kind).into_keys() {
            assert_eq!(template["Resources"][&name]["DeletionPolicy"], "Retain", "{name}");
            assert_eq!(template["Resources"][&name]["UpdateReplacePolicy"], "Retain", "{name}");
        }
    }
}

#[test]
fn two_stacks_fit_into_one_account() {
    let template = template();
    let names = ["TableName", "QueueName", "FunctionName", "RoleName", "LogGroupName", "AlarmName", "DashboardName"];
    for (logical, resource) in template["Resources"].as_object().unwrap() {
        // A permission says whose it is with the same word.
        let named = names
            .iter()
            .find(|name| resource["Type"] != "AWS::Lambda::Permission" && !resource["Properties"][**name].is_null());
        assert_eq!(named, None, "{logical} has a name of its own");
    }
}

/// `quota-reset` → `QuotaReset`.
fn pascal(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

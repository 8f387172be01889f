//! What a plan includes, through the routes: who may do what on which plan, from when on, and what a refusal offers.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Router, routing::get};
use serde_json::{Value, json};
use tenantry_domain::{
    Feature,
    budget::{BudgetId, Owner},
    catalogue::{Catalogue, DEFAULT_CATALOGUE},
    plans::{DEFAULT_PLANS, Plans},
    roles::Permission,
};
use tenantry_host::dynamodb::Capacity;
use tenantry_tests::{
    http::{problem, text},
    platform::{Platform, Reply, Setup, Tenant, chat_body, request},
    process::Folder,
    upstream::Upstream,
};
use tenantry_web::{
    Authenticator, Gate, Included,
    auth::TokenVerifier,
    router::{ErrorShape, around},
};
use tower::ServiceExt as _;

const CHAT: &str = "/api/v1/chat/completions";
const FEATURES: &str = "/api/v1/features";
/// Asks for `advanced_models`.
const ADVANCED: &str = "gpt-4.1";
/// Asks for nothing.
const BASIC: &str = "gpt-4.1-mini";

/// The default plans, and one more that the operator gives by hand, with a feature of its own.
fn plans_with_a_gift() -> String {
    let limits = DEFAULT_PLANS.split("[plan.limits]").nth(1).unwrap().split("[[plan]]").next().unwrap();
    let gift = format!(
        "[[plan]]\nid = \"gift\"\nname = \"Gift\"\nfeatures = [\"beta\", \"voice\"]\n[plan.limits]{limits}[[package]]"
    );
    let plans = DEFAULT_PLANS.replacen("version = 1", "version = 1\nown_features = [\"beta\"]", 1);
    plans.replacen("[[package]]", &gift, 1)
}

/// A model of each kind for each feature.
fn catalogue_of_features<'a>(features: impl Iterator<Item = &'a str>) -> String {
    let vendor = DEFAULT_CATALOGUE.split("[[vendor]]").nth(1).unwrap();
    let model = |feature, kind: &str| {
        format!(
            "[[model]]\nid = \"{kind}/{feature}\"\nvendor = \"openai\"\nkind = \"{kind}\"\nfeature = \"{feature}\"\n\
             context_tokens = 8_000\nmax_output_tokens = 1_000\ncost = {{ input = 1 }}\n"
        )
    };
    let models = features.flat_map(|feature| [model(feature, "chat"), model(feature, "embedding")]);
    format!("[[vendor]]{vendor}{}", models.collect::<String>())
}

fn question(model: &str, stream: bool) -> Value {
    let mut body = chat_body("hello", stream);
    body["model"] = json!(model);
    body
}

async fn ask(platform: &Platform, tenant: &Tenant, model: &str) -> Reply {
    platform.post(CHAT, &tenant.api_key, question(model, false)).await
}

async fn put_on(platform: &Platform, tenant: &Tenant, plan: &str, version: u64) {
    platform.store().put_on_plan(&tenant.scope, plan, version, None).await.unwrap();
}

/// Checks an `upgrade_required` of the model endpoints.
fn refused(reply: &Reply, feature: &str, current: &str, offer: Option<&str>) {
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (403, "upgrade_required"), "{}", reply.text());
    let error = &reply.json()["error"];
    assert_eq!(error["type"], "permission_error");
    offers(error, Some(feature), current, offer);
    assert!(text(error, "/message").contains(&format!("`{feature}`")), "{error}");
}

/// Checks what a refusal says of plans.
fn offers(error: &Value, feature: Option<&str>, current: &str, offer: Option<&str>) {
    assert_eq!(error["feature"].as_str(), feature, "{error}");
    assert_eq!(error["current_plan"], current, "{error}");
    assert_eq!(error["plan"]["id"].as_str(), offer, "{error}");
    assert_eq!(error["plan"].is_null(), offer.is_none(), "{error}");
    let said = error["message"].as_str().or_else(|| error["detail"].as_str()).unwrap();
    if let Some(offer) = Plans::parse(&plans_with_a_gift()).unwrap().find(offer.unwrap_or_default()) {
        assert_eq!(error["plan"]["name"], offer.name);
        assert_eq!(error["plan"]["price"], json!(offer.price));
        assert!(said.contains(&offer.name), "{said}");
    } else {
        assert!(said.contains("No plan on offer"), "{said}");
    }
}

/// Nothing was held, booked or sent.
async fn nothing_happened(platform: &Platform, tenant: &Tenant, upstream: &Upstream) {
    platform.quiesce().await;
    assert_eq!(platform.books(tenant).await.len(), 0);
    let meter = platform.meter(tenant).await;
    assert_eq!((meter.left, meter.holds.len()), (meter.given, 0));
    assert_eq!(upstream.counts().requests, 0);
}

/// A plan's id, whether it can be had, and what it includes.
type Written = (String, bool, Vec<String>);

/// What the file itself says, without our reading of it: the features and the plans.
fn as_written(plans: &str) -> (Vec<String>, Vec<Written>) {
    let file: toml::Table = plans.parse().unwrap();
    let words = |value: Option<&toml::Value>| -> Vec<String> {
        let words = value.and_then(toml::Value::as_array).into_iter().flatten();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let known = "basic_chat community_browse character_share advanced_models image voice analytics branding";
    let mut all: Vec<String> = known.split(' ').map(Into::into).collect();
    all.extend(words(file.get("own_features")));
    let plans = file["plan"].as_array().unwrap().iter().enumerate().map(|(place, plan)| {
        let features = words(plan.get("features"));
        let features = if features.contains(&"all".to_owned()) { all.clone() } else { features };
        (plan["id"].as_str().unwrap().to_owned(), place == 0 || plan.get("price").is_some(), features)
    });
    let plans = plans.collect();
    (all, plans)
}

#[tokio::test]
async fn on_every_plan_every_feature_is_as_the_file_says_and_the_cheapest_plan_is_offered() {
    for file in [DEFAULT_PLANS.to_owned(), plans_with_a_gift()] {
        let (features, plans) = as_written(&file);
        let upstream = Upstream::start().await;
        let catalogue = catalogue_of_features(features.iter().map(String::as_str));
        let setup = Setup::default().plans(&file).variable("CATALOGUE_TOML", &catalogue).upstream(&upstream);
        let platform = Platform::start(setup).await;
        let cheapest = |feature: &String| {
            plans.iter().find(|(_, on_offer, has)| *on_offer && has.contains(feature)).map(|(id, ..)| id.as_str())
        };
        for (plan, _, has) in &plans {
            let mut included = BTreeSet::new();
            let shown = platform.get(FEATURES, &platform.api_key(plan).await).await.expect(200).json();
            assert_eq!(shown["plan"], **plan);
            let expected: Vec<_> = features
                .iter()
                .map(|id| json!({"id": id, "enabled": has.contains(id), "cheapest_plan": cheapest(id)}))
                .collect();
            assert_eq!(shown["features"], json!(expected), "{plan}");
            for feature in &features {
                // Of its own, so that no rate is reached.
                let tenant = platform.tenant(plan).await;
                let asked = upstream.counts().requests;
                let model = |kind: &str| format!("{kind}/{feature}");
                let embeddings = json!({"model": model("embedding"), "input": "hello"});
                let replies = [
                    platform.post(CHAT, &tenant.api_key, question(&model("chat"), false)).await,
                    platform.post(CHAT, &tenant.api_key, question(&model("chat"), true)).await,
                    platform.post("/api/v1/embeddings", &tenant.api_key, embeddings).await,
                    platform.get(&format!("/api/v1/models/chat%2F{feature}"), &tenant.api_key).await,
                ];
                let enabled = has.contains(feature);
                for reply in &replies {
                    if enabled {
                        assert_eq!(reply.status, 200, "{feature} on {plan}: {}", reply.text());
                    } else {
                        refused(reply, feature, plan, cheapest(feature));
                    }
                }
                assert_eq!(upstream.counts().requests - asked, if enabled { 3 } else { 0 }, "{feature} on {plan}");
                platform.quiesce().await;
                assert_eq!(platform.books(&tenant).await.len(), if enabled { 3 } else { 0 });
                if enabled {
                    included.extend([model("chat"), model("embedding")]);
                }
            }
            let listed = platform.get("/api/v1/models", &platform.api_key(plan).await).await.expect(200).json();
            let listed = listed["data"].as_array().unwrap().iter().map(|model| text(model, "/id").to_owned());
            assert_eq!(listed.collect::<BTreeSet<_>>(), included, "{plan}");
        }
    }
}

#[tokio::test]
async fn the_default_catalogue_has_something_for_everybody() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let catalogue = Catalogue::parse(DEFAULT_CATALOGUE).unwrap();
    let models = || catalogue.models().filter(|model| model.vendor != "sandbox");
    for (plan, advanced) in [("free", false), ("pro", true), ("team", true)] {
        let tenant = platform.tenant(plan).await;
        let listed = platform.get("/api/v1/models", &tenant.api_key).await.expect(200).json();
        let listed: BTreeSet<_> = listed["data"].as_array().unwrap().iter().map(|model| text(model, "/id")).collect();
        let expected = models().filter(|model| advanced || model.feature.is_none()).map(|model| model.id.as_str());
        assert_eq!(listed, expected.collect(), "{plan}");
        assert_eq!(listed.contains(ADVANCED), advanced);
    }
    // Test mode is the same on every plan.
    let tenant = platform.tenant("free").await;
    let owner = platform.login(&tenant).await;
    let body = json!({"name": "test", "mode": "test"});
    let key = platform.post("/api/v1/api-keys", text(&owner, "/access_token"), body).await.expect(201).json();
    let key = text(&key, "/secret");
    let listed = platform.get("/api/v1/models", key).await.expect(200).json();
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["id"]), (1, &json!("sandbox/echo")));
    platform.post(CHAT, key, question("sandbox/echo", false)).await.expect(200);
}

#[tokio::test]
async fn a_refusal_takes_nothing_and_reaches_nobody() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let body = json!({"name": "k", "budget": {"messages": 5, "llm_tokens": 1_000}});
    let limited = platform.post("/api/v1/api-keys", &token, body).await.expect(201).json();
    // More than the ten that the plan allows in a minute: what is not included does not count.
    for stream in [false, true] {
        for credential in [&*tenant.api_key, &token, text(&limited, "/secret")] {
            for _ in 0..5 {
                let reply = platform.post(CHAT, credential, question(ADVANCED, stream)).await;
                refused(&reply, "advanced_models", "free", Some("pro"));
            }
        }
    }
    nothing_happened(&platform, &tenant, &upstream).await;
    let owner = Owner::ApiKey(text(&limited, "/id").parse().unwrap());
    let id = BudgetId { owner, model: None };
    let spent = platform.store().spent(&tenant.scope, &id, platform.meter(&tenant).await.period).await.unwrap();
    assert_eq!(spent.amounts, tenantry_domain::Amounts::NONE);
    // The key's own limits hold for what is included.
    platform.post(CHAT, text(&limited, "/secret"), question(BASIC, false)).await.expect(200);
    put_on(&platform, &tenant, "pro", 1).await;
    platform.post(CHAT, text(&limited, "/secret"), question(ADVANCED, false)).await.expect(200);
    platform.quiesce().await;
    assert_eq!(platform.books(&tenant).await.len(), 2);
}

#[tokio::test]
async fn a_change_of_plan_counts_with_the_next_call_both_ways() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let (mut version, mut expected) = (0, 0);
    for _ in 0..3 {
        refused(&ask(&platform, &tenant, ADVANCED).await, "advanced_models", "free", Some("pro"));
        version += 1;
        // What this process last saw of the meter is the old plan.
        put_on(&platform, &tenant, if version % 4 == 1 { "pro" } else { "team" }, version).await;
        ask(&platform, &tenant, ADVANCED).await.expect(200);
        let shown = platform.get(FEATURES, &tenant.api_key).await.expect(200).json();
        assert_eq!(shown["features"][3], json!({"id": "advanced_models", "enabled": true, "cheapest_plan": "pro"}));
        version += 1;
        put_on(&platform, &tenant, "free", version).await;
        expected += 1;
    }
    refused(&ask(&platform, &tenant, ADVANCED).await, "advanced_models", "free", Some("pro"));
    platform.quiesce().await;
    assert_eq!(platform.books(&tenant).await.len(), expected);
}

#[tokio::test]
async fn who_has_no_plan_any_more_has_what_the_first_includes() {
    let (upstream, folder) = (Upstream::start().await, Folder::new());
    let setup = |plans: &str| Setup::default().plans(plans).upstream(&upstream).data_dir(folder.path());
    let tenant = Platform::start(setup(&plans_with_a_gift())).await.tenant("gift").await;
    let generous = DEFAULT_PLANS.replacen("\"basic_chat\", ", "\"basic_chat\", \"advanced_models\", ", 1);
    for (plans, allowed) in [(DEFAULT_PLANS, false), (&generous, true), (DEFAULT_PLANS, false)] {
        let platform = Platform::start(setup(plans)).await;
        assert_eq!(platform.meter(&tenant).await.plan, "gift");
        let reply = ask(&platform, &tenant, ADVANCED).await;
        if allowed {
            reply.expect(200);
        } else {
            refused(&reply, "advanced_models", "free", Some("pro"));
        }
        assert_eq!(platform.get(FEATURES, &tenant.api_key).await.expect(200).json()["plan"], "free");
        platform.quiesce().await;
    }
}

#[tokio::test]
async fn what_no_plan_includes_is_refused_on_all_and_what_all_include_on_none() {
    let none = DEFAULT_PLANS.replacen("\"advanced_models\", ", "", 1).replacen("[\"all\"]", "[\"voice\"]", 1);
    let all = DEFAULT_PLANS.replacen("[\"basic_chat\", \"community_browse\"]", "[\"all\"]", 1);
    for (plans, allowed) in [(none, false), (all, true)] {
        for plan in ["free", "pro", "team"] {
            let upstream = Upstream::start().await;
            let platform = Platform::start(Setup::default().plans(&plans).upstream(&upstream)).await;
            let tenant = platform.tenant(plan).await;
            let reply = ask(&platform, &tenant, ADVANCED).await;
            if allowed {
                reply.expect(200);
            } else {
                refused(&reply, "advanced_models", plan, None);
                nothing_happened(&platform, &tenant, &upstream).await;
            }
            ask(&platform, &tenant, BASIC).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_feature_that_there_is_not_is_no_configuration() {
    let catalogue = DEFAULT_CATALOGUE.replacen("\"advanced_models\"", "\"advanced_model\"", 1);
    let error = tenantry_chat::Models::from_env(
        &[("CATALOGUE_TOML".to_owned(), catalogue.clone())].into_iter().collect(),
        &Plans::parse(DEFAULT_PLANS).unwrap(),
    );
    let error = error.err().unwrap().to_string();
    assert!(error.contains("CATALOGUE_TOML") && error.contains("`advanced_model`"), "{error}");
    // The word becomes one by being declared.
    let plans = DEFAULT_PLANS.replacen("version = 1", "version = 1\nown_features = [\"advanced_model\"]", 1);
    let env = [("CATALOGUE_TOML".to_owned(), catalogue)].into_iter().collect();
    assert!(tenantry_chat::Models::from_env(&env, &Plans::parse(&plans).unwrap()).is_ok());
}

#[tokio::test]
async fn a_gate_costs_a_call_nothing() {
    let (upstream, capacity) = (Upstream::start().await, Arc::new(Capacity::default()));
    let platform = Platform::start(Setup::default().upstream(&upstream).capacity(&capacity)).await;
    let cost = async |tenant: &Tenant, model: &str, status: u16| {
        let (writes, reads) = (capacity.write_units(), capacity.read_units());
        ask(&platform, tenant, model).await.expect(status);
        (capacity.write_units() - writes, capacity.read_units() - reads)
    };
    let (pro, free) = (platform.tenant("pro").await, platform.tenant("free").await);
    for tenant in [&pro, &free] {
        for _ in 0..2 {
            ask(&platform, tenant, BASIC).await.expect(200);
        }
        platform.quiesce().await;
    }
    let basic = cost(&pro, BASIC, 200).await;
    assert_eq!(cost(&pro, ADVANCED, 200).await, basic);
    // A write that its condition refuses is paid for like one.
    assert_eq!(cost(&free, ADVANCED, 403).await, (1.0, 0.0));
}

#[tokio::test]
async fn who_may_not_call_is_told_nothing_of_plans() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let key = async |scope: &str| {
        let body = json!({"name": scope, "scopes": [scope]});
        let key = platform.post("/api/v1/api-keys", &token, body).await.expect(201).json();
        let (id, secret) = (text(&key, "/id").to_owned(), text(&key, "/secret").to_owned());
        (id, secret)
    };
    // The plan has room for one key beside the one that is there.
    for (scope, models, features) in [("models", true, false), ("usage", false, true), ("login", false, false)] {
        let (id, secret) = key(scope).await;
        for reply in [
            ask(&platform, &Tenant { api_key: secret.clone(), ..tenant.clone() }, ADVANCED).await,
            platform.get(&format!("/api/v1/models/{ADVANCED}"), &secret).await,
        ] {
            let code = if models { "upgrade_required" } else { "forbidden" };
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (403, code), "{scope}");
        }
        let listed = platform.get("/api/v1/models", &secret).await;
        assert_eq!(listed.status == 200, models, "{scope}");
        let shown = platform.get(FEATURES, &secret).await;
        if features {
            shown.expect(200);
        } else {
            assert!(problem(&shown, 403, "forbidden").get("plan").is_none());
        }
        platform.delete(&format!("/api/v1/api-keys/{id}"), &token).await.expect(204);
    }
    problem(&platform.get(FEATURES, "").await, 401, "unauthenticated");
}

enum Voice {}

impl Gate for Voice {
    const PERMISSION: Permission = Permission::CallModels;
    const FEATURE: Option<Feature> = Some(Feature::VOICE);
}

#[tokio::test]
async fn a_route_that_is_part_of_a_plan_says_so_in_its_type() {
    let platform = Platform::start(Setup::default()).await;
    let jwks = platform.get("/.well-known/jwks.json", "").await.expect(200).text();
    let tokens = Arc::new(TokenVerifier::from_jwks(&jwks, "nobody").unwrap());
    let authenticator = Authenticator { store: platform.store().clone(), tokens };
    let org = async |included: Included<Voice>| included.scope().org().to_string();
    let routes = Router::new().route("/", get(org)).with_state(authenticator);
    let routes = around(routes, ErrorShape::Problem, 0);
    let call = async |credential: &str| {
        let response = routes.clone().oneshot(request(http::Method::GET, "/", credential, &Value::Null)).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().to_vec();
        Reply { status: head.status, headers: head.headers, bytes }
    };
    let tenant = platform.tenant("free").await;
    let error = problem(&call(&tenant.api_key).await, 403, "upgrade_required");
    offers(&error, Some("voice"), "free", Some("pro"));
    for (version, plan) in ["pro", "team"].into_iter().enumerate() {
        put_on(&platform, &tenant, plan, version as u64 + 1).await;
        assert_eq!(call(&tenant.api_key).await.expect(200).text(), tenant.org.as_str());
    }
    put_on(&platform, &tenant, "free", 9).await;
    problem(&call(&tenant.api_key).await, 403, "upgrade_required");
    problem(&call("").await, 401, "unauthenticated");
}

#[tokio::test]
async fn keys_and_members_end_where_the_plan_does_and_the_next_one_is_offered() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("free").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let key = async || platform.post("/api/v1/api-keys", &token, json!({"name": "k"})).await;
    let members = format!("/api/v1/organizations/{}/members", tenant.org);
    let invite = async || platform.post(&members, &token, json!({"email": "x@example.com", "role": "member"})).await;
    key().await.expect(201);
    for (version, plan, next) in [(1, "free", "pro"), (3, "free", "pro")] {
        put_on(&platform, &tenant, plan, version).await;
        offers(&problem(&key().await, 403, "upgrade_required"), None, plan, Some(next));
        offers(&problem(&invite().await, 403, "upgrade_required"), None, plan, Some(next));
        put_on(&platform, &tenant, "pro", version + 1).await;
        key().await.expect(201);
        invite().await.expect(201);
    }
    put_on(&platform, &tenant, "pro", 8).await;
    for _ in 4..20 {
        key().await.expect(201);
    }
    offers(&problem(&key().await, 403, "upgrade_required"), None, "pro", Some("team"));
    put_on(&platform, &tenant, "team", 9).await;
    key().await.expect(201);
}

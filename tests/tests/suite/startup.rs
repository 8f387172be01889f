//! How a function starts: at its first request, with the secrets it finds then.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, response::Response, routing::get};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tenantry_web::{
    config::{ConfigError, Env},
    router::ErrorShape,
    secrets::overlay,
    serve::Lazy,
};
use tower::ServiceExt as _;

/// A Secrets Manager on a local port.
#[derive(Clone, Default)]
struct Secrets {
    values: Arc<Mutex<BTreeMap<String, String>>>,
    fetches: Arc<AtomicUsize>,
}

impl Secrets {
    fn set(&self, id: &str, value: &Value) {
        self.values.lock().unwrap().insert(id.into(), value.as_str().map_or_else(|| value.to_string(), Into::into));
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn answer(&self, headers: &http::HeaderMap, body: &str) -> (StatusCode, String) {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        assert_eq!(headers["x-amz-target"], "secretsmanager.GetSecretValue");
        assert!(headers["authorization"].to_str().unwrap().contains("Credential=id/"));
        assert!(headers["authorization"].to_str().unwrap().contains("/eu-west-1/secretsmanager/"));
        assert_eq!(headers["x-amz-security-token"], "token");
        let id = serde_json::from_str::<Value>(body).unwrap()["SecretId"].as_str().unwrap().to_owned();
        match self.values.lock().unwrap().get(&id) {
            Some(value) => (StatusCode::OK, json!({"Name": id, "SecretString": value}).to_string()),
            None => {
                (StatusCode::BAD_REQUEST, json!({"__type": "ResourceNotFoundException", "message": "no"}).to_string())
            }
        }
    }

    /// An environment whose AWS is this one.
    async fn env(&self, variables: &[(&str, &str)]) -> Env {
        let secrets = self.clone();
        let app =
            Router::new().fallback(async move |headers: http::HeaderMap, body: String| secrets.answer(&headers, &body));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let aws = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_ENDPOINT_URL", &url),
        ];
        aws.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

async fn call(router: &Lazy) -> (Response<()>, String) {
    let request = Request::get("/").header("x-request-id", "the-request").body(Body::empty()).unwrap();
    let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(bytes.to_vec()).unwrap())
}

/// A router that says what it was built with.
fn lazy(env: Env, shape: ErrorShape, built: &Arc<AtomicUsize>) -> Lazy {
    let built = built.clone();
    Lazy::new(env, shape, move |env| {
        let built = built.clone();
        async move {
            built.fetch_add(1, Ordering::SeqCst);
            let said = env.required("WORD")?.to_owned();
            if said == "bad" {
                return Err(ConfigError::new("WORD", "is bad"));
            }
            Ok(Router::new().route("/", get(async move || said.clone())))
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_built_at_its_first_request_and_only_then() {
    let secrets = Secrets::default();
    secrets.set("platform", &json!({"WORD": "hello"}));
    let built = Arc::new(AtomicUsize::new(0));
    let router = lazy(secrets.env(&[("SECRET_IDS", "platform")]).await, ErrorShape::Problem, &built);
    assert_eq!((secrets.fetches(), built.load(Ordering::SeqCst)), (0, 0));
    // Many at once, as a function that serves several requests at a time would have it.
    let calls = (0..10).map(|_| {
        let router = router.clone();
        tokio::spawn(async move { call(&router).await })
    });
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().1, "hello");
    }
    assert_eq!((secrets.fetches(), built.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_fetch_that_fails_answers_503_and_is_tried_again() {
    let secrets = Secrets::default();
    let built = Arc::new(AtomicUsize::new(0));
    let env = secrets.env(&[("SECRET_IDS", "platform,vendors")]).await;
    secrets.set("vendors", &json!({"OPENAI_API_KEY": "sk-very-secret"}));
    for (shape, content_type, code) in [
        (ErrorShape::Problem, "application/problem+json", "/code"),
        (ErrorShape::OpenAi, "application/json", "/error/code"),
    ] {
        let router = lazy(env.clone(), shape, &built);
        let (head, body) = call(&router).await;
        assert_eq!(head.status(), 503, "{body}");
        assert_eq!(head.headers()["retry-after"], "2");
        assert_eq!(head.headers()["content-type"], content_type);
        assert_eq!(head.headers()["x-request-id"], "the-request");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body.pointer(code).unwrap(), "unavailable", "{body}");
        assert!(!body.to_string().contains("platform"), "which secret is for the log: {body}");
    }
    assert_eq!(built.load(Ordering::SeqCst), 0);

    let router = lazy(env, ErrorShape::Problem, &built);
    assert_eq!(call(&router).await.0.status(), 503);
    // A secret that cannot be understood, then one whose value is wrong, then a good one.
    secrets.set("platform", &json!("not JSON"));
    assert_eq!(call(&router).await.0.status(), 503);
    secrets.set("platform", &json!({"WORD": "bad"}));
    let (head, body) = call(&router).await;
    assert_eq!(head.status(), 500, "{body}");
    assert!(!body.contains("WORD"), "{body}");
    secrets.set("platform", &json!({"WORD": "good"}));
    assert_eq!(call(&router).await.1, "good");
    let fetches = secrets.fetches();
    secrets.set("platform", &json!({"WORD": "rotated"}));
    assert_eq!(call(&router).await.1, "good", "kept for the life of the process");
    assert_eq!(secrets.fetches(), fetches);
}

#[tokio::test]
async fn secrets_are_laid_over_the_environment() {
    let secrets = Secrets::default();
    secrets.set("arn:aws:secretsmanager:eu-west-1:1:secret:a-AbCdEf", &json!({"WORD": "secret", "MORE": "1"}));
    secrets.set("b", &json!({"OTHER": "2"}));
    let ids = " arn:aws:secretsmanager:eu-west-1:1:secret:a-AbCdEf , b,";
    let env = secrets.env(&[("SECRET_IDS", ids), ("WORD", "plain"), ("TABLE_NAME", "t")]).await;
    let laid = overlay(&env).await.unwrap();
    for (name, value) in [("WORD", "secret"), ("MORE", "1"), ("OTHER", "2"), ("TABLE_NAME", "t")] {
        assert_eq!(laid.required(name).unwrap(), value);
    }
    assert_eq!(env.required("WORD").unwrap(), "plain", "the original is as it was");
    assert!(!format!("{laid:?}").contains("secret\""), "no value in {laid:?}");

    // Errors name secret and variable.
    secrets.set("b", &json!({"OTHER": "2", "MORE": "hunter2"}));
    let error = overlay(&env).await.unwrap_err().to_string();
    assert!(error.contains("secret b") && error.contains("MORE") && !error.contains("hunter2"), "{error}");
    secrets.set("b", &json!({"OTHER": 4242}));
    let error = overlay(&env).await.unwrap_err().to_string();
    assert!(error.contains("secret b") && error.contains("OTHER") && !error.contains("4242"), "{error}");

    let plain: Env = [("WORD".to_owned(), "plain".to_owned())].into_iter().collect();
    assert_eq!(overlay(&plain).await.unwrap().required("WORD").unwrap(), "plain", "and nobody was asked");
}

#[tokio::test]
async fn what_browsers_are_told_does_not_wait_for_the_function() {
    let secrets = Secrets::default();
    let built = Arc::new(AtomicUsize::new(0));
    let ask = async |router: Lazy| {
        let request = Request::get("/").header("origin", "https://app.example.com").body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap()
    };
    let env = secrets.env(&[("SECRET_IDS", "platform"), ("CORS_ORIGINS", "https://app.example.com")]).await;
    let router = lazy(env, ErrorShape::Problem, &built);
    for status in [503, 200] {
        let answer = ask(router.clone()).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example.com");
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        secrets.set("platform", &json!({"WORD": "hello"}));
    }
    // A wrong origin stops the function instead of letting it guess, and lets nobody read along.
    let env = secrets.env(&[("WORD", "hello"), ("CORS_ORIGINS", "https://app.example.com/")]).await;
    let answer = ask(lazy(env, ErrorShape::Problem, &built)).await;
    assert_eq!(answer.status(), 500);
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

//! Mails: each sent once, none to who has had enough, and nothing lost that could still be sent.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use aws_sdk_sesv2::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use axum::{Router, routing::post};
use serde_json::{Value, json};
use tenantry_mailer::{HOURLY, Letter, Mailer, Outbox, SendError, Ses, Site, State, deliver};
use tenantry_store::MailClaim;
use tenantry_tests::platform::{NOON, Platform, Setup};
use tenantry_web::{
    config::Env,
    mail::{Content, Language, Mail, MailQueue as _},
    queue::{BoxFuture, Failures, Message},
};

const MINUTE: i64 = 60_000;

fn site() -> Site {
    let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let variables = [("MAIL_FROM", "Acme <no-reply@acme.example>"), ("PUBLIC_URL", "https://acme.example")];
    Site::from_env(&variables.map(variable).into_iter().collect::<Env>()).unwrap()
}

fn mail(id: &str, to: &str) -> Mail {
    let content = Content::PasswordReset { name: "Ada".into(), token: "t0ken".into(), valid_minutes: 30 };
    Mail { id: id.into(), language: Language::En, to: to.parse().unwrap(), content }
}

fn message(mail: &Mail) -> Message {
    Message { id: format!("delivery of {}", mail.id), body: serde_json::to_string(mail).unwrap() }
}

/// Answers what it was told, then takes everything.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<SendError>>,
    outbox: Outbox,
}

impl Mailer for Script {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), SendError>> {
        match self.answers.lock().unwrap().pop_front() {
            Some(error) => Box::pin(async { Err(error) }),
            None => self.outbox.send(letter),
        }
    }
}

struct Stage {
    platform: Platform,
    script: Arc<Script>,
    state: State,
}

impl Stage {
    async fn start() -> Self {
        let platform = Platform::start(Setup::default()).await;
        let script = Arc::new(Script::default());
        let state = State::new(platform.store().clone(), script.clone(), site());
        Self { platform, script, state }
    }

    fn fails(&self, errors: impl IntoIterator<Item = SendError>) {
        self.script.answers.lock().unwrap().extend(errors);
    }

    async fn deliver(&self, mail: &Mail) -> (usize, usize) {
        let until = self.platform.store().now() + MINUTE;
        let (Failures { again, poison }, _) = deliver(&self.state, &[message(mail)], until).await;
        (again.len(), poison.len())
    }

    fn sent(&self) -> usize {
        self.script.outbox.letters().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_sent_once_however_often_it_is_delivered() {
    let stage = Stage::start().await;
    let one = mail("m.1", "ada@example.com");
    let both = tokio::join!(stage.deliver(&one), stage.deliver(&one));
    assert!(both.0.0 + both.1.0 <= 1, "the second finds it done, or being done");
    for _ in 0..3 {
        assert_eq!(stage.deliver(&one).await, (0, 0));
    }
    stage.platform.clock().advance(13 * 24 * 60 * MINUTE);
    assert_eq!(stage.deliver(&one).await, (0, 0));
    assert_eq!(stage.sent(), 1);
    let letter = &stage.script.outbox.letters()[0];
    assert_eq!(letter.to.as_str(), "ada@example.com");
    assert!(letter.text.contains("https://acme.example/reset-password#token=t0ken"));
}

#[tokio::test]
async fn a_mail_that_somebody_is_sending_is_left_to_them_until_they_are_dead() {
    let stage = Stage::start().await;
    let one = mail("m.1", "ada@example.com");
    let store = stage.platform.store();
    assert_eq!(store.claim_mail("m.1", NOON + MINUTE).await.unwrap(), MailClaim::First);
    assert_eq!(stage.deliver(&one).await, (1, 0));
    assert_eq!(stage.sent(), 0);
    stage.platform.clock().advance(MINUTE);
    assert_eq!(stage.deliver(&one).await, (0, 0));
    assert_eq!(stage.sent(), 1);
}

#[tokio::test]
async fn what_may_still_succeed_is_tried_again_and_what_cannot_is_dropped() {
    let stage = Stage::start().await;
    let one = mail("m.1", "ada@example.com");
    stage.fails((0..4).map(|_| SendError::Unavailable("throttled".into())));
    for _ in 0..4 {
        assert_eq!(stage.deliver(&one).await, (1, 0));
    }
    assert_eq!(stage.sent(), 0);
    assert_eq!(stage.deliver(&one).await, (0, 0));
    assert_eq!(stage.sent(), 1);
    // The tries counted as one mail: there is room for the rest.
    for n in 2..=HOURLY {
        assert_eq!(stage.deliver(&mail(&format!("m.{n}"), "ada@example.com")).await, (0, 0));
    }
    assert_eq!(stage.sent(), HOURLY as usize);

    let two = mail("n.1", "bob@example.com");
    stage.fails([SendError::Rejected("no such domain".into())]);
    for _ in 0..3 {
        assert_eq!(stage.deliver(&two).await, (0, 0));
    }
    assert_eq!(stage.sent(), HOURLY as usize, "never again");
}

#[tokio::test]
async fn nobody_gets_more_than_five_of_a_kind_in_an_hour() {
    let stage = Stage::start().await;
    for n in 0..8 {
        // One mailbox, however it is spelt.
        let to = if n % 2 == 0 { "ada@example.com" } else { "ADA@example.com" };
        assert_eq!(stage.deliver(&mail(&format!("m.{n}"), to)).await, (0, 0), "dropped, not delivered again");
    }
    assert_eq!(stage.sent(), 5);
    stage.deliver(&mail("to.another", "bob@example.com")).await;
    let content = Content::PasswordChanged { name: String::new(), at: NOON };
    stage.deliver(&Mail { content, ..mail("of.another.kind", "ada@example.com") }).await;
    assert_eq!(stage.sent(), 7);
    // What was dropped stays dropped; the next hour is free.
    stage.platform.clock().advance(60 * MINUTE);
    stage.deliver(&mail("m.7", "ada@example.com")).await;
    assert_eq!(stage.sent(), 7);
    stage.deliver(&mail("m.8", "ada@example.com")).await;
    assert_eq!(stage.sent(), 8);
}

#[tokio::test]
async fn half_a_mail_is_never_sent_and_holds_up_no_other() {
    let stage = Stage::start().await;
    let whole = message(&mail("m.1", "ada@example.com"));
    let half = |pointer: &str, value: Value| {
        let mut json: Value = serde_json::from_str(&whole.body).unwrap();
        *json.pointer_mut(pointer).unwrap() = value;
        Message { id: pointer.to_owned(), body: json.to_string() }
    };
    let batch = [
        Message { id: "garbage".into(), body: "{".into() },
        half("/data", json!({"name": "Ada"})),
        half("/data/token", json!("https://evil.example/")),
        half("/template", json!("newsletter")),
        half("/language", json!("fr")),
        half("/to", json!("ada")),
        half("/id", json!("a#b")),
        whole.clone(),
    ];
    let (failures, rejected) = deliver(&stage.state, &batch, NOON + MINUTE).await;
    assert_eq!(failures.again, [""; 0]);
    assert_eq!(failures.poison, ["garbage", "/data", "/data/token", "/template", "/language", "/to", "/id"]);
    assert_eq!((stage.sent(), rejected), (1, 0));
}

#[tokio::test]
async fn host_keeps_the_mails_that_were_ordered() {
    let platform = Platform::start(Setup::default().variable("PUBLIC_URL", "https://x.example")).await;
    for language in [Language::En, Language::Zh] {
        let mail = Mail { id: format!("m.{language:?}"), language, ..mail("", "ada@example.com") };
        platform.host().mail_queue().send(&mail).await.unwrap();
        platform.host().mail_queue().send(&mail).await.unwrap();
    }
    platform.host().mail_queue().push("no mail").unwrap();
    platform.quiesce().await;
    let letters = platform.host().outbox().letters();
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|letter| letter.text.contains("https://x.example/reset-password#token=t0ken")));
    assert!(letters[0].text.starts_with("Hello Ada") && letters[1].text.starts_with("Ada，您好"));
    assert_eq!(platform.host().mail_queue().depth().unwrap(), (0, 1), "what is no mail is a dead letter");
    assert!(!format!("{letters:?}").contains("t0ken"));
}

/// A SES that answers with a status and the name of an error, and keeps what it was sent.
async fn ses(status: u16, error: &'static str) -> (Ses, Arc<Mutex<Vec<Value>>>) {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = seen.clone();
    let app = Router::new().route(
        "/v2/email/outbound-emails",
        post(move |body: String| {
            kept.lock().unwrap().push(serde_json::from_str(&body).unwrap());
            let body = json!({"MessageId": "1", "message": "about ada@example.com"}).to_string();
            let status = http::StatusCode::from_u16(status).unwrap();
            async move { (status, [("content-type", "application/json"), ("x-amzn-errortype", error)], body) }
        }),
    );
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = aws_sdk_sesv2::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .build();
    (Ses::new(aws_sdk_sesv2::Client::from_conf(config), site().from()), seen)
}

#[tokio::test]
async fn ses_gets_the_letter_and_its_refusals_are_told_apart() {
    let letter = site().write(&mail("m.1", "ada@example.com")).unwrap();
    let (sender, seen) = ses(200, "").await;
    sender.send(&letter).await.unwrap();
    let sent = seen.lock().unwrap()[0].clone();
    assert_eq!(sent["FromEmailAddress"], "Acme <no-reply@acme.example>");
    assert_eq!(sent["Destination"], json!({"ToAddresses": ["ada@example.com"]}));
    let simple = &sent["Content"]["Simple"];
    assert_eq!(simple["Subject"], json!({"Data": "Choose a new password for Acme", "Charset": "UTF-8"}));
    assert_eq!(simple["Body"]["Text"], json!({"Data": letter.text, "Charset": "UTF-8"}));
    assert_eq!(simple["Body"]["Html"], json!({"Data": letter.html, "Charset": "UTF-8"}));

    for (status, error, is_final) in [
        (400, "MessageRejected", true),
        (400, "BadRequestException", true),
        (429, "TooManyRequestsException", false),
        (400, "LimitExceededException", false),
        (400, "SendingPausedException", false),
        (400, "AccountSuspendedException", false),
        (400, "MailFromDomainNotVerifiedException", false),
        (403, "AccessDeniedException", false),
        (500, "InternalServerError", false),
    ] {
        let refused = ses(status, error).await.0.send(&letter).await.unwrap_err();
        assert_eq!(matches!(refused, SendError::Rejected(_)), is_final, "{error}: {refused}");
        assert!(!refused.to_string().contains("ada@example.com"), "{refused}");
    }
}

//! No tenant learns anything of another: for every operation of the API document and every place in it where an id
//! can stand, a foreign id, one that is gone and one that never was are answered alike, to every kind of caller.
//!
//! The operations come from the document, so a new route is covered the day it appears; one with an id that
//! `isolation/slots.rs` does not know fails here until somebody says what it names.

mod roles;
pub(crate) mod slots;
pub(crate) mod stage;

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tenantry_tests::{
    http::{PASSWORD, seen, text},
    log::Log,
    platform::Reply,
};

use self::{
    slots::{Kind, Place, Slot},
    stage::{CANARY, Caller, Stage, Whose},
};

/// What a caller can see of a reply, the id that was asked for blotted out.
fn told(reply: &Reply, id: &str) -> (u16, Vec<(String, String)>, String) {
    let (status, headers, body) = seen(reply);
    let headers = headers.into_iter().filter(|(name, _)| name != "content-length").collect();
    (status, headers, body.replace(id, "<id>"))
}

async fn ask(stage: &Stage, slot: &Slot, caller: &Caller, id: &str) -> Reply {
    let (path, body) = slot.with(id, &stage.beside(slot).await);
    let reply = stage.platform.call(slot.method.clone(), &path, &caller.credential, body).await;
    let text = format!("{:?} {}", reply.headers, reply.text());
    assert!(!text.contains(CANARY), "{slot} told {} of another tenant: {text}", caller.name);
    assert!(!reply.status.is_server_error(), "{slot} with {id}: {text}");
    reply
}

#[tokio::test]
async fn a_foreign_id_is_as_good_as_one_that_never_was() {
    let stage = Stage::set().await;
    let slots = slots::all();
    assert!(slots.len() >= 3, "{} slots: the document was not understood", slots.len());
    let mut reached = BTreeSet::new();
    for slot in &slots {
        for caller in &stage.callers {
            let random = stage.id(slot.kind, Whose::Nobodys).await;
            let expected = told(&ask(&stage, slot, caller, &random).await, &random);
            // What a member did stays in the log when they are gone, so a filter may go on finding it.
            let gone = (slot.place != Place::Query).then_some(Whose::Gone);
            for whose in std::iter::once(Whose::Foreign).chain(gone) {
                let id = stage.id(slot.kind, whose).await;
                let found = told(&ask(&stage, slot, caller, &id).await, &id);
                assert_eq!(found, expected, "{slot} as {}: {whose:?} (left) and nobody's (right)", caller.name);
            }
        }
        reached.insert(slot.to_string());
        // What would be answered alike because nothing is ever found proves nothing.
        let fresh;
        let stage = if slot.spoils() {
            fresh = Stage::set().await;
            &fresh
        } else {
            &stage
        };
        let random = stage.id(slot.kind, Whose::Nobodys).await;
        let unknown = ask(stage, slot, &stage.callers[0], &random).await;
        let own = stage.id(slot.kind, Whose::Own).await;
        let reply = ask(stage, slot, &stage.callers[0], &own).await;
        assert_ne!(told(&reply, &own), told(&unknown, &random), "{slot}: the owner's own is answered like nobody's");
    }
    assert_eq!(reached.len(), slots.len(), "two slots with one name");
    assert!(stage.other_is_whole().await, "a call of one tenant changed another");
}

/// What no id is: it would end a key of the table, a path or a string, or looks like something else.
const STRANGE: [&str; 12] =
    ["#", "a#b", "..", "a/b", "a\0b", "%", "%00", "ＡＢＣ", " ", "null", "\u{202e}", "\u{1f980}"];

#[tokio::test]
async fn ids_that_are_none_are_found_nowhere() {
    let stage = Stage::set().await;
    let long = "x".repeat(2048);
    for slot in &slots::all() {
        let own = stage.id(slot.kind, Whose::Own).await;
        let alike = own.replacen('o', "о", 1).replacen('k', "к", 1).replacen('s', "ѕ", 1).replacen('u', "υ", 1);
        for id in STRANGE.into_iter().chain([&*long, &alike, &own.to_uppercase()]) {
            // A username is one name however it is written; everything else has one spelling.
            if id == own || (slot.kind == Kind::TenantUser && id.to_lowercase() == own) {
                continue;
            }
            let reply = ask(&stage, slot, &stage.callers[0], id).await;
            // A filter that nothing fits is answered with nothing.
            if slot.place == Place::Query && reply.status.is_success() {
                assert_eq!(reply.json()["data"], serde_json::json!([]), "{slot} with {id:?}");
                continue;
            }
            assert!(reply.status.is_client_error(), "{slot} with {id:?}: {} {}", reply.status, reply.text());
        }
    }
}

#[tokio::test]
async fn a_model_by_a_strange_name_is_none() {
    let stage = Stage::set().await;
    let key = &stage.own.api_key;
    let long = "x".repeat(2048);
    let alike = "gрt-4.1-mini".to_owned();
    for name in STRANGE.into_iter().chain([&*long, &alike, "GPT-4.1-MINI", " gpt-4.1-mini", "gpt-4.1-mini#"]) {
        let path = format!("/api/v1/models/{}", slots::escape(name));
        assert_eq!(stage.platform.get(&path, key).await.expect(404).code(), "model_not_found", "{name:?}");
        let mut body = tenantry_tests::platform::chat_body("Hello", false);
        body["model"] = name.into();
        let reply = stage.platform.post("/api/v1/chat/completions", key, body).await.expect(404);
        assert_eq!(reply.code(), "model_not_found", "{name:?}");
    }
}

#[tokio::test]
async fn what_is_made_under_a_strange_name_is_nobody_elses() {
    let stage = Stage::set().await;
    let (owner, long) = (&stage.callers[0].credential, "x".repeat(2048));
    let create = async |body: Value| stage.platform.post("/api/v1/tenant-users", owner, body).await;
    for name in STRANGE.into_iter().filter(|name| *name != "null" && *name != "ＡＢＣ").chain([&*long]) {
        let reply = create(serde_json::json!({"username": name})).await.expect(422);
        assert_eq!(reply.code(), "invalid_value", "{name:?}");
        let person = serde_json::json!({"email": format!("{name}@example.com"), "password": "correct horse battery"});
        let reply = stage.platform.post("/api/v1/auth/register", "", person).await;
        // A slash, a per cent sign and a crab are letters to mail servers (RFC 5322, 3.2.3; RFC 6532, 3.2).
        let is_address = ["a/b", "%", "%00", "\u{1f980}"].contains(&name);
        assert_eq!(reply.status.as_u16(), if is_address { 201 } else { 422 }, "{name:?}: {}", reply.text());
    }
    // Spellings of one name are one name, and one person has it.
    create(serde_json::json!({"username": "ＡＢＣ"})).await.expect(201);
    for spelling in ["abc", "ABC", "aBc", "ＡBＣ"] {
        assert_eq!(
            create(serde_json::json!({"username": spelling})).await.expect(409).code(),
            "conflict",
            "{spelling}"
        );
    }
    // A cyrillic one is no spelling of it.
    create(serde_json::json!({"username": "аbc"})).await.expect(422);
}

#[tokio::test]
async fn a_cursor_is_worth_nothing_to_another_tenant_or_list() {
    let stage = Stage::set().await;
    let (own, foreign) = (slots::lists(stage.own.org.as_str()), slots::lists(stage.foreign.org.as_str()));
    let owner = &stage.callers[0].credential;
    let mut cursors = vec![];
    // Of the export everything fits on one page; it is asked with the others' cursors.
    for path in foreign.iter().filter(|path| !path.ends_with("/export")) {
        let reply = stage.platform.get(&slots::with_query(path, "limit=1"), &stage.other).await.expect(200);
        let cursor = reply.json()["next_cursor"].as_str().map(str::to_owned);
        cursors.extend(cursor.map(|cursor| (path.clone(), cursor)));
    }
    let with_cursor = |word: &str| cursors.iter().any(|(path, _)| path.contains(word));
    assert!(with_cursor("api-keys") && with_cursor("/members"), "{cursors:?}");
    for path in &own {
        let wrong = slots::with_query(path, "cursor=never-was-one");
        let expected = told(&stage.platform.get(&wrong, owner).await.expect(400), "never-was-one");
        for (of, cursor) in &cursors {
            let reply = stage.platform.get(&slots::with_query(path, &format!("cursor={cursor}")), owner).await;
            assert_eq!(told(&reply, cursor), expected, "{path} with a cursor of {of}");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_is_its_tenants_own() {
    let stage = Stage::set().await;
    let create = async |credential: &str| {
        let body = json!({"name": "shared"});
        let mut request = tenantry_tests::platform::request(Method::POST, "/api/v1/api-keys", credential, &body);
        request.headers_mut().insert("idempotency-key", "the-same-text".parse().unwrap());
        stage.platform.send(request).await.expect(201)
    };
    let (other, own) = (create(&stage.other).await, create(&stage.callers[0].credential).await);
    assert_eq!(own.header("idempotent-replayed"), "");
    assert_ne!(own.json()["secret"], other.json()["secret"]);
    assert_eq!(create(&stage.other).await.json(), other.json(), "the other's own is replayed");
}

#[tokio::test]
async fn reads_show_a_tenant_its_own_and_nothing_else() {
    let stage = Stage::set().await;
    let mut seen_own = 0;
    for path in slots::plain_reads() {
        for caller in &stage.callers {
            let reply = stage.platform.get(&path, &caller.credential).await;
            let text = reply.text();
            for foreign in stage.foreign_ids() {
                assert!(!text.contains(&foreign), "GET {path} showed {} to {}", foreign, caller.name);
            }
            assert!(!text.contains(CANARY), "GET {path} showed {}: {text}", caller.name);
            seen_own += usize::from(text.contains(stage.own.org.as_str()));
        }
    }
    assert!(seen_own > 0, "no read shows the caller's own organization");
}

#[test]
fn kinds_of_ids_are_all_in_use() {
    let used: BTreeSet<_> = slots::all().iter().map(|slot| slot.kind).collect();
    for kind in Kind::ALL {
        assert!(used.contains(&kind), "no operation takes a {kind:?} any more");
    }
    let document: Value = serde_json::from_str(&tenantry_host::openapi()).unwrap();
    assert!(document["paths"].as_object().unwrap().len() > 10);
}

/// What a line of the log may never have: the other tenant's word, keys, tokens, passwords, hashes and addresses.
fn never_logged(stage: &Stage) -> Vec<String> {
    let mut words: Vec<_> =
        [CANARY, PASSWORD, "wk_live_", "wk_test_", "rt1.", "rt1t.", "eyJ", "$argon2", "@example.com"]
            .map(ToOwned::to_owned)
            .into();
    let whole = stage.callers.iter().map(|caller| caller.credential.as_str()).chain([stage.other.as_str()]);
    words.extend(whole.filter(|credential| !credential.is_empty()).map(ToOwned::to_owned));
    // Parts of them too: some of a key, and what stands between the dots of a token.
    words.extend(words.clone().iter().filter(|word| word.len() > 40).flat_map(|word| {
        let parts = word.split(['.', '_']).filter(|part| part.len() > 20);
        parts.map(|part| part[..20].to_owned()).collect::<Vec<_>>()
    }));
    words
}

#[tokio::test]
async fn the_log_has_no_secret_no_address_and_nothing_of_what_tenants_say() {
    let log = Log::capture();
    let stage = Stage::set().await;
    let platform = &stage.platform;
    for slot in slots::all().iter().filter(|slot| !slot.spoils()) {
        for caller in &stage.callers {
            for whose in [Whose::Own, Whose::Foreign] {
                let id = stage.id(slot.kind, whose).await;
                ask(&stage, slot, caller, &id).await;
            }
        }
    }
    for path in slots::plain_reads() {
        for caller in &stage.callers {
            platform.get(&path, &caller.credential).await;
        }
    }
    // What goes wrong is logged with more words than what goes well.
    let owner = stage.callers[0].credential.as_str();
    let address = "somebody@example.com";
    let tokens = platform.register(address).await;
    let refresh = async |tokens: &Value| platform.refresh(text(tokens, "/refresh_token")).await;
    let second = refresh(&tokens).await.expect(200).json();
    refresh(&second).await.expect(200);
    refresh(&tokens).await.expect(401);
    let flipped = |text: &str| format!("{}{}", &text[..text.len() - 1], if text.ends_with('x') { 'y' } else { 'x' });
    for credential in [flipped(owner), flipped(&stage.own.api_key), "Basic x".into(), format!("{owner}.{owner}")] {
        platform.get("/api/v1/api-keys", &credential).await.expect(401);
    }
    let key = json!({"name": CANARY, "scopes": ["login"]});
    let login = platform.post("/api/v1/api-keys", owner, key).await.expect(201).json();
    for (path, body) in [
        ("/api/v1/auth/register", json!({"email": address, "password": PASSWORD})),
        ("/api/v1/auth/login", json!({"email": address, "password": CANARY})),
        ("/api/v1/auth/login", json!({"email": format!("{CANARY}@example.com"), "password": PASSWORD})),
        ("/api/v1/auth/login", json!({"email": CANARY, "password": PASSWORD})),
        ("/api/v1/auth/login", json!({"api_key": login["secret"], "username": "nobody", "password": PASSWORD})),
        ("/api/v1/auth/login", json!({CANARY: PASSWORD})),
        ("/api/v1/auth/password/forgot", json!({"email": address})),
        ("/api/v1/auth/password/reset", json!({"token": owner, "password": PASSWORD})),
        ("/api/v1/auth/verify-email", json!({"token": owner})),
        ("/api/v1/auth/refresh", json!({"refresh_token": flipped(text(&tokens, "/refresh_token"))})),
        ("/api/v1/auth/logout", json!({"refresh_token": tokens["refresh_token"]})),
        ("/api/v1/auth/password/change", json!({"current_password": CANARY, "new_password": PASSWORD})),
        ("/api/v1/tenant-users", json!({"username": "otto", "password": PASSWORD, "metadata": {CANARY: CANARY}})),
        ("/api/v1/invites/accept", json!({"token": CANARY})),
        ("/api/v1/chat/completions", json!({"model": CANARY, "messages": [{"role": "user", "content": CANARY}]})),
        (CANARY, json!({})),
    ] {
        let path = if path == CANARY {
            format!("/api/v1/{CANARY}?{CANARY}={PASSWORD}").replace(' ', "+")
        } else {
            path.into()
        };
        for credential in ["", owner] {
            platform.post(&path, credential, body.clone()).await;
        }
    }
    platform.quiesce().await;
    let letters = platform.host().outbox().letters();
    assert!(!letters.is_empty());

    let lines = log.text();
    let count = |what: &str| lines.lines().filter(|line| line.contains(what)).count();
    assert!(count("\"message\":\"request\"") > 100, "the log was not heard");
    assert!(count("\"message\":\"mail\"") > 3 && count("an old refresh token came back") == 1, "nor what else is said");
    assert!(count("an access token was refused") >= 1, "nor what is said for us alone");
    let links = letters.iter().filter_map(|letter| letter.text.split_once("#token=")?.1.split_whitespace().next());
    let forbidden = never_logged(&stage).into_iter().chain(links.map(|token| token[token.len() - 20..].to_owned()));
    for word in forbidden {
        let found = lines.lines().find(|line| line.contains(&word));
        assert_eq!(found, None, "a line of the log has {word:?}");
    }
}

//! Every template in every language, and texts that want to be more than text.

use super::*;

fn site() -> Site {
    let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let env: Env = [("MAIL_FROM", "Acme AI <no-reply@acme.example>"), ("PUBLIC_URL", "https://app.acme.example/")]
        .map(variable)
        .into_iter()
        .collect();
    Site::from_env(&env).unwrap()
}

fn contents(text: &str) -> [Content; 12] {
    let (name, token, at) = (text.to_owned(), "t0-_ken".to_owned(), 1_795_176_000_000);
    [
        Content::Verification { name: name.clone(), token: token.clone(), valid_minutes: 1440 },
        Content::PasswordReset { name: name.clone(), token: token.clone(), valid_minutes: 30 },
        Content::Invite { organization: name.clone(), inviter: name.clone(), token, valid_minutes: 10_080 },
        Content::PasswordChanged { name: name.clone(), at },
        Content::NewDevice { name: name.clone(), device: name.clone(), address: "2001:db8::7".into(), at },
        Content::AlreadyRegistered { name: name.clone() },
        Content::PaymentFailed { name: name.clone(), organization: name.clone(), until: at },
        Content::TrialEnding { name: name.clone(), organization: name.clone(), at },
        Content::LowBalance { name: name.clone(), organization: name.clone(), credits: 1_239_999 },
        Content::LimitReached {
            name: name.clone(),
            organization: name.clone(),
            by: LimitedBy::ApiKey,
            who: name.clone(),
            model: name.clone(),
            resource: "credits".into(),
            percent: 80,
            used: 8_000_000,
            limit: 10_000_000,
            resets_at: at,
        },
        Content::TopUpFailed { name: name.clone(), organization: name.clone() },
        Content::PlanEnded { name: name.clone(), organization: name.clone(), plan: name.clone(), now: name },
    ]
}

fn mail(content: Content, language: Language) -> Mail {
    Mail { id: "m.1".into(), language, to: "ada@example.com".parse().unwrap(), content }
}

#[test]
fn every_template_is_written_whole_in_every_language() {
    for language in [Language::En, Language::Zh] {
        for content in contents("Ada") {
            let letter = site().write(&mail(content, language)).unwrap();
            for part in [&letter.subject, &letter.text, &letter.html] {
                assert!(!part.contains("{{") && !part.contains("}}") && !part.is_empty(), "{part}");
            }
            assert!(letter.subject.contains("Acme AI") && !letter.subject.contains('\n'));
            let is_chinese = letter.text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert_eq!(is_chinese, language == Language::Zh);
            assert!(letter.html.starts_with("<!doctype html>"));
            assert!(letter.html.contains(if is_chinese { "<html lang=\"zh-Hans\">" } else { "<html lang=\"en\">" }));
        }
    }
    let letter = site().write(&mail(contents("Ada")[1].clone(), Language::En)).unwrap();
    assert_eq!(letter.subject, "Choose a new password for Acme AI");
    assert!(letter.text.starts_with("Hello Ada,\n"));
    assert!(letter.text.contains("\nhttps://app.acme.example/reset-password#token=t0-_ken\n"));
    assert!(letter.html.contains("href=\"https://app.acme.example/reset-password#token=t0-_ken\""));
    assert!(letter.text.contains("good for 30 minutes"));
    let letter = site().write(&mail(contents("")[4].clone(), Language::En)).unwrap();
    assert!(letter.text.starts_with("Hello,\n"));
    assert!(letter.text.contains("2026-11-20 12:00 UTC") && letter.text.contains("2001:db8::7"));
}

#[test]
fn nothing_but_our_own_address_is_a_link() {
    let evil = "{{link}} <a href='https://evil.example'>\"win\" & www.evil.example\r\nx@evil.example\u{202e}";
    for language in [Language::En, Language::Zh] {
        for content in contents(evil) {
            let letter = site().write(&mail(content, language)).unwrap();
            for part in [&letter.subject, &letter.text, &letter.html] {
                assert!(!part.contains("evil.example") && !part.contains('\u{202e}') && !part.contains('\r'), "{part}");
                for (at, _) in part.match_indices("://") {
                    assert!(part[..at].ends_with("https") && part[at..].starts_with("://app.acme.example/"), "{part}");
                }
            }
            assert!(!letter.subject.contains('\n'));
            assert!(!letter.html.contains("<a href='") && !letter.html.contains("\"win\""), "{}", letter.html);
            // What stands in a value is not filled in.
            if !letter.text.starts_with("您好") && !letter.text.starts_with("Hello,\n") {
                assert!(letter.text.contains("{{link}}"), "{}", letter.text);
            }
        }
    }
}

#[test]
fn a_long_text_is_cut() {
    let letter = site().write(&mail(contents(&"长".repeat(5_000))[2].clone(), Language::Zh)).unwrap();
    assert!(letter.subject.chars().count() < 150 && letter.subject.contains('…'));
}

#[test]
fn a_missing_placeholder_is_an_error() {
    let values = [("a", "1".to_owned())];
    let write = |value: &str, to: &mut String| to.push_str(value);
    assert_eq!(fill("t", "x {{a}} y", &values, write).unwrap(), "x 1 y");
    for text in ["{{b}}", "{{a", "{{}}", "{{ a }}", "{{a}} {{"] {
        assert!(matches!(fill("t", text, &values, write), Err(TemplateError::Placeholder { .. })), "{text}");
    }
}

#[test]
fn tokens_and_ids_are_checked() {
    for token in ["", "a b", "a\"b", "a#b", "../x", &"a".repeat(201)] {
        let content = Content::Verification { name: String::new(), token: token.to_owned(), valid_minutes: 1 };
        assert_eq!(site().write(&mail(content, Language::En)), Err(TemplateError::Token), "{token}");
    }
    for id in ["", "TO#ada", "a b", &"a".repeat(101)] {
        let mail = Mail { id: id.to_owned(), ..mail(contents("")[0].clone(), Language::En) };
        assert_eq!(site().write(&mail), Err(TemplateError::Id), "{id}");
    }
}

#[test]
fn a_wrong_site_is_refused() {
    let site = |from: &str, url: &str| {
        let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Site::from_env(&[("MAIL_FROM", from), ("PUBLIC_URL", url)].map(variable).into_iter().collect())
    };
    assert_eq!(site("a@b.example", "https://x.example").unwrap().product, "x.example");
    assert_eq!(site("\"A B\" <a@b.example>", "http://localhost:8787/").unwrap().product, "A B");
    for (from, url, names) in [
        ("nobody", "https://x.example", "MAIL_FROM"),
        ("A <a@b.example", "https://x.example", "MAIL_FROM"),
        ("a@b.example", "http://x.example", "PUBLIC_URL"),
        ("a@b.example", "https://", "PUBLIC_URL"),
        ("a@b.example", "https://x.example/?a=b", "PUBLIC_URL"),
        ("a@b.example", "javascript:alert(1)", "PUBLIC_URL"),
    ] {
        assert!(site(from, url).unwrap_err().to_string().contains(names), "{from} {url}");
    }
}

#[test]
fn a_limit_is_named_in_words() {
    let en = |by, who, model, resource| limited(by, who, model, resource, Language::En);
    assert_eq!(en(LimitedBy::Plan, "", "", "api_calls"), "the API calls that the plan allows in a month");
    assert_eq!(
        en(LimitedBy::Member, "Ada", "gpt-4.1", "llm_tokens"),
        "the monthly budget of tokens for gpt-4.1 of the member Ada"
    );
    assert_eq!(
        limited(LimitedBy::Organization, "", "gpt-4.1", "messages", Language::Zh),
        "组织每月消息预算（gpt-4.1）"
    );
    let letter = site().write(&mail(contents("Ada")[9].clone(), Language::En)).unwrap();
    assert!(
        letter.text.contains("Ada has used 8.00 of 10.00: the monthly budget of credits for Ada of the API key Ada.")
    );
}

#[test]
fn times_read_well() {
    assert_eq!(duration(30, Language::En), "30 minutes");
    assert_eq!(duration(60, Language::En), "1 hour");
    assert_eq!(duration(90, Language::Zh), "90 分钟");
    assert_eq!(duration(10_080, Language::Zh), "7 天");
}

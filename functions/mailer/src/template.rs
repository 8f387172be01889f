//! From a mail to a letter: templates, what goes into them, and links.

use std::{fmt, net::IpAddr};

use tenantry_domain::{Email, Millis, time::rfc3339};
use tenantry_web::{
    config::{ConfigError, Env},
    mail::{Content, Language, LimitedBy, Mail},
};

/// Longest text of a person's that stands in a letter, in characters.
const LONGEST: usize = 80;

/// Longest id of a mail.
const LONGEST_ID: usize = 100;

/// A letter, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// The recipient.
    pub to: Email,
    /// The subject, one line.
    pub subject: String,
    /// The body as plain text.
    pub text: String,
    /// The body as HTML.
    pub html: String,
}

impl fmt::Debug for Letter {
    /// Without recipient and body: links in it open accounts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why a mail cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing was given for a placeholder, or a placeholder does not end.
    #[error("template {template}: nothing for the placeholder `{placeholder}`")]
    Placeholder {
        /// The template.
        template: &'static str,
        /// The placeholder.
        placeholder: String,
    },
    /// The template does not begin with its subject.
    #[error("template {0}: its text must begin with `Subject: ` and an empty line")]
    Subject(&'static str),
    /// The token is none of ours.
    #[error("the token is not 1 to 200 letters, digits, `-` or `_`")]
    Token,
    /// The id is none of ours.
    #[error("the id is not 1 to {LONGEST_ID} letters, digits, `.`, `-` or `_`")]
    Id,
}

/// In whose name letters go out, and where their links lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    from: String,
    product: String,
    url: String,
}

impl Site {
    /// From `MAIL_FROM` (`Name <address>`; the name is what letters call the product) and `PUBLIC_URL`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let (from, url) = (env.required("MAIL_FROM")?, env.required("PUBLIC_URL")?.trim_end_matches('/'));
        let (name, address) = match from.split_once('<') {
            Some((name, rest)) => (name.trim().trim_matches('"'), rest.strip_suffix('>').unwrap_or_default()),
            None => ("", from),
        };
        if address.parse::<Email>().is_err() || name.chars().any(char::is_control) {
            return Err(ConfigError::new("MAIL_FROM", "must be an address, or `Name <address>`"));
        }
        let host = url.split_once("://").map_or("", |(_, rest)| rest.split([':', '/']).next().unwrap_or_default());
        let is_local = url.starts_with("http://") && ["localhost", "127.0.0.1"].contains(&host);
        let is_plain = url.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/".contains(&b));
        if host.is_empty() || !is_plain || !(url.starts_with("https://") || is_local) {
            return Err(ConfigError::new("PUBLIC_URL", "must be an https:// address without query"));
        }
        let product = if name.is_empty() { host } else { name };
        Ok(Self { from: from.to_owned(), product: product.to_owned(), url: url.to_owned() })
    }

    /// The sender.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// Writes the letter.
    ///
    /// # Errors
    /// [`TemplateError`]; there is no half a letter.
    pub fn write(&self, mail: &Mail) -> Result<Letter, TemplateError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if mail.id.is_empty() || mail.id.len() > LONGEST_ID || !mail.id.bytes().all(fits) {
            return Err(TemplateError::Id);
        }
        let (name, language) = (mail.content.template(), mail.language);
        let (text, html) = template(&mail.content, language);
        let values = self.values(&mail.content, language)?;
        let text = fill(name, text, &values, |value, to| to.push_str(value))?;
        let (subject, text) = text
            .strip_prefix("Subject: ")
            .and_then(|text| text.split_once("\n\n"))
            .filter(|(subject, _)| !subject.contains('\n'))
            .ok_or(TemplateError::Subject(name))?;
        let content = fill(name, html, &values, escape)?;
        let mut html = String::new();
        let word = match language {
            Language::En => "en",
            Language::Zh => "zh-Hans",
        };
        for (index, part) in LAYOUT.split("{{").enumerate() {
            match part.split_once("}}") {
                Some(("language", rest)) => html.extend([word, rest]),
                Some(("content", rest)) => html.extend([&content, rest]),
                _ if index == 0 => html.push_str(part),
                _ => return Err(TemplateError::Placeholder { template: "layout", placeholder: part.into() }),
            }
        }
        Ok(Letter { to: mail.to.clone(), subject: subject.to_owned(), text: text.to_owned(), html })
    }

    fn values(&self, content: &Content, language: Language) -> Result<Vec<(&'static str, String)>, TemplateError> {
        let mut values = vec![("product", self.product.clone())];
        let mut personal = |name: &str| values.push(("greeting", greeting(&personal(name), language)));
        match content {
            Content::Verification { name, token, valid_minutes } => {
                personal(name);
                values.push(("link", self.link("verify-email", token)?));
                values.push(("valid", duration(*valid_minutes, language)));
            }
            Content::PasswordReset { name, token, valid_minutes } => {
                personal(name);
                values.push(("link", self.link("reset-password", token)?));
                values.push(("valid", duration(*valid_minutes, language)));
            }
            Content::Invite { organization, inviter, token, valid_minutes } => {
                personal("");
                values.push(("organization", self::personal(organization)));
                values.push(("inviter", self::personal(inviter)));
                values.push(("link", self.link("accept-invite", token)?));
                values.push(("valid", duration(*valid_minutes, language)));
            }
            Content::PasswordChanged { name, at } => {
                personal(name);
                values.push(("at", moment(*at)));
                values.push(("link", self.page("forgot-password")));
            }
            Content::NewDevice { name, device, address, at } => {
                personal(name);
                values.push(("device", self::personal(device)));
                // An address of the network is no link; it stays as it is, to be compared.
                let address = address.parse::<IpAddr>().map_or_else(|_| self::personal(address), |ip| ip.to_string());
                values.push(("address", address));
                values.push(("at", moment(*at)));
                values.push(("link", self.page("forgot-password")));
            }
            Content::AlreadyRegistered { name } => {
                personal(name);
                values.push(("link", self.page("forgot-password")));
            }
            Content::PaymentFailed { name, organization, until: at }
            | Content::TrialEnding { name, organization, at } => {
                personal(name);
                values.push(("organization", self::personal(organization)));
                values.push(("at", moment(*at)));
                values.push(("link", self.page("billing")));
            }
            Content::PlanEnded { name, organization, plan, now } => {
                personal(name);
                values.push(("organization", self::personal(organization)));
                values.push(("plan", self::personal(plan)));
                values.push(("now", self::personal(now)));
                values.push(("link", self.page("billing")));
            }
            Content::LowBalance { name, organization, credits } => {
                personal(name);
                values.push(("organization", self::personal(organization)));
                values.push(("credits", whole_credits(*credits)));
                values.push(("link", self.page("billing")));
            }
            Content::LimitReached { name, organization, by, who, model, resource, percent, used, limit, resets_at } => {
                personal(name);
                values.push(("organization", self::personal(organization)));
                let number =
                    |number| if resource == "credits" { whole_credits(number) } else { u64::to_string(&number) };
                values.push(("used", number(*used)));
                values.push(("limit", number(*limit)));
                values.push(("percent", percent.to_string()));
                let (who, model) = (self::personal(who), self::personal(model));
                values.push(("what", limited(*by, &who, &model, resource, language)));
                values.push(("at", moment(*resets_at)));
                values.push(("link", self.page("usage")));
            }
            Content::TopUpFailed { name, organization } => {
                personal(name);
                values.push(("organization", self::personal(organization)));
                values.push(("link", self.page("billing")));
            }
            Content::Nothing {} => {}
        }
        Ok(values)
    }

    fn page(&self, page: &str) -> String {
        format!("{}/{page}", self.url)
    }

    /// The token goes behind `#`, which no server on the way sees or logs.
    fn link(&self, page: &str, token: &str) -> Result<String, TemplateError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if token.is_empty() || token.len() > 200 || !token.bytes().all(fits) {
            return Err(TemplateError::Token);
        }
        Ok(format!("{}#token={token}", self.page(page)))
    }
}

const LAYOUT: &str = include_str!("../templates/layout.html");

macro_rules! both {
    ($name:literal, $language:literal) => {
        (
            include_str!(concat!("../templates/", $name, ".", $language, ".txt")),
            include_str!(concat!("../templates/", $name, ".", $language, ".html")),
        )
    };
}

/// Micro-credits for people: two places, rounded down.
fn whole_credits(micro: u64) -> String {
    format!("{}.{:02}", micro / 1_000_000, micro % 1_000_000 / 10_000)
}

const fn template(content: &Content, language: Language) -> (&'static str, &'static str) {
    match (content, language) {
        (Content::Verification { .. }, Language::En) => both!("verification", "en"),
        (Content::Verification { .. }, Language::Zh) => both!("verification", "zh"),
        (Content::PasswordReset { .. }, Language::En) => both!("password_reset", "en"),
        (Content::PasswordReset { .. }, Language::Zh) => both!("password_reset", "zh"),
        (Content::Invite { .. }, Language::En) => both!("invite", "en"),
        (Content::Invite { .. }, Language::Zh) => both!("invite", "zh"),
        (Content::PasswordChanged { .. }, Language::En) => both!("password_changed", "en"),
        (Content::PasswordChanged { .. }, Language::Zh) => both!("password_changed", "zh"),
        (Content::NewDevice { .. }, Language::En) => both!("new_device", "en"),
        (Content::NewDevice { .. }, Language::Zh) => both!("new_device", "zh"),
        (Content::AlreadyRegistered { .. }, Language::En) => both!("already_registered", "en"),
        (Content::AlreadyRegistered { .. }, Language::Zh) => both!("already_registered", "zh"),
        (Content::PaymentFailed { .. }, Language::En) => both!("payment_failed", "en"),
        (Content::PaymentFailed { .. }, Language::Zh) => both!("payment_failed", "zh"),
        (Content::TrialEnding { .. }, Language::En) => both!("trial_ending", "en"),
        (Content::TrialEnding { .. }, Language::Zh) => both!("trial_ending", "zh"),
        (Content::PlanEnded { .. }, Language::En) => both!("plan_ended", "en"),
        (Content::PlanEnded { .. }, Language::Zh) => both!("plan_ended", "zh"),
        (Content::LowBalance { .. }, Language::En) => both!("low_balance", "en"),
        (Content::LowBalance { .. }, Language::Zh) => both!("low_balance", "zh"),
        (Content::LimitReached { .. }, Language::En) => both!("limit_reached", "en"),
        (Content::LimitReached { .. }, Language::Zh) => both!("limit_reached", "zh"),
        (Content::TopUpFailed { .. }, Language::En) => both!("top_up_failed", "en"),
        (Content::TopUpFailed { .. }, Language::Zh) => both!("top_up_failed", "zh"),
        // Without a subject it is no letter.
        (Content::Nothing {}, _) => ("", ""),
    }
}

/// Puts the values in. What a value contains is never taken for a placeholder.
fn fill(
    template: &'static str,
    text: &str,
    values: &[(&'static str, String)],
    write: impl Fn(&str, &mut String),
) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(text.len() * 2);
    let mut parts = text.split("{{");
    filled.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let missing = |placeholder: &str| TemplateError::Placeholder { template, placeholder: placeholder.into() };
        let (placeholder, rest) = part.split_once("}}").ok_or_else(|| missing(part))?;
        let value = values.iter().find(|(name, _)| *name == placeholder).ok_or_else(|| missing(placeholder))?;
        write(&value.1, &mut filled);
        filled.push_str(rest);
    }
    Ok(filled)
}

/// For text and for attributes in double quotes.
fn escape(value: &str, to: &mut String) {
    for c in value.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            c => to.push(c),
        }
    }
}

/// A text that somebody chose, perhaps to have us send it to others: one line, of bounded length, and nothing in
/// it that a mail program would make a link of. The word joiner (U+2060) is invisible.
fn personal(text: &str) -> String {
    let hidden = |c: &char| !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(hidden).collect();
    let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut safe = String::new();
    for (index, c) in words.chars().enumerate() {
        if index == LONGEST {
            safe.push('…');
            break;
        }
        safe.push(c);
        if ".:/@。．".contains(c) {
            safe.push('\u{2060}');
        }
    }
    safe
}

fn greeting(name: &str, language: Language) -> String {
    match (language, name) {
        (Language::En, "") => "Hello,".into(),
        (Language::En, name) => format!("Hello {name},"),
        (Language::Zh, "") => "您好：".into(),
        (Language::Zh, name) => format!("{name}，您好："),
    }
}

fn duration(minutes: u32, language: Language) -> String {
    let (count, unit) = match minutes {
        0 => (1, 0),
        m if m % 1440 == 0 => (m / 1440, 2),
        m if m % 60 == 0 => (m / 60, 1),
        m => (m, 0),
    };
    match language {
        Language::En => {
            let unit = ["minute", "hour", "day"][unit];
            format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
        }
        Language::Zh => format!("{count} {}", ["分钟", "小时", "天"][unit]),
    }
}

/// What a limit is on, and whose it is. `who` and `model` are empty where there is none.
fn limited(by: LimitedBy, who: &str, model: &str, resource: &str, language: Language) -> String {
    let (en, zh) = match resource {
        "messages" => ("messages", "消息"),
        "llm_tokens" => ("tokens", "令牌"),
        "images" => ("images", "图片"),
        "api_calls" => ("API calls", "API 调用"),
        "credits" => ("credits", "点数"),
        other => (other, other),
    };
    match language {
        Language::En => {
            let of_model = if model.is_empty() { String::new() } else { format!(" for {model}") };
            match by {
                LimitedBy::Plan => format!("the {en} that the plan allows in a month"),
                LimitedBy::Organization => format!("the organization's monthly budget of {en}{of_model}"),
                LimitedBy::Member => format!("the monthly budget of {en}{of_model} of the member {who}"),
                LimitedBy::ApiKey => format!("the monthly budget of {en}{of_model} of the API key {who}"),
            }
        }
        Language::Zh => {
            let of_model = if model.is_empty() { String::new() } else { format!("（{model}）") };
            match by {
                LimitedBy::Plan => format!("套餐每月{zh}额度"),
                LimitedBy::Organization => format!("组织每月{zh}预算{of_model}"),
                LimitedBy::Member => format!("成员 {who} 的每月{zh}预算{of_model}"),
                LimitedBy::ApiKey => format!("API 密钥 {who} 的每月{zh}预算{of_model}"),
            }
        }
    }
}

/// `2026-11-20 12:00 UTC`: nobody's time zone is known here.
fn moment(at: Millis) -> String {
    let text = rfc3339(at);
    format!("{} UTC", text.get(..16).unwrap_or(&text).replace('T', " "))
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;

//! The pages that people are sent to: checkout, portal, invoice. Plain HTML without scripts; each says what it is.

use axum::{
    Router,
    extract::{Path, State as Extract},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::Value;

use super::{
    StripeSandbox,
    calendar::moment,
    checkout,
    error::{Answer, StripeError},
    form,
    object::{Kind, elements, int, text},
    params::Params,
    portal,
    settings::{Card, Payer},
    subscriptions::period_end,
};

/// The pages run nothing, whatever the objects say.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}\
     table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left}\
     .double{background:#fff3cd;border:1px solid #d39e00;padding:.5rem 1rem}.wrong{color:#b00020}\
     form{display:inline}button{font:inherit;margin:.1rem}code{font-size:.85em}input{font:inherit}";

pub(super) fn router() -> Router<StripeSandbox> {
    Router::new()
        .route("/_dev/stripe/checkout/{id}", get(checkout_page).post(checkout_click))
        .route("/_dev/stripe/portal/{id}", get(portal_page).post(portal_click))
        .route("/_dev/stripe/invoice/{id}", get(invoice_page).post(invoice_click))
}

/// A text that is shown as it is.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Whether a browser may be sent there.
pub(super) fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An amount with its currency. The double knows currencies with two decimals.
pub(super) fn money(amount: i64, currency: &str) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let amount = amount.unsigned_abs();
    format!("{sign}{}.{:02} {}", amount / 100, amount % 100, escape(&currency.to_uppercase()))
}

/// A page. `body` is HTML.
pub(super) fn document(status: StatusCode, title: &str, body: &str) -> Response {
    let title = escape(title);
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\
         <p class=\"double\"><b>This is a test double of Stripe.</b> No payment here is one: no bank is asked and no money \
         moves. Type no real card.</p><h1>{title}</h1>{body}</body></html>"
    );
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Html(page)).into_response()
}

/// Why something cannot be shown or done.
pub(super) fn refusal(error: &StripeError) -> Response {
    document(error.status, "That did not work", &format!("<p class=\"wrong\">{}</p>", escape(&error.message)))
}

fn button(action: &str, label: &str) -> String {
    format!("<button name=\"action\" value=\"{action}\">{label}</button> ")
}

async fn checkout_page(Extract(stripe): Extract<StripeSandbox>, Path(id): Path<String>) -> Response {
    show_checkout(&stripe, &id, None)
}

fn show_checkout(stripe: &StripeSandbox, id: &str, wrong: Option<&StripeError>) -> Response {
    let s = stripe.lock();
    let session = match s.named(Kind::Session, id) {
        Ok(session) => session,
        Err(error) => return refusal(&error),
    };
    if text(&session, "status") != "open" {
        let body = format!("<p>This session is {}.</p>", escape(text(&session, "status")));
        return document(StatusCode::OK, "Checkout", &body);
    }
    let currency = text(&session, "currency");
    let mut body = String::new();
    if let Some(error) = wrong {
        body += &format!("<p class=\"wrong\">{} You can try again.</p>", escape(&error.message));
    }
    body += "<table><tr><th>What</th><th>How many</th><th>Amount</th></tr>";
    for item in elements(&checkout::line_items_of(&s, id), "data") {
        let every = item["price"]["recurring"]["interval"].as_str().map(|every| format!(" / {}", escape(every)));
        body += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}{}</td></tr>",
            escape(text(item, "description")),
            int(item, "quantity"),
            money(int(item, "amount_total"), currency),
            every.unwrap_or_default(),
        );
    }
    body += "</table>";
    if text(&session, "mode") != "setup" {
        body += &format!("<p>To pay now: <b>{}</b></p>", money(int(&session, "amount_total"), currency));
    }
    body += "<form method=\"post\">";
    if session["customer"].is_null() && session["customer_email"].is_null() {
        body += "<p><label>Your address <input name=\"email\" type=\"email\" value=\"payer@example.com\"></label></p>";
    }
    if session["allow_promotion_codes"] == true {
        body += "<p><label>Promotion code <input name=\"code\"></label></p>";
    }
    body += &button("pay", "Pay");
    body += &button("authenticate", "Pay with a card that asks every time");
    if text(&session, "mode") == "payment" {
        body += &button("delayed", "Pay by a method that settles later");
    }
    body += &button("decline", "Decline");
    body += &button("abandon", "Abandon");
    body += "</form>";
    document(StatusCode::OK, "Checkout", &body)
}

/// What a form of a page sent.
pub(super) struct Click(Params);

impl Click {
    pub(super) fn read(body: &str) -> Answer<Self> {
        form::parse(body).map(|fields| Self(Params::new(fields)))
    }

    /// A field; empty when it was left out.
    pub(super) fn field(&mut self, name: &str) -> Answer<String> {
        Ok(self.0.text(name)?.unwrap_or_default().trim().to_owned())
    }
}

async fn checkout_click(Extract(stripe): Extract<StripeSandbox>, Path(id): Path<String>, body: String) -> Response {
    click_checkout(&stripe, &id, &body).unwrap_or_else(|error| refusal(&error))
}

fn click_checkout(stripe: &StripeSandbox, id: &str, body: &str) -> Answer<Response> {
    let mut click = Click::read(body)?;
    let session = stripe.with(|s| checkout::open(s, id, "paid"))?;
    let action = click.field("action")?;
    let card = match action.as_str() {
        "pay" | "delayed" => Card::Pays,
        "authenticate" => Card::Authenticates,
        "decline" => Card::Declines,
        "abandon" => {
            return Ok(match session["cancel_url"].as_str() {
                Some(url) => Redirect::to(url).into_response(),
                None => {
                    document(StatusCode::OK, "Checkout", "<p>You left. The session stays open until it expires.</p>")
                }
            });
        }
        _ => return Err(StripeError::invalid("No such button")),
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let payer = Payer {
        card,
        email: some(click.field("email")?),
        promotion_code: some(click.field("code")?),
        delayed: action == "delayed",
    };
    Ok(match stripe.pay_as(id, &payer) {
        Ok(()) => Redirect::to(&text(&session, "success_url").replace("{CHECKOUT_SESSION_ID}", id)).into_response(),
        Err(error) => show_checkout(stripe, id, Some(&error)),
    })
}

async fn portal_page(Extract(stripe): Extract<StripeSandbox>, Path(id): Path<String>) -> Response {
    let s = stripe.lock();
    let (session, shown) =
        match s.named(Kind::PortalSession, &id).and_then(|session| Ok((session, portal::subscriptions_of(&s, &id)?))) {
            Ok(found) => found,
            Err(error) => return refusal(&error),
        };
    let mut body = "<table><tr><th>Subscription</th><th>Status</th><th>Period ends</th><th></th></tr>".to_owned();
    for subscription in &shown {
        let (action, label) = if subscription["cancel_at"].is_null() {
            ("cancel", "Cancel at the end of the period")
        } else {
            ("resume", "Resume")
        };
        body += &format!(
            "<tr><td><code>{id}</code></td><td>{}</td><td>{}</td><td><form method=\"post\">\
             <input type=\"hidden\" name=\"subscription\" value=\"{id}\">{}</form></td></tr>",
            escape(text(subscription, "status")),
            moment(period_end(subscription)),
            button(action, label),
            id = escape(text(subscription, "id")),
        );
    }
    body += "</table>";
    if let Some(url) = session["return_url"].as_str() {
        body += &format!("<p><a href=\"{}\">Back</a></p>", escape(url));
    }
    document(StatusCode::OK, "Customer portal", &body)
}

async fn portal_click(Extract(stripe): Extract<StripeSandbox>, Path(id): Path<String>, body: String) -> Response {
    let clicked = Click::read(&body).and_then(|mut click| {
        let ends = match click.field("action")?.as_str() {
            "cancel" => true,
            "resume" => false,
            _ => return Err(StripeError::invalid("No such button")),
        };
        let subscription = click.field("subscription")?;
        stripe.with(|s| portal::set_ending(s, &id, &subscription, ends))
    });
    match clicked {
        Ok(()) => Redirect::to(&format!("/_dev/stripe/portal/{id}")).into_response(),
        Err(error) => refusal(&error),
    }
}

async fn invoice_page(Extract(stripe): Extract<StripeSandbox>, Path(id): Path<String>) -> Response {
    show_invoice(&stripe, &id, None)
}

async fn invoice_click(Extract(stripe): Extract<StripeSandbox>, Path(id): Path<String>, body: String) -> Response {
    let clicked = Click::read(&body).and_then(|mut click| match click.field("action")?.as_str() {
        "pay" => stripe.pay_invoice(&id),
        _ => Err(StripeError::invalid("No such button")),
    });
    show_invoice(&stripe, &id, clicked.err().as_ref())
}

fn show_invoice(stripe: &StripeSandbox, id: &str, wrong: Option<&StripeError>) -> Response {
    let invoice: Value = match stripe.with(|s| s.named(Kind::Invoice, id)) {
        Ok(invoice) => invoice,
        Err(error) => return refusal(&error),
    };
    let currency = text(&invoice, "currency");
    let mut body =
        format!("<p>{} is {}.</p><table>", escape(text(&invoice, "number")), escape(text(&invoice, "status")));
    for line in elements(&invoice, "lines") {
        let amount = money(int(line, "amount"), currency);
        body += &format!("<tr><td>{}</td><td>{amount}</td></tr>", escape(text(line, "description")));
    }
    body += &format!("<tr><th>Total</th><th>{}</th></tr></table>", money(int(&invoice, "total"), currency));
    if let Some(error) = wrong {
        body += &format!("<p class=\"wrong\">{}</p>", escape(&error.message));
    }
    if text(&invoice, "status") == "open" {
        body += &format!("<form method=\"post\">{}</form>", button("pay", "Pay with the saved card"));
    }
    document(StatusCode::OK, "Invoice", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_shown_as_text() {
        assert_eq!(escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
        assert_eq!(money(-1205, "usd"), "-12.05 USD");
    }

    #[test]
    fn browsers_are_sent_to_web_addresses_only() {
        for url in ["https://a.example/x?y={CHECKOUT_SESSION_ID}", "http://localhost:5173"] {
            assert!(is_url(url), "{url}");
        }
        for url in ["", "javascript:alert(1)", "https://", "/x", "https:///x", "http://a b", "http://a\r\nx: y"] {
            assert!(!is_url(url), "{url}");
        }
    }
}

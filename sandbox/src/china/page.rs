//! `/_dev/pay/<vendor>/<order>`: what a payer would see on a telephone, here as a page with three buttons.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};

use super::{Bill, Desk, Refusal};

/// The page runs nothing, loads nothing and posts to itself only.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

type Shared = State<Arc<dyn Desk>>;

pub(super) fn router(desks: &[Arc<dyn Desk>]) -> Router {
    desks.iter().fold(Router::new(), |router, desk| {
        let path = format!("/_dev/pay/{}/{{order}}", desk.vendor().as_str());
        router.merge(Router::new().route(&path, get(show).post(act)).with_state(desk.clone()))
    })
}

/// To open the page is to scan the code, as long as that can be done.
async fn show(State(desk): Shared, Path(order): Path<String>) -> Response {
    let scanned = desk.scan(&order);
    answer(&*desk, &order, StatusCode::OK, scanned.err().map_or("", |refusal| refusal.0))
}

async fn act(State(desk): Shared, Path(order): Path<String>, body: Bytes) -> Response {
    let action = form_urlencoded::parse(&body).find(|(name, _)| name == "action").map(|(_, value)| value.into_owned());
    let result = match action.as_deref() {
        Some("pay") => desk.pay(&order).map(|_| "You have paid with money that does not exist."),
        Some("decline") => desk.decline(&order).map(|()| "The payment was declined. The order can still be paid."),
        Some("abandon") => Ok("You have left. The order stays unpaid until it expires."),
        _ => Err(Refusal("Nothing was chosen.")),
    };
    match result {
        Ok(said) => answer(&*desk, &order, StatusCode::OK, said),
        Err(Refusal(said)) => answer(&*desk, &order, StatusCode::CONFLICT, said),
    }
}

fn answer(desk: &dyn Desk, order: &str, status: StatusCode, said: &str) -> Response {
    match desk.bill(order) {
        Some(bill) => page(status, &html(desk.vendor().name(), &bill, said)),
        None => page(StatusCode::NOT_FOUND, &empty(desk.vendor().name())),
    }
}

pub(super) fn page(status: StatusCode, html: &str) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, Html(html.to_owned())).into_response()
}

fn html(vendor: &str, bill: &Bill, said: &str) -> String {
    let said = if said.is_empty() {
        String::new()
    } else {
        format!("<p role=\"status\"><strong>{}</strong></p>", escape(said))
    };
    let buttons = if bill.payable {
        "<form method=\"post\"><button name=\"action\" value=\"pay\">Pay</button> \
         <button name=\"action\" value=\"decline\">Decline</button> \
         <button name=\"action\" value=\"abandon\">Leave without paying</button></form>"
    } else {
        ""
    };
    // Only addresses of the web are made into links, whatever the shop asked for.
    let is_web = |url: &&String| url.starts_with("https://") || url.starts_with("http://");
    let back = bill.return_url.as_ref().filter(is_web).map_or_else(String::new, |url| {
        format!("<p><a href=\"{}\" rel=\"noreferrer\">Back to the shop</a></p>", escape(url))
    });
    frame(
        vendor,
        &format!(
            "{said}<dl><dt>For</dt><dd>{}</dd><dt>Amount</dt><dd>¥{}.{:02}</dd><dt>Order</dt><dd><code>{}</code></dd>\
             <dt>State</dt><dd>{}</dd></dl>{buttons}{back}",
            escape(&bill.description),
            bill.amount / 100,
            bill.amount % 100,
            escape(&bill.order),
            escape(bill.state),
        ),
    )
}

fn empty(vendor: &str) -> String {
    frame(vendor, "<p>There is no such order here.</p>")
}

pub(super) fn frame(vendor: &str, content: &str) -> String {
    let vendor = escape(vendor);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Test payment, not {vendor}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         .test{{background:#fff3cd;border:1px solid #a07800;padding:.6rem}}dt{{color:#555}}dd{{margin:0 0 .6rem}}\
         button{{font:inherit;padding:.3rem .8rem}}form{{display:inline-block;margin:0 .2rem .2rem 0}}code,dd{{overflow-wrap:anywhere}}</style></head>\n\
         <body><h1>Test payment</h1><p class=\"test\">This is a test double on your own machine. It is not {vendor}, and no \
         money moves, whatever is chosen here.</p>{content}</body></html>\n"
    )
}

/// For text and for attributes in double quotes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_order_becomes_markup() {
        let evil = "<script>alert(\"1\")</script>'&";
        let bill = Bill {
            order: evil.to_owned(),
            description: evil.to_owned(),
            amount: 19_905,
            refunded: 0,
            state: "NOTPAY",
            payable: true,
            return_url: Some(format!("https://shop.example/\" onclick=\"{evil}")),
        };
        let page = html("WeChat Pay", &bill, "");
        assert!(!page.contains("<script") && !page.contains("\" onclick"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;"));
        assert!(page.contains("¥199.05") && page.contains("test double"));
        let bill = Bill { return_url: Some("javascript:alert(1)".to_owned()), payable: false, ..bill };
        let page = html("Alipay", &bill, "");
        assert!(!page.contains("javascript:") && !page.contains("<button"));
    }
}

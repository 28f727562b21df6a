//! The HTML of the product page. Text in, text out.

use http::StatusCode;
use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1d2733;background:#f6f7f9}\
header{background:#14324a;color:#fff;padding:.8rem 2rem;display:flex;justify-content:space-between;align-items:center}\
header h1{font-size:1.1rem;margin:0}main{max-width:60rem;margin:1.5rem auto;padding:0 1rem}\
.columns{display:grid;grid-template-columns:1fr 1fr;gap:1.5rem}section{background:#fff;border:1px solid #dde2e8;border-radius:8px;padding:1rem 1.5rem}\
dt{font-weight:600}dd{margin:0 0 .4rem}blockquote{margin:0 0 1rem;border-left:3px solid #c8d1da;padding-left:1rem}\
.stars{font-size:1.3rem;letter-spacing:.1em}.error{color:#a4262c}small{color:#5d6b79}a{color:inherit}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn frame(body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Simple Bookstore App</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// The start page, with a link to the product.
pub(super) fn index() -> String {
    frame(
        "<header><h1>Bookinfo</h1></header>\n<main><p><a href=\"/productpage\">The product page</a></p></main>\n",
    )
}

/// The product page. `details` and `reviews` are the services' answers with their statuses.
pub(super) fn product(
    product: &Value,
    details: &(StatusCode, Value),
    reviews: &(StatusCode, Value),
    user: Option<&str>,
) -> String {
    let title = escape(product["title"].as_str().unwrap_or_default());
    let summary = escape(product["descriptionHtml"].as_str().unwrap_or_default());
    let account = match user {
        Some(user) => format!("<span>{} (<a href=\"/logout\">sign out</a>)</span>", escape(user)),
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"user name\" required>\
                 <button>Sign in</button></form>"
            .to_owned(),
    };
    frame(&format!(
        "<header><h1>BookInfo Sample</h1>{account}</header>\n<main>\n<h2>{title}</h2>\n<p>{summary}</p>\n\
         <div class=\"columns\">\n<section><h3>Book Details</h3>\n{}</section>\n<section><h3>Book Reviews</h3>\n{}</section>\n</div>\n</main>\n",
        details_html(details),
        reviews_html(reviews)
    ))
}

fn details_html((status, details): &(StatusCode, Value)) -> String {
    if *status != StatusCode::OK {
        return error_html("details", details);
    }
    let mut out = String::from("<dl>\n");
    for (name, field) in [
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ] {
        let value = match &details[field] {
            Value::String(text) => escape(text),
            other => other.to_string(),
        };
        out.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>\n"));
    }
    out + "</dl>\n"
}

fn reviews_html((status, reviews): &(StatusCode, Value)) -> String {
    let Some(list) = reviews["reviews"]
        .as_array()
        .filter(|_| *status == StatusCode::OK)
    else {
        return error_html("reviews", reviews);
    };
    let mut out = String::new();
    for review in list {
        let text = escape(review["text"].as_str().unwrap_or_default());
        let reviewer = escape(review["reviewer"].as_str().unwrap_or_default());
        let stars = stars_html(&review["rating"]);
        out.push_str(&format!(
            "<blockquote><p>{text}</p>{stars}<small>{reviewer}</small></blockquote>\n"
        ));
    }
    let by = escape(reviews["podname"].as_str().unwrap_or_default());
    out + &format!("<p><small>Reviews served by: <u>{by}</u></small></p>\n")
}

fn stars_html(rating: &Value) -> String {
    if let Some(count) = rating["stars"].as_u64() {
        let color = if rating["color"] == "red" {
            "red"
        } else {
            "black"
        };
        let count = count.min(5) as usize;
        let (full, empty) = ("★".repeat(count), "☆".repeat(5 - count));
        return format!(
            "<div class=\"stars\" style=\"color:{color}\" title=\"{color} stars\">{full}{empty}</div>"
        );
    }
    match rating["error"].as_str() {
        Some(text) => format!("<p class=\"error\">{}</p>", escape(text)),
        None => String::new(),
    }
}

fn error_html(what: &str, answer: &Value) -> String {
    let text = escape(
        answer["error"]
            .as_str()
            .unwrap_or("the answer makes no sense"),
    );
    format!("<p class=\"error\">Error fetching product {what}!</p>\n<p>{text}</p>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(rating: Value, want: &str) {
        let reviews = json!({"podname": "p", "reviews": [{"reviewer": "R<1>", "text": "t", "rating": rating}]});
        let page = product(
            &json!({"title": "T"}),
            &(StatusCode::OK, json!({})),
            &(StatusCode::OK, reviews),
            None,
        );
        assert!(
            page.contains("<title>Simple Bookstore App</title>") && page.contains("R&lt;1&gt;"),
            "{page}"
        );
        assert!(page.contains(want), "{want:?} not in {page}");
    }

    #[test]
    fn stars_follow_the_version() {
        check(Value::Null, "</p><small>");
        check(
            json!({"stars": 4, "color": "black"}),
            "black stars\">★★★★☆<",
        );
        check(json!({"stars": 5, "color": "red"}), "red stars\">★★★★★<");
        check(json!({"error": "down"}), "<p class=\"error\">down</p>");
    }

    #[test]
    fn a_failed_service_shows_its_error_and_the_rest_of_the_page() {
        let page = product(
            &json!({"title": "T"}),
            &(
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"error": "no details"}),
            ),
            &(StatusCode::OK, json!({"reviews": []})),
            Some("jason"),
        );
        assert!(
            page.contains("no details") && page.contains("Book Reviews") && page.contains("jason")
        );
    }
}

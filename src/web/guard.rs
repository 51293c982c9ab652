//! Who is answered, and what a browser may do with the answer.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Nothing from elsewhere, nothing that stands in the page itself, no frame around it, no form.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// On every answer, also on a refusal.
const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", POLICY),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    // Balances and addresses are nothing for a disk.
    ("cache-control", "no-store"),
];

/// Refuses whoever asks under a name, or wants more than to read.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = if !is_address(request.headers()) {
        let sentence = "this page is answered under its address alone, as http://127.0.0.1:8790: a name could be another site's, which would read it through your browser\n";
        (StatusCode::MISDIRECTED_REQUEST, sentence).into_response()
    } else if matches!(*request.method(), Method::GET | Method::HEAD) {
        next.run(request).await
    } else {
        let sentence = "this page is read only; `akash-redis --help` lists what changes clusters\n";
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], sentence).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the one Host is an address, or this machine's own name for itself.
fn is_address(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        // An address with colons stands in brackets.
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_answered_and_names_are_not() {
        let of = |host: &str| {
            let value = HeaderValue::from_str(host).unwrap();
            is_address(&HeaderMap::from_iter([(header::HOST, value)]))
        };
        for good in ["127.0.0.1:8790", "127.0.0.1", "[::1]:8790", "localhost:1", "LOCALHOST"] {
            assert!(of(good), "{good}");
        }
        for bad in
            ["evil.example", "evil.example:8790", "127.0.0.1.evil.example", "", "localhost.x"]
        {
            assert!(!of(bad), "{bad}");
        }
        assert!(!is_address(&HeaderMap::new()));
        let mut two = HeaderMap::new();
        two.append(header::HOST, HeaderValue::from_static("127.0.0.1"));
        two.append(header::HOST, HeaderValue::from_static("127.0.0.1"));
        assert!(!is_address(&two));
    }

    #[test]
    fn nothing_that_stands_in_the_page_is_run() {
        assert!(!POLICY.contains("unsafe") && POLICY.contains("frame-ancestors 'none'"));
    }
}

//! What of a message's head goes on to the other side of a proxy (RFC 9110 §7.6).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, COOKIE, EXPECT, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

/// For this connection alone, whatever `Connection` says.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether a message asks to go on as WebSocket on this connection.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    let is = |name: &HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    is(&CONNECTION, "upgrade") && is(&UPGRADE, "websocket")
}

/// Takes out what is for this connection alone; a change to WebSocket is said anew.
pub(super) fn strip(headers: &mut HeaderMap, websocket: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Says who visits, in place of what the visitor says of that, and what would need an answer of ours in between.
pub(super) fn introduce(headers: &mut HeaderMap, visitor: Option<String>, host: &str, scheme: &'static str) {
    let is_told = |name: &HeaderName| {
        let name = name.as_str();
        name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-") || name.starts_with("murmur-")
    };
    let told: Vec<HeaderName> = headers.keys().filter(|name| is_told(name)).cloned().collect();
    for name in told.iter().chain([&EXPECT]) {
        headers.remove(name);
    }
    let visitor = visitor.and_then(|text| HeaderValue::from_str(&text).ok());
    let host = HeaderValue::from_str(host).ok();
    let said =
        [(FORWARDED_FOR, visitor), (FORWARDED_HOST, host), (FORWARDED_PROTO, Some(HeaderValue::from_static(scheme)))];
    headers.extend(said.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

/// HTTP/2 may cut a cookie header into pieces; HTTP/1.1 has one (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Cookies are for the tunnel's own host: none of them may name the domain that it shares with other tunnels.
pub(super) fn narrow_cookies(headers: &mut HeaderMap) {
    let is_domain = |part: &str| part.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("domain"));
    let narrowed = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        let parts = text.split(';').enumerate().filter(|(at, part)| *at == 0 || !is_domain(part));
        HeaderValue::from_str(&parts.map(|(_, part)| part).collect::<Vec<_>>().join(";")).ok()
    };
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().filter_map(narrowed).collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_headers_stay_on_their_hop() {
        let mut all = headers(&[
            ("connection", "close, x-secret"),
            ("connection", "Keep-Alive"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("trailer", "x"),
            ("accept", "*/*"),
        ]);
        strip(&mut all, false);
        assert_eq!(names(&all), ["accept"]);
        strip(&mut all, true);
        assert_eq!(
            (&all["connection"], &all["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }

    #[test]
    fn only_both_headers_ask_for_a_websocket() {
        assert!(wants_websocket(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!wants_websocket(&headers(&[("upgrade", "websocket")])));
        assert!(!wants_websocket(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])));
    }

    #[test]
    fn a_visitor_cannot_say_who_it_is() {
        let mut all = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=1"),
            ("x-real-ip", "1"),
            ("murmur-as", "user"),
            ("expect", "100-continue"),
        ]);
        introduce(&mut all, Some("192.0.2.7".to_owned()), "x.localhost:1", "http");
        assert_eq!(names(&all), ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(all.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(all["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn cookies_stay_with_their_tunnel() {
        let mut all = headers(&[("set-cookie", "a=1; Path=/; DOMAIN=localhost; Secure"), ("set-cookie", "domain=2")]);
        narrow_cookies(&mut all);
        let cookies: Vec<_> = all.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(cookies, ["a=1; Path=/; Secure", "domain=2"]);
        let mut all = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut all);
        assert_eq!(all["cookie"], "a=1; b=2");
    }
}

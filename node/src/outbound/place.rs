//! Where a call goes, as somebody wrote it.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{Uri, uri::PathAndQuery};

use super::Rules;

/// Longest address that is taken.
const BYTES_MAX: usize = 2048;

/// A place to call, from its URL. Shown without its path, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    is_tls: bool,
    host: String,
    port: Option<u16>,
    path: PathAndQuery,
}

/// Why a place may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address must {rule}")]
pub struct Refused {
    rule: &'static str,
}

impl Refused {
    /// What it must be.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}

impl FromStr for Place {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = |rule| Refused { rule };
        if text.len() > BYTES_MAX {
            return Err(refused("be at most 2048 bytes"));
        }
        let uri: Uri = text.parse().map_err(|_| refused("be a URL such as https://example.com/hook"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refused("begin with https://")),
        };
        let authority = uri.authority().ok_or_else(|| refused("name a host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("hold no user or password"));
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() {
            return Err(refused("name a host"));
        }
        let port = authority.port_u16();
        if port.is_none()
            && authority.as_str().trim_end_matches(|c: char| c.is_ascii_digit()).ends_with(':')
            && !host.ends_with(']')
        {
            return Err(refused("have a port of 1 to 65535"));
        }
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { is_tls, host, port, path })
    }
}

impl Place {
    /// Whether the rules let it be called, as far as its name tells.
    ///
    /// # Errors
    /// [`Refused`] with the rule.
    pub fn check(&self, rules: &Rules) -> Result<(), Refused> {
        let refused = |rule| Err(Refused { rule });
        if rules.allow_local {
            return Ok(());
        }
        if !self.is_tls {
            return refused("begin with https://");
        }
        if !rules.ports.contains(&self.port()) {
            return refused("have a listed port (`ports`, by default 443)");
        }
        if self.is_literal() {
            return refused("name a host, not an address");
        }
        Ok(())
    }

    /// The host's name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without the brackets of an IPv6 address.
    pub(super) fn name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.is_tls { 443 } else { 80 })
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What stands in the request's `Host`.
    pub(super) fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// What stands in the request's first line.
    pub(super) fn target(&self) -> Uri {
        Uri::from(self.path.clone())
    }

    /// The same place with another path, which must begin with `/`.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Option<Self> {
        let path = format!("{}{path}", self.path.path().trim_end_matches('/')).parse().ok()?;
        Some(Self { path, ..self.clone() })
    }

    /// The same place with a query behind its path.
    #[must_use]
    pub fn with_query(&self, query: &str) -> Option<Self> {
        let separator = if self.path.query().is_some() { '&' } else { '?' };
        let path = format!("{}{separator}{query}", self.path).parse().ok()?;
        Some(Self { path, ..self.clone() })
    }

    /// Whether the host is an address, or something that a resolver would take for one: its last label is a number (WHATWG URL, "ends in
    /// a number").
    fn is_literal(&self) -> bool {
        let last = self.host.rsplit('.').next().unwrap_or_default();
        let is_hex = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        self.name().parse::<IpAddr>().is_ok()
            || self.host.starts_with('[')
            || is_hex
            || last.bytes().all(|b| b.is_ascii_digit())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, rules: &Rules) -> Result<(), &'static str> {
        let place = url.parse::<Place>().map_err(|refused| refused.rule())?;
        place.check(rules).map_err(|refused| refused.rule())
    }

    #[test]
    fn only_names_on_listed_ports_with_tls_are_called() {
        let rules = Rules::default();
        assert_eq!(check("https://example.com/hook?x=1", &rules), Ok(()));
        assert_eq!(check("https://example.com.:443/", &rules), Ok(()));
        for url in [
            "",
            "example.com",
            "/hook",
            "http://example.com/",
            "ftp://example.com/",
            "https:///x",
            "https://example.com:8443/",
            "https://example.com:99999/",
            "https://me:secret@example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://127.1/",
            "https://0177.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://exa mple.com/",
            "https://example.com\r\n.evil/",
        ] {
            assert!(check(url, &rules).is_err(), "{url}");
        }
        let wide = Rules { ports: vec![443, 8443], allow_local: false };
        assert_eq!(check("https://example.com:8443/", &wide), Ok(()));
        let local = Rules { allow_local: true, ..rules };
        assert_eq!(check("http://127.0.0.1:8080/x", &local), Ok(()));
        assert_eq!(check("http://[::1]:8080/x", &local), Ok(()));
    }

    #[test]
    fn a_place_is_shown_without_its_path() {
        let place: Place = "https://api.telegram.org/bot12:secret/sendMessage".parse().unwrap();
        assert_eq!(format!("{place} {place:?}"), "https://api.telegram.org Place(https://api.telegram.org)");
        let base: Place = "https://example.com/bot-api/".parse().unwrap();
        assert_eq!(base.with_path("/send").unwrap().target().path(), "/bot-api/send");
        assert_eq!(base.with_query("wait=true").unwrap().target(), "/bot-api/?wait=true");
    }
}

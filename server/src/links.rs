//! Addresses of what is reached by a link alone: nobody guesses 128 random bits, and whoever has them is let in.

use std::{fmt, net::SocketAddr, str::FromStr};

use http::Uri;

use crate::random::{self, RandomError};

/// The unguessable part of a link. There is no `Debug`: it is a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkKey([u8; 16]);

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 lowercase hex digits")]
pub struct InvalidLinkKey;

impl LinkKey {
    /// A new one.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn new() -> Result<Self, RandomError> {
        Ok(Self(random::bytes()?))
    }

    /// As stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for LinkKey {
    type Err = InvalidLinkKey;

    fn from_str(text: &str) -> Result<Self, InvalidLinkKey> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidLinkKey)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidLinkKey)?))
    }
}

/// Where others reach this control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    scheme: &'static str,
    /// Host and port, as in a URL.
    authority: String,
    /// `:7700`, or empty.
    port: String,
    tunnel_domain: Option<String>,
}

/// A text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicUrl {
    /// Not of the form.
    #[error("must be http:// or https://, a host, and a port if need be, and nothing more")]
    Url,
    /// Not of the form.
    #[error("must be a domain of a-z, 0-9, - and .")]
    Domain,
}

impl PublicUrl {
    /// Reads what is configured.
    ///
    /// # Errors
    /// [`InvalidPublicUrl`].
    pub fn parse(text: &str, tunnel_domain: Option<&str>) -> Result<Self, InvalidPublicUrl> {
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| InvalidPublicUrl::Url)?;
        let scheme = match uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            _ => return Err(InvalidPublicUrl::Url),
        };
        let authority = uri.authority().filter(|name| !name.as_str().contains('@')).ok_or(InvalidPublicUrl::Url)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.host().is_empty() {
            return Err(InvalidPublicUrl::Url);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let is_loopback = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let tunnel_domain = match tunnel_domain {
            Some(domain) if !is_domain(domain) => return Err(InvalidPublicUrl::Domain),
            Some(domain) => Some(domain.to_owned()),
            // Browsers and curl take every name below it for this machine (RFC 6761).
            None if is_loopback => Some("localhost".to_owned()),
            None => None,
        };
        let port = authority.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self { scheme, authority: authority.as_str().to_ascii_lowercase(), port, tunnel_domain })
    }

    /// Where it listens, when nothing is configured.
    ///
    /// # Errors
    /// [`InvalidPublicUrl`].
    pub fn of(address: SocketAddr, tls: bool, tunnel_domain: Option<&str>) -> Result<Self, InvalidPublicUrl> {
        let scheme = if tls { "https" } else { "http" };
        Self::parse(&format!("{scheme}://{address}"), tunnel_domain)
    }

    /// An uploaded file.
    #[must_use]
    pub fn upload(&self, key: LinkKey, extension: &str) -> String {
        format!("{}://{}/f/{key}{extension}", self.scheme, self.authority)
    }

    /// A page about an agent.
    #[must_use]
    pub fn agent(&self, key: LinkKey) -> String {
        format!("{}://{}/a/{key}", self.scheme, self.authority)
    }

    /// A tunnel: a host of its own where there is a domain for them, else a path.
    #[must_use]
    pub fn tunnel(&self, key: LinkKey) -> String {
        let Self { scheme, authority, port, tunnel_domain } = self;
        match tunnel_domain {
            Some(domain) => format!("{scheme}://{key}.{domain}{port}/"),
            None => format!("{scheme}://{authority}/t/{key}/"),
        }
    }

    /// Which tunnel a host names: `None` for a host that is none of a tunnel, an error for one that is and names no key.
    #[must_use]
    pub fn tunnel_of(&self, host: &str) -> Option<Result<LinkKey, InvalidLinkKey>> {
        let domain = self.tunnel_domain.as_deref()?;
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let name = name.map_or(host, |(name, _)| name).trim_end_matches('.').to_ascii_lowercase();
        let label = name.strip_suffix(domain)?.strip_suffix('.')?;
        Some(label.parse())
    }

    /// Whether tunnels have hosts of their own.
    #[must_use]
    pub const fn has_tunnel_domain(&self) -> bool {
        self.tunnel_domain.is_some()
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.scheme
    }
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 200 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn an_address_has_nothing_behind_its_port() {
        for good in ["http://127.0.0.1:7700", "https://murmur.example.org", "http://[::1]:7/", "http://LocalHost:1"] {
            PublicUrl::parse(good, None).unwrap();
        }
        for bad in ["", "murmur", "ftp://x", "http://", "http://x/path", "http://x?q", "http://me@x", "http://x:1:2"] {
            assert_eq!(PublicUrl::parse(bad, None), Err(InvalidPublicUrl::Url), "{bad}");
        }
        assert_eq!(PublicUrl::parse("http://x", Some("a..b")), Err(InvalidPublicUrl::Domain));
    }

    #[test]
    fn a_tunnel_has_a_host_of_its_own_where_there_can_be_one() {
        let key: LinkKey = KEY.parse().unwrap();
        let at = |url: &str, domain| PublicUrl::parse(url, domain).unwrap().tunnel(key);
        assert_eq!(at("http://127.0.0.1:7700", None), format!("http://{KEY}.localhost:7700/"));
        assert_eq!(at("https://m.example.org", Some("t.example.org")), format!("https://{KEY}.t.example.org/"));
        assert_eq!(at("https://m.example.org", None), format!("https://m.example.org/t/{KEY}/"));
    }

    #[test]
    fn only_whole_hosts_of_the_domain_name_tunnels() {
        let url = PublicUrl::parse("http://127.0.0.1:7700", None).unwrap();
        for host in [format!("{KEY}.localhost:7700"), format!("{KEY}.LOCALHOST"), format!("{KEY}.localhost.:80")] {
            assert!(url.tunnel_of(&host).is_some_and(|found| found == KEY.parse()), "{host}");
        }
        for host in ["localhost:7700", "127.0.0.1:7700", "evillocalhost", "x.localhost.evil.org", ""] {
            assert!(url.tunnel_of(host).is_none(), "{host}");
        }
        for host in ["x.localhost", &format!("a.{KEY}.localhost"), &format!("{}.localhost", KEY.to_uppercase())] {
            let found = url.tunnel_of(host);
            assert!(
                found.is_some_and(|found| found.is_err() != host.eq_ignore_ascii_case(&format!("{KEY}.localhost")))
            );
        }
    }
}

//! Names on the broker (PROTOCOL §5.1, §5.2): subjects, streams, consumers and inboxes.
//!
//! A message to a node goes to `mm.in.<site>.<shard>.<workspace>.<node>.<destination>.<source node>`. The first six tokens
//! are the node's [`Route`], handed out by the directory; senders never compute it. Ids are written as 32 lowercase hex
//! digits and nothing else is accepted, so that one address has one spelling.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{AgentId, NodeId, WorkspaceId};

/// Shards of a site: `00` to `15`.
pub const SHARDS_MAX: u8 = 16;
/// Longest name of a site.
pub const SITE_BYTES_MAX: usize = 32;

const ROOT: &str = "mm.in.";

/// A broker name that breaks a rule of this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} must be {rule}, got `{text}`")]
pub struct InvalidSubject {
    /// Which part of the name is wrong, such as `site`.
    pub part: &'static str,
    /// What it has to be.
    pub rule: &'static str,
    /// What was given, cut at 256 characters.
    pub text: String,
}

impl InvalidSubject {
    fn new(part: &'static str, rule: &'static str, text: &str) -> Self {
        Self { part, rule, text: text.chars().take(256).collect() }
    }
}

/// One installation of brokers and control plane: lowercase letters, digits and inner hyphens, at most 32.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(String);

impl Site {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Site {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let charset = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let edges = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > SITE_BYTES_MAX || !charset || edges {
            return Err(InvalidSubject::new("site", "1 to 32 of a-z, 0-9 and inner hyphens", text));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard of a site, written with two digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// The only shard of a small site.
    pub const ZERO: Self = Self(0);

    /// A shard by number.
    ///
    /// # Errors
    /// [`InvalidSubject`] when the number is not below [`SHARDS_MAX`].
    pub fn new(number: u8) -> Result<Self, InvalidSubject> {
        if number >= SHARDS_MAX {
            return Err(InvalidSubject::new("shard", "00 to 15", &number.to_string()));
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char(char::from(b'0' + self.0 / 10))?;
        f.write_char(char::from(b'0' + self.0 % 10))
    }
}

impl FromStr for Shard {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let wrong = || InvalidSubject::new("shard", "00 to 15", text);
        if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        Self::new(text.parse().map_err(|_| wrong())?)
    }
}

/// The tokens of a subject that are its node's route, whatever they are; the whole of one that is shorter.
#[must_use]
pub fn route_of(subject: &str) -> &str {
    const TOKENS: usize = 6;
    subject.match_indices('.').nth(TOKENS - 1).map_or(subject, |(at, _)| &subject[..at])
}

/// Where a node takes its mail: `mm.in.<site>.<shard>.<workspace>.<node>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The node's site.
    pub site: Site,
    /// The shard the directory gave it.
    pub shard: Shard,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// The node.
    pub node: NodeId,
}

impl Route {
    /// The subject of one message, acknowledgement or block to this node, sent by node `source`.
    #[must_use]
    pub fn subject(&self, destination: Destination, source: NodeId) -> String {
        format!("{self}.{destination}.{}", source.encode_hex(&mut [0; 32]))
    }

    /// The pattern of everything sent to this node: its consumer's filter.
    #[must_use]
    pub fn filter(&self) -> String {
        format!("{self}.>")
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, shard, workspace, node } = self;
        // One for each message: without a string for each part.
        f.write_str(ROOT)?;
        f.write_str(site.as_str())?;
        f.write_char('.')?;
        shard.fmt(f)?;
        f.write_char('.')?;
        f.write_str(workspace.encode_hex(&mut [0; 32]))?;
        f.write_char('.')?;
        f.write_str(node.encode_hex(&mut [0; 32]))
    }
}

impl FromStr for Route {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let wrong = || InvalidSubject::new("route", "mm.in.<site>.<shard>.<workspace>.<node>", text);
        let mut tokens = text.strip_prefix(ROOT).ok_or_else(wrong)?.split('.');
        let mut token = || tokens.next();
        let (Some(site), Some(shard), Some(workspace), Some(node), None) =
            (token(), token(), token(), token(), token())
        else {
            return Err(wrong());
        };
        Ok(Self {
            site: site.parse()?,
            shard: shard.parse()?,
            workspace: parse_id("workspace", workspace)?,
            node: parse_id("node", node)?,
        })
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What of a node is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Destination {
    /// One agent.
    Agent(AgentId),
    /// The node's outbox: acknowledgement frames.
    Ack,
    /// Blocks of a chunk stream.
    Blocks,
    /// Every addressed agent of the node: one copy of a channel envelope.
    Multi,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => f.write_str(agent.encode_hex(&mut [0; 32])),
            Self::Ack => f.write_str("_ack"),
            Self::Blocks => f.write_str("_blk"),
            Self::Multi => f.write_str("_multi"),
        }
    }
}

impl FromStr for Destination {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        match text {
            "_ack" => Ok(Self::Ack),
            "_blk" => Ok(Self::Blocks),
            "_multi" => Ok(Self::Multi),
            agent => parse_id("destination", agent).map(Self::Agent),
        }
    }
}

/// A parsed subject: who it is for, and which node the broker let write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The receiving node.
    pub route: Route,
    /// What of that node is addressed.
    pub destination: Destination,
    /// The sending node; the broker's permissions let nobody else use it.
    pub source: NodeId,
}

/// Reads the subject of a message.
///
/// # Errors
/// [`InvalidSubject`] naming the part that is wrong.
pub fn parse_subject(subject: &str) -> Result<Address, InvalidSubject> {
    let rule = "mm.in.<site>.<shard>.<workspace>.<node>.<destination>.<source node>";
    let wrong = || InvalidSubject::new("subject", rule, subject);
    let (rest, source) = subject.rsplit_once('.').ok_or_else(wrong)?;
    let (route, destination) = rest.rsplit_once('.').ok_or_else(wrong)?;
    Ok(Address { route: route.parse()?, destination: destination.parse()?, source: parse_id("source node", source)? })
}

/// The stream of a shard, such as `MM_IN_00`.
#[must_use]
pub fn stream_name(shard: Shard) -> String {
    format!("MM_IN_{shard}")
}

/// The pattern of everything a shard's stream stores.
#[must_use]
pub fn stream_subjects(site: &Site, shard: Shard) -> String {
    format!("{ROOT}{site}.{shard}.>")
}

/// The consumer of a node, such as `c_0b…`. Made by the control plane, used by that node alone.
#[must_use]
pub fn consumer_name(node: NodeId) -> String {
    format!("c_{}", node.hex())
}

/// The prefix of a node's reply inboxes, new for each connection: others may write to an inbox they can guess.
#[must_use]
pub fn inbox_prefix(node: NodeId, random: [u8; 16]) -> String {
    let random = NodeId::from_bytes(random).hex();
    format!("_INBOX_{}.{random}", node.hex())
}

/// Reads 32 lowercase hex digits; an id's other spellings (hyphens, capitals) are no part of a subject.
fn parse_id<T: FromStr>(part: &'static str, text: &str) -> Result<T, InvalidSubject> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.parse().ok().filter(|_| is_hex).ok_or_else(|| InvalidSubject::new(part, "32 lowercase hex digits", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            site: "local".parse().unwrap(),
            shard: Shard::ZERO,
            workspace: WorkspaceId::from_bytes([0xaa; 16]),
            node: NodeId::from_bytes([0xbb; 16]),
        }
    }

    #[test]
    fn a_subject_reads_back() {
        let source = NodeId::from_bytes([0xcc; 16]);
        for destination in [
            Destination::Agent(AgentId::from_bytes([0xdd; 16])),
            Destination::Ack,
            Destination::Blocks,
            Destination::Multi,
        ] {
            let subject = route().subject(destination, source);
            assert_eq!(parse_subject(&subject), Ok(Address { route: route(), destination, source }), "{subject}");
        }
        let (ws, node, src) = ("aa".repeat(16), "bb".repeat(16), "cc".repeat(16));
        assert_eq!(route().subject(Destination::Ack, source), format!("mm.in.local.00.{ws}.{node}._ack.{src}"));
    }

    #[test]
    fn names_are_the_protocols() {
        let node = NodeId::from_bytes([0xbb; 16]);
        let hex = "bb".repeat(16);
        assert_eq!(stream_name(Shard::new(7).unwrap()), "MM_IN_07");
        assert_eq!(stream_subjects(&"local".parse().unwrap(), Shard::ZERO), "mm.in.local.00.>");
        assert_eq!(consumer_name(node), format!("c_{hex}"));
        assert_eq!(inbox_prefix(node, [1; 16]), format!("_INBOX_{hex}.{}", "01".repeat(16)));
        assert!(route().filter().ends_with(&format!("{hex}.>")));
    }

    #[test]
    fn one_address_has_one_spelling() {
        let good = route().to_string();
        assert_eq!(good.parse(), Ok(route()));
        let node = "bb".repeat(16);
        let bad = [
            ("site", good.replace("local", "Local")),
            ("site", good.replace("local", "*")),
            ("shard", good.replace(".00.", ".0.")),
            ("shard", good.replace(".00.", ".16.")),
            ("shard", good.replace(".00.", ".+1.")),
            ("node", good.replace(&node, &node.to_uppercase())),
            ("node", good.replace(&node, &route().node.to_string())),
            ("route", format!("{good}.x")),
            ("route", good.replace("mm.in", "mm.out")),
        ];
        for (part, text) in bad {
            assert_eq!(text.parse::<Route>().unwrap_err().part, part, "{text}");
        }
    }

    #[test]
    fn refuses_unknown_destinations_and_short_subjects() {
        let source = "cc".repeat(16);
        for (part, subject) in [
            ("destination", format!("{}._other.{source}", route())),
            ("source node", format!("{}._ack.>", route())),
            ("subject", "mm".to_owned()),
            ("route", format!("{}.{source}", route())),
        ] {
            assert_eq!(parse_subject(&subject).unwrap_err().part, part, "{subject}");
        }
    }
}

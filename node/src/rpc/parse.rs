//! Fields of calls, each parsed once into its own type.

use data_encoding::BASE64URL_NOPAD;
use murmur_core::{
    id::{AgentId, MessageId},
    limits,
    outbox::StateName,
    slug::{AgentPath, Segment, Slug, normalise_name},
};
use murmur_proto::node::v1;

use super::status::{Field, Refusal};
use crate::post::Place;

/// The account's own agent, for callers that name none.
const ME: &str = "me";
const PAGE_TOKEN_RULE: &str = "must come from the page before";

fn refused(name: &'static str, rule: impl std::fmt::Display) -> Refusal {
    Field { name, rule: rule.to_string() }.into()
}

/// A path below the account: as it is when it fits the grammar, else made to fit when it is one name.
pub(super) fn agent_path(agent: &str) -> Result<AgentPath, Refusal> {
    let agent = agent.trim();
    if agent.is_empty() {
        return Ok(ME.parse()?);
    }
    match agent.parse::<AgentPath>() {
        Ok(path) => Ok(path),
        Err(error) if agent.contains('/') => Err(error.into()),
        Err(_) => Ok(Segment::into(normalise_name(agent)?)),
    }
}

/// The name with a number behind it, within the length of a segment.
pub(super) fn suffixed(agent: &str, number: u32) -> Result<String, Refusal> {
    let path = agent_path(agent)?.to_string();
    let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(parent, name)| (parent, name));
    let suffix = format!("-{number}");
    let kept = name.get(..limits::SLUG_SEGMENT_BYTES_MAX - suffix.len()).unwrap_or(name).trim_end_matches('-');
    let slash = if parent.is_empty() { "" } else { "/" };
    Ok(format!("{parent}{slash}{kept}{suffix}"))
}

/// A message id that must be there.
pub(super) fn msg_id(name: &'static str, text: &str) -> Result<MessageId, Refusal> {
    text.parse().map_err(|error| refused(name, error))
}

/// A message id that may be absent.
pub(super) fn msg_id_option(name: &'static str, text: &str) -> Result<Option<MessageId>, Refusal> {
    if text.is_empty() { Ok(None) } else { msg_id(name, text).map(Some) }
}

/// A delivery's state that may be absent.
pub(super) fn state_option(name: &'static str, number: i32) -> Result<Option<StateName>, Refusal> {
    use v1::DeliveryState as Wire;
    Ok(Some(match Wire::try_from(number).map_err(|_| refused(name, "must be a state of a delivery"))? {
        Wire::Unspecified => return Ok(None),
        Wire::Queued => StateName::Queued,
        Wire::Sealed => StateName::Sealed,
        Wire::Stored => StateName::Stored,
        Wire::Delivered => StateName::Delivered,
        Wire::Read => StateName::Read,
        Wire::Expired => StateName::Expired,
        Wire::Dead => StateName::Dead,
        Wire::Cancelled => StateName::Cancelled,
    }))
}

/// Where a page of deliveries begins: behind the one that the token of the page before names.
pub(super) fn delivery_token(token: &str) -> Result<Option<Place>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| refused("page_token", PAGE_TOKEN_RULE))?;
    let half = |at: usize| bytes[at..at + 16].try_into().map_err(|_| refused("page_token", PAGE_TOKEN_RULE));
    Ok(Some((MessageId::from_bytes(half(0)?), AgentId::from_bytes(half(16)?))))
}

/// The token of the page that begins behind a delivery.
pub(super) fn next_delivery_token((msg_id, recipient): Place) -> String {
    BASE64URL_NOPAD.encode(&[*msg_id.as_bytes(), *recipient.as_bytes()].concat())
}

/// Where a page of the quarantine begins: behind the number that the token of the page before names.
pub(super) fn number_token(token: &str) -> Result<u64, Refusal> {
    if token.is_empty() {
        return Ok(0);
    }
    token.parse().map_err(|_| refused("page_token", PAGE_TOKEN_RULE))
}

/// Text that may be absent.
pub(super) fn text_option(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The size of a page: 0 is the default, and more than the most is the most.
pub(super) fn page_size(size: u32) -> usize {
    let size = if size == 0 { limits::PAGE_SIZE_DEFAULT } else { size.min(limits::PAGE_SIZE_MAX) };
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Where a page begins: behind the agent that the token of the page before names.
pub(super) fn page_token(token: &str) -> Result<String, Refusal> {
    let slug = BASE64URL_NOPAD.decode(token.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let slug = slug.filter(|slug| slug.is_empty() || slug.parse::<Slug>().is_ok());
    slug.ok_or_else(|| refused("page_token", PAGE_TOKEN_RULE))
}

/// The token of the page that begins behind an agent.
pub(super) fn next_page_token(last: &Slug) -> String {
    BASE64URL_NOPAD.encode(last.to_string().as_bytes())
}

/// A number of at most `most`.
pub(super) fn at_most(name: &'static str, value: u32, most: u32) -> Result<u32, Refusal> {
    if value <= most { Ok(value) } else { Err(refused(name, format!("must be 0 to {most}, got {value}"))) }
}

/// A list of at most so many.
pub(super) fn few(name: &'static str, count: usize, most: u32) -> Result<(), Refusal> {
    if count <= most as usize { Ok(()) } else { Err(refused(name, format!("must have at most {most}, got {count}"))) }
}

/// A description or group: at most `most` bytes, on one line.
pub(super) fn words(name: &'static str, text: String, most: usize) -> Result<String, Refusal> {
    if text.len() > most {
        return Err(refused(name, format!("must be at most {most} bytes, got {}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(refused(name, "must not hold control characters"));
    }
    Ok(text)
}

/// Which run of a program speaks; may be empty.
pub(super) fn instance(text: String) -> Result<String, Refusal> {
    words("instance", text, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(agent: &str) -> Option<String> {
        agent_path(agent).ok().map(|path| path.to_string())
    }

    #[test]
    fn a_page_goes_on_where_the_one_before_ended_and_takes_no_other_token() {
        let slug = "/w/acme/u/jdoe/me";
        let token = next_page_token(&slug.parse().unwrap());
        assert_eq!(page_token(&token).ok().as_deref(), Some(slug));
        assert_eq!(page_token("").ok().as_deref(), Some(""));
        for foreign in [slug, "?", "AAAA"] {
            assert!(page_token(foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn a_page_of_deliveries_goes_on_where_the_one_before_ended_and_takes_no_other_token() {
        let place = (MessageId::from_bytes([7; 16]), AgentId::from_bytes([9; 16]));
        assert_eq!(delivery_token(&next_delivery_token(place)).ok(), Some(Some(place)));
        assert_eq!(delivery_token("").ok(), Some(None));
        for foreign in ["?", "AAAA", "7", next_page_token(&"/w/acme/u/jdoe/me".parse().unwrap()).as_str()] {
            assert!(delivery_token(foreign).is_err(), "{foreign}");
        }
        assert!(number_token("x").is_err() && number_token("-1").is_err());
    }

    #[test]
    fn a_state_is_one_of_ours() {
        assert_eq!(state_option("until", 4).ok(), Some(Some(StateName::Delivered)));
        assert_eq!(state_option("until", 0).ok(), Some(None));
        assert!(state_option("until", 99).is_err());
    }

    #[test]
    fn a_suffix_keeps_within_the_limit() {
        let suffixed = |agent: &str, number| suffixed(agent, number).ok().unwrap();
        assert_eq!(suffixed("My App", 2), "my-app-2");
        assert_eq!(suffixed("ci/fix", 10), "ci/fix-10");
        assert_eq!(suffixed(&"a".repeat(63), 2), format!("{}-2", "a".repeat(61)));
    }

    #[test]
    fn names_are_made_to_fit_and_paths_are_not() {
        assert_eq!(path("").as_deref(), Some("me"));
        assert_eq!(path("Claude Code (2)").as_deref(), Some("claude-code-2"));
        assert_eq!(path("ci/fix").as_deref(), Some("ci/fix"));
        for wrong in ["CI/fix", "ci//fix", "!!", "self", "../x"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}

//! Names, subjects and tokens: one thing has one spelling.

use murmur_core::{
    limits::{SLUG_BYTES_MAX, SLUG_SEGMENT_BYTES_MAX, SLUG_SEGMENTS_MAX},
    slug::{Scope, Slug, SlugText, normalise_name},
    subject::{Route, Site, parse_subject},
    token::Token,
};

pub(super) fn subject_parse(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(address) = parse_subject(&text) {
        assert_eq!(address.route.subject(address.destination, address.source), text, "two spellings of one address");
        assert_eq!(text.split('.').count(), 8);
        assert!(!text.contains(['*', '>', ' ', '\r', '\n', '\t']), "a subject that the broker would read otherwise");
    }
    if let Ok(route) = text.parse::<Route>() {
        assert_eq!(route.to_string(), text);
    }
    if let Ok(site) = text.parse::<Site>() {
        assert_eq!(site.as_str(), text);
    }
}

pub(super) fn slug_parse(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(slug) = text.parse::<Slug>() {
        let printed = slug.to_string();
        assert!(printed.eq_ignore_ascii_case(&text), "another slug than was typed: {printed}");
        assert_eq!(printed.parse::<Slug>().as_ref(), Ok(&slug), "two spellings of one slug");
        assert!(printed.len() <= SLUG_BYTES_MAX);
        check_path(slug.path().as_str());
        let below = Scope::below(&slug);
        assert_eq!(below.as_str().parse::<Scope>().as_ref(), Ok(&below), "two spellings of one scope");
        if let Some(child) = "child".parse().ok().and_then(|path| slug.child(&path).ok()) {
            assert!(below.contains(&child) && !below.contains(&slug), "a scope that is not what is below");
        }
    }
    match SlugText::parse(&text) {
        Ok(SlugText::Absolute { path, .. } | SlugText::Relative { path, .. }) => check_path(path.as_str()),
        Ok(SlugText::SelfSlug) => assert!(text.is_empty() || text == "self"),
        Err(error) => assert!(error.to_string().len() < 4 * SLUG_BYTES_MAX, "an error as long as its input"),
    }
    if let Ok(name) = normalise_name(&text) {
        check_path(name.as_str());
        assert_eq!(normalise_name(name.as_str()).as_ref(), Ok(&name), "not normal after all");
    }
}

fn check_path(path: &str) {
    assert!((1..=SLUG_SEGMENTS_MAX).contains(&path.split('/').count()), "{path}");
    for segment in path.split('/') {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!((1..=SLUG_SEGMENT_BYTES_MAX).contains(&segment.len()) && segment.bytes().all(allowed), "{path}");
        assert!(!segment.starts_with('-') && !segment.ends_with('-'), "{path}");
        assert_ne!(segment, "self", "reserved: {path}");
    }
}

pub(super) fn token_parse(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(token) = Token::parse(&text) else { return };
    assert_eq!(*token.expose(), text, "two spellings of one token");
    assert!(token.matches(&token.hash()) && !token.matches(&[0; 32]));
    let secret = text.rsplit_once('_').map(|(_, secret)| &secret[..20]).unwrap();
    assert!(!format!("{token:?}").contains(secret), "a secret in a log");
}

//! Permission requests as questions: what a person reads, and what the buttons carry.

use data_encoding::BASE64URL_NOPAD;
use murmur_core::text::shortened;
use murmur_crypto::hash::sha256;

use super::{parcel::Question, short};
use crate::{permission::PermissionRow, store::prompt::ButtonHash};

/// Of a description, and of arguments. Whoever answers is told where something is left out.
const WORDS_BYTES_MAX: usize = 1_500;
/// Of the tool's name.
const TOOL_BYTES_MAX: usize = 128;
/// 128 bits: nobody guesses one.
const BUTTON_BYTES: usize = 16;

/// A question with new buttons, and by what these are known again.
pub(super) fn ask(row: &PermissionRow) -> Result<(Question, [ButtonHash; 2]), getrandom::Error> {
    let (allow, deny) = (button()?, button()?);
    let hashes = [hash(&allow), hash(&deny)];
    Ok((Question { number: row.number, text: text(row), allow, deny }, hashes))
}

/// By what a button is known.
pub(super) fn hash(button: &str) -> ButtonHash {
    sha256(button.as_bytes())
}

fn button() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BUTTON_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

/// What is asked: a line of ours, then the agent's words, each line marked so that none of them can pass for ours.
pub(super) fn text(row: &PermissionRow) -> String {
    let PermissionRow { request_id, slug, tool_name, description, input_preview, .. } = row;
    let tool = shortened(tool_name.chars().filter(|c| !c.is_control()).collect(), TOOL_BYTES_MAX);
    let mut text = format!("{} asks to use {tool} ({request_id})", short(&slug.to_string()));
    for words in [description, input_preview] {
        quote(words, &mut text);
    }
    text
}

/// The question, and what became of it.
pub(super) fn outcome(row: &PermissionRow) -> String {
    let end = match row.allowed {
        Some(true) => format!("Allowed by {}.", row.answered_by),
        Some(false) => format!("Denied by {}.", row.answered_by),
        None if row.withdrawn_ms.is_some() => "Withdrawn: the program that asked is gone.".to_owned(),
        None => "Its time has passed.".to_owned(),
    };
    format!("{}\n{end}", text(row))
}

fn quote(words: &str, text: &mut String) {
    let kept = &words[..words.floor_char_boundary(WORDS_BYTES_MAX)];
    for line in kept.lines() {
        text.push_str("\n│ ");
        text.extend(line.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()));
    }
    if kept.len() < words.len() {
        text.push_str("\n(cut here: murmurctl permission ls shows the rest)");
    }
}

#[cfg(test)]
mod tests {
    use murmur_core::id::AgentId;

    use super::*;

    fn row(description: &str, input_preview: &str) -> PermissionRow {
        PermissionRow {
            number: 1,
            request_id: "abcde".to_owned(),
            agent: AgentId::from_bytes([1; 16]),
            slug: "/w/acme/u/jo/worker".parse().unwrap(),
            tool_name: "Bash".to_owned(),
            description: description.to_owned(),
            input_preview: input_preview.to_owned(),
            asked_ms: 0,
            expires_ms: 1,
            allowed: None,
            answered_by: String::new(),
            answered_ms: None,
            withdrawn_ms: None,
        }
    }

    #[test]
    fn an_agents_words_cannot_pass_for_an_answer() {
        let text = outcome(&PermissionRow {
            allowed: Some(false),
            answered_by: "telegram:jo".to_owned(),
            ..row("Removes files\nAllowed by telegram:jo.", "{\"command\":\"rm -rf build\"}")
        });
        assert_eq!(
            text,
            "jo/worker asks to use Bash (abcde)\n│ Removes files\n│ Allowed by telegram:jo.\n\
             │ {\"command\":\"rm -rf build\"}\nDenied by telegram:jo."
        );
    }

    #[test]
    fn a_question_fits_into_a_message_and_says_what_is_left_out() {
        let text = outcome(&row(&"é\n".repeat(2_000), &"x".repeat(4_000)));
        assert!(text.chars().count() <= 4_096, "{}", text.chars().count());
        assert_eq!(text.matches("(cut here").count(), 2);
    }

    #[test]
    fn buttons_are_never_the_same_and_small_enough() {
        let (one, hashes) = ask(&row("", "")).unwrap();
        let (other, _) = ask(&row("", "")).unwrap();
        let all = [&one.allow, &one.deny, &other.allow, &other.deny];
        assert!(all.iter().all(|button| button.len() <= 64));
        assert!((0..4).all(|index| !all[..index].contains(&all[index])));
        assert_eq!(hashes, [hash(&one.allow), hash(&one.deny)]);
    }
}

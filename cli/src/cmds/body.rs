//! A message's body from the command line or from stdin.

use std::io::{self, IsTerminal as _, Read as _};

use murmur_core::limits::BODY_BYTES_MAX;

use crate::failure::{Context as _, Failure};

/// The text as given; `-`, or no text when something is piped in, means stdin.
fn read(text: Option<String>) -> Result<Vec<u8>, Failure> {
    let body = match text {
        Some(text) if text != "-" => text.into_bytes(),
        Some(_) => read_stdin()?,
        None if !io::stdin().is_terminal() => read_stdin()?,
        None => {
            return Err(
                Failure::usage("there is no text to send").remedy("Give the text as an argument, or pipe it in.")
            );
        }
    };
    if body.len() > BODY_BYTES_MAX {
        return Err(Failure::usage(format!("the text is longer than {BODY_BYTES_MAX} bytes"))
            .remedy("Shorten it, or put it somewhere and send where it is."));
    }
    Ok(body)
}

/// As [`read`], for what must be text.
pub(crate) fn text(text: Option<String>) -> Result<String, Failure> {
    utf8(read(text)?)
}

/// The text of a message. One that is empty was to be made by something that failed.
pub(crate) fn message(text: Option<String>) -> Result<String, Failure> {
    let text = utf8(read(text)?)?;
    if !text.is_empty() {
        return Ok(text);
    }
    Err(Failure::field("text", "must not be empty")
        .remedy("Say something, or look whether the command that was to make the text has failed."))
}

/// As [`text`], for what may do without: no text is none, and nothing is read for it.
pub(crate) fn text_if_given(text: Option<String>) -> Result<String, Failure> {
    utf8(read_if_given(text)?)
}

/// As [`text`], for what may do without: nothing at a terminal is none.
pub(crate) fn text_if_any(text: Option<String>) -> Result<String, Failure> {
    if text.is_none() && io::stdin().is_terminal() { Ok(String::new()) } else { self::text(text) }
}

/// What is sent as text must be text.
fn utf8(body: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(body).map_err(|_| {
        Failure::field("text", "must be UTF-8, and stdin is not")
            .remedy("Convert it, or send it as it is as a file, with `murmurctl send TO --file PATH`.")
    })
}

/// The text as given; `-` means stdin, and no text is none.
fn read_if_given(text: Option<String>) -> Result<Vec<u8>, Failure> {
    text.map_or(Ok(Vec::new()), |text| read(Some(text)))
}

/// One byte more than is allowed tells that there is too much.
fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin().lock().take(limit).read_to_end(&mut body).context("reading stdin")?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_message_is_refused_and_an_empty_text_beside_a_file_is_not() {
        let refused = message(Some(String::new())).unwrap_err();
        assert_eq!(refused.fields, [("text".to_owned(), "must not be empty".to_owned())]);
        assert_eq!(message(Some("hi".into())).unwrap(), "hi");
        assert_eq!(text_if_given(None).unwrap(), "");
    }

    #[test]
    fn what_is_no_text_is_not_sent_as_text() {
        let refused = utf8(vec![0xff, 0xfe]).unwrap_err();
        assert!(refused.remedy.unwrap().contains("--file"));
    }
}

//! A message's body from the command line or from stdin.

use std::io::{self, IsTerminal as _, Read as _};

use murmur_core::limits::BODY_BYTES_MAX;

use crate::failure::{Context as _, Failure};

/// The text as given; `-`, or no text when something is piped in, means stdin.
pub(crate) fn read(text: Option<String>) -> Result<Vec<u8>, Failure> {
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
    String::from_utf8(read(text)?).map_err(|_| Failure::usage("stdin must be UTF-8 text"))
}

/// The text as given; `-` means stdin, and no text is none.
pub(crate) fn read_if_given(text: Option<String>) -> Result<Vec<u8>, Failure> {
    text.map_or(Ok(Vec::new()), |text| read(Some(text)))
}

/// One byte more than is allowed tells that there is too much.
fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    io::stdin().lock().take(limit).read_to_end(&mut body).context("reading stdin")?;
    Ok(body)
}

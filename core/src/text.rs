//! Text that others wrote, wherever it is shown: which characters a reader does not see.

/// Whether a character has no shape of its own and changes what is around it, or says to a program what a person does not see:
/// soft hyphen, zero width, direction, line and paragraph separators, invisible operators, annotations, tags, and the
/// supplementary variation selectors. Control characters are another matter: [`char::is_control`].
#[must_use]
pub const fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text, or as much of it as has at most `bytes_max` bytes together with the `…` that then stands behind it. `bytes_max` is at least 3.
#[must_use]
pub fn shortened(mut text: String, bytes_max: usize) -> String {
    const MARK: char = '…';
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(MARK.len_utf8())));
        text.push(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_ends_in_a_mark_within_the_bound() {
        assert_eq!(shortened("four".into(), 4), "four");
        assert_eq!(shortened("fives".into(), 4), "f…");
        assert_eq!(shortened("aéé".into(), 4), "a…", "no character is torn");
    }

    #[test]
    fn what_turns_joins_or_hides_is_told_from_what_is_read() {
        for hidden in ['\u{ad}', '\u{200b}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{e0041}', '\u{e0100}'] {
            assert!(is_hidden(hidden), "{hidden:?}");
        }
        for read in ['a', 'é', '日', '👍', ' ', '\n', '\u{2010}', '\u{fe0f}'] {
            assert!(!is_hidden(read), "{read:?}");
        }
    }
}

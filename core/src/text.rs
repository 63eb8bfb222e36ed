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

#[cfg(test)]
mod tests {
    use super::*;

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

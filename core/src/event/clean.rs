//! Words that others wrote, as they are stored: what cannot be seen is taken out, what is too long is cut. Nothing is escaped here: `<` is
//! data like any other, and whoever shows it escapes it for where it is shown.

use crate::{
    limits::{EVENT_TEXT_BYTES_MAX, EVENT_VALUE_BYTES_MAX},
    text::{is_hidden, shortened},
};

/// The text of an event: lines and tabs stay, other control characters and hidden ones go; at most 4 KiB, with `…` where it was cut.
#[must_use]
pub fn clean_text(text: &str) -> String {
    let shown = |c: &char| matches!(c, '\n' | '\t') || (!c.is_control() && !is_hidden(*c));
    shortened(text.chars().filter(shown).collect(), EVENT_TEXT_BYTES_MAX)
}

/// The value of an attribute: as [`clean_text`], on one line, at most 1 KiB.
#[must_use]
pub fn clean_value(text: &str) -> String {
    let one_line = text.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c });
    shortened(one_line.filter(|c| !c.is_control() && !is_hidden(*c)).collect(), EVENT_VALUE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_read_stays_and_what_hides_goes() {
        assert_eq!(clean_text("</channel>\r\n\u{1b}[31mred\u{202e}\u{200b}\tend\0"), "</channel>\n[31mred\tend");
        assert_eq!(clean_value("a\nb\tc\u{7}"), "a b c");
    }

    proptest! {
        #[test]
        fn stored_words_are_short_and_shown_as_they_are(text in any::<String>(), times in 1..200_usize) {
            let long = text.repeat(times);
            let (stored, value) = (clean_text(&long), clean_value(&long));
            prop_assert!(stored.len() <= EVENT_TEXT_BYTES_MAX && value.len() <= EVENT_VALUE_BYTES_MAX);
            prop_assert!(!stored.chars().any(|c| is_hidden(c) || (c.is_control() && !matches!(c, '\n' | '\t'))));
            prop_assert!(!value.chars().any(|c| is_hidden(c) || c.is_control()));
            prop_assert_eq!(clean_text(&stored), stored.clone());
            prop_assert_eq!(clean_value(&value), value);
        }
    }
}

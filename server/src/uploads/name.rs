//! What names and types of files may say: nothing that a header, a shell or a file system could take for something else.

use crate::invalid::Invalid;

const NAME_BYTES_MAX: usize = 128;
const EXTENSION_BYTES_MAX: usize = 10;
const TYPE_BYTES_MAX: usize = 128;
/// What nothing is known of.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// The last part of a path, of harmless characters.
pub(super) fn clean(typed: &str) -> String {
    let base = typed.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let mut name: String = base.chars().map(plain).take(NAME_BYTES_MAX).collect();
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    if name.is_empty() { "file".to_owned() } else { name }
}

/// The end of a cleaned name with its dot; nothing when it has none that is plain.
pub(super) fn extension(name: &str) -> String {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    let is_plain =
        !end.is_empty() && end.len() <= EXTENSION_BYTES_MAX && end.chars().all(|c| c.is_ascii_alphanumeric());
    if is_plain { format!(".{end}") } else { String::new() }
}

/// A media type, with a charset or without.
pub(super) fn content_type(typed: &str) -> Result<String, Invalid> {
    if typed.is_empty() {
        return Ok(UNKNOWN_TYPE.to_owned());
    }
    let rule =
        || Invalid::new("content_type", "must be a media type such as `text/csv` or `text/plain; charset=utf-8`");
    if typed.len() > TYPE_BYTES_MAX {
        return Err(rule());
    }
    let (kind, charset) = match typed.split_once(';') {
        Some((kind, parameter)) => (kind.trim_end(), parameter.trim_start().strip_prefix("charset=").ok_or_else(rule)?),
        None => (typed, "utf-8"),
    };
    let (main, sub) = kind.split_once('/').ok_or_else(rule)?;
    let is_token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    if [main, sub, charset].into_iter().all(is_token) { Ok(typed.to_owned()) } else { Err(rule()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path_and_ends_no_header() {
        for (typed, name) in [
            ("report.txt", "report.txt"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\y.doc", "y.doc"),
            ("a\"; x=\"b\r\nSet-Cookie: y.html", "a___x__b__Set-Cookie__y.html"),
            ("..", "_."),
            ("", "file"),
            ("ü\0\u{202e}.pdf", "___.pdf"),
        ] {
            assert_eq!(clean(typed), name);
        }
        assert_eq!(clean(&"x".repeat(1000)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn an_extension_is_a_word() {
        for (name, end) in
            [("a.TXT", ".txt"), ("a", ""), ("a.", ""), ("a.tar.gz", ".gz"), ("a.b_c", ""), ("a.12345678901", "")]
        {
            assert_eq!(extension(name), end, "{name}");
        }
    }

    #[test]
    fn a_type_is_one_or_is_refused() {
        for good in ["text/csv", "text/plain; charset=utf-8", "application/vnd.x+json", "image/svg+xml"] {
            assert_eq!(content_type(good).unwrap(), good);
        }
        assert_eq!(content_type("").unwrap(), UNKNOWN_TYPE);
        for bad in
            ["text", "text/", "/x", "text/html\r\nX: y", "text/html, text/css", "a/b; x=y", "a/b;charset=\"x\"", "ä/b"]
        {
            assert_eq!(content_type(bad).unwrap_err().field, "content_type", "{bad}");
        }
    }
}

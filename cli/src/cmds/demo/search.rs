//! Looking for a text in all files of a folder, as it is and in the encodings that it could hide in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// The forms of one text.
#[derive(Debug)]
pub(super) struct Needles(Vec<Vec<u8>>);

/// What a search did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) files: usize,
    pub(super) bytes: u64,
    /// Files that hold the text.
    pub(super) hits: Vec<PathBuf>,
}

impl Needles {
    /// Raw, UTF-16, hex, and base64 at each of the three places where a text can begin in it.
    pub(super) fn new(text: &str) -> Self {
        let raw = text.as_bytes();
        let wide = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut forms = vec![raw.to_vec(), wide, HEXLOWER.encode(raw).into(), HEXUPPER.encode(raw).into()];
        for skipped in 0..3 {
            let shifted = [&[0; 2][..skipped], raw].concat();
            // Digits at both ends also encode neighbours, which are not known.
            let digits = |encoded: String| {
                encoded.as_bytes()[usize::from(skipped > 0) * (skipped + 1)..encoded.len() - 2].to_vec()
            };
            forms.extend([digits(BASE64_NOPAD.encode(&shifted)), digits(BASE64URL_NOPAD.encode(&shifted))]);
        }
        Self(forms)
    }

    /// Whether a content holds the text in any form.
    pub(super) fn are_in(&self, content: &[u8]) -> bool {
        self.0.iter().any(|form| contains(content, form))
    }

    /// Searches every file below the folders.
    pub(super) fn search(&self, folders: &[PathBuf]) -> io::Result<Found> {
        let mut found = Found::default();
        for folder in folders {
            for file in files(folder)? {
                let content = match fs::read(&file) {
                    // A store may replace its files while it works.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    content => content?,
                };
                found.files += 1;
                found.bytes += content.len() as u64;
                if self.are_in(&content) {
                    found.hits.push(file);
                }
            }
        }
        Ok(found)
    }
}

/// All regular files below a folder.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn contains(content: &[u8], form: &[u8]) -> bool {
    let Some((first, rest)) = form.split_first() else { return false };
    let mut from = 0;
    while let Some(at) = content.get(from..).and_then(|tail| tail.iter().position(|byte| byte == first)) {
        from += at + 1;
        if content.get(from..).is_some_and(|tail| tail.starts_with(rest)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_every_encoding_and_place() {
        let text = "canary-5e1f";
        let needles = Needles::new(text);
        for before in ["", "a", "bc", "def"] {
            let whole = format!("{before}{text}, and more");
            let raw = whole.as_bytes();
            let encodings = [
                whole.clone(),
                HEXLOWER.encode(raw),
                HEXUPPER.encode(raw),
                BASE64_NOPAD.encode(raw),
                BASE64URL_NOPAD.encode(raw),
            ];
            for encoded in encodings {
                assert!(needles.are_in(encoded.as_bytes()), "{encoded}");
            }
        }
        assert!(!needles.are_in(b"canary-5e1, canary-5e2f"));
    }

    #[test]
    fn all_files_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("clean"), "nothing").unwrap();
        fs::write(folder.path().join("deep/log"), "x canary-5e1f y").unwrap();
        let found = Needles::new("canary-5e1f").search(&[folder.path().into(), folder.path().join("missing")]).unwrap();
        assert_eq!((found.files, found.bytes), (2, 22));
        assert_eq!(found.hits, [folder.path().join("deep/log")]);
    }
}

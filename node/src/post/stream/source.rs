//! Files that may be sent, and what files may be called (PROTOCOL §6.8).
//!
//! The rules are applied to the file that was opened, not to the path that was typed: between a look at a path and the opening of
//! it the path may come to mean another file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use murmur_crypto::inner::FILENAME_BYTES_MAX;
use nix::{errno::Errno, fcntl::OFlag};

use crate::post::SendError;

/// What a sender may send.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    /// Below one of these, when there are any.
    pub(super) roots: &'a [PathBuf],
    /// Never from here, but for what was received.
    pub(super) data_dir: &'a Path,
    /// Where received files are.
    pub(super) files_dir: &'a Path,
    /// Names under which secrets are kept may be sent.
    pub(super) allow_secret_names: bool,
    /// At most so many bytes.
    pub(super) bytes_max: u64,
}

/// A file that may be sent, open.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: File,
    /// Where it really is.
    pub(super) path: PathBuf,
    /// Its base name, as it is.
    pub(super) name: String,
}

/// Opens a file to send.
pub(super) fn open(path: &str, rules: &Rules<'_>) -> Result<Source, SendError> {
    let refused = |rule: String| SendError::FileRefused { rule };
    if path.is_empty() {
        return Err(refused("must name a file".to_owned()));
    }
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(refused("must be absolute".to_owned()));
    }
    let file = open_regular(path).map_err(|why| refused(why.to_string()))?;
    let length = file.metadata().map_err(|error| refused(error.to_string()))?.len();
    if length > rules.bytes_max {
        return Err(SendError::FileTooLarge { bytes: length, limit: rules.bytes_max });
    }
    let path = real_path(&file, path).map_err(|error| refused(format!("cannot be resolved: {error}")))?;
    check_place(&path, rules).map_err(refused)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Source { file, path, name })
}

/// Why a path is no file to send.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("must not be a symbolic link")]
    Symlink,
    #[error("must be a regular file, and is {0}")]
    Kind(&'static str),
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

fn open_regular(path: &Path) -> Result<File, Unfit> {
    // Without blocking: opening a pipe would wait for somebody to write into it.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => Unfit::Symlink,
        Some(Errno::ENXIO) => Unfit::Kind("a socket or pipe"),
        _ => Unfit::Io(error),
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Unfit::Kind("a directory"));
    }
    if !kind.is_file() {
        return Err(Unfit::Kind("a device or pipe"));
    }
    Ok(file)
}

/// Where an open file is, whatever links led to it.
fn real_path(file: &File, typed: &Path) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let by_descriptor = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    by_descriptor.or_else(|_| typed.canonicalize())
}

fn check_place(path: &Path, rules: &Rules<'_>) -> Result<(), String> {
    let below = |folder: &Path| folder.canonicalize().is_ok_and(|folder| path.starts_with(folder));
    if below(rules.data_dir) && !below(rules.files_dir) {
        return Err("must not be one of the node's own files: keys and messages are there".to_owned());
    }
    if !rules.roots.is_empty() && !rules.roots.iter().any(|root| below(root)) {
        return Err("must be below one of the node's file_roots".to_owned());
    }
    match secret_name(path).filter(|_| !rules.allow_secret_names) {
        Some(pattern) => Err(format!("must not be named like a secret ({pattern})")),
        None => Ok(()),
    }
}

/// Folders in which secrets are kept.
const SECRET_FOLDERS: &[&str] = &[".git", ".ssh", ".gnupg", ".aws", ".kube", ".password-store"];
/// Names of secrets.
const SECRET_NAMES: &[&str] = &[".netrc", ".pgpass", ".npmrc", ".pypirc", ".git-credentials", "credentials.json"];
/// How names of secrets begin, and end.
const SECRET_PREFIXES: &[&str] = &[".env", "id_"];
const SECRET_SUFFIXES: &[&str] = &[".pem", ".key", ".kdbx", ".p12", ".pfx", ".jks", ".keystore", ".token"];

/// The pattern of a name under which secrets are kept, if the path has one.
pub(crate) fn secret_name(path: &Path) -> Option<String> {
    let folders = path.parent().into_iter().flat_map(Path::components).filter_map(|part| match part {
        Component::Normal(name) => name.to_str().map(str::to_ascii_lowercase),
        _ => None,
    });
    for folder in folders {
        if let Some(secret) = SECRET_FOLDERS.iter().find(|secret| **secret == folder) {
            return Some(format!("{secret}/"));
        }
    }
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let exact = SECRET_NAMES.iter().find(|secret| **secret == name).map(|secret| (*secret).to_owned());
    let prefix = SECRET_PREFIXES.iter().find(|secret| name.starts_with(**secret)).map(|secret| format!("{secret}*"));
    let suffix = SECRET_SUFFIXES.iter().find(|secret| name.ends_with(**secret)).map(|secret| format!("*{secret}"));
    exact.or(prefix).or(suffix)
}

/// The name under which a file is announced: what the caller wants, or its own, without what no name may hold.
pub(super) fn announced_name(wanted: &str, own: &str) -> Result<String, SendError> {
    if wanted.is_empty() {
        let harmless: String = own.chars().filter(|c| !c.is_control() && !matches!(c, '/' | '\\')).collect();
        let cut = harmless.floor_char_boundary(FILENAME_BYTES_MAX);
        return Ok(harmless.get(..cut).unwrap_or_default().to_owned());
    }
    let rule = |rule: String| Err(SendError::Field { field: "name", rule });
    if wanted.len() > FILENAME_BYTES_MAX {
        return rule(format!("must have at most {FILENAME_BYTES_MAX} bytes"));
    }
    if matches!(wanted, "." | "..") || wanted.contains(|c: char| c.is_control() || matches!(c, '/' | '\\')) {
        return rule("must be a base name, without separators or control characters".to_owned());
    }
    Ok(wanted.to_owned())
}

/// What a received file is called here: nothing that a shell, a terminal or another program could take for something else.
pub(super) fn clean_name(announced: &str) -> String {
    let base = announced.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let mut name: String = base.chars().map(plain).take(FILENAME_BYTES_MAX).collect();
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    if name.is_empty() { "file".to_owned() } else { name }
}

/// What the end of a name says about the content.
pub(crate) fn content_type_of(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    match end.as_str() {
        "txt" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "diff" | "patch" => "text/x-diff; charset=utf-8",
        "json" => "application/json",
        "toml" => "application/toml",
        "yaml" | "yml" => "application/yaml",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "mp4" => "video/mp4",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Home {
        dir: tempfile::TempDir,
        data: PathBuf,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("node");
            fs::create_dir_all(data.join("files/x")).unwrap();
            Self { dir, data }
        }

        fn file(&self, name: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content").unwrap();
            path
        }

        fn open(&self, path: &Path, roots: &[PathBuf], allow: bool) -> Result<Source, String> {
            let rules = Rules {
                roots,
                data_dir: &self.data,
                files_dir: &self.data.join("files"),
                allow_secret_names: allow,
                bytes_max: 100,
            };
            open(path.to_str().unwrap(), &rules).map_err(|error| error.to_string())
        }

        fn why(&self, path: &Path) -> String {
            self.open(path, &[], false).unwrap_err()
        }
    }

    #[test]
    fn only_regular_files_are_sent() {
        let home = Home::new();
        let file = home.file("report.pdf");
        assert_eq!(home.open(&file, &[], false).unwrap().name, "report.pdf");
        assert!(home.why(Path::new("report.pdf")).contains("absolute"));
        assert!(home.why(home.dir.path()).contains("directory"));
        assert!(home.why(&home.dir.path().join("none")).contains("cannot be read"));
        let link = home.dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(home.why(&link).contains("symbolic link"));
        let pipe = home.dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(home.why(&pipe).contains("pipe"), "and nobody waited for a writer");
        assert!(home.why(Path::new("/dev/null")).contains("device"));
        fs::write(&file, vec![0; 101]).unwrap();
        assert!(home.why(&file).contains("101 bytes"));
    }

    #[test]
    fn secrets_are_not_sent_by_accident() {
        let home = Home::new();
        for name in
            [".env", ".env.local", "server.pem", "id_ed25519", ".git/config", "x/.ssh/known", "p.KDBX", "a.token"]
        {
            let file = home.file(name);
            assert!(home.why(&file).contains("secret"), "{name}");
            assert!(home.open(&file, &[], true).is_ok(), "{name} on purpose");
        }
        assert!(home.open(&home.file("environment.md"), &[], false).is_ok());
    }

    #[test]
    fn the_nodes_own_files_are_never_sent_but_what_was_received_is() {
        let home = Home::new();
        assert!(home.open(&home.file("node/store.db"), &[], true).unwrap_err().contains("own files"));
        assert!(home.open(&home.file("node/files/x/report.pdf"), &[], true).is_ok());
        // A folder that leads there by a link is seen through.
        symlink(&home.data, home.dir.path().join("elsewhere")).unwrap();
        assert!(home.open(&home.dir.path().join("elsewhere/store.db"), &[], true).unwrap_err().contains("own files"));
    }

    #[test]
    fn roots_hold_whatever_links_lead_out_of_them() {
        let home = Home::new();
        let root = home.dir.path().join("root");
        let (inside, outside) = (home.file("root/a.txt"), home.file("b.txt"));
        symlink(home.dir.path(), root.join("up")).unwrap();
        let roots = [root.clone()];
        assert!(home.open(&inside, &roots, false).is_ok());
        for path in [outside, root.join("up/b.txt"), root.join("../b.txt")] {
            assert!(home.open(&path, &roots, false).unwrap_err().contains("file_roots"), "{}", path.display());
        }
    }

    #[test]
    fn received_names_are_harmless() {
        for (announced, here) in [
            ("report.pdf", "report.pdf"),
            ("../../etc/passwd", "passwd"),
            ("..", "_."),
            (".bashrc", "_bashrc"),
            ("-rf", "_rf"),
            ("", "file"),
            ("a b\u{202e}c.txt", "a_b_c.txt"),
            ("$(rm).sh", "__rm_.sh"),
            ("C:\\x\\y.doc", "y.doc"),
        ] {
            assert_eq!(clean_name(announced), here);
        }
        assert_eq!(clean_name(&"x".repeat(500)).len(), FILENAME_BYTES_MAX);
    }

    #[test]
    fn announced_names_are_base_names() {
        assert_eq!(announced_name("", "näme.txt").unwrap(), "näme.txt");
        assert!(announced_name("", &"ä".repeat(100)).unwrap().len() <= FILENAME_BYTES_MAX);
        for wrong in ["a/b", "..", "a\nb", &"x".repeat(129)] {
            assert!(matches!(announced_name(wrong, ""), Err(SendError::Field { field: "name", .. })), "{wrong}");
        }
    }
}

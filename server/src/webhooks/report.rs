//! What a delivery says, whoever sent it.

use std::collections::{BTreeMap, BTreeSet};

use murmur_core::{
    event::{Draft, Kind, Origin},
    limits::EVENT_ID_BYTES_MAX,
};

use crate::db::pull_request::PullRequest;

/// Changed files of one push that are looked at.
const PATHS_MAX: usize = 10_000;

/// Everything that one delivery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// `owner/name`, as the sender writes it.
    pub(super) repo: String,
    /// What agents are to hear.
    pub(super) told: Option<Told>,
    /// Files that a push changed.
    pub(super) push: Option<Push>,
    /// A pull request that it is about, as it stands now.
    pub(super) pull: Option<PullRequest>,
    /// Why nothing is told, when nothing is.
    pub(super) silence: &'static str,
}

impl Report {
    /// Nothing to tell.
    pub(super) fn silent(repo: String, why: &'static str) -> Self {
        Self { repo, told: None, push: None, pull: None, silence: why }
    }

    /// One thing to tell.
    pub(super) fn of(repo: String, told: Told) -> Self {
        Self { told: Some(told), ..Self::silent(repo, "") }
    }
}

/// A push to a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Push {
    /// The same whenever the same push is told again.
    pub(super) event_id: String,
    /// Without `refs/heads/`.
    pub(super) branch: String,
    /// Where the branch was.
    pub(super) before: String,
    /// Where it is.
    pub(super) after: String,
    /// Changed files, from the repository's root, each once.
    pub(super) paths: Vec<String>,
    /// Unix milliseconds; `None`: not said.
    pub(super) at_ms: Option<u64>,
}

impl Push {
    /// `None` when no file was changed. `host` keeps ids of different hosts apart.
    pub(super) fn new(
        (host, branch): (&str, &str),
        (before, after): (String, String),
        paths: impl Iterator<Item = String>,
        at_ms: Option<u64>,
    ) -> Option<Self> {
        let paths: BTreeSet<String> = paths.take(PATHS_MAX).collect();
        let event_id = event_id(&format!("{host}-push-{before}-{after}"));
        let push =
            Self { event_id, branch: branch.to_owned(), before, after, paths: paths.into_iter().collect(), at_ms };
        (!push.paths.is_empty()).then_some(push)
    }
}

/// One event, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// The same whenever the same thing is told again.
    pub(super) event_id: String,
    /// What it tells of.
    pub(super) kind: Kind,
    /// Unix milliseconds of what happened; `None`: not said.
    pub(super) at_ms: Option<u64>,
    /// The kind's own.
    pub(super) attributes: BTreeMap<String, String>,
    /// As it was written.
    pub(super) text: String,
    /// Branches of the repository that it is about.
    pub(super) branches: Vec<String>,
    /// Pull requests that it is about.
    pub(super) prs: Vec<u64>,
    /// Whose words these are; `None` for what the host itself says.
    pub(super) author: Option<Author>,
}

/// Somebody who wrote something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Author {
    /// The name on the code host.
    pub(super) name: String,
    /// The host says that they belong to the repository.
    pub(super) is_member: bool,
}

impl Told {
    /// An event of a kind about a repository.
    pub(super) fn new(kind: impl Into<Kind>, id: &str, repo: &str) -> Self {
        let told = Self {
            event_id: event_id(id),
            kind: kind.into(),
            at_ms: None,
            attributes: BTreeMap::new(),
            text: String::new(),
            branches: Vec::new(),
            prs: Vec::new(),
            author: None,
        };
        told.with("repo", repo)
    }

    /// With an attribute, unless it is empty.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.attributes.insert(name.to_owned(), value);
        }
        self
    }

    /// With an attribute, when there is one.
    pub(super) fn some(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        text.clone_into(&mut self.text);
        self
    }

    pub(super) fn at(mut self, at_ms: Option<u64>) -> Self {
        self.at_ms = at_ms;
        self
    }

    pub(super) fn branch(mut self, branch: Option<&str>) -> Self {
        self.branches.extend(branch.filter(|branch| !branch.is_empty()).map(str::to_owned));
        self
    }

    /// Belongs to a pull request, which is an attribute, too.
    pub(super) fn pr(mut self, number: u64) -> Self {
        self.prs.push(number);
        self.with("pr", number.to_string())
    }

    pub(super) fn by(mut self, name: &str, is_member: bool) -> Self {
        self.author = Some(Author { name: name.to_owned(), is_member });
        self.with("author", name)
    }

    /// As it goes into logs: what strangers wrote, never from the future, since a sender's clock is not ours.
    pub(super) fn draft(&self, origin: Origin, withheld: bool, now_ms: u64) -> Draft {
        let time_ms = self.at_ms.unwrap_or(now_ms).min(now_ms);
        let draft = Draft::new(self.kind.clone(), self.event_id.clone(), origin, time_ms).text(self.text.clone());
        Draft { attributes: self.attributes.clone(), untrusted: true, withheld, ..draft }.cleaned()
    }
}

/// Ids are made of numbers and hashes of the sender's; one that is longer than any of them is cut.
fn event_id(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' });
    plain.take(EVENT_ID_BYTES_MAX).collect()
}

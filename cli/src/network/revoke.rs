//! The owner's word on which nodes do not count any more: a list that only the root key can sign (PROTOCOL §3.6).
//!
//! Each list is the whole of what is revoked. The next one is made from what the control plane shows and from what this machine signed
//! last, so that a control plane that keeps a list back cannot make the owner forget it.

use data_encoding::BASE64;
use murmur_core::{
    limits::{REVOCATION_KEPT_MS, REVOCATION_LIST_DUE_MS, REVOCATION_LIST_LIFE_MS_MAX},
    reason::Reason,
};
use murmur_crypto::{
    cert::Certificate,
    revocation::{REASON_BYTES_MAX, Revocation, RevocationList, RevocationListSpec, Revoked},
};
use murmur_proto::{
    client::ControlClient,
    status::RpcError,
    v1::{GetRevocationListRequest, Node, PublishRevocationListRequest, PublishRevocationListResponse},
};

use super::layout::{self, Layout};
use crate::{
    failure::{Context as _, Failure},
    owner::Owner,
    time::now_ms,
};

/// Another machine of the owner's may publish at the same time.
const TRIES: u32 = 5;

/// Whose lists these are, and where this machine keeps its own copy.
#[derive(Clone, Copy)]
pub(crate) struct Revoker<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) owner: &'a Owner,
    pub(crate) workspace: &'a str,
}

/// Refuses a reason that no list may carry.
pub(crate) fn check_reason(reason: &str) -> Result<(), Failure> {
    if reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Failure::usage(format!("--reason must be one line of at most {REASON_BYTES_MAX} bytes")))
}

impl Revoker<'_> {
    /// Revokes everything that a node was given so far, by signing the next list.
    pub(crate) async fn revoke(
        &self,
        control: &mut ControlClient,
        node: &Node,
        reason: &str,
    ) -> Result<PublishRevocationListResponse, Failure> {
        let subject_id = *node.node_id.parse::<murmur_core::id::NodeId>().context("reading the node's id")?.as_bytes();
        let serial = Certificate::decode(node.certificate.to_vec()).map_or(0, |held| held.claims().serial);
        // Serials count by the owner's clock: this is above every one that was ever signed.
        let what = Revoked::Subject { subject_id, serial_lt: serial.max(now_ms()) + 1 };
        self.publish(control, Some(Revocation { what, reason: reason.to_owned(), at_ms: now_ms() })).await
    }

    /// Signs the list again, if there is one and its next is due: nodes warn of one that is out of date.
    pub(crate) async fn renew_if_due(&self, control: &mut ControlClient) -> Result<(), Failure> {
        let is_due = |spec: &RevocationListSpec| spec.next_update_ms.saturating_sub(now_ms()) <= REVOCATION_LIST_DUE_MS;
        if self.latest(control).await?.as_ref().is_some_and(is_due) {
            self.publish(control, None).await?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        control: &mut ControlClient,
        added: Option<Revocation>,
    ) -> Result<PublishRevocationListResponse, Failure> {
        let mut tries = 0;
        loop {
            let before = self.latest(control).await?;
            let list = self.sign(before, added.clone())?;
            let bytes = list.encode();
            let workspace = self.workspace.to_owned();
            let request = PublishRevocationListRequest { revocation_list: bytes.clone().into(), workspace };
            match control.nodes.publish_revocation_list(request).await {
                Ok(answer) => {
                    layout::write_private(&self.copy(), BASE64.encode(&bytes).as_bytes())?;
                    return Ok(answer.into_inner());
                }
                Err(status) => {
                    tries += 1;
                    let is_outdated = RpcError::from(&status).reason == Some(Reason::CertificateRefused);
                    if !is_outdated || tries == TRIES {
                        return Err(status.into());
                    }
                }
            }
        }
    }

    fn sign(&self, before: Option<RevocationListSpec>, added: Option<Revocation>) -> Result<RevocationList, Failure> {
        let now = now_ms();
        let (version, mut entries) = before.map_or((0, Vec::new()), |before| (before.version, before.entries));
        // What was revoked so long ago has ended by itself.
        entries.retain(|entry| entry.at_ms.saturating_add(REVOCATION_KEPT_MS) > now);
        entries.extend(added);
        let spec = RevocationListSpec {
            version: version + 1,
            issued_ms: now,
            next_update_ms: now + REVOCATION_LIST_LIFE_MS_MAX,
            entries,
        };
        RevocationList::issue(self.owner.key(), &self.owner.root, &spec).context("signing the revocation list")
    }

    /// What the control plane shows and what this machine signed last, together.
    async fn latest(&self, control: &mut ControlClient) -> Result<Option<RevocationListSpec>, Failure> {
        let request = GetRevocationListRequest { workspace: self.workspace.to_owned() };
        let shown = control.nodes.get_revocation_list(request).await?.into_inner().revocation_list;
        let shown = if shown.is_empty() { None } else { Some(self.read(shown.into(), "the control plane's")?) };
        let kept = layout::read_optional(&self.copy())?;
        let decode = |text: String| BASE64.decode(text.as_bytes()).context("reading this machine's revocation list");
        let kept = kept.map(|text| decode(text).and_then(|bytes| self.read(bytes, "this machine's"))).transpose()?;
        Ok(match (shown, kept) {
            (Some(one), Some(other)) => Some(both(one, other)),
            (one, other) => one.or(other),
        })
    }

    fn read(&self, bytes: Vec<u8>, whose: &str) -> Result<RevocationListSpec, Failure> {
        let list = RevocationList::decode(bytes, &self.owner.root);
        Ok(list.context(format!("reading {whose} revocation list"))?.spec().clone())
    }

    fn copy(&self) -> std::path::PathBuf {
        self.layout.owner().join(format!("{}.revoked", self.workspace))
    }
}

/// The later of two lists, with what only the other one revokes.
fn both(one: RevocationListSpec, other: RevocationListSpec) -> RevocationListSpec {
    let (mut later, earlier) = if one.version >= other.version { (one, other) } else { (other, one) };
    for entry in earlier.entries {
        if !later.entries.iter().any(|known| known.what == entry.what) {
            later.entries.push(entry);
        }
    }
    later
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(version: u64, nodes: &[u8]) -> RevocationListSpec {
        let entry = |node: &u8| Revocation {
            what: Revoked::Subject { subject_id: [*node; 16], serial_lt: 1 },
            reason: String::new(),
            at_ms: 1,
        };
        RevocationListSpec { version, issued_ms: 1, next_update_ms: 2, entries: nodes.iter().map(entry).collect() }
    }

    #[test]
    fn what_either_list_revokes_stays_revoked() {
        assert_eq!(both(list(3, &[1, 2]), list(2, &[2, 3])), list(3, &[1, 2, 3]));
        assert_eq!(both(list(2, &[2, 3]), list(3, &[1, 2])), list(3, &[1, 2, 3]));
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert!(check_reason("laptop stolen").is_ok() && check_reason("").is_ok());
        assert!(check_reason("two\nlines").is_err() && check_reason(&"x".repeat(201)).is_err());
    }
}

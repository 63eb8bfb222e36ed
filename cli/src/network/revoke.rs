//! The owner's word on which nodes do not count any more: a list that only the root key can sign (PROTOCOL §3.6).
//!
//! Each list is the whole of what is revoked. The next one is made from what the control plane shows and from what this machine signed
//! last, so that a control plane that keeps a list back cannot make the owner forget it.

use data_encoding::BASE64;
use murmur_core::{
    id::NodeId,
    limits::{REVOCATION_KEPT_MS, REVOCATION_LIST_DUE_MS, REVOCATION_LIST_LIFE_MS_MAX},
    reason::Reason,
};
use murmur_crypto::{
    cert::Certificate,
    chain::{Chain, NothingSeen, verify_node_chain},
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
        let (subject_id, serial) = self.subject_of(node)?;
        // Serials count by the owner's clock: this is above every one that was ever signed.
        let what = Revoked::Subject { subject_id, serial_lt: serial.max(now_ms()).saturating_add(1) };
        self.publish(control, Some(Revocation { what, reason: reason.to_owned(), at_ms: now_ms() })).await
    }

    /// Whether the last list that this machine signed names a node: no certificate is signed for it any more, whatever the control plane
    /// shows.
    pub(crate) fn is_revoked(&self, node: &Node) -> Result<bool, Failure> {
        let id = id_of(node)?;
        let is_it = |entry: &Revocation| matches!(entry.what, Revoked::Subject { subject_id, .. } if subject_id == id);
        Ok(self.kept()?.is_some_and(|kept| kept.entries.iter().any(is_it)))
    }

    /// Whom a node's certificate names, and its serial. The control plane's word is taken for one that has none yet.
    fn subject_of(&self, node: &Node) -> Result<([u8; 16], u64), Failure> {
        let id = id_of(node)?;
        if node.certificate.is_empty() {
            return Ok((id, 0));
        }
        let doing = "reading the node's certificate";
        let certificate = Certificate::decode(node.certificate.to_vec()).context(doing)?;
        let chain = Chain::new(certificate.clone(), Vec::new()).context(doing)?;
        let claims = certificate.claims();
        verify_node_chain(&chain, &self.owner.root, claims.not_before_ms, &NothingSeen).context(doing)?;
        if claims.subject_id != id || claims.public_key.as_bytes()[..] != node.public_key[..] {
            return Err(Failure::failed("the control plane shows a node with the certificate of another one"));
        }
        Ok((id, claims.serial))
    }

    /// Signs the list again, if there is one and its next is due, since nodes warn of one that is out of date; or if the control plane has
    /// an older one than this machine signed last.
    pub(crate) async fn renew_if_due(&self, control: &mut ControlClient) -> Result<(), Failure> {
        if is_due(self.shown(control).await?.as_ref(), self.kept()?.as_ref(), now_ms()) {
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
            // First: whatever becomes of the call, the owner does not forget what they signed.
            layout::write_private(&self.copy(), BASE64.encode(&bytes).as_bytes())?;
            let request = PublishRevocationListRequest { revocation_list: bytes.into(), workspace };
            match control.nodes.publish_revocation_list(request).await {
                Ok(answer) => return Ok(answer.into_inner()),
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
        entries.retain(|entry| !added.as_ref().is_some_and(|added| is_same_subject(entry.what, added.what)));
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
        Ok(match (self.shown(control).await?, self.kept()?) {
            (Some(one), Some(other)) => Some(both(one, other)),
            (one, other) => one.or(other),
        })
    }

    async fn shown(&self, control: &mut ControlClient) -> Result<Option<RevocationListSpec>, Failure> {
        let request = GetRevocationListRequest { workspace: self.workspace.to_owned() };
        let shown = control.nodes.get_revocation_list(request).await?.into_inner().revocation_list;
        Ok(if shown.is_empty() { None } else { Some(self.read(shown.into(), "the control plane's")?) })
    }

    fn kept(&self) -> Result<Option<RevocationListSpec>, Failure> {
        let kept = layout::read_optional(&self.copy())?;
        let decode = |text: String| BASE64.decode(text.as_bytes()).context("reading this machine's revocation list");
        kept.map(|text| decode(text).and_then(|bytes| self.read(bytes, "this machine's"))).transpose()
    }

    fn read(&self, bytes: Vec<u8>, whose: &str) -> Result<RevocationListSpec, Failure> {
        let list = RevocationList::decode(bytes, &self.owner.root);
        Ok(list.context(format!("reading {whose} revocation list"))?.spec().clone())
    }

    fn copy(&self) -> std::path::PathBuf {
        self.layout.owner().join(format!("{}.revoked", self.workspace))
    }
}

fn id_of(node: &Node) -> Result<[u8; 16], Failure> {
    Ok(*node.node_id.parse::<NodeId>().context("reading the node's id")?.as_bytes())
}

fn is_same_subject(one: Revoked, other: Revoked) -> bool {
    match (one, other) {
        (Revoked::Subject { subject_id: one, .. }, Revoked::Subject { subject_id: other, .. }) => one == other,
        _ => false,
    }
}

fn is_due(shown: Option<&RevocationListSpec>, kept: Option<&RevocationListSpec>, now_ms: u64) -> bool {
    let version = |list: Option<&RevocationListSpec>| list.map_or(0, |list| list.version);
    let is_old = |list: &RevocationListSpec| list.next_update_ms.saturating_sub(now_ms) <= REVOCATION_LIST_DUE_MS;
    version(kept) > version(shown) || shown.is_some_and(is_old)
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
    fn a_list_is_signed_again_in_time_and_when_the_control_plane_has_lost_it() {
        let of = |version, next_update_ms| RevocationListSpec { next_update_ms, ..list(version, &[1]) };
        let fresh = REVOCATION_LIST_LIFE_MS_MAX;
        assert!(!is_due(None, None, 0), "nothing was ever revoked");
        assert!(!is_due(Some(&of(3, fresh)), Some(&of(3, fresh)), 0));
        assert!(is_due(Some(&of(3, fresh)), Some(&of(3, fresh)), fresh - REVOCATION_LIST_DUE_MS));
        assert!(is_due(Some(&of(2, fresh)), Some(&of(3, fresh)), 0), "an old copy of the control plane");
        assert!(is_due(None, Some(&of(3, fresh)), 0), "a new one");
        assert!(!is_due(Some(&of(4, fresh)), Some(&of(3, 0)), 0), "another machine of the owner's signed it");
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert!(check_reason("laptop stolen").is_ok() && check_reason("").is_ok());
        assert!(check_reason("two\nlines").is_err() && check_reason(&"x".repeat(201)).is_err());
    }
}

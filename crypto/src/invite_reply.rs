//! The other half of a peer invite: the joiner's root, bound to the invite by its secret (PROTOCOL §3.3).

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::Sha256;

use crate::{
    cert::RootCertificate,
    chain::Chain,
    error,
    hash::{hkdf32, info, label, sha256},
    invite::{self, Invite, InviteError},
    keys::IdentityKey,
    statement::Statement,
    wire,
};

/// What a reply begins with.
pub const PREFIX: &str = "MURMUR-REPLY:";

/// What the joining side answers.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteReply {
    /// The joining workspace's root, to be pinned.
    pub root: RootCertificate,
    /// Chain of the node or agent that answers; `None` when the root itself does.
    pub joiner: Option<Chain>,
}

impl InviteReply {
    /// Answers the invite whose text is given: MAC by its secret, signature by the joiner's root.
    ///
    /// # Errors
    /// [`InviteError::Signature`] when the key is not the root's; others when the text is no invite.
    pub fn sign(&self, root: &IdentityKey, invite_text: &str, invite: &Invite) -> Result<String, InviteError> {
        if root.public() != self.root.public_key() {
            return Err(InviteError::Signature);
        }
        let invite_hash = sha256(&invite::raw(invite::PREFIX, invite_text)?);
        let mut body = wire::InviteReplyBody {
            joiner_chain: self.joiner.as_ref().map(Chain::encode).unwrap_or_default().into(),
            root_public_key: Bytes::copy_from_slice(self.root.public_key().as_bytes()),
            invite_hash: Bytes::copy_from_slice(&invite_hash),
            root_cert: self.root.certificate().encode().into(),
            mac: Bytes::new(),
        };
        let mac = mac(invite, &invite_hash, &body).finalize().into_bytes();
        body.mac = Bytes::copy_from_slice(&mac);
        Ok(invite::print(PREFIX, &Statement::sign(root, label::INVITE_REPLY, body.encode_to_vec())))
    }

    /// Reads a reply to one's own invite and checks that it was made with the invite's secret.
    ///
    /// # Errors
    /// [`InviteError::Mac`] for an answer to another invite or by someone without the secret; others as for invites.
    pub fn read(text: &str, invite_text: &str, invite: &Invite) -> Result<Self, InviteError> {
        let statement = invite::parse(PREFIX, text)?;
        let mut body: wire::InviteReplyBody = error::decode(statement.body().clone(), "invite-reply")?;
        let invite_hash = sha256(&invite::raw(invite::PREFIX, invite_text)?);
        let claimed = std::mem::take(&mut body.mac);
        let made_with_secret = mac(invite, &invite_hash, &body).verify_slice(&claimed).is_ok();
        if body.invite_hash != invite_hash[..] || !made_with_secret {
            return Err(InviteError::Mac);
        }
        let root = invite::root_from_wire(body.root_cert, &body.root_public_key)?;
        statement.verify(label::INVITE_REPLY, &root.public_key()).map_err(|_| InviteError::Signature)?;
        Ok(Self { root, joiner: invite::chain_from_wire(body.joiner_chain)? })
    }
}

/// The MAC over a body whose own `mac` is empty. Version 2 knows no other fields here, so encoding again is exact.
#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(invite: &Invite, invite_hash: &[u8; 32], body: &wire::InviteReplyBody) -> Hmac<Sha256> {
    let key = hkdf32(invite_hash, &*invite.secret, info::INVITE_MAC);
    let mac = Hmac::<Sha256>::new_from_slice(&*key).expect("32 bytes are a valid HMAC key");
    mac.chain_update(body.encode_to_vec())
}

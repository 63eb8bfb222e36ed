//! An attacker who can do all that mathematics allows: sign with any key at hand, wrap any content key, write any header.

use zeroize::Zeroizing;

use super::world::Agent;
use crate::{
    content_key::{ContentKey, HeaderHash},
    envelope::{Envelope, VerifiedEnvelope},
    header::Header,
    keys::IdentityKey,
    padding,
    seal::{Recipient, assemble, encode_stanzas},
    wrap::{self, Place, Stanza},
};

/// A copy in parts, each of which a test may change before it is signed.
pub(super) struct Forge {
    pub(super) header: Header,
    pub(super) header_hash: HeaderHash,
    pub(super) key: ContentKey,
    pub(super) stanzas: Vec<Stanza>,
    pub(super) padded: Vec<u8>,
}

impl Forge {
    /// An honest copy from `sender` to `recipients`, still in parts.
    pub(super) fn honest(sender: &Agent, recipients: &[Recipient]) -> Self {
        let request = sender.request(recipients, b"hello");
        let key = content_key(0x44);
        let header = Header {
            msg_id: request.msg_id,
            sender_agent_id: request.sender_agent_id,
            sender_node_id: request.sender_node_id,
            sender_cert_fp: request.sender_cert_fp,
            conversation_id: request.conversation_id,
            sequence: request.sequence,
            sequence_epoch: request.sequence_epoch,
            created_at_ms: request.created_at_ms,
            ttl_seconds: request.ttl_seconds,
            seal_attempt: request.seal_attempt,
            key_commitment: key.commitment(request.msg_id),
            recipients: recipients.iter().map(|recipient| recipient.agent_id).collect(),
            crit: Vec::new(),
            reply_route: None,
        };
        let header_hash = HeaderHash::of(&header.encode());
        let padded = padding::pad(b"hello").unwrap();
        let mut forge = Self { header, header_hash, key, stanzas: Vec::new(), padded };
        for (index, recipient) in recipients.iter().enumerate() {
            let stanza = forge.stanza(index, recipient, &forge.key);
            forge.stanzas.push(stanza);
        }
        forge
    }

    /// The stanza that gives `recipient` a key of the attacker's choice.
    pub(super) fn stanza(&self, index: usize, recipient: &Recipient, key: &ContentKey) -> Stanza {
        let Recipient { agent_id, prekey_id, public } = *recipient;
        let index = u16::try_from(index).unwrap();
        let place = Place { header_hash: self.header_hash, agent_id, prekey_id, index };
        wrap::wrap(place, public, None, key, &[0x66; 32]).unwrap()
    }

    /// Signs the parts as they are and has the receiver verify them with the signer's key.
    pub(super) fn sign(&self, signer: &IdentityKey) -> VerifiedEnvelope {
        Envelope::decode(self.encode(signer)).unwrap().verify(&signer.public()).unwrap()
    }

    pub(super) fn encode(&self, signer: &IdentityKey) -> Vec<u8> {
        let payload = self.key.encrypt(self.header_hash, &[0x55; 24], self.padded.clone()).unwrap();
        let (header, stanzas) = (self.header.encode(), encode_stanzas(&self.stanzas));
        assemble(signer, header, stanzas, &[0x55; 24], payload, Vec::new()).0.to_vec()
    }
}

pub(super) fn content_key(byte: u8) -> ContentKey {
    ContentKey(Zeroizing::new([byte; 32]))
}

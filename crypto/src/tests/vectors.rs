//! Known answers: `envelope_v2.json` and `trust_v2.json`, with every intermediate value.

use murmur_core::{
    id::{AgentId, ConversationId, MessageId, NodeId},
    tier::Tier,
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{array, bytes, case};
use crate::{
    cert::{Certificate, Origin, RootCertificate},
    chain::{Chain, NothingSeen, verify_chain, verify_node_chain},
    chunk::{ChunkCipher, StreamKey},
    content_key::{ContentKey, HeaderHash, payload_aad},
    envelope::Envelope,
    hash::Fingerprint,
    hazmat::{SealRandomness, seal_with},
    header::Header,
    inner::dm_conversation_id,
    keylog::KeyLog,
    keys::{Encapsulation, IdentityKey, PrekeyPublic, PrekeySecret, PublicKey},
    padding::{pad, padme},
    prekey::{self, PrekeyId},
    safety::safety_number,
    seal::{self, Recipient, SealRequest},
    statement::Statement,
    wrap::Place,
};

fn statement(value: &Value) -> Statement {
    Statement::from_parts(bytes(&value["body"]).into(), array(&value["signature"]))
}

fn certificate(value: &Value) -> Certificate {
    let certificate = Certificate::from_statement(statement(value)).unwrap();
    assert_eq!(certificate.fp().to_string(), value["fp"].as_str().unwrap());
    certificate
}

#[test]
fn sealing_with_the_vectors_randomness_gives_the_vectors_bytes() {
    let case = case("envelope_v2.json", "env-1to1-ok");
    let (keys, randomness) = (&case["keys"], &case["randomness"]);
    let sender = IdentityKey::from_seed(&array(&keys["sender_ed25519_seed"]));
    assert_eq!(sender.public().as_bytes(), &array(&keys["sender_ed25519_public"]));
    let header = Envelope::decode(bytes(&case["envelope"])).unwrap().header().clone();
    let recipients = [Recipient {
        agent_id: AgentId::from_bytes(array(&keys["recipient_agent_id"])),
        prekey_id: PrekeyId::from_bytes(array(&keys["prekey_id"])),
        public: PrekeyPublic::from_bytes(&array(&keys["recipient_x25519_public"])).unwrap(),
    }];
    let request = SealRequest {
        msg_id: header.msg_id,
        sender_agent_id: header.sender_agent_id,
        sender_node_id: header.sender_node_id,
        sender_cert_fp: header.sender_cert_fp,
        conversation_id: header.conversation_id,
        sequence: header.sequence,
        sequence_epoch: header.sequence_epoch,
        created_at_ms: header.created_at_ms,
        ttl_seconds: header.ttl_seconds,
        seal_attempt: header.seal_attempt,
        reply_route: header.reply_route.as_deref(),
        recipients: &recipients,
        inner: &bytes(&case["inner"]),
        chain: None,
    };
    let randomness = SealRandomness {
        cek: Zeroizing::new(array(&randomness["cek"])),
        payload_nonce: array(&randomness["payload_nonce"]),
        hpke_ikm_e: Zeroizing::new(vec![array(&randomness["hpke_ikm_e"])]),
    };
    let sealed = seal_with(&sender, &request, &randomness).unwrap();
    assert_eq!(hex::encode(&sealed.bytes), case["envelope"].as_str().unwrap());
    assert_eq!(sealed.env_digest.to_string(), case["intermediate"]["env_digest"].as_str().unwrap());
    // Encapsulated before it is the same; what is drawn for that at sealing does not count.
    let encapsulation = Encapsulation::derive(*recipients[0].public.as_bytes(), None, &randomness.hpke_ikm_e[0]);
    let randomness = SealRandomness { hpke_ikm_e: Zeroizing::new(vec![[0xff; 32]]), ..randomness };
    let encapsulated = seal::seal_with(&sender, &request, &randomness, encapsulation).unwrap();
    assert_eq!(encapsulated.bytes, sealed.bytes);
}

#[test]
fn every_intermediate_is_the_vectors() {
    let case = case("envelope_v2.json", "env-1to1-ok");
    let (keys, expected) = (&case["keys"], &case["intermediate"]);
    let check = |name: &str, got: &[u8]| assert_eq!(hex::encode(got), expected[name].as_str().unwrap(), "{name}");
    let header = bytes(&expected["header"]);
    let header_hash = HeaderHash::of(&header);
    let key = ContentKey(Zeroizing::new(array(&case["randomness"]["cek"])));
    let place = Place {
        header_hash,
        agent_id: AgentId::from_bytes(array(&keys["recipient_agent_id"])),
        prekey_id: PrekeyId::from_bytes(array(&keys["prekey_id"])),
        index: 0,
    };
    check("header_hash", &header_hash.0);
    check("hpke_info", &place.info());
    check("hpke_aad", &place.aad());
    check("k_payload", &*key.payload_key(header_hash));
    check("k_stream", &*key.stream_key(header_hash));
    check("payload_aad", &payload_aad(header_hash));
    check("padded_inner", &pad(&bytes(&case["inner"])).unwrap());
    let parsed = Header::decode(header.clone().into()).unwrap();
    assert_eq!(parsed.encode(), header, "a header encodes to the bytes it was read from");
    check("key_commitment", &key.commitment(parsed.msg_id));
}

#[test]
fn the_vectors_envelope_opens() {
    let case = case("envelope_v2.json", "env-1to1-ok");
    let keys = &case["keys"];
    let recipient = AgentId::from_bytes(array(&keys["recipient_agent_id"]));
    let secret = PrekeySecret::derive(&array(&keys["recipient_ikm"]));
    assert_eq!(secret.public().as_bytes(), &array(&keys["recipient_x25519_public"]));
    let envelope = Envelope::decode(bytes(&case["envelope"])).unwrap();
    let Header { msg_id, conversation_id, sender_node_id, .. } = envelope.header();
    assert_eq!(*msg_id, "01900000-0000-7000-8000-000000000001".parse::<MessageId>().unwrap());
    assert_eq!(*conversation_id, ConversationId::from_bytes([0xc0; 16]));
    assert_eq!(*sender_node_id, NodeId::from_bytes([0xa0; 16]));
    let sender = PublicKey::from_bytes(&array(&keys["sender_ed25519_public"])).unwrap();
    let opened = envelope.verify(&sender).unwrap().open(recipient, |id| {
        assert_eq!(id.as_bytes(), &array(&keys["prekey_id"]));
        Some(&secret)
    });
    assert_eq!(*opened.unwrap().inner, bytes(&case["inner"]));
}

#[test]
fn chunks_are_the_vectors_both_ways() {
    let case = case("envelope_v2.json", "chunk-ok");
    let aad = bytes(&case["aad"]);
    let mut stored = [0; 64];
    stored[..32].copy_from_slice(&bytes(&case["k_stream"]));
    stored[32..].copy_from_slice(&aad[b"murmur/2 chunk\0".len()..][..32]);
    let key = StreamKey::from_bytes(&stored);
    let cipher = ChunkCipher::new(&key, &array(&case["stream_id"]), &array(&case["nonce_prefix"]));
    for chunk in case["chunks"].as_array().unwrap() {
        let index = u32::try_from(chunk["index"].as_u64().unwrap()).unwrap();
        let last = chunk["last"].as_bool().unwrap();
        let (plaintext, ciphertext) = (bytes(&chunk["plaintext"]), bytes(&chunk["ciphertext"]));
        assert_eq!(cipher.encrypt(index, last, &plaintext).unwrap(), ciphertext);
        assert_eq!(*cipher.decrypt(index, last, &ciphertext).unwrap(), plaintext);
        assert!(cipher.decrypt(index, !last, &ciphertext).is_err(), "a false end");
        assert!(cipher.decrypt(index + 1, last, &ciphertext).is_err(), "another place");
    }
}

#[test]
fn the_vectors_chain_holds() {
    let case = case("trust_v2.json", "cert-chain-ok");
    let root = RootCertificate::new(certificate(&case["root"])).unwrap();
    let (node, agent) = (certificate(&case["node"]), certificate(&case["agent"]));
    for certificate in [root.certificate(), &node, &agent] {
        assert_eq!(&certificate.claims().encode(), certificate.statement().body(), "claims encode to what was read");
    }
    let now = agent.claims().not_before_ms;
    let node_chain = Chain::new(node, Vec::new()).unwrap();
    let chain = node_chain.extend(agent).unwrap();
    let chain = Chain::decode(chain.encode()).unwrap();
    let verified = verify_chain(&chain, &root, now, &NothingSeen).unwrap();
    assert_eq!(verified.slug(), "/w/acme/u/jdoe/alice");
    assert_eq!((verified.origin(), verified.root_fp()), (Origin::Owner, root.fp()));
    assert_eq!((verified.tier(true), verified.tier(false)), (Tier::Verified, Tier::Pinned));
    assert_eq!(verify_node_chain(&node_chain, &root, now, &NothingSeen).unwrap().node_id(), verified.node_id());
}

#[test]
fn the_vectors_prekey_holds() {
    let chain = case("trust_v2.json", "cert-chain-ok");
    let case = case("trust_v2.json", "prekey-ok");
    let agent = certificate(&chain["agent"]);
    let now = 1_795_000_000_000; // the vector's created_ms
    let prekey = prekey::verify(&statement(&case), &agent, now, 0).unwrap();
    assert_eq!(prekey.id.to_string(), case["prekey_id"].as_str().unwrap());
    assert!(!prekey.is_stale(prekey.fresh_until_ms) && prekey.is_stale(prekey.fresh_until_ms + 1));
    // The agent of the vector signs with the key of the envelope's sender, so issuing can be compared byte for byte.
    let signer = IdentityKey::from_seed(&[0x11; 32]);
    let spec = prekey::PrekeySpec::new(prekey.agent_id, agent.fp(), prekey.public, prekey.seq, prekey.created_ms);
    let (issued, id) = prekey::issue(&signer, &spec);
    assert!(issued == statement(&case) && id == prekey.id);
}

#[test]
fn ids_numbers_heads_and_lengths_are_the_vectors() {
    let dm = case("trust_v2.json", "dm-conversation-id");
    let agent = |name: &str| AgentId::from_bytes(array(&dm[name]));
    let expected = ConversationId::from_bytes(array(&dm["out"]));
    assert_eq!(dm_conversation_id(agent("a"), agent("b")), expected);
    assert_eq!(dm_conversation_id(agent("b"), agent("a")), expected);

    let safety = case("trust_v2.json", "safety-number");
    let key = |name: &str| PublicKey::from_bytes(&array(&safety[name])).unwrap();
    assert_eq!(safety_number(&key("a"), &key("b")), safety["out"].as_str().unwrap());
    assert_eq!(safety_number(&key("b"), &key("a")), safety["out"].as_str().unwrap());

    let chain = case("trust_v2.json", "cert-chain-ok");
    let mut log = KeyLog::default();
    for (name, head) in
        ["root", "node", "agent"].iter().zip(case("trust_v2.json", "keylog-chain")["heads"].as_array().unwrap())
    {
        log = log.append(&bytes(&chain[name]["body"]));
        assert_eq!(log.head, array(head));
    }
    assert_eq!(log.size, 3);

    for pair in case("trust_v2.json", "padme")["pairs"].as_array().unwrap() {
        let number = |at: usize| usize::try_from(pair[at].as_u64().unwrap()).unwrap();
        assert_eq!(padme(number(0)), number(1));
    }
    assert_eq!(Fingerprint::from_bytes([0xab; 32]).to_string(), "ab".repeat(32));
}

//! The fuzzer's corpus as ordinary tests: every input that was ever worth keeping, and a few thousand seeded mutations of each
//! target's own, hold to the same rules, and none takes more memory than its length explains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{
    alloc::System,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cap::Cap;
use data_encoding::BASE64URL_NOPAD;
use murmur_core::{
    id::TokenId,
    token::{Token, TokenKind},
};
use murmur_crypto::{
    chunk::ChunkFrame,
    keys::IdentityKey,
    revocation::{Revocation, RevocationList, RevocationListSpec, Revoked},
    statement::Statement,
};
use murmur_tests::fuzz::{self, world};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
/// One at a time, so that what is measured is one body's.
static ALONE: Mutex<()> = Mutex::new(());

/// What a body may allocate beside its input: the world's own fixed parts, and some copies of a small input.
const SLACK_BYTES: usize = 256 * 1024;
/// And for each byte of the input: it is decoded, written anew and decoded again.
const COPIES: usize = 64;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("{target}: {error}"))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Runs one input and holds it to its memory.
fn one(target: &str, name: &str, bytes: &[u8]) {
    let before = MEMORY.allocated();
    MEMORY.set_limit(before + SLACK_BYTES + COPIES * bytes.len()).unwrap();
    let result = std::panic::catch_unwind(|| fuzz::one(target, bytes));
    MEMORY.set_limit(usize::MAX).unwrap();
    if result.is_err() {
        panic!("{target} breaks on {name}: {}", BASE64URL_NOPAD.encode(bytes));
    }
}

/// Small and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        [0, 1, 0x7f, 0x80, 0xff, b'/', b'.', u8::try_from(self.below(256)).unwrap()][self.below(8)]
    }

    fn mutated(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.byte(),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.insert(at, self.byte()),
                3 => bytes.truncate(at),
                _ => {
                    let from = self.below(other.len() + 1);
                    let until = from + self.below(other.len() + 1 - from);
                    bytes.splice(at..at, other[from..until].iter().copied());
                }
            }
        }
        bytes
    }
}

/// `MURMUR_CORPUS_MUTATIONS` tries more of them.
fn mutations() -> usize {
    std::env::var("MURMUR_CORPUS_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_500)
}

fn check(target: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    world::world();
    let corpus = corpus(target);
    assert!(corpus.len() >= 3, "{target} has next to no corpus");
    for (name, bytes) in &corpus {
        one(target, name, bytes);
    }
    let mut random = Random(42);
    for round in 0..mutations() {
        let (bytes, other) = (random.below(corpus.len()), random.below(corpus.len()));
        let mutated = random.mutated(&corpus[bytes].1, &corpus[other].1);
        one(target, &format!("mutation {round} of {}", corpus[bytes].0), &mutated);
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                check(stringify!($target));
            }
        )*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($target)),*];
            assert_eq!(run.to_vec(), fuzz::TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
            let bins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
            for target in run {
                assert!(bins.join(format!("{target}.rs")).exists(), "the fuzzer does not know {target}");
            }
        }
    };
}

targets! {
    envelope_decode header_decode inner_decode ack_decode chain_decode chain_verify prekey_verify invite_parse invite_body
    revocation_list chunk_reassemble subject_parse slug_parse token_parse
}

/// Twenty bytes that claim four gigabytes, for every field that has a length.
#[test]
fn a_claimed_length_allocates_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    world::world();
    for (target, _) in fuzz::TARGETS {
        for field in 0..=16_u8 {
            for length in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff; 9], &[0x80, 0x80, 0x80, 0x80, 0x10]] {
                let mut bytes = vec![field << 3 | 2];
                bytes.extend(length);
                bytes.resize(20, 1);
                one(target, "a claim", &bytes);
                // And one level down.
                let nested = [&[0x0a, 20][..], &bytes].concat();
                one(target, "a nested claim", &nested);
            }
        }
    }
}

/// The limit above is real: a body that took what it was told would not get it.
#[test]
fn memory_is_measured() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    MEMORY.set_limit(MEMORY.allocated() + SLACK_BYTES).unwrap();
    let refused = Vec::<u8>::new().try_reserve_exact(1 << 20).is_err();
    MEMORY.set_limit(usize::MAX).unwrap();
    assert!(refused);
}

/// Inputs that are right, and the beginnings of what is wrong; the fuzzer finds the rest.
fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let world = world::world();
    let statement = |statement: &Statement| statement.body().to_vec();
    let text = |text: &str| text.as_bytes().to_vec();
    match target {
        "envelope_decode" => {
            let real = world::envelope();
            vec![("real", real.clone()), ("cut", real[..real.len() / 2].to_vec()), ("empty", vec![])]
        }
        "header_decode" => {
            // Field 1 of the envelope: two bytes of key and length before it.
            let real = world::envelope();
            let length = usize::from(real[1] & 0x7f) | usize::from(real[2]) << 7;
            let header = real[3..3 + length].to_vec();
            let crit = [&header[..], &[0x7a, 1, 17]].concat();
            let again = [&header[..], &header].concat();
            vec![("real", header), ("crit", crit), ("twice", again)]
        }
        "inner_decode" => {
            let real = world::inner().encode().unwrap().to_vec();
            vec![("real", real.clone()), ("twice", [&real[..], &real].concat()), ("empty", vec![])]
        }
        "ack_decode" => {
            let body = world::ack_body();
            let real = body.sign(&world.bob.key, Some(&world.bob.chain)).unwrap().to_vec();
            let bare = body.sign(&world.bob.key, None).unwrap().to_vec();
            let forged = body.sign(&world.alice.key, Some(&world.bob.chain)).unwrap().to_vec();
            vec![("real", real), ("without-chain", bare), ("forged", forged)]
        }
        "chain_decode" => vec![
            ("alice", world.alice.chain.encode()),
            ("bob", world.bob.chain.encode()),
            ("node", [&[0x0a, 0], &world.node.encode()[..]].concat()),
        ],
        "chain_verify" => vec![
            ("good", vec![]),
            ("enroller", vec![3, 0, 0, 1]),
            ("agent-alone", vec![4, 0]),
            ("expired", vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 3]),
            ("foreign-signer", vec![0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5]),
        ],
        "prekey_verify" => {
            let real = statement(&world.bob.prekey);
            vec![("alice", statement(&world.alice.prekey)), ("bob", real.clone()), ("cut", real[..40].to_vec())]
        }
        "invite_parse" => {
            let real = world::invite().sign(&IdentityKey::from_seed(&world::ROOT_SEED)).unwrap();
            let raw = BASE64URL_NOPAD.decode(&real.as_bytes()["MURMUR:".len()..]).unwrap();
            vec![
                ("text", text(&real)),
                ("bytes", raw),
                ("v1", text("MURMUR:eyJuYXRzVG9rZW4iOiJ4In0")),
                ("v1-json", text("{}")),
            ]
        }
        "invite_body" => {
            let real = world::invite().sign(&IdentityKey::from_seed(&world::ROOT_SEED)).unwrap();
            let raw = BASE64URL_NOPAD.decode(&real.as_bytes()["MURMUR:".len()..]).unwrap();
            let body = Statement::decode(raw[1..].to_vec()).unwrap().body().to_vec();
            vec![
                ("real", body.clone()),
                ("cut", body[..body.len() / 2].to_vec()),
                ("twice", [&body[..], &body].concat()),
            ]
        }
        "revocation_list" => {
            let spec = world::revocations();
            let root_key = IdentityKey::from_seed(&world::ROOT_SEED);
            let signed = RevocationList::issue(&root_key, &world.root, &spec).unwrap().encode();
            let body = Statement::decode(signed.clone()).unwrap().body().to_vec();
            let (node, alice) = (&world.node, world.alice.chain.leaf());
            let whats = [
                Revoked::Certificate(node.fp()),
                Revoked::Subject { subject_id: alice.claims().subject_id, serial_lt: alice.claims().serial + 1 },
            ];
            let entries = whats.map(|what| Revocation { what, ..spec.entries[0].clone() }).into();
            let spec = RevocationListSpec { entries, ..spec };
            let list = RevocationList::issue(&root_key, &world.root, &spec).unwrap();
            assert!(list.revokes(node) && list.revokes(alice));
            let of_this_world = Statement::decode(list.encode()).unwrap().body().to_vec();
            vec![
                ("signed", signed),
                ("real", body.clone()),
                ("cut", body[..body.len() / 2].to_vec()),
                ("twice", [&body[..], &body].concat()),
                ("of-this-world", of_this_world),
            ]
        }
        "chunk_reassemble" => {
            let frame = ChunkFrame { stream_id: [1; 16], index: 3, last: true, ciphertext: vec![5; 40].into() };
            let order = |order: [u8; 5]| order.into_iter().flat_map(|which| [which, 0, 0, 0]).collect();
            vec![
                ("frame", frame.encode()),
                ("in-order", order([0, 1, 2, 3, 4])),
                ("repeated", order([0, 0, 1, 1, 2])),
                ("reordered", order([1, 0, 4, 2, 3])),
                ("early-end", vec![0, 0, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0]),
                ("foreign", vec![0, 0, 0, 0, 1, 0x83, 0, 0]),
            ]
        }
        "subject_parse" => {
            let (ws, node, agent) = ("5a".repeat(16), "a0".repeat(16), "a3".repeat(16));
            let route = format!("mm.in.local.00.{ws}.{node}");
            vec![
                ("agent", text(&format!("{route}.{agent}.{node}"))),
                ("ack", text(&format!("{route}._ack.{node}"))),
                ("blocks", text(&format!("{route}._blk.{node}"))),
                ("multi", text(&format!("{route}._multi.{node}"))),
                ("route", text(&route)),
                ("wildcard", text(&format!("{route}.*.>"))),
            ]
        }
        "slug_parse" => {
            ["/w/acme/u/jdoe/ci/fix", "./a/b", "../x", "self", "", "/u/JDoe/alice", "My Agent 2", "/w/a/u/b/"]
                .into_iter()
                .zip(["absolute", "child", "sibling", "self", "empty", "account", "name", "scope"])
                .map(|(slug, name)| (name, text(slug)))
                .collect()
        }
        "token_parse" => {
            let token = |kind| text(&Token::from_parts(kind, TokenId::from_bytes([7; 16]), [9; 32]).expose());
            let mut cut = token(TokenKind::Agent);
            cut.pop();
            vec![("agent", token(TokenKind::Agent)), ("node", token(TokenKind::Ci)), ("cut", cut)]
        }
        other => panic!("no seeds for {other}"),
    }
}

/// The seeds are what this code makes; `MURMUR_WRITE_CORPUS=1` writes them anew.
#[test]
fn the_seeds_are_up_to_date() {
    for (target, _) in fuzz::TARGETS {
        for (name, bytes) in seeds(target) {
            let path = folder(target).join(format!("seed-{name}"));
            if std::env::var_os("MURMUR_WRITE_CORPUS").is_some() {
                fs::create_dir_all(folder(target)).unwrap();
                fs::write(&path, &bytes).unwrap();
            }
            assert!(
                fs::read(&path).ok().as_deref() == Some(&bytes[..]),
                "{} is not what the code makes",
                path.display()
            );
        }
    }
}

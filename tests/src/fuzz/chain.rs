//! Chains: an attacker who holds the keys of node and agents signs any certificates it likes, and the rules of PROTOCOL §2.4,
//! written here a second time, decide what may be believed.

use murmur_core::limits::CLOCK_SKEW_MS;
use murmur_crypto::{
    cert::CertKind,
    chain::{CHAIN_BYTES_MAX, Chain, NothingSeen, verify_chain},
    keys::IdentityKey,
};

use super::{
    forge,
    wire::{Value, write},
    world::{ALICE_SEED, BOB_SEED, NODE_SEED, NOW_MS, ROOT_SEED, world},
};

const AGENT: u64 = CertKind::Agent as u64;
const NODE: u64 = CertKind::Node as u64;

/// A chain of a stranger's bytes: only one that this world's node made leads to its root.
pub(super) fn chain_decode(bytes: &[u8]) {
    let Ok(chain) = Chain::decode(bytes.to_vec()) else { return };
    assert!(bytes.len() <= CHAIN_BYTES_MAX && chain.certificates().count() < 4);
    check_reads_back(&chain);
    if let Ok(verified) = verify_chain(&chain, &world().root, NOW_MS, &NothingSeen) {
        let known = [&world().alice, &world().bob].map(|agent| agent.chain.leaf().fp());
        assert!(known.contains(&verified.agent().fp()), "a stranger's chain leads to the root");
    }
}

pub(super) fn check_reads_back(chain: &Chain) {
    let again = Chain::decode(chain.encode()).expect("what was written cannot be read");
    assert!(again == *chain, "it does not read back");
}

/// One certificate as an attacker makes it.
struct Forged {
    kind: u64,
    subject: [u8; 16],
    workspace: [u8; 16],
    key: [u8; 32],
    scope: Option<&'static str>,
    slug: Option<&'static str>,
    can_issue: bool,
    from_ms: u64,
    until_ms: u64,
    node: [u8; 16],
    /// Whose key signs, and which certificate it names: the one above, unless something is wrong.
    signer: [u8; 32],
    issuer: [u8; 32],
}

/// Takes choices from the input; 0, and its end, mean that all is as it should be.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        choices[usize::from(*first) % choices.len()]
    }

    fn certificate(&mut self, kind: u64, above: &Above) -> Forged {
        let kind = self.pick(&[kind, kind, kind, AGENT, NODE, CertKind::Enroller as u64]);
        let is_agent = kind == AGENT;
        let slugs = ["/w/acme/u/jdoe/alice", "/w/acme/u/eve/x", "/w/other/u/jdoe/alice", "/w/acme/u/jdoe2/x"];
        let scopes = ["/w/acme/u/jdoe/", "/w/acme/", "/w/acme/u/jdoe/team/", "/w/acme/u/eve/", "/w/other/"];
        let (slug, scope) = (self.pick(&slugs), self.pick(&scopes));
        let far = 40 * 365 * 24 * 3_600_000_u64;
        Forged {
            kind,
            subject: self.pick(&[[0xa3; 16], [0xa0; 16], [0x5a; 16]]),
            workspace: self.pick(&[[0x5a; 16], [0x5a; 16], [0x5b; 16]]),
            key: self.pick(&[ALICE_SEED, NODE_SEED, ROOT_SEED, BOB_SEED]),
            scope: (!is_agent).then_some(scope),
            slug: is_agent.then_some(slug),
            can_issue: !is_agent && self.pick(&[true, true, false]),
            from_ms: NOW_MS - 1 + self.pick(&[0, 0, CLOCK_SKEW_MS + 1, CLOCK_SKEW_MS + 2, far]),
            until_ms: NOW_MS + 2 * far - self.pick(&[0, 0, 2 * far + CLOCK_SKEW_MS, 2 * far + CLOCK_SKEW_MS + 1]),
            node: self.pick(&[above.subject, above.subject, above.subject, [0xa1; 16]]),
            signer: self.pick(&[above.key, above.key, above.key, ROOT_SEED, NODE_SEED, ALICE_SEED]),
            issuer: self.pick(&[above.fp, above.fp, above.fp, above.root_fp, [7; 32]]),
        }
    }
}

/// What a certificate needs to know of the one above it.
#[derive(Clone)]
struct Above {
    subject: [u8; 16],
    key: [u8; 32],
    fp: [u8; 32],
    root_fp: [u8; 32],
    kind: u64,
    workspace: [u8; 16],
    scope: &'static str,
    can_issue: bool,
}

impl Forged {
    fn body(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let is_agent = self.kind == AGENT;
        write(&[
            (1, Value::Number(2)),
            (2, Value::Number(self.kind)),
            (3, bytes(&self.subject)),
            (4, bytes(&self.workspace)),
            (5, bytes(IdentityKey::from_seed(&self.key).public().as_bytes())),
            (6, bytes(&self.issuer)),
            (7, Value::Number(1)),
            (8, Value::Number(self.from_ms)),
            (9, Value::Number(self.until_ms)),
            (10, bytes(self.scope.unwrap_or_default().as_bytes())),
            (11, Value::Number(self.can_issue.into())),
            (12, Value::Number(1)),
            (13, Value::Bytes(vec![0x81, 0x04])),
            (14, bytes(if is_agent { &self.node } else { &[] })),
            (15, bytes(self.slug.unwrap_or_default().as_bytes())),
        ])
    }

    /// The rules of one link, as the protocol states them.
    fn follows_from(&self, above: &Above) -> bool {
        let name = self.slug.or(self.scope).unwrap_or_default();
        let begun = NOW_MS + CLOCK_SKEW_MS >= self.from_ms;
        let ended = NOW_MS > self.until_ms + CLOCK_SKEW_MS;
        self.issuer == above.fp
            && self.signer == above.key
            && above.can_issue
            && above.kind < self.kind
            && (self.kind != AGENT || (above.kind == NODE && self.node == above.subject))
            && self.workspace == above.workspace
            && name.starts_with(above.scope)
            && begun
            && !ended
            && self.from_ms < self.until_ms
    }
}

/// Builds the chain that a script tells, and compares who believes it.
pub(super) fn chain_verify(bytes: &[u8]) {
    let mut script = Script(bytes);
    let root = &world().root;
    let root_fp = *root.fp().as_bytes();
    let mut above = Above {
        subject: *root.workspace_id().as_bytes(),
        key: ROOT_SEED,
        fp: root_fp,
        root_fp,
        kind: CertKind::Root as u64,
        workspace: *root.workspace_id().as_bytes(),
        scope: "/w/acme/",
        can_issue: true,
    };
    let kinds: &[u64] = match script.pick(&[0, 0, 0, 1, 2, 3]) {
        0 => &[NODE, AGENT],
        1 => &[CertKind::Enroller as u64, NODE, AGENT],
        2 => &[AGENT],
        _ => &[CertKind::Enroller as u64, CertKind::Enroller as u64, NODE, AGENT],
    };
    let (mut statements, mut holds, mut leaf) = (Vec::new(), kinds.len() < 4, 0);
    for kind in kinds {
        let forged = script.certificate(*kind, &above);
        holds &= forged.follows_from(&above);
        let body = forged.body();
        statements.push((1, Value::Bytes(forge::statement("murmur/2 cert", &body, &forged.signer))));
        leaf = forged.kind;
        above = Above {
            subject: forged.subject,
            key: forged.key,
            fp: forge::fingerprint(&body),
            kind: forged.kind,
            workspace: forged.workspace,
            scope: forged.scope.unwrap_or("nothing is below an agent"),
            can_issue: forged.can_issue,
            root_fp,
        };
    }
    statements.reverse();
    let is_believed =
        Chain::decode(write(&statements)).is_ok_and(|chain| verify_chain(&chain, root, NOW_MS, &NothingSeen).is_ok());
    assert_eq!(is_believed, holds && leaf == AGENT, "two opinions on one chain");
}

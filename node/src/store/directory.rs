//! The copy of the directory, where its watch goes on, and the highest serials seen.

use std::sync::Arc;

use bytes::Bytes;
use murmur_core::id::{AgentId, NodeId};
use murmur_crypto::hash::Fingerprint;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    StoreError, Tx,
    row::{id, int, small, text, uint, uint_option},
};
use crate::directory::{AgentKind, Batch, Change, Floor, FloorKey, Peer, PeerKeys};

/// `trust_floor.kind` of a prekey sequence; certificates have their own kinds, 1 to 4.
const PREKEY: u32 = 0;

/// What was saved.
#[derive(Debug, Default)]
pub struct Saved {
    /// Every agent.
    pub peers: Vec<Arc<Peer>>,
    /// Nodes that were connected.
    pub online: Vec<NodeId>,
    /// Where the watch goes on.
    pub resume_token: Option<String>,
    /// When the control plane last confirmed the copy.
    pub confirmed_ms: Option<u64>,
    /// The highest serials and sequences seen.
    pub floors: Vec<(FloorKey, Floor)>,
    /// The newest revocation list, as the owner signed it.
    pub revocations: Option<Vec<u8>>,
}

/// Reads everything.
///
/// # Errors
/// [`StoreError`].
pub fn load(tx: Tx<'_>) -> Result<Saved, StoreError> {
    let mut peers = tx.conn().prepare_cached("SELECT * FROM directory_peer")?;
    let peers = peers.query_map([], peer_row)?.collect::<Result<_, _>>()?;
    let mut floors = tx.conn().prepare_cached("SELECT * FROM trust_floor")?;
    let floors = floors.query_map([], floor_row)?.collect::<Result<_, _>>()?;
    let mut online = tx.conn().prepare_cached("SELECT node_id FROM directory_online")?;
    let online = online.query_map([], |row| id(row, "node_id", NodeId::from_bytes))?.collect::<Result<_, _>>()?;
    let state = "SELECT resume_token, confirmed_ms FROM directory_state";
    let (resume_token, confirmed_ms) =
        tx.conn().query_row(state, [], |row| Ok((row.get("resume_token")?, uint_option(row, "confirmed_ms")?)))?;
    let list = "SELECT list FROM revocation_list";
    let revocations = tx.conn().query_row(list, [], |row| row.get(0)).optional()?;
    Ok(Saved { peers, online, resume_token, confirmed_ms, floors, revocations })
}

/// Keeps a revocation list, unless a later one is kept.
///
/// # Errors
/// [`StoreError`].
pub fn save_revocations(tx: Tx<'_>, version: u64, list: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO revocation_list (id, version, list) VALUES (1, ?1, ?2)
        ON CONFLICT (id) DO UPDATE SET version = ?1, list = ?2 WHERE version < ?1";
    tx.conn().prepare_cached(sql)?.execute(params![int(version), list])?;
    Ok(())
}

/// Takes over a batch and its resume token together.
///
/// # Errors
/// [`StoreError`].
pub fn save(tx: Tx<'_>, batch: &Batch, now_ms: u64) -> Result<(), StoreError> {
    if batch.whole {
        tx.conn().execute("DELETE FROM directory_peer", [])?;
        tx.conn().execute("DELETE FROM directory_online", [])?;
    }
    for change in &batch.changes {
        match change {
            Change::Agent(peer) => save_peer(tx, peer)?,
            Change::Removed(agent) => remove_peer(tx, *agent)?,
            Change::Node { node_id, online } => save_node(tx, *node_id, *online)?,
        }
    }
    let sql = "UPDATE directory_state SET resume_token = coalesce(?1, resume_token), confirmed_ms = ?2";
    tx.conn().prepare_cached(sql)?.execute(params![batch.resume_token, int(now_ms)])?;
    Ok(())
}

/// Keeps floors that rose.
///
/// # Errors
/// [`StoreError`].
pub fn save_floors(tx: Tx<'_>, floors: &[(FloorKey, Floor)]) -> Result<(), StoreError> {
    let sql = "INSERT INTO trust_floor (kind, subject, value, cert_fp) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (kind, subject) DO UPDATE SET value = ?3, cert_fp = ?4 WHERE value < ?3";
    let mut statement = tx.conn().prepare_cached(sql)?;
    for (key, floor) in floors {
        let (kind, subject) = match key {
            FloorKey::Serial { kind, subject_id } => (*kind, subject_id.as_slice()),
            FloorKey::Prekey(fp) => (PREKEY, fp.as_bytes().as_slice()),
        };
        statement.execute(params![kind, subject, int(floor.value), floor.fp.as_bytes()])?;
    }
    Ok(())
}

fn save_peer(tx: Tx<'_>, peer: &Peer) -> Result<(), StoreError> {
    let Peer { agent_id, slug, node_id, kind, description, group, host, attached, .. } = peer;
    let Peer { route, keys, revision, created_ms, former, .. } = peer;
    let sql =
        "INSERT OR REPLACE INTO directory_peer (agent_id, slug, node_id, kind, description, group_name, host, attached,
        route, chain, prekey, revision, created_ms, former_node_id, moved_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    tx.conn().prepare_cached(sql)?.execute(params![
        agent_id.as_bytes(),
        slug.as_str(),
        node_id.as_bytes(),
        kind.number(),
        description,
        group,
        host,
        attached,
        route.as_ref().map(ToString::to_string),
        keys.as_ref().map(|keys| keys.chain.as_ref()),
        keys.as_ref().map(|keys| keys.prekey.as_ref()),
        int(*revision),
        int(*created_ms),
        former.map(|(node, _)| node.to_vec()),
        former.map(|(_, moved_ms)| int(moved_ms)),
    ])?;
    Ok(())
}

fn remove_peer(tx: Tx<'_>, agent: AgentId) -> Result<(), StoreError> {
    tx.conn().prepare_cached("DELETE FROM directory_peer WHERE agent_id = ?1")?.execute([agent.as_bytes()])?;
    Ok(())
}

fn save_node(tx: Tx<'_>, node: NodeId, online: bool) -> Result<(), StoreError> {
    let sql = if online {
        "INSERT OR IGNORE INTO directory_online (node_id) VALUES (?1)"
    } else {
        "DELETE FROM directory_online WHERE node_id = ?1"
    };
    tx.conn().prepare_cached(sql)?.execute([node.as_bytes()])?;
    Ok(())
}

fn peer_row(row: &Row<'_>) -> rusqlite::Result<Arc<Peer>> {
    let blob = |column| row.get::<_, Option<Vec<u8>>>(column).map(|bytes| bytes.map(Bytes::from));
    let route = if row.get_ref("route")? == rusqlite::types::ValueRef::Null { None } else { Some(text(row, "route")?) };
    let former = row.get::<_, Option<[u8; 16]>>("former_node_id")?;
    Ok(Arc::new(Peer {
        agent_id: id(row, "agent_id", AgentId::from_bytes)?,
        slug: text(row, "slug")?,
        node_id: id(row, "node_id", NodeId::from_bytes)?,
        kind: AgentKind::from_number(row.get("kind")?),
        description: row.get("description")?,
        group: row.get("group_name")?,
        host: row.get("host")?,
        attached: row.get("attached")?,
        route,
        keys: blob("chain")?.zip(blob("prekey")?).map(|(chain, prekey)| PeerKeys { chain, prekey }),
        revision: uint(row, "revision")?,
        created_ms: uint(row, "created_ms")?,
        former: former.map(NodeId::from_bytes).zip(uint_option(row, "moved_ms")?),
    }))
}

fn floor_row(row: &Row<'_>) -> rusqlite::Result<(FloorKey, Floor)> {
    let kind = small(row, "kind")?;
    let key = if kind == PREKEY {
        FloorKey::Prekey(Fingerprint::from_bytes(row.get("subject")?))
    } else {
        FloorKey::Serial { kind, subject_id: row.get("subject")? }
    };
    let floor = Floor { value: uint(row, "value")?, fp: Fingerprint::from_bytes(row.get("cert_fp")?) };
    Ok((key, floor))
}

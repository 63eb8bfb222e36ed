//! The public keys of agents.

use murmur_core::id::{AgentId, WorkspaceId};

use super::{
    Conn, DbError, Row,
    row::{bytes, fixed, number, signed},
};

/// An agent's published keys.
#[derive(Debug, Clone)]
pub struct AgentKeys {
    /// Serialized `Chain`.
    pub chain: Vec<u8>,
    /// Serialized `SignedStatement`.
    pub prekey: Vec<u8>,
    /// Fingerprint of the agent's certificate.
    pub certificate_fp: [u8; 32],
    /// The certificate's serial.
    pub serial: u64,
    /// The prekey's sequence under that certificate.
    pub prekey_seq: u64,
}

impl AgentKeys {
    pub(super) fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        Ok(Self {
            chain: bytes(row, "chain")?,
            prekey: bytes(row, "prekey")?,
            certificate_fp: fixed(row, "certificate_fp")?,
            serial: number(row, "key_serial")?,
            prekey_seq: number(row, "prekey_seq")?,
        })
    }
}

/// Replaces an agent's keys.
///
/// # Errors
/// [`DbError`].
pub async fn put(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    agent_id: AgentId,
    keys: &AgentKeys,
) -> Result<(), DbError> {
    let AgentKeys { chain, prekey, certificate_fp, serial, prekey_seq } = keys;
    sqlx::query(
        "INSERT INTO agent_key (agent_id, workspace_id, chain, prekey, certificate_fp, serial, prekey_seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (agent_id) DO UPDATE SET chain = excluded.chain, prekey = excluded.prekey,
             certificate_fp = excluded.certificate_fp, serial = excluded.serial, prekey_seq = excluded.prekey_seq",
    )
    .bind(agent_id.to_vec())
    .bind(workspace_id.to_vec())
    .bind(chain)
    .bind(prekey)
    .bind(certificate_fp.to_vec())
    .bind(signed(*serial))
    .bind(signed(*prekey_seq))
    .execute(conn)
    .await?;
    Ok(())
}

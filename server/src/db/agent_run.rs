//! The lives of agents. An ended one keeps its row: it can be read and resurrected.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    phase::Phase,
    queue::Lease,
    slug::{AccountName, Slug},
};
use murmur_proto::v1;
use prost::Message as _;

use super::{
    Conn, DbError, Row, Source,
    row::{corrupt, fixed, fixed_or_null, flag, number, number_or_null, parsed, signed, text},
};

/// An agent's life as stored.
#[derive(Debug, Clone)]
pub struct AgentRun {
    /// The agent.
    pub agent_id: AgentId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Whose it is.
    pub account: AccountName,
    /// Absolute.
    pub slug: Slug,
    /// The nearest agent above it that lived when it was made.
    pub parent_id: Option<AgentId>,
    /// It registered itself: no process of ours.
    pub interactive: bool,
    /// Where it lives; `None` until one is chosen.
    pub node_id: Option<NodeId>,
    /// The start order of this incarnation was written.
    pub placed: bool,
    /// Where its life stands.
    pub phase: Phase,
    /// Counts the changes of phase, for good.
    pub rev: u64,
    /// Counts the starts.
    pub incarnation: u32,
    /// Why it is in this phase.
    pub reason: String,
    /// As what DESTROYING ends.
    pub end_as: Option<Phase>,
    /// Why it is ended.
    pub end_reason: String,
    /// What it is started with.
    pub spec: v1::AgentSpec,
    /// Whose history it begins with.
    pub fork_from: Option<AgentId>,
    /// Of the turn that runs or ran last.
    pub current_description: String,
    /// What it does now.
    pub progress: Option<v1::Progress>,
    /// What came out so far.
    pub output: Option<v1::AgentOutput>,
    /// Where its events come from, as an encoded UpdateAgentStatusRequest.
    pub repos: Option<Vec<u8>>,
    /// Nothing was heard from it for long.
    pub stuck: bool,
    /// Turns begun.
    pub turns: u32,
    /// Of a process that ended by itself.
    pub exit_code: Option<i32>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub phase_ms: u64,
    /// Unix milliseconds: when its budget of time is used up.
    pub deadline_ms: Option<u64>,
    /// Unix milliseconds; `None` while it lives.
    pub ended_ms: Option<u64>,
    /// Of its latest change.
    pub change: u64,
    /// The node's name; empty without one.
    pub node_name: String,
    /// Of the node's program.
    pub node_version: String,
    /// The parent's slug.
    pub parent_slug: Option<String>,
    /// Live agents directly below it.
    pub children: u32,
    /// What its queue holds.
    pub backlog: Backlog,
}

/// How much an agent's queue holds, and what of it its latest turn was handed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    entries: u64,
    handed: u64,
    lease: Option<Lease>,
}

impl Backlog {
    /// Nothing is there, handed out or not.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many entries wait for the agent in this incarnation: all but those that a turn holds now.
    #[must_use]
    pub fn waiting(&self, incarnation: u32, now_ms: u64) -> u64 {
        let is_held = self.lease.is_some_and(|lease| lease.holds(incarnation, now_ms));
        self.entries - if is_held { self.handed } else { 0 }
    }

    fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        let lease = match number_or_null(row, "turn_expire_ms")? {
            Some(expire_ms) => Some(Lease { incarnation: small(row, "turn_incarnation")?, expire_ms }),
            None => None,
        };
        Ok(Self { entries: number(row, "entries")?, handed: number(row, "handed")?, lease })
    }
}

impl AgentRun {
    fn from_row(row: &dyn Row) -> Result<Self, DbError> {
        let end_as = text(row, "end_as")?;
        Ok(Self {
            agent_id: AgentId::from_bytes(fixed(row, "agent_id")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            account: parsed(row, "account")?,
            slug: parsed(row, "slug")?,
            parent_id: fixed_or_null(row, "parent_id")?.map(AgentId::from_bytes),
            interactive: flag(row, "interactive")?,
            node_id: fixed_or_null(row, "node_id")?.map(NodeId::from_bytes),
            placed: flag(row, "placed")?,
            phase: parsed(row, "phase")?,
            rev: number(row, "rev")?,
            incarnation: small(row, "incarnation")?,
            reason: text(row, "reason")?.to_owned(),
            end_as: if end_as.is_empty() { None } else { Some(end_as.parse().map_err(corrupt("end_as"))?) },
            end_reason: text(row, "end_reason")?.to_owned(),
            spec: decoded(row, "spec")?.ok_or(DbError::Corrupt { column: "spec" })?,
            fork_from: fixed_or_null(row, "fork_from")?.map(AgentId::from_bytes),
            current_description: text(row, "current_description")?.to_owned(),
            progress: decoded(row, "progress")?,
            output: decoded(row, "output")?,
            repos: row.bytes("repos")?.map(<[u8]>::to_vec),
            stuck: flag(row, "stuck")?,
            turns: small(row, "turns")?,
            exit_code: row
                .int("exit_code")?
                .map(|code| i32::try_from(code).map_err(corrupt("exit_code")))
                .transpose()?,
            created_ms: number(row, "created_ms")?,
            phase_ms: number(row, "phase_ms")?,
            deadline_ms: number_or_null(row, "deadline_ms")?,
            ended_ms: number_or_null(row, "ended_ms")?,
            change: number(row, "change")?,
            node_name: row.text("node_name")?.unwrap_or_default().to_owned(),
            node_version: row.text("node_version")?.unwrap_or_default().to_owned(),
            parent_slug: row.text("parent_slug")?.map(str::to_owned),
            children: small(row, "children")?,
            backlog: Backlog::from_row(row)?,
        })
    }
}

fn small(row: &dyn Row, column: &'static str) -> Result<u32, DbError> {
    u32::try_from(number(row, column)?).map_err(corrupt(column))
}

fn decoded<T: prost::Message + Default>(row: &dyn Row, column: &'static str) -> Result<Option<T>, DbError> {
    row.bytes(column)?.map(|bytes| T::decode(bytes).map_err(corrupt(column))).transpose()
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT r.*, n.name AS node_name, n.version AS node_version, p.slug AS parent_slug,
                    (SELECT count(*) FROM agent_run c WHERE c.parent_id = r.agent_id AND c.ended_ms IS NULL) AS children,
                    (SELECT count(*) FROM follow_up f WHERE f.agent_id = r.agent_id) AS entries,
                    CASE WHEN t.expire_ms IS NULL THEN 0
                         ELSE (SELECT count(*) FROM follow_up f WHERE f.agent_id = r.agent_id AND f.turn_id = t.id)
                    END AS handed,
                    t.incarnation AS turn_incarnation, t.expire_ms AS turn_expire_ms
             FROM agent_run r LEFT JOIN node n ON n.id = r.node_id LEFT JOIN agent_run p ON p.agent_id = r.parent_id
             LEFT JOIN turn t ON t.agent_id = r.agent_id
             WHERE ",
            $rest
        )
    };
}

/// Adds a life. A slug that a live one holds is [`DbError::is_duplicate`].
///
/// # Errors
/// [`DbError`].
pub async fn insert(conn: &mut Conn, run: &AgentRun) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO agent_run (agent_id, workspace_id, account, slug, parent_id, interactive, node_id, placed, phase, rev,
             incarnation, reason, end_as, end_reason, spec, fork_from, current_description, stuck, turns, timeline_seq,
             created_ms, phase_ms, deadline_ms, ended_ms, change)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '', '', $13, $14, $15, FALSE, 0, 0, $16, $17, $18, $19, $20)",
    )
    .bind(run.agent_id.to_vec())
    .bind(run.workspace_id.to_vec())
    .bind(run.account.as_str())
    .bind(run.slug.to_string())
    .bind(run.parent_id.map(AgentId::to_vec))
    .bind(run.interactive)
    .bind(run.node_id.map(NodeId::to_vec))
    .bind(run.placed)
    .bind(run.phase.as_str())
    .bind(signed(run.rev))
    .bind(i64::from(run.incarnation))
    .bind(&run.reason)
    .bind(run.spec.encode_to_vec())
    .bind(run.fork_from.map(AgentId::to_vec))
    .bind(&run.current_description)
    .bind(signed(run.created_ms))
    .bind(signed(run.phase_ms))
    .bind(run.deadline_ms.map(signed))
    .bind(run.ended_ms.map(signed))
    .bind(signed(run.change))
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores what may change of a life, as the next change.
///
/// # Errors
/// [`DbError`].
pub async fn save(conn: &mut Conn, run: &mut AgentRun) -> Result<(), DbError> {
    run.change = next_change(conn).await?;
    sqlx::query(
        "UPDATE agent_run SET node_id = $2, placed = $3, phase = $4, rev = $5, incarnation = $6, reason = $7, end_as = $8,
             end_reason = $9, spec = $10, fork_from = $11, current_description = $12, progress = $13, output = $14,
             repos = $15, stuck = $16, turns = $17, exit_code = $18, phase_ms = $19, deadline_ms = $20,
             ended_ms = $21, change = $22, parent_id = $23
         WHERE agent_id = $1",
    )
    .bind(run.agent_id.to_vec())
    .bind(run.node_id.map(NodeId::to_vec))
    .bind(run.placed)
    .bind(run.phase.as_str())
    .bind(signed(run.rev))
    .bind(i64::from(run.incarnation))
    .bind(&run.reason)
    .bind(run.end_as.map_or("", Phase::as_str))
    .bind(&run.end_reason)
    .bind(run.spec.encode_to_vec())
    .bind(run.fork_from.map(AgentId::to_vec))
    .bind(&run.current_description)
    .bind(run.progress.as_ref().map(prost::Message::encode_to_vec))
    .bind(run.output.as_ref().map(prost::Message::encode_to_vec))
    .bind(&run.repos)
    .bind(run.stuck)
    .bind(i64::from(run.turns))
    .bind(run.exit_code.map(i64::from))
    .bind(signed(run.phase_ms))
    .bind(run.deadline_ms.map(signed))
    .bind(run.ended_ms.map(signed))
    .bind(signed(run.change))
    .bind(run.parent_id.map(AgentId::to_vec))
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the number of the next change.
///
/// # Errors
/// [`DbError`].
pub async fn next_change(conn: &mut Conn) -> Result<u64, DbError> {
    let value: i64 = sqlx::query_scalar("UPDATE counter SET value = value + 1 WHERE name = 'agent' RETURNING value")
        .fetch_one(conn)
        .await?;
    u64::try_from(value).map_err(corrupt("counter.value"))
}

/// The number of the newest change.
///
/// # Errors
/// [`DbError`].
pub async fn last_change(conn: &mut Conn) -> Result<u64, DbError> {
    let value: i64 = sqlx::query_scalar("SELECT value FROM counter WHERE name = 'agent'").fetch_one(conn).await?;
    u64::try_from(value).map_err(corrupt("counter.value"))
}

/// The life of an agent, ended or not.
///
/// # Errors
/// [`DbError`].
pub async fn get(conn: &mut impl Source, workspace_id: WorkspaceId, id: AgentId) -> Result<Option<AgentRun>, DbError> {
    let values = vec![workspace_id.to_vec().into(), id.to_vec().into()];
    conn.row(select!("r.workspace_id = $1 AND r.agent_id = $2"), values, AgentRun::from_row).await
}

/// Who holds a slug now.
///
/// # Errors
/// [`DbError`].
pub async fn live_by_slug(
    conn: &mut impl Source,
    workspace_id: WorkspaceId,
    slug: &Slug,
) -> Result<Option<AgentRun>, DbError> {
    let values = vec![workspace_id.to_vec().into(), slug.to_string().into()];
    let sql = select!("r.workspace_id = $1 AND r.slug = $2 AND r.ended_ms IS NULL");
    conn.row(sql, values, AgentRun::from_row).await
}

/// Who held a slug last and has ended.
///
/// # Errors
/// [`DbError`].
pub async fn ended_by_slug(
    conn: &mut impl Source,
    workspace_id: WorkspaceId,
    slug: &Slug,
) -> Result<Option<AgentRun>, DbError> {
    let values = vec![workspace_id.to_vec().into(), slug.to_string().into()];
    let sql = select!(
        "r.workspace_id = $1 AND r.slug = $2 AND r.ended_ms IS NOT NULL ORDER BY r.created_ms DESC, r.agent_id DESC LIMIT 1"
    );
    conn.row(sql, values, AgentRun::from_row).await
}

/// The live agents at and below a slug, deepest first.
///
/// # Errors
/// [`DbError`].
pub async fn subtree(conn: &mut Conn, workspace_id: WorkspaceId, slug: &Slug) -> Result<Vec<AgentRun>, DbError> {
    let (from, to) = below(slug.to_string());
    let rows = sqlx::query(select!(
        "r.workspace_id = $1 AND (r.slug = $2 OR (r.slug >= $3 AND r.slug < $4)) AND r.ended_ms IS NULL ORDER BY r.slug"
    ))
    .bind(workspace_id.to_vec())
    .bind(slug.to_string())
    .bind(from)
    .bind(to)
    .fetch_all(conn)
    .await?;
    let mut found = rows.iter().map(|row| AgentRun::from_row(row)).collect::<Result<Vec<_>, _>>()?;
    found.sort_by_key(|run| std::cmp::Reverse(run.slug.path().depth()));
    Ok(found)
}

/// Live children of an agent, by slug.
///
/// # Errors
/// [`DbError`].
pub async fn children(conn: &mut impl Source, parent: AgentId) -> Result<Vec<AgentRun>, DbError> {
    let sql = select!("r.parent_id = $1 AND r.ended_ms IS NULL ORDER BY r.slug LIMIT 500");
    conn.rows(sql, vec![parent.to_vec().into()], AgentRun::from_row).await
}

/// The live agents of a node that have a process of ours, or are to have one.
///
/// # Errors
/// [`DbError`].
pub async fn spawned_of_node(conn: &mut Conn, node_id: NodeId) -> Result<Vec<AgentRun>, DbError> {
    let rows = sqlx::query(select!(
        "r.node_id = $1 AND r.ended_ms IS NULL AND r.interactive = FALSE AND r.placed = TRUE AND r.phase <> 'sleeping'
         ORDER BY r.slug DESC"
    ))
    .bind(node_id.to_vec())
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| AgentRun::from_row(row)).collect()
}

/// The live agents of a node, whatever keeps them alive, deepest first.
///
/// # Errors
/// [`DbError`].
pub async fn live_of_node(conn: &mut Conn, node_id: NodeId) -> Result<Vec<AgentRun>, DbError> {
    let rows = sqlx::query(select!("r.node_id = $1 AND r.ended_ms IS NULL ORDER BY r.slug DESC"))
        .bind(node_id.to_vec())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| AgentRun::from_row(row)).collect()
}

/// Agents that wait for a node, oldest first.
///
/// # Errors
/// [`DbError`].
pub async fn waiting(conn: &mut Conn) -> Result<Vec<AgentRun>, DbError> {
    let rows = sqlx::query(select!(
        "r.placed = FALSE AND r.ended_ms IS NULL AND r.phase = 'starting' ORDER BY r.created_ms, r.slug"
    ))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| AgentRun::from_row(row)).collect()
}

/// Agents whose time is used up: that of their budget, or the one in which their node was to tell of their end.
///
/// # Errors
/// [`DbError`].
pub async fn overdue(conn: &mut Conn, now_ms: u64) -> Result<Vec<AgentRun>, DbError> {
    let rows =
        sqlx::query(select!("r.deadline_ms <= $1 AND r.ended_ms IS NULL")).bind(signed(now_ms)).fetch_all(conn).await?;
    rows.iter().map(|row| AgentRun::from_row(row)).collect()
}

/// When the next agent's time is used up.
///
/// # Errors
/// [`DbError`].
pub async fn next_deadline(conn: &mut Conn) -> Result<Option<u64>, DbError> {
    let query = "SELECT min(deadline_ms) AS at_ms FROM agent_run WHERE deadline_ms IS NOT NULL AND ended_ms IS NULL";
    let row = sqlx::query(query).fetch_one(conn).await?;
    number_or_null(&row, "at_ms")
}

const LOSABLE: &str = "FROM agent_run r JOIN node n ON n.id = r.node_id
    WHERE n.offline_ms IS NOT NULL AND r.ended_ms IS NULL AND r.interactive = FALSE AND r.placed = TRUE
      AND r.phase IN ('starting', 'running', 'checks-pending', 'destroying')";

/// Agents at work, or being ended, on nodes that have been offline since before `since_ms`.
///
/// # Errors
/// [`DbError`].
pub async fn lost(conn: &mut Conn, since_ms: u64) -> Result<Vec<(WorkspaceId, AgentId)>, DbError> {
    let query = format!("SELECT r.workspace_id, r.agent_id {LOSABLE} AND n.offline_ms <= $1 ORDER BY r.slug DESC");
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(signed(since_ms)).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok((WorkspaceId::from_bytes(fixed(row, "workspace_id")?), AgentId::from_bytes(fixed(row, "agent_id")?)))
        })
        .collect()
}

/// Since when the node has been offline that was lost first, of those that run something.
///
/// # Errors
/// [`DbError`].
pub async fn first_offline(conn: &mut Conn) -> Result<Option<u64>, DbError> {
    let query = format!("SELECT min(n.offline_ms) AS at_ms {LOSABLE}");
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_one(conn).await?;
    number_or_null(&row, "at_ms")
}

/// How many agents of an account live that did not register themselves.
///
/// # Errors
/// [`DbError`].
pub async fn count_spawned(conn: &mut Conn, workspace_id: WorkspaceId, account: &AccountName) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT count(*) AS live FROM agent_run
         WHERE workspace_id = $1 AND account = $2 AND ended_ms IS NULL AND interactive = FALSE",
    )
    .bind(workspace_id.to_vec())
    .bind(account.as_str())
    .fetch_one(conn)
    .await?;
    number(&row, "live")
}

/// Whether one of these slugs belongs to an agent that is being ended.
///
/// # Errors
/// [`DbError`].
pub async fn destroying(conn: &mut Conn, workspace_id: WorkspaceId, slugs: &[Slug]) -> Result<Option<Slug>, DbError> {
    for slug in slugs {
        let row = sqlx::query(
            "SELECT 1 AS one FROM agent_run
             WHERE workspace_id = $1 AND slug = $2 AND ended_ms IS NULL AND phase = 'destroying'",
        )
        .bind(workspace_id.to_vec())
        .bind(slug.to_string())
        .fetch_optional(&mut *conn)
        .await?;
        if row.is_some() {
            return Ok(Some(slug.clone()));
        }
    }
    Ok(None)
}

/// Which lives are wanted.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Only slugs that begin with this, which ends in `/`.
    pub prefix: String,
    /// A second such prefix.
    pub within: String,
    /// Ended ones too.
    pub all: bool,
    /// In this phase alone.
    pub phase: Option<Phase>,
}

/// Lives by slug, behind `after`.
///
/// # Errors
/// [`DbError`].
pub async fn page(
    conn: &mut impl Source,
    filter: &Filter,
    (slug, id): (&str, &[u8]),
    limit: u32,
) -> Result<Vec<AgentRun>, DbError> {
    let Filter { workspace_id, prefix, within, all, phase } = filter;
    let (from, to) = below_prefix(prefix);
    // A later page begins where the one before it ended.
    let from = from.max(slug.to_owned());
    let (from_too, to_too) = below_prefix(within);
    let sql = select!(
        "r.workspace_id = $1 AND r.slug >= $2 AND r.slug < $3 AND r.slug >= $4 AND r.slug < $5
         AND ($6 OR r.ended_ms IS NULL) AND ($7 = '' OR r.phase = $7)
         AND (r.slug > $8 OR (r.slug = $8 AND r.agent_id > $9)) ORDER BY r.slug, r.agent_id LIMIT $10"
    );
    let values = vec![
        workspace_id.to_vec().into(),
        from.into(),
        to.into(),
        from_too.into(),
        to_too.into(),
        (*all).into(),
        phase.map_or("", Phase::as_str).into(),
        slug.into(),
        id.to_vec().into(),
        limit.into(),
    ];
    conn.rows(sql, values, AgentRun::from_row).await
}

/// Lives that changed after a change, in that order, ended ones too.
///
/// # Errors
/// [`DbError`].
pub async fn changed_since(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    change: u64,
    limit: u32,
) -> Result<Vec<AgentRun>, DbError> {
    let rows = sqlx::query(select!("r.workspace_id = $1 AND r.change > $2 ORDER BY r.change LIMIT $3"))
        .bind(workspace_id.to_vec())
        .bind(signed(change))
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| AgentRun::from_row(row)).collect()
}

/// The range of slugs below one.
fn below(slug: String) -> (String, String) {
    below_prefix(&(slug + "/"))
}

/// The range of texts that begin with a prefix that ends in `/`: `0` is the character behind it.
fn below_prefix(prefix: &str) -> (String, String) {
    (prefix.to_owned(), prefix.strip_suffix('/').unwrap_or(prefix).to_owned() + "0")
}

//! Agents' logs of events: one row in, superseded, dropped, and read by what tells them.

use std::collections::BTreeMap;

use murmur_core::{
    event::{Draft, Kind},
    id::{AgentId, NodeId, WorkspaceId},
};
use sqlx::{QueryBuilder, Row as _, Sqlite, sqlite::SqliteRow};

use super::{
    Conn, DbError, Row, Source,
    row::{corrupt, fixed, number, number_or_null, signed},
};

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In whose log it stands.
    pub agent_id: AgentId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Of the agent.
    pub slug: String,
    /// Counts up in each log.
    pub seq: u64,
    /// Counts up over all events.
    pub position: u64,
    /// Where it stands in its node's order; `None` while the agent has no node.
    pub node_position: Option<u64>,
    /// Unique in its log.
    pub event_id: String,
    /// What it tells of.
    pub kind: Kind,
    /// When it happened, Unix milliseconds.
    pub time_ms: u64,
    /// When it came, Unix milliseconds.
    pub receive_ms: u64,
    /// Who says so, as [`murmur_core::event::Origin`] writes it.
    pub origin: String,
    /// Written by strangers.
    pub untrusted: bool,
    /// What it is about.
    pub attributes: BTreeMap<String, String>,
    /// For people and models.
    pub text: String,
    /// What it is about, to filter by.
    pub about: About,
    /// A newer one has its place.
    pub superseded: bool,
    /// Told to nobody.
    pub withheld: bool,
    /// In the agent's queue, too.
    pub queued: bool,
}

/// What an event is about, as far as readers filter by it. Empty and 0 for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// As [`murmur_core::event::RepoName`] writes it.
    pub repo: String,
    /// Without `refs/heads/`.
    pub branch: String,
    /// A pull request's number.
    pub pr: u64,
}

impl Event {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        let attributes = row.try_get::<&str, _>("attributes")?;
        Ok(Self {
            agent_id: AgentId::from_bytes(fixed(row, "agent_id")?),
            workspace_id: WorkspaceId::from_bytes(fixed(row, "workspace_id")?),
            slug: row.try_get("slug")?,
            seq: number(row, "seq")?,
            position: number(row, "position")?,
            node_position: number_or_null(row, "node_position")?,
            event_id: row.try_get("event_id")?,
            kind: row.try_get::<&str, _>("kind")?.parse().map_err(corrupt("kind"))?,
            time_ms: number(row, "time_ms")?,
            receive_ms: number(row, "receive_ms")?,
            origin: row.try_get("origin")?,
            untrusted: row.try_get("untrusted")?,
            attributes: serde_json::from_str(attributes).map_err(corrupt("attributes"))?,
            text: row.try_get("text")?,
            about: About { repo: row.try_get("repo")?, branch: row.try_get("branch")?, pr: number(row, "pr")? },
            superseded: row.try_get("superseded")?,
            withheld: row.try_get("withheld")?,
            queued: row.try_get("queued")?,
        })
    }
}

/// An event to add, beside what its draft says.
#[derive(Debug)]
pub struct NewEvent<'a> {
    /// In whose log.
    pub agent_id: AgentId,
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The agent's node, once it has one.
    pub node_id: Option<NodeId>,
    /// What is told.
    pub draft: &'a Draft,
    /// To filter by.
    pub about: &'a About,
    /// What it takes the place of.
    pub supersede_key: Option<&'a str>,
    /// One that happened later has its place already.
    pub superseded: bool,
    /// In the agent's queue, too.
    pub queued: bool,
    /// Unix milliseconds.
    pub receive_ms: u64,
}

/// Whether an event of this id stands in a log.
///
/// # Errors
/// [`DbError`].
pub async fn exists(conn: &mut Conn, agent_id: AgentId, event_id: &str) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 AS one FROM event WHERE agent_id = $1 AND event_id = $2")
        .bind(agent_id.to_vec())
        .bind(event_id)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Adds an event at the end of a log, and says how many rows the log has now.
///
/// # Errors
/// [`DbError`].
pub async fn append(conn: &mut Conn, new: &NewEvent<'_>) -> Result<u64, DbError> {
    let NewEvent { agent_id, workspace_id, node_id, draft, about, supersede_key, superseded, queued, receive_ms } = new;
    let log = sqlx::query(
        "INSERT INTO event_log (agent_id, seq, kept, dropped) VALUES ($1, 1, 1, 0)
         ON CONFLICT (agent_id) DO UPDATE SET seq = seq + 1, kept = kept + 1 RETURNING seq, kept",
    )
    .bind(agent_id.to_vec())
    .fetch_one(&mut *conn)
    .await?;
    let position = next_position(conn).await?;
    sqlx::query(
        "INSERT INTO event (agent_id, seq, position, node_id, node_position, workspace_id, event_id, kind, time_ms, receive_ms,
             origin, untrusted, attributes, text, repo, branch, pr, supersede_key, superseded, withheld, queued)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
    )
    .bind(agent_id.to_vec())
    .bind(signed(number(&log, "seq")?))
    .bind(position)
    .bind(node_id.map(NodeId::to_vec))
    .bind(node_id.map(|_| position))
    .bind(workspace_id.to_vec())
    .bind(&draft.event_id)
    .bind(draft.kind.as_str())
    .bind(signed(draft.time_ms))
    .bind(signed(*receive_ms))
    .bind(draft.origin.to_string())
    .bind(draft.untrusted)
    .bind(serde_json::to_string(&draft.attributes).map_err(corrupt("attributes"))?)
    .bind(&draft.text)
    .bind(&about.repo)
    .bind(&about.branch)
    .bind(signed(about.pr))
    .bind(supersede_key)
    .bind(superseded)
    .bind(draft.withheld)
    .bind(queued)
    .execute(conn)
    .await?;
    number(&log, "kept")
}

/// Takes the next position in the order of all events.
pub(super) async fn next_position(conn: &mut Conn) -> Result<i64, DbError> {
    let next = "UPDATE counter SET value = value + 1 WHERE name = 'event' RETURNING value";
    Ok(sqlx::query_scalar(next).fetch_one(conn).await?)
}

/// How many rows a log has.
///
/// # Errors
/// [`DbError`].
pub async fn kept(conn: &mut Conn, agent_id: AgentId) -> Result<u64, DbError> {
    let row =
        sqlx::query("SELECT kept FROM event_log WHERE agent_id = $1").bind(agent_id.to_vec()).fetch_one(conn).await?;
    number(&row, "kept")
}

/// When the event happened that stands for a key now.
///
/// # Errors
/// [`DbError`].
pub async fn current(conn: &mut Conn, agent_id: AgentId, key: &str) -> Result<Option<u64>, DbError> {
    let row = sqlx::query(
        "SELECT time_ms FROM event WHERE agent_id = $1 AND supersede_key = $2 AND superseded = FALSE AND withheld = FALSE",
    )
    .bind(agent_id.to_vec())
    .bind(key)
    .fetch_optional(conn)
    .await?;
    row.map(|row| number(&row, "time_ms")).transpose()
}

/// Takes the place from whatever stands for a key; what is fleeting goes with it.
///
/// # Errors
/// [`DbError`].
pub async fn supersede(conn: &mut Conn, agent_id: AgentId, key: &str, is_fleeting: bool) -> Result<(), DbError> {
    let of_key = "agent_id = $1 AND supersede_key = $2 AND superseded = FALSE AND withheld = FALSE";
    let query = match is_fleeting {
        true => format!("DELETE FROM event WHERE {of_key}"),
        false => format!("UPDATE event SET superseded = TRUE WHERE {of_key}"),
    };
    let done = sqlx::query(sqlx::AssertSqlSafe(query)).bind(agent_id.to_vec()).bind(key).execute(&mut *conn).await?;
    if is_fleeting {
        lose(conn, agent_id, done.rows_affected()).await?;
    }
    Ok(())
}

/// Drops the oldest row that nobody misses, a superseded one; false when there is none.
///
/// # Errors
/// [`DbError`].
pub async fn drop_spare(conn: &mut Conn, agent_id: AgentId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "DELETE FROM event WHERE agent_id = $1
         AND seq = (SELECT min(seq) FROM event WHERE agent_id = $1 AND superseded = TRUE)",
    )
    .bind(agent_id.to_vec())
    .execute(&mut *conn)
    .await?;
    lose(conn, agent_id, done.rows_affected()).await?;
    Ok(done.rows_affected() > 0)
}

/// The oldest row that is no gap.
///
/// # Errors
/// [`DbError`].
pub async fn oldest(conn: &mut Conn, agent_id: AgentId) -> Result<Option<u64>, DbError> {
    let row = sqlx::query("SELECT min(seq) AS seq FROM event WHERE agent_id = $1 AND kind <> 'gap'")
        .bind(agent_id.to_vec())
        .fetch_one(conn)
        .await?;
    number_or_null(&row, "seq")
}

/// The newest row that came before a moment, in a log that has one.
///
/// # Errors
/// [`DbError`].
pub async fn aged(conn: &mut Conn, before_ms: u64, limit: u32) -> Result<Vec<(AgentId, u64)>, DbError> {
    let rows = sqlx::query(
        "SELECT agent_id, max(seq) AS seq FROM event WHERE receive_ms < $1 AND kind <> 'gap' GROUP BY agent_id LIMIT $2",
    )
    .bind(signed(before_ms))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((AgentId::from_bytes(fixed(row, "agent_id")?), number(row, "seq")?))).collect()
}

/// When the oldest event came that is no gap.
///
/// # Errors
/// [`DbError`].
pub async fn first_received(conn: &mut Conn) -> Result<Option<u64>, DbError> {
    let row = sqlx::query("SELECT min(receive_ms) AS at_ms FROM event WHERE kind <> 'gap'").fetch_one(conn).await?;
    number_or_null(&row, "at_ms")
}

/// Drops a log's rows up to a number. Where they said something that nothing else says, a gap takes the place of the newest of them, and
/// with it the place of any gap before it: whoever has read so far never sees it.
///
/// # Errors
/// [`DbError`].
pub async fn cut(conn: &mut Conn, agent_id: AgentId, up_to: u64, now_ms: u64) -> Result<(), DbError> {
    let said = sqlx::query(
        "SELECT max(seq) AS seq, count(*) AS events FROM event
         WHERE agent_id = $1 AND seq <= $2 AND kind NOT IN ('gap', 'progress') AND superseded = FALSE AND withheld = FALSE",
    )
    .bind(agent_id.to_vec())
    .bind(signed(up_to))
    .fetch_one(&mut *conn)
    .await?;
    let Some(last) = number_or_null(&said, "seq")? else {
        let done = sqlx::query("DELETE FROM event WHERE agent_id = $1 AND seq <= $2 AND kind <> 'gap'")
            .bind(agent_id.to_vec())
            .bind(signed(up_to))
            .execute(&mut *conn)
            .await?;
        return lose(conn, agent_id, done.rows_affected()).await;
    };
    let dropped: i64 =
        sqlx::query_scalar("UPDATE event_log SET dropped = dropped + $2 WHERE agent_id = $1 RETURNING dropped")
            .bind(agent_id.to_vec())
            .bind(signed(number(&said, "events")?))
            .fetch_one(&mut *conn)
            .await?;
    let done = sqlx::query("DELETE FROM event WHERE agent_id = $1 AND seq <= $2 AND seq <> $3")
        .bind(agent_id.to_vec())
        .bind(signed(up_to))
        .bind(signed(last))
        .execute(&mut *conn)
        .await?;
    lose(conn, agent_id, done.rows_affected()).await?;
    sqlx::query(
        "UPDATE event SET kind = 'gap', event_id = 'murmur:gap:' || seq, origin = 'murmur', untrusted = FALSE, repo = '',
             branch = '', pr = 0, supersede_key = NULL, queued = FALSE, attributes = $3, text = $4, receive_ms = $5
         WHERE agent_id = $1 AND seq = $2",
    )
    .bind(agent_id.to_vec())
    .bind(signed(last))
    .bind(format!("{{\"dropped\":\"{dropped}\"}}"))
    .bind(format!("{dropped} earlier events of this log are no longer kept"))
    .bind(signed(now_ms))
    .execute(conn)
    .await?;
    Ok(())
}

async fn lose(conn: &mut Conn, agent_id: AgentId, rows: u64) -> Result<(), DbError> {
    sqlx::query("UPDATE event_log SET kept = kept - $2 WHERE agent_id = $1")
        .bind(agent_id.to_vec())
        .bind(signed(rows))
        .execute(conn)
        .await?;
    Ok(())
}

/// Puts what came for an agent while it had no node at the end of its node's order; says whether there was anything.
///
/// # Errors
/// [`DbError`].
pub async fn settle(conn: &mut Conn, agent_id: AgentId, node_id: NodeId) -> Result<bool, DbError> {
    let rows = sqlx::query("SELECT seq FROM event WHERE agent_id = $1 AND node_id IS NULL ORDER BY seq")
        .bind(agent_id.to_vec())
        .fetch_all(&mut *conn)
        .await?;
    for row in &rows {
        let position = next_position(conn).await?;
        sqlx::query("UPDATE event SET node_id = $3, node_position = $4 WHERE agent_id = $1 AND seq = $2")
            .bind(agent_id.to_vec())
            .bind(signed(number(row, "seq")?))
            .bind(node_id.to_vec())
            .bind(position)
            .execute(&mut *conn)
            .await?;
    }
    Ok(!rows.is_empty())
}

/// What a node is to be told behind a position, in order: what is superseded or withheld is skipped.
///
/// # Errors
/// [`DbError`].
pub async fn of_node(conn: &mut Conn, node_id: NodeId, after: u64, limit: u32) -> Result<Vec<Event>, DbError> {
    let rows = sqlx::query(
        "SELECT e.*, r.slug FROM event e JOIN agent_run r ON r.agent_id = e.agent_id
         WHERE e.node_id = $1 AND e.node_position > $2 AND e.superseded = FALSE AND e.withheld = FALSE
         ORDER BY e.node_position LIMIT $3",
    )
    .bind(node_id.to_vec())
    .bind(signed(after))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(Event::from_row).collect()
}

/// Every event behind a position, in order, of all workspaces.
///
/// # Errors
/// [`DbError`].
pub async fn since(conn: &mut Conn, after: u64, limit: u32) -> Result<Vec<Event>, DbError> {
    let rows = sqlx::query(
        "SELECT e.*, r.slug FROM event e JOIN agent_run r ON r.agent_id = e.agent_id
         WHERE e.position > $1 ORDER BY e.position LIMIT $2",
    )
    .bind(signed(after))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(Event::from_row).collect()
}

/// The newest position.
///
/// # Errors
/// [`DbError`].
pub async fn last_position(conn: &mut impl Source) -> Result<u64, DbError> {
    let position = |row: &dyn Row| number(row, "value");
    let found = conn.row("SELECT value FROM counter WHERE name = 'event'", Vec::new(), position).await?;
    found.ok_or(DbError::Corrupt { column: "value" })
}

/// Whose logs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// One agent's.
    Agent(AgentId),
    /// Those of all whose slug begins with this, which ends in `/`, and of the agent that it is the subtree of.
    Below {
        /// The agent at its top.
        top: Option<AgentId>,
        /// Ends in `/`.
        prefix: String,
    },
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Whose.
    pub whose: Whose,
    /// None: all.
    pub kinds: Vec<Kind>,
    /// What they are about; empty and 0 for all.
    pub about: About,
    /// What is superseded and withheld, too.
    pub all: bool,
}

impl Filter {
    /// Whether an event is wanted. A gap is, whatever kinds and things are asked for: what was there before it nobody knows.
    #[must_use]
    pub fn lets(&self, event: &Event) -> bool {
        let About { repo, branch, pr } = &self.about;
        let is_theirs = match &self.whose {
            Whose::Agent(id) => event.agent_id == *id,
            Whose::Below { top, prefix } => *top == Some(event.agent_id) || event.slug.starts_with(prefix.as_str()),
        };
        let is_about = (repo.is_empty() || *repo == event.about.repo)
            && (branch.is_empty() || *branch == event.about.branch)
            && (*pr == 0 || *pr == event.about.pr);
        let is_kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        event.workspace_id == self.workspace_id
            && is_theirs
            && (self.all || (!event.superseded && !event.withheld))
            && (event.kind.is_gap() || (is_kind && is_about))
    }
}

/// Which part of what is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Behind this position; in descending order before it, where 0 is the end.
    pub after: u64,
    /// Newest first.
    pub descending: bool,
    /// Events at most.
    pub limit: u32,
}

/// Events that a filter lets through.
///
/// # Errors
/// [`DbError`].
pub async fn page(conn: &mut Conn, filter: &Filter, range: Range) -> Result<Vec<Event>, DbError> {
    let Filter { workspace_id, whose, kinds, about, all } = filter;
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT e.*, r.slug FROM event e JOIN agent_run r ON r.agent_id = e.agent_id WHERE e.workspace_id = ",
    );
    query.push_bind(workspace_id.to_vec());
    match whose {
        Whose::Agent(id) => {
            query.push(" AND e.agent_id = ").push_bind(id.to_vec());
        }
        Whose::Below { top, prefix } => {
            // `0` is the character behind the `/` that a prefix ends in.
            let end = prefix.strip_suffix('/').unwrap_or(prefix).to_owned() + "0";
            query.push(" AND ((r.slug >= ").push_bind(prefix.clone()).push(" AND r.slug < ").push_bind(end).push(")");
            if let Some(top) = top {
                query.push(" OR e.agent_id = ").push_bind(top.to_vec());
            }
            query.push(")");
        }
    }
    if !all {
        query.push(" AND e.superseded = FALSE AND e.withheld = FALSE");
    }
    if *about != About::default() || !kinds.is_empty() {
        query.push(" AND (e.kind = 'gap' OR (TRUE");
        if !kinds.is_empty() {
            query.push(" AND e.kind IN (");
            let mut list = query.separated(", ");
            for kind in kinds {
                list.push_bind(kind.as_str().to_owned());
            }
            query.push(")");
        }
        if !about.repo.is_empty() {
            query.push(" AND e.repo = ").push_bind(about.repo.clone());
        }
        if !about.branch.is_empty() {
            query.push(" AND e.branch = ").push_bind(about.branch.clone());
        }
        if about.pr > 0 {
            query.push(" AND e.pr = ").push_bind(signed(about.pr));
        }
        query.push("))");
    }
    let order = if matches!(whose, Whose::Agent(_)) { "e.seq" } else { "e.position" };
    if range.after > 0 || !range.descending {
        query.push(if range.descending { " AND e.position < " } else { " AND e.position > " });
        query.push_bind(signed(range.after));
    }
    query.push(format!(" ORDER BY {order} {} LIMIT ", if range.descending { "DESC" } else { "ASC" }));
    query.push_bind(i64::from(range.limit));
    let rows = query.build().fetch_all(conn).await?;
    rows.iter().map(Event::from_row).collect()
}

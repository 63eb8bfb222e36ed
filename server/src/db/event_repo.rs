//! Where agents' events come from, and what their working copies have changed.

use murmur_core::{
    event::RepoName,
    id::{AgentId, WorkspaceId},
};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{
    Conn, DbError,
    row::{fixed, number, parsed, signed},
};

/// Who registered something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The spawn.
    Spawn,
    /// What the agent said of itself.
    Status,
    /// What its node found in its working copies.
    Node,
    /// An event that told which pull request a branch belongs to.
    Event,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Status => "status",
            Self::Node => "node",
            Self::Event => "event",
        }
    }
}

/// What an agent hears of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration {
    /// The repository.
    pub repo: RepoName,
    /// Empty with `pr` 0: the whole of it.
    pub branch: String,
    /// 0: none.
    pub pr: u64,
}

/// Registers one thing; a second time changes nothing.
///
/// # Errors
/// [`DbError`].
pub async fn add(
    conn: &mut Conn,
    (workspace_id, agent_id): (WorkspaceId, AgentId),
    source: Source,
    new: &Registration,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO agent_repo (agent_id, workspace_id, repo, branch, pr, source, resolved)
         VALUES ($1, $2, $3, $4, $5, $6, FALSE) ON CONFLICT DO NOTHING",
    )
    .bind(agent_id.to_vec())
    .bind(workspace_id.to_vec())
    .bind(new.repo.as_str())
    .bind(&new.branch)
    .bind(signed(new.pr))
    .bind(source.as_str())
    .execute(conn)
    .await?;
    Ok(())
}

/// What one source registered.
///
/// # Errors
/// [`DbError`].
pub async fn of_source(conn: &mut Conn, agent_id: AgentId, source: Source) -> Result<Vec<Registration>, DbError> {
    let rows = sqlx::query("SELECT repo, branch, pr FROM agent_repo WHERE agent_id = $1 AND source = $2")
        .bind(agent_id.to_vec())
        .bind(source.as_str())
        .fetch_all(conn)
        .await?;
    let read = |row: &SqliteRow| {
        Ok(Registration { repo: parsed(row, "repo")?, branch: row.try_get("branch")?, pr: number(row, "pr")? })
    };
    rows.iter().map(read).collect()
}

/// Forgets one thing that a source registered.
///
/// # Errors
/// [`DbError`].
pub async fn remove(conn: &mut Conn, agent_id: AgentId, source: Source, old: &Registration) -> Result<(), DbError> {
    sqlx::query("DELETE FROM agent_repo WHERE agent_id = $1 AND source = $2 AND repo = $3 AND branch = $4 AND pr = $5")
        .bind(agent_id.to_vec())
        .bind(source.as_str())
        .bind(old.repo.as_str())
        .bind(&old.branch)
        .bind(signed(old.pr))
        .execute(conn)
        .await?;
    Ok(())
}

/// What a repository's events are looked up by: those of a branch, a pull request, or all of it.
///
/// Returns live agents that registered the branch, the pull request, or the whole repository.
///
/// # Errors
/// [`DbError`].
pub async fn listeners(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    repo: &RepoName,
    branch: &str,
    pr: u64,
) -> Result<Vec<AgentId>, DbError> {
    let rows = sqlx::query(
        "SELECT DISTINCT a.agent_id FROM agent_repo a JOIN agent_run r ON r.agent_id = a.agent_id
         WHERE a.workspace_id = $1 AND a.repo = $2 AND r.ended_ms IS NULL
           AND ((a.branch <> '' AND a.branch = $3) OR (a.pr > 0 AND a.pr = $4) OR (a.branch = '' AND a.pr = 0))
         ORDER BY r.slug",
    )
    .bind(workspace_id.to_vec())
    .bind(repo.as_str())
    .bind(branch)
    .bind(signed(pr))
    .fetch_all(conn)
    .await?;
    ids(&rows)
}

/// Live agents that work on a branch.
///
/// # Errors
/// [`DbError`].
pub async fn on_branch(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    repo: &RepoName,
    branch: &str,
) -> Result<Vec<AgentId>, DbError> {
    let rows = sqlx::query(
        "SELECT DISTINCT a.agent_id FROM agent_repo a JOIN agent_run r ON r.agent_id = a.agent_id
         WHERE a.workspace_id = $1 AND a.repo = $2 AND a.branch = $3 AND r.ended_ms IS NULL ORDER BY r.slug",
    )
    .bind(workspace_id.to_vec())
    .bind(repo.as_str())
    .bind(branch)
    .fetch_all(conn)
    .await?;
    ids(&rows)
}

/// Live agents that registered anything in a repository, each with what its working copy has changed there.
///
/// # Errors
/// [`DbError`].
pub async fn in_repo(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    repo: &RepoName,
) -> Result<Vec<(AgentId, Option<Copy>)>, DbError> {
    let rows = sqlx::query(
        "SELECT DISTINCT a.agent_id, c.repo, c.branch, c.base_sha, c.head_sha, c.files
         FROM agent_repo a JOIN agent_run r ON r.agent_id = a.agent_id
         LEFT JOIN agent_copy c ON c.agent_id = a.agent_id AND c.repo = a.repo
         WHERE a.workspace_id = $1 AND a.repo = $2 AND r.ended_ms IS NULL ORDER BY r.slug",
    )
    .bind(workspace_id.to_vec())
    .bind(repo.as_str())
    .fetch_all(conn)
    .await?;
    let read = |row: &SqliteRow| {
        let copy = row.try_get::<Option<&str>, _>("repo")?.is_some().then(|| Copy::from_row(row)).transpose()?;
        Ok((AgentId::from_bytes(fixed(row, "agent_id")?), copy))
    };
    rows.iter().map(read).collect()
}

fn ids(rows: &[SqliteRow]) -> Result<Vec<AgentId>, DbError> {
    rows.iter().map(|row| Ok(AgentId::from_bytes(fixed(row, "agent_id")?))).collect()
}

/// Marks a pull request that an agent registered as closed or merged, or as open again.
///
/// # Errors
/// [`DbError`].
pub async fn resolve(
    conn: &mut Conn,
    agent_id: AgentId,
    repo: &RepoName,
    pr: u64,
    resolved: bool,
) -> Result<(), DbError> {
    sqlx::query("UPDATE agent_repo SET resolved = $4 WHERE agent_id = $1 AND repo = $2 AND pr = $3")
        .bind(agent_id.to_vec())
        .bind(repo.as_str())
        .bind(signed(pr))
        .bind(resolved)
        .execute(conn)
        .await?;
    Ok(())
}

/// How many pull requests an agent has, and how many of them are still open.
///
/// # Errors
/// [`DbError`].
pub async fn pull_requests(conn: &mut Conn, agent_id: AgentId) -> Result<(u64, u64), DbError> {
    let row = sqlx::query(
        "SELECT count(*) AS all_of_them, coalesce(sum(open), 0) AS open FROM
            (SELECT min(resolved = FALSE) AS open FROM agent_repo WHERE agent_id = $1 AND pr > 0 GROUP BY repo, pr)",
    )
    .bind(agent_id.to_vec())
    .fetch_one(conn)
    .await?;
    Ok((number(&row, "all_of_them")?, number(&row, "open")?))
}

/// What a working copy has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The repository.
    pub repo: RepoName,
    /// What is checked out.
    pub branch: String,
    /// Where it began.
    pub base_sha: String,
    /// What is checked out.
    pub head_sha: String,
    /// Paths from the repository's root.
    pub files: Vec<String>,
}

impl Copy {
    fn from_row(row: &SqliteRow) -> Result<Self, DbError> {
        Ok(Self {
            repo: parsed(row, "repo")?,
            branch: row.try_get("branch")?,
            base_sha: row.try_get("base_sha")?,
            head_sha: row.try_get("head_sha")?,
            files: row.try_get::<&str, _>("files")?.lines().map(str::to_owned).collect(),
        })
    }
}

/// What an agent's copy of a repository has changed, as was told last.
///
/// # Errors
/// [`DbError`].
pub async fn copy(conn: &mut Conn, agent_id: AgentId, repo: &RepoName) -> Result<Option<Copy>, DbError> {
    let row = sqlx::query("SELECT * FROM agent_copy WHERE agent_id = $1 AND repo = $2")
        .bind(agent_id.to_vec())
        .bind(repo.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(Copy::from_row).transpose()
}

/// Remembers what an agent's copy of a repository has changed.
///
/// # Errors
/// [`DbError`].
pub async fn set_copy(conn: &mut Conn, agent_id: AgentId, copy: &Copy) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO agent_copy (agent_id, repo, branch, base_sha, head_sha, files) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (agent_id, repo) DO UPDATE SET branch = $3, base_sha = $4, head_sha = $5, files = $6",
    )
    .bind(agent_id.to_vec())
    .bind(copy.repo.as_str())
    .bind(&copy.branch)
    .bind(&copy.base_sha)
    .bind(&copy.head_sha)
    .bind(copy.files.join("\n"))
    .execute(conn)
    .await?;
    Ok(())
}

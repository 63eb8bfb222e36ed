//! Pull requests, as webhooks told of them: of which branch, and whether they are settled.

use murmur_core::{event::RepoName, id::WorkspaceId};

use super::{Conn, DbError, row::signed};

/// How a pull request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Still to be decided.
    Open,
    /// Given up.
    Closed,
    /// Taken.
    Merged,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Merged => "merged",
        }
    }
}

/// A pull request, as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number there.
    pub number: u64,
    /// The branch that it brings.
    pub branch: String,
    /// How it stands.
    pub state: State,
    /// Its page.
    pub url: String,
    /// Unix milliseconds, of what was told last.
    pub updated_ms: u64,
}

/// Writes down how a pull request stands, unless something newer is known.
///
/// # Errors
/// [`DbError`].
pub async fn put(conn: &mut Conn, workspace_id: WorkspaceId, repo: &RepoName, pr: &PullRequest) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO pull_request (workspace_id, repo, number, branch, state, url, updated_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (workspace_id, repo, number) DO UPDATE
         SET branch = excluded.branch, state = excluded.state, url = excluded.url, updated_ms = excluded.updated_ms
         WHERE excluded.updated_ms >= pull_request.updated_ms",
    )
    .bind(workspace_id.to_vec())
    .bind(repo.as_str())
    .bind(signed(pr.number))
    .bind(&pr.branch)
    .bind(pr.state.as_str())
    .bind(&pr.url)
    .bind(signed(pr.updated_ms))
    .execute(conn)
    .await?;
    Ok(())
}

/// The branch of a pull request that a webhook told of; `None` for one of a fork, too.
///
/// # Errors
/// [`DbError`].
pub async fn branch(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    repo: &RepoName,
    number: u64,
) -> Result<Option<String>, DbError> {
    let sql = "SELECT branch FROM pull_request WHERE workspace_id = $1 AND repo = $2 AND number = $3 AND branch <> ''";
    let query = sqlx::query_scalar(sql).bind(workspace_id.to_vec()).bind(repo.as_str()).bind(signed(number));
    Ok(query.fetch_optional(conn).await?)
}

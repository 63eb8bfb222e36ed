//! Listing agents.

use super::{Directory, DirectoryError, room::readable_workspace};
use crate::{
    db::agent::{self, Agent},
    page::{Page, broken},
    tokens::Principal,
};

impl Directory {
    /// Live agents of the caller's workspace by slug, and the token of the next page.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn list_agents(
        &self,
        caller: &Principal,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Agent>, String), DirectoryError> {
        let page = Page::new("ListAgents", page_size, page_token)?;
        let after = std::str::from_utf8(&page.after).map_err(|_| broken())?;
        let mut tx = self.db.read().await?;
        let workspace_id = readable_workspace(&mut tx, caller).await?;
        let agents = agent::page(&mut tx, workspace_id, after, page.limit()).await?;
        Ok(page.cut(agents, |agent| agent.slug.to_string().into_bytes()))
    }
}

//! Listing agents.

use super::{Directory, DirectoryError, room::own_workspace};
use crate::{
    db::agent::{self, Agent},
    invalid::Invalid,
    page::Page,
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
        let page = Page::new(page_size, page_token)?;
        let after = std::str::from_utf8(&page.after)
            .map_err(|_| Invalid::new("page_token", "must come from the page before"))?;
        let mut tx = self.db.read().await?;
        let agents = agent::page(&mut tx, own_workspace(caller)?, after, page.limit()).await?;
        Ok(page.cut(agents, |agent| agent.slug.to_string().into_bytes()))
    }
}

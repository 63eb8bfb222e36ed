//! What an agent writes about itself.

use murmur_proto::{time::timestamp, v1};
use prost::Message as _;

use super::{
    AgentError, Agents,
    find::{Who, live},
    idle::over_budget,
    report::bounded,
    spec::check_repos,
};
use crate::{db::agent_run::AgentRun, events, invalid::at_most, tokens::Principal};

const LABEL_BYTES_MAX: usize = 240;
const DETAIL_BYTES_MAX: usize = 4 * 1024;

impl Agents {
    /// Writes down progress, output and repositories; what is absent stays.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn update(
        &self,
        principal: &Principal,
        request: v1::UpdateAgentStatusRequest,
    ) -> Result<AgentRun, AgentError> {
        if let Some(progress) = &request.progress {
            at_most("progress.label", &progress.label, LABEL_BYTES_MAX)?;
            at_most("progress.detail", &progress.detail, DETAIL_BYTES_MAX)?;
        }
        check_repos(&request.repos)?;
        let mut work = self.begin().await?;
        let who = Who::of(&mut work, principal).await?;
        let mut run = live(&mut work, &who, &request.slug).await?;
        who.require_power(&run.slug, "write about")?;
        if let Some(progress) = request.progress {
            let time = progress.time.or_else(|| Some(timestamp(work.now_ms())));
            run.progress = Some(v1::Progress { time, ..progress });
            events::child_progress(&mut work, &run).await?;
        }
        if let Some(output) = &request.output {
            run.output = Some(bounded(output));
        }
        events::registered_by_status(&mut work, &run, &request.repos).await?;
        if !request.repos.is_empty() {
            let repos =
                v1::UpdateAgentStatusRequest { repos: request.repos, ..v1::UpdateAgentStatusRequest::default() };
            run.repos = Some(repos.encode_to_vec());
        }
        work.save(&mut run).await?;
        over_budget(&mut work, &mut run).await?;
        self.commit(work).await?;
        Ok(run)
    }
}

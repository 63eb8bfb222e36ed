//! What the runtime asks of the control plane, and tells it.

use futures::{Stream, StreamExt as _, stream::BoxStream};
use murmur_core::id::AgentId;
use murmur_proto::{client::AS_HEADER, v1};

use super::{Control, ControlError, call};

/// Orders and wishes for output as they come.
pub(crate) type Orders = BoxStream<'static, Result<v1::WatchOrdersResponse, ControlError>>;

impl Control {
    /// Says what this node can run, and what is left of agents that have ended. Answers with what is not to run or to be kept.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn report_node(&self, report: v1::ReportNodeRequest) -> Result<v1::ReportNodeResponse, ControlError> {
        self.introduced().await;
        let mut client = self.client.runtime.clone();
        call(client.report_node(report)).await
    }

    /// Every open order, then each new one.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn watch_orders(&self) -> Result<Orders, ControlError> {
        self.introduced().await;
        let mut client = self.client.runtime.clone();
        let orders = call(client.watch_orders(v1::WatchOrdersRequest {})).await?;
        Ok(orders.map(|order| order.map_err(ControlError::from)).boxed())
    }

    /// Tells what happened to agents. Answers for each.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn report_agents(
        &self,
        report_id: String,
        reports: Vec<v1::AgentReport>,
    ) -> Result<Vec<v1::AgentReportResult>, ControlError> {
        self.introduced().await;
        let mut client = self.client.runtime.clone();
        Ok(call(client.report_agents(v1::ReportAgentsRequest { reports, report_id })).await?.results)
    }

    /// Takes the follow-ups of an agent's next turn; `None` when nothing waits.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn claim_turn(
        &self,
        agent: AgentId,
        incarnation: u32,
        single: bool,
    ) -> Result<Option<v1::ClaimTurnResponse>, ControlError> {
        let mut client = self.client.runtime.clone();
        let request = v1::ClaimTurnRequest { agent_id: agent.to_string(), incarnation, single };
        Ok(Some(call(client.claim_turn(request)).await?).filter(|turn| !turn.turn_id.is_empty()))
    }

    /// The runtime has taken the prompt of a turn.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn complete_turn(&self, agent: AgentId, incarnation: u32, turn_id: String) -> Result<(), ControlError> {
        let mut client = self.client.runtime.clone();
        let request = v1::CompleteTurnRequest { agent_id: agent.to_string(), incarnation, turn_id };
        call(client.complete_turn(request)).await?;
        Ok(())
    }

    /// The open items of an agent's checklist, in their order.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn open_tasks(&self, agent: AgentId) -> Result<Vec<v1::Task>, ControlError> {
        let request = v1::ListTasksRequest { active: true, ..v1::ListTasksRequest::default() };
        let mut request = tonic::Request::new(request);
        if let Ok(named) = format!("agent:{agent}").parse() {
            request.metadata_mut().insert(AS_HEADER, named);
        }
        let mut client = self.client.tasks.clone();
        Ok(call(client.list_tasks(request)).await?.tasks)
    }

    /// Sends output for as long as somebody watches.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn send_output<S>(&self, output: S) -> Result<(), ControlError>
    where
        S: Stream<Item = v1::SendOutputRequest> + Send + 'static,
    {
        let mut client = self.client.runtime.clone();
        client.send_output(output).await?;
        Ok(())
    }
}

//! `murmur.v1.RuntimeService`.

use std::sync::Arc;

use murmur_core::{
    id::{NodeId, WorkspaceId},
    reason::Reason,
};
use murmur_proto::v1::{self, runtime_service_server::RuntimeService, watch_orders_response::Item};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, STREAM_ITEMS_MAX, calling_node, incarnation, queue, status};
use crate::{
    agents::{Agents, Next, OrderStream},
    lifecycle::Lifecycle,
    nodes::Nodes,
    queue::Queue,
    tokens::Principal,
};

/// What nodes are to run, and what they tell.
pub(crate) struct RuntimeRpc {
    pub(crate) agents: Arc<Agents>,
    /// Knows which incarnation of a node may still speak.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) lifecycle: Lifecycle,
}

impl RuntimeRpc {
    /// The calling node, unless another incarnation of it lives.
    async fn node<T>(&self, request: &Request<T>) -> Result<(Arc<Principal>, (WorkspaceId, NodeId)), Status> {
        let (caller, node) = calling_node(request)?;
        self.nodes.require_current(node, incarnation(request)?).await?;
        Ok((caller, node))
    }
}

#[tonic::async_trait]
impl RuntimeService for RuntimeRpc {
    async fn report_node(
        &self,
        request: Request<v1::ReportNodeRequest>,
    ) -> Result<Response<v1::ReportNodeResponse>, Status> {
        let (_, node) = self.node(&request).await?;
        Ok(Response::new(self.agents.report_node(node, request.into_inner()).await?))
    }

    type WatchOrdersStream = Answers<v1::WatchOrdersResponse>;

    async fn watch_orders(
        &self,
        request: Request<v1::WatchOrdersRequest>,
    ) -> Result<Response<Self::WatchOrdersStream>, Status> {
        let (caller, node) = self.node(&request).await?;
        let mut orders = self.agents.open_orders(node).await?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let (agents, drain) = (Arc::clone(&self.agents), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                result = tell(&agents, &caller, &mut orders, &answers) => if let Err(Some(status)) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
            agents.close_orders(&orders);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn report_agents(
        &self,
        request: Request<v1::ReportAgentsRequest>,
    ) -> Result<Response<v1::ReportAgentsResponse>, Status> {
        let (_, node) = self.node(&request).await?;
        Ok(Response::new(self.agents.report(node, request.into_inner()).await?))
    }

    async fn claim_turn(
        &self,
        request: Request<v1::ClaimTurnRequest>,
    ) -> Result<Response<v1::ClaimTurnResponse>, Status> {
        let (_, node) = self.node(&request).await?;
        Ok(Response::new(queue::claim_turn(&self.queue, node, request.get_ref()).await?))
    }

    async fn complete_turn(
        &self,
        request: Request<v1::CompleteTurnRequest>,
    ) -> Result<Response<v1::CompleteTurnResponse>, Status> {
        let (_, node) = self.node(&request).await?;
        Ok(Response::new(queue::complete_turn(&self.queue, node, request.get_ref()).await?))
    }

    async fn send_output(
        &self,
        request: Request<Streaming<v1::SendOutputRequest>>,
    ) -> Result<Response<v1::SendOutputResponse>, Status> {
        let (_, node) = self.node(&request).await?;
        let mut inbound = request.into_inner();
        let done = || Ok(Response::new(v1::SendOutputResponse {}));
        let Some(first) = inbound.message().await? else { return done() };
        let Some(sink) = self.agents.output_sink(node, &first.watch_id)? else { return done() };
        let mut chunk = first.chunk;
        loop {
            if let Some(chunk) = chunk
                && sink.chunks.send(chunk).await.is_err()
            {
                return done();
            }
            let message = tokio::select! {
                message = inbound.message() => message,
                () = sink.chunks.closed() => return done(),
                () = self.lifecycle.draining() => Err(status::draining()),
            };
            chunk = match message {
                Ok(Some(message)) => message.chunk,
                Ok(None) => return done(),
                Err(broken) => {
                    self.agents.output_broke(&sink);
                    return Err(broken);
                }
            };
        }
    }
}

/// Tells a node its orders until it leaves, which is `Err(None)`, or a newer stream has its place.
async fn tell(
    agents: &Agents,
    caller: &Principal,
    orders: &mut OrderStream,
    answers: &mpsc::Sender<Result<v1::WatchOrdersResponse, Status>>,
) -> Result<(), Option<Status>> {
    loop {
        let next = agents.next_orders(caller, orders).await.map_err(|error| Some(error.into()))?;
        let items = match next {
            Next::Orders(orders) => orders.into_iter().map(Item::Order).collect(),
            Next::Wanted(wanted) => vec![*wanted],
            Next::Replaced => {
                let text = "a newer stream of this node takes the orders";
                return Err(Some(murmur_proto::status::status(Reason::SessionReplaced, text)));
            }
        };
        for item in items {
            answers.send(Ok(v1::WatchOrdersResponse { item: Some(item) })).await.map_err(|_| None)?;
        }
    }
}

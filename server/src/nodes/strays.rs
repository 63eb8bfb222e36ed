//! Mail to nodes that do not exist.
//!
//! The broker lets a node write to any address of its workspace, since a list of all nodes would have to be signed into the account with
//! every enrolment. Nobody takes what stands at an address without a node, and it would stay until it is too old: one node could fill the
//! store that all share, in seconds, and stop everybody's mail. An honest node writes only to routes that the directory gave it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use murmur_core::subject::Shard;
use tokio_util::sync::CancellationToken;

use super::{NodeError, Nodes};
use crate::db::node::{self, State};

/// Between two looks at how much room is taken.
const EVERY: Duration = Duration::from_secs(5);
/// Nodes looked up at a time.
const PAGE: u32 = 500;
/// Addresses cleared in one go.
const ADDRESSES: usize = 200;
/// Tokens of a subject that are a node's route.
const ROUTE_TOKENS: usize = 6;

impl Nodes {
    /// Deletes mail to nodes that do not exist whenever the broker's room gets scarce, until `stop`.
    pub async fn keep_room(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            match self.delete_strays().await {
                // The next look comes soon, and a broker that is away takes no mail either.
                Ok(()) | Err(NodeError::BrokerDown) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "mail to nodes that do not exist cannot be deleted, trying again in {EVERY:?}"
                    );
                }
            }
        }
    }

    async fn delete_strays(&self) -> Result<(), NodeError> {
        let Some(waiting) = self.broker.crowd(Shard::ZERO).await? else { return Ok(()) };
        let strays = strays(&waiting, &self.routes().await?);
        let addresses: Vec<String> = strays.routes.into_iter().map(|route| format!("{route}.>")).collect();
        let mut count = 0;
        for some in addresses.chunks(ADDRESSES) {
            count += self.broker.delete(Shard::ZERO, some).await?;
        }
        for (source, messages) in strays.by_source {
            tracing::warn!(
                source,
                messages,
                deleted = count,
                "node {source} fills the broker's store with mail to nodes that do not exist, which is deleted: \
                 if it is not yours any more, `murmurctl node revoke` it"
            );
        }
        Ok(())
    }

    /// Where mail may wait: the routes of all nodes that count.
    async fn routes(&self) -> Result<HashSet<String>, NodeError> {
        let (mut after, mut routes) = (Vec::new(), HashSet::new());
        loop {
            let mut tx = self.db.read().await?;
            let nodes = node::page(&mut tx, None, &after, PAGE).await?;
            drop(tx);
            let Some(last) = nodes.last() else { return Ok(routes) };
            after = last.id.to_vec();
            routes.extend(nodes.into_iter().filter(|node| node.state == State::Approved).map(|node| node.route));
        }
    }
}

/// What stands at addresses that no node has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Strays {
    routes: HashSet<String>,
    /// How many messages, by the node that wrote them, as the broker knows it.
    by_source: BTreeMap<String, usize>,
}

fn strays(waiting: &[(String, usize)], routes: &HashSet<String>) -> Strays {
    let mut strays = Strays::default();
    for (subject, messages) in waiting {
        let end = subject.match_indices('.').nth(ROUTE_TOKENS - 1).map_or(subject.len(), |(at, _)| at);
        let route = &subject[..end];
        if !routes.contains(route) {
            strays.routes.insert(route.to_owned());
            let source = subject.rsplit('.').next().unwrap_or_default();
            *strays.by_source.entry(source.to_owned()).or_default() += messages;
        }
    }
    strays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_node_takes_is_stray() {
        let routes = HashSet::from(["mm.in.local.00.ws.node".to_owned()]);
        let waiting = [
            ("mm.in.local.00.ws.node.alice.thief".to_owned(), 1),
            ("mm.in.local.00.ws.nobody.alice.thief".to_owned(), 2),
            ("mm.in.local.00.ws.nobody.bob.thief".to_owned(), 3),
            ("mm.in.local.00.other.node.alice.friend".to_owned(), 4),
            ("mm.in.local.00.ws.node2.alice.thief".to_owned(), 5),
        ];
        let found = strays(&waiting, &routes);
        let expected = ["mm.in.local.00.ws.nobody", "mm.in.local.00.other.node", "mm.in.local.00.ws.node2"];
        assert_eq!(found.routes, expected.map(str::to_owned).into());
        assert_eq!(found.by_source, BTreeMap::from([("thief".to_owned(), 10), ("friend".to_owned(), 4)]));
    }
}

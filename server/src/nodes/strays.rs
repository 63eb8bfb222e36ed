//! Mail to nodes that do not exist.
//!
//! The broker lets a node write to any address of its workspace, since a list of all nodes would have to be signed into the account with
//! every enrolment. Nobody takes what stands at an address without a node, and it would stay until it is too old: one node could fill the
//! store that all share, in seconds, and stop everybody's mail. An honest node writes only to routes that the directory gave it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use murmur_core::subject::{Shard, route_of};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{NodeError, Nodes};
use crate::db::node::{self, State};

/// Between two looks at how much room is taken.
const EVERY: Duration = Duration::from_secs(5);
/// Below this share of the room nothing is looked for.
const CROWDED: u64 = 4;
/// Subjects dealt with in one look; the rest has its turn in the next.
const SUBJECTS_MAX: usize = 20_000;
/// Addresses cleared in one go, and their bytes: a request has to fit the broker's payload.
const ADDRESSES: usize = 200;
const ADDRESSES_BYTES: usize = 64 * 1024;
/// How long the broker may take to list them.
const LISTED_WITHIN: Duration = Duration::from_secs(60);
/// Nodes looked up at a time.
const PAGE: u32 = 500;

/// Routes of nodes: whether mail may wait there. Nobody takes that of a revoked node, and who wrote to it did nothing wrong.
type Routes = HashMap<String, bool>;

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
                        "mail to nodes that do not exist cannot be looked for, trying again in {EVERY:?}"
                    );
                }
            }
        }
    }

    async fn delete_strays(&self) -> Result<(), NodeError> {
        let Some(room) = self.broker.room(Shard::ZERO).await? else { return Ok(()) };
        if room.bytes < room.bytes_max / CROWDED {
            return Ok(());
        }
        let (routes, names) = self.routes().await?;
        // A node that is approved from here on has no mail yet.
        let is_stray = |subject: &str| routes.get(route_of(subject)) != Some(&true);
        let listed = timeout(LISTED_WITHIN, self.broker.subjects(Shard::ZERO, is_stray, SUBJECTS_MAX)).await;
        let waiting = listed.map_err(|_| NodeError::BrokerDown)??;
        let strays = Strays::of(&waiting, &routes);
        let mut deleted = 0;
        for addresses in in_parts(&strays.addresses) {
            deleted += self.delete_addresses(addresses).await?;
        }
        for (source, messages) in strays.by_source {
            let name = names.get(&source).unwrap_or(&source);
            tracing::warn!(
                source,
                messages,
                "node {name} writes to nodes that do not exist and fills the broker's store with it: if it is not yours any more, \
                 `murmurctl node revoke` it"
            );
        }
        if deleted > 0 {
            tracing::info!(deleted, "mail that nobody takes is deleted from the broker's store");
        }
        Ok(())
    }

    /// Deletes what waits at some addresses. One that the broker refuses, such as that of a consumer which the database knows no node
    /// for, does not keep the others.
    async fn delete_addresses(&self, addresses: &[String]) -> Result<u64, NodeError> {
        match self.broker.clear(Shard::ZERO, addresses).await {
            Err(NodeError::Broker(_)) if addresses.len() > 1 => {}
            Err(NodeError::Broker(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, address = addresses[0], "mail to a node that does not exist cannot be deleted");
                return Ok(0);
            }
            other => return other,
        }
        let mut deleted = 0;
        for address in addresses {
            deleted += Box::pin(self.delete_addresses(std::slice::from_ref(address))).await?;
        }
        Ok(deleted)
    }

    /// The routes of all nodes, and their names by their ids as the broker knows them.
    async fn routes(&self) -> Result<(Routes, HashMap<String, String>), NodeError> {
        let (mut after, mut routes, mut names) = (Vec::new(), HashMap::new(), HashMap::new());
        loop {
            let mut tx = self.db.read().await?;
            let nodes = node::page(&mut tx, None, &after, PAGE).await?;
            drop(tx);
            let Some(last) = nodes.last() else { return Ok((routes, names)) };
            after = last.id.to_vec();
            for node in nodes {
                names.insert(node.id.hex(), node.name);
                if !node.route.is_empty() {
                    routes.insert(node.route, node.state == State::Approved);
                }
            }
        }
    }
}

/// Whether an address can stand in a filter, for itself alone: the broker stores what was published to one of the name `*` or `>`, which in a
/// filter are the mail of everybody, and shows what is no text as another name. Such mail goes when it is too old.
fn can_be_named(route: &str) -> bool {
    !route.contains(char::REPLACEMENT_CHARACTER) && !route.split('.').any(|token| matches!(token, "*" | ">"))
}

/// What stands at addresses that no node has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Strays {
    /// Filters of what is to be deleted.
    addresses: Vec<String>,
    /// How many messages, by the node that wrote them, as the broker knows it.
    by_source: BTreeMap<String, usize>,
}

impl Strays {
    fn of(waiting: &[(String, usize)], routes: &Routes) -> Self {
        let (mut found, mut by_source) = (BTreeSet::new(), BTreeMap::new());
        for (subject, messages) in waiting {
            let route = route_of(subject);
            if can_be_named(route) {
                found.insert(format!("{route}.>"));
            }
            if !routes.contains_key(route) {
                let source = subject.rsplit('.').next().unwrap_or_default();
                *by_source.entry(source.to_owned()).or_default() += messages;
            }
        }
        Self { addresses: found.into_iter().collect(), by_source }
    }
}

/// Addresses in parts that fit a request.
fn in_parts(mut addresses: &[String]) -> impl Iterator<Item = &[String]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = addresses.iter().take(ADDRESSES).take_while(|address| {
            bytes += address.len();
            bytes <= ADDRESSES_BYTES
        });
        // One by itself is no longer than what the broker took as a subject.
        let (part, rest) = addresses.split_at(fit.count().max(1).min(addresses.len()));
        addresses = rest;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let route = |node: &str, counts: bool| (format!("mm.in.local.00.ws.{node}"), counts);
        HashMap::from([route("node", true), route("revoked", false)])
    }

    #[test]
    fn an_address_that_would_stand_for_others_is_in_no_filter() {
        let waiting = ["ws.*", "ws.>", "*.node", "*.*", "ws.\u{fffd}"]
            .map(|address| (format!("mm.in.local.00.{address}.alice.thief"), 1));
        let found = Strays::of(&waiting, &routes());
        assert_eq!((found.addresses, found.by_source), (vec![], BTreeMap::from([("thief".to_owned(), 5)])));
    }

    #[test]
    fn who_writes_to_nobody_is_named_and_who_wrote_to_a_revoked_node_is_not() {
        let waiting = [
            ("mm.in.local.00.ws.nobody.alice.thief".to_owned(), 2),
            ("mm.in.local.00.ws.nobody.bob.thief".to_owned(), 3),
            ("mm.in.local.00.ws.revoked.bob.friend".to_owned(), 4),
        ];
        let found = Strays::of(&waiting, &routes());
        assert_eq!(found.addresses, ["mm.in.local.00.ws.nobody.>", "mm.in.local.00.ws.revoked.>"]);
        assert_eq!(found.by_source, BTreeMap::from([("thief".to_owned(), 5)]));
    }

    #[test]
    fn parts_fit_a_request_and_hold_everything() {
        let addresses: Vec<String> = (0..450).map(|number| format!("{number:01000}")).collect();
        let parts: Vec<_> = in_parts(&addresses).collect();
        assert!(parts.iter().all(|part| part.len() <= 65), "64 KiB");
        assert_eq!(parts.concat(), addresses);
        let long = vec!["x".repeat(ADDRESSES_BYTES + 1); 2];
        assert_eq!(in_parts(&long).map(<[String]>::len).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(in_parts(&[]).count(), 0);
    }
}

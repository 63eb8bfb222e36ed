//! Messages offered at a steady rate, and how long each took from the time at which it was to be sent.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use murmur_proto::client::{Headers, NodeClient, connect_socket};
use murmur_tests::wait::PATIENCE;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{
    fresh_numbers,
    pace::pace,
    receiver,
    samples::Samples,
    stage::{Ends, draft},
};

/// Sends that may be under way at one time; those behind them wait, and their time counts.
const IN_FLIGHT: usize = 1_024;
/// The first messages, while caches fill, are sent and not counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// What is offered.
#[derive(Clone, Copy)]
pub(crate) struct Offered {
    /// Messages a second.
    pub(crate) per_second: f64,
    /// Messages in all.
    pub(crate) count: usize,
    /// Bytes of a body.
    pub(crate) bytes: usize,
}

/// What became of it.
pub(crate) struct Met {
    /// Until the send returned: the message is durable at its sender.
    pub(crate) accepted: Samples,
    /// Until the other agent's program had it.
    pub(crate) delivered: Samples,
    /// Deliveries a second, from the first message to the last.
    pub(crate) per_second: f64,
}

/// Offers messages, the pairs taking turns, and waits until every one has arrived.
pub(crate) async fn offer(ends: &Ends<'_>, offered: Offered) -> Met {
    let Offered { per_second, count, bytes } = offered;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let _receivers = receiver::attach_all(ends, bytes, &arrived).await;
    let first = fresh_numbers(count as u64);
    let intended = Arc::new(Mutex::new(vec![None; count]));
    let accepted = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let (times, done, pairs, node) = (intended.clone(), accepted.clone(), ends.pairs.clone(), ends.from.socket.clone());
    pace(per_second, count, async move {
        let client = NodeClient::new(connect_socket(&node).await.unwrap(), Headers::new());
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        move |number, at: Instant| {
            times.lock().unwrap()[number] = Some(at);
            let (mut client, permits, done) = (client.clone(), permits.clone(), done.clone());
            let message = draft(&pairs[number % pairs.len()], first + number as u64, bytes);
            async move {
                let _permit = permits.acquire().await.unwrap();
                client.messages.send(message).await.unwrap();
                done.lock().unwrap().push((at, at.elapsed()));
            }
        }
    });
    let mut delivered = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    let mut last = Instant::now();
    while seen.len() < count {
        let arrival = timeout(PATIENCE, arrivals.recv()).await.expect("every message arrives").unwrap();
        let Some(number) = arrival.number.checked_sub(first) else { continue };
        if seen.insert(number) {
            let at = intended.lock().unwrap()[number as usize].unwrap();
            delivered.push((at, arrival.at.saturating_duration_since(at)));
            last = arrival.at;
        }
    }
    let start = intended.lock().unwrap()[0].unwrap();
    let warm = |samples: Vec<(Instant, Duration)>| {
        Samples::new(samples.into_iter().filter(|(at, _)| *at >= start + WARM_UP).map(|(_, took)| took).collect())
    };
    Met {
        accepted: warm(std::mem::take(&mut accepted.lock().unwrap())),
        delivered: warm(delivered),
        per_second: count as f64 / (last - start).as_secs_f64(),
    }
}

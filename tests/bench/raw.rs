//! The broker without us: a second one of the same binary and the same way of writing, used as its own client library offers it.
//! No durable messaging over this broker can beat these figures on this machine.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    consumer::{PullConsumer, pull},
    stream::{RetentionPolicy, Stream},
};
use futures::{StreamExt, stream};
use murmur_tests::{
    ports::PortLease,
    process::{Process, nats_server},
    wait,
};
use tempfile::TempDir;

use crate::{body, pace::pace, samples::Samples};

/// Publishes under way at one time, as many as our own senders have sends.
const IN_FLIGHT: usize = 256;
/// What a round may leave in the stream before it is emptied.
const ROUND_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A raw broker and a stream in it.
pub(crate) struct Raw {
    url: String,
    context: jetstream::Context,
    stream: Stream,
    _broker: Process,
    _dir: TempDir,
    _port: PortLease,
}

impl Raw {
    /// Starts it.
    pub(crate) async fn start(sync_always: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = PortLease::take();
        let sync = if sync_always { ", sync_interval: always" } else { "" };
        let store = dir.path().join("js");
        let config =
            format!("listen: 127.0.0.1:{}\njetstream {{ store_dir: \"{}\"{sync} }}\n", port.port, store.display());
        let path = dir.path().join("raw.conf");
        fs::write(&path, config).unwrap();
        let args = vec!["-c".into(), path.into()];
        let mut broker = Process::new(&nats_server(), args, dir.path().join("raw.log")).env("GOGC", "400");
        broker.start();
        let url = format!("nats://127.0.0.1:{}", port.port);
        let client = wait::until("the raw broker answers", || async { async_nats::connect(&url).await.ok() }).await;
        let context = context(client);
        let stream = context
            .create_stream(jetstream::stream::Config {
                name: "RAW".into(),
                subjects: vec!["raw.>".into()],
                retention: RetentionPolicy::WorkQueue,
                ..Default::default()
            })
            .await
            .unwrap();
        Self { url, context, stream, _broker: broker, _dir: dir, _port: port }
    }

    /// From the time at which a message was to be published until a consumer has it.
    pub(crate) async fn latency(&self, per_second: f64, count: usize, bytes: usize) -> Samples {
        let mut messages = self.consumer("latency").await.messages().await.unwrap();
        let intended = Arc::new(Mutex::new(vec![None; count]));
        let (url, times) = (self.url.clone(), intended.clone());
        pace(per_second, count, async move {
            let context = context(async_nats::connect(&url).await.unwrap());
            move |number, at: Instant| {
                times.lock().unwrap()[number] = Some(at);
                let context = context.clone();
                async move {
                    let ack = context.publish("raw.latency", body(number as u64, bytes).into()).await.unwrap();
                    ack.await.unwrap();
                }
            }
        });
        let mut samples = Vec::with_capacity(count);
        while samples.len() < count {
            let message = messages.next().await.unwrap().unwrap();
            let at = Instant::now();
            let number = crate::number_in(&message.payload) as usize;
            let sent = intended.lock().unwrap()[number].unwrap();
            samples.push(at.saturating_duration_since(sent));
            message.ack().await.unwrap();
        }
        Samples::new(samples)
    }

    /// Published and acknowledged messages per second, many under way at a time.
    pub(crate) async fn published_per_second(&self, bytes: usize, time: Duration) -> f64 {
        let start = Instant::now();
        let most = ROUND_BYTES_MAX / bytes;
        let mut answers = std::pin::pin!(
            stream::iter(0..most)
                .take_while(|_| std::future::ready(start.elapsed() < time))
                .map(|number| async move {
                    let payload = body(number as u64, bytes);
                    self.context.publish("raw.load", payload.into()).await.unwrap().await.unwrap();
                })
                .buffer_unordered(IN_FLIGHT)
        );
        let mut count = 0_u64;
        while answers.next().await.is_some() {
            count += 1;
        }
        let per_second = count as f64 / start.elapsed().as_secs_f64();
        self.stream.purge().await.unwrap();
        per_second
    }

    /// Messages per second that were published, acknowledged, pulled by a consumer and acknowledged by it, all at once: one durable
    /// hop, where we make one for the message and a part of one for its signed receipt.
    pub(crate) async fn carried_per_second(&self, bytes: usize, time: Duration) -> f64 {
        let mut messages = self.consumer("carried").await.messages().await.unwrap();
        let start = Instant::now();
        let publishing = async {
            let mut answers = std::pin::pin!(
                stream::iter(0..)
                    .take_while(|_| std::future::ready(start.elapsed() < time))
                    .map(|number| async move {
                        let payload = body(number, bytes);
                        self.context.publish("raw.carried", payload.into()).await.unwrap().await.unwrap();
                    })
                    .buffer_unordered(IN_FLIGHT)
            );
            while answers.next().await.is_some() {}
        };
        let consuming = async {
            let mut count = 0_u64;
            while start.elapsed() < time {
                let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(100), messages.next()).await else {
                    continue;
                };
                message.unwrap().ack().await.unwrap();
                count += 1;
            }
            count as f64 / start.elapsed().as_secs_f64()
        };
        let ((), per_second) = tokio::join!(publishing, consuming);
        self.stream.purge().await.unwrap();
        per_second
    }

    async fn consumer(&self, name: &str) -> PullConsumer {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subject: format!("raw.{name}"),
            max_ack_pending: 4096,
            ..Default::default()
        };
        self.stream.get_or_create_consumer(name, config).await.unwrap()
    }
}

fn context(client: async_nats::Client) -> jetstream::Context {
    jetstream::ContextBuilder::new().max_ack_inflight(4096).backpressure_on_inflight(true).build(client)
}

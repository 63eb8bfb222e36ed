//! The reading threads.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{OpenError, StoreError, Tx, open};

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A few connections behind one queue.
pub(super) struct Readers {
    jobs: mpsc::Sender<Job>,
}

impl Readers {
    pub(super) fn start(path: &Path, count: usize) -> Result<Self, OpenError> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count.max(1) {
            let connection = open::reader(path)?;
            let receiver = Arc::clone(&receiver);
            thread::Builder::new()
                .name("store-reader".to_owned())
                .spawn(move || run(&connection, &receiver))
                .map_err(|source| OpenError::Io { path: "store-reader".into(), source })?;
        }
        Ok(Self { jobs: sender })
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = answer.send(work(Tx(connection)));
        });
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }
}

fn run(connection: &Connection, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job(connection);
    }
}

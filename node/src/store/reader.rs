//! The reading threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{OpenError, StoreError, Tx, open};

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A few connections behind one queue.
pub(super) struct Readers {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path, count: usize) -> Result<Self, OpenError> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for _ in 0..count.max(1) {
            let connection = open::reader(path)?;
            let receiver = Arc::clone(&receiver);
            let thread = thread::Builder::new()
                .name("store-reader".to_owned())
                .spawn(move || run(&connection, &receiver))
                .map_err(|source| OpenError::Io { path: "store-reader".into(), source })?;
            threads.push(thread);
        }
        Ok(Self { jobs: Some(sender), threads })
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A panic is a bug of one closure; it must not take the thread along, of which there are few.
            let read = catch_unwind(AssertUnwindSafe(|| work(Tx(connection))));
            let _ = answer.send(read.unwrap_or(Err(StoreError::Corrupt("closure: it panicked"))));
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(StoreError::Closed);
        }
        result.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Readers {
    /// A journal is folded by whoever closes the database last, which must not be a connection that only reads.
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job(connection);
    }
}

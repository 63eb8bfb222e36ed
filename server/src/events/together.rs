//! Publishers that share one transaction.
//!
//! A commit costs an fsync, and there is one writer. Whoever publishes while a commit is under way waits in a line; the next transaction takes
//! all that wait there, each behind a savepoint of its own, so that one that is refused takes nothing but itself back. A publisher is answered
//! after the commit, as before. When the transaction itself fails, each is tried alone: nobody is refused for what another brought.

use std::{
    collections::VecDeque,
    slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use murmur_proto::v1;
use tokio::sync::oneshot;

use super::{EventError, Events, publish::Published};
use crate::{db::DbError, tokens::Principal};

/// Publishers of one transaction: the other writers wait for it.
const TOGETHER_MAX: usize = 64;

/// One publisher's call.
pub(super) struct Job {
    principal: Principal,
    request: v1::PublishEventRequest,
    answer: oneshot::Sender<Result<Published, EventError>>,
}

/// Who waits for the next transaction.
#[derive(Default)]
pub(super) struct Line(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// A task takes from the line.
    is_served: bool,
}

/// A task that takes from the line. When it dies in the middle, whoever comes next sees that the line is served.
struct Serving<'a> {
    line: &'a Line,
    is_over: bool,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.lock().is_served = false;
        }
    }
}

impl Line {
    /// Puts a call into the line. Whether the caller is to see that it is served.
    fn join(&self, job: Job) -> bool {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        !std::mem::replace(&mut waiting.is_served, true)
    }

    /// The next calls. With none left the line is served no more, in the same moment.
    fn next(&self) -> Vec<Job> {
        let mut waiting = self.lock();
        let count = waiting.jobs.len().min(TOGETHER_MAX);
        waiting.is_served = count > 0;
        waiting.jobs.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// Takes an event: it stands in the logs when this returns. Whoever goes away meanwhile cuts nothing short.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn publish(
        self: &Arc<Self>,
        principal: &Principal,
        request: v1::PublishEventRequest,
    ) -> Result<Published, EventError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { principal: principal.clone(), request, answer };
        if self.line.join(job) {
            let events = Arc::clone(self);
            tokio::spawn(async move { events.serve_line().await });
        }
        answered.await.unwrap_or(Err(EventError::Ended))
    }

    async fn serve_line(&self) {
        let mut serving = Serving { line: &self.line, is_over: false };
        loop {
            let jobs = self.line.next();
            if jobs.is_empty() {
                serving.is_over = true;
                return;
            }
            self.serve(jobs).await;
        }
    }

    async fn serve(&self, jobs: Vec<Job>) {
        match self.write_together(&jobs).await {
            Ok(results) => jobs.into_iter().zip(results).for_each(|(job, result)| job.answer(result)),
            Err(error) => {
                tracing::warn!(%error, "{} events are written one by one", jobs.len());
                for job in jobs {
                    let result = match self.write_together(slice::from_ref(&job)).await {
                        Ok(mut results) => results.pop().unwrap_or(Err(EventError::Ended)),
                        Err(error) => Err(error.into()),
                    };
                    job.answer(result);
                }
            }
        }
    }

    /// Writes calls in one transaction. An error is that of the transaction: none of them has happened.
    async fn write_together(&self, jobs: &[Job]) -> Result<Vec<Result<Published, EventError>>, DbError> {
        let mut work = self.agents.begin().await?;
        let mut results = Vec::with_capacity(jobs.len());
        for Job { principal, request, .. } in jobs {
            let part = work.part().await?;
            let result = self.write(&mut work, principal, request).await;
            match &result {
                Ok(_) => work.keep(part).await?,
                Err(EventError::Db(_)) => {}
                Err(_) => work.undo(part).await?,
            }
            match result {
                Err(EventError::Db(error)) => return Err(error),
                result => results.push(result),
            }
        }
        self.agents.commit(work).await?;
        Ok(results)
    }
}

impl Job {
    fn answer(self, result: Result<Published, EventError>) {
        // Whoever published may have gone.
        let _ = self.answer.send(result);
    }
}

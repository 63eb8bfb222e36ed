//! Writers that share one transaction.
//!
//! A commit costs an fsync, and there is one writer. Whoever writes while a commit is under way waits in a line; the next transaction takes all
//! that wait there, each behind a savepoint of its own, so that one that is refused takes nothing but itself back. A caller is answered after
//! the commit, as without the line. When the transaction itself fails, each is tried alone: nobody is refused for what another brought.

use std::{
    collections::VecDeque,
    slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    agents::{Agents, Work},
    db::DbError,
};

/// Calls of one transaction: the other writers wait for it.
const TOGETHER_MAX: usize = 64;

/// Why a call was not written.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Whoever was to write it ended in the middle.
    #[error("it was not written")]
    Ended,
}

/// A room whose calls share transactions.
pub(crate) trait Writer: Send + Sync + 'static {
    /// What it is called with.
    type Call: Send + Sync + 'static;
    /// What it answers.
    type Done: Send + 'static;
    /// Why it refuses a call: nothing of that one is written.
    type Error: Send + 'static;

    /// Where calls wait.
    fn line(&self) -> &Line<Self>;

    /// Whose changes it makes.
    fn agents(&self) -> &Agents;

    /// Writes a call inside a change. An outer error is that of the transaction.
    fn write(
        &self,
        work: &mut Work,
        call: &Self::Call,
    ) -> impl Future<Output = Result<Result<Self::Done, Self::Error>, DbError>> + Send;
}

/// What a call comes to.
type Outcome<W> = Result<Result<<W as Writer>::Done, <W as Writer>::Error>, Unwritten>;

/// One call.
struct Job<W: Writer + ?Sized> {
    call: W::Call,
    answer: oneshot::Sender<Outcome<W>>,
}

/// Who waits for the next transaction.
pub(crate) struct Line<W: Writer + ?Sized>(Mutex<Waiting<W>>);

struct Waiting<W: Writer + ?Sized> {
    jobs: VecDeque<Job<W>>,
    /// A task takes from the line.
    is_served: bool,
}

/// A task that takes from the line. When it dies in the middle, whoever comes next sees that the line is served.
struct Serving<'a, W: Writer + ?Sized> {
    line: &'a Line<W>,
    is_over: bool,
}

impl<W: Writer + ?Sized> Drop for Serving<'_, W> {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.lock().is_served = false;
        }
    }
}

impl<W: Writer + ?Sized> Default for Line<W> {
    fn default() -> Self {
        Self(Mutex::new(Waiting { jobs: VecDeque::new(), is_served: false }))
    }
}

impl<W: Writer + ?Sized> Line<W> {
    /// Puts a call into the line. Whether the caller is to see that it is served.
    fn join(&self, job: Job<W>) -> bool {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        !std::mem::replace(&mut waiting.is_served, true)
    }

    /// The next calls. With none left the line is served no more, in the same moment.
    fn next(&self) -> Vec<Job<W>> {
        let mut waiting = self.lock();
        let count = waiting.jobs.len().min(TOGETHER_MAX);
        waiting.is_served = count > 0;
        waiting.jobs.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a call together with whatever else waits: what it did is durable when this returns. Whoever goes away meanwhile cuts nothing short.
///
/// # Errors
/// [`Unwritten`]; nothing of the call has happened.
pub(crate) async fn write<W: Writer>(writer: &Arc<W>, call: W::Call) -> Outcome<W> {
    let (answer, answered) = oneshot::channel();
    if writer.line().join(Job { call, answer }) {
        let writer = Arc::clone(writer);
        tokio::spawn(async move { serve_line(&*writer).await });
    }
    answered.await.unwrap_or(Err(Unwritten::Ended))
}

async fn serve_line<W: Writer>(writer: &W) {
    let mut serving = Serving { line: writer.line(), is_over: false };
    loop {
        let jobs = writer.line().next();
        if jobs.is_empty() {
            serving.is_over = true;
            return;
        }
        serve(writer, jobs).await;
    }
}

async fn serve<W: Writer>(writer: &W, jobs: Vec<Job<W>>) {
    match write_together(writer, &jobs).await {
        Ok(results) => jobs.into_iter().zip(results).for_each(|(job, result)| job.answer(Ok(result))),
        Err(error) => {
            tracing::warn!(%error, "{} calls are written one by one", jobs.len());
            for job in jobs {
                let result = match write_together(writer, slice::from_ref(&job)).await {
                    Ok(mut results) => results.pop().ok_or(Unwritten::Ended),
                    Err(error) => Err(error.into()),
                };
                job.answer(result);
            }
        }
    }
}

/// Writes calls in one transaction. An error is that of the transaction: none of them has happened.
async fn write_together<W: Writer>(writer: &W, jobs: &[Job<W>]) -> Result<Vec<Result<W::Done, W::Error>>, DbError> {
    let mut work = writer.agents().begin().await?;
    let mut results = Vec::with_capacity(jobs.len());
    for Job { call, .. } in jobs {
        let part = work.part().await?;
        let result = writer.write(&mut work, call).await?;
        match &result {
            Ok(_) => work.keep(part).await?,
            Err(_) => work.undo(part).await?,
        }
        results.push(result);
    }
    writer.agents().commit(work).await?;
    Ok(results)
}

impl<W: Writer + ?Sized> Job<W> {
    fn answer(self, result: Outcome<W>) {
        // Whoever called may have gone.
        let _ = self.answer.send(result);
    }
}

//! `MessageService.SendMany`: sends of one stream, accepted and answered in its order.

use std::{pin::pin, sync::Arc};

use futures::{StreamExt as _, stream};
use murmur_proto::node::v1::{self, send_many_response::Outcome};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, OwnedPermit},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::{
    message::{Answers, Messages, answer},
    server::{Call, Shared},
    status::{Field, Refusal, internal},
};
use crate::{
    app::Core,
    post::{Draft, LocalAgent, Pipeline, Settled},
};

/// Sends of one stream whose answers were not read yet.
const UNREAD_MAX: usize = 256;

type Answer = Result<v1::SendManyResponse, Status>;
/// Where an answer goes.
type Room = OwnedPermit<Answer>;

/// The answers to a stream of sends. The sends go on in a task of their own: who does not read the answers keeps no place among the sends
/// that others wait for.
pub(super) fn answers(
    messages: Messages,
    call: Call,
    requests: Streaming<v1::SendManyRequest>,
) -> Answers<v1::SendManyResponse> {
    let (answers, answered) = mpsc::channel(UNREAD_MAX);
    let sending = tokio::spawn(run(Taking { messages, call, requests, answers }).in_current_span());
    // How it ends comes by a way of its own, for which there is always room.
    let end = stream::once(sending).filter_map(|ended| async {
        match ended {
            Ok(end) => end.map(Err),
            // Without a word the caller would take this for the end of a stream that was answered whole.
            Err(error) => Some(Err(internal(&format!("the sends of a stream are lost: {error}")))),
        }
    });
    ReceiverStream::new(answered).chain(end).boxed()
}

/// Sends until the caller has ended its side, or is gone, or the node goes down; then what was taken is ended. Returns what the stream ends
/// with, when that is no good end.
async fn run(taking: Taking) -> Option<Status> {
    let gone = taking.answers.clone();
    let taken = stream::unfold(Some(taking), |taking| async {
        let mut taking: Taking = taking?;
        let taken = taking.next().await?;
        let is_last = matches!(taken, Taken::Last(_));
        Some((taken, (!is_last).then_some(taking)))
    });
    let mut taken = pin!(taken.take_until(gone.closed()));
    let (mut sends, mut is_open, mut end) = (Pipeline::default(), true, None);
    while is_open || !sends.is_empty() {
        tokio::select! {
            biased;
            Some(ended) = sends.next() => sends.settle(ended).await.into_iter().for_each(tell),
            next = taken.next(), if is_open => match next {
                Some(Taken::Send { core, from, draft, waiting }) => sends.push(&core.post, from, draft, waiting).await,
                Some(Taken::Refused(room, status)) => sends.pass((room, refused(status))),
                Some(Taken::Last(status)) => (is_open, end) = (false, Some(status)),
                None => is_open = false,
            },
        }
    }
    end
}

/// A send whose answer is to come.
struct Waiting {
    room: Room,
    /// Among the sends of the node, until it is answered.
    _place: OwnedSemaphorePermit,
}

fn tell(settled: Settled<Waiting, (Room, Answer)>) {
    let (room, answer) = match settled {
        Settled::Sent(waiting, Ok(sent)) => (waiting.room, Ok(outcome(Outcome::Accepted(answer(sent))))),
        Settled::Sent(waiting, Err(error)) => (waiting.room, refused(Refusal::from(error).into())),
        Settled::Passed(passed) => passed,
    };
    room.send(answer);
}

/// What comes of a stream.
struct Taking {
    messages: Messages,
    call: Call,
    requests: Streaming<v1::SendManyRequest>,
    answers: mpsc::Sender<Answer>,
}

enum Taken {
    Send {
        core: Arc<Core>,
        from: LocalAgent,
        draft: Draft,
        waiting: Waiting,
    },
    Refused(Room, Status),
    /// The stream ends with this.
    Last(Status),
}

impl Taking {
    /// Takes the next request when there is room for its answer; `None` when there will be none.
    async fn next(&mut self) -> Option<Taken> {
        let drain = &self.messages.shared.drain;
        let next = async {
            let room = self.answers.clone().reserve_owned().await.ok()?;
            Some((room, self.requests.message().await.transpose()?))
        };
        let (room, request) = tokio::select! {
            biased;
            () = drain.cancelled() => return Some(Taken::Last(Shared::draining())),
            next = next => next?,
        };
        let send = match request {
            Ok(v1::SendManyRequest { send }) => send,
            Err(status) => return Some(Taken::Last(status)),
        };
        let Some(send) = send else {
            let field = Field { name: "send", rule: "must be set".to_owned() };
            return Some(Taken::Refused(room, Refusal::from(field).into()));
        };
        let drafted = self.messages.drafted(&self.call, send).await.map_err(Status::from);
        let placed = match drafted {
            Ok(drafted) => self.messages.place().await.map(|place| (drafted, place)),
            Err(status) => Err(status),
        };
        Some(match placed {
            Ok(((core, from, draft), _place)) => Taken::Send { core, from, draft, waiting: Waiting { room, _place } },
            Err(status) => Taken::Refused(room, status),
        })
    }
}

fn refused(status: Status) -> Answer {
    Ok(outcome(Outcome::Refused(status.into())))
}

fn outcome(outcome: Outcome) -> v1::SendManyResponse {
    v1::SendManyResponse { outcome: Some(outcome) }
}

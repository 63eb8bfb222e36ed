//! `MessageService.SendMany`: sends of one stream, accepted and answered in its order.
//!
//! ```text
//! requests ─→ begun, one after the other ─→ commits, asked for in order, many at a time ─→ answers, in order ─→ caller
//! ```
//!
//! Positions in a conversation are chosen before the commit (`post::direct`), so that one that comes to nothing takes those behind it along.
//! They, too, are in the stream's order: whatever was turned back is committed again, one after the other, before anything else is asked for.

use std::pin::pin;

use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesOrdered},
};
use murmur_proto::node::v1::{self, send_many_response::Outcome};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    message::{Answers, Begun, Messages},
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::post::Turn;

/// Sends of one stream whose answers were not read yet.
const UNREAD_MAX: usize = 256;

type Requests = Streaming<v1::SendManyRequest>;
type Answer = Result<v1::SendManyResponse, Status>;
/// Where an answer goes.
type Room = OwnedPermit<Answer>;
type Accepted = Result<v1::SendResponse, Status>;

/// The answers to a stream of sends. The sends go on in a task of their own: who does not read the answers keeps no place among the sends
/// that others wait for.
pub(super) fn answers(messages: Messages, call: Call, requests: Requests) -> Answers<v1::SendManyResponse> {
    let (answers, answered) = mpsc::channel(UNREAD_MAX);
    tokio::spawn(run(Taking { messages, call, requests, answers }));
    ReceiverStream::new(answered).boxed()
}

/// Sends until the caller has ended its side, or reads no answers any more, or the node goes down.
async fn run(taking: Taking) {
    let gone = taking.answers.clone();
    let begun = stream::unfold(Some(taking), |taking| async {
        let mut taking: Taking = taking?;
        let (room, next) = taking.next().await?;
        let goes_on = next.is_ok();
        Some(((room, next), goes_on.then_some(taking)))
    });
    let mut begun = pin!(begun.take_until(gone.closed()));
    let (mut sending, mut is_open) = (Sending::default(), true);
    while is_open || !sending.asked.is_empty() {
        tokio::select! {
            biased;
            Some((room, tried)) = sending.asked.next() => sending.settle(room, tried).await,
            next = begun.next(), if is_open && sending.asked.len() < UNREAD_MAX => match next {
                Some((room, Ok(next))) => sending.ask(room, next).await,
                Some((room, Err(status))) => sending.asked.push_back(async { (room, Tried::Over(status)) }.boxed()),
                None => is_open = false,
            },
        }
    }
}

/// What comes of a stream.
struct Taking {
    messages: Messages,
    call: Call,
    requests: Requests,
    answers: mpsc::Sender<Answer>,
}

impl Taking {
    /// Takes the next request when there is room for its answer: a send that has begun or was refused, or what ends the stream. `None`
    /// when there will be none.
    async fn next(&mut self) -> Option<(Room, Result<Result<Begun, Status>, Status>)> {
        let room = self.answers.clone().reserve_owned().await.ok()?;
        let drain = &self.messages.shared.drain;
        let request = tokio::select! {
            biased;
            () = drain.cancelled() => Err(Shared::draining()),
            request = self.requests.message() => request,
        };
        let next = match request {
            Ok(Some(v1::SendManyRequest { message: Some(message) })) => {
                Ok(self.messages.begin(&self.call, message).await)
            }
            Ok(Some(v1::SendManyRequest { message: None })) => Ok(Err(no_message())),
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        Some((room, next))
    }
}

/// What became of a commit that was asked for.
enum Tried {
    Done(Accepted),
    /// Something before it came to nothing, or its position was another's.
    TurnedBack(Begun),
    /// The stream ends.
    Over(Status),
}

/// Commits that were asked for.
#[derive(Default)]
struct Sending {
    asked: FuturesOrdered<BoxFuture<'static, (Room, Tried)>>,
    turn: Turn,
}

impl Sending {
    /// Asks for the commit of a send, behind those before it.
    async fn ask(&mut self, room: Room, next: Result<Begun, Status>) {
        let asked = match next {
            Ok(begun) => begun.ask(&self.turn).await.map(|asked| (begun, asked)).map_err(Status::from),
            Err(refused) => Err(refused),
        };
        self.asked.push_back(match asked {
            Ok((begun, asked)) => async move {
                let tried = match asked.await {
                    Ok(Some(accepted)) => Tried::Done(Ok(accepted)),
                    Ok(None) => Tried::TurnedBack(begun),
                    Err(refused) => Tried::Done(Err(refused.into())),
                };
                (room, tried)
            }
            .boxed(),
            Err(refused) => async { (room, Tried::Done(Err(refused))) }.boxed(),
        });
    }

    /// Answers; when it was turned back, all that was asked for after all of it is committed.
    async fn settle(&mut self, room: Room, tried: Tried) {
        if !matches!(tried, Tried::TurnedBack(_)) {
            answer(room, tried).await;
            return;
        }
        let mut waiting = vec![(room, tried)];
        while let Some(behind) = self.asked.next().await {
            waiting.push(behind);
        }
        for (room, tried) in waiting {
            answer(room, tried).await;
        }
        self.turn = Turn::default();
    }
}

async fn answer(room: Room, tried: Tried) {
    let sent = match tried {
        Tried::Done(sent) => sent,
        Tried::TurnedBack(begun) => begun.commit().await.map_err(Status::from),
        Tried::Over(status) => {
            room.send(Err(status));
            return;
        }
    };
    let outcome = match sent {
        Ok(accepted) => Outcome::Accepted(accepted),
        Err(refused) => Outcome::Refused(refused.into()),
    };
    room.send(Ok(v1::SendManyResponse { outcome: Some(outcome) }));
}

fn no_message() -> Status {
    Refusal::from(Field { name: "message", rule: "must be set".to_owned() }).into()
}

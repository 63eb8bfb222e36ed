//! Requests whose last DATA frame carries END_STREAM (RFC 9113, section 8.1).
//!
//! Left to itself the transport finds that out when it asks for another message, and says it in a frame of its own: one more write here, and
//! one more wake at the other end, for each call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
};

/// A channel whose requests end with their last message where the body knows by then that it is the last.
#[derive(Debug, Clone)]
pub struct Whole<S>(pub(super) S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Whole<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.0.call(request.map(|body| Body::new(LookAhead { body, next: Next::Unknown })))
    }
}

/// A body that knows after each frame whether that was the last, if what comes next is there.
struct LookAhead<B> {
    body: B,
    next: Next,
}

/// What comes behind the frames that were given.
enum Next {
    Unknown,
    Frame(Result<Frame<Bytes>, Status>),
    Nothing,
}

impl<B: HttpBody<Data = Bytes, Error = Status> + Unpin> HttpBody for LookAhead<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match std::mem::replace(&mut self.next, Next::Unknown) {
            Next::Frame(frame) => Some(frame),
            Next::Nothing => None,
            Next::Unknown => ready!(Pin::new(&mut self.body).poll_frame(context)),
        };
        let Some(frame) = frame else {
            self.next = Next::Nothing;
            return Poll::Ready(None);
        };
        self.next = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => Next::Frame(frame),
            Poll::Ready(None) => Next::Nothing,
            Poll::Pending => Next::Unknown,
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        match self.next {
            Next::Unknown => self.body.is_end_stream(),
            Next::Frame(_) => false,
            Next::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.next {
            Next::Unknown => self.body.size_hint(),
            Next::Frame(_) => SizeHint::default(),
            Next::Nothing => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use super::*;

    /// Frames that are given one a poll; `None` is one that is not there yet.
    struct Script(VecDeque<Option<Result<&'static str, Status>>>);

    impl HttpBody for Script {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(None) => Poll::Pending,
                Some(Some(frame)) => {
                    Poll::Ready(Some(frame.map(|text| Frame::data(Bytes::from_static(text.as_bytes())))))
                }
                None => Poll::Ready(None),
            }
        }
    }

    /// What each poll gives, and whether it was known to be the last.
    fn polled<const N: usize>(script: [Option<Result<&'static str, Status>>; N]) -> Vec<(String, bool)> {
        let mut body = LookAhead { body: Script(script.into()), next: Next::Unknown };
        let mut polls = Vec::new();
        loop {
            let said = match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => "pending".to_owned(),
                Poll::Ready(None) => return polls,
                Poll::Ready(Some(Err(status))) => status.message().to_owned(),
                Poll::Ready(Some(Ok(frame))) => String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap(),
            };
            polls.push((said, body.is_end_stream()));
        }
    }

    fn expected<const N: usize>(polls: [(&str, bool); N]) -> Vec<(String, bool)> {
        polls.map(|(said, is_end)| (said.to_owned(), is_end)).into()
    }

    #[test]
    fn the_last_frame_of_a_whole_body_says_so() {
        assert_eq!(polled([Some(Ok("one"))]), expected([("one", true)]));
        assert_eq!(polled([Some(Ok("one")), Some(Ok("two"))]), expected([("one", false), ("two", true)]));
    }

    #[test]
    fn a_stream_gives_what_it_has_and_waits_for_the_rest() {
        let script = [None, Some(Ok("one")), None, None, Some(Ok("two"))];
        let polls = expected([("pending", false), ("one", false), ("pending", false), ("two", true)]);
        assert_eq!(polled(script), polls);
    }

    #[test]
    fn an_error_is_given_in_its_turn() {
        let script = [Some(Ok("one")), Some(Err(Status::internal("broken")))];
        assert_eq!(polled(script), expected([("one", false), ("broken", true)]));
    }
}

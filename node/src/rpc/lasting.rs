//! Answers that last: what holds them open, and what ends them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use murmur_core::reason::Reason;
use murmur_proto::status::status;
use tonic::{Status, body::Body};

/// Frames of an answer to a call that asks for one message: the message, and how it went.
const UNARY_FRAMES: u32 = 2;

/// Begins to wait until the token that a call was made with is revoked.
pub(super) type Revocation = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A body that ends when the token that it was asked for with is revoked (PROTOCOL §6.1), and holds a place for as long as it lasts.
pub(super) struct Lasting<P> {
    body: Body,
    frames: u32,
    ends: Ends,
    _place: P,
}

/// What a body is ended by.
enum Ends {
    /// Nobody waits for it yet: what is answered at once needs nobody.
    Unwatched(Revocation),
    Watched(BoxFuture<'static, ()>),
    Never,
    /// It has ended.
    Over,
}

impl<P> Lasting<P> {
    /// `revocation` is `None` for who has no token of this node's.
    pub(super) fn new(body: Body, revocation: Option<Revocation>, place: P) -> Self {
        Self { body, frames: 0, ends: revocation.map_or(Ends::Never, Ends::Unwatched), _place: place }
    }

    /// Whether the token was revoked.
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> bool {
        if let Ends::Unwatched(_) = self.ends
            && let Ends::Unwatched(watch) = std::mem::replace(&mut self.ends, Ends::Never)
        {
            self.ends = Ends::Watched(watch());
        }
        if let Ends::Watched(revoked) = &mut self.ends { revoked.poll_unpin(cx).is_ready() } else { false }
    }

    /// The last frame of an answer that is cut off.
    fn cut_off(&mut self) -> Frame<Bytes> {
        self.ends = Ends::Over;
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        // Without details it is still an end that no client takes for a whole answer.
        let _ = status(Reason::TokenRevoked, "the token was revoked").add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl<P: Unpin> HttpBody for Lasting<P> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if matches!(self.ends, Ends::Over) {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Ready(Some(frame)) => {
                self.frames = self.frames.saturating_add(1);
                // One that never waits is looked at all the same.
                let is_cut = self.frames > UNARY_FRAMES && self.poll_revoked(cx);
                Poll::Ready(Some(if is_cut { Ok(self.cut_off()) } else { frame }))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.poll_revoked(cx) => Poll::Ready(Some(Ok(self.cut_off()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.ends, Ends::Over) || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn frame(n: u8) -> Result<Frame<Bytes>, Infallible> {
        Ok(Frame::data(Bytes::from(vec![n])))
    }

    fn watched(revoked: &CancellationToken) -> Option<Revocation> {
        let revoked = revoked.clone();
        Some(Box::new(move || async move { revoked.cancelled().await }.boxed()))
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_token_is_revoked_and_says_why() {
        let revoked = CancellationToken::new();
        let silent = stream::iter([frame(1)]).chain(stream::pending());
        let mut body = Lasting::new(Body::new(StreamBody::new(silent)), watched(&revoked), ());
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().now_or_never().is_none(), "it goes on");
        revoked.cancel();
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(murmur_proto::status::RpcError::from(&status).reason, Some(Reason::TokenRevoked));
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }

    #[tokio::test]
    async fn a_stream_that_never_waits_ends_as_well() {
        let revoked = CancellationToken::new();
        revoked.cancel();
        let busy = stream::repeat_with(|| frame(1));
        let mut body = Lasting::new(Body::new(StreamBody::new(busy)), watched(&revoked), ());
        for _ in 0..UNARY_FRAMES {
            assert!(body.frame().await.unwrap().unwrap().is_data());
        }
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
    }

    #[tokio::test]
    async fn what_is_answered_at_once_asks_nobody_and_the_place_lasts_as_long_as_the_answer() {
        let place = std::sync::Arc::new(());
        let nobody: Revocation = Box::new(|| unreachable!("nothing lasts"));
        let answer = stream::iter([frame(1), Ok(Frame::trailers(HeaderMap::new()))]);
        let mut body = Lasting::new(Body::new(StreamBody::new(answer)), Some(nobody), place.clone());
        while body.frame().await.is_some() {
            assert_eq!(std::sync::Arc::strong_count(&place), 2);
        }
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&place), 1);
    }
}

//! Places for connections: no more than are free, and only for those who say soon what they speak.

use std::{
    io::{Error, ErrorKind, IoSlice, Result},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use super::serve::HEADER_TIMEOUT;

/// What HTTP/2 begins with. Whatever differs from it is taken to be HTTP/1, whose head has a timeout of its own.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Between two lines of the log that no place is free.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The places of one port.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    count: NonZeroU32,
    patience: Duration,
    told: Option<Instant>,
}

/// One of them, free again when this is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    patience: Duration,
}

/// A connection in its place, for as long as it is open: one that has become a WebSocket outlasts its last request.
pub(super) struct Guest<S> {
    stream: S,
    _place: Place,
    greeting: Option<Greeting>,
}

/// What is left of the time to say what is spoken. Until that is known, hyper waits for as long as it takes.
struct Greeting {
    /// Bytes of the preface that have come.
    heard: usize,
    late: Pin<Box<Sleep>>,
}

impl Places {
    /// So many.
    pub(crate) fn new(count: NonZeroU32) -> Self {
        Self::with_patience(count, HEADER_TIMEOUT)
    }

    /// So many, for those who say within `patience` what they speak.
    pub(super) fn with_patience(count: NonZeroU32, patience: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(count.get() as usize)), count, patience, told: None }
    }

    /// A place, if one is free; when none is, the log has that from time to time.
    pub(super) fn take(&mut self) -> Option<Place> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Some(Place { _permit: permit, patience: self.patience }),
            Err(_) => {
                self.tell();
                None
            }
        }
    }

    fn tell(&mut self) {
        let now = Instant::now();
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) {
            self.told = Some(now);
            tracing::warn!("{} connections are open: more are closed at once", self.count);
        }
    }
}

impl<S> Guest<S> {
    /// Reading from it fails with [`ErrorKind::TimedOut`] when the place's patience is over and it is not known what it speaks.
    pub(super) fn new(stream: S, place: Place) -> Self {
        let greeting = Greeting { heard: 0, late: Box::pin(tokio::time::sleep(place.patience)) };
        Self { stream, _place: place, greeting: Some(greeting) }
    }
}

impl Greeting {
    /// Whether it is known what is spoken, with these bytes.
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        let awaited = &PREFACE[self.heard..];
        self.heard += bytes.len();
        bytes.len() >= awaited.len() || !awaited.starts_with(bytes)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guest<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let Self { stream, greeting, .. } = &mut *self;
        let Some(waited) = greeting else { return Pin::new(stream).poll_read(cx, buf) };
        let before = buf.filled().len();
        let read = Pin::new(stream).poll_read(cx, buf);
        match read {
            Poll::Ready(_) if waited.is_over(&buf.filled()[before..]) => *greeting = None,
            Poll::Pending if waited.late.as_mut().poll(cx).is_ready() => {
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "it has not said what it speaks")));
            }
            _ => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guest<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

//! Carries a connection over [`TunnelFrame`]s: what both ends of a tunnel do (docs/adr/0014).
//!
//! Each end may have [`WINDOW_BYTES`] under way that the other one has not written on yet; it reads no more of its connection until there is
//! credit. So a connection that nobody reads costs a window of memory at most and holds up no other, though all of them share one HTTP/2
//! connection, whose own flow control would let one reader stall all.

use std::{
    fmt, io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc},
};

use crate::v1::{TunnelEnd, TunnelFrame, tunnel_frame::Item};

/// Bytes that may be sent ahead of the other end's credit.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Of one frame.
pub const DATA_BYTES_MAX: usize = 32 * 1024;
/// Frames that wait for the stream that they leave by.
pub const FRAMES_MAX: usize = 8;

/// How a connection broke.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// At this end.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Between the two ends, or at the other one.
    #[error("the tunnel broke: {0}")]
    Stream(String),
    /// The other end does not keep to the contract.
    #[error("the other end of the tunnel {0}")]
    Contract(&'static str),
}

/// Carries a connection until both halves of it have ended, or it breaks; then the frames end, too.
///
/// # Errors
/// [`CarryError`].
pub async fn carry<C, F, E>(connection: C, mut frames: F, out: mpsc::Sender<TunnelFrame>) -> Result<(), CarryError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: Stream<Item = Result<TunnelFrame, E>> + Unpin,
    E: fmt::Display,
{
    let (reader, writer) = tokio::io::split(connection);
    let ours =
        Ours { credit: Semaphore::new(WINDOW_BYTES), ahead: AtomicUsize::new(0), has_ended: AtomicBool::new(false) };
    // Bytes that came and for which no credit was given since.
    let owed = AtomicUsize::new(0);
    // Bounded by the window.
    let (came, coming) = mpsc::unbounded_channel();
    let both = async { tokio::try_join!(send(reader, &ours, &out), write(writer, coming, &owed, &out)).map(|_| ()) };
    let hear = async {
        let mut has_end = false;
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| CarryError::Stream(error.to_string()))?;
            has_end |= matches!(frame.item, Some(Item::End(_)));
            take(frame, &came, &ours, &owed)?;
        }
        if has_end && ours.has_ended.load(Ordering::Relaxed) {
            // The other end is through; what it sent is still to be written.
            std::future::pending::<()>().await;
        }
        Err(CarryError::Stream("it ended early".to_owned()))
    };
    tokio::select! {
        // What both ends have finished is no break, whatever else is there to be heard.
        biased;
        over = both => over,
        broken = hear => broken,
    }
}

/// What this end sends.
struct Ours {
    /// Bytes that may still be sent.
    credit: Semaphore,
    /// Bytes that were sent and for which no credit came since.
    ahead: AtomicUsize,
    /// All of it was sent.
    has_ended: AtomicBool,
}

/// One frame.
fn take(
    frame: TunnelFrame,
    came: &mpsc::UnboundedSender<Option<Bytes>>,
    ours: &Ours,
    owed: &AtomicUsize,
) -> Result<(), CarryError> {
    // A writer that has ended takes nothing more, and that is what ends it.
    match frame.item {
        Some(Item::Data(data)) => {
            let ahead = owed.fetch_add(data.len(), Ordering::Relaxed) + data.len();
            if data.len() > DATA_BYTES_MAX || ahead > WINDOW_BYTES {
                return Err(CarryError::Contract("sends more than it has credit for"));
            }
            let _ = came.send(Some(data));
        }
        Some(Item::Credit(bytes)) => {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let ahead = ours.ahead.load(Ordering::Relaxed).checked_sub(bytes);
            let ahead = ahead.ok_or(CarryError::Contract("gives more credit than was used"))?;
            // Nobody else writes while this runs: both are parts of one task.
            ours.ahead.store(ahead, Ordering::Relaxed);
            ours.credit.add_permits(bytes);
        }
        Some(Item::End(TunnelEnd {})) => {
            let _ = came.send(None);
        }
        Some(Item::Opened(_)) | None => return Err(CarryError::Contract("says what has no place here")),
    }
    Ok(())
}

/// Reads as much as there is credit for, until the end.
async fn send<C: AsyncRead>(
    mut reader: ReadHalf<C>,
    Ours { credit, ahead, has_ended }: &Ours,
    out: &mpsc::Sender<TunnelFrame>,
) -> Result<(), CarryError> {
    loop {
        let first = credit.acquire().await.map_err(|_| gone())?;
        first.forget();
        let more = credit.available_permits().min(DATA_BYTES_MAX - 1);
        let more = u32::try_from(more).ok().and_then(|more| credit.try_acquire_many(more).ok());
        let room = 1 + more.map_or(0, |more| {
            let count = more.num_permits();
            more.forget();
            count
        });
        let mut data = vec![0; room];
        let length = reader.read(&mut data).await?;
        data.truncate(length);
        data.shrink_to_fit();
        credit.add_permits(room - length);
        ahead.fetch_add(length, Ordering::Relaxed);
        let item = if length == 0 { Item::End(TunnelEnd {}) } else { Item::Data(data.into()) };
        out.send(TunnelFrame { item: Some(item) }).await.map_err(|_| gone())?;
        if length == 0 {
            has_ended.store(true, Ordering::Relaxed);
            return Ok(());
        }
    }
}

/// Writes what came, until the end, and gives credit for it.
async fn write<C: AsyncWrite>(
    mut writer: WriteHalf<C>,
    mut coming: mpsc::UnboundedReceiver<Option<Bytes>>,
    owed: &AtomicUsize,
    out: &mpsc::Sender<TunnelFrame>,
) -> Result<(), CarryError> {
    let mut written = 0;
    while let Some(data) = coming.recv().await {
        let Some(data) = data else {
            writer.shutdown().await?;
            return Ok(());
        };
        writer.write_all(&data).await?;
        writer.flush().await?;
        written += data.len();
        if written >= WINDOW_BYTES / 4 {
            owed.fetch_sub(written, Ordering::Relaxed);
            let item = Some(Item::Credit(u32::try_from(written).unwrap_or(u32::MAX)));
            out.send(TunnelFrame { item }).await.map_err(|_| gone())?;
            written = 0;
        }
    }
    Err(gone())
}

fn gone() -> CarryError {
    CarryError::Stream("nobody takes what is sent".to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    type Carried = JoinHandle<Result<(), CarryError>>;

    /// A client and a server at the two ends of a tunnel.
    fn tunnel() -> ((DuplexStream, Carried), (DuplexStream, Carried)) {
        let ((near, near_inner), (far, far_inner)) = (duplex(1024), duplex(1024));
        let ((there, coming), (back, returning)) = (mpsc::channel(FRAMES_MAX), mpsc::channel(FRAMES_MAX));
        let near_task = tokio::spawn(carry(near_inner, frames(returning), there));
        let far_task = tokio::spawn(carry(far_inner, frames(coming), back));
        ((near, near_task), (far, far_task))
    }

    fn frames(
        received: mpsc::Receiver<TunnelFrame>,
    ) -> impl Stream<Item = Result<TunnelFrame, Infallible>> + Unpin + Send {
        futures::stream::unfold(received, |mut received| async move {
            received.recv().await.map(|frame| (Ok(frame), received))
        })
        .boxed()
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_both_ways_and_each_half_ends_by_itself() {
        let ((mut near, near_task), (mut far, far_task)) = tunnel();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(got == expected);
        far.write_all(b"thanks").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(sending.await.unwrap(), b"thanks");
        near_task.await.unwrap().unwrap();
        far_task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_is_sent_more_than_a_window_ahead() {
        let (mut near, inner) = duplex(16);
        let (out, mut sent) = mpsc::channel(10_000);
        let (_silent, silence) = mpsc::channel(1);
        let task = tokio::spawn(carry(inner, frames(silence), out));
        let writing = tokio::spawn(async move { near.write_all(&vec![7; WINDOW_BYTES + 1000]).await });
        let mut seen = 0;
        while seen < WINDOW_BYTES {
            let Some(Item::Data(data)) = sent.recv().await.unwrap().item else { panic!("not data") };
            seen += data.len();
        }
        assert_eq!(seen, WINDOW_BYTES);
        tokio::task::yield_now().await;
        assert!(sent.try_recv().is_err() && !writing.is_finished(), "the rest waits");
        task.abort();
    }

    #[tokio::test]
    async fn an_end_that_takes_more_than_it_may_is_cut_off() {
        let data = |length: usize| TunnelFrame { item: Some(Item::Data(vec![0; length].into())) };
        let credit = |bytes| TunnelFrame { item: Some(Item::Credit(bytes)) };
        for attack in [
            vec![data(DATA_BYTES_MAX + 1)],
            vec![data(DATA_BYTES_MAX); WINDOW_BYTES / DATA_BYTES_MAX + 1],
            vec![credit(1)],
            vec![credit(u32::MAX)],
            vec![TunnelFrame { item: None }],
        ] {
            let (_near, inner) = duplex(16);
            let (out, _sent) = mpsc::channel(1);
            let hostile =
                futures::stream::iter(attack.into_iter().map(Ok::<_, Infallible>)).chain(futures::stream::pending());
            let result = carry(inner, hostile, out).await;
            assert!(matches!(result, Err(CarryError::Contract(_))), "{result:?}");
        }
    }

    #[tokio::test]
    async fn a_broken_tunnel_breaks_the_connection() {
        let ((mut near, near_task), (far, far_task)) = tunnel();
        near.write_all(b"x").await.unwrap();
        far_task.abort();
        drop(far);
        assert!(near_task.await.unwrap().is_err());
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }
}

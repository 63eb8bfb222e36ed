//! Streams that commands follow, each over the restarts of whoever sends it.

use tonic::Streaming;

use crate::{comeback::Comeback, exit::Exit, failure::Failure, output::Outcome};

/// What is followed.
pub(super) trait Source {
    /// One thing that it tells.
    type Item;

    /// Opens the stream, where it was.
    async fn open(&self) -> Result<Streaming<Self::Item>, Failure>;

    /// Takes what the stream tells; false: nobody reads any more.
    fn take(&mut self, item: Self::Item) -> Result<bool, Failure>;

    /// The stream broke, or could not be opened; true: it is opened again at once, from another place.
    fn broke(&mut self, _failure: &Failure) -> bool {
        false
    }
}

/// Follows until nobody reads any more, or it is refused. `first` is a stream that is open already.
pub(super) async fn follow<S: Source>(
    mut source: S,
    mut first: Option<Streaming<S::Item>>,
    mut comeback: Comeback,
) -> Outcome {
    loop {
        let opened = match first.take() {
            Some(stream) => Ok(stream),
            None => source.open().await,
        };
        let failure = match opened {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(item)) => {
                        comeback.arrived();
                        if !source.take(item)? {
                            return Ok(Exit::Ok);
                        }
                    }
                    Ok(None) => break Failure::new(Exit::Unavailable, "the stream ended"),
                    Err(status) => break Failure::from(status),
                }
            },
            Err(failure) => failure,
        };
        if !source.broke(&failure) {
            comeback.wait(failure).await?;
        }
    }
}

//! `send TO --file PATH`: hands a file to the node, and shows how it travels, over the node's restarts.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use murmur_core::reason::Reason;
use murmur_proto::{
    client::NodeClient,
    node::v1::{Attachment, File, SendFileRequest, SendFileResponse, TransferState, WatchTransfersRequest},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    files::{file_json, size, state_name},
    once::{BACK_WITHIN, Once},
};
use crate::{
    args::Speaker,
    comeback::Comeback,
    connect::Target,
    exit::Exit,
    failure::{Context as _, Failure},
    output::{Outcome, Output},
    text, view,
};

/// The file that goes with a message or a request.
#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// Send this file along; the text may then be left out
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// What to call the file [default: its own name]
    #[arg(long, value_name = "NAME", requires = "file", default_value = "", hide_default_value = true)]
    file_name: String,
    /// What the file is, such as `text/csv` [default: what its name says]
    #[arg(long, value_name = "TYPE", requires = "file", default_value = "", hide_default_value = true)]
    file_type: String,
    /// Send it although its name is one under which secrets are kept, such as `.env` or `id_ed25519`
    #[arg(long, requires = "file")]
    allow_secret: bool,
}

impl FileArgs {
    /// The call, with the path made absolute: the node runs elsewhere.
    pub(crate) fn request(&self, path: &Path) -> Result<SendFileRequest, Failure> {
        let Attachment { path, name, content_type, allow_secret_names } = self.attachment(path)?;
        Ok(SendFileRequest { path, name, content_type, allow_secret_names, ..SendFileRequest::default() })
    }

    /// The file of a call that may come without one, with the path made absolute.
    pub(crate) fn attachment(&self, path: &Path) -> Result<Attachment, Failure> {
        let absolute = std::path::absolute(path).context(format!("finding `{}`", path.display()))?;
        let path = absolute.to_str().ok_or_else(|| Failure::usage("--file must be a path in UTF-8"))?;
        Ok(Attachment {
            path: path.to_owned(),
            name: self.file_name.clone(),
            content_type: self.file_type.clone(),
            allow_secret_names: self.allow_secret,
        })
    }
}

/// A file that nobody has taken up after this time is left to the node.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(5);

/// Fields of the call, by the options that they come from.
pub(crate) const FILE_OPTIONS: [(&str, &str); 3] =
    [("path", "--file"), ("name", "--file-name"), ("content_type", "--file-type")];

/// A file to send.
pub(crate) struct SendFile<'a> {
    pub(crate) target: &'a Target,
    pub(crate) speaker: &'a Speaker,
    pub(crate) request: SendFileRequest,
    pub(crate) no_wait: bool,
}

impl SendFile<'_> {
    /// Sends the file and, while its recipient is there, follows it until it has arrived.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let Self { target, speaker, request, no_wait } = &self;
        // Whoever is not there to begin with is no reason to wait.
        let mut node = target.node_as(speaker).await?;
        let until = Instant::now() + BACK_WITHIN;
        let once = Once { target, speaker, key: &request.idempotency_key, until: until.into_std() };
        let send = async |node: &mut NodeClient| Ok(node.files.send_file(request.clone()).await?.into_inner());
        let sent = once.call(&mut node, send).await.map_err(|failure| failure.with_options(&FILE_OPTIONS))?;
        let mut file = sent.file.clone().unwrap_or_default();
        if !no_wait {
            let followed = self.follow(node, &sent, output).await;
            file = followed.map_err(|failure| failure.about(&sent.msg_id))?;
        }
        show(&sent, &file, output)
    }

    /// Shows progress until the file has arrived, has failed, or stops moving. Ctrl-C leaves it to the node.
    async fn follow(&self, mut node: NodeClient, sent: &SendFileResponse, output: Output) -> Result<File, Failure> {
        let (mut last, mut comeback) = (sent.file.clone().unwrap_or_default(), Comeback::new());
        let (bar, give_up) = (Bar::new(&last, output), Instant::now() + TAKEN_UP_WITHIN);
        loop {
            let failure = match self.watch(&mut node, &mut last, (&bar, give_up)).await {
                Ok(()) => return Ok(last),
                Err(failure) => failure,
            };
            let reopened = comeback.reopen(failure, async || self.target.node_as(self.speaker).await);
            node = tokio::select! {
                reopened = tokio::time::timeout(BACK_WITHIN, reopened) => reopened.unwrap_or_else(|_| Err(self.lost(&sent.msg_id)))?,
                _ = tokio::signal::ctrl_c() => return Ok(last),
            };
        }
    }

    /// One stream of changes, until there is nothing more to show.
    async fn watch(
        &self,
        node: &mut NodeClient,
        last: &mut File,
        (bar, give_up): (&Bar, Instant),
    ) -> Result<(), Failure> {
        let (agent, transfer_id) = (self.request.agent.clone(), last.transfer_id.clone());
        let request = WatchTransfersRequest { agent, transfer_id };
        let mut changes = node.files.watch_transfers(request).await?.into_inner();
        loop {
            let is_waiting = last.state() == TransferState::Waiting;
            let change = tokio::select! {
                change = changes.message() => change?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep_until(give_up), if is_waiting => return Ok(()),
            };
            let Some(change) = change else {
                return if is_over(last) {
                    Ok(())
                } else {
                    Err(Failure::new(Exit::Unavailable, "the node ended the call"))
                };
            };
            *last = change.transfer.and_then(|transfer| transfer.file).unwrap_or_default();
            bar.show(last);
            if last.state() == TransferState::Stalled {
                return Ok(());
            }
        }
    }

    fn lost(&self, msg_id: &str) -> Failure {
        let what = format!("the node went away with the file of message {msg_id}");
        Failure::new(Exit::Unavailable, what).reason(Reason::NodeDown).remedy(format!(
            "It is on the node's disk, and goes on when the node is back: see `murmurctl files{}`.",
            self.speaker.options()
        ))
    }
}

/// Whether a transfer has ended, one way or the other.
fn is_over(file: &File) -> bool {
    matches!(file.state(), TransferState::Done | TransferState::Cancelled | TransferState::Failed)
}

/// A bar in a terminal; elsewhere a line for each quarter, and nothing beside JSON.
struct Bar {
    bar: Option<ProgressBar>,
    plain: bool,
    quarters: std::cell::Cell<u64>,
}

impl Bar {
    fn new(file: &File, output: Output) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let bar = (is_terminal && !output.is_json()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(file.size_bytes), ProgressDrawTarget::stderr());
            let shape = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(shape) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(text::clean_line(&file.name));
            bar
        });
        Self { bar, plain: !is_terminal && !output.is_json(), quarters: std::cell::Cell::new(0) }
    }

    fn show(&self, file: &File) {
        if let Some(bar) = &self.bar {
            bar.set_position(file.done_bytes);
        }
        let quarter = (file.done_bytes * 4).checked_div(file.size_bytes).unwrap_or(4);
        if self.plain && quarter > self.quarters.replace(quarter) {
            let (done, all) = (size(file.done_bytes), size(file.size_bytes));
            eprintln!("{} {done} of {all}", text::clean_line(&file.name));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn show(sent: &SendFileResponse, file: &File, output: Output) -> Outcome {
    let SendFileResponse { msg_id, conversation_id, to, recipient_online, unread, file: _ } = sent;
    if matches!(file.state(), TransferState::Failed | TransferState::Cancelled) {
        let why = view::some(&file.reason).map(|reason| format!(": {reason}")).unwrap_or_default();
        let what = format!("the file for {} is {}{why}", text::clean_line(to), state_name(file.state()));
        return Err(Failure::new(Exit::Failed, what).about(msg_id).remedy("Send it again if it still matters."));
    }
    let value = json!({
        "msg_id": msg_id,
        "conversation_id": conversation_id,
        "to": to,
        "recipient_online": recipient_online,
        "unread": unread,
        "file": file_json(file),
    });
    output.show(&value, || {
        let (name, size, to) = (text::clean_line(&file.name), size(file.size_bytes), text::clean_line(to));
        let note = match (file.state(), recipient_online) {
            (TransferState::Done, _) => return format!("delivered {name} ({size}) to {to}, message {msg_id}"),
            (TransferState::Waiting, false) => "nobody is listening there now, it waits",
            _ => "it goes on in the background",
        };
        format!("sent {name} ({size}) to {to}, message {msg_id}; {note}: see `murmurctl files`")
    })
}

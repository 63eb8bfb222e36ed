//! Standard input and output: one JSON-RPC message a line, an answer to everything that asks for one, and word of the end of input.
//!
//! The library drops a line that it cannot read, and its sender waits for ever. So lines are read here: what can be read goes on, what
//! cannot is answered as JSON-RPC says, and the session goes on.

use std::{io, sync::Arc};

use rmcp::{
    RoleServer,
    model::{ClientRequest, JsonRpcMessage},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::{
        Transport,
        io::{StdioReader, StdioWriter, stdio_pipes},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;

use crate::broken::{self, Refused};

/// The longest line. Far more than any argument may have; a line without an end must not fill the memory.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

type Answer = std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// How far a session has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    /// The handshake is over. Until then nobody is there for what is no request.
    pub(crate) began: CancellationToken,
    /// Input is over, before anything waits for calls that are still running.
    pub(crate) ended: CancellationToken,
    /// Nobody reads what is written.
    pub(crate) unread: CancellationToken,
}

/// Both streams.
pub(crate) fn streams(course: Course) -> Lines<StdioReader, StdioWriter> {
    let (reader, writer) = stdio_pipes();
    Lines::new(reader, writer, course)
}

/// Messages as lines.
pub(crate) struct Lines<R, W> {
    read: BufReader<R>,
    /// What of the present line has come. A read that is given up goes on with it.
    line: Vec<u8>,
    /// The present line was refused; the rest of it is skipped.
    skipping: bool,
    write: Arc<Mutex<Option<W>>>,
    /// An answer of ours on its way out. A read that is given up goes on with it.
    answer: Option<Answer>,
    course: Course,
}

/// What reading came to.
enum Came {
    Line,
    TooLong,
    End,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Send + Unpin + 'static> Lines<R, W> {
    fn new(reader: R, writer: W, course: Course) -> Self {
        Self {
            read: BufReader::with_capacity(BUFFER_BYTES, reader),
            line: Vec::new(),
            skipping: false,
            write: Arc::new(Mutex::new(Some(writer))),
            answer: None,
            course,
        }
    }

    /// Reads up to the end of a line. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Came {
        loop {
            let available = match self.read.fill_buf().await {
                Ok(available) if !available.is_empty() => available,
                Ok(_) => return Came::End,
                Err(error) => {
                    tracing::error!(%error, "standard input cannot be read");
                    return Came::End;
                }
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |at| at + 1);
            let is_too_long = self.line.len() + end.unwrap_or(taken) > LINE_BYTES_MAX;
            if !self.skipping && !is_too_long {
                self.line.extend_from_slice(&available[..end.unwrap_or(taken)]);
            }
            self.read.consume(taken);
            let was_skipping = self.skipping;
            self.skipping = end.is_none() && (was_skipping || is_too_long);
            match (was_skipping, is_too_long, end) {
                (false, true, _) => return Came::TooLong,
                (false, false, Some(_)) => return Came::Line,
                _ => {}
            }
        }
    }

    fn refuse(&mut self, refused: Refused) {
        let Refused { id, code, message } = refused;
        tracing::warn!(code, "{message}");
        let id = id.unwrap_or(Value::Null);
        let answer = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
        let (writer, unread) = (Arc::clone(&self.write), self.course.unread.clone());
        self.answer = Some(Box::pin(write(writer, unread, answer.to_string().into_bytes())));
    }

    /// Whether a message has somebody that it can go to. Before the handshake the library takes anything but a request for a broken client.
    fn is_heard(&self, message: &RxJsonRpcMessage<RoleServer>) -> bool {
        self.course.began.is_cancelled() || matches!(message, JsonRpcMessage::Request(_))
    }
}

impl<R: AsyncRead + Send + Unpin, W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for Lines<R, W> {
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (writer, unread) = (Arc::clone(&self.write), self.course.unread.clone());
        async move { write(writer, unread, serde_json::to_vec(&message)?).await }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if let Some(answer) = &mut self.answer {
                let written = answer.await;
                self.answer = None;
                written.ok()?;
            }
            let came = self.next().await;
            let line = std::mem::take(&mut self.line);
            match came {
                Came::End => {
                    self.course.ended.cancel();
                    return None;
                }
                Came::TooLong => self.refuse(broken::too_long(&line, LINE_BYTES_MAX)),
                Came::Line => match read(&line) {
                    Ok(Some(message)) if self.is_heard(&message) => return Some(message),
                    Ok(_) => {}
                    Err(refused) => self.refuse(refused),
                },
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        drop(self.write.lock().await.take());
        Ok(())
    }
}

/// Reads a line; nothing when it says nothing that needs an answer.
fn read(line: &[u8]) -> Result<Option<RxJsonRpcMessage<RoleServer>>, Refused> {
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice::<RxJsonRpcMessage<RoleServer>>(line) {
        // A call whose parameters do not fit is taken for one of a method that nobody knows.
        Ok(JsonRpcMessage::Request(request)) => match &request.request {
            ClientRequest::CustomRequest(custom) => match broken::parameters(line, &custom.method) {
                Some(refused) => Err(refused),
                None => Ok(Some(JsonRpcMessage::Request(request))),
            },
            _ => Ok(Some(JsonRpcMessage::Request(request))),
        },
        Ok(message) => Ok(Some(message)),
        Err(error) => broken::message(line, &error).map_or(Ok(None), Err),
    }
}

/// Writes a message. When nobody reads any more the session has ended, or its agent would belong to a ghost.
async fn write<W: AsyncWrite + Unpin>(
    writer: Arc<Mutex<Option<W>>>,
    unread: CancellationToken,
    mut message: Vec<u8>,
) -> io::Result<()> {
    message.push(b'\n');
    let mut writer = writer.lock().await;
    let writer = writer.as_mut().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the session is over"))?;
    let written = async {
        writer.write_all(&message).await?;
        writer.flush().await
    };
    written.await.inspect_err(|_| unread.cancel())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client is answered, and the methods of the requests that go on.
    async fn said(input: Vec<u8>) -> (Vec<Value>, Vec<Value>) {
        let (mut client, server) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(server);
        let mut lines = Lines::new(reader, writer, Course::default());
        let serving = async {
            let mut passed = Vec::new();
            while let Some(message) = lines.receive().await {
                passed.push(serde_json::to_value(&message).unwrap()["id"].clone());
            }
            assert!(lines.course.ended.is_cancelled());
            drop(lines);
            passed
        };
        let talking = async {
            client.write_all(&input).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answers = Vec::new();
            let mut read = BufReader::new(&mut client).lines();
            while let Some(line) = read.next_line().await.unwrap() {
                answers.push(serde_json::from_str(&line).unwrap());
            }
            answers
        };
        let (passed, answers) = tokio::join!(serving, talking);
        (answers, passed)
    }

    async fn answer_to(line: impl Into<Vec<u8>>) -> (Value, i64, String) {
        let mut input = line.into();
        input.extend_from_slice(b"\n{\"jsonrpc\":\"2.0\",\"id\":99,\"method\":\"ping\"}\n");
        let (answers, passed) = said(input).await;
        assert_eq!(passed, [json!(99)], "the session goes on");
        let [answer] = answers.as_slice() else { panic!("one answer, not {answers:?}") };
        let error = &answer["error"];
        (answer["id"].clone(), error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    fn call(arguments: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"send","arguments":{arguments}}}}}"#
        )
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_answered_with_its_id() {
        let surrogate = call(r#"{"to":"a","text":"hi \ud83d"}"#);
        let deep = call(&format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000)));
        for line in [surrogate, deep] {
            let (id, code, _) = answer_to(line).await;
            assert_eq!((id, code), (json!(7), -32700));
        }
        let (id, code, _) = answer_to("hello").await;
        assert_eq!((id, code), (Value::Null, -32700));
        let (id, code, _) = answer_to(b"\xff\xfe\x00".to_vec()).await;
        assert_eq!((id, code), (Value::Null, -32700));
        let (id, code, _) = answer_to(r#"{"jsonrpc":"2.0","id":"x","method":"ping""#).await;
        assert_eq!((id, code), (json!("x"), -32700));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_and_skipped() {
        let (id, code, message) = answer_to(call(&format!(r#"{{"text":"{}"}}"#, "x".repeat(40 * 1024 * 1024)))).await;
        assert_eq!((id, code), (json!(7), -32600));
        assert!(message.contains("16777216 bytes"), "{message}");
    }

    #[tokio::test]
    async fn wrong_parameters_of_a_call_are_told_by_name() {
        for (line, field) in [
            (call("[]"), "`arguments`"),
            (call("\"x\""), "`arguments`"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#.to_owned(), "`params`"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}"#.to_owned(), "`name`"),
        ] {
            let (id, code, message) = answer_to(line).await;
            assert_eq!((id, code), (json!(7), -32602), "{message}");
            assert!(message.contains(field), "{message}");
        }
    }

    #[tokio::test]
    async fn a_notification_is_never_answered() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        let input =
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{{\"a\":{deep}}}}}\n\n \r\n");
        assert_eq!(said(input.into_bytes()).await, (Vec::new(), Vec::new()));
    }
}

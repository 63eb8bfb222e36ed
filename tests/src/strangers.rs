//! Strangers' services on this machine, as far as a node uses them: Telegram's Bot API with its queue of updates, Discord's and other
//! webhooks, WhatsApp's Cloud API. Each speaks the service's own paths, bodies, status codes and errors.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

use crate::wait;

/// The bot's token.
pub const TOKEN: &str = "123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw";
/// The chat in which the bot writes.
pub const CHAT: i64 = 4_242;

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// Path and query.
    pub path: String,
    /// Its body.
    pub body: Value,
    /// When.
    pub at: Instant,
}

/// A message in Telegram's chat, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub id: i64,
    /// What it says now.
    pub text: String,
    /// What each of its buttons says and carries.
    pub buttons: Vec<(String, String)>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    messages: BTreeMap<i64, Message>,
    /// What was not confirmed, oldest first.
    updates: VecDeque<Value>,
    next_update: i64,
    /// The newest listener: an older one is sent away.
    listener: u64,
    /// What was said to whoever pressed a button, by query.
    answers: BTreeMap<String, Value>,
    presses: u64,
    /// Answers to `sendMessage` that come before the ordinary one.
    refusals: VecDeque<(u16, Value)>,
}

/// The services, on one port.
pub struct Strangers {
    /// Where they are.
    pub url: String,
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Strangers {
    /// Starts them on a port of their own.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (state, news) =
            (Arc::new(Mutex::new(State { next_update: 100, ..State::default() })), Arc::new(Notify::new()));
        let (served, bell) = (Arc::clone(&state), Arc::clone(&news));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                open.spawn(serve(socket, Arc::clone(&served), Arc::clone(&bell)));
            }
        });
        Self { url, state, news, task }
    }

    /// Configuration of a node that may call them.
    #[must_use]
    pub fn config(&self) -> String {
        let Self { url, .. } = self;
        format!(
            "\n[notify]\nallow_local = true\nretry_ms = [10, 50]\ntelegram_api = \"{url}\"\nwhatsapp_api = \"{url}/v23.0\"\n"
        )
    }

    /// Somebody presses a button of a message, by what it says; returns the query.
    ///
    /// # Panics
    /// When there is no such button.
    pub fn press(&self, user_id: u64, message: &Message, says: &str) -> String {
        let (_, data) = message.buttons.iter().find(|(text, _)| text == says).expect("the message has the button");
        self.press_data(user_id, CHAT, message.id, data)
    }

    /// Somebody's program says that a button was pressed.
    pub fn press_data(&self, user_id: u64, chat: i64, message_id: i64, data: &str) -> String {
        let mut state = lock(&self.state);
        state.presses += 1;
        let id = format!("{}", 4_382_000_000_000 + state.presses);
        let update = json!({
            "update_id": state.next_update,
            "callback_query": {
                "id": id,
                "from": {"id": user_id, "is_bot": false, "first_name": "Somebody", "language_code": "en"},
                "message": {"message_id": message_id, "date": 1, "chat": {"id": chat, "type": "private"}, "text": "…"},
                "chat_instance": "-123",
                "data": data,
            },
        });
        state.next_update += 1;
        state.updates.push_back(update);
        drop(state);
        self.news.notify_waiters();
        id
    }

    /// Tells the last update of a query once more, as after a listener that went away before it confirmed it.
    ///
    /// # Panics
    /// When there is none.
    pub fn repeat(&self, update: Value) {
        lock(&self.state).updates.push_back(update);
        self.news.notify_waiters();
    }

    /// The updates that wait for a listener to confirm them.
    #[must_use]
    pub fn unconfirmed(&self) -> Vec<Value> {
        lock(&self.state).updates.iter().cloned().collect()
    }

    /// After a week without updates Telegram begins with another number.
    pub fn number_anew(&self, next: i64) {
        lock(&self.state).next_update = next;
    }

    /// The next `sendMessage` is answered with this.
    pub fn refuse(&self, status: u16, body: Value) {
        lock(&self.state).refusals.push_back((status, body));
    }

    /// Waits until a message of the chat says something.
    pub async fn message(&self, says: &str) -> Message {
        wait::until(&format!("a message says {says}"), || async {
            lock(&self.state).messages.values().find(|message| message.text.contains(says)).cloned()
        })
        .await
    }

    /// What a message says now.
    #[must_use]
    pub fn now(&self, id: i64) -> Message {
        lock(&self.state).messages[&id].clone()
    }

    /// Messages of the chat.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.state).messages.values().cloned().collect()
    }

    /// Waits until whoever pressed a button was told something: the text, and whether it has to be closed.
    pub async fn told(&self, query: &str) -> (String, bool) {
        wait::until("whoever pressed the button is told", || async {
            let state = lock(&self.state);
            let answer = state.answers.get(query)?;
            Some((answer["text"].as_str()?.to_owned(), answer["show_alert"] == true))
        })
        .await
    }

    /// Waits for a call to a path.
    pub async fn called(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Call {
        wait::until(&format!("{path} is called"), || async {
            lock(&self.state).calls.iter().find(|call| call.path.contains(path) && fits(&call.body)).cloned()
        })
        .await
    }

    /// Calls to a path so far.
    #[must_use]
    pub fn calls(&self, path: &str) -> Vec<Call> {
        lock(&self.state).calls.iter().filter(|call| call.path.contains(path)).cloned().collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>, news: Arc<Notify>) {
    let Some((path, body)) = read(&mut socket).await else { return };
    lock(&state).calls.push(Call { path: path.clone(), body: body.clone(), at: Instant::now() });
    let (status, answer) = if let Some(rest) = path.strip_prefix("/bot") {
        match rest.split_once('/') {
            Some((TOKEN, "getUpdates")) => updates(&state, &news, &body).await,
            Some((TOKEN, method)) => bot(&mut lock(&state), method, &body),
            _ => (401, refused(401, "Unauthorized")),
        }
    } else if path.starts_with("/api/webhooks/") {
        (200, json!({"id": "1", "content": body["content"]}))
    } else if path.starts_with("/v23.0/") {
        (200, json!({"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.x"}]}))
    } else {
        (204, Value::Null)
    };
    let text = if answer.is_null() { String::new() } else { answer.to_string() };
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
    // Whoever asked may have gone.
    let _ = socket.write_all(format!("{head}{text}").as_bytes()).await;
}

/// Long polling: what was not confirmed, or what comes within the time; one listener at a time.
async fn updates(state: &Mutex<State>, news: &Notify, body: &Value) -> (u16, Value) {
    let offset = body["offset"].as_i64();
    let limit = usize::try_from(body["limit"].as_u64().unwrap_or(100)).unwrap_or(100);
    let mine = {
        let mut state = lock(state);
        state.listener += 1;
        if let Some(offset) = offset {
            // What is below is confirmed and forgotten.
            state.updates.retain(|update| update["update_id"].as_i64().is_some_and(|id| id >= offset));
        }
        state.listener
    };
    news.notify_waiters();
    let until = Instant::now() + Duration::from_secs(body["timeout"].as_u64().unwrap_or_default());
    loop {
        let changed = news.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let state = lock(state);
            if state.listener != mine {
                let why =
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
                return (409, refused(409, why));
            }
            if !state.updates.is_empty() {
                let told: Vec<Value> = state.updates.iter().take(limit).cloned().collect();
                return (200, json!({"ok": true, "result": told}));
            }
        }
        if timeout(until.saturating_duration_since(Instant::now()), changed).await.is_err() {
            return (200, json!({"ok": true, "result": []}));
        }
    }
}

fn bot(state: &mut State, method: &str, body: &Value) -> (u16, Value) {
    let fine = |result: Value| (200, json!({"ok": true, "result": result}));
    let text = body["text"].as_str().unwrap_or_default().to_owned();
    let message_id = body["message_id"].as_i64();
    match method {
        "getMe" => fine(json!({"id": 123_456, "is_bot": true, "username": "murmur_test_bot"})),
        "sendMessage" => {
            if let Some(refusal) = state.refusals.pop_front() {
                return refusal;
            }
            let buttons = match buttons(&body["reply_markup"]) {
                Ok(buttons) => buttons,
                Err(why) => return (400, refused(400, why)),
            };
            let id = state.messages.len() as i64 + 1;
            state.messages.insert(id, Message { id, text: text.clone(), buttons });
            fine(json!({"message_id": id, "chat": {"id": CHAT, "type": "private"}, "date": 1, "text": text}))
        }
        "editMessageText" => {
            let Some(message) = message_id.and_then(|id| state.messages.get_mut(&id)) else {
                return (400, refused(400, "Bad Request: message to edit not found"));
            };
            let buttons = buttons(&body["reply_markup"]).unwrap_or_default();
            if message.text == text && message.buttons == buttons {
                return (400, refused(400, "Bad Request: message is not modified"));
            }
            (message.text, message.buttons) = (text, buttons);
            fine(json!({"message_id": message.id, "chat": {"id": CHAT, "type": "private"}, "date": 1}))
        }
        "answerCallbackQuery" => {
            let query = body["callback_query_id"].as_str().unwrap_or_default().to_owned();
            if state.answers.insert(query, body.clone()).is_some() {
                return (
                    400,
                    refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid"),
                );
            }
            fine(json!(true))
        }
        _ => (404, refused(404, "Not Found")),
    }
}

/// The buttons of a keyboard, by Telegram's rules for them.
fn buttons(markup: &Value) -> Result<Vec<(String, String)>, &'static str> {
    let mut buttons = Vec::new();
    for button in
        markup["inline_keyboard"].as_array().into_iter().flatten().flat_map(|row| row.as_array().into_iter().flatten())
    {
        let (text, data) =
            (button["text"].as_str().unwrap_or_default(), button["callback_data"].as_str().unwrap_or_default());
        if text.is_empty() || !(1..=64).contains(&data.len()) {
            return Err("Bad Request: BUTTON_DATA_INVALID");
        }
        buttons.push((text.to_owned(), data.to_owned()));
    }
    Ok(buttons)
}

fn refused(code: u16, description: &str) -> Value {
    json!({"ok": false, "error_code": code, "description": description})
}

async fn read(socket: &mut TcpStream) -> Option<(String, Value)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = socket.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        if bytes.len() >= end + 4 + length {
            let path = head.split(' ').nth(1)?.to_owned();
            return Some((path, serde_json::from_slice(&bytes[end + 4..end + 4 + length]).ok()?));
        }
    }
}

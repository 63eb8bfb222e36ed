//! A client that keeps no rule of a client library: it writes what it likes on a connection with a node's rights.

use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::{Broker, now_s, soon, token};

pub(crate) struct Raw {
    stream: BufReader<TcpStream>,
    /// What the server wants signed.
    nonce: String,
}

impl Raw {
    /// Opens a connection and says nothing yet.
    pub(crate) async fn open(broker: &Broker) -> Self {
        let address = broker.address.url.trim_start_matches("nats://");
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut line = String::new();
        soon("the server's greeting", stream.read_line(&mut line)).await.unwrap();
        let info: Value = serde_json::from_str(line.strip_prefix("INFO ").unwrap()).unwrap();
        Self { stream, nonce: info["nonce"].as_str().unwrap().to_owned() }
    }

    /// A connection as node `n`, greeted and ready.
    pub(crate) async fn node(broker: &Broker, n: u8) -> Self {
        let key = KeyPair::new_user();
        let jwt = token(broker, n, &key, now_s(), 3600);
        let mut raw = Self::open(broker).await;
        let answer = raw.greet(Some(&jwt), Some(&key), json!({})).await;
        assert_eq!(answer, "PONG");
        raw
    }

    /// Says who it is and gives the server's first word about that.
    pub(crate) async fn greet(&mut self, jwt: Option<&str>, key: Option<&KeyPair>, more: Value) -> String {
        let mut connect = json!({"verbose": false, "pedantic": false, "headers": true, "no_responders": true});
        for (name, value) in more.as_object().unwrap() {
            connect[name] = value.clone();
        }
        if let Some(jwt) = jwt {
            connect["jwt"] = json!(jwt);
        }
        if let Some(key) = key {
            let signature = key.sign(self.nonce.as_bytes()).unwrap();
            connect["sig"] = json!(data_encoding::BASE64URL_NOPAD.encode(&signature));
        }
        self.write(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await;
        self.read_until(|line| line.starts_with("PONG") || line.starts_with("-ERR")).await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // The server may hang up in the middle of what it will not hear.
        let _ = self.stream.get_mut().write_all(bytes).await;
    }

    /// Publishes without asking anybody whether that is a subject.
    pub(crate) async fn publish(&mut self, subject: &str, body: &[u8]) {
        self.write(format!("PUB {subject} {}\r\n", body.len()).as_bytes()).await;
        self.write(&[body, b"\r\n"].concat()).await;
    }

    /// Reads on to a line, and gives it without its end; empty when the server hung up.
    pub(crate) async fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            let read = soon("a line of the server", self.stream.read_line(&mut line)).await;
            if !matches!(read, Ok(1..)) || wanted(&line) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// The server's errors until it has read everything, or hung up.
    pub(crate) async fn errors(&mut self) -> Vec<String> {
        self.write(b"PING\r\n").await;
        let mut errors = Vec::new();
        loop {
            let line = self.read_until(|line| line.starts_with("PONG") || line.starts_with("-ERR")).await;
            if !line.starts_with("-ERR") {
                return errors;
            }
            errors.push(line);
        }
    }
}

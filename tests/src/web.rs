//! An ordinary HTTP client, such as a browser or curl: every name below `localhost` is this machine.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Uri,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub struct Page {
    /// Of the answer.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As text.
    pub body: String,
}

impl Page {
    /// A header, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Fetches a page.
///
/// # Panics
/// When nobody answers.
pub async fn get(url: &str) -> Page {
    send(Method::GET, url, &[], Bytes::new()).await
}

/// Asks for a page.
///
/// # Panics
/// When nobody answers.
pub async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Page {
    try_send(method, url, headers, body).await.expect("somebody answers")
}

/// As [`send`]; `None` when nobody answers, or breaks off.
///
/// # Panics
/// When the URL is none.
pub async fn try_send(method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Option<Page> {
    let uri: Uri = url.parse().unwrap();
    let mut sender = connect(&uri).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header("host", uri.authority().unwrap().as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.ok()?;
    let status = answer.status().as_u16();
    let headers = answer.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let headers = headers.collect();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some(Page { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

async fn connect(uri: &Uri) -> Option<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(open(uri).await.ok()?)).await.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    Some(sender)
}

/// A connection to where a URL is served.
///
/// # Panics
/// When nobody listens.
pub async fn socket(uri: &Uri) -> TcpStream {
    open(uri).await.unwrap()
}

async fn open(uri: &Uri) -> std::io::Result<TcpStream> {
    let host = uri.host().unwrap();
    let host = if host.ends_with("localhost") { "127.0.0.1" } else { host };
    TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await
}

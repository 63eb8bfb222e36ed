//! A TCP proxy that can fail as networks do: cut connections without a goodbye, and swallow what is sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::ports::PortLease;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Both sides think that it stands, and nothing arrives.
    Swallow,
    Cut,
}

/// One connection; it is known by what its client said first, in which a broker's client names itself.
struct Connection {
    said: Mutex<Vec<u8>>,
    mode: watch::Sender<Mode>,
}

type Connections = Arc<Mutex<Vec<Arc<Connection>>>>;

/// A proxy before one address. Everything ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Connections,
    task: JoinHandle<()>,
    _port: PortLease,
}

impl Proxy {
    /// Begins to listen.
    ///
    /// # Panics
    /// When the port cannot be used.
    pub async fn start(target: SocketAddr) -> Self {
        let port = PortLease::take();
        let listener = TcpListener::bind(("127.0.0.1", port.port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::default();
        let task = tokio::spawn(serve(listener, target, connections.clone()));
        Self { address, connections, task, _port: port }
    }

    /// Resets the connections whose clients named themselves so, with whatever is on the way. Returns how many there were.
    #[must_use]
    pub fn cut(&self, client: &str) -> usize {
        self.set(client, Mode::Cut)
    }

    /// From now on nothing arrives over the connections whose clients named themselves so, and nobody is told. New ones work.
    #[must_use]
    pub fn swallow(&self, client: &str) -> usize {
        self.set(client, Mode::Swallow)
    }

    fn set(&self, client: &str, mode: Mode) -> usize {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.mode.is_closed());
        let named = |connection: &&Arc<Connection>| {
            let said = connection.said.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&said).contains(client)
        };
        let named: Vec<_> = connections.iter().filter(named).collect();
        for connection in &named {
            connection.mode.send_replace(mode);
        }
        named.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            connection.mode.send_replace(Mode::Cut);
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, connections: Connections) {
    while let Ok((client, _)) = listener.accept().await {
        // A target that is away shows as a connection that ends at once.
        let Ok(server) = TcpStream::connect(target).await else { continue };
        let connection = Arc::new(Connection { said: Mutex::default(), mode: watch::Sender::new(Mode::Pass) });
        connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
        for stream in [&client, &server] {
            // Closing resets: what is on the way is lost, as on a cut line.
            let _ = stream.set_zero_linger();
            let _ = stream.set_nodelay(true);
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let modes = (connection.mode.subscribe(), connection.mode.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = copy(from_client, to_server, modes.0, Some(&connection)) => {}
                () = copy(from_server, to_client, modes.1, None) => {}
            }
        });
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    first: Option<&Connection>,
) {
    const SAID_BYTES_MAX: usize = 4096;
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            _ = mode.wait_for(|mode| *mode == Mode::Cut) => return,
            read = from.read(&mut bytes) => read,
        };
        let Ok(count @ 1..) = read else { return };
        if let Some(connection) = first {
            let mut said = connection.said.lock().unwrap_or_else(PoisonError::into_inner);
            let room = SAID_BYTES_MAX.saturating_sub(said.len()).min(count);
            said.extend_from_slice(&bytes[..room]);
        }
        if *mode.borrow() == Mode::Pass && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

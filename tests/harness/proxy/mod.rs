//! A TCP proxy that fails on demand: it stands on any edge between two programs.
//!
//! One task accepts, obeys the test and lets the connections know; each connection is a task that carries bytes in both
//! directions ([`mod@carry`]). A fault holds for existing and new connections alike. TCP's word is kept: bytes come in order and
//! without a hole, or the connection is reset.

mod carry;

use anyhow::Context;
use carry::{Link, carry};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Every byte arrives this much later, in each direction. Order and throughput stay.
    Latency(Duration),
    /// Connections are accepted, and then nothing is read and nothing forwarded: silence. What waited arrives afterwards.
    Blackhole,
    /// What the client says arrives, what the server answers is lost, its goodbye too. A connection that has lost bytes is reset
    /// when this ends: TCP never leaves a hole.
    DropReplies,
    /// The client is never told that the server closed the connection; everything else passes. It learns of it afterwards.
    HalfClose,
    /// Each connection is reset as soon as this many more bytes have come from the server; with 0, in place of the first.
    ResetAfter {
        /// How many.
        bytes: u64,
    },
    /// Existing connections are reset, new ones refused. The port stays ours.
    Refuse,
    /// [`Fault::Pass`] and [`Fault::Refuse`] by turns.
    Flap {
        /// How long it passes, first.
        up: Duration,
        /// How long it refuses, then.
        down: Duration,
    },
}

/// What every connection follows. Never [`Fault::Flap`], which is one of its two phases at a time.
#[derive(Debug, Clone, Copy)]
struct Weather {
    fault: Fault,
    /// Counts what was set: a fault that is set again begins again.
    version: u64,
    /// Counts the times when everything was reset.
    resets: u64,
}

enum Command {
    Set(Fault),
    Cut,
}

/// Whether a message of the client is the one whose reply is to be lost.
type Wanted = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

#[derive(Default)]
struct Shared {
    connections: AtomicU64,
    open: AtomicUsize,
    lost: AtomicU64,
    /// The next reply to lose: taken by the connection that loses it.
    prey: Mutex<Option<(u64, Wanted)>>,
    prey_count: AtomicU64,
}

impl Shared {
    /// The number of the hunt for which this message is the bait, if there is one.
    fn bait(&self, message: &[u8]) -> Option<u64> {
        let prey = self.prey.lock().unwrap_or_else(PoisonError::into_inner).clone();
        prey.filter(|(_, wanted)| wanted(message)).map(|(hunt, _)| hunt)
    }

    /// Ends a hunt; false if another connection was first.
    fn caught(&self, hunt: u64) -> bool {
        let mut prey = self.prey.lock().unwrap_or_else(PoisonError::into_inner);
        let caught = prey.take_if(|(current, _)| *current == hunt).is_some();
        self.lost.fetch_add(u64::from(caught), Ordering::Release);
        caught
    }
}

/// A proxy in front of one address. Dropping it closes it and all of its connections.
pub struct FaultProxy {
    address: SocketAddr,
    commands: mpsc::Sender<(Command, oneshot::Sender<()>)>,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl std::fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// Listens on a port of its own and passes everything on to `target`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        let (commands, inbox) = mpsc::channel(16);
        let shared = Arc::new(Shared::default());
        let weather = watch::Sender::new(Weather { fault: Fault::Pass, version: 0, resets: 0 });
        let (address, listener) = (port.address, Some(port.listen()?));
        let acceptor = Acceptor {
            port,
            target,
            listener,
            weather,
            shared: shared.clone(),
            connections: JoinSet::new(),
            flap: None,
        };
        let mut serving = JoinSet::new();
        serving.spawn(acceptor.run(inbox));
        Ok(Self { address, commands, shared, _serving: serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the fault that holds from now on: when this returns, it does, and connections that it resets are closed.
    ///
    /// # Errors
    /// The proxy is stuck.
    pub async fn set(&self, fault: Fault) -> anyhow::Result<()> {
        self.command(Command::Set(fault)).await
    }

    /// Resets all connections. New ones are served as before.
    ///
    /// # Errors
    /// The proxy is stuck.
    pub async fn cut(&self) -> anyhow::Result<()> {
        self.command(Command::Cut).await
    }

    async fn command(&self, command: Command) -> anyhow::Result<()> {
        let (done, wait) = oneshot::channel();
        let obeyed = async {
            self.commands.send((command, done)).await.ok()?;
            wait.await.ok()
        };
        let obeyed = tokio::time::timeout(crate::PATIENCE, obeyed).await;
        obeyed.ok().flatten().with_context(|| format!("the proxy at {} does not obey", self.address))
    }

    /// The next reply is lost: the first bytes from the server on a connection whose client has said something after this call
    /// are swallowed, and that connection is reset. It happens once, and [`lost`](Self::lost) counts it.
    pub fn lose_next_reply(&self) {
        self.lose_next_reply_to(|_| true);
    }

    /// As [`lose_next_reply`](Self::lose_next_reply), for the reply to a message of the client that is `wanted`. It is shown what
    /// the client sent as it arrived: a long message may come in pieces.
    pub fn lose_next_reply_to(&self, wanted: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        let hunt = self.shared.prey_count.fetch_add(1, Ordering::Relaxed) + 1;
        *self.shared.prey.lock().unwrap_or_else(PoisonError::into_inner) = Some((hunt, Arc::new(wanted)));
    }

    /// How many replies were lost so.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// How many connections it has accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// How many of them are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }
}

/// A port that stays ours while nobody listens on it: a bound socket that never listens holds it.
struct Port {
    address: SocketAddr,
    _reserved: TcpSocket,
}

impl Port {
    fn reserve() -> anyhow::Result<Self> {
        let socket = Self::bound((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: socket.local_addr()?, _reserved: socket })
    }

    fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        Ok(socket)
    }

    fn listen(&self) -> std::io::Result<TcpListener> {
        Self::bound(self.address)?.listen(4_096)
    }
}

struct Acceptor {
    port: Port,
    target: SocketAddr,
    listener: Option<TcpListener>,
    weather: watch::Sender<Weather>,
    shared: Arc<Shared>,
    connections: JoinSet<()>,
    /// Both phases, and when the current one ends.
    flap: Option<(Duration, Duration, Instant)>,
}

impl Acceptor {
    async fn run(mut self, mut inbox: mpsc::Receiver<(Command, oneshot::Sender<()>)>) {
        loop {
            let turn = self.flap.map(|(.., turn)| turn);
            tokio::select! {
                biased;
                command = inbox.recv() => {
                    let Some((command, done)) = command else { return };
                    self.obey(command).await;
                    // Who no longer waits has given up on it.
                    done.send(()).ok();
                }
                () = sleep_until(turn.unwrap_or_else(Instant::now)), if turn.is_some() => self.turn().await,
                Some(_) = self.connections.join_next() => {}
                client = accept(self.listener.as_ref()) => self.welcome(client),
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Cut => self.reset_all().await,
            Command::Set(Fault::Flap { up, down }) => {
                self.flap = Some((up, down, Instant::now() + up));
                self.apply(Fault::Pass).await;
            }
            Command::Set(fault) => {
                self.flap = None;
                self.apply(fault).await;
            }
        }
    }

    async fn turn(&mut self) {
        let Some((up, down, turn)) = &mut self.flap else { return };
        let (next, lasts) = match self.listener {
            Some(_) => (Fault::Refuse, *down),
            None => (Fault::Pass, *up),
        };
        *turn = Instant::now() + lasts;
        self.apply(next).await;
    }

    async fn apply(&mut self, fault: Fault) {
        let refuse = fault == Fault::Refuse;
        if refuse {
            self.listener = None;
        }
        self.weather.send_modify(|weather| {
            weather.fault = fault;
            weather.version += 1;
        });
        if refuse {
            return self.reset_all().await;
        }
        while self.listener.is_none() {
            match self.port.listen() {
                Ok(listener) => self.listener = Some(listener),
                // The port is ours: only files may be short, for a while.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn reset_all(&mut self) {
        self.weather.send_modify(|weather| weather.resets += 1);
        while self.connections.join_next().await.is_some() {}
    }

    fn welcome(&mut self, client: TcpStream) {
        self.shared.connections.fetch_add(1, Ordering::Release);
        let open = Open::count(self.shared.clone());
        let link = Link::new(self.weather.subscribe(), self.shared.clone());
        let target = self.target;
        self.connections.spawn(async move {
            carry(client, target, link).await;
            drop(open);
        });
    }
}

/// The next connection; never, if nobody listens.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
        // Files are short: some connections must end first.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Release);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

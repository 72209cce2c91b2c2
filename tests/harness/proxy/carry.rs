//! One connection of a [`FaultProxy`](super::FaultProxy): two pumps, from the client up to the server and down again.
//!
//! A pump reads, keeps what it has read with the time of its arrival, and writes it when the fault of the moment lets it. Both
//! look at the fault before every step and are woken by every change of it.

use super::{Fault, Shared, Weather};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::{Instant, sleep_until},
};

/// What a connection is a part of.
pub(super) struct Link {
    weather: watch::Receiver<Weather>,
    shared: Arc<Shared>,
    /// Resets that happened before it was born.
    born: u64,
    /// The hunt for a lost reply for which this client has said the word; 0 is none.
    hunt: AtomicU64,
}

impl Link {
    pub(super) fn new(weather: watch::Receiver<Weather>, shared: Arc<Shared>) -> Self {
        let born = weather.borrow().resets;
        Self { weather, shared, born, hunt: AtomicU64::new(0) }
    }
}

/// The connection is to be reset, on both sides.
struct Reset;

/// Carries bytes until both sides are done, or resets both.
pub(super) async fn carry(mut client: TcpStream, target: SocketAddr, link: Link) {
    let Ok(mut server) = connect(target, &link).await else {
        // Whoever is reset does not care why it could not be asked for.
        client.set_zero_linger().ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let done = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = Pump::new(Way::Up, from_client, to_server, &link);
        let down = Pump::new(Way::Down, from_server, to_client, &link);
        tokio::try_join!(up.run(), down.run())
    };
    if done.is_err() {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

/// Connects to the server as soon as the network lets it.
async fn connect(target: SocketAddr, link: &Link) -> Result<TcpStream, Reset> {
    let mut weather = link.weather.clone();
    loop {
        let now = *weather.borrow_and_update();
        if now.resets > link.born {
            return Err(Reset);
        }
        tokio::select! {
            biased;
            changed = weather.changed() => changed.map_err(|_| Reset)?,
            server = TcpStream::connect(target), if now.fault != Fault::Blackhole => {
                return server.map_err(|_| Reset);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// What a pump may do now.
struct Gate {
    open: bool,
    delay: Duration,
    swallow: bool,
    /// Whether the end of the stream is passed on.
    ends: bool,
    /// Most bytes that wait.
    room: usize,
}

impl Gate {
    fn new(fault: Fault, way: Way) -> Self {
        let (down, delay) =
            (way == Way::Down, if let Fault::Latency(delay) = fault { delay } else { Duration::ZERO });
        let swallow = down && fault == Fault::DropReplies;
        Self {
            open: fault != Fault::Blackhole,
            delay,
            swallow,
            ends: !(swallow || down && fault == Fault::HalfClose),
            // What is late is on the wire: it must not hold up what follows.
            room: if delay.is_zero() { 256 << 10 } else { 64 << 20 },
        }
    }
}

/// How the bytes that a pump reads ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Said,
    Reset,
}

struct Pump<'a> {
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    link: &'a Link,
    waiting: VecDeque<(Instant, Bytes, Option<u64>)>,
    bytes: usize,
    end: Option<End>,
    /// Nobody is there to write to, and nobody may be told.
    deaf: bool,
    /// Bytes were swallowed.
    torn: bool,
    /// The version of the weather, and the bytes until the reset that it asks for.
    until_reset: (u64, u64),
}

impl<'a> Pump<'a> {
    fn new(way: Way, from: ReadHalf<'a>, to: WriteHalf<'a>, link: &'a Link) -> Self {
        let (waiting, until_reset) = (VecDeque::new(), (u64::MAX, 0));
        Self { way, from, to, link, waiting, bytes: 0, end: None, deaf: false, torn: false, until_reset }
    }

    async fn run(mut self) -> Result<(), Reset> {
        let mut weather = self.link.weather.clone();
        loop {
            let now = *weather.borrow_and_update();
            let gate = Gate::new(now.fault, self.way);
            self.follow(&now, &gate)?;
            if gate.open && self.is_done(&gate).await? {
                return Ok(());
            }
            let due = self.waiting.front().map(|(arrived, ..)| *arrived + gate.delay);
            let (reads, writes) =
                (gate.open && self.end.is_none() && self.bytes < gate.room, gate.open && due.is_some());
            tokio::select! {
                biased;
                changed = weather.changed() => changed.map_err(|_| Reset)?,
                written = write(&mut self.to, self.waiting.front(), due, self.until_reset.1), if writes => self.wrote(written, &now)?,
                _ = self.from.readable(), if reads => self.read(&gate)?,
            }
        }
    }

    /// What a change of the fault does to this pump.
    fn follow(&mut self, now: &Weather, gate: &Gate) -> Result<(), Reset> {
        let healed = gate.open && !gate.swallow;
        // The server is gone, and the client may be told of it again.
        let told = self.deaf && Gate::new(now.fault, Way::Down).ends;
        if now.resets > self.link.born || (self.torn && healed) || told {
            return Err(Reset);
        }
        if self.until_reset.0 != now.version {
            let bytes = if let Fault::ResetAfter { bytes } = now.fault { bytes } else { u64::MAX };
            self.until_reset = (now.version, if self.way == Way::Down { bytes } else { u64::MAX });
        }
        if gate.swallow && !self.waiting.is_empty() {
            self.clear();
            self.torn = true;
        }
        if self.until_reset.1 == 0 && !self.waiting.is_empty() {
            return Err(Reset);
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }

    /// Whether everything has been passed on, the end too.
    async fn is_done(&mut self, gate: &Gate) -> Result<bool, Reset> {
        if !self.waiting.is_empty() || !gate.ends {
            return Ok(false);
        }
        match self.end {
            None => Ok(false),
            Some(End::Said) if self.deaf => Ok(true),
            Some(End::Reset) => Err(Reset),
            Some(End::Said) => self.to.shutdown().await.map(|()| true).map_err(|_| Reset),
        }
    }

    fn read(&mut self, gate: &Gate) -> Result<(), Reset> {
        let mut chunk = BytesMut::with_capacity(16 << 10);
        match self.from.try_read_buf(&mut chunk) {
            Ok(0) => self.end = Some(End::Said),
            Ok(_) => return self.keep(chunk.freeze(), gate),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.end = Some(End::Reset),
        }
        Ok(())
    }

    fn keep(&mut self, chunk: Bytes, gate: &Gate) -> Result<(), Reset> {
        let shared = &self.link.shared;
        let bait = if self.way == Way::Up { shared.bait(&chunk) } else { None };
        if self.way == Way::Down && shared.caught(self.link.hunt.swap(0, Ordering::Relaxed)) {
            return Err(Reset);
        }
        self.torn |= gate.swallow;
        if !gate.swallow && !self.deaf {
            self.bytes += chunk.len();
            self.waiting.push_back((Instant::now(), chunk, bait));
        }
        Ok(())
    }

    fn wrote(&mut self, written: std::io::Result<usize>, now: &Weather) -> Result<(), Reset> {
        let Some((_, chunk, bait)) = self.waiting.front_mut() else { return Ok(()) };
        let Ok(count) = written else {
            // The server is gone, which these two keep from the client.
            if self.way == Way::Up && !Gate::new(now.fault, Way::Down).ends {
                self.deaf = true;
                self.clear();
                return Ok(());
            }
            return Err(Reset);
        };
        chunk.advance(count);
        self.bytes -= count;
        self.until_reset.1 -= count as u64;
        if chunk.is_empty() {
            if let Some(hunt) = bait {
                self.link.hunt.store(*hunt, Ordering::Relaxed);
            }
            self.waiting.pop_front();
        }
        if self.until_reset.1 == 0 { Err(Reset) } else { Ok(()) }
    }
}

/// Writes of a chunk what is possible, when it is due.
async fn write(
    to: &mut WriteHalf<'_>,
    chunk: Option<&(Instant, Bytes, Option<u64>)>,
    due: Option<Instant>,
    most: u64,
) -> std::io::Result<usize> {
    let Some(((_, chunk, _), due)) = chunk.zip(due) else { return std::future::pending().await };
    if due > Instant::now() {
        sleep_until(due).await;
    }
    to.write(&chunk[..chunk.len().min(usize::try_from(most).unwrap_or(usize::MAX))]).await
}

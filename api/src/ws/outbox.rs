//! Messages on their way to one socket: bounded in number and in bytes, so that a slow reader holds up its topics and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Messages at most.
pub(super) const MESSAGES_MAX: usize = 256;
/// Bytes at most; a longer message goes alone.
const BYTES_MAX: usize = 64 << 10;

/// The socket is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// The way to the socket.
pub(super) struct Outbox {
    sender: mpsc::Sender<Letter>,
    room: Arc<Semaphore>,
}

/// One follower's way to the socket. Cheap to clone.
#[derive(Clone)]
pub(super) struct Voice {
    sender: mpsc::Sender<Letter>,
    room: Arc<Semaphore>,
    hushed: Arc<AtomicBool>,
}

/// One message. Its room is free again once it is dropped.
pub(super) struct Letter {
    /// The text of the frame.
    pub(super) text: String,
    hushed: Arc<AtomicBool>,
    _room: OwnedSemaphorePermit,
}

impl Outbox {
    /// An empty one, and where its messages come out.
    pub(super) fn new() -> (Self, mpsc::Receiver<Letter>) {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        (Self { sender, room: Arc::new(Semaphore::new(BYTES_MAX)) }, receiver)
    }

    /// A voice for one more follower.
    pub(super) fn voice(&self) -> Voice {
        Voice { sender: self.sender.clone(), room: self.room.clone(), hushed: Arc::default() }
    }
}

impl Voice {
    /// Waits for room and puts a message in.
    pub(super) async fn send(&self, text: String) -> Result<(), Gone> {
        let bytes = text.len().min(BYTES_MAX) as u32;
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        let letter = Letter { text, hushed: self.hushed.clone(), _room: room };
        self.sender.send(letter).await.map_err(|_| Gone)
    }

    /// What it has said and was not sent yet is not wanted any more.
    pub(super) fn hush(&self) {
        self.hushed.store(true, Relaxed);
    }
}

impl Letter {
    /// Whether it is still to be sent.
    pub(super) fn is_wanted(&self) -> bool {
        !self.hushed.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn it_is_full_by_bytes_and_a_long_message_goes_alone() {
        let (outbox, mut letters) = Outbox::new();
        let voice = outbox.voice();
        let sent = async |bytes: usize| {
            voice.send("x".repeat(bytes)).now_or_never().is_some_and(|sent| sent.is_ok())
        };
        assert!(sent(BYTES_MAX - 10).await && sent(10).await);
        assert!(!sent(1).await, "there is no room for another byte");
        drop(letters.recv().await);
        assert!(sent(1).await);
        assert!(!sent(100 * BYTES_MAX).await, "it waits until all others are gone");
        drop((letters.recv().await, letters.recv().await));
        assert!(sent(100 * BYTES_MAX).await);
    }

    #[tokio::test]
    async fn what_a_hushed_voice_has_said_is_not_wanted() {
        let (outbox, mut letters) = Outbox::new();
        let (former, present) = (outbox.voice(), outbox.voice());
        former.send("old".into()).await.expect("room");
        present.send("new".into()).await.expect("room");
        former.hush();
        let wanted = [letters.recv().await, letters.recv().await].map(|it| it.expect("two").is_wanted());
        assert_eq!(wanted, [false, true]);
    }
}

//! Named places at every boundary of a commit, a push or an end, at which a test kills the process or loses a reply.
//!
//! Compiled out unless the feature `failpoints` is on, as in `scripts/test`. Then the environment decides, in the words of the
//! crate `fail`: `FAILPOINTS="claim_committed=2*off->return"` kills this process when it passes there for the third time, and
//! `FAILPOINTS="finish_reply=1*return->off"` loses the first reply to a finish.

macro_rules! points {
    ($($(#[doc = $why:literal])* $point:ident = $name:literal,)*) => {
        /// Where.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($(#[doc = $why])* $point,)*
        }

        impl Point {
            /// Every point, in the order of a task's way.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name in `FAILPOINTS`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// api: a large request body is in the object store, nothing is committed.
    SubmitKept = "submit_kept",
    /// api: submits are about to be committed.
    SubmitTaken = "submit_taken",
    /// api: submits can be seen, perhaps before they are on the disk; nobody knows.
    SubmitCommitted = "submit_committed",
    /// api: the reply to a common commit is lost.
    SubmitReply = "submit_reply",
    /// api: a batch is committed, nobody knows.
    BatchCommitted = "batch_committed",
    /// api: a batch is cancelling, its tasks are not cancelled yet.
    BatchCancelling = "batch_cancelling",
    /// api: a cancel is committed, nobody knows.
    CancelCommitted = "cancel_committed",
    /// api: the reply to a cancel is lost.
    CancelReply = "cancel_reply",
    /// api: another run is committed, nobody knows.
    RetryCommitted = "retry_committed",
    /// any: bells are in the queue.
    NewsRung = "news_rung",
    /// any: bells are rung and watchers told.
    NewsTold = "news_told",
    /// worker: an incarnation is registered.
    LeaseRegistered = "lease_registered",
    /// worker: a heartbeat was answered.
    LeaseAnswered = "lease_answered",
    /// worker: ids are off the queue, nothing is claimed.
    ClaimPopped = "claim_popped",
    /// worker: attempts are claimed, none has started.
    ClaimCommitted = "claim_committed",
    /// worker: the reply to a claim is lost.
    ClaimReply = "claim_reply",
    /// worker: attempts are with their handlers.
    ClaimHanded = "claim_handed",
    /// worker: the request body is read, nobody is called.
    RunOpened = "run_opened",
    /// worker: the upstream has begun to answer.
    RunAnswered = "run_answered",
    /// worker: chunks are in the event log.
    RunTold = "run_told",
    /// worker: the call is over, nothing is decided.
    RunCalled = "run_called",
    /// worker: a large answer is in the object store, nothing is committed.
    FinishKept = "finish_kept",
    /// worker: ends are about to be committed.
    FinishTaken = "finish_taken",
    /// worker: ends are committed, nobody knows.
    FinishCommitted = "finish_committed",
    /// worker: the reply to ends is lost.
    FinishReply = "finish_reply",
    /// worker: retries are about to be committed.
    AgainTaken = "again_taken",
    /// worker: retries are committed, nobody knows.
    AgainCommitted = "again_committed",
    /// worker: attempts are given back.
    LeaseReleased = "lease_released",
    /// worker: an upstream's pause is written.
    PauseWritten = "pause_written",
    /// worker: webhooks are sent, nothing is written down.
    WebhookSent = "webhook_sent",
    /// any: attempts of dead workers are taken from them, nobody knows.
    SweepReaped = "sweep_reaped",
    /// any: due tasks are queued, nobody knows.
    SweepDue = "sweep_due",
    /// any: late tasks are expired, nobody knows.
    SweepExpired = "sweep_expired",
    /// any: a lane's window is filled.
    SweepRefilled = "sweep_refilled",
    /// any: tasks of a batch are cancelled, nobody knows.
    SweepCancelled = "sweep_cancelled",
    /// any: batches are closed.
    SweepClosed = "sweep_closed",
}

/// Whether they are compiled in.
pub const ENABLED: bool = cfg!(feature = "failpoints");

/// Reads `FAILPOINTS`. Once, at the start of a process.
pub fn listen() {
    #[cfg(feature = "failpoints")]
    // Forgotten on purpose: it would forget the points with itself.
    std::mem::forget(fail::FailScenario::setup());
}

/// Ends the process on the spot, as a crash does, if a test has said so.
pub fn pass(point: Point) {
    #[cfg(feature = "failpoints")]
    if fail::eval(point.name(), |_| ()).is_some() {
        std::process::abort();
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

/// What is left of a reply: nothing, if a test has said so.
///
/// # Errors
/// As if the connection to the database had been cut before the reply.
pub fn reply<T>(point: Point, reply: crate::store::Result<T>) -> crate::store::Result<T> {
    #[cfg(feature = "failpoints")]
    if reply.is_ok() && fail::eval(point.name(), |_| ()).is_some() {
        let cut = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "a test has lost the reply");
        return Err(crate::store::Error::Unavailable(sqlx::Error::Io(cut)));
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
    reply
}

/// Ends the process if a test has named a word that stands in this request body: a task that takes its worker down.
pub fn poison(body: &[u8]) {
    #[cfg(feature = "failpoints")]
    if let Some(word) = fail::eval("poison", |word| word.unwrap_or_default())
        && !word.is_empty()
        && body.windows(word.len()).any(|window| window == word.as_bytes())
    {
        std::process::abort();
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = body;
}

//! What happened during a run, as one JSON line each: what clients asked and were told, what the rows went through, what the
//! model was called for. [`crate::check()`] judges it afterwards, without the system.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Seen {
    /// A client was told that its task is committed.
    Accepted {
        /// The task.
        task: String,
        /// The client's idempotency key.
        key: Option<String>,
    },
    /// A client read the task's state.
    Read {
        /// The task.
        task: String,
        /// Its state.
        state: String,
    },
    /// A client was told that its task is cancelled.
    Cancelled {
        /// The task.
        task: String,
        /// Unix seconds.
        at: f64,
    },
    /// A client asked for another run.
    Retried {
        /// The task.
        task: String,
    },
    /// A watcher saw an event.
    Event {
        /// The watcher and the task that it watches.
        watcher: String,
        /// The event's place.
        seq: i64,
        /// Its name.
        name: String,
    },
    /// A row went from one state to another.
    Row {
        /// The task.
        task: String,
        /// The attempt after the change.
        attempt: u32,
        /// The state before.
        from: String,
        /// The state after.
        to: String,
    },
    /// The model was called.
    Call {
        /// For this task.
        task: String,
        /// By this attempt.
        attempt: u32,
        /// How the call ended.
        how: String,
        /// Unix seconds.
        started: f64,
        /// Unix seconds; the run's end for one that never ended.
        ended: f64,
        /// Tokens sent.
        tokens: u64,
    },
    /// The task at the end of the run.
    Stands {
        /// The task.
        task: String,
        /// Its state.
        state: String,
        /// Its newest attempt.
        attempt: u32,
        /// Whether it has a result.
        result: bool,
        /// Output tokens of its result.
        tokens: Option<u64>,
    },
    /// A batch at the end of the run.
    Batch {
        /// Its lines.
        total: u64,
        /// Lines whose task completed.
        completed: u64,
        /// The other ones.
        failed: u64,
    },
    /// A worker with so many slots was killed or frozen.
    Killed {
        /// Its slots.
        slots: u64,
    },
    /// Something is left when all is done: rows in progress, ids in the queue, open transactions.
    Left {
        /// What.
        thing: String,
        /// How many.
        count: i64,
    },
}

/// The history of one run, in a file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
    file: Arc<Mutex<BufWriter<File>>>,
}

impl History {
    /// A new one in this folder.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("history.jsonl");
        let file = BufWriter::new(File::create(&path)?);
        Ok(Self { path, file: Arc::new(Mutex::new(file)) })
    }

    /// Adds a line.
    ///
    /// # Panics
    /// The disk is full: then no test makes sense.
    pub fn note(&self, seen: &Seen) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = serde_json::to_string(seen).expect("plain structs are JSON");
        writeln!(file, "{line}").expect("the history is written");
    }

    /// Everything so far, from the file.
    ///
    /// # Errors
    /// The file is not readable.
    pub fn read(&self) -> anyhow::Result<Vec<Seen>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()?;
        let lines = BufReader::new(File::open(&self.path)?).lines();
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }

    /// The tasks that were accepted, by their keys or else their ids.
    ///
    /// # Errors
    /// As [`History::read`].
    pub fn accepted(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let accepted = self.read()?.into_iter().filter_map(|seen| match seen {
            Seen::Accepted { task, key } => Some((key.unwrap_or_else(|| task.clone()), task)),
            _ => None,
        });
        Ok(accepted.collect())
    }
}

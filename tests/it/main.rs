//! Everything Longhaul promises, as tests. Read it as a table of contents.

/// Every implementation of a trait is held to the same suite.
mod conformance;

/// What a client sees, in both modes.
mod journey;

/// What answers of many servers come to.
mod answers;

/// What clients that others have made say of it.
mod clients;

/// What survives when processes and services die.
mod crash;

/// The tools of the crash tests do what they say.
mod harness;

/// What a task costs, as the servers count it.
mod cost;

/// The command line: demo, configuration, and errors a person can act on.
mod cli;

/// Commands that people type, against servers that run.
mod commands;

/// The documents say what the code does.
mod docs;

/// The pages that show how to do something.
mod how_to;

/// What a page shows is what comes.
mod shown;

/// The shape of the source tree.
mod tidy;

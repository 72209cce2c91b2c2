//! What is read from the outside: processes by `/proc`, rows and WAL by SQL.

pub(crate) mod rows;
pub(crate) mod tree;

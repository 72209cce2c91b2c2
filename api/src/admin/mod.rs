//! The operator's part: who there is, and what was done to them. Whoever has the scope `admin` acts on all projects.

pub(crate) mod audit;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod projects;

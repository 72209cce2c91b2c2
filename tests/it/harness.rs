//! The tools of the crash tests, tested: a broken one would let those tests pass for nothing.

mod app;
mod canary;
mod check;
mod disk;
mod postgres;
mod proxy;
mod redis;

//! The ways of a task as a client walks them, in both modes, the distributed one with both transports: the same words,
//! the same bytes.

mod bad_input;
mod batch;
mod bounded;
mod browser;
mod canary;
mod cancel;
mod figures;
mod first_hour;
mod hostile;
mod idempotency;
mod input_rules;
mod judging;
mod keys;
mod limits;
mod many;
mod rates;
mod rebinding;
mod relay;
mod slow;
mod socket;
mod stream;
mod submit;
mod tenants;
mod tls;
pub(crate) mod tokens;
mod topics;
mod webhooks;

/// Makes three tests of each journey: `<journey>::embedded`, `<journey>::distributed`, `<journey>::apalis`.
macro_rules! both_modes {
    ($($journey:ident),* $(,)?) => {$(
        mod $journey {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() -> anyhow::Result<()> {
                harness::journey(harness::Mode::Embedded, super::$journey).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn distributed() -> anyhow::Result<()> {
                harness::journey(harness::Mode::Distributed, super::$journey).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn apalis() -> anyhow::Result<()> {
                harness::journey(harness::Mode::Apalis, super::$journey).await
            }
        }
    )*};
}
pub(crate) use both_modes;

/// Makes two tests of what concerns the distributed mode alone: `<journey>::distributed` and `<journey>::apalis`.
macro_rules! both_transports {
    ($($journey:ident),* $(,)?) => {$(
        mod $journey {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn distributed() -> anyhow::Result<()> {
                harness::journey(harness::Mode::Distributed, super::$journey).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn apalis() -> anyhow::Result<()> {
                harness::journey(harness::Mode::Apalis, super::$journey).await
            }
        }
    )*};
}
pub(crate) use both_transports;

//! The ways of a task as a client walks them, in both modes: the same words, the same bytes.

mod bad_input;
mod batch;
mod cancel;
mod idempotency;
mod limits;
mod many;
mod relay;
mod stream;
mod submit;

/// Makes two tests of each journey, `<journey>::embedded` and `<journey>::distributed`.
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
        }
    )*};
}
pub(crate) use both_modes;

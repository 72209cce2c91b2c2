//! What every store promises: the docs of trait `Store`, case by case. Each case makes its own ids, so that suites can share a
//! database; sweeps see everybody's rows, so cases look at their own only.

mod batches;
pub(super) mod caps;
mod owner;
mod read;
mod submit;
mod sweep;
mod upstreams;
mod work;

use shared::store::Store;

/// Runs every case on one store, one after the other.
pub(super) async fn all(store: &dyn Store) {
    submit::all(store).await;
    work::all(store).await;
    owner::all(store).await;
    sweep::all(store).await;
    batches::all(store).await;
    read::all(store).await;
    upstreams::all(store).await;
}

/// Makes `all` of a list of cases.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(super) async fn all(store: &dyn shared::store::Store) {
            $($case(store).await;)*
        }
    };
}
use cases;

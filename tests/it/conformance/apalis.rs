//! What the transport by way of apalis-redis has to show beyond the suite: that nothing stays behind, whoever dies where.

use super::queue::{WINDOW, bells, lane, lanes, pop};
use futures_util::future::try_join_all;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use shared::{
    queue::{ApalisQueue, Lane, Queue},
    store::Bell,
    task::ProjectId,
};

const KEYS: &str = "lh:{queue}:apalis:order";

/// Runs every case.
pub(crate) async fn all(queue: &dyn Queue, url: &str) -> anyhow::Result<()> {
    let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    an_id_that_died_with_its_fetcher_is_rung_again(queue, &mut redis).await?;
    an_id_whose_data_is_gone_costs_one_pop(queue, &mut redis).await?;
    a_bell_that_died_with_its_ringer_is_heard(queue, &mut redis).await?;
    many_pushers_stay_within_the_window(queue, url).await?;
    nothing_is_left(queue, &mut redis).await
}

fn one() -> [Bell; 1] {
    [bells(&lane("order"), ProjectId::DEFAULT, 1).remove(0)]
}

async fn an_id_that_died_with_its_fetcher_is_rung_again(
    queue: &dyn Queue,
    redis: &mut MultiplexedConnection,
) -> anyhow::Result<()> {
    let rung = one();
    assert_eq!(queue.push(&rung).await?, 1);
    // The part of a fetch that Redis has: its answer never arrives.
    let id: String = redis.lpop(format!("{KEYS}:active"), None).await?;
    let () = redis.sadd(format!("{KEYS}:inflight:longhaul"), id).await?;
    assert_eq!(queue.push(&rung).await?, 1);
    assert_eq!(pop(queue, &lane("order"), 5).await, [rung[0].task]);
    Ok(())
}

async fn an_id_whose_data_is_gone_costs_one_pop(
    queue: &dyn Queue,
    redis: &mut MultiplexedConnection,
) -> anyhow::Result<()> {
    let rung = [one(), one()].concat();
    assert_eq!(queue.push(&rung).await?, 2);
    let () = redis.hdel(format!("{KEYS}:data"), rung[0].task.0.to_string()).await?;
    let lane = [lane("order")];
    assert!(queue.pop(&lane, 5, std::time::Duration::ZERO).await.is_err());
    assert_eq!(queue.push(&rung).await?, 2);
    assert_eq!(pop(queue, &lane[0], 5).await.len(), 2);
    Ok(())
}

async fn a_bell_that_died_with_its_ringer_is_heard(
    queue: &dyn Queue,
    redis: &mut MultiplexedConnection,
) -> anyhow::Result<()> {
    let rung = one();
    assert_eq!(queue.push(&rung).await?, 1);
    // As it was before the second look.
    let id: String = redis.lpop(format!("{KEYS}:active"), None).await?;
    let () = redis.zadd(format!("{KEYS}:scheduled"), id, u32::MAX).await?;
    assert_eq!(pop(queue, &lane("order"), 5).await, [rung[0].task]);
    Ok(())
}

/// More at once than the scripts of apalis-redis stand: 8,000 due ids would stop its fetches for ever.
async fn many_pushers_stay_within_the_window(queue: &dyn Queue, url: &str) -> anyhow::Result<()> {
    let lane = lane("window");
    let mut pushers = Vec::new();
    for _ in 0..6 {
        pushers.push(ApalisQueue::open(url, &lanes(), WINDOW).await?);
    }
    let rung: Vec<_> = (0..6).map(|_| bells(&lane, ProjectId::DEFAULT, WINDOW)).collect();
    let pushes = try_join_all(pushers.iter().zip(&rung).map(|(pusher, rung)| pusher.push(rung)));
    // A fetch at any moment takes no more into the lane than there is room for.
    let fetches = async {
        loop {
            pop(queue, &lane, 1).await;
            let depth = queue.depth(&lane).await.expect("the queue answers");
            assert!(depth <= WINDOW, "{depth} ids in a window of {WINDOW}");
        }
    };
    tokio::select! {
        taken = pushes => drop(taken?),
        () = fetches => {}
    }
    let mut left = 0;
    while let count @ 1.. = pop(queue, &lane, 500).await.len() {
        left += count;
    }
    assert!((WINDOW / 2..=WINDOW).contains(&left), "{left} ids in a window of {WINDOW}");
    Ok(())
}

async fn nothing_is_left(queue: &dyn Queue, redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    for Lane { name, .. } in lanes() {
        assert!(pop(queue, &name, 1).await.is_empty(), "every case has emptied its lane");
    }
    let keys: Vec<String> = redis.keys("*").await?;
    let left: Vec<&String> = keys.iter().filter(|key| !key.ends_with(":workers")).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

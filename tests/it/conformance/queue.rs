//! What every [`Queue`] promises. Each case has lanes of its own, so cases may run in any order on one queue.
//!
//! Open the queue with [`lanes`] and [`WINDOW`] and hand it to [`all`] with the [`Order`] that it promises. Ids left by an
//! earlier run are drained first.

use futures_util::FutureExt;
use shared::{
    queue::{Lane, Queue},
    store::Bell,
    task::{ProjectId, QueueName, TaskId},
};
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, timeout};

/// Ids per lane.
pub(crate) const WINDOW: usize = 2_000;

const NOW: Duration = Duration::ZERO;
const LANES: [(&str, u32); 10] = [
    ("heavy", 8),
    ("middle", 4),
    ("light", 1),
    ("order", 1),
    ("fair", 1),
    ("idle", 1),
    ("window", 1),
    ("wake", 1),
    ("once", 1),
    ("large", 1),
];

/// Who is next inside a lane: what a transport promises of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Higher priority first, then projects take turns, then age.
    Fair,
    /// First in, first out; by age among ids that came in together.
    Fifo,
}

/// The lanes that the cases use.
pub(crate) fn lanes() -> Vec<Lane> {
    LANES.iter().map(|&(name, weight)| Lane { name: lane(name), weight }).collect()
}

/// Runs every case that the order is held to.
pub(crate) async fn all(queue: &dyn Queue, order: Order) {
    for Lane { name, .. } in lanes() {
        drain(queue, &name).await;
    }
    match order {
        Order::Fair => {
            higher_priority_first_then_age(queue).await;
            a_flood_does_not_starve_others(queue).await;
            a_project_that_was_idle_saves_up_no_turns(queue).await;
            priorities_do_not_spoil_fairness(queue).await;
        }
        Order::Fifo => earlier_pushes_first_then_age(queue).await,
    }
    an_id_is_there_once(queue, order).await;
    an_orphan_goes_first(queue).await;
    lanes_are_served_by_weight(queue, 1).await;
    lanes_are_served_by_weight(queue, 7).await;
    a_lane_alone_gets_everything(queue).await;
    the_window_is_bounded(queue).await;
    never_more_than_asked_for(queue).await;
    an_empty_pop_waits_as_long_as_told(queue).await;
    a_push_wakes_a_waiting_pop(queue).await;
    a_dropped_pop_blocks_nothing(queue).await;
    unknown_lanes_are_empty(queue).await;
    one_caller_per_id(queue).await;
}

pub(crate) fn lane(name: &str) -> QueueName {
    QueueName::new(name).expect("a well-formed lane name")
}

fn bell(lane: &QueueName, project: ProjectId, priority: i16) -> Bell {
    Bell { task: TaskId::new(), project, queue: lane.clone(), priority, orphan: false }
}

pub(crate) fn bells(lane: &QueueName, project: ProjectId, count: usize) -> Vec<Bell> {
    (0..count).map(|_| bell(lane, project, 0)).collect()
}

fn tasks(bells: &[Bell]) -> Vec<TaskId> {
    bells.iter().map(|bell| bell.task).collect()
}

async fn drain(queue: &dyn Queue, lane: &QueueName) {
    while !pop(queue, lane, 500).await.is_empty() {}
    assert_eq!(queue.depth(lane).await.expect("the queue answers"), 0);
}

pub(crate) async fn pop(queue: &dyn Queue, lane: &QueueName, max: usize) -> Vec<TaskId> {
    queue.pop(std::slice::from_ref(lane), max, NOW).await.expect("the queue answers")
}

async fn higher_priority_first_then_age(queue: &dyn Queue) {
    let lane = lane("order");
    let rung = [-100, 0, 100, 0, 7].map(|priority| bell(&lane, ProjectId::DEFAULT, priority));
    assert_eq!(queue.push(&rung).await.expect("the queue answers"), 5);
    let expected = [2, 4, 1, 3, 0].map(|i| rung[i].task);
    assert_eq!(pop(queue, &lane, 10).await, expected);
}

async fn earlier_pushes_first_then_age(queue: &dyn Queue) {
    let lane = lane("order");
    let rung = [0, 50, -50, 0, 100, 0].map(|priority| bell(&lane, ProjectId::new(), priority));
    for push in [[4, 5, 3], [2, 0, 1]] {
        let push = push.map(|i| rung[i].clone());
        assert_eq!(queue.push(&push).await.expect("the queue answers"), 3);
    }
    assert_eq!(pop(queue, &lane, 4).await, [3, 4, 5, 0].map(|i| rung[i].task));
    assert_eq!(pop(queue, &lane, 4).await, [1, 2].map(|i| rung[i].task));
}

async fn an_orphan_goes_first(queue: &dyn Queue) {
    let lane = lane("order");
    let orphan = Bell { orphan: true, ..bell(&lane, ProjectId::DEFAULT, 0) };
    let waiting = bells(&lane, ProjectId::DEFAULT, 3);
    assert_eq!(queue.push(&waiting).await.expect("the queue answers"), 3);
    let first = pop(queue, &lane, 1).await;
    assert_eq!(queue.push(std::slice::from_ref(&orphan)).await.expect("the queue answers"), 1);
    let late = bell(&lane, ProjectId::DEFAULT, 0);
    assert_eq!(queue.push(std::slice::from_ref(&late)).await.expect("the queue answers"), 1);
    let found = [first, pop(queue, &lane, 10).await].concat();
    let expected = [waiting[0].task, orphan.task, waiting[1].task, waiting[2].task, late.task];
    assert_eq!(found, expected);
}

async fn an_id_is_there_once(queue: &dyn Queue, order: Order) {
    let lane = lane("order");
    let first = bell(&lane, ProjectId::DEFAULT, 0);
    let mut higher = first.clone();
    higher.priority = 50;
    let second = bell(&lane, ProjectId::DEFAULT, 10);
    assert_eq!(queue.push(&[first.clone(), first.clone()]).await.expect("the queue answers"), 1);
    assert_eq!(queue.push(&[higher, second.clone()]).await.expect("the queue answers"), 1);
    assert_eq!(queue.depth(&lane).await.expect("the queue answers"), 2);
    let expected = match order {
        Order::Fair => [second.task, first.task],
        Order::Fifo => [first.task, second.task],
    };
    assert_eq!(pop(queue, &lane, 10).await, expected, "it stays as it is");
    assert_eq!(
        queue.push(std::slice::from_ref(&first)).await.expect("the queue answers"),
        1,
        "it may come again once it was popped"
    );
    drain(queue, &lane).await;
}

async fn a_flood_does_not_starve_others(queue: &dyn Queue) {
    let lane = lane("fair");
    queue.push(&bells(&lane, ProjectId::new(), 1000)).await.expect("the queue answers");
    let few = bells(&lane, ProjectId::new(), 10);
    queue.push(&few).await.expect("the queue answers");
    let first: HashSet<_> = pop(queue, &lane, 25).await.into_iter().collect();
    assert!(tasks(&few).iter().all(|task| first.contains(task)), "ten ids come within the first 25");
    // One by one, half of the flood later, a newcomer waits no longer than before.
    for _ in 0..500 {
        assert_eq!(pop(queue, &lane, 1).await.len(), 1);
    }
    let late = bells(&lane, ProjectId::new(), 3);
    queue.push(&late).await.expect("the queue answers");
    let next: HashSet<_> = pop(queue, &lane, 10).await.into_iter().collect();
    assert!(tasks(&late).iter().all(|task| next.contains(task)));
    drain(queue, &lane).await;
}

async fn a_project_that_was_idle_saves_up_no_turns(queue: &dyn Queue) {
    let lane = lane("idle");
    let (busy, idle) = (ProjectId::new(), ProjectId::new());
    queue.push(&bells(&lane, idle, 1)).await.expect("the queue answers");
    queue.push(&bells(&lane, busy, 400)).await.expect("the queue answers");
    assert_eq!(pop(queue, &lane, 200).await.len(), 200);
    let back = tasks(&bells_pushed(queue, &lane, idle, 100).await);
    let next = pop(queue, &lane, 100).await;
    let turns = next.iter().filter(|task| back.contains(task)).count();
    assert!((45..=55).contains(&turns), "it has {turns} of 100 turns");
    drain(queue, &lane).await;
}

async fn bells_pushed(queue: &dyn Queue, lane: &QueueName, project: ProjectId, count: usize) -> Vec<Bell> {
    let bells = bells(lane, project, count);
    assert_eq!(queue.push(&bells).await.expect("the queue answers"), count);
    bells
}

async fn priorities_do_not_spoil_fairness(queue: &dyn Queue) {
    let lane = lane("fair");
    let (flood, other) = (ProjectId::new(), ProjectId::new());
    bells_pushed(queue, &lane, flood, 300).await;
    let urgent = bell(&lane, flood, 10);
    queue.push(std::slice::from_ref(&urgent)).await.expect("the queue answers");
    assert_eq!(pop(queue, &lane, 1).await, [urgent.task]);
    let few = tasks(&bells_pushed(queue, &lane, other, 5).await);
    let first = pop(queue, &lane, 15).await;
    assert!(few.iter().all(|task| first.contains(task)), "another level's turns do not count here");
    drain(queue, &lane).await;
}

async fn lanes_are_served_by_weight(queue: &dyn Queue, max: usize) {
    let three: Vec<_> = ["heavy", "middle", "light"].map(lane).into();
    let mut owner = std::collections::HashMap::new();
    for (place, lane) in three.iter().enumerate() {
        for bell in bells_pushed(queue, lane, ProjectId::DEFAULT, 1000).await {
            owner.insert(bell.task, place);
        }
    }
    let mut served = [0.0; 3];
    let mut count = 0;
    while count < 910 {
        let ids = queue.pop(&three, max, NOW).await.expect("the queue answers");
        assert_eq!(ids.len(), max);
        ids.iter().for_each(|id| served[owner[id]] += 1.0);
        count += max;
    }
    for (place, weight) in [8.0, 4.0, 1.0].into_iter().enumerate() {
        let share = f64::from(u32::try_from(count).expect("a small count")) * weight / 13.0;
        let off = (served[place] - share).abs() / share;
        assert!(off <= 0.1, "lane {place} was served {} times instead of {share}", served[place]);
    }
    for lane in &three {
        drain(queue, lane).await;
    }
}

async fn a_lane_alone_gets_everything(queue: &dyn Queue) {
    let three: Vec<_> = ["heavy", "middle", "light"].map(lane).into();
    let rung = bells_pushed(queue, &three[2], ProjectId::DEFAULT, 30).await;
    assert_eq!(queue.pop(&three, 20, NOW).await.expect("the queue answers"), tasks(&rung[..20]));
    assert_eq!(queue.pop(&three, 20, NOW).await.expect("the queue answers"), tasks(&rung[20..]));
}

async fn the_window_is_bounded(queue: &dyn Queue) {
    let lane = lane("window");
    let rung = bells(&lane, ProjectId::DEFAULT, WINDOW + 10);
    assert_eq!(queue.push(&rung).await.expect("the queue answers"), WINDOW);
    assert_eq!(queue.depth(&lane).await.expect("the queue answers"), WINDOW);
    assert_eq!(queue.push(&rung).await.expect("the queue answers"), 0);
    assert_eq!(pop(queue, &lane, 4).await.len(), 4);
    assert_eq!(queue.push(&rung[WINDOW..]).await.expect("the queue answers"), 4);
    // Orphans go in all the same, one that waits already before the others.
    let new = Bell { orphan: true, ..bell(&lane, ProjectId::DEFAULT, 0) };
    let waits = Bell { orphan: true, ..rung[WINDOW - 1].clone() };
    queue.push(&[new.clone(), waits.clone()]).await.expect("the queue answers");
    assert_eq!(queue.depth(&lane).await.expect("the queue answers"), WINDOW + 1);
    assert!(pop(queue, &lane, 3).await.contains(&new.task));
    drain(queue, &lane).await;
}

async fn never_more_than_asked_for(queue: &dyn Queue) {
    let lane = lane("order");
    bells_pushed(queue, &lane, ProjectId::DEFAULT, 10).await;
    assert!(pop(queue, &lane, 0).await.is_empty());
    assert_eq!(pop(queue, &lane, 3).await.len(), 3);
    assert_eq!(pop(queue, &lane, 100).await.len(), 7);
}

async fn an_empty_pop_waits_as_long_as_told(queue: &dyn Queue) {
    let start = Instant::now();
    assert!(pop(queue, &lane("wake"), 5).await.is_empty());
    assert!(start.elapsed() < Duration::from_millis(200));
    let start = Instant::now();
    assert!(
        queue
            .pop(&[lane("wake")], 5, Duration::from_millis(200))
            .await
            .expect("the queue answers")
            .is_empty()
    );
    assert!((190..1200).contains(&start.elapsed().as_millis()));
}

async fn a_push_wakes_a_waiting_pop(queue: &dyn Queue) {
    let (first, second) = (lane("wake"), lane("order"));
    for (target, count) in [(&first, 1), (&second, 7)] {
        let both = [first.clone(), second.clone()];
        let waiting = queue.pop(&both, 5, Duration::from_secs(5));
        let rung = bells(target, ProjectId::DEFAULT, count);
        let ring = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            queue.push(&rung).await.expect("the queue answers");
            Instant::now()
        };
        let (woken, rang) =
            tokio::join!(async { (waiting.await.expect("the queue answers"), Instant::now()) }, ring);
        assert_eq!(woken.0, tasks(&rung[..count.min(5)]));
        assert!(woken.1.saturating_duration_since(rang) < Duration::from_millis(500));
        drain(queue, target).await;
    }
}

/// Dropped at any of its awaits: what it took may be lost, but may come again.
async fn a_dropped_pop_blocks_nothing(queue: &dyn Queue) {
    let lane = lane("order");
    let rung = bells(&lane, ProjectId::DEFAULT, 20);
    for polls in 0..6 {
        assert_eq!(queue.push(&rung).await.expect("the queue answers"), 20, "dropped after {polls} polls");
        let mut popping = Box::pin(pop(queue, &lane, 20));
        for _ in 0..polls {
            if popping.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(popping);
        drain(queue, &lane).await;
    }
}

async fn unknown_lanes_are_empty(queue: &dyn Queue) {
    let unknown = lane("nobody-knows-it");
    assert_eq!(queue.push(&bells(&unknown, ProjectId::DEFAULT, 3)).await.expect("the queue answers"), 0);
    assert_eq!(queue.depth(&unknown).await.expect("the queue answers"), 0);
    assert!(pop(queue, &unknown, 3).await.is_empty());
}

async fn one_caller_per_id(queue: &dyn Queue) {
    const IDS: usize = 10_000;
    const PART: usize = 300;
    let lanes = [lane("once"), lane("large")];
    // One lane to a push: what is taken of it are its first.
    let rung: Vec<Bell> = (0..IDS)
        .map(|i| bell(&lanes[i / PART % 2], ProjectId::DEFAULT, i16::try_from(i % 3).expect("at most 2")))
        .collect();
    let popper = async || {
        let mut mine = Vec::new();
        loop {
            let ids = queue.pop(&lanes, 64, Duration::from_millis(500)).await.expect("the queue answers");
            if ids.is_empty() {
                return mine;
            }
            mine.extend(ids);
        }
    };
    let pusher = async {
        for part in rung.chunks(PART) {
            let mut taken = 0;
            while taken < part.len() {
                taken += queue.push(&part[taken..]).await.expect("the queue answers");
                tokio::task::yield_now().await;
            }
        }
    };
    let race = async { tokio::join!(pusher, popper(), popper(), popper(), popper()) };
    let ((), a, b, c, d) = timeout(Duration::from_secs(60), race).await.expect("the race ends");
    let all: Vec<TaskId> = [a, b, c, d].concat();
    assert_eq!(all.len(), IDS, "an id was given twice or lost");
    assert_eq!(all.into_iter().collect::<HashSet<_>>(), tasks(&rung).into_iter().collect());
}

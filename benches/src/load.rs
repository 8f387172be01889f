//! The load: calls in a row, and many clients at once.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::LocalSet;

use crate::{Failure, client::Target};

/// Calls of one target before the client turns to the other.
const TURN: usize = 100;
/// Calls of each client before anything is measured.
const WARM_UP: usize = 20;

/// How much load, and for how long at most.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) clients: usize,
    pub(crate) calls: usize,
    pub(crate) time: Duration,
}

/// How long each call took, in order of time taken.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of the calls kept to.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.0.get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// What many clients got done.
pub(crate) struct Rush {
    pub(crate) latencies: Latencies,
    pub(crate) took: Duration,
}

impl Rush {
    pub(crate) fn count(&self) -> usize {
        self.latencies.count()
    }

    #[allow(clippy::cast_precision_loss, reason = "a count of thousands")]
    pub(crate) fn per_second(&self) -> f64 {
        self.count() as f64 / self.took.as_secs_f64()
    }
}

/// Makes every client's connection, and those behind them, and lets caches fill. Returns how many calls that took.
pub(crate) async fn warm_up(target: &Target, clients: usize) -> Result<usize, Failure> {
    let limits = Limits { clients, calls: clients * WARM_UP, time: Duration::from_secs(30) };
    Ok(rush(target, limits).await?.count())
}

/// `calls` in a row to each of two targets, in turns, so that whatever else the machine does falls upon both.
pub(crate) async fn latencies(one: &Target, other: &Target, calls: usize) -> Result<(Latencies, Latencies), Failure> {
    let mut connections = [one.connect().await?, other.connect().await?];
    let mut took = [Vec::with_capacity(calls), Vec::with_capacity(calls)];
    while took[0].len() < calls {
        let turn = TURN.min(calls - took[0].len());
        for (connection, took) in connections.iter_mut().zip(&mut took) {
            for _ in 0..turn {
                let started = Instant::now();
                connection.call().await?;
                took.push(started.elapsed());
            }
        }
    }
    let [one, other] = took.map(Latencies::new);
    Ok((one, other))
}

/// Clients that call as fast as they are answered, until the calls are made or the time is up.
pub(crate) async fn rush(target: &Target, limits: Limits) -> Result<Rush, Failure> {
    let mut connections = vec![];
    for _ in 0..limits.clients {
        connections.push(target.connect().await?);
    }
    let tasks = LocalSet::new();
    let left = Rc::new(Cell::new(limits.calls));
    let started = Instant::now();
    let clients: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let left = left.clone();
            tasks.spawn_local(async move {
                let mut took = Vec::with_capacity(limits.calls / limits.clients * 2);
                while left.get() > 0 && started.elapsed() < limits.time {
                    left.set(left.get() - 1);
                    let started = Instant::now();
                    connection.call().await?;
                    took.push(started.elapsed());
                }
                Ok::<_, Failure>(took)
            })
        })
        .collect();
    tasks.await;
    let took = started.elapsed();
    let mut all = vec![];
    for client in clients {
        all.extend(client.await??);
    }
    Ok(Rush { latencies: Latencies::new(all), took })
}

//! Work on every processor.

use anyhow::{Result, anyhow};

/// Has each processor do its share of the seeds `first` to `first + count - 1`, and gives what came of all.
pub(crate) fn shares<T: Send>(
    first: u64,
    count: usize,
    run: impl Fn(u64, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism()?.get().min(count.max(1));
    let share = count.div_ceil(threads);
    let run = &run;
    std::thread::scope(|scope| {
        let start = |thread: usize| (thread * share).min(count);
        let workers: Vec<_> = (0..threads)
            .map(|thread| (start(thread), start(thread + 1)))
            .map(|(from, to)| scope.spawn(move || run(first.wrapping_add(from as u64), to - from)))
            .collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended
            .map(|ended| ended.map_err(|_| anyhow!("a thread panicked"))?)
            .collect()
    })
}

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool, UnboundedMemoryPool};
use sysinfo::{ProcessesToUpdate, System};

/// How many of the largest consumers an error names when memory runs out.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);

/// Four fifths of the memory that this process may use, which is what DuckDB takes: operators beyond it spill, or fail
/// with `ResourcesExhausted`. All lakes of a process share it; `SET datafusion.runtime.memory_limit` gives one of them a pool
/// of its own.
pub(super) static MEMORY_POOL: LazyLock<Arc<dyn MemoryPool>> =
    LazyLock::new(|| match usize::try_from(process_memory() / 5 * 4) {
        Ok(0) | Err(_) => Arc::new(UnboundedMemoryPool::default()),
        Ok(limit) => Arc::new(TrackConsumersPool::new(FairSpillPool::new(limit), NAMED_CONSUMERS)),
    });

/// In bytes; 0 where the system does not tell.
fn process_memory() -> u64 {
    let (Ok(mut system), Ok(pid)) = (System::new(), sysinfo::get_current_pid()) else { return 0 };
    system.refresh_memory();
    system.refresh_processes(ProcessesToUpdate::Some(&[pid]), false);
    let machine = system.total_memory();
    let own = system.process(pid).and_then(|process| process.cgroup_limits());
    let limits = [own, system.cgroup_limits()].into_iter().flatten().map(|limits| limits.total_memory);
    limits.filter(|limit| *limit > 0).fold(machine, u64::min)
}

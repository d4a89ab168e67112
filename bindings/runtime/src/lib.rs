//! The threads of the bindings that bring their own: the shell, the wheel and the C library. Who depends on the package `tarndb` has
//! a runtime already.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// How long a thread waits for another file to read or write. What others free of that which it allocated, allocators give back
/// when it ends, or allocates again: the dozens of idle threads that tokio keeps for ten seconds held a third of the memory of a busy
/// metadata index of ten million objects. To start one takes some ten microseconds.
const IDLE_FOR: Duration = Duration::from_millis(100);

/// A runtime of one thread more than operators use at once: while they compute, it keeps the time, by which signals are seen.
///
/// # Errors
/// The system's, when it has no threads to give.
pub fn runtime() -> std::io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get() + 1);
    Builder::new_multi_thread().worker_threads(threads).thread_keep_alive(IDLE_FOR).thread_name("tarndb").enable_all().build()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Barrier};

    use super::*;

    /// Tells when its thread ends.
    struct Ended(Sender<()>);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }

    thread_local! {
        static ENDED: Cell<Option<Ended>> = const { Cell::new(None) };
    }

    #[test]
    fn threads_without_work_end_soon() {
        const THREADS: usize = 20;
        let runtime = runtime().unwrap();
        let ((sender, ended), all) = (channel(), Arc::new(Barrier::new(THREADS)));
        for _ in 0..THREADS {
            let (sender, all) = (sender.clone(), Arc::clone(&all));
            runtime.spawn_blocking(move || {
                ENDED.set(Some(Ended(sender)));
                all.wait();
            });
        }
        for _ in 0..THREADS {
            // Tokio's own threads would wait for twice as long.
            ended.recv_timeout(Duration::from_secs(5)).unwrap();
        }
    }
}

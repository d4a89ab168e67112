//! The allocator of what ships as a whole: the shell and the wheel. Who depends on the package `tarndb` has one of their own.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Options of mimalloc that its crate has no names for, by their places in `mi_option_e` of `mimalloc.h`.
const ARENA_EAGER_COMMIT: mi_option_t = 4;
const PURGE_DELAY: mi_option_t = 15;

/// How long memory that is free is kept, in milliseconds: what comes in batches, a few in a second, finds that of the batch before. With
/// a tenth of it, a busy metadata index takes in four fifths as much.
const KEPT_FOR: c_long = 100;

/// Gives memory that is free back to the system soon, for tarndb is a guest in somebody's process: mimalloc 3 would keep it for a
/// second, and of arenas that it took at once much longer, which doubles what a busy metadata index needs. To be called first of all.
///
/// What the environment says (`MIMALLOC_PURGE_DELAY`, `MIMALLOC_ARENA_EAGER_COMMIT`) goes before it.
pub fn set_up() {
    let unless_told = |variable: &str, option, value| {
        if std::env::var_os(variable).is_none() {
            // SAFETY: it stores a number in a table of mimalloc, which checks the place, before there are other threads that read it.
            #[allow(unsafe_code)]
            unsafe {
                mi_option_set(option, value);
            }
        }
    };
    unless_told("MIMALLOC_PURGE_DELAY", PURGE_DELAY, KEPT_FOR);
    unless_told("MIMALLOC_ARENA_EAGER_COMMIT", ARENA_EAGER_COMMIT, 0);
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::{mi_option_get, mi_option_use_numa_nodes};

    use super::*;

    #[test]
    fn options_are_those_that_are_meant() {
        // Their neighbours have names.
        assert_eq!(mi_option_use_numa_nodes, PURGE_DELAY + 1);
        assert_eq!(libmimalloc_sys::mi_option_large_os_pages, ARENA_EAGER_COMMIT + 2);
        // SAFETY: it reads a number of a table.
        #[allow(unsafe_code)]
        let options = || [PURGE_DELAY, ARENA_EAGER_COMMIT].map(|option| unsafe { mi_option_get(option) });
        // What mimalloc 3 has unless it is told.
        assert_eq!(options(), [1000, 2]);
        set_up();
        assert_eq!(options(), [KEPT_FOR, 0]);
    }
}

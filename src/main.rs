//! The process: its allocator, arguments, exit codes.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", not(target_env = "musl")))]
    give_memory_back();
    mooring::cli::main()
}

/// Starts a thread of jemalloc that gives freed memory back to the system also while nobody uses
/// the gateway. Without it jemalloc looks only when something is allocated.
///
/// One large allocation comes first. The arena for those gives memory back at once only if it was
/// made while there was no such thread (jemalloc 5.3, `arena_choose_huge`). Otherwise a prompt of
/// 20 MB takes 3.7 times its size at its peak, and not 2.1 times.
///
/// jemalloc has no such thread with musl.
#[cfg(all(target_os = "linux", not(target_env = "musl")))]
fn give_memory_back() {
    use tikv_jemalloc_ctl::background_thread;
    /// More than `opt.oversize_threshold` (8 MiB).
    const LARGE: usize = 16 << 20;
    let mut large = Vec::<u8>::new();
    // The system may refuse it (`ulimit -v`). Nothing depends on it.
    let _ = std::hint::black_box(&mut large).try_reserve_exact(LARGE);
    drop(large);
    // Where no thread can be started, memory has to go back with later allocations, as it does
    // while the thread is turned off.
    let _ = background_thread::write(true).or_else(|_| background_thread::write(false));
}

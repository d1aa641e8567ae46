//! The balancer and its commands.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request takes and gives back buffers of 8 kB, of which the C library keeps no list for each thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match sticky::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sticky: {failure}");
            failure.code()
        }
    }
}

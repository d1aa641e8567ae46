//! The balancer and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    match sticky::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sticky: {failure}");
            failure.code()
        }
    }
}

//! The process: arguments, exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    mooring::cli::main()
}

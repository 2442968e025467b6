//! The program: calls the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    hitlog::cli::run()
}

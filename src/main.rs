//! The executable: argv → program → exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    noports::program::main(std::env::args_os())
}

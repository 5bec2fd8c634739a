//! The executable: argv → program → exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    noports::main(std::env::args_os())
}

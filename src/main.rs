//! The executable: argv → program → exit code.

fn main() {}

//! One file per program.

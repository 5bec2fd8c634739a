//! One file per program.

pub mod bridge;

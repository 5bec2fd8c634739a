//! Bytes in motion, a leaf: knows no protocol.
//!
//! [`join`] makes two streams one. Each direction is a pump: `copy` through a buffer, with a
//! [`cipher`] if wanted, or `relay` inside the kernel; `drive` runs two of them until both have ended.

pub mod cipher;
pub mod join;

mod copy;
mod drive;
mod half;
mod pool;
mod relay;

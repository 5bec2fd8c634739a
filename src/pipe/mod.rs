//! Bytes in motion, a leaf: knows no protocol.
//!
//! [`join`] makes two streams one. Each direction is a pump: `copy` through a buffer, with a
//! [`cipher`] or as [`record`]s if wanted, or `relay` inside the kernel; `drive` runs two of them until both have ended.
//! [`streams`] carries many such pairs on one connection, in [`frame`]s, each as far as it has [`credit`].

pub mod cipher;
pub mod credit;
pub mod frame;
pub mod join;
pub mod keys;
pub mod record;
pub mod streams;

mod copy;
mod drive;
mod half;
mod pool;
mod relay;
mod strip;

//! Bytes in motion, a leaf: knows no protocol.

pub mod cipher;
pub mod join;

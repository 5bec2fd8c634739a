//! Two stores for tests: one in memory, and one that stands for a store behind a network.

pub mod far;
mod memory;

pub use memory::MemoryStore;

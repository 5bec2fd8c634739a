//! ○ Text formats that no protocol owns. A leaf: anybody may use it.

pub mod calendar;
pub mod columns;
pub mod duration;
pub mod endpoint;
pub mod host;
pub mod json;
pub mod number;
pub mod port;
pub mod size;
pub mod terminal;
pub mod user;
pub mod yaml;

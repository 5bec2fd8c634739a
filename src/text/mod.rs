//! ○ Text formats that no protocol owns. A leaf: anybody may use it.

pub mod yaml;

//! Commands, both directions in one type, so that client and embedded server cannot drift apart.
//!
//! ```text
//!   update:ttl:60000:isEncrypted:true:@bob:x.ns@alice Zm8=
//!   '────' '────────────────────────' '─────────────' '──'
//!    word      parameters, in order         key       value          parse: text ─▶ Verb
//!                                                                    print: Verb ─▶ text
//! ```
//!
//! Source: at_libraries:packages/at_commons/lib/src/verb/syntax.dart

mod command;
mod manage;
mod notify;
mod params;
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use command::{
    AccessList, Config, Detail, Dialect, EnrollOperation, HashingAlgo, KeysCommand, Notify,
    Operation, SigningAlgo, Subject, SyntaxError, Verb,
};

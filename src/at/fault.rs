//! Errors as they stand on the wire: `error:AT0015-key not found : …`.

use std::fmt;

/// An error code with the text of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    ServerException,
    DataStore,
    InvalidSyntax,
    Socket,
    BufferLimit,
    OutboundLimit,
    NoAtServer,
    Handshake,
    Unauthorized,
    Internal,
    InternalException,
    InboundLimit,
    Blocked,
    UnknownClient,
    KeyNotFound,
    InvalidKey,
    UnableToConnect,
    IllegalArguments,
    Timeout,
    Paused,
    EnrollmentDenied,
    EnrollmentPending,
    EnrollmentRevoked,
    EnrollmentExpired,
    SelfRevoke,
    Unauthenticated,
}

impl Code {
    /// `AT0015`
    pub fn number(self) -> &'static str {
        todo!()
    }
    /// The description in the table: `key not found`.
    pub fn description(self) -> &'static str {
        todo!()
    }
    /// From `AT0015`.
    pub fn from_number(_number: &str) -> Option<Self> {
        todo!()
    }
}

/// One error, as received or to be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", code.map(|c| format!("{}: ", c.number())).unwrap_or_default())]
pub struct Fault {
    /// Unknown or missing codes are `None`.
    pub code: Option<Code>,
    /// What stands behind the code.
    pub text: String,
}

/// The three ways a server writes an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// To the authenticated owner: `error:AT0015-key not found : <text>`.
    Owner,
    /// To anybody else: `error:AT0401-Exception: <text>`.
    Stranger,
    /// To a client that announced a version above 3.0.37: JSON. Holds whether the owner is asking.
    Json {
        #[allow(missing_docs)]
        owner: bool,
    },
    /// Enrolment states: `error:AT0026:<text>`.
    State,
}

impl Fault {
    /// A fault to send.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            text: text.into(),
        }
    }

    /// Reads what stands behind `error:`, in any of its shapes.
    pub fn parse(_body: &str) -> Self {
        todo!()
    }

    /// Whether this is the normal "no such key".
    pub fn is_key_not_found(&self) -> bool {
        self.code == Some(Code::KeyNotFound)
    }

    /// Prints the whole line without its line end; never holds a line end itself.
    pub fn print(&self, _shape: Shape) -> impl fmt::Display + use<> {
        let _: () = todo!();
        #[allow(unreachable_code)]
        String::new()
    }
}

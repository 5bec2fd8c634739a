//! Errors as they stand on the wire: `error:AT0015-key not found : …`.
//!
//! ```text
//!   error:AT0015-key not found : <text>                     to the owner of the atServer
//!   error:AT0401-Exception: <text>                          to anybody else
//!   error:AT0026:<text>                                     states of an enrolment
//!   error:{"errorCode":"AT0015","errorDescription":"…"}     to newer Dart clients
//!   error:null:<text>                                       statistics with a bad id
//! ```
//!
//! Source: at_server:packages/at_secondary_server/lib/src/exception/global_exception_handler.dart,
//! at_libraries:packages/at_commons/lib/src/exception/error_message.dart

use std::fmt;

use miniserde::{Deserialize, Serialize, json};

/// Longest text of a fault that is kept or sent, in bytes. A command may be repeated in it, and
/// commands may be megabytes long.
pub const MAX_TEXT: usize = 2048;

/// Makes [`Code`] and its table in one order.
macro_rules! codes {
    ($($code:ident $number:literal $description:literal,)*) => {
        /// An error code with the text of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Code {
            $($code),*
        }

        /// Every code, its number and its description.
        const TABLE: &[(Code, &str, &str)] = &[$((Code::$code, $number, $description)),*];
    };
}

codes! {
    ServerException "AT0001" "Server exception",
    DataStore "AT0002" "DataStore exception",
    InvalidSyntax "AT0003" "Invalid syntax",
    Socket "AT0004" "Socket error",
    BufferLimit "AT0005" "Buffer limit exceeded",
    OutboundLimit "AT0006" "Outbound connection limit exceeded",
    NoAtServer "AT0007" "Secondary server not found",
    Handshake "AT0008" "Handshake failure",
    Unauthorized "AT0009" "UnAuthorized client in request",
    Internal "AT0010" "Internal server error",
    InternalException "AT0011" "Internal server exception",
    InboundLimit "AT0012" "Inbound connection limit exceeded",
    Blocked "AT0013" "Connection Exception",
    UnknownClient "AT0014" "Unknown AtClient exception",
    KeyNotFound "AT0015" "key not found",
    InvalidKey "AT0016" "Invalid key",
    UnableToConnect "AT0021" "Unable to connect to secondary",
    IllegalArguments "AT0022" "Illegal arguments",
    Timeout "AT0023" "Timeout waiting for response",
    Paused "AT0024" "Server is paused",
    EnrollmentDenied "AT0025" "enrollment is denied",
    EnrollmentPending "AT0026" "enrollment is pending",
    EnrollmentRevoked "AT0027" "enrollment is revoked",
    EnrollmentExpired "AT0028" "enrollment is expired or invalid",
    SelfRevoke "AT0031" "Cannot revoke self enrollment",
    Unauthenticated "AT0401" "Client authentication failed",
}

impl Code {
    /// `AT0015`
    pub fn number(self) -> &'static str {
        self.row().1
    }

    /// The description in the table: `key not found`.
    pub fn description(self) -> &'static str {
        self.row().2
    }

    /// From `AT0015`.
    pub fn from_number(number: &str) -> Option<Self> {
        let row = TABLE.iter().find(|(_, known, _)| *known == number);
        row.map(|(code, _, _)| *code)
    }

    fn row(self) -> &'static (Self, &'static str, &'static str) {
        // The macro puts both in one order.
        &TABLE[self as usize]
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

/// The ways a server writes an error.
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

#[derive(Serialize, Deserialize)]
struct JsonFault {
    #[serde(rename = "errorCode")]
    code: Option<String>,
    #[serde(rename = "errorDescription")]
    text: Option<String>,
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
    ///
    /// Control characters become blanks and long texts are cut: the text is going to be shown on
    /// somebody's terminal, and the server need not be a friend.
    pub fn parse(body: &str) -> Self {
        if body.starts_with('{')
            && let Ok(JsonFault { code, text }) = json::from_str(body)
        {
            return Self {
                code: code.as_deref().and_then(Code::from_number),
                text: clean(&text.unwrap_or_default()),
            };
        }
        let body = clean(body);
        if let Some(text) = body.strip_prefix("null:").or(body.strip_prefix("null-")) {
            return Self {
                code: None,
                text: text.to_owned(),
            };
        }
        let known = body.get(..6).and_then(Code::from_number);
        let text = body.get(6..).and_then(|t| t.strip_prefix(['-', ':']));
        match (known, text) {
            (Some(code), Some(text)) => Self::new(code, text),
            // A number of later years says something to those who can look it up: keep it.
            _ => Self {
                code: None,
                text: body,
            },
        }
    }

    /// Keys of an enrolment that is over: only somebody else can change that.
    pub fn ends_enrolment(&self) -> bool {
        matches!(
            self.code,
            Some(Code::EnrollmentDenied | Code::EnrollmentRevoked | Code::EnrollmentExpired)
        )
    }

    /// Behind these the server closes the connection, or should have.
    pub fn closes_connection(&self) -> bool {
        matches!(
            self.code,
            Some(
                Code::DataStore
                    | Code::BufferLimit
                    | Code::InternalException
                    | Code::InboundLimit
                    | Code::Blocked
                    | Code::Paused
                    | Code::Unauthenticated
            )
        )
    }

    /// Whether this is the normal "no such key".
    pub fn is_key_not_found(&self) -> bool {
        self.code == Some(Code::KeyNotFound)
    }

    /// Prints the whole line without its line end; never holds a line end itself.
    ///
    /// A fault without a code goes out as `AT0011`, the code for everything that has none.
    pub fn print(&self, shape: Shape) -> impl fmt::Display + use<> {
        let code = self.code.unwrap_or(Code::InternalException);
        let number = code.number();
        let text = clean(&self.text);
        let plain = |owner| {
            if owner {
                format!("{} : {text}", code.description())
            } else {
                format!("Exception: {text}")
            }
        };
        match shape {
            Shape::Owner => format!("error:{number}-{}", plain(true)),
            Shape::Stranger => format!("error:{number}-{}", plain(false)),
            Shape::State => format!("error:{number}:{text}"),
            Shape::Json { owner } => {
                let fault = JsonFault {
                    code: Some(number.to_owned()),
                    text: Some(plain(owner)),
                };
                format!("error:{}", json::to_string(&fault))
            }
        }
    }
}

/// At most [`MAX_TEXT`] bytes, without characters that would end the line or steer a terminal.
fn clean(text: &str) -> String {
    text.char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= MAX_TEXT)
        .map(|(_, c)| c)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_codes() {
        for (at, (code, number, _)) in TABLE.iter().enumerate() {
            assert_eq!(*code as usize, at, "{number}");
            assert_eq!(Code::from_number(number), Some(*code));
            assert_eq!(code.number(), *number);
        }
    }

    #[test]
    fn every_shape_on_the_wire_is_read() {
        let not_found = Some(Code::KeyNotFound);
        for (body, code, text) in [
            ("AT0015-key not found : x", not_found, "key not found : x"),
            (
                "AT0401-Exception: no",
                Some(Code::Unauthenticated),
                "Exception: no",
            ),
            (
                "AT0026:enrollment_id: 7 is pending",
                Some(Code::EnrollmentPending),
                "enrollment_id: 7 is pending",
            ),
            (
                r#"{"errorCode":"AT0015","errorDescription":"key not found : x"}"#,
                not_found,
                "key not found : x",
            ),
            ("null:Instance of X", None, "Instance of X"),
            ("AT0099-from the future", None, "AT0099-from the future"),
            ("{broken", None, "{broken"),
            ("AT0015", None, "AT0015"),
            ("", None, ""),
            (
                "AT0003-two\nlines\u{1b}[31m",
                Some(Code::InvalidSyntax),
                "two lines [31m",
            ),
            (
                r#"{"errorCode":"AT0015","errorDescription":"a\u001bb"}"#,
                not_found,
                "a b",
            ),
        ] {
            let want = Fault {
                code,
                text: text.into(),
            };
            assert_eq!(Fault::parse(body), want, "{body:?}");
        }
    }

    #[test]
    fn the_server_prints_the_shape_for_who_is_asking() {
        let fault = Fault::new(Code::KeyNotFound, "x@alice does not exist in keystore");
        let pending = Fault::new(Code::EnrollmentPending, "enrollment_id: 7 is pending");
        let two_lines = Fault::new(Code::InvalidSyntax, "Invalid syntax. a\r\n@alice@data:b");
        let no_code = Fault {
            code: None,
            text: "odd".into(),
        };
        for (fault, shape, line) in [
            (
                &fault,
                Shape::Owner,
                "error:AT0015-key not found : x@alice does not exist in keystore",
            ),
            (
                &fault,
                Shape::Stranger,
                "error:AT0015-Exception: x@alice does not exist in keystore",
            ),
            (
                &fault,
                Shape::Json { owner: true },
                r#"error:{"errorCode":"AT0015","errorDescription":"key not found : x@alice does not exist in keystore"}"#,
            ),
            (
                &fault,
                Shape::Json { owner: false },
                r#"error:{"errorCode":"AT0015","errorDescription":"Exception: x@alice does not exist in keystore"}"#,
            ),
            (
                &pending,
                Shape::State,
                "error:AT0026:enrollment_id: 7 is pending",
            ),
            (
                &two_lines,
                Shape::Stranger,
                "error:AT0003-Exception: Invalid syntax. a  @alice@data:b",
            ),
            (
                &no_code,
                Shape::Owner,
                "error:AT0011-Internal server exception : odd",
            ),
        ] {
            assert_eq!(
                fault.print(shape).to_string(),
                line,
                "{:?} {shape:?}",
                fault.code
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_line(text in ".{0,40}", long in 0..3000usize) {
            let fault = Fault::new(Code::Blocked, format!("{text}\n{}", "é".repeat(long)));
            for shape in [Shape::Owner, Shape::Stranger, Shape::State, Shape::Json { owner: true }] {
                let line = fault.print(shape).to_string();
                prop_assert!(!line.contains(char::is_control), "{:?}", line);
                prop_assert!(line.len() < MAX_TEXT + 6 * 50 + 100);
                let read = Fault::parse(line.strip_prefix("error:").unwrap());
                prop_assert_eq!(read.code, Some(Code::Blocked));
            }
        }
    }
}

//! Numbers and addresses, as people type them; what is none is named in our words.

use std::net::{IpAddr, SocketAddr};

/// A whole number.
///
/// # Errors
/// What it is not.
///
/// ```
/// # use noports::text::number::whole;
/// assert_eq!(whole("12"), Ok(12));
/// assert_eq!(whole("many").unwrap_err(), "\"many\" is no whole number, such as 10");
/// assert_eq!(whole("-1").unwrap_err(), "\"-1\" is no whole number, such as 10");
/// assert!(whole("99999999999999999999").unwrap_err().ends_with("is too large a number"));
/// ```
pub fn whole(text: &str) -> Result<usize, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(format!("{text:?} is no whole number, such as 10"));
    }
    let number = text.parse();
    number.map_err(|_| format!("{text:?} is too large a number"))
}

/// How many of something there may be: none at all would be no service.
///
/// # Errors
/// What it is not.
///
/// ```
/// # use noports::text::number::count;
/// assert_eq!(count("12"), Ok(12));
/// assert_eq!(count("0").unwrap_err(), "\"0\" is too few: 1 or more");
/// assert_eq!(count("1.5").unwrap_err(), "\"1.5\" is no whole number, such as 10");
/// ```
pub fn count(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err(format!("{text:?} is too few: 1 or more")),
        number => Ok(number),
    }
}

/// An IP address.
///
/// # Errors
/// What it is not.
pub fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse();
    address.map_err(|_| format!("{text:?} is no IP address, such as 127.0.0.1 or ::1"))
}

/// An IP address and a port.
///
/// # Errors
/// What it is not.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse();
    address.map_err(|_| format!("{text:?} is no address and port, such as 127.0.0.1:9464"))
}

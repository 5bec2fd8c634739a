//! Answers in HTTP. There is one kind: text, counted in bytes, after which the connection ends.

/// An answer with this status; `headers` are further lines, each with its line end.
pub(super) fn answer(status: &str, content: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; {content}\r\nContent-Length: {}\r\n{headers}\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_in_bytes_and_ends_the_connection() {
        assert_eq!(
            answer("200 OK", "charset=utf-8", "X-Y: z\r\n", "a\u{1f512}"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nX-Y: z\r\n\
             Connection: close\r\n\r\na\u{1f512}"
        );
        assert_eq!(
            answer("404 Not Found", "version=0.0.4", "", ""),
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
    }
}

use miniserde::{
    Deserialize,
    json::{self, Value},
};
use proptest::prelude::*;

use super::*;
use crate::at::fault::Code;

#[derive(Deserialize)]
struct Vectors {
    framing: Section,
}
#[derive(Deserialize)]
struct Section {
    cases: Vec<Case>,
}
#[derive(Deserialize)]
struct Case {
    #[serde(rename = "case")]
    name: String,
    state: String,
    bytes_utf8: Option<String>,
    chunks_utf8: Option<Vec<String>>,
    messages: Vec<Value>,
}

impl Case {
    fn mode(&self) -> Mode {
        match self.state.starts_with("monitor") {
            true => Mode::Monitor,
            false => Mode::Request,
        }
    }
    fn chunks(&self) -> Vec<Vec<u8>> {
        match (&self.bytes_utf8, &self.chunks_utf8) {
            (Some(bytes), _) => vec![bytes.clone().into_bytes()],
            (None, Some(chunks)) => chunks.iter().map(|c| c.clone().into_bytes()).collect(),
            (None, None) => panic!("{}", self.name),
        }
    }
    /// The wanted messages in the vectors' own form.
    fn want(&self) -> Vec<String> {
        self.messages.iter().map(json::to_string).collect()
    }
}

/// All but the two of the atDirectory, which speaks without `data:`; [`crate::at::directory`] reads it.
fn cases() -> Vec<Case> {
    let all = include_str!("../../../tests/vectors/atprotocol.json");
    let vectors: Vectors = json::from_str(all).unwrap();
    let mut cases = vectors.framing.cases;
    assert_eq!(cases.len(), 16);
    cases.retain(|case| case.state != "atDirectory");
    assert_eq!(cases.len(), 14);
    cases
}

fn read(mode: Mode, chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Reply> {
    let mut replies = Replies::new(mode);
    let mut all = Vec::new();
    for chunk in chunks {
        replies.push(chunk.as_ref());
        all.extend(std::iter::from_fn(|| replies.pop().unwrap()));
    }
    all.extend(replies.finish().unwrap());
    assert!(!replies.is_partial(), "{all:?}");
    all
}

fn vector_form(reply: &Reply) -> String {
    let pair = |kind: &str, text: &str| json::to_string(&vec![kind, text]);
    match reply {
        Reply::Data(text) => pair("data", text),
        Reply::Error(fault) => json::to_string(&vec![
            Some("error"),
            fault.code.map(Code::number),
            Some(&fault.text),
        ]),
        Reply::Notification(text) => {
            // Through the same reader as the vectors, so that members have one order.
            let value: Value = json::from_str(text).unwrap();
            format!(r#"["notification",{}]"#, json::to_string(&value))
        }
        Reply::Stream(text) => pair("stream", text),
        Reply::Prompt(text) => pair("prompt", text),
        Reply::Skipped(line) => pair("skipped", &line.bytes.to_string()),
    }
}

fn vector_forms(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(vector_form).collect()
}

#[test]
fn a_blank_line_before_the_greeting_is_passed_over_however_the_bytes_are_cut() {
    for pieces in [&["\n@"][..], &["\n", "@"], &["\r\n", "\n@"]] {
        let mut replies = Replies::new(Mode::Request);
        replies.expect_prompt();
        let mut seen = Vec::new();
        for piece in pieces {
            replies.push(piece.as_bytes());
            seen.extend(replies.pop().unwrap());
        }
        assert_eq!(seen, [Reply::Prompt("@".into())], "{pieces:?}");
    }
}

#[test]
fn every_stream_of_the_vectors_gives_its_messages() {
    for case in cases() {
        // The one error without prompt has no separate description.
        let got = vector_forms(&read(case.mode(), case.chunks()));
        assert_eq!(got, case.want(), "{}", case.name);
    }
}

#[test]
fn every_cut_in_two_and_single_bytes_give_the_same() {
    for case in cases() {
        let bytes = case.chunks().concat();
        let want = case.want();
        let single = read(case.mode(), bytes.chunks(1));
        assert_eq!(vector_forms(&single), want, "{}, single bytes", case.name);
        for at in 0..=bytes.len() {
            let got = read(case.mode(), [&bytes[..at], &bytes[at..]]);
            assert_eq!(vector_forms(&got), want, "{}, cut at {at}", case.name);
        }
    }
}

#[test]
fn a_whole_dialogue_keeps_its_step() {
    let stream = "@data:_s@alice:c\n@data:success\n@alice@data:null\n@alice@error:AT0015-key not found : x\n@alice@data:a\r\n@alice@";
    let want = [
        "_s@alice:c",
        "success",
        "null",
        "AT0015: key not found : x",
        "a",
    ];
    for size in 1..stream.len() {
        let got: Vec<String> = read(Mode::Request, stream.as_bytes().chunks(size))
            .into_iter()
            .map(|reply| match reply {
                Reply::Data(text) => text,
                Reply::Error(fault) => fault.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(got, want, "chunks of {size}");
    }
}

#[test]
fn a_lone_prompt_between_replies_is_dropped() {
    let chunks = ["@", "data:a\n@", "@alice@", "@alice@", "data:b\n@alice@"];
    let want = [Reply::Data("a".into()), Reply::Data("b".into())];
    assert_eq!(read(Mode::Request, chunks), want);
}

#[test]
fn what_looks_like_a_reply_inside_a_value_stays_inside() {
    let stream = "data:x\ndata:evil\nerror:AT0401-no\nnotification: {}\n@alice@";
    let value = "x\ndata:evil\nerror:AT0401-no\nnotification: {}";
    assert_eq!(read(Mode::Request, [stream]), [Reply::Data(value.into())]);
}

#[test]
fn a_line_end_finishes_everything_on_a_monitor() {
    let mut replies = Replies::new(Mode::Request);
    replies.push(b"@alice@data:ok\n");
    assert_eq!(replies.pop(), Ok(None));
    assert!(replies.is_partial());
    replies.set_mode(Mode::Monitor);
    assert_eq!(replies.pop(), Ok(Some(Reply::Data("ok".into()))));
    replies.push(b"@alice@notification: {\"a\":1} \r\n\r\n@\nstream:done x\n");
    assert_eq!(
        replies.pop(),
        Ok(Some(Reply::Notification("{\"a\":1}".into())))
    );
    assert_eq!(replies.pop(), Ok(Some(Reply::Stream("done x".into()))));
    assert_eq!(replies.pop(), Ok(None));
    assert!(!replies.is_partial());
}

#[test]
fn prompts_that_come_alone_are_told_when_asked_for() {
    // What was read before asking, what comes then, what is told, what is left.
    let prompt = |text: &str| Some(Reply::Prompt(text.into()));
    for (before, then, told) in [
        ("", "@", prompt("@")),
        ("", "", None),
        ("@data:proof:x\n@", "@bob@", prompt("@bob@")),
        ("@data:proof:x\n@", "@bo", None),
        ("@data:proof:x\n@", "@", None),
        (
            "@data:proof:x\n@",
            "error:AT0401-Exception: no\n@",
            Some(Reply::Error(Fault::new(
                Code::Unauthenticated,
                "Exception: no",
            ))),
        ),
        (
            "@data:proof:x\n@",
            "@data:x\n@",
            Some(Reply::Data("x".into())),
        ),
    ] {
        for size in 1..=then.len().max(1) {
            let mut replies = Replies::new(Mode::Request);
            replies.push(before.as_bytes());
            while replies.pop().unwrap().is_some() {}
            replies.expect_prompt();
            let mut got = None;
            for chunk in then.as_bytes().chunks(size) {
                replies.push(chunk);
                got = got.or(replies.pop().unwrap());
            }
            assert_eq!(got, told, "{before:?} {then:?} in {size}");
            assert!(!replies.is_partial(), "{before:?} {then:?} in {size}");
        }
    }
}

#[test]
fn the_greeting_is_told_even_when_it_came_first() {
    let mut replies = Replies::new(Mode::Request);
    replies.push(b"@");
    replies.expect_prompt();
    assert_eq!(replies.pop(), Ok(Some(Reply::Prompt("@".into()))));
    replies.push(b"data:a\n@");
    assert_eq!(replies.pop(), Ok(Some(Reply::Data("a".into()))));
}

#[test]
fn an_end_in_the_middle_is_a_loss() {
    for (stream, partial, last) in [
        ("", false, None),
        ("@", false, None),
        ("@ali", false, None),
        ("@alice@", false, None),
        ("@alice@da", true, None),
        ("data:a", true, None),
        ("data:a\nb", true, None),
        ("data:a\n", true, Some(Reply::Data("a".into()))),
    ] {
        let mut replies = Replies::new(Mode::Request);
        replies.push(stream.as_bytes());
        assert_eq!(replies.pop(), Ok(None), "{stream:?}");
        assert_eq!(replies.is_partial(), partial, "{stream:?}");
        assert_eq!(replies.finish(), Ok(last), "{stream:?}");
    }
}

#[test]
fn what_is_no_reply_ends_the_connection() {
    for (stream, mode, error) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            Mode::Request,
            WireError::Unknown,
        ),
        (b"hello\n@", Mode::Request, WireError::Unknown),
        (b"second line\n", Mode::Monitor, WireError::Unknown),
        (b"@alice@ data:x\n@", Mode::Request, WireError::Unknown),
        (b"data:\xff\n@", Mode::Request, WireError::NotUtf8),
    ] {
        let mut replies = Replies::new(mode);
        replies.push(stream);
        assert_eq!(replies.pop(), Err(error), "{stream:?}");
    }
}

#[test]
fn the_longest_line_passes_and_one_more_byte_does_not() {
    for (len, fits) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
        let mut replies = Replies::new(Mode::Request);
        let mut sent = 0;
        replies.push(b"data:");
        sent += 5;
        let mut error = None;
        while sent < len && error.is_none() {
            let size = 1024.min(len - sent);
            replies.push(&[b'x'; 1024][..size]);
            sent += size;
            error = replies.pop().err();
        }
        replies.push(b"\n@");
        let got = replies.pop();
        match fits {
            true => {
                let Ok(Some(Reply::Data(text))) = got else {
                    panic!("{error:?}");
                };
                assert_eq!(text.len() + 5, MAX_LINE);
                assert!(replies.buf.capacity() > KEEP, "one prompt is left in it");
                replies.push(b"data:a\n@");
                assert!(replies.pop().unwrap().is_some());
            }
            false => assert_eq!(error, Some(WireError::TooLong)),
        }
    }
}

/// Passes at once, or not within any patience.
#[test]
fn hostile_streams_take_linear_time() {
    let lines = "\n".repeat(2_000_000);
    let prompts = "@".repeat(2_000_000);
    for stream in [
        format!("{prompts}data:{lines}@"),
        format!("data:{}@", "x\n".repeat(1_000_000)),
        "data:\n@".repeat(500_000),
        "@a".repeat(1_000_000),
    ] {
        let mut replies = Replies::new(Mode::Request);
        for chunk in stream.as_bytes().chunks(1000) {
            replies.push(chunk);
            while let Ok(Some(_)) = replies.pop() {}
        }
        assert!(replies.buf.len() <= stream.len());
    }
}

proptest! {
    #[test]
    fn how_the_network_cuts_never_matters(
        texts in proptest::collection::vec(("data|error", "[ -~é😀]{0,12}(\n[a-z: ]{0,9})?"), 0..5),
        alice: bool,
        cuts in proptest::collection::vec(1..40usize, 1..20),
    ) {
        let prompt = if alice { "@alice@" } else { "@" };
        let replies: String = texts.iter().map(|(kind, text)| format!("{kind}:{text}\n{prompt}")).collect();
        let stream = format!("@{replies}");
        let mut rest = stream.as_bytes();
        let mut chunks = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk);
            rest = behind;
        }
        let whole = read(Mode::Request, [&stream]);
        prop_assert_eq!(whole.len(), texts.len());
        prop_assert_eq!(read(Mode::Request, chunks), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(
        chunks in proptest::collection::vec("[@a:\n\r ]{0,6}|data:|notification:|error:|\\PC", 0..30),
        monitor: bool,
        prompts in 0..30usize,
    ) {
        let mut replies = Replies::new(if monitor { Mode::Monitor } else { Mode::Request });
        for (at, chunk) in chunks.iter().enumerate() {
            if at == prompts {
                replies.expect_prompt();
            }
            replies.push(chunk.as_bytes());
            while let Ok(Some(_)) = replies.pop() {}
            replies.is_partial();
        }
        let _ = replies.finish();
    }
}

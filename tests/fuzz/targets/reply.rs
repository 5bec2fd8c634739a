//! What an atServer says, cut into replies. How the network cuts the bytes must not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::at::{
    Replies, Reply,
    reply::{Mode, WireError},
};

fn read<'a>(
    mode: Mode,
    prompt: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Reply>, WireError> {
    let (mut replies, mut all) = (Replies::new(mode), Vec::new());
    if prompt {
        replies.expect_prompt();
    }
    let mut given = 0;
    for piece in pieces {
        given += piece.len();
        replies.push(piece);
        while let Some(reply) = replies.pop()? {
            all.push(reply);
            assert!(all.len() <= given, "a reply takes at least a byte");
        }
    }
    all.extend(replies.finish()?);
    Ok(all)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let mode = match first & 1 {
        0 => Mode::Request,
        _ => Mode::Monitor,
    };
    let (size, prompt) = (1 + usize::from(first >> 2), first & 2 != 0);
    let byte_by_byte = read(mode, prompt, stream.chunks(1));
    assert_eq!(byte_by_byte, read(mode, prompt, stream.chunks(size)));
    for reply in byte_by_byte.into_iter().flatten() {
        if let Reply::Error(fault) = reply {
            assert!(!fault.text.contains(char::is_control), "{fault:?}");
        }
    }
});

//! What a person typed behind `ssh host`: the options among it, and what they would do.

use std::fmt::Write as _;

use ring::digest::{self, SHA256};
use rustix::system::uname;

use super::alias::{HostKeyAlias, MAPPED, PLAIN};

/// The first of the person's words that would lead ssh elsewhere than to the device.
pub fn leads_elsewhere(words: &[String]) -> Option<String> {
    // Option, and the values of it that change nothing.
    const ELSEWHERE: [(&str, &[&str]); 7] = [
        ("hostname", &[PLAIN, MAPPED]),
        ("port", &[]),
        ("proxycommand", &["none"]),
        ("proxyjump", &["none"]),
        ("addressfamily", &["inet", "any"]),
        ("bindaddress", &[PLAIN, MAPPED]),
        ("bindinterface", &[]),
    ];
    let leads = |(name, value): &(String, String)| {
        let row = ELSEWHERE.iter().find(|row| row.0 == name);
        row.is_some_and(|row| !row.1.contains(&&*value.to_ascii_lowercase()))
    };
    let found = typed(words).into_iter().find(leads);
    found.map(|(name, value)| format!("{name} {value}"))
}

/// The first of the person's words that names one socket for connections to all devices: a command for one would run on
/// another.
pub fn shares_with_others(words: &[String]) -> Option<String> {
    let paths = typed(words)
        .into_iter()
        .filter(|(name, _)| name == CONTROL_PATH)
        .map(|(_, path)| path);
    // An empty one is ssh's to complain about.
    let mut paths = paths.filter(|path| !path.is_empty() && path != "none");
    paths.find(|path| !path_tokens(path).any(|(_, token)| TELLING.contains(&token)))
}

/// Whom to log in as, if the person's words say it.
pub fn typed_user(words: &[String]) -> Option<String> {
    let found = typed(words).into_iter().find(|(name, _)| name == USER);
    found.map(|(_, user)| user)
}

const USER: &str = "user";
const CONTROL_PATH: &str = "controlpath";
/// What stands for the host in a ControlPath; `%p` is one bridge's port, which may be another's later, or be typed for both.
const TELLING: [char; 5] = ['h', 'n', 'k', 'C', 'p'];

/// The person's words, with the device's name in each ControlPath: to ssh all devices have one address, and old ones do
/// not know `%k`.
pub(super) fn own_sockets(words: &[String], alias: &HostKeyAlias) -> Vec<String> {
    let mut own = words.to_vec();
    for place in options(words) {
        let is_path =
            option(place.letter, place.value(words)).is_some_and(|(name, _)| name == CONTROL_PATH);
        if let Some(word) = own.get_mut(place.word).filter(|_| is_path) {
            let path = of_the_device(&word[place.from..], alias);
            word.replace_range(place.from.., &path);
        }
    }
    own
}

/// A ControlPath that is this device's alone.
fn of_the_device(path: &str, alias: &HostKeyAlias) -> String {
    let tells = path_tokens(path).any(|(_, token)| TELLING[..4].contains(&token));
    let (mut own, mut done) = (String::new(), 0);
    for (at, token) in path_tokens(path) {
        let instead = match token {
            'h' | 'n' | 'k' => alias.to_string(),
            'C' => digest(alias) + "-%r",
            'p' if !tells => format!("{alias}-%p"),
            _ => continue,
        };
        own.push_str(&path[done..at]);
        own.push_str(&instead);
        // A per cent sign and a letter.
        done = at + 2;
    }
    own + &path[done..]
}

/// Short for a device's name, on this machine: what ssh makes of `%C` has only the bridge's port to tell devices apart.
pub(super) fn digest(alias: &HostKeyAlias) -> String {
    let machine = uname();
    let text = [alias.0.as_bytes(), machine.nodename().to_bytes()].join(&0);
    let hash = digest::digest(&SHA256, &text);
    hash.as_ref()
        .iter()
        .take(10)
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Where a path has a per cent sign, and the letter behind it.
fn path_tokens(path: &str) -> impl Iterator<Item = (usize, char)> {
    let mut letters = path.char_indices();
    std::iter::from_fn(move || {
        let (at, _) = letters.find(|(_, letter)| *letter == '%')?;
        letters.next().map(|(_, token)| (at, token))
    })
}

/// The options of ssh_config(5) that somebody typed behind `ssh host`, in small letters, with their values.
pub(super) fn typed(words: &[String]) -> Vec<(String, String)> {
    let found = options(words).into_iter();
    found
        .filter_map(|place| option(place.letter, place.value(words)))
        .collect()
}

/// An option's letter among the words behind `ssh host`, and where its value begins.
struct TypedOption {
    letter: char,
    word: usize,
    from: usize,
}

impl TypedOption {
    fn value<'a>(&self, words: &'a [String]) -> &'a str {
        words.get(self.word).map_or("", |word| &word[self.from..])
    }
}

/// Options end where a command begins.
fn options(words: &[String]) -> Vec<TypedOption> {
    // Letters that take a value; the rest of the word, else the next word.
    const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";
    let (mut found, mut word) = (Vec::new(), 0);
    while let Some(letters) = words.get(word).and_then(|word| word.strip_prefix('-')) {
        if letters.is_empty() || letters == "-" {
            break;
        }
        for (at, letter) in letters.char_indices() {
            // Behind the letter, and the dash.
            let from = 1 + at + letter.len_utf8();
            let takes = WITH_VALUE.contains(letter);
            if takes && from > letters.len() {
                word += 1;
                found.push(TypedOption {
                    letter,
                    word,
                    from: 0,
                });
            } else {
                found.push(TypedOption { letter, word, from });
            }
            if takes {
                break;
            }
        }
        word += 1;
    }
    found
}

/// What a letter of ssh's command line is in a configuration file, as far as it matters here.
fn option(letter: char, value: &str) -> Option<(String, String)> {
    let name = match letter {
        'o' => {
            let value = value.trim_start();
            let end = value.find(|c: char| c == '=' || c.is_whitespace());
            let (name, value) = value.split_at(end.unwrap_or(value.len()));
            let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
            let value = value.trim_end().trim_matches('"');
            return Some((name.to_ascii_lowercase(), value.to_owned()));
        }
        '4' => return Some(("addressfamily".to_owned(), "inet".to_owned())),
        '6' => return Some(("addressfamily".to_owned(), "inet6".to_owned())),
        'B' => "bindinterface",
        'b' => "bindaddress",
        'J' => "proxyjump",
        'l' => USER,
        'p' => "port",
        'S' => CONTROL_PATH,
        _ => return None,
    };
    Some((name.to_owned(), value.to_owned()))
}

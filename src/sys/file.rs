//! Files that a person named. They may be anything: a pipe that nobody writes to, a device without an end.
//!
//! ```text
//!   a file                                     read, so many bytes at most
//!   /dev/fd/63, /dev/stdin: a shell's <(…)     read as long as it comes within PATIENCE
//!   a pipe with a name, mkfifo's               the same, if somebody writes to it; else refused at once
//!   a folder, a device, a socket               refused by name; /dev/null is an empty file
//! ```
//! What is read is text in UTF-8, with or without the mark that some editors put in front; UTF-16 with its mark is read, too.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_std::task;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use zeroize::Zeroize;

use super::ssh::shell_line;

/// Longest of the small files that people write and services keep, in bytes.
pub const SMALL: u64 = 256 * 1024;
/// For a pipe to come to its end, when another program makes what is read.
const PATIENCE: Duration = Duration::from_secs(20);
/// Room for what comes through a pipe, in bytes: most is shorter, and a buffer that grows leaves copies behind.
const ROOM: u64 = 64 * 1024;
/// An empty file, by long habit.
const NOTHING: &str = "/dev/null";
/// Descriptors that this process was started with.
const INHERITED: [&str; 6] = [
    "/dev/fd/",
    "/dev/stdin",
    "/proc/self/fd/",
    "/proc/thread-self/fd/",
    "/dev/stdout",
    "/dev/stderr",
];

/// A file that decides who gets in, as text: so many bytes at most.
///
/// # Errors
/// Those of [`text_now`]; others could write it.
pub async fn safe_text(path: &Path, most: u64) -> io::Result<String> {
    let path = path.to_owned();
    task::spawn_blocking(move || NamedFile::open_safe(&path, Writers::Group)?.text(most)).await
}

/// A file as text: so many bytes at most; on this thread.
///
/// # Errors
/// What the system says; it is no file; it is longer; it is not text; it did not end in time.
pub fn text_now(path: &Path, most: u64) -> io::Result<String> {
    NamedFile::open(path)?.text(most)
}

/// The metadata of a file, asked for off the executor: its file system may be far away.
///
/// # Errors
/// What the system says.
pub async fn metadata(path: PathBuf) -> io::Result<fs::Metadata> {
    task::spawn_blocking(move || fs::metadata(path)).await
}

/// Who besides its owner, and root, may write what decides who gets in: whoever writes that lets themselves in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Its group.
    Group,
    /// Nobody.
    Nobody,
}

/// Refuses a file or a folder that others than we and root can write; root may be told to use anybody's own.
///
/// # Errors
/// Why, with the way to mend it.
pub fn refuse_others(path: &Path, about: &fs::Metadata, allowed: Writers) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let (bits, mend) = match allowed {
        Writers::Group => (0o002, "o-w"),
        Writers::Nobody => (0o022, "go-w"),
    };
    // Root is told to use a person's files: `sudo noports daemon --keys /home/me/…`.
    let may_be_anybodys = us == 0 && allowed == Writers::Group;
    let why = if !about.is_file() && !about.is_dir() {
        return Ok(());
    } else if about.uid() != us && about.uid() != 0 && !may_be_anybodys {
        format!("it belongs to user {}, who could change it", about.uid())
    } else if about.mode() & bits != 0 {
        let path = path.display().to_string();
        let mend = shell_line(&["chmod", mend, &path]);
        format!("others can write it: {mend}")
    } else {
        return Ok(());
    };
    Err(io::Error::new(ErrorKind::PermissionDenied, why))
}

/// Refuses a file that others could put another one in the place of: the folder in which it is, and that of a link to it,
/// is the file's owner's, ours or root's, and no folder on the way there is everybody's, unless as `/tmp` is.
fn refuse_open_folders(path: &Path, owner: u32) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let parent = |file: &Path| file.parent().map(Path::to_owned);
    let named = parent(path).filter(|folder| *folder != Path::new(""));
    let named = fs::canonicalize(named.unwrap_or_else(|| ".".into()))?;
    for nearest in [Some(named), parent(&fs::canonicalize(path)?)]
        .into_iter()
        .flatten()
    {
        for folder in nearest.ancestors() {
            let about = fs::metadata(folder)?;
            let (mode, uid) = (about.mode(), about.uid());
            // Only one's own can be taken away there.
            let is_sticky = mode & STICKY != 0;
            let shown = folder.display();
            let why = if mode & 0o002 != 0 && !is_sticky {
                let mend = shell_line(&["chmod", "o-w", &shown.to_string()]);
                format!("others could put another file there: {mend}")
            } else if folder == nearest && ![us, 0, owner].contains(&uid) && !is_sticky {
                format!(
                    "the folder {shown} belongs to user {uid}, who could put another file there"
                )
            } else {
                continue;
            };
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
    }
    Ok(())
}

/// Of a folder's mode: whoever may write there takes away only what is theirs.
const STICKY: u32 = 0o1000;

/// A file that somebody named, open.
#[derive(Debug)]
pub struct NamedFile {
    file: File,
    about: fs::Metadata,
    /// A pipe with a name: without anybody who writes it is no empty file.
    named_pipe: bool,
}

impl NamedFile {
    /// Opens what can be read to an end. Nothing is waited for.
    ///
    /// # Errors
    /// What the system says; it is a folder, a device or a socket.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_ours = is_inherited(path);
        // Before it is opened: for a device that alone may mean something.
        refuse_kind(path, &fs::metadata(path)?, is_ours)?;
        // Opening a pipe would wait for somebody who writes, and a terminal could become ours.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let about = file.metadata()?;
        refuse_kind(path, &about, is_ours)?;
        Ok(Self {
            named_pipe: about.file_type().is_fifo() && !is_ours,
            file,
            about,
        })
    }

    /// The same for a file that decides who gets in.
    ///
    /// # Errors
    /// Those of [`Self::open`] and [`refuse_others`].
    pub fn open_safe(path: &Path, allowed: Writers) -> io::Result<Self> {
        let file = Self::open(path)?;
        refuse_others(path, &file.about, allowed)?;
        if file.about.is_file() && !is_inherited(path) {
            refuse_open_folders(path, file.about.uid())?;
        }
        Ok(file)
    }

    /// What the system knows of it.
    pub fn about(&self) -> &fs::Metadata {
        &self.about
    }

    /// The same where only what has a beginning and an end will do: no pipe.
    ///
    /// # Errors
    /// It is none.
    pub fn into_whole_file(self) -> io::Result<File> {
        if self.about.is_file() {
            Ok(self.file)
        } else {
            Err(invalid("it is a pipe, not a file"))
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// What the system says; it has more than `most` bytes; it did not end in time.
    pub fn bytes(self, most: u64) -> io::Result<Vec<u8>> {
        self.bytes_within(PATIENCE, most)
    }

    /// All of it, as text.
    ///
    /// # Errors
    /// As [`Self::bytes`]; it is not text.
    pub fn text(self, most: u64) -> io::Result<String> {
        decode(self.bytes(most)?)
    }

    /// All of it, as text whose letters beyond ASCII may be in any encoding: PEM files have names in them.
    ///
    /// # Errors
    /// As [`Self::bytes`]; it is in an encoding of wide letters.
    pub fn letters(self, most: u64) -> io::Result<Vec<u8>> {
        unmarked(self.bytes(most)?)
    }

    fn bytes_within(self, time: Duration, most: u64) -> io::Result<Vec<u8>> {
        let known = if self.about.is_file() {
            self.about.len()
        } else {
            ROOM
        };
        // Room for all of it at once: a growing buffer would leave copies of a secret behind.
        let room = usize::try_from(known.min(most)).unwrap_or(0);
        let mut bytes = Vec::with_capacity(room + 1);
        let source = Hurried {
            file: self.file,
            until: Instant::now() + time,
            expects_writer: self.named_pipe,
            is_file: self.about.is_file(),
        };
        let read = source.take(most + 1).read_to_end(&mut bytes);
        let refused = match read {
            Ok(length) if length as u64 > most => {
                invalid(format!("it is longer than {most} bytes"))
            }
            Ok(_) => return Ok(bytes),
            Err(why) => why,
        };
        bytes.zeroize();
        Err(refused)
    }
}

fn is_inherited(path: &Path) -> bool {
    let own = format!("/proc/{}/fd/", std::process::id());
    let text = path.to_string_lossy();
    INHERITED
        .into_iter()
        .chain([own.as_str()])
        .any(|start| text.starts_with(start))
}

fn refuse_kind(path: &Path, about: &fs::Metadata, is_ours: bool) -> io::Result<()> {
    let kind = about.file_type();
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_file() || kind.is_fifo() || is_ours || path == Path::new(NOTHING) {
        return Ok(());
    } else {
        "a device"
    };
    Err(invalid(format!("it is {what}, not a file")))
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// What these bytes say.
fn decode(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(unmarked(bytes)?).map_err(|why| {
        why.into_bytes().zeroize();
        invalid("it is not text")
    })
}

/// The same without the mark that some editors put in front, and UTF-16 as UTF-8.
fn unmarked(mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let wide = match bytes.get(..2) {
        Some([0xff, 0xfe]) => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        Some([0xfe, 0xff]) => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(number) = wide {
        let text = utf16(&bytes[2..], number);
        bytes.zeroize();
        let text = text.ok_or_else(|| invalid("it is damaged UTF-16 text; save it as UTF-8"))?;
        bytes = text.into_bytes();
    } else if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.copy_within(3.., 0);
        let end = bytes.len() - 3;
        bytes[end..].zeroize();
        bytes.truncate(end);
    }
    // Every second byte of plain words in UTF-16 is nothing; which of them cannot be known for certain.
    if bytes.iter().take(64).any(|byte| *byte == 0) {
        bytes.zeroize();
        return Err(invalid("it has zero bytes; is it UTF-16? save it as UTF-8"));
    }
    Ok(bytes)
}

fn utf16(bytes: &[u8], number: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    let units = pairs.iter().map(|pair| number(*pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok()
}

/// Reads until a moment, and no longer.
struct Hurried {
    file: File,
    until: Instant,
    /// Nothing has come yet, and there may be nobody who writes.
    expects_writer: bool,
    is_file: bool,
}

impl Read for Hurried {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, "it does not end"));
            }
            // Read before waiting: a pipe that nobody has opened for writing is never ready.
            match self.file.read(buf) {
                Ok(0) if self.expects_writer => {
                    return Err(invalid("it is a pipe that nobody writes to"));
                }
                // The kernel's log, say: called a file, and without an end.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.is_file => {
                    return Err(invalid("it does not end"));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.expects_writer = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                outcome => {
                    self.expects_writer = false;
                    return outcome;
                }
            }
            let mut asked = [PollFd::new(&self.file, PollFlags::IN)];
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut asked, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Write, os::fd::AsRawFd, os::unix::net::UnixListener, thread};

    use super::*;
    use crate::testing::named_pipe;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    fn within(time: Duration, path: &Path) -> io::Result<String> {
        decode(NamedFile::open(path)?.bytes_within(time, 100)?)
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_one_without_an_end_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = named_pipe(folder.path());
        // Both directions: this opens without another end.
        let open = File::options().read(true).write(true).open(&path).unwrap();
        (&open).write_all(b"a beginning").unwrap();
        let no_end = within(SHORT, &path).unwrap_err();
        assert_eq!(no_end.kind(), ErrorKind::TimedOut);
        (&open).write_all(b"in ").unwrap();
        let reader = thread::spawn(move || within(LONG, &path));
        (&open).write_all(b"pieces").unwrap();
        // The reader has to be there before the last writer goes, or what is in the pipe goes, too.
        while rustix::io::ioctl_fionread(&open).unwrap() != 0 {
            thread::yield_now();
        }
        drop(open);
        assert_eq!(reader.join().unwrap().unwrap(), "in pieces");
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = named_pipe(folder.path());
        let refused = within(LONG, &path).unwrap_err();
        assert_eq!(refused.to_string(), "it is a pipe that nobody writes to");
        let refused = NamedFile::open(&path).unwrap().bytes(9).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn what_a_shell_makes_of_a_command_is_read() {
        let (reads, mut writes) = io::pipe().unwrap();
        writes.write_all(b"from a command").unwrap();
        for place in ["/dev/fd", "/proc/self/fd"] {
            let path = format!("{place}/{}", reads.as_raw_fd());
            let silent = within(SHORT, Path::new(&path));
            assert!(silent.is_err_and(|why| why.kind() == ErrorKind::TimedOut));
            writes.write_all(b"from a command").unwrap();
        }
        drop(writes);
        let path = format!("/dev/fd/{}", reads.as_raw_fd());
        assert_eq!(within(LONG, Path::new(&path)).unwrap(), "from a command");
        // A command that says nothing: an empty file.
        assert_eq!(within(LONG, Path::new(&path)).unwrap(), "");
    }

    #[test]
    fn what_is_no_file_or_has_no_end_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(text_now(&path, 10).unwrap(), "0123456789");
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, want) in [
            (path.as_path(), "it is longer than 9 bytes"),
            (folder.path(), "it is a folder, not a file"),
            (&socket, "it is a socket, not a file"),
            (Path::new("/dev/zero"), "it is a device, not a file"),
            (Path::new("/dev/tty"), "it is a device, not a file"),
            (Path::new("/dev/full"), "it is a device, not a file"),
        ] {
            let refused = text_now(path, 9).unwrap_err();
            assert_eq!(refused.to_string(), want, "{}", path.display());
        }
        assert_eq!(text_now(Path::new(NOTHING), 9).unwrap(), "");
        let endless = File::open("/dev/zero").unwrap();
        let inherited = format!("/dev/fd/{}", endless.as_raw_fd());
        let refused = text_now(Path::new(&inherited), 9).unwrap_err();
        assert_eq!(refused.to_string(), "it is longer than 9 bytes");
        let missing = text_now(&folder.path().join("none"), 9).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    /// Whoever may write a folder puts a file of theirs in the place of the one that was looked at.
    #[test]
    fn a_file_in_a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let top = tempfile::tempdir().unwrap();
        let (outer, inner) = (top.path().join("outer"), top.path().join("outer/inner"));
        fs::create_dir_all(&inner).unwrap();
        let (file, link) = (inner.join("file"), top.path().join("link"));
        fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        let set = |folder: &Path, mode| {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (outer_mode, inner_mode, top_mode, want) in [
            (0o755, 0o755, 0o700, None),
            (0o775, 0o770, 0o700, None),
            (0o755, 0o777, 0o700, Some("outer/inner")),
            (0o777, 0o755, 0o700, Some("outer")),
            (0o1777, 0o755, 0o700, None),
            (0o755, 0o1777, 0o700, None),
            (0o755, 0o755, 0o777, Some("")),
        ] {
            set(&outer, outer_mode);
            set(&inner, inner_mode);
            set(top.path(), top_mode);
            for file in [&file, &link] {
                let opened = NamedFile::open_safe(file, Writers::Group);
                let said = opened.err().map(|why| why.to_string());
                let want = want.map(|folder| {
                    let folder = fs::canonicalize(top.path()).unwrap().join(folder);
                    let folder = folder.display().to_string();
                    let folder = folder.trim_end_matches('/');
                    format!("others could put another file there: chmod o-w {folder}")
                });
                assert_eq!(said, want, "{outer_mode:o} {inner_mode:o} {top_mode:o}");
            }
            set(top.path(), 0o700);
        }
        if rustix::process::geteuid().is_root() {
            set(&inner, 0o755);
            let owned = |path: &Path, who| std::os::unix::fs::chown(path, Some(who), None).unwrap();
            for (file_of, folder_of, fits) in [
                (0, 0, true),
                (1000, 1000, true),
                (1000, 0, true),
                (0, 1000, false),
                (1000, 1001, false),
            ] {
                owned(&file, file_of);
                owned(&inner, folder_of);
                let opened = NamedFile::open_safe(&file, Writers::Group);
                let said = opened.err().map(|why| why.to_string()).unwrap_or_default();
                assert_eq!(said.is_empty(), fits, "{file_of} {folder_of}: {said}");
                let want = format!("belongs to user {folder_of}, who could");
                assert!(fits || said.contains(&want), "{said}");
            }
        }
    }

    #[test]
    fn text_is_known_by_its_mark_and_what_is_none_is_named() {
        let wide = |text: &str, bytes: fn(u16) -> [u8; 2]| {
            text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
        };
        let ours = "as @ä🦄\r\n";
        for bytes in [
            ours.as_bytes().to_vec(),
            format!("\u{feff}{ours}").into_bytes(),
            wide(&format!("\u{feff}{ours}"), u16::to_le_bytes),
            wide(&format!("\u{feff}{ours}"), u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes.clone()).unwrap(), ours, "{bytes:?}");
        }
        assert_eq!(decode(Vec::new()).unwrap(), "");
        for (bytes, want) in [
            (wide("as @a", u16::to_le_bytes), "zero bytes"),
            (wide("as @a", u16::to_be_bytes), "zero bytes"),
            (vec![0xff, 0xfe, b'a'], "damaged UTF-16"),
            (vec![0xfe, 0xff, 0xd8, 0], "damaged UTF-16"),
            (vec![0xff, 0xfe, 0, 0, b'a', 0, 0, 0], "zero bytes"),
            (vec![0, 0, 0xfe, 0xff, 0, 0, 0, b'a'], "zero bytes"),
            (vec![0xff], "it is not text"),
        ] {
            let why = decode(bytes.clone()).unwrap_err().to_string();
            assert!(why.contains(want), "{bytes:?}: {why}");
        }
    }
}

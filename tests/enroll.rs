//! More devices with one atSign: codes, requests, approvals, revocations, protected key files; through the executable.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use async_std::task::{self, block_on};
use miniserde::json;
use noports::at::{AtSign, client::Link, crypto::PublicKey, enrolment as wire};

use crate::world::{
    ALICE, DEVICE, NAME, Process, RENDEZVOUS, World, answer_at_the_end, failure, output, stdout,
};

/// A member of a line of JSON.
fn member(line: &str, name: &str) -> String {
    let mut object: json::Object = json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
    match object.remove(name) {
        Some(json::Value::String(text)) => text,
        other => panic!("{name} is {other:?} in {line}"),
    }
}

async fn otp(world: &World, who: &str) -> String {
    let code = stdout(world.noports(&["enroll", "otp", who, "-q"])).await;
    assert!(code.trim().len() >= 6, "{code:?}");
    code.trim().to_owned()
}

/// `noports enroll WHO` with this code in the environment.
fn asking(world: &World, who: &str, code: &str, words: &[&str]) -> Command {
    let mut command = world.noports(&["enroll", who, "--json", "-q", "--timeout", "60"]);
    command.args(words).env("NOPORTS_CODE", code);
    command
}

/// A run that has asked, and its request's id.
struct Waiting {
    process: Process,
    lines: Box<dyn Iterator<Item = String> + Send>,
    id: String,
}

impl Waiting {
    async fn start(mut command: Command) -> Self {
        task::spawn_blocking(move || {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            let mut lines = Box::new(out.lines().map(Result::unwrap));
            let Some(line) = lines.next() else {
                panic!("{:?}", child.wait_with_output());
            };
            assert_eq!(member(&line, "event"), "asked", "{line}");
            let id = member(&line, "id");
            assert_eq!(member(&line, "code").replace('-', ""), id[..8], "{line}");
            let process = Process(child);
            Self { process, lines, id }
        })
        .await
    }

    /// The last line of stdout, and the exit code.
    async fn end(mut self) -> (String, i32) {
        task::spawn_blocking(move || {
            let last = self.lines.last().unwrap_or_default();
            (last, self.process.0.wait().unwrap().code().unwrap_or(-1))
        })
        .await
    }
}

/// A device that asks for this, and waits.
async fn requested(world: &World, device: &str, namespaces: &str) -> Waiting {
    let code = otp(world, DEVICE).await;
    let keys = world.dir.text(&format!("keys-{}", uuid::Uuid::new_v4()));
    let words = ["--keys", &keys, "--device", device];
    let more = ["--namespaces", namespaces];
    Waiting::start(asking(world, DEVICE, &code, &[&words[..], &more].concat())).await
}

async fn decide(world: &World, words: &[&str]) -> String {
    let base = ["enroll", words[0]];
    stdout(world.noports(&[&base[..], &words[1..], &["-q"]].concat())).await
}

/// Asks, approves, waits: an enrolled key file.
async fn enrolled(world: &World, who: &str, file: &str, words: &[&str]) -> String {
    let code = otp(world, who).await;
    let base = ["--device", file, "--keys", &world.dir.text(file)];
    let waiting = Waiting::start(asking(world, who, &code, &[&base[..], words].concat())).await;
    let id = waiting.id.clone();
    decide(world, &["approve", who, &id[..8], "--yes"]).await;
    let (line, code) = waiting.end().await;
    assert_eq!((member(&line, "event").as_str(), code), ("enrolled", 0));
    assert_eq!(member(&line, "id"), id);
    id
}

/// What a service behind the session answers, with everything in processes that have these keys.
async fn session(world: &World, client: &[&str]) -> String {
    let mut command = world.client(&[&["--stdio", "-q"], client].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"there and back").unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    });
    let output = run.await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

fn daemon<'a>(keys: &'a str, port: &'a str) -> Vec<&'a str> {
    vec![
        "daemon",
        "--as",
        DEVICE,
        "--manager",
        ALICE,
        "--device",
        NAME,
        "--client-source",
        "off",
        "--sshd-port",
        port,
        "--keys",
        keys,
    ]
}

#[test]
fn enrolled_key_files_work_in_every_program_until_revoked() {
    block_on(async {
        let world = World::start().await;
        let mut ids = Vec::new();
        for (who, file) in [(ALICE, "a"), (DEVICE, "d"), (RENDEZVOUS, "r")] {
            ids.push(enrolled(&world, who, file, &[]).await);
            assert_eq!(mode(&world.dir.path(file)), 0o600, "{who}");
            assert!(!world.dir.path(&format!("{file}.asked")).exists(), "{who}");
        }
        let service = answer_at_the_end().await.to_string();
        let (a, d, r) = (
            world.dir.text("a"),
            world.dir.text("d"),
            world.dir.text("r"),
        );
        let _rendezvous = world.process(&[
            "rendezvous",
            "--as",
            RENDEZVOUS,
            "--host",
            "127.0.0.1",
            "--keys",
            &r,
        ]);
        let mut process = world.process(&daemon(&d, &service));
        assert_eq!(session(&world, &["--keys", &a]).await, "there and back");
        process.kill();

        // Taken back, and given again.
        let listed = decide(&world, &["list", DEVICE, "--status", "approved"]).await;
        assert!(
            listed.contains(&format!("{}  approved  noports", ids[1])),
            "{listed}"
        );
        decide(&world, &["revoke", DEVICE, &ids[1]]).await;
        let (code, said) = failure(world.noports(&daemon(&d, &service))).await;
        assert_eq!(code, 6, "{said}");
        assert!(said.contains("refused the login: AT0027"), "{said}");
        assert!(
            said.contains(
                "\n  hint: these keys were revoked; on a device with keys: noports enroll unrevoke"
            ),
            "{said}"
        );
        decide(&world, &["unrevoke", DEVICE, &ids[1]]).await;
        let _daemon = world.process(&daemon(&d, &service));
        assert_eq!(session(&world, &[]).await, "there and back");

        // Enrolled keys do not manage others, and ends are ends.
        let mut command = world.noports(&["enroll", "otp", DEVICE, "--keys", &d]);
        command.arg("-q");
        let (code, said) = failure(command).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("AT0009"), "{said}");
        let words = ["enroll", "delete", DEVICE, &ids[1], "-q"];
        let (_, said) = failure(world.noports(&words)).await;
        assert!(
            said.contains("is approved: only denied or revoked ones can be deleted"),
            "{said}"
        );
        decide(&world, &["revoke", DEVICE, &ids[1]]).await;
        decide(&world, &["delete", DEVICE, &ids[1]]).await;
        let listed = decide(&world, &["list", DEVICE]).await;
        assert!(!listed.contains(&ids[1]), "{listed}");
    });
}

#[test]
fn a_denied_request_says_so_and_leaves_nothing() {
    block_on(async {
        let world = World::start().await;
        let code = otp(&world, DEVICE).await;
        let keys = world.dir.text("d");
        let waiting = Waiting::start(asking(&world, DEVICE, &code, &["--keys", &keys])).await;
        let listed = decide(&world, &["list", DEVICE, "--status", "pending", "--json"]).await;
        assert_eq!(member(listed.trim(), "id"), waiting.id);
        assert_eq!(mode(&world.dir.path("d.asked")), 0o600);
        let short = format!("{}-{}", &waiting.id[..4], &waiting.id[4..8]);
        // Nobody there to say yes, and nobody said it.
        let (code, said) = failure(world.noports(&["enroll", "approve", DEVICE, &short])).await;
        assert_eq!(code, 2, "{said}");
        decide(&world, &["deny", DEVICE, &short]).await;
        let (line, code) = waiting.end().await;
        assert_eq!(code, 6, "{line}");
        assert_eq!(
            member(&line, "error"),
            format!("the request {short} was denied")
        );
        assert!(!world.dir.path("d").exists() && !world.dir.path("d.asked").exists());
    });
}

#[test]
fn codes_that_are_wrong_used_or_expired_are_refused_and_leave_nothing() {
    block_on(async {
        let world = World::start().await;
        let keys = world.dir.text("d");
        let mut short = world.noports(&["enroll", "otp", DEVICE, "-q", "--ttl", "1ms"]);
        short.arg("--json");
        let expired = member(stdout(short).await.trim(), "code");
        for code in ["ZZZZZZ", &expired] {
            let (exit, said) = failure(asking(&world, DEVICE, code, &["--keys", &keys])).await;
            assert_eq!(exit, 6, "{said}");
            assert!(
                said.contains("noports enroll: the atServer does not accept this passcode\n  hint: it is good for one request"),
                "{said}"
            );
            assert!(!said.contains(code), "{said}");
            assert!(!world.dir.path("d.asked").exists());
        }
        // A standing code is good for many; the names are taken once.
        let mut spp = world.noports(&["enroll", "spp", DEVICE, "-q"]);
        spp.env("NOPORTS_CODE", "standing1");
        stdout(spp).await;
        let words = ["--keys", &keys, "--device", "kitchen"];
        let _first = Waiting::start(asking(&world, DEVICE, "standing1", &words)).await;
        let other = world.dir.text("other");
        let words = ["--keys", &other, "--device", "kitchen"];
        let (exit, said) = failure(asking(&world, DEVICE, "standing1", &words)).await;
        assert_eq!(exit, 1, "{said}");
        assert!(
            said.contains("noports on kitchen is already enrolled"),
            "{said}"
        );
        let words = ["--keys", &other, "--device", "cellar"];
        Waiting::start(asking(&world, DEVICE, "standing1", &words)).await;
    });
}

#[test]
fn a_run_that_was_killed_is_finished_by_the_next_one() {
    block_on(async {
        let world = World::start().await;
        let keys = world.dir.text("d");
        let code = otp(&world, DEVICE).await;
        let mut first = Waiting::start(asking(&world, DEVICE, &code, &["--keys", &keys])).await;
        first.process.kill();
        decide(&world, &["approve", DEVICE, &first.id, "--yes"]).await;
        // It needs no code any more.
        let second = world.noports(&["enroll", DEVICE, "--json", "-q", "--keys", &keys]);
        let second = Waiting::start(second).await;
        assert_eq!(second.id, first.id);
        let (line, code) = second.end().await;
        assert_eq!(code, 0, "{line}");
        let (code, said) = failure(asking(&world, DEVICE, "ZZZZZZ", &["--keys", &keys])).await;
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("there is already a key file"), "{said}");
    });
}

#[test]
fn a_run_killed_before_the_answer_finds_its_request_again() {
    block_on(async {
        let world = World::start().await;
        let who: AtSign = DEVICE.parse().unwrap();
        // What such a run leaves: a draft without an id, and a request.
        let applicant = wire::Applicant::new(&who).unwrap();
        let draft = applicant.provisional(None).print();
        fs::write(world.dir.path("d.asked"), draft.reveal()).unwrap();
        let wish = wire::EnrolmentRequest {
            app: "noports".into(),
            device: "attic".into(),
            namespaces: [("sshnp".to_owned(), "rw".to_owned())].into(),
            otp: noports::secret::Secret::new(otp(&world, DEVICE).await),
            life: None,
        };
        let mut link = Link::connect(&world.network, &who).await.unwrap();
        let ours = world.keys(DEVICE).encryption.public().text.clone();
        let ours = PublicKey::parse(&ours).unwrap();
        let answer = link.ask(&applicant.request(&wish, &ours).unwrap()).await;
        let (id, _) = wire::parse_answer(&answer.unwrap()).unwrap();

        let code = otp(&world, DEVICE).await;
        let keys = world.dir.text("d");
        let words = ["--keys", &keys, "--device", "attic"];
        let again = Waiting::start(asking(&world, DEVICE, &code, &words)).await;
        assert_eq!(again.id, id);
        decide(&world, &["approve", DEVICE, "--device", "attic", "--yes"]).await;
        assert_eq!(again.end().await.1, 0);
    });
}

#[test]
fn a_protected_key_file_opens_with_its_phrase() {
    block_on(async {
        let mut world = World::start().await;
        fs::write(world.dir.path("phrase"), "1234\n").unwrap();
        let phrase = world.dir.text("phrase");
        enrolled(&world, ALICE, "a", &["--passphrase-file", &phrase]).await;
        let text = fs::read_to_string(world.dir.path("a")).unwrap();
        assert!(
            text.starts_with(r#"{"content":""#) && !text.contains("aesPkam"),
            "{text}"
        );
        assert_eq!(mode(&world.dir.path("a")), 0o600);

        let service = answer_at_the_end().await;
        world.rendezvous().await;
        world.daemon(service).await;
        let a = world.dir.text("a");
        let words = ["--keys", &a, "--passphrase-file", &phrase];
        assert_eq!(session(&world, &words).await, "there and back");

        let mut wrong = world.client(&["--stdio", "-q", "--keys", &a]);
        wrong.env("NOPORTS_PASSPHRASE", "12345");
        let (code, said) = failure(wrong).await;
        assert_eq!(code, 3, "{said}");
        assert!(
            said.contains("the pass phrase does not open the key file"),
            "{said}"
        );

        let mut right = world.noports(&["enroll", "list", ALICE, "--keys", &a, "-q"]);
        right.env("NOPORTS_PASSPHRASE", "1234");
        let listed = stdout(right).await;
        assert!(listed.contains("noports"), "{listed}");
    });
}

/// `at_activate` in this world, with its classic words.
fn classic(world: &World, words: &str) -> Command {
    let mut command = world.noports(&["at_activate"]);
    command.args(words.split_whitespace());
    command
}

#[test]
fn the_classic_commands_provision_a_device() {
    block_on(async {
        let world = World::start().await;
        let keys = world.dir.text("d");
        let code = stdout(classic(&world, &format!("otp -a {DEVICE}"))).await;
        let words = format!(
            "enroll -a {DEVICE} -s {} -p noports -k {keys} -d NAME -n \"sshnp:rw,sshrvd:rw\"",
            code.trim()
        );
        let mut asking = classic(&world, &words);
        asking.stdout(Stdio::piped()).stderr(Stdio::piped());
        let asking = Process(asking.spawn().unwrap());
        let listed = loop {
            let listed = stdout(classic(&world, &format!("list -a {DEVICE} -s pending"))).await;
            if listed.contains("NAME") {
                break listed;
            }
        };
        assert!(listed.contains("sshnp:rw, sshrvd:rw"), "{listed}");
        let words = format!("approve -a {DEVICE} --arx noports --drx NAME");
        let approved = stdout(classic(&world, &words)).await;
        let id = approved
            .strip_prefix("Found 1 matching enrollment records\nApproved ")
            .unwrap()
            .trim()
            .to_owned();
        let mut asking = asking;
        let (path, said, status) = task::spawn_blocking(move || {
            let child = &mut asking.0;
            let read = |from: &mut dyn std::io::Read| {
                let mut text = String::new();
                from.read_to_string(&mut text).unwrap();
                text
            };
            let path = read(child.stdout.as_mut().unwrap());
            let said = read(child.stderr.as_mut().unwrap());
            (path, said, child.wait().unwrap())
        })
        .await;
        assert!(status.success(), "{said}");
        assert_eq!(
            path,
            format!("Enrollment ID: {id}\n[Success] Your .atKeys file saved at {keys}\n")
        );
        assert!(
            said.contains("everybody on this machine can read a secret"),
            "{said}"
        );
        assert!(!said.contains(code.trim()), "{said}");

        let service = answer_at_the_end().await.to_string();
        let _daemon = world.process(&daemon(&keys, &service));
        for (words, want) in [
            (
                format!("status -a {DEVICE}"),
                format!("{DEVICE} is activated\n"),
            ),
            (
                format!("revoke -a {DEVICE} -i {id}"),
                format!("Revoked {id}\n"),
            ),
            (
                format!("unrevoke -a {DEVICE} -i {id}"),
                format!("Un-Revoked {id}\n"),
            ),
            (
                format!("revoke -a {DEVICE} --drx NAME"),
                format!("Found 1 matching enrollment records\nRevoked {id}\n"),
            ),
            (
                format!("fetch -a {DEVICE} -i {id}"),
                format!(
                    "Fetched enrollment OK: {{\"enrollmentId\":\"{id}\",\"appName\":\"noports\",\"deviceName\":\"NAME\",\"namespace\":{{\"sshnp\":\"rw\",\"sshrvd\":\"rw\"}},\"status\":\"revoked\"}}\n"
                ),
            ),
            (
                format!("delete -a {DEVICE} -i {id}"),
                format!("Deleted {id}\n"),
            ),
            // Nothing to do is no failure.
            (
                format!("approve -a {DEVICE} --arx noports --drx NAME"),
                "Found 0 matching enrollment records\n".to_owned(),
            ),
            (format!("deny -a {DEVICE} -i {id}"), String::new()),
        ] {
            assert_eq!(stdout(classic(&world, &words)).await, want, "{words}");
        }
        let (code, _) = failure(classic(&world, "status -a @nobody")).await;
        assert_eq!(code, 3);

        // Approves by itself what comes later.
        let auto = classic(
            &world,
            &format!("auto -a {DEVICE} -A noports -D later --approve-existing"),
        );
        let auto = task::spawn(stdout(auto));
        let code = otp(&world, DEVICE).await;
        let other = world.dir.text("other");
        let words = ["--keys", &other, "--device", "later"];
        let waiting = Waiting::start(self::asking(&world, DEVICE, &code, &words)).await;
        let id = waiting.id.clone();
        assert_eq!(waiting.end().await.1, 0);
        assert_eq!(auto.await, format!("Approved {id}\n"));
    });
}

#[test]
fn the_classic_session_takes_one_command_after_the_other() {
    block_on(async {
        let world = World::start().await;
        let mut session = classic(&world, &format!("interactive -a {DEVICE}"));
        session.stdin(Stdio::piped()).stdout(Stdio::piped());
        session.stderr(Stdio::piped());
        let mut session = Process(session.spawn().unwrap());
        let mut orders = session.0.stdin.take().unwrap();
        let out = BufReader::new(session.0.stdout.take().unwrap());
        let (send, lines) = async_std::channel::unbounded();
        std::thread::spawn(move || {
            for line in out.lines() {
                send.try_send(line.unwrap()).unwrap();
            }
        });
        let heard = async || lines.recv().await.unwrap();
        writeln!(orders, "otp").unwrap();
        let code = heard().await;
        let keys = world.dir.text("d");
        let words = ["--keys", &keys, "--device", "kitchen"];
        let waiting = Waiting::start(asking(&world, DEVICE, &code, &words)).await;
        // What is refused, unknown or fails does not end it.
        let orders_that_fail = "onboard\nnonsense\notp --nope\ndelete -i none\n\n";
        write!(
            orders,
            "{orders_that_fail}approve --drx kitchen\nversion\nexit\n"
        )
        .unwrap();
        assert_eq!(heard().await, "Found 1 matching enrollment records");
        assert_eq!(heard().await, format!("Approved {}", waiting.id));
        assert_eq!(waiting.end().await.1, 0);
        let version = heard().await;
        assert!(version.starts_with("Version: "), "{version}");
        let ended = task::spawn_blocking(move || {
            let mut said = String::new();
            let stderr = session.0.stderr.as_mut().unwrap();
            std::io::Read::read_to_string(stderr, &mut said).unwrap();
            (said, session.0.wait().unwrap())
        });
        let (said, status) = ended.await;
        assert!(status.success(), "{said}");
        for want in [
            "The \"onboard\" command may not be used in interactive session",
            "Unknown command",
            "Could not find an option named \"nope\".",
        ] {
            assert!(said.contains(want), "{want}: {said}");
        }
        // Without keys it does not even begin.
        let (code, said) = failure(classic(&world, "interactive -a @nobody")).await;
        assert_eq!(code, 3, "{said}");
    });
}

/// Approving by itself, in a process; returns once it waits.
async fn auto(world: &World, words: &[&str]) -> Process {
    let mut command = world.noports(&["enroll", "auto", DEVICE]);
    command
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(err.any(|line| line.unwrap().contains("waiting for requests")));
        // It goes on saying things.
        std::thread::spawn(move || err.for_each(drop));
        Process(child)
    })
    .await
}

/// All it printed, once it has ended.
async fn ended(mut process: Process) -> String {
    task::spawn_blocking(move || {
        let mut text = String::new();
        let stdout = process.0.stdout.as_mut().unwrap();
        std::io::Read::read_to_string(stdout, &mut text).unwrap();
        assert!(process.0.wait().unwrap().success());
        text
    })
    .await
}

#[test]
fn requests_are_heard_at_once_also_after_a_restart_of_the_server() {
    block_on(async {
        let mut world = World::start().await;
        let mut server = world.serve_from_a_process().await;
        // Was there before, and is not meant.
        let code = otp(&world, DEVICE).await;
        let keys = world.dir.text("before");
        let words = ["--keys", &keys, "--device", "pi0"];
        let before = Waiting::start(asking(&world, DEVICE, &code, &words)).await;

        let approver = auto(&world, &["--device-pattern", "pi.", "--limit", "2"]).await;
        let mut ids = Vec::new();
        for device in ["other", "pi1", "pi2"] {
            if device == "pi2" {
                server.kill();
                server = world.serve();
            }
            let code = otp(&world, DEVICE).await;
            let keys = world.dir.text(device);
            let words = ["--keys", &keys, "--device", device];
            let waiting = Waiting::start(asking(&world, DEVICE, &code, &words)).await;
            if device == "other" {
                continue;
            }
            // Without hearing it would take half a minute.
            let asked = std::time::Instant::now();
            ids.push(waiting.id.clone());
            assert_eq!(waiting.end().await.1, 0, "{device}");
            let took = asked.elapsed();
            assert!(
                took < std::time::Duration::from_secs(20),
                "{device}: {took:?}"
            );
        }
        let lines: String = ids.iter().map(|id| format!("approved {id}\n")).collect();
        assert_eq!(ended(approver).await, lines);
        let pending = decide(&world, &["list", DEVICE, "--status", "pending"]).await;
        assert!(
            pending.contains(&before.id) && pending.contains("other"),
            "{pending}"
        );

        // Keys that may not decide would wait for ever.
        let pi1 = world.dir.text("pi1");
        let words = [
            "enroll", "auto", DEVICE, "--device", "x", "--keys", &pi1, "-q",
        ];
        let (code, said) = failure(world.noports(&words)).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("may not manage enrolments"), "{said}");
    });
}

#[test]
fn a_key_file_is_protected_changed_and_opened_again_without_loss() {
    block_on(async {
        let world = World::start().await;
        let file = world.key_file(&DEVICE.parse().unwrap());
        // Something that other programs keep in it.
        let text = fs::read_to_string(&file).unwrap();
        let whole = text.replacen('{', "{\"extra\":\"kept\",", 1);
        fs::write(&file, &whole).unwrap();
        let words = |name: &str, text: &str| {
            fs::write(world.dir.path(name), text).unwrap();
            world.dir.text(name)
        };
        let (one, two) = (
            words("one", "first phrase!\n"),
            words("two", "second phrase\n"),
        );
        let keys = |words: &[&str]| world.noports(&[&["keys"], words].concat());
        let logs_in = async |phrase: &str| {
            let words = ["enroll", "list", DEVICE, "-q", "--passphrase-file", phrase];
            output(world.noports(&words)).await.status.code()
        };

        let line = stdout(keys(&[
            "protect",
            DEVICE,
            "--passphrase-file",
            &one,
            "--json",
        ]))
        .await;
        assert_eq!(member(line.trim(), "event"), "protected");
        assert_eq!(member(line.trim(), "keys"), file.display().to_string());
        let under_one = fs::read_to_string(&file).unwrap();
        assert!(under_one.starts_with(r#"{"content":""#), "{under_one}");
        assert_eq!(mode(&file), 0o600);
        assert_eq!(
            (logs_in(&one).await, logs_in(&two).await),
            (Some(0), Some(3))
        );

        // A phrase that does not open it, or no new one, changes nothing.
        for (words, code) in [
            (
                &[
                    "protect",
                    DEVICE,
                    "--passphrase-file",
                    &two,
                    "--new-passphrase-file",
                    &one,
                ][..],
                3,
            ),
            (&["protect", DEVICE, "--passphrase-file", &one], 2),
            (&["protect", DEVICE], 3),
            (&["unprotect", DEVICE, "--passphrase-file", &two], 3),
            (&["unprotect", DEVICE], 3),
            (&["open", DEVICE], 2),
        ] {
            let (exit, said) = failure(keys(words)).await;
            assert_eq!(exit, code, "{words:?}: {said}");
            assert!(said.contains("\n  hint: "), "{words:?}: {said}");
            assert_eq!(fs::read_to_string(&file).unwrap(), under_one, "{words:?}");
        }

        let words = [
            "protect",
            DEVICE,
            "--passphrase-file",
            &one,
            "--new-passphrase-file",
            &two,
        ];
        stdout(keys(&words)).await;
        assert_eq!(
            (logs_in(&one).await, logs_in(&two).await),
            (Some(3), Some(0))
        );
        let copy = world.dir.text("plain.atKeys");
        let words = [
            "unprotect",
            DEVICE,
            "--passphrase-file",
            &two,
            "--out",
            &copy,
        ];
        stdout(keys(&words)).await;
        assert_eq!(fs::read_to_string(&copy).unwrap(), whole);
        assert_eq!(mode(Path::new(&copy)), 0o600);
        let (exit, said) = failure(keys(&words)).await;
        assert!(
            exit == 3 && said.contains("there is already a key file"),
            "{said}"
        );

        // The classic way to the same.
        let target = world.dir.text("classic");
        let words = format!("decrypt -a {DEVICE} -P wrong -t {target}");
        assert_eq!(failure(classic(&world, &words)).await.0, 3);
        let mut decrypt = classic(&world, &format!("decrypt -a {DEVICE} -t {target}"));
        decrypt.env("NOPORTS_PASSPHRASE", "second phrase");
        assert_eq!(
            stdout(decrypt).await,
            format!("[Success] Decrypted atKeys file stored at {target}.atKeys\n")
        );
        assert_eq!(
            fs::read_to_string(format!("{target}.atKeys")).unwrap(),
            whole
        );

        stdout(keys(&["unprotect", DEVICE, "--passphrase-file", &two])).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), whole);
        assert_eq!(mode(&file), 0o600);
        let folder = fs::read_dir(file.parent().unwrap()).unwrap();
        assert_eq!(folder.count(), 3, "nothing is left over");
        let (exit, said) = failure(keys(&["unprotect", DEVICE])).await;
        assert!(exit == 3 && said.contains("is not protected"), "{said}");
    });
}

#[test]
fn a_name_means_one_device_and_nothing_far_reaching_is_granted_unseen() {
    block_on(async {
        let world = World::start().await;
        let approver = auto(&world, &["--device", "kitchen", "--limit", "1"]).await;
        let ask = async |device, namespaces| requested(&world, device, namespaces).await;
        let mut evil = Vec::new();
        for (device, namespaces) in [
            ("evilkitchen", "*:rw,__manage:rw"),
            ("kitchen2", "sshnp:rw,sshrvd:rw"),
            ("Kitchen", "sshnp:rw,sshrvd:rw"),
            ("k.tchen", "sshnp:rw"),
        ] {
            evil.push(ask(device, namespaces).await);
        }
        // The right name, and more than NoPorts needs: seen, not granted.
        let greedy = ask("kitchen", "sshnp:rw, __manage:rw,sshrvd:rw").await;
        decide(&world, &["deny", DEVICE, &greedy.id]).await;
        let right = ask("kitchen", "sshrvd:rw,sshnp:rw,sshnp:rw").await;
        assert_eq!(ended(approver).await, format!("approved {}\n", right.id));
        assert_eq!(right.end().await.1, 0);
        let pending = decide(&world, &["list", DEVICE, "--status", "pending"]).await;
        for one in &evil {
            assert!(pending.contains(&one.id), "{pending}");
        }

        // The same with one word of the owner's, who may name what is granted all the same.
        let far = &evil[0].id;
        for words in [
            &["approve", DEVICE, "--device", "evilkitchen", "--yes"][..],
            &["approve", DEVICE, far, "--yes"],
            &["approve", DEVICE, far, "--yes", "--grant", "*:rw"],
            &[
                "approve",
                DEVICE,
                far,
                "--yes",
                "--grant",
                "*:r,__manage:rw",
            ],
        ] {
            let (code, said) =
                failure(world.noports(&[&["enroll"], words, &["-q"]].concat())).await;
            assert_eq!(code, 1, "{words:?}: {said}");
            assert!(
                said.contains("is not granted without asking"),
                "{words:?}: {said}"
            );
        }
        for words in [
            // By that very name there are some, and it says what they are.
            (&["--device", "kitchen"][..], "kitchen is approved already"),
            (
                &["--device", "itchen2"],
                "no pending enrolment that matches",
            ),
            (
                &["--device", "kitchen.*"],
                "no pending enrolment that matches",
            ),
            (
                &["--device-pattern", "itchen"],
                "no pending enrolment that matches",
            ),
        ] {
            let (words, want) = words;
            let words = [&["enroll", "approve", DEVICE, "--yes", "-q"], words].concat();
            let (code, said) = failure(world.noports(&words)).await;
            assert_eq!(code, 1, "{words:?}: {said}");
            assert!(said.contains(want), "{words:?}: {said}");
        }
        for words in [
            &["approve", DEVICE, "--device", "", "--yes"][..],
            &["revoke", DEVICE, "--device-pattern", "("],
            &["deny", DEVICE, "--device-pattern", ".itchen.*"],
        ] {
            let (code, said) =
                failure(world.noports(&[&["enroll"], words, &["-q"]].concat())).await;
            assert_eq!(code, 2, "{words:?}: {said}");
        }
        let words = [
            "approve",
            DEVICE,
            far,
            "--yes",
            "--grant",
            "*:rw,__manage:rw",
        ];
        let granted = output(world.noports(&[&["enroll"], &words[..], &["-q"]].concat())).await;
        assert_eq!(
            String::from_utf8_lossy(&granted.stdout),
            format!("approved {far}\n")
        );
        let said = String::from_utf8_lossy(&granted.stderr);
        assert!(
            said.contains("granted *:rw, __manage:rw to noports on evilkitchen"),
            "{said}"
        );
    });
}

#[test]
fn a_classic_pattern_grants_what_one_namespace_needs_and_never_all_of_an_atsign() {
    block_on(async {
        let world = World::start().await;
        let mut waiting = Vec::new();
        for (device, namespaces) in [("buzz1", "buzz:rw"), ("buzz2", "buzz:rw,*:rw")] {
            waiting.push(requested(&world, device, namespaces).await);
        }
        let (plain, far) = (&waiting[0].id, &waiting[1].id);
        let done = output(classic(&world, &format!("approve -a {DEVICE} --drx uzz"))).await;
        let (out, said) = (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        assert_eq!(
            out,
            format!("Found 2 matching enrollment records\nApproved {plain}\n")
        );
        assert!(
            said.contains("asks for *:rw, which is not granted without asking"),
            "{said}"
        );
        let out = stdout(classic(&world, &format!("approve -a {DEVICE} -i {far}"))).await;
        assert_eq!(out, format!("Approved {far}\n"));
    });
}

/// How a login with these keys ends.
async fn log_in(world: &World, keys: &noports::at::keyfile::AtKeys) -> String {
    let mut link = Link::connect(&world.network, &keys.atsign).await.unwrap();
    match link.login(keys).await {
        Ok(()) => "in".to_owned(),
        Err(why) => why.to_string(),
    }
}

#[test]
fn a_device_that_waits_or_was_revoked_makes_nobody_behind_its_address_wait() {
    block_on(async {
        let mut world = World::start().await;
        let _server = world.serve_from_a_process().await;
        let who: AtSign = DEVICE.parse().unwrap();
        let applicant = wire::Applicant::new(&who).unwrap();
        let ours = world.keys(DEVICE).encryption.public().clone();
        let mut link = Link::connect(&world.network, &who).await.unwrap();
        let wish = wire::EnrolmentRequest {
            app: "noports".into(),
            device: "pi7".into(),
            namespaces: [("sshnp".to_owned(), "rw".to_owned())].into(),
            otp: noports::secret::Secret::new(otp(&world, DEVICE).await),
            life: None,
        };
        let answer = link.ask(&applicant.request(&wish, &ours).unwrap()).await;
        let (id, _) = wire::parse_answer(&answer.unwrap()).unwrap();
        let keys = applicant.provisional(Some(&id));
        // In each state as often as would have cost everybody half a minute.
        for (word, code) in [("", "AT0026"), ("approve", "in"), ("revoke", "AT0027")] {
            match word {
                "" => {}
                "approve" => drop(decide(&world, &["approve", DEVICE, &id, "--yes"]).await),
                word => drop(decide(&world, &[word, DEVICE, &id]).await),
            }
            let began = std::time::Instant::now();
            for _ in 0..12 {
                let said = log_in(&world, &keys).await;
                assert!(said.contains(code), "{word}: {said}");
            }
            decide(&world, &["list", DEVICE]).await;
            let took = began.elapsed();
            assert!(took < std::time::Duration::from_secs(8), "{word}: {took:?}");
        }
        // Whoever knows no more than its id guesses, and so does who makes one up. They wait, and nobody else does:
        // for the seventh of them it would be four seconds.
        let other = wire::Applicant::new(&who).unwrap();
        for id in [&id, "made-up", &id, "made-up", &id, &id] {
            let said = log_in(&world, &other.provisional(Some(id))).await;
            assert!(said.contains("refused the login"), "{said}");
        }
        let began = std::time::Instant::now();
        decide(&world, &["list", DEVICE]).await;
        assert!(began.elapsed() < std::time::Duration::from_secs(4));
    });
}

#[test]
fn a_daemon_whose_keys_are_revoked_says_so_and_goes_on() {
    block_on(async {
        let world = World::start().await;
        let id = enrolled(&world, DEVICE, "d", &[]).await;
        let service = answer_at_the_end().await.to_string();
        let mut process = world.process(&daemon(&world.dir.text("d"), &service));
        decide(&world, &["revoke", DEVICE, &id]).await;
        let words = "this device's keys were revoked; `noports enroll unrevoke`";
        crate::world::until("the daemon says so", || world.log("daemon").contains(words)).await;
        let log = world.log("daemon");
        let line = log.lines().find(|line| line.contains(words)).unwrap();
        assert!(line.contains("ERROR") || line.contains("error"), "{line}");
        assert!(line.contains("again_in=2m"), "{line}");
        assert!(
            process.0.try_wait().unwrap().is_none(),
            "it waits for unrevoke"
        );
        // A new start says so at once, and ends.
        let (code, said) = failure(world.noports(&daemon(&world.dir.text("d"), &service))).await;
        assert_eq!(code, 6, "{said}");
        assert!(
            said.contains(
                "hint: these keys were revoked; on a device with keys: noports enroll unrevoke"
            ),
            "{said}"
        );
    });
}

/// Ending would mean a new start, and a login, every three seconds.
#[test]
fn a_watched_daemon_whose_keys_are_revoked_waits_for_them() {
    block_on(async {
        let world = World::start().await;
        let id = enrolled(&world, DEVICE, "d", &[]).await;
        decide(&world, &["revoke", DEVICE, &id]).await;
        let (keys, service) = (world.dir.text("d"), answer_at_the_end().await.to_string());
        let state = world.dir.path("state");
        let mut command = world.noports(&daemon(&keys, &service));
        command.env("NOPORTS_STATE", &state).stderr(Stdio::null());
        let mut process = Process(command.spawn().unwrap());
        let told = || noports::sys::supervisor::read(&state);
        crate::world::until("the state is told", || {
            told().is_some_and(|told| told.text.contains("keys were revoked"))
        })
        .await;
        assert_eq!(told().unwrap().state, "lost");
        assert!(process.0.try_wait().unwrap().is_none());
    });
}

/// All of them, at once; exit code and stderr of each.
async fn at_once(commands: Vec<Command>) -> Vec<(i32, String)> {
    let runs = commands.into_iter().map(|mut command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let runs: Vec<_> = runs.collect();
    let ended = move || {
        let ended = runs.into_iter().map(|run| {
            let output = run.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            (output.status.code().unwrap(), said)
        });
        ended.collect()
    };
    task::spawn_blocking(ended).await
}

/// All of them wrote the same draft, and the one that came through had another one's keys in its key file: the secret was
/// used, and nobody could log in any more.
#[test]
fn several_activations_at_once_leave_keys_that_work() {
    block_on(async {
        let world = World::start().await;
        for (who, same) in [("@race", true), ("@apart", false)] {
            let secret = world.add(who).await;
            let keys = |n: usize| {
                world
                    .dir
                    .text(&format!("{who}{}", if same { 0 } else { n }))
            };
            let run = |n| {
                let mut command = world.noports(&["activate", who, "--keys", &keys(n)]);
                command.env("NOPORTS_SECRET", secret.reveal());
                command
            };
            let ended = at_once((0..4).map(run).collect()).await;
            let won: Vec<_> = (0..4).filter(|n| ended[*n].0 == 0).collect();
            assert_eq!(won.len(), 1, "{ended:?}");
            for (code, said) in ended.iter().filter(|run| run.0 != 0) {
                assert!([1, 3, 6].contains(code), "{said}");
                assert!(
                    !said.contains("AT00") && said.contains("  hint: "),
                    "{said}"
                );
            }
            let keys = keys(won[0]);
            let listed = stdout(world.noports(&["enroll", "list", who, "--keys", &keys])).await;
            assert!(listed.contains("approved"), "{listed}");
            let mut left = world.dir.names();
            left.retain(|name| name.starts_with(who));
            assert_eq!(left, [format!("{who}{}", if same { 0 } else { won[0] })]);
        }
    });
}

#[test]
fn several_runs_at_once_ask_once_and_approve_once() {
    block_on(async {
        let world = World::start().await;
        let code = otp(&world, DEVICE).await;
        let keys = world.dir.text("d");
        let first = Waiting::start(asking(&world, DEVICE, &code, &["--keys", &keys])).await;
        let second = asking(&world, DEVICE, &code, &["--keys", &keys]);
        let (exit, said) = failure(second).await;
        assert!(
            exit == 3 && said.contains("another run is at work"),
            "{said}"
        );
        let words = ["enroll", "approve", DEVICE, &first.id, "--yes"];
        let ended = at_once((0..4).map(|_| world.noports(&words)).collect()).await;
        assert_eq!(
            ended.iter().filter(|run| run.0 == 0).count(),
            1,
            "{ended:?}"
        );
        assert!(ended.iter().all(|run| !run.1.contains("AT00")), "{ended:?}");
        assert_eq!(first.end().await.1, 0);
        assert!(!world.dir.path("d.lock").exists());

        fs::write(world.dir.path("phrase"), "a long phrase").unwrap();
        let phrase = world.dir.text("phrase");
        let words = [
            "keys",
            "protect",
            DEVICE,
            "--keys",
            &keys,
            "--new-passphrase-file",
            &phrase,
        ];
        let ended = at_once((0..4).map(|_| world.noports(&words)).collect()).await;
        assert_eq!(
            ended.iter().filter(|run| run.0 == 0).count(),
            1,
            "{ended:?}"
        );
    });
}

#[test]
fn a_resumed_run_tells_nothing_that_was_not_asked() {
    block_on(async {
        let world = World::start().await;
        let keys = world.dir.text("d");
        let code = otp(&world, DEVICE).await;
        let mut first = Waiting::start(asking(&world, DEVICE, &code, &["--keys", &keys])).await;
        first.process.kill();
        drop(first);
        let base = ["enroll", DEVICE, "--keys", &keys, "--timeout", "1s"];
        let more = [
            "--namespaces",
            "other:rw",
            "--life",
            "1h",
            "--device",
            "elsewhere",
        ];
        let (_, said) = failure(world.noports(&[&base[..], &more].concat())).await;
        assert!(said.contains("as it was asked then"), "{said}");
        assert!(
            !said.contains("other:rw") && !said.contains("elsewhere"),
            "{said}"
        );
        let (exit, said) = failure(world.noports(&["enroll", DEVICE, "--life", "0s"])).await;
        assert!(exit == 2 && said.contains("would never be valid"), "{said}");
    });
}

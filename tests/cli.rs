//! The command line as text.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use async_std::task::block_on;

use crate::world::{
    ALICE, DEVICE, Folder, NAME, NOPORTS, RENDEZVOUS, World, answer_at_the_end, failure, output,
    stdout,
};

fn noports(words: &[&str]) -> Command {
    let mut command = Command::new(NOPORTS);
    command.args(words);
    for name in [
        "NOPORTS_ROOT",
        "NOPORTS_CA",
        "NOPORTS_KEYS",
        "NOPORTS_AS",
        "NOPORTS_VIA",
    ] {
        command.env_remove(name);
    }
    command.env("NOPORTS_CONFIG", "");
    command
}

#[test]
fn words_for_ssh_that_lead_elsewhere_are_refused_before_anything_is_asked() {
    block_on(async {
        let dir = Folder::new();
        for (words, option) in [
            (&["-p", "2222"][..], "port 2222"),
            (&["-J", "bastion"], "proxyjump bastion"),
            (&["-oHostName=nas", "uname"], "hostname nas"),
            (&["-o", "ProxyCommand nc %h %p"], "proxycommand nc %h %p"),
        ] {
            let mut command = Command::new(NOPORTS);
            command
                .args(["client", "--to", "@device", "--via", "@rv", "--"])
                .args(words)
                .env("HOME", &dir.0);
            let (code, said) = failure(command).await;
            let want =
                format!("the ssh option \"{option}\" would not lead to the device\n  hint: ");
            assert!(code == 2 && said.contains(&want), "{code} {said}");
        }
    });
}

#[test]
fn a_newcomer_is_told_what_there_is() {
    block_on(async {
        let overview = stdout(noports(&[])).await;
        assert!(
            overview.starts_with("noports reaches a device that has no open port.\n"),
            "{overview}"
        );
        for applet in noports::program::PROGRAMS {
            // Those without a line of their own are not shown.
            assert_eq!(
                overview.contains(&format!("\n  {:<11} {}", applet.name, applet.about)),
                !applet.about.is_empty(),
                "{}",
                applet.name
            );
            let help = stdout(noports(&[applet.name, "--help"])).await;
            let usage = format!("\nUsage: noports {}", applet.name);
            assert!(help.contains(&usage), "{help}");
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", applet.name);
            }
        }
        assert_eq!(stdout(noports(&["help"])).await, overview);
        assert_eq!(
            stdout(noports(&["--version"])).await,
            concat!("noports ", env!("CARGO_PKG_VERSION"), "\n")
        );
    });
}

#[test]
fn the_executable_finds_itself_in_order() {
    block_on(async {
        let told = stdout(noports(&["selftest", "--json"])).await;
        // Behind the parts stand programs that run on this machine, whosever they are.
        let is_running = |line: &&str| line.contains(r#""part":"running""#);
        let lines: Vec<_> = told.lines().filter(|line| !is_running(line)).collect();
        let parts = [
            "random", "aes", "rsa", "keys", "tls", "relay", "store", "sandbox",
        ];
        for (part, line) in parts.iter().zip(&lines) {
            let want = format!(r#"{{"event":"selftest","part":"{part}","ok":true,"ms":"#);
            assert!(line.starts_with(&want), "{line}");
        }
        assert_eq!(lines.len(), parts.len(), "{told}");
        let mut nowhere = noports(&["selftest"]);
        nowhere.env("TMPDIR", "/proc/nowhere");
        let refused = failure(nowhere).await;
        assert_eq!(refused.0, 1, "{}", refused.1);
        assert!(
            refused.1.contains("no temporary folder /proc/nowhere"),
            "{}",
            refused.1
        );
    });
}

#[test]
fn misuse_says_what_and_what_to_try_and_ends_with_2() {
    block_on(async {
        for (words, want) in [
            (
                &["demon"][..],
                "noports: there is no program \"demon\"\n  hint: noports daemon\n",
            ),
            (
                &["client", "--to", "@d"],
                "noports client: no rendezvous given\n  hint: noports client --to @d --via @rv_eu\n",
            ),
            (
                &["client", "--to", "@d", "--via", "@r", "--stdio", "--print"],
                "noports client: --stdio and --print exclude each other\n",
            ),
            (
                &["daemon", "--as", "@d"],
                "noports daemon: no manager: give at least one --manager or a --policy\n  hint: noports daemon --as @d --manager @alice\n",
            ),
            (
                &["client", "--to", "@a@b", "--via", "@r"],
                "noports client: invalid atSign \"@a@b\": it has more than one @\n",
            ),
            (
                &["daemon", "--manager", "@m", "--permit-open", "x"],
                "noports daemon: \"x\" is not host:port, where either may be *\n  hint: noports daemon --manager @m --permit-open 'localhost:22,nas:*'\n",
            ),
        ] {
            assert_eq!(
                failure(noports(words)).await,
                (2, want.to_owned()),
                "{words:?}"
            );
        }
    });
}

#[test]
fn names_places_and_options_are_judged_where_they_enter() {
    let client = "client --to @d --via @r";
    let tunnel = "tunnel --to @d --via @r --forward";
    let daemon = "daemon --as @d --manager @m";
    let check = "policy check @a @b pi --rules /dev/null";
    block_on(async {
        for (words, last, want) in [
            (client, "--device|a.b", "\"a.b\" is not a device name: "),
            (
                client,
                "--user|-oProxyCommand=x",
                "\"-oProxyCommand=x\" is not a user name: ",
            ),
            (client, "--send-key|/dev/null", "/dev/null: "),
            (
                "client --via @r",
                "--to|@d e",
                "invalid atSign \"@d e\": it contains white space",
            ),
            (
                tunnel,
                "80:-x:1",
                "\"80:-x:1\" is not [BIND:]PORT:HOST:PORT",
            ),
            (
                tunnel,
                "80:a b:1",
                "\"80:a b:1\" is not [BIND:]PORT:HOST:PORT",
            ),
            (
                tunnel,
                "80:localhost:0",
                "\"80:localhost:0\" is not [BIND:]PORT:HOST:PORT",
            ),
            (
                tunnel,
                "x:localhost:1",
                "\"x:localhost:1\" is not [BIND:]PORT:HOST:PORT",
            ),
            (
                tunnel,
                "80:h:1|--device|a/b",
                "\"a/b\" is not a device name: ",
            ),
            (daemon, "--device|a.b", "\"a.b\" is not a device name: "),
            (daemon, "--device|-x", "\"-x\" is not a device name: "),
            (
                daemon,
                "--manager|@a b",
                "invalid atSign \"@a b\": it contains white space",
            ),
            (daemon, "--permit-open|a:b", "\"a:b\" is not host:port"),
            (
                daemon,
                "--permit-open|localhost:22,a\nb:1",
                "\"a\\nb:1\" is not host:port",
            ),
            (daemon, "--key-options|a\nb", "Detected newline characters"),
            (
                daemon,
                "--temporary-key-options|a\nb",
                "Detected newline characters",
            ),
            (
                daemon,
                "--policy|@p q",
                "invalid atSign \"@p q\": it contains white space",
            ),
            (
                daemon,
                "--policy|@p|--device-group|a\nb",
                "\"a\\nb\" is not a device group",
            ),
            (
                "rendezvous --as @r",
                "--host|a b",
                "\"a b\" is not a host name or address",
            ),
            (
                "rendezvous --as @r",
                "--host|a,b",
                "\"a,b\" is not a host name or address",
            ),
            (
                "rendezvous --as @r --host h",
                "--manager|@x y",
                "invalid atSign \"@x y\": it contains white space",
            ),
            (
                "devices --to @d",
                "--device|a.b",
                "\"a.b\" is not a device name: ",
            ),
            (
                "devices",
                "--device|pi",
                "--device needs the device's atSign",
            ),
            (check, "--group|a\nb", "\"a\\nb\" is not a device group"),
            (check, "--open|x", "\"x\" is not host:port"),
            (
                "policy check @a @b",
                "a.b|--rules|/dev/null",
                "\"a.b\" is not a device name: ",
            ),
            (
                "policy serve --as @p --rules /dev/null",
                "--daemon|@a b",
                "invalid atSign \"@a b\": it contains white space",
            ),
        ] {
            let words: Vec<&str> = words.split(' ').chain(last.split('|')).collect();
            let (code, said) = failure(noports(&words)).await;
            let want = format!("noports {}: {want}", words[0]);
            assert_eq!(code, 2, "{words:?}: {said}");
            assert!(said.starts_with(&want), "{words:?}: {said}");
        }
    });
}

/// Every flag for a time goes through one parser, and refuses in the same words.
#[test]
fn durations_are_refused_in_the_same_words_everywhere() {
    let client = "client --to @d --via @r";
    let tunnel = "tunnel --to @d --via @r --forward 80:h:1";
    block_on(async {
        for (words, flag, value, examples) in [
            (tunnel, "--idle-timeout", "soon", "90s, 1h30m or 7d"),
            (tunnel, "--timeout", "1h30", "90s, 1h30m or 7d"),
            (client, "--timeout", "500ms", "90s, 1h30m or 7d"),
            (client, "--idle-timeout", "1w", "90s, 1h30m or 7d"),
            ("devices", "--timeout", "1h,", "90s, 1h30m or 7d"),
            ("enroll @a", "--timeout", "1.5h", "90s, 1h30m or 7d"),
            ("enroll @a", "--life", "1w", "500ms, 90s, 1h30m or 7d"),
            ("enroll otp @a", "--ttl", "-1h", "500ms, 90s, 1h30m or 7d"),
            (
                "npt -f @a -t @d -r @r -d x -p 1",
                "-T",
                "soon",
                "90s, 1h30m or 7d",
            ),
        ] {
            let words: Vec<&str> = words.split(' ').chain([flag, value]).collect();
            let (code, said) = failure(noports(&words)).await;
            let want = format!("invalid duration \"{value}\": such as {examples}\n");
            let classic = words[0] == "npt";
            assert_eq!(code, if classic { 1 } else { 2 }, "{words:?}: {said}");
            assert!(said.contains(&want), "{words:?}: {said}");
        }
        // What is one goes on to the next complaint.
        for value in ["90", "90s", "1h30m", "1h,30m", "1d 2h"] {
            let words = "client --to @d@e --via @r --timeout".split(' ');
            let words: Vec<&str> = words.chain([value]).collect();
            let (_, said) = failure(noports(&words)).await;
            assert!(said.contains("more than one @"), "{value}: {said}");
        }
    });
}

/// A command line that is refused as the classic programs refuse it.
async fn refused(mut command: Command) -> String {
    command.env_remove("NOPORTS_VIA").env_remove("NOPORTS_AS");
    let (code, said) = failure(command).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("Version : "), "{said}");
    let (usage, message) = said.trim_end().rsplit_once("\n\n").unwrap();
    assert!(usage.contains("\n\n  "), "{said}");
    message.to_owned()
}

#[test]
fn the_name_of_the_link_chooses_the_program() {
    block_on(async {
        let dir = Folder::new();
        for (link, words, want) in [
            (
                "sshnp",
                &["-t", "@d", "-f", "@me"][..],
                "srvdAtSign is mandatory, unless list-devices is passed.",
            ),
            (
                "npt",
                &["-f", "@me", "-t", "@d", "-r", "@r", "-d", "pi"],
                "Option remote-port is mandatory.",
            ),
            (
                "sshnpd",
                &["-a", "@d"],
                "At least one of --managers and --policy-manager options must be supplied.",
            ),
            ("srvd", &["-a", "@r"], "Option ip is mandatory."),
            (
                "sshrvd",
                &["--nope"],
                "Could not find an option named \"nope\".",
            ),
            ("npp_file", &["-a", "@p"], "Option yaml is mandatory."),
            (
                "npp_atserver",
                &["-a", "@p", "--yaml", "f"],
                "Could not find an option named \"yaml\".",
            ),
            // What only our own program finds out is told in the same way.
            (
                "sshnpd",
                &["-a", "@d", "-m", "@me", "-d", "a.b"],
                "\"a.b\" is not a device name: it needs 1 to 36 of a-z, 0-9, _ and -, the first one not a -",
            ),
        ] {
            let path = dir.path(link);
            let _ = symlink(NOPORTS, &path);
            let mut command = Command::new(path);
            command.args(words);
            assert_eq!(refused(command).await, want, "{link} {words:?}");
        }
    });
}

#[test]
fn the_classic_programs_tell_their_options_and_version() {
    block_on(async {
        for link in ["sshnp", "npt", "sshnpd", "srvd", "npp_file", "npp_atserver"] {
            let version = stdout(noports(&[link, "--version"])).await;
            assert!(version.starts_with("Version : "), "{version}");
            let help = stdout(noports(&[link, "--help"])).await;
            assert!(help.starts_with(&version), "{help}");
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.contains("--"), "{line}");
            }
        }
        let help = stdout(noports(&["sshnp", "--help"])).await;
        assert!(help.contains("\n  -f, --from "), "{help}");
        assert!(help.contains("--list-devices, --ls"), "{help}");
    });
}

/// A folder in which files of flags are looked for, and a command that looks there.
fn configured(dir: &Folder, program: &str, text: &str, words: &[&str]) -> (String, Command) {
    fs::create_dir_all(dir.path("noports")).unwrap();
    let file = dir.text(&format!("noports/{program}.conf"));
    fs::write(&file, text).unwrap();
    let mut command = noports(words);
    command
        .env_remove("NOPORTS_CONFIG")
        .env("XDG_CONFIG_HOME", &dir.0);
    (file, command)
}

/// A client with this file, these words and this `NOPORTS_VIA` (empty: none) ends with 2; `want` is its first line, where
/// `FILE` stands for the file.
async fn client_is_refused(dir: &Folder, text: &str, words: &[&str], via: &str, want: &str) {
    let words = [&["client"], words].concat();
    let (file, mut command) = configured(dir, "client", text, &words);
    if !via.is_empty() {
        command.env("NOPORTS_VIA", via);
    }
    let (code, said) = failure(command).await;
    let line = said.lines().next().unwrap_or_default();
    let want = format!("noports client: {}", want.replace("FILE", &file));
    assert_eq!((code, line), (2, want.as_str()), "{text} {words:?}");
}

#[test]
fn flags_come_from_the_command_line_then_the_environment_then_a_file() {
    block_on(async {
        let dir = Folder::new();
        let both = "no name\nto @in@file\nvia @r\n";
        for (text, words, variable, want) in [
            // The file's own, where nothing else says anything.
            (
                "to @in@file\nvia @r",
                &[][..],
                "",
                "FILE, line 1: invalid atSign \"@in@file\": it has more than one @",
            ),
            (
                "\n# x\nto @d\nvia @x@y",
                &[],
                "",
                "FILE, line 4: invalid atSign \"@x@y\": it has more than one @",
            ),
            (
                "to @in@file\nvia @r",
                &["--to", "@on@line"],
                "",
                "invalid atSign \"@on@line\": it has more than one @",
            ),
            (
                "to @d\nvia @x@y",
                &[],
                "@en@v",
                "NOPORTS_VIA: invalid atSign \"@en@v\": it has more than one @",
            ),
            (
                "to @d\nvia @x@y",
                &["--via", "@on@line"],
                "@en@v",
                "invalid atSign \"@on@line\": it has more than one @",
            ),
            (
                "to @d\nvia @r\ntimeout soon",
                &[],
                "",
                "FILE, line 3: --timeout: invalid duration \"soon\": such as 90s, 1h30m or 7d",
            ),
            (both, &[], "", "FILE, line 1: unknown flag"),
            (
                "via @r\nvai @s",
                &[],
                "",
                "FILE, line 2: unknown flag \"vai\"; did you mean via?",
            ),
            ("to=@d", &[], "", "FILE, line 1: write to @d, without the ="),
            ("to", &[], "", "FILE, line 1: to needs a value"),
            ("stdio yes", &[], "", "FILE, line 1: stdio takes no value"),
            (
                "to @a\nto @b",
                &[],
                "",
                "FILE, line 2: to is already set on line 1",
            ),
        ] {
            client_is_refused(&dir, text, words, variable, want).await;
        }
        // Another file, none, and one that anybody may write.
        let (_, mut command) = configured(&dir, "client", "to @a@b", &["client", "--to", "@d"]);
        let other = dir.text("other");
        fs::write(&other, "to @d\nvia @o@p\n").unwrap();
        command.args(["--config", &other]);
        let want = format!(
            "noports client: {other}, line 2: invalid atSign \"@o@p\": it has more than one @\n"
        );
        assert_eq!(failure(command).await, (2, want));
        let (_, mut command) =
            configured(&dir, "client", "to @a@b\nvia @r", &["client", "--to", "@d"]);
        command.env("NOPORTS_CONFIG", "");
        assert!(failure(command).await.1.contains("no rendezvous given"));
        let missing = failure(noports(&["daemon", "--config", "/no/such"])).await;
        assert_eq!(missing.0, 2);
        assert!(
            missing
                .1
                .starts_with("noports daemon: cannot use /no/such: "),
            "{}",
            missing.1
        );
        fs::set_permissions(&other, fs::Permissions::from_mode(0o666)).unwrap();
        let open = failure(noports(&["client", "--config", &other])).await;
        let want =
            format!("noports client: cannot use {other}: others can write it: chmod o-w {other}\n");
        assert_eq!(open, (2, want));
        let told = stdout(noports(&["policy", "serve", "--help"])).await;
        assert!(told.contains("Flags can also come from a file"), "{told}");
    });
}

#[test]
fn a_pipe_in_the_usual_files_place_is_refused_and_an_authority_is_a_file() {
    block_on(async {
        let dir = Folder::new();
        let (file, command) = configured(&dir, "client", "", &["client", "--to", "@d"]);
        fs::remove_file(&file).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(&file)
                .status()
                .unwrap()
                .success()
        );
        let (code, said) = failure(command).await;
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("it is a pipe that nobody writes to"),
            "{said}"
        );

        let words = ["devices", "--ca", "/dev/zero"];
        let (code, said) = failure(noports(&words)).await;
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("/dev/zero: it is a device, not a file"),
            "{said}"
        );
    });
}

/// A file of flags was named for a value that the command line or the environment holds.
#[test]
fn a_config_file_is_not_blamed_for_mistakes_of_the_command_line() {
    block_on(async {
        let dir = Folder::new();
        let timeout = "--timeout: invalid duration \"99x\": such as 90s, 1h30m or 7d";
        for (text, words, variable, want) in [
            (
                "identity a b",
                "--to|a b|--via|@rv",
                "",
                "invalid atSign \"a b\": it contains white space",
            ),
            ("user 99x", "--timeout|99x|--to|@d", "", timeout),
            ("device 99x", "--timeout|99x|--to|@d", "", timeout),
            (
                "identity a b",
                "--to|@d",
                "a b",
                "invalid atSign \"a b\": it contains white space",
            ),
            (
                "identity a b\nto a b",
                "--via|@rv|--identity|k",
                "",
                "FILE, line 2: invalid atSign \"a b\": it contains white space",
            ),
            (
                "timeout 99x",
                "--to|@d|--user|99x",
                "",
                "FILE, line 1: TIMEOUT",
            ),
        ] {
            let words: Vec<&str> = words.split('|').collect();
            let want = want.replace("TIMEOUT", timeout);
            client_is_refused(&dir, text, &words, variable, &want).await;
        }
    });
}

#[test]
fn a_daemon_takes_its_flags_from_a_file_of_either_form() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let ours = world.dir.text("daemon.conf");
        let text = format!(
            "as {DEVICE}\nmanager @nobody\nmanager {ALICE}\ndevice {NAME}\nsshd-port {port}\n"
        );
        fs::write(&ours, text).unwrap();
        let yaml = world.dir.text("sshnpd.yaml");
        let text = format!(
            "atsign:\n  atsign: device\naccess:\n  managers: [nobody, alice]\ndevice:\n  name: {NAME}\nssh:\n  sshd-port: {port}\n"
        );
        fs::write(&yaml, text).unwrap();
        for file in [&ours, &yaml] {
            let daemon = world.process(&["daemon", "--config", file]);
            assert_eq!(stdout(world.client(&["--stdio"])).await, "", "{file}");
            drop(daemon);
        }
        fs::write(
            &yaml,
            "atsign:\n  atsign: device\nssh:\n  sshd-port: many\n",
        )
        .unwrap();
        let want = format!("{yaml}, line 4: ssh.sshd-port: \"many\" is not a port");
        let said = failure(world.noports(&["daemon", "--config", &yaml])).await;
        assert_eq!(said, (2, format!("noports daemon: {want}\n")));
        let classic = world.noports(&["sshnpd", "--config", &yaml]);
        assert_eq!(refused(classic).await, want);
    });
}

/// The lines of progress, without their times.
fn steps(said: &str) -> Vec<&str> {
    let lines = said.lines();
    lines
        .filter_map(|line| {
            let (moment, text) = line.split_once(" : ")?;
            let fits = moment.len() == "2026-11-21 10:00:00.123456Z".len() && moment.ends_with('Z');
            fits.then_some(text)
        })
        .collect()
}

#[test]
fn the_classic_clients_say_what_scripts_know() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = answer_at_the_end().await;
        let base = ["-f", ALICE, "-t", DEVICE, "-r", RENDEZVOUS];
        let sshnp = |more: &[&str]| world.noports(&[&["sshnp"], &base[..], more].concat());

        let alone = output(world.noports(&["sshnp", "--ls", "-f", ALICE, "--dpt", "1"])).await;
        let said = String::from_utf8(alone.stderr).unwrap();
        assert_eq!(
            (alone.status.code(), alone.stdout.len()),
            (Some(0), 0),
            "{said}"
        );
        assert!(
            said.ends_with("Searching for devices...\n[X] No devices found\n\n"),
            "{said}"
        );
        let (code, said) = failure(sshnp(&["-d", "nobody", "--dpt", "1"])).await;
        let want = "\n\nError : TimeoutException: Daemon feature check timed out\n  nobody@device did not answer within 1 s\n";
        assert!(code == 1 && said.contains(want), "{code} {said}");

        let port_text = port.to_string();
        let daemon = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
            "--sshd-port",
            &port_text,
        ];
        let _daemon = world.process(&daemon);
        let user = ["-d", NAME, "-u", "bob", "-x", "-l", "0"];
        let done = output(sshnp(&user)).await;
        let (told, said) = (
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        );
        assert!(
            told.starts_with("ssh -p ") && told.ends_with(" bob@localhost\n"),
            "{told}\n{said}"
        );
        // Not `jane@corp@localhost`.
        let user = ["-d", NAME, "-u", "jane@corp", "-x", "-l", "0"];
        let told = stdout(sshnp(&user)).await;
        assert!(told.ends_with(" -l jane@corp localhost\n"), "{told}");
        let start = [
            "Sending daemon feature check request",
            "Resolving remote username for user session",
            "Resolving remote username for tunnel session",
            "Fetching host and port from srvd",
            "Received host and port from srvd",
            "Waiting for daemon feature check response",
            "Received daemon feature check response",
            "Required daemon features are supported",
            "Sending session request to the device daemon",
            "Waiting for response from the device daemon",
            "Received response from the device daemon",
            "Creating connection to socket rendezvous",
        ];
        assert_eq!(steps(&said), start, "{said}");
        assert_eq!(said.lines().count(), start.len(), "{said}");
        for quiet in ["-q", "-v"] {
            let done = output(sshnp(&[&user[..], &[quiet]].concat())).await;
            assert_eq!(
                steps(&String::from_utf8(done.stderr).unwrap()),
                [""; 0],
                "{quiet}"
            );
        }

        let npt = ["npt", "-d", NAME, "-p", &port_text, "-x"];
        let done = output(world.noports(&[&npt[..], &base].concat())).await;
        let (told, said) = (
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        );
        let here: u16 = told.trim_end().parse().unwrap();
        assert_eq!(told, format!("{here}\n"));
        let listening = format!("npt is listening on localhost:{here}");
        let want = [
            &start[..1],
            &start[3..11],
            &["Finding an available local port", start[11], &listening],
        ]
        .concat();
        assert_eq!(steps(&said), want, "{said}");
        let denied = ["npt", "-d", NAME, "-p", "1", "-x"];
        let (code, said) = failure(world.noports(&[&denied[..], &base].concat())).await;
        // Scripts find the classic words, and nothing of ours between them.
        let want = "\nError : Received error response from the device daemon\n  the device refused: Connection to localhost:1 denied based on daemon --permit-open [";
        assert!(code == 1 && said.contains(want), "{code} {said}");
        assert!(!said.contains("the device permits"), "{said}");
    });
}

#[test]
fn devices_are_listed_hidden_and_in_the_classic_form() {
    block_on(async {
        let world = World::start().await;
        let daemon = |name: &'static str, more: &[&str]| {
            let base = [
                "daemon",
                "--as",
                DEVICE,
                "--manager",
                ALICE,
                "--device",
                name,
            ];
            world.process(&[&base[..], more].concat())
        };
        let (_shown, _hidden) = (daemon(NAME, &[]), daemon("shy", &["--hide"]));
        let devices = |words: &[&str]| {
            let base = [
                "devices",
                "--as",
                ALICE,
                "--to",
                DEVICE,
                "--timeout",
                "3",
                "-q",
            ];
            world.noports(&[&base[..], words].concat())
        };
        let mut listed = String::new();
        for _ in 0..200 {
            listed = stdout(devices(&[])).await;
            if listed.contains(NAME) {
                break;
            }
        }
        assert!(
            listed.contains(" active ") && !listed.contains("shy"),
            "{listed}"
        );
        let listed = stdout(devices(&["--device", "shy", "--device", "gone", "--json"])).await;
        let states: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.split('"').nth(15))
            .collect();
        // Those that are named as they were named.
        assert_eq!(states, ["active", "hidden", "silent"], "{listed}");
        let v = env!("CARGO_PKG_VERSION");
        let done =
            output(world.noports(&["sshnp", "--ls", "-f", ALICE, "-t", DEVICE, "--dpt", "3"]))
                .await;
        let said = String::from_utf8(done.stderr).unwrap();
        let want = format!(
            "Searching for devices...\nActive Devices:\n  {NAME} - v{v} (core vrust-{v})\n  - allowedServices: localhost:22 localhost:3389\nInactive Devices:\n  No devices found\n"
        );
        assert!(done.status.success() && said.ends_with(&want), "{said}");
    });
}

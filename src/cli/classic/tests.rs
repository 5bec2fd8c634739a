//! Every option, in every spelling, and the words of the launch scripts.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::{cli::exit, testing::Folder};

fn nothing(_: &str) -> Option<String> {
    None
}

/// Without any file, and with these variables.
fn around<'a>(variable: &'a dyn Fn(&str) -> Option<String>) -> Surroundings<'a> {
    Surroundings {
        variable,
        home: Some("/home/me".into()),
        yaml: "/does/not/exist".into(),
    }
}

fn meaning(link: &str, words: &[&str]) -> Result<Meaning, String> {
    let program = program(link, words);
    program
        .meaning(link, words, &around(&nothing))
        .map_err(|failure| {
            assert_eq!(failure.code, exit::MISUSE, "{words:?}");
            failure.message
        })
}

fn ours(link: &str, words: &[&str]) -> Result<String, String> {
    match meaning(link, words)? {
        Meaning::Run(Run { program, words, .. }) => Ok(format!("{program} {}", words.join(" "))),
        Meaning::Tell(text) => Ok(text),
    }
}

/// What every program needs, so that a row can be about one option.
fn base(link: &str) -> (&'static str, &'static str) {
    match link {
        "sshnp" => ("-f @me -t @d -r @rv", "client --as @me --to @d --via @rv"),
        "npt" => (
            "-f @me -t @d -r @rv -d pi -p 80",
            "tunnel --as @me --to @d --via @rv --device pi",
        ),
        "sshnpd" => ("-a @d -m @me", "daemon --as @d --manager @me"),
        "srvd" => ("-a @rv -i h", "rendezvous --as @rv --host h"),
        "npp_file" => (
            "-a @p --yaml f",
            "policy serve --publish-log --as @p --rules f",
        ),
        "npp_atserver" => ("-a @p", "policy serve --publish-log --records --as @p"),
        other => panic!("{other}"),
    }
}

#[test]
fn every_option_in_every_spelling() {
    const LIST: &str = "devices --as @me --to @d";
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str)] = &[
        ("sshnp", "--key-file=k | --keyFile k | -k k | -kk", "--keys k"),
        ("sshnp", "-d pi | --device pi | --device=pi | -dpi", "--device pi"),
        ("sshnp", "-i f | --identity-file f", "--identity f"),
        ("sshnp", "--identity-passphrase p", ""),
        ("sshnp", "-u bob | --remote-user-name bob", "--user bob"),
        ("sshnp", "-l 2222 | --local-port 2222 | -l2222", "--local-port 2222"),
        ("sshnp", "-x | --output-execution-command", "--print"),
        ("sshnp", "-q | --quiet", "--quiet"),
        ("sshnp", "-v | --verbose", "--verbose"),
        ("sshnp", "-xq", "--print --quiet"),
        ("sshnp", "-xvq", "--print --verbose --quiet"),
        ("sshnp", "--root-domain r | --root-server=r | --rootDomain r", "--root r"),
        ("sshnp", "--daemon-ping-timeout 9 | --dpt 9 | --dpt=9", "--timeout 9"),
        ("sshnp", "--ac | --ad | --et | --authenticate-client-to-rvd", ""),
        ("sshnp", "--authenticate-device-to-rvd | --encrypt-rvd-traffic", ""),
        ("sshnp", "--no-et | --no-encrypt-rvd-traffic | --et --no-et", "--no-encrypt"),
        ("sshnp", "--no-ac | --no-authenticate-client-to-rvd", "--no-admit-client"),
        ("sshnp", "--no-ad | --no-authenticate-device-to-rvd", "--no-admit-device"),
        ("sshnp", "--no-et --et | --no-ac --ac | --no-ad --ad", ""),
        ("sshnp", "-U bob | --tunnel-user-name bob", "--tunnel-user bob"),
        ("sshnp", "--idle-timeout 9", "--idle-timeout 9"),
        ("sshnp", "--remote-sshd-port 9", "--remote-sshd-port 9"),
        ("sshnp", "-P 9 | --local-sshd-port 9", "--local-sshd-port 9"),
        ("sshnp", "--legacy-daemon", "--legacy-daemon"),
        ("sshnp", "--legacy-daemon --no-legacy-daemon", ""),
        ("sshnp", "--add-forwards-to-tunnel", "--add-forwards-to-tunnel"),
        ("sshnp", "-s | --send-ssh-public-key", ""),
        ("sshnp", "-s -i k | -i k -s", "--identity k --send-key k.pub"),
        ("sshnp", "-sx -i k.pub", "--print --identity k.pub --send-key k.pub"),
        ("sshnp", "-s k.pub | --ssh-public-key k.pub", "--send-key /home/me/.ssh/k.pub"),
        ("sshnp", "-s ./k.pub -i x", "--identity x --send-key ./k.pub"),
        ("npt", "--no-et | --no-encrypt-rvd-traffic", "--no-encrypt --forward localhost:0:localhost:80"),
        ("sshnp", "--discover-daemon-features | --ddf", ""),
        ("sshnp", "--ssh-client openssh | --ssh-client=dart", ""),
        ("sshnp", "--ssh-algorithm ssh-rsa | --ssh-algorithm ssh-ed25519", ""),
        ("sshnp", "--relay-auth-mode payload | --ram escr", ""),
        ("sshnp", "--port 22 | -p 22", ""),
        ("sshnp", "--storage-path s", ""),
        ("sshnp", "-o -v | --local-ssh-options -v | -o=-v | --local-ssh-options=-v", "-- -v"),
        ("npt", "--remote-host nas | --rh nas | -h nas | -hnas", "--forward localhost:0:nas:80"),
        ("npt", "--remote-host ::1", "--forward localhost:0:[::1]:80"),
        ("npt", "--local-port 8 | --lp 8 | -l 8", "--forward localhost:8:localhost:80"),
        ("npt", "--local-host 0 | --lh 0.0.0.0", "--forward 0.0.0.0:0:localhost:80"),
        ("npt", "--lh nobody,192.0.2.1,::1", "--forward 192.0.2.1:0:localhost:80"),
        ("npt", "--remote-port 443 | --rp 443 | -p 443", "--forward localhost:0:localhost:443"),
        ("npt", "-x | --exit-when-connected", "--print --forward localhost:0:localhost:80"),
        ("npt", "-K | --keep-alive", "--keep-alive --forward localhost:0:localhost:80"),
        ("npt", "-T 1h,14m,30s | --timeout=1h,14m,30s", "--idle-timeout 1h,14m,30s --forward localhost:0:localhost:80"),
        ("npt", "--dpt 5 | --daemon-ping-timeout 5", "--timeout 5 --forward localhost:0:localhost:80"),
        ("npt", "-k f | --key-file f | --keyFile f", "--keys f --forward localhost:0:localhost:80"),
        ("npt", "-q | --quiet", "--quiet --forward localhost:0:localhost:80"),
        ("npt", "-v | --verbose", "--verbose --forward localhost:0:localhost:80"),
        ("npt", "--pss | --no-pss | --per-session-storage | --no-per-session-storage", "--forward localhost:0:localhost:80"),
        ("npt", "--et | --encrypt-rvd-traffic | -H 5m | --heartbeat=5m | --ram payload", "--forward localhost:0:localhost:80"),
        ("npt", "--root-domain r | --root-server r", "--root r --forward localhost:0:localhost:80"),
        ("sshnpd", "-d pi | --device=pi", "--device pi"),
        ("sshnpd", "-k f | --key-file f | --keyFile=f", "--keys f"),
        ("sshnpd", "-p @p | --policy-manager @p | -p@p", "--policy @p"),
        ("sshnpd", "--device-group g | --dg g", "--device-group g"),
        ("sshnpd", "--permit-open a:1 | --po=a:1", "--permit-open a:1"),
        ("sshnpd", "--po a:1,b:2 --permit-open c:3", "--permit-open a:1,b:2,c:3"),
        ("sshnpd", "--local-sshd-port 2222", "--sshd-port 2222"),
        ("sshnpd", "-h | --hide | --no-un-hide | --no-username", "--hide"),
        ("sshnpd", "-u | --un-hide | --username | -v | --verbose | --no-verbose", ""),
        ("sshnpd", "--debug", "--verbose"),
        ("sshnpd", "--ssh-client openssh | --ssh-algorithm ssh-rsa | --storage-path s", ""),
        ("sshnpd", "--strict | --no-strict | --clear-cached-pks", ""),
        ("sshnpd", "-m @b | --manager @b | --managers @b | --managers=@b", "--manager @b"),
        ("sshnpd", "--root-domain r | --root-server=r", "--root r"),
        ("sshnpd", "left over", ""),
        ("srvd", "-m @x | --manager @x", "--manager @x"),
        ("srvd", "-m open", "--manager open"),
        ("srvd", "-k f | --key-file f | --keyFile f", "--keys f"),
        ("srvd", "--ip h | -i h | -ih | -v | --verbose | --pss | left", ""),
        ("srvd", "--root-domain r", "--root r"),
        ("npp_file", "-k f | --key-file f | --keyFile f", "--keys f"),
        ("npp_file", "--daemon-atsigns @a,@b | -v | --verbose | --no-verbose", ""),
        ("npp_file", "--root-domain r", "--root r"),
        ("npp_atserver", "--daemon-atsigns=@a | -v", ""),
    ];
    for &(link, spellings, added) in ROWS {
        for spelling in spellings.split(" | ") {
            let (words, start) = base(link);
            let words: Vec<&str> = words.split(' ').chain(spelling.split(' ')).collect();
            let want: Vec<&str> = start.split(' ').chain(added.split_whitespace()).collect();
            let got = ours(link, &words).unwrap_or_else(|why| panic!("{link} {spelling}: {why}"));
            assert_eq!(got, want.join(" "), "{link} {spelling}");
        }
    }
    for spelling in [
        "--ls",
        "--list-devices",
        "--ls -r @rv",
        "--ls -h @rv",
        "--ls -d pi -x -i f",
    ] {
        let words: Vec<&str> = "-f @me -t @d"
            .split(' ')
            .chain(spelling.split(' '))
            .collect();
        assert_eq!(ours("sshnp", &words).unwrap(), LIST, "{spelling}");
    }
    let words = ["--from=@me", "--to=@d", "--host", "@rv"];
    assert_eq!(ours("sshnp", &words).unwrap(), base("sshnp").1);
}

#[test]
fn the_words_of_the_launch_scripts() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &[&str], &str)] = &[
        // systemd: settings as words, some of them empty.
        ("sshnpd", &["-a", "@d", "-m", "@me", "-d", "default", "", "-s", "-u", "-v"], "daemon --as @d --manager @me --device default --accept-keys"),
        ("sshnpd", &["-a", "@d", "-m", "@me", "-d", "", "", "", "", ""], "daemon --as @d --manager @me"),
        // headless and tmux: the policy as one word.
        ("sshnpd", &["-a", "@d", "-m", "@me,@you", "-d", "pi", "-p @p", "", "-u", "-v"], "daemon --as @d --manager @me,@you --device pi --policy @p"),
        // launchd: bundled; the policy is two words, or two empty ones.
        ("sshnpd", &["-a", "@d", "-m", "@me", "-d", "pi", "-su", "-p", "@p"], "daemon --as @d --manager @me --device pi --accept-keys --policy @p"),
        ("sshnpd", &["-a", "@d", "-m", "@me", "-d", "pi", "-su", "", ""], "daemon --as @d --manager @me --device pi --accept-keys"),
        // Windows' service, and docker.
        ("sshnpd", &["-a", "@d", "-m", "@me", "-d", "pi", "-k", "C:\\k", "-s"], "daemon --as @d --manager @me --device pi --keys C:\\k --accept-keys"),
        ("sshnpd", &["-a", " @d ", "-m", "@me ", "-d", "docker", "-s", "-u", "-v"], "daemon --as @d --manager @me --device docker --accept-keys"),
        ("sshnpd", &["-a", "@d", "-m", "@me", "-s", "-S", "no-pty", "--ephemeral-permissions", ",x", "--no-sshpublickey"], "daemon --as @d --manager @me --key-options no-pty --temporary-key-options ,x"),
        // OpenWrt: a policy with an empty value.
        ("sshnpd", &["-a", "@d", "-m", "@me", "-d", "router", "-p", "", "-v"], "daemon --as @d --manager @me --device router"),
        ("srvd", &["-a", "@rv", "-i", "192.0.2.1"], "rendezvous --as @rv --host 192.0.2.1"),
        // The menu of devices.
        ("sshnp", &["-f", "@me", "-t", "@d", "-h", "@rv", "-d", "pi", "-s", "-u", "bob"], "client --as @me --to @d --via @rv --device pi --user bob"),
        // Values that look like options; the last of several; what is for ssh.
        ("sshnp", &["-f", "@me", "-t", "-x", "-r", "@a", "-r", "@b"], "client --as @me --to -x --via @b"),
        ("sshnp", &["-f@me", "-t@d", "-r@rv", "-o", "-L 80:x:80,-v", "-o", "-C", "--", "-p", "x"], "client --as @me --to @d --via @rv -- -L 80:x:80 -v -C -p x"),
    ];
    for &(link, words, want) in ROWS {
        assert_eq!(ours(link, words).as_deref(), Ok(want), "{link} {words:?}");
    }
}

#[test]
fn what_cannot_be_understood_is_refused_in_the_originals_words() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str)] = &[
        ("sshnp", "--nope", "Could not find an option named \"nope\"."),
        ("sshnp", "--nope=3", "Could not find an option named \"nope\"."),
        ("sshnp", "--no-nope", "Could not find an option named \"no-nope\"."),
        ("sshnp", "-z", "Could not find an option or flag \"-z\"."),
        ("sshnp", "-xz", "Could not find an option with short name \"-z\"."),
        ("sshnp", "-xd pi", "Option \"-d\" must be a flag to be in a collapsed \"-\"."),
        ("sshnp", "--quiet=yes", "Flag option \"quiet\" should not be given a value."),
        ("sshnp", "--no-quiet", "Cannot negate option \"no-quiet\"."),
        ("sshnp", "--no-to", "Cannot negate non-flag option \"no-to\"."),
        ("sshnp", "left over", "Unparsed args [left, over]"),
        ("sshnp", "-t", "Missing argument for \"to\"."),
        ("sshnp", "-l many", "Invalid value \"many\" for option --local-port (-l)"),
        ("sshnp", "--dpt x", "Invalid value \"x\" for option --daemon-ping-timeout"),
        ("sshnp", "--ssh-client telnet", "\"telnet\" is not an allowed value for option \"ssh-client\"."),
        ("sshnp", "--ram none", "\"none\" is not an allowed value for option \"relay-auth-mode\"."),
        ("sshnp", "--config-file /no/such", "Config file does not exist: /no/such"),
        ("sshnp", "--443", "Could not find an option named \"443\"."),
        ("sshnp", "-P x", "Invalid value \"x\" for option --local-sshd-port (-P)"),
        ("npt", "-K -x", "--keep-alive and --exit-when-connected are mutually exclusive"),
        ("npt", "-p many", "Invalid value \"many\" for option --remote-port (-p)"),
        ("sshnpd", "--nope", "Could not find an option named \"nope\"."),
        ("sshnpd", "-z", "Could not find an option or flag \"-z\"."),
        ("srvd", "-s", "Could not find an option or flag \"-s\"."),
        ("npp_atserver", "--yaml f", "Could not find an option named \"yaml\"."),
        ("npp_file", "--nope", "Could not find an option named \"nope\"."),
    ];
    for &(link, words, want) in ROWS {
        let words: Vec<&str> = base(link).0.split(' ').chain(words.split(' ')).collect();
        assert_eq!(
            ours(link, &words).as_ref().map_err(String::as_str),
            Err(want),
            "{link} {words:?}"
        );
    }
}

#[test]
fn what_is_missing_is_named() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str)] = &[
        ("sshnp", "-t @d -r @rv", "from (clientAtSign) is mandatory"),
        ("sshnp", "-f @me -r @rv", "Option to is mandatory, unless list-devices is passed."),
        ("sshnp", "-f @me -t @d", "srvdAtSign is mandatory, unless list-devices is passed."),
        ("sshnp", "--ls", "from (clientAtSign) is mandatory"),
        ("npt", "-t @d -r @rv -d pi -p 1", "Option from is mandatory."),
        ("npt", "-f @me -r @rv -d pi -p 1", "Option to is mandatory."),
        ("npt", "-f @me -t @d -d pi -p 1", "Option srvd is mandatory."),
        ("npt", "-f @me -t @d -r @rv -p 1", "Option device is mandatory."),
        ("npt", "-f @me -t @d -r @rv -d pi", "Option remote-port is mandatory."),
        ("sshnpd", "-m @me", "Option atsign is mandatory."),
        ("sshnpd", "-a @d", "At least one of --managers and --policy-manager options must be supplied."),
        ("srvd", "-i h", "Option atsign is mandatory."),
        ("srvd", "-a @rv", "Option ip is mandatory."),
        ("npp_file", "-a @p", "Option yaml is mandatory."),
        ("npp_file", "--yaml f", "Option atsign is mandatory."),
        ("npp_atserver", "-v", "Option atsign is mandatory."),
    ];
    for &(link, words, want) in ROWS {
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(
            ours(link, &words).as_ref().map_err(String::as_str),
            Err(want),
            "{link} {words:?}"
        );
    }
    // The environment may stand in for some of it; the list of devices needs less.
    let variable = |name: &str| name.starts_with("NOPORTS_").then(|| "@x".to_owned());
    let words = ["-t", "@d"];
    let meaning = program("sshnp", &words).meaning("sshnp", &words, &around(&variable));
    assert!(meaning.is_ok(), "{meaning:?}");
    assert_eq!(
        ours("sshnp", &["--ls", "-f", "@me"]).unwrap(),
        "devices --as @me"
    );
    let snoops = |name: &str| (name == "ENABLE_SNOOP").then(|| "true".to_owned());
    let words = ["-a", "@rv", "-i", "h", "-s"];
    assert!(
        program("srvd", &words)
            .meaning("srvd", &words, &around(&snoops))
            .is_ok()
    );
}

#[test]
fn remarks_are_those_of_the_originals() {
    let remarks = |link: &str, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        match meaning(link, &words).unwrap() {
            Meaning::Run(Run { remarks, .. }) => remarks.join("|"),
            Meaning::Tell(text) => text,
        }
    };
    let warning = "Warning: Using default value of \"default\" for optional arg \"--device\".";
    assert_eq!(remarks("sshnp", "-f @me -t @d -r @rv"), warning);
    assert_eq!(remarks("sshnp", "-f @me -t @d -r @rv -d pi"), "");
    let nothing_sent = remarks("sshnp", "-f @me -t @d -r @rv -d pi -s");
    assert_eq!(nothing_sent, "sshnp: -s needs -i; no public key is sent");
    assert!(remarks("sshnpd", "-a @d -m @me -u").starts_with("[WARN] -u, --un-hide is "));
    assert!(remarks("sshnpd", "-a @d -m @me -P x").contains("everybody on this machine"));
    for link in ["sshnp", "npt", "sshnpd", "srvd", "npp_file", "npp_atserver"] {
        let version = remarks(link, "--version");
        assert!(
            version.starts_with("Version : ") && version.contains(" (core: rust-"),
            "{link}"
        );
        let help = remarks(link, "--help");
        assert!(
            help.starts_with(&version) && help.contains(&format!("\n{link} is noports ")),
            "{link}"
        );
    }
}

#[test]
fn a_profile_stands_behind_the_command_line() {
    let home = Folder::new();
    let folder = home.path(".sshnp/config");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("my_pi.env");
    fs::write(
        &file,
        "# mine\nFROM=@me\nTO=@d\nSRVD=@rv\nDEVICE=pi\nLOCAL_SSH_OPTIONS=-v,-C\nLOCAL_PORT=7\nODD=a=b\n",
    )
    .unwrap();
    let path = file.display().to_string();
    let around = Surroundings {
        variable: &nothing,
        home: Some(home.0.clone()),
        yaml: PathBuf::new(),
    };
    let read = |link: &str, words: &[&str]| match program(link, words).meaning(link, words, &around)
    {
        Ok(Meaning::Run(Run { program, words, .. })) => {
            Ok(format!("{program} {}", words.join(" ")))
        }
        Ok(Meaning::Tell(text)) => Ok(text),
        Err(failure) => Err(failure.message),
    };
    let whole = "client --as @me --to @d --via @rv --device pi --local-port 7 -- -v -C";
    for named in [path.as_str(), "my_pi", "my pi", "my_pi.env"] {
        assert_eq!(
            read("sshnp", &["--config-file", named]).as_deref(),
            Ok(whole),
            "{named}"
        );
    }
    let words = ["-d", "tv", "--config-file", &path, "-o", "-X", "-l", "8"];
    assert_eq!(
        read("sshnp", &words).unwrap(),
        "client --as @me --to @d --via @rv --device tv --local-port 8 -- -X"
    );
    let words = ["--config-file", &path, "-p", "80"];
    assert_eq!(
        read("npt", &words).unwrap(),
        "tunnel --as @me --to @d --via @rv --device pi --forward localhost:7:localhost:80"
    );
    fs::write(&file, "FROM=@me\nLOCAL_PORT=many\n").unwrap();
    assert_eq!(
        read("sshnp", &["--config-file", &path]).unwrap_err(),
        format!("{path}, line 2: Invalid value \"many\" for option --local-port (-l)")
    );
}

#[test]
fn sshnpd_yaml_stands_behind_the_command_line() {
    let folder = Folder::new();
    let file = folder.path("sshnpd.yaml");
    fs::write(
        &file,
        "atsign: {atsign: d}\naccess:\n  managers: [me]\n  permitopen: ['localhost:22']\ndevice: {name: pi, hide: true}\nmore: 1\n",
    )
    .unwrap();
    let path = file.display().to_string();
    let variable = |name: &str| (name == "SSHNPD_CONFIG").then(|| path.clone());
    let read = |words: &[&str], around: &Surroundings| match program("sshnpd", words)
        .meaning("sshnpd", words, around)
    {
        Ok(Meaning::Run(Run { words, remarks, .. })) => Ok((words.join(" "), remarks.join("|"))),
        other => Err(format!("{other:?}")),
    };
    let usual = Surroundings {
        yaml: file.clone(),
        ..around(&nothing)
    };
    let whole = "--as d --manager me --permit-open localhost:22 --device pi --hide";
    let remark = format!("{path}, line 6: more is not known and left out");
    for (words, around) in [
        (&["--config", path.as_str()][..], &around(&nothing)),
        (&[], &around(&variable)),
        (&[], &usual),
    ] {
        assert_eq!(
            read(words, around),
            Ok((whole.to_owned(), remark.clone())),
            "{words:?}"
        );
    }
    let words = ["-m", "@you", "--po", "*:*", "-d", "tv"];
    assert_eq!(
        read(&words, &usual).unwrap().0,
        "--as d --hide --manager @you --permit-open *:* --device tv"
    );
    assert_eq!(
        read(&["-a", "@d", "-m", "@x", "--config", "/no/such"], &usual)
            .unwrap()
            .0,
        "--as @d --manager @x"
    );

    let mut given = Given::default();
    let text = "device:\n  name: pi\n  hide: true\natsign: {passphrase: of the file}\n";
    let settings = yaml_settings(&file, text, &mut given).unwrap();
    let phrase = given.phrase.as_ref().map(|phrase| phrase.reveal().as_str());
    assert_eq!(phrase, Some("of the file"));
    let all: Vec<_> = settings
        .iter()
        .map(|s| (s.origin.to_string(), s.name.as_str(), s.value.as_deref()))
        .collect();
    let line = |number| format!("{path}, line {number}");
    assert_eq!(
        all,
        [(line(2), "device", Some("pi")), (line(3), "hide", None)]
    );
    for (text, want) in [
        ("device: [pi\n", "line "),
        (
            "ssh:\n  client: telnet\n",
            "line 2: \"telnet\" is not an allowed value for option \"ssh-client\".",
        ),
    ] {
        let said = yaml_settings(&file, text, &mut given).unwrap_err().message;
        assert!(said.starts_with(&format!("{path}, {want}")), "{said}");
    }
}

#[test]
fn a_classic_file_is_not_blamed_for_what_was_typed() {
    let folder = Folder::new();
    let file = folder.0.join("sshnpd.yaml");
    let text =
        "atsign: {passphrase: of the file}\naccess: {managers: ['a b']}\ndevice: {name: x y}\n";
    fs::write(&file, text).unwrap();
    let path = file.display().to_string();
    let run = |words: &[&str]| {
        let words = [&["--config", path.as_str()], words].concat();
        let meaning = program("sshnpd", &words).meaning("sshnpd", &words, &around(&nothing));
        let Ok(Meaning::Run(run)) = meaning else {
            panic!("{words:?}: {meaning:?}");
        };
        run
    };
    let blank = "white space in \"a b\"";
    let device = "\"x y\" is not a device name";
    for (words, message, want) in [
        (&["-a", "@d"][..], blank, Some(2)),
        (&["-a", "a b"], blank, None),
        (&["-aa b"], blank, None),
        (&["-a", "@d", "-m", "@x,a b"], blank, None),
        (&["-a", "@d"], device, Some(3)),
        (&["-a", "@d", "-d", "x y"], device, None),
    ] {
        let place = run(words).settings.place(message);
        let want = want.map(|line| format!("{path}, line {line}"));
        assert_eq!(place, want, "{words:?}");
    }
    // And of two phrases the one that was typed counts, as with every option.
    for (words, want) in [
        (&["-a", "@d"][..], "of the file"),
        (&["-a", "@d", "-P", "typed"], "typed"),
    ] {
        let phrase = run(words).given.phrase.unwrap();
        assert_eq!(phrase.reveal(), want, "{words:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_words_make_it_panic(words in proptest::collection::vec("[-=a-z@ ,é]{0,8}", 0..6)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for link in ["sshnp", "npt", "sshnpd", "srvd", "npp_file", "npp_atserver"] {
            let _ = program(link, &words).meaning(link, &words, &around(&nothing));
        }
    }
}

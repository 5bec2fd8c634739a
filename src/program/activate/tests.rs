//! The whole story against servers in this process.

use super::*;
use crate::testing::Folder;
use std::{
    fs, future::Future, net::IpAddr, os::unix::fs::PermissionsExt, sync::Mutex, time::Duration,
};

use async_std::net::TcpListener;
use futures_lite::{AsyncWriteExt, StreamExt};

use crate::{
    at::directory::Root,
    net::{
        line::read_line,
        tls::{Acceptor, Connector},
    },
    server::{
        authority,
        listen::{self, RunningServer, ServerOptions, Timings},
    },
    text::endpoint::Endpoint,
};

/// A folder, a server in this process, and how to reach it.
struct World {
    folder: Folder,
    running: RunningServer,
    network: Network,
}

impl World {
    async fn start() -> Self {
        let folder = Folder::new();
        let data = folder.path("data");
        let authority = authority::open_or_make(&data).unwrap();
        let options = ServerOptions {
            data,
            listen: IpAddr::from([127, 0, 0, 1]),
            host: "localhost".into(),
            directory_port: 0,
            first_port: 0,
            domain: None,
            timings: Timings::default(),
        };
        let acceptor = authority.leaf(&[]).unwrap().acceptor().unwrap();
        let running = listen::start(options, acceptor, None).await.unwrap();
        let network = Network {
            root: Root::Directory(Endpoint {
                host: "localhost".into(),
                port: running.directory().port(),
            }),
            tls: Connector::new(&[authority.ca_file()]).unwrap(),
        };
        Self {
            folder,
            running,
            network,
        }
    }

    fn file(&self, who: &AtSign) -> PathBuf {
        self.folder.path("keys").join(AtKeys::file_name(who))
    }

    async fn activate(&self, who: &AtSign, secret: &Secret<String>) -> Result<(), Failure> {
        let (phrases, quiet) = (Phrases::default(), &mut Progress::new(true));
        let secret = || Ok(secret.clone());
        let file = self.file(who);
        activate(&self.network, who, &file, &phrases, secret, quiet).await
    }
}

/// Runs a story in a world of its own.
fn in_world<F: Future<Output = ()>>(story: impl FnOnce(Arc<World>) -> F) {
    async_std::task::block_on(async {
        let world = Arc::new(World::start().await);
        story(world.clone()).await;
        let world = Arc::into_inner(world).unwrap();
        world.running.stop().await;
    });
}

fn at(text: &str) -> AtSign {
    text.parse().unwrap()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_activation_leaves_a_working_key_file_and_happens_once() {
    in_world(async |world| {
        let alice = at("@alice");
        let secret = world.running.add(&alice).await.unwrap();
        let wrong = Secret::new("0".repeat(secret.reveal().len()));
        let failure = world.activate(&alice, &wrong).await.unwrap_err();
        assert!(
            failure.message.contains("does not accept this secret"),
            "{failure}"
        );
        assert_eq!(failure.code, exit::LOGIN);
        assert!(
            !DraftKeyFile::of(&world.file(&alice)).path.exists(),
            "no keys for a wrong secret"
        );

        world.activate(&alice, &secret).await.unwrap();
        let file = world.file(&alice);
        assert_eq!(mode(&file), 0o600);
        assert_eq!(
            fs::read_dir(file.parent().unwrap()).unwrap().count(),
            1,
            "no drafts"
        );
        let keys = crate::cli::keystore::load(&file, &alice).unwrap();
        assert!(keys.enrollment_id.is_some());
        let client = log_in(&world.network, &keys).await.unwrap();
        let published = client.public_key(&alice).await.unwrap();
        assert_eq!(published.as_ref(), Some(keys.encryption.public()));
        assert!(world.running.list().await.unwrap()[0].activated);

        let again = world.activate(&alice, &secret).await.unwrap_err();
        assert!(again.message.contains("activated already"), "{again}");
        assert!(again.hint.unwrap().contains("seem to be in"));
        fs::remove_file(&file).unwrap();
        let again = world.activate(&alice, &secret).await.unwrap_err();
        assert!(again.hint.unwrap().contains("noports enroll @alice"));
    });
}

#[test]
fn an_atsign_that_is_not_hosted_is_unknown() {
    in_world(async |world| {
        let failure = world
            .activate(&at("@nobody"), &Secret::new("s".into()))
            .await
            .unwrap_err();
        assert_eq!(failure.code, exit::UNKNOWN, "{failure}");
    });
}

#[test]
fn a_key_file_is_never_overwritten() {
    in_world(async |world| {
        let alice = at("@alice");
        let secret = world.running.add(&alice).await.unwrap();
        let file = world.file(&alice);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "precious").unwrap();
        let failure = world.activate(&alice, &secret).await.unwrap_err();
        assert_eq!(failure.code, exit::KEYS, "{failure}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    });
}

/// How far the run came that died.
#[derive(Clone, Copy, Debug)]
enum Died {
    Unheard,
    IdNotNoted,
    NotLoggedIn,
    NotRenamed,
}

/// Does what a run does up to there; returns its keys.
async fn die(world: &World, who: &AtSign, secret: &Secret<String>, when: Died) -> AtKeys {
    let file = world.file(who);
    let draft = DraftKeyFile::of(&file);
    if let Died::NotRenamed = when {
        world.activate(who, secret).await.unwrap();
        fs::rename(&file, &draft.path).unwrap();
        return draft.read(who).unwrap().unwrap();
    }
    let mut link = Link::connect(&world.network, who).await.unwrap();
    log_in_by_secret(&mut link, who, secret).await.unwrap();
    let keys = enrolment::mint(who).unwrap();
    draft.write(&keys).unwrap();
    assert_eq!(mode(&draft.path), 0o600);
    if let Died::Unheard = when {
        return keys;
    }
    register(&mut link, &draft, keys.clone()).await.unwrap();
    if let Died::IdNotNoted = when {
        draft.write(&keys).unwrap();
    }
    keys
}

#[test]
fn a_run_that_died_is_finished_with_the_same_keys() {
    in_world(async |world| {
        let rows = [
            ("@a", Died::Unheard),
            ("@b", Died::IdNotNoted),
            ("@c", Died::NotLoggedIn),
            ("@d", Died::NotRenamed),
        ];
        for (who, when) in rows {
            let who = at(who);
            let secret = world.running.add(&who).await.unwrap();
            let before = die(&world, &who, &secret, when).await;
            let finished = world.activate(&who, &secret).await;
            assert_eq!(finished, Ok(()), "{when:?}");
            let after = crate::cli::keystore::load(&world.file(&who), &who).unwrap();
            assert_eq!(
                before.encryption.public(),
                after.encryption.public(),
                "{when:?}"
            );
            log_in(&world.network, &after).await.unwrap();
        }
    });
}

/// What an atServer from before enrolments says to a line.
fn old_server(line: &str) -> &'static str {
    match line.split(':').next().unwrap_or_default() {
        "from" => "data:_11111111-2222@alice:33333333-4444\n@",
        "cram" | "pkam" => "data:success\n@alice@",
        "lookup" => "error:AT0015-Exception: key not found\n@",
        "enroll" => "error:AT0003-Invalid syntax : invalid command\n@alice@",
        "update" | "delete" => "data:7\n@alice@",
        _ => "error:AT0003-Exception: invalid command\n@",
    }
}

/// Serves one connection after the other; keeps what it was asked.
async fn serve_old(listener: TcpListener, tls: Acceptor, heard: Arc<Mutex<Vec<String>>>) {
    let mut incoming = listener.incoming();
    while let Some(Ok(tcp)) = incoming.next().await {
        let (tls, heard) = (tls.clone(), heard.clone());
        async_std::task::spawn(async move {
            let soon = Duration::from_secs(5);
            let (mut stream, _) = tls.accept(tcp, soon).await.unwrap();
            stream.write_all(b"@").await.unwrap();
            while let Ok((line, _)) = read_line(&mut stream, 10_000, soon).await {
                let line = String::from_utf8(line).unwrap();
                let answer = old_server(&line);
                heard.lock().unwrap().push(line);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn an_old_server_takes_the_public_key_as_it_is() {
    async_std::task::block_on(async {
        let folder = Folder::new();
        let authority = authority::open_or_make(&folder.0).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = Network {
            root: Root::Proxy(Endpoint {
                host: "127.0.0.1".into(),
                port: listener.local_addr().unwrap().port(),
            }),
            tls: Connector::new(&[authority.ca_file()]).unwrap(),
        };
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tls = authority.leaf(&[]).unwrap().acceptor().unwrap();
        let server = async_std::task::spawn(serve_old(listener, tls, heard.clone()));

        let (alice, file) = (at("@alice"), folder.path("alice.keys"));
        let secret = || Ok(Secret::new("abc".to_owned()));
        let (phrases, quiet) = (Phrases::default(), &mut Progress::new(true));
        activate(&network, &alice, &file, &phrases, secret, quiet)
            .await
            .unwrap();
        server.cancel().await;

        let keys = crate::cli::keystore::load(&file, &alice).unwrap();
        assert_eq!(keys.enrollment_id, None);
        let pkam = &keys.pkam.public().text;
        let encryption = &keys.encryption.public().text;
        let heard = heard.lock().unwrap();
        let verbs: Vec<_> = heard
            .iter()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        assert_eq!(
            verbs,
            [
                "lookup", "from", "cram", "enroll", "update", "from", "pkam", "update", "delete"
            ]
        );
        assert_eq!(
            heard[4],
            format!("update:privatekey:at_pkam_publickey {pkam}")
        );
        assert!(!heard[6].contains("enrollmentId"), "{}", heard[6]);
        assert!(heard[7].ends_with(&format!("public:publickey@alice {encryption}")));
        assert_eq!(heard[8], "delete:privatekey:at_secret");
    });
}

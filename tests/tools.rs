//! The programs that people use ssh for, and plain TCP ones: each for real, between this user's own ssh and a real
//! sshd, through a session of ours.
//!
//! | tool | way |
//! | --- | --- |
//! | `rsync` | its own ssh over `--stdio` |
//! | `git clone`, `git push` | `GIT_SSH_COMMAND` with the same options |
//! | `ssh -L`, `ssh -R`, `ssh -D` | forwardings inside one session |
//! | `curl` | `noports tunnel`, and the SOCKS port of `ssh -D` |

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use async_std::task::{self, block_on};
use noports::sys::{ssh::shell_line, sshd::Sshd};

use crate::world::{ALICE, DEVICE, NAME, Process, World, answer_at_the_end, stdout, until};

/// A world with a real sshd behind its daemon.
async fn world_with_sshd() -> (World, Sshd) {
    let mut world = World::start().await;
    let sshd = world.sshd().await;
    world.rendezvous().await;
    world.daemon(sshd.port).await;
    (world, sshd)
}

/// `ssh …` as one line, for programs that start ssh themselves.
fn ssh_line(world: &World, sshd: &Sshd) -> String {
    format!("ssh {}", shell_line(&world.ssh_options(sshd)))
}

/// Every file below a folder, with its bytes.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn rsync_copies_a_tree_and_then_only_what_changed() {
    block_on(async {
        let (world, sshd) = world_with_sshd().await;
        let (here, there) = (world.dir.path("here"), world.dir.text("there"));
        fs::create_dir_all(here.join("a/b")).unwrap();
        let large: Vec<u8> = (0..500_000u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        fs::write(here.join("a/large"), &large).unwrap();
        fs::write(here.join("a/b/small"), "small").unwrap();
        let rsync = || {
            let mut rsync = world.program("rsync");
            rsync
                .arg("-a")
                .arg("--delete")
                .arg("--stats")
                .arg("-e")
                .arg(ssh_line(&world, &sshd));
            rsync
                .arg(format!("{}/", here.display()))
                .arg(format!("device:{there}/"));
            rsync
        };
        stdout(rsync()).await;
        assert!(files(Path::new(&there)) == files(&here), "the first copy");

        fs::write(here.join("a/b/small"), "changed, and longer").unwrap();
        fs::write(here.join("new"), "new").unwrap();
        let said = stdout(rsync()).await;
        assert!(said.contains("files transferred: 2"), "{said}");
        assert!(files(Path::new(&there)) == files(&here), "the second copy");
    });
}

#[test]
fn git_clones_and_pushes() {
    block_on(async {
        let (world, sshd) = world_with_sshd().await;
        let (origin, clone) = (world.dir.text("origin.git"), world.dir.text("clone"));
        let git = |words: &[&str]| {
            let mut git = world.program("git");
            git.env("GIT_SSH_COMMAND", ssh_line(&world, &sshd))
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .args([
                    "-c",
                    "user.name=A",
                    "-c",
                    "user.email=a@example.org",
                    "-c",
                    "init.defaultBranch=main",
                ])
                .args(words);
            git
        };
        stdout(git(&["init", "-q", "--bare", &origin])).await;
        stdout(git(&["clone", "-q", &format!("device:{origin}"), &clone])).await;
        fs::write(world.dir.path("clone/file"), "one").unwrap();
        stdout(git(&["-C", &clone, "add", "file"])).await;
        stdout(git(&["-C", &clone, "commit", "-q", "-m", "one"])).await;
        stdout(git(&["-C", &clone, "push", "-q", "origin", "HEAD:main"])).await;
        let here = stdout(git(&["-C", &clone, "rev-parse", "HEAD"])).await;
        let there = stdout(git(&["-C", &origin, "rev-parse", "main"])).await;
        assert_eq!(here, there);
    });
}

/// Says something to an echo at the other end of a forwarding.
fn said_back(mut socket: UnixStream) -> String {
    socket.write_all(b"through the forwarding").unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn ssh_forwards_in_both_directions() {
    block_on(async {
        let (world, sshd) = world_with_sshd().await;
        let echo = answer_at_the_end().await;
        // Sockets in a folder of ours, so that no port can be somebody else's.
        let (to_there, to_here) = (world.dir.text("L"), world.dir.text("R"));
        let mut ssh = world.program("ssh");
        ssh.args(world.ssh_options(&sshd))
            .args(["-o", "ExitOnForwardFailure=yes"]);
        ssh.args(["-L", &format!("{to_there}:localhost:{echo}")]);
        ssh.args(["-R", &format!("{to_here}:localhost:{echo}")]);
        ssh.args(["device", "echo up; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut ssh = Process(ssh.spawn().unwrap());
        let mut first = String::new();
        BufReader::new(ssh.0.stdout.as_mut().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert_eq!(first, "up\n");
        for socket in [&to_there, &to_here] {
            let stream = UnixStream::connect(socket).unwrap();
            let text = task::spawn_blocking(move || said_back(stream)).await;
            assert_eq!(text, "through the forwarding", "{socket}");
        }
        drop(ssh.0.stdin.take());
        assert!(ssh.0.wait().unwrap().success());
    });
}

/// A web server on loopback, of somebody else's making, with one file in it.
struct Web {
    _process: Process,
    port: u16,
}

impl Web {
    fn start(world: &World) -> Self {
        let root = world.dir.path("web");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("page"), "a page of the device\n".repeat(20_000)).unwrap();
        let mut python = world.program("python3");
        python
            .args([
                "-u",
                "-m",
                "http.server",
                "--bind",
                "127.0.0.1",
                "0",
                "--directory",
            ])
            .arg(root);
        python.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process(python.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .split("port ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let port = port.and_then(|word| word.parse().ok());
        Self {
            _process: process,
            port: port.unwrap_or_else(|| panic!("{line:?}")),
        }
    }

    fn page(world: &World) -> String {
        fs::read_to_string(world.dir.path("web/page")).unwrap()
    }
}

fn curl(world: &World) -> Command {
    let mut curl = world.program("curl");
    curl.args([
        "--disable",
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "",
    ]);
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        curl.env_remove(name);
    }
    curl
}

#[test]
fn curl_reads_a_page_of_the_device_through_a_socks_port_of_ssh() {
    block_on(async {
        let (world, sshd) = world_with_sshd().await;
        let web = Web::start(&world);
        // ssh has no "any port" here: between our looking and its taking, somebody else may be faster.
        let mut up = None;
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut ssh = world.program("ssh");
            ssh.args(world.ssh_options(&sshd))
                .args(["-o", "ExitOnForwardFailure=yes"]);
            ssh.args(["-D", &format!("127.0.0.1:{port}"), "device", "echo up; cat"]);
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut ssh = Process(ssh.spawn().unwrap());
            let mut line = String::new();
            BufReader::new(ssh.0.stdout.as_mut().unwrap())
                .read_line(&mut line)
                .unwrap();
            if line == "up\n" {
                up = Some((ssh, port));
                break;
            }
        }
        let (_ssh, port) = up.expect("a free port in five tries");
        let mut curl = curl(&world);
        curl.arg("--socks5-hostname")
            .arg(format!("127.0.0.1:{port}"));
        curl.arg(format!("http://localhost:{}/page", web.port));
        assert!(stdout(curl).await == Web::page(&world));
    });
}

#[test]
fn curl_reads_pages_through_a_tunnel() {
    block_on(async {
        let mut world = World::start().await;
        let web = Web::start(&world);
        world.rendezvous().await;
        world.daemon(web.port).await;
        let forward = format!("0:localhost:{}", web.port);
        let mut tunnel =
            world.noports(&["tunnel", "--as", ALICE, "--to", DEVICE, "--device", NAME]);
        tunnel
            .args(["--json", "-q", "--forward", &forward])
            .stdout(Stdio::piped());
        let mut tunnel = Process(tunnel.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(tunnel.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .split(r#""port":"#)
            .nth(1)
            .unwrap_or_else(|| panic!("{line:?}"));
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();

        // Several pages over one kept connection, then several at once.
        let page = format!("http://localhost:{port}/page");
        let mut several = curl(&world);
        several.args([&page, &page, &page]);
        assert!(stdout(several).await == Web::page(&world).repeat(3));
        let at_once: Vec<_> = (0..8)
            .map(|_| {
                let mut one = curl(&world);
                one.arg(&page);
                task::spawn(stdout(one))
            })
            .collect();
        for one in at_once {
            assert!(one.await == Web::page(&world));
        }
        tunnel.kill();
        until("nobody listens there any more", || {
            std::net::TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).is_err()
        })
        .await;
    });
}

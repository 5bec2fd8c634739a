//! Other people's programs, as they are installed and started by their manuals.

use std::{
    any::Any,
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use noports::sys::{
    sockets::listening_ports,
    sshd::{self, Sshd},
};

use crate::{
    load,
    path::{Path, to_port},
    world::{Process, World, children_of},
};

/// Until a path works.
const START: Duration = Duration::from_secs(10);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(20);
/// Bore's port for its control connections cannot be chosen.
const BORE: u16 = 7835;

type Started = Result<Path, String>;

/// All of them, each with its name and, if it is not there, why.
pub async fn all(world: &World, service: u16) -> Vec<(&'static str, Started)> {
    let sshd = world.sshd().await;
    vec![
        ("socat", socat(service)),
        ("haproxy", haproxy(world, service)),
        ("rathole", rathole(world, service, false)),
        ("rathole + Noise", rathole(world, service, true)),
        ("bore", bore(service)),
        ("ssh -L", ssh(world, sshd, service)),
    ]
}

fn socat(service: u16) -> Started {
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=512,nodelay");
    let mut command = Command::new(find("socat")?);
    command.args([
        "-b",
        "65536",
        &listen,
        &format!("TCP:127.0.0.1:{service},nodelay"),
    ]);
    let process = start(&mut command)?;
    let parts = vec![("socat", process.id())];
    works("socat", port, parts, process)
}

fn haproxy(world: &World, service: u16) -> Started {
    let (port, file) = (free_port(), world.dir.path("haproxy.cfg"));
    let text = format!(
        "global\n nbthread 2\n maxconn 4096\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n \
         timeout client 1h\n timeout server 1h\nlisten bench\n bind 127.0.0.1:{port}\n server service 127.0.0.1:{service}\n"
    );
    fs::write(&file, text).map_err(|why| why.to_string())?;
    let process = start(
        Command::new(find("haproxy")?)
            .arg("-db")
            .arg("-f")
            .arg(&file),
    )?;
    let parts = vec![("haproxy", process.id())];
    works("haproxy", port, parts, process)
}

fn rathole(world: &World, service: u16, noise: bool) -> Started {
    let program = find("rathole")?;
    let (control, port) = (free_port(), free_port());
    let (mut server, mut client) = (
        format!(
            "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
             [server.services.bench]\nbind_addr = \"127.0.0.1:{port}\"\n"
        ),
        format!(
            "[client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
             [client.services.bench]\nlocal_addr = \"127.0.0.1:{service}\"\n"
        ),
    );
    if noise {
        let made = Command::new(&program).arg("--genkey").output();
        let made =
            String::from_utf8(made.map_err(|why| why.to_string())?.stdout).unwrap_or_default();
        let keys: Vec<&str> = made.lines().filter(|line| line.ends_with('=')).collect();
        let [private, public] = keys[..] else {
            return Err(format!("keys: {made:?}"));
        };
        server += &format!(
            "[server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{private}\"\n"
        );
        client += &format!(
            "[client.transport]\ntype = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{public}\"\n"
        );
    }
    let run = |side: &str, text: &str| {
        let file = world.dir.path(&format!("rathole-{side}-{noise}.toml"));
        fs::write(&file, text).map_err(|why| why.to_string())?;
        start(Command::new(&program).arg(format!("--{side}")).arg(&file))
    };
    let (server, client) = (run("server", &server)?, run("client", &client)?);
    let parts = vec![("client", client.id()), ("server", server.id())];
    let name = if noise { "rathole + Noise" } else { "rathole" };
    works(name, port, parts, (server, client))
}

fn bore(service: u16) -> Started {
    let program = find("bore")?;
    drop(TcpListener::bind(("127.0.0.1", BORE)).map_err(|why| format!("port {BORE}: {why}"))?);
    let server = start(Command::new(&program).args(["server", "--bind-addr", "127.0.0.1"]))?;
    listens(BORE, &server)?;
    let port = free_port();
    let mut command = Command::new(&program);
    command.args(["local", &service.to_string(), "--local-host", "127.0.0.1"]);
    command.args(["--to", "127.0.0.1", "--port", &port.to_string()]);
    let client = start(&mut command)?;
    let parts = vec![("client", client.id()), ("server", server.id())];
    works("bore", port, parts, (server, client))
}

fn ssh(world: &World, sshd: Sshd, service: u16) -> Started {
    let port = free_port();
    let mut command = Command::new(find("ssh")?);
    command.args([
        "-F",
        "none",
        "-N",
        "-o",
        "BatchMode=yes",
        "-o",
        "ExitOnForwardFailure=yes",
    ]);
    command.args(["-o", &format!("HostKeyAlias={}", world.alias())]);
    command.args([
        "-o",
        &format!("UserKnownHostsFile={}", world.dir.text("known_hosts")),
    ]);
    command
        .arg("-i")
        .arg(&sshd.identity)
        .args(["-p", &sshd.port.to_string()]);
    command.args([
        "-L",
        &format!("127.0.0.1:{port}:127.0.0.1:{service}"),
        "127.0.0.1",
    ]);
    let client = start(&mut command)?;
    let own = children_of(std::process::id());
    let listens = |pid: &u32| listening_ports(*pid).is_ok_and(|ports| ports.contains(&sshd.port));
    let server = own.into_iter().find(listens).ok_or("whose sshd it is")?;
    let parts = vec![("client", client.id()), ("sshd", server)];
    works("ssh -L", port, parts, (client, sshd))
}

/// The path, once something comes back on it.
fn works(name: &str, port: u16, parts: Vec<(&'static str, u32)>, held: impl Any) -> Started {
    let (connect, began) = (to_port(port), Instant::now());
    while let Err(why) = load::first_byte(&connect) {
        if began.elapsed() > START {
            return Err(format!("nothing comes back: {why}"));
        }
        thread::sleep(LOOK);
    }
    Ok(Path {
        name: name.to_owned(),
        connect,
        parts,
        _held: Box::new(held),
    })
}

fn listens(port: u16, process: &Process) -> Result<(), String> {
    let began = Instant::now();
    while !listening_ports(process.id()).is_ok_and(|ports| ports.contains(&port)) {
        if began.elapsed() > START {
            return Err(format!("does not listen on {port}"));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// It ends with its owner.
fn start(command: &mut Command) -> Result<Process, String> {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map(Process).map_err(|why| why.to_string())
}

/// Where a peer is.
fn find(name: &str) -> Result<PathBuf, String> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/bin");
    let folder = env::var("BENCH_PEERS").unwrap_or_else(|_| own.to_owned());
    let file = PathBuf::from(folder).join(name);
    let found = file.is_file().then_some(file).or_else(|| sshd::find(name));
    found.ok_or_else(|| format!("no {name} here"))
}

/// One that was free a moment ago.
fn free_port() -> u16 {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    door.local_addr().unwrap().port()
}

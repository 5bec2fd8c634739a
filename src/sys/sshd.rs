//! A throw-away sshd: unprivileged where we are, on a free loopback port, with keys of its own.
//! For the demo and the tests.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_process::{Child, Command, Stdio};
use async_std::{net::TcpStream, task};

/// The Debian package that has sshd.
pub const PACKAGE: &str = "openssh-server";

/// Longest wait for it to listen.
const START: Duration = Duration::from_secs(10);

/// Why there is no sshd.
#[derive(Debug, thiserror::Error)]
pub enum SshdError {
    /// Neither in the usual places nor on PATH.
    #[error("{0} is not installed here")]
    NotInstalled(&'static str),
    /// It ended, or does not listen; holds its last words.
    #[error("sshd did not start: {0}")]
    Failed(String),
    /// Its files could not be written.
    #[error("sshd's files: {0}")]
    Io(#[from] io::Error),
}

/// A running sshd. Dropping it ends it.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// Private key that is let in.
    pub identity: PathBuf,
    /// Line for a `known_hosts` file, without the host's name.
    pub host_key: String,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Makes keys in `dir` and starts an sshd that lets the current user in with them.
///
/// # Errors
/// See [`SshdError`].
pub async fn start(dir: &Path) -> Result<Sshd, SshdError> {
    let sshd = find("sshd").ok_or(SshdError::NotInstalled("sshd"))?;
    let keygen = find("ssh-keygen").ok_or(SshdError::NotInstalled("ssh-keygen"))?;
    let (host_key, identity) = (dir.join("host_key"), dir.join("id_ed25519"));
    for key in [&host_key, &identity] {
        make_key(&keygen, key).await?;
    }
    fs::copy(identity.with_extension("pub"), dir.join("authorized_keys"))?;
    let host_line = fs::read_to_string(host_key.with_extension("pub"))?
        .trim()
        .to_owned();
    if rustix::process::geteuid().is_root() {
        // Debian's sshd insists on this folder when root starts it.
        fs::create_dir_all("/run/sshd")?;
    }
    let mut last = String::new();
    // Between finding a free port and sshd's taking it, somebody else may.
    for _ in 0..3 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let config = dir.join("sshd_config");
        fs::write(&config, configuration(dir, port))?;
        let log = dir.join("sshd.log");
        let patient = patience(&sshd, &config).await?;
        let child = Command::new(&sshd)
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .args(patient)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut started = Sshd {
            child,
            port,
            identity: identity.clone(),
            host_key: host_line.clone(),
        };
        if listens(&mut started).await {
            return Ok(started);
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        last = said.trim().to_owned();
    }
    Err(SshdError::Failed(last))
}

/// OpenSSH from 9.8 on shuts addresses out that come often and do not log in, as it is with the many sessions of tests. An
/// older one does not know the option, and does not start with it.
async fn patience(sshd: &Path, config: &Path) -> Result<&'static [&'static str], SshdError> {
    const OPTION: &[&str] = &["-o", "PerSourcePenalties=no"];
    let tried = Command::new(sshd)
        .args(["-t", "-f"])
        .arg(config)
        .args(OPTION)
        .stdin(Stdio::null())
        .output()
        .await?;
    Ok(if tried.status.success() { OPTION } else { &[] })
}

async fn make_key(keygen: &Path, file: &Path) -> Result<(), SshdError> {
    let output = Command::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(SshdError::Failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nPidFile none\n\
         AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         MaxStartups 500\nMaxSessions 100\nPrintMotd no\nLogLevel ERROR\nSubsystem sftp internal-sftp\n"
    )
}

async fn listens(sshd: &mut Sshd) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, sshd.port));
    let until = Instant::now() + START;
    while Instant::now() < until {
        if matches!(sshd.child.try_status(), Ok(Some(_)) | Err(_)) {
            return false;
        }
        if TcpStream::connect(address).await.is_ok() {
            return true;
        }
        task::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// On PATH, or where systems keep programs that are not on everybody's.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/libexec"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

//! TLS: the only file (with its `stream`) that knows which library does it.
//!
//! The library is a thin wrapper around rustls that we configure ourselves: TLS 1.2 and 1.3, today's
//! bundled authorities instead of the wrapper's own old list, no session tickets on the server.

use std::{
    fmt, io, mem,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_std::{future::timeout, net::TcpStream};
use rustls::{
    AlertDescription, Certificate, CertificateError, ClientConfig, OwnedTrustAnchor, PrivateKey,
    RootCertStore, ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    net::dial,
    sys::file::{NamedFile, Writers},
};

pub use stream::TlsStream;

mod stream;

/// Authorities we trust: the bundled list, plus files given by `--ca`.
#[derive(Clone)]
pub struct Connector(Arc<ClientConfig>);

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error("cannot read the authority file {0}: {1}")]
    Authority(String, String),
    #[error("cannot read the authority file {0}: {1}")]
    Unreadable(String, String),
    #[error("{name}'s certificate is signed by an authority that is not trusted here")]
    UnknownAuthority { name: String },
    #[error("the certificate is not for {name}")]
    WrongName { name: String },
    #[error("the certificate of {name} has expired or is not valid yet")]
    Expired { name: String },
    #[error("TLS with {name} failed: {why}")]
    Failed { name: String, why: String },
    #[error("TLS with {name} did not finish in time")]
    TimedOut { name: String },
}

impl TlsError {
    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreadable(..) => return None,
            Self::Authority(..) => "the file should hold one or more certificates in PEM form",
            Self::UnknownAuthority { .. } => {
                "if you run that server, trust the authority that signed for it with --ca FILE"
            }
            Self::WrongName { .. } => "check the host: it must be spelt as in the certificate",
            Self::Expired { .. } => "check the clock of this machine",
            Self::Failed { .. } => "check the port: is a TLS server listening there?",
            Self::TimedOut { .. } => {
                "something accepts connections there but does not speak TLS: check the port, and firewalls on the way"
            }
        })
    }

    /// Sorts what the library says; `name` is whom we talked to.
    fn from_io(name: &str, error: &io::Error) -> Self {
        let name = name.to_owned();
        let why = match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::InvalidCertificate(reason)) => match reason {
                // A bad signature is what an authority made anew under its old name looks like.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    return Self::UnknownAuthority { name };
                }
                CertificateError::NotValidForName => return Self::WrongName { name },
                CertificateError::Expired | CertificateError::NotValidYet => {
                    return Self::Expired { name };
                }
                other => format!("the certificate cannot be accepted: {}", unfit(other)),
            },
            Some(rustls::Error::AlertReceived(alert)) => {
                format!("the other end ended the handshake: {}", ended_by(*alert))
            }
            Some(rustls::Error::InvalidMessage(_)) => "the other end does not speak TLS".to_owned(),
            Some(other) => other.to_string(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the connection was closed during the handshake".to_owned()
            }
            None => error.to_string(),
        };
        Self::Failed { name, why }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// The bundled authorities and those in these PEM files; a file may hold several.
    ///
    /// # Errors
    /// [`TlsError::Authority`] names the file that cannot be read or holds no usable certificate.
    pub fn new<P: AsRef<Path>>(more: &[P]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_trust_anchors(webpki_roots::TLS_SERVER_ROOTS.iter().map(|anchor| {
            OwnedTrustAnchor::from_subject_spki_name_constraints(
                anchor.subject.as_ref(),
                anchor.subject_public_key_info.as_ref(),
                anchor.name_constraints.as_ref().map(|names| names.as_ref()),
            )
        }));
        for path in more {
            add_authorities(&mut roots, path.as_ref())?;
        }
        let config = ClientConfig::builder()
            .with_cipher_suites(&suites())
            .with_safe_default_kx_groups()
            .with_safe_default_protocol_versions()
            .expect("the default suites serve the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Checks the name, finishes the handshake within the time. The name may be an IP address.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn connect(
        &self,
        name: &str,
        tcp: TcpStream,
        within: Duration,
    ) -> Result<TlsStream, TlsError> {
        // A zone is for the way there; no certificate has one.
        let name = name.split('%').next().unwrap_or(name);
        if rustls::ServerName::try_from(name).is_err() {
            let why = "this is neither a host name nor an address".to_owned();
            let name = name.to_owned();
            return Err(TlsError::Failed { name, why });
        }
        let _ = dial::tune(&tcp);
        let socket = stream::ObservedSocket::new(tcp);
        let handshake = async_tls::TlsConnector::from(self.0.clone()).connect(name, socket.clone());
        match timeout(within, handshake).await {
            Ok(Ok(tls)) => Ok(TlsStream::client(tls, socket)),
            Ok(Err(error)) => Err(TlsError::from_io(name, &error)),
            Err(_) => Err(TlsError::TimedOut {
                name: name.to_owned(),
            }),
        }
    }
}

/// Without AES instructions ChaCha20 is several times faster, so it is offered first there.
fn suites() -> Vec<rustls::SupportedCipherSuite> {
    let mut suites = rustls::DEFAULT_CIPHER_SUITES.to_vec();
    if !noports_ciphers::hardware_accelerated() {
        // A stable sort: within each kind the library's order stays.
        suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
    }
    suites
}

/// Longest file of authorities, in bytes; a whole system's has a quarter of a million.
const MAX_AUTHORITIES: u64 = 8 * 1024 * 1024;

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let bad = |why: String| TlsError::Authority(path.display().to_string(), why);
    let pem =
        NamedFile::open_safe(path, Writers::Group).and_then(|file| file.letters(MAX_AUTHORITIES));
    let pem =
        pem.map_err(|error| TlsError::Unreadable(path.display().to_string(), error.to_string()))?;
    let certificates =
        rustls_pemfile::certs(&mut pem.as_slice()).map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("no certificate in it".to_owned()));
    }
    for (at, certificate) in certificates.into_iter().enumerate() {
        roots
            .add(&Certificate(certificate))
            .map_err(|error| bad(format!("certificate {}: {error}", at + 1)))?;
    }
    Ok(())
}

/// The server's side.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// From a configuration with its certificates; no session tickets are sent and no sessions kept.
    pub fn new(mut config: ServerConfig) -> Self {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Self(Arc::new(config))
    }

    /// For certificates chosen by the name a client asks for.
    pub fn choosing(resolver: Arc<dyn ResolvesServerCert>) -> Self {
        Self::new(
            ServerConfig::builder()
                .with_safe_defaults()
                .with_no_client_auth()
                .with_cert_resolver(resolver),
        )
    }

    /// For a certificate that may be another one each time: `shown` is asked in every handshake, and must not wait.
    pub fn showing(shown: impl Fn() -> ServerCertificate + Send + Sync + 'static) -> Self {
        Self::choosing(Arc::new(CurrentCertificate(shown)))
    }

    /// Certificate chain and key in PEM.
    ///
    /// # Errors
    /// [`TlsError::Failed`] with what is wrong; never with any of the key.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, TlsError> {
        let (chain, key) = read_pem(chain, key)?;
        // The library would take them, and then fail with every client.
        if public_key(&key).is_some_and(|public| !holds(&chain[0].0, &public)) {
            return Err(own_certificate("the private key is not this certificate's"));
        }
        let config = ServerConfig::builder()
            .with_safe_defaults()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| own_certificate(&error.to_string()))?;
        Ok(Self::new(config))
    }

    /// Finishes the handshake within the time. Also gives the name the client asked for (SNI), if any;
    /// a client that asks for an IP address counts as one that did not ask.
    ///
    /// # Errors
    /// See [`TlsError`]; its `name` is the peer's address.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        within: Duration,
    ) -> Result<(TlsStream, Option<String>), TlsError> {
        let (stream, hello) = self.accept_with_extensions(tcp, within).await?;
        Ok((stream, hello.name))
    }

    /// As [`Self::accept`], and tells all that the client asked for.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn accept_with_extensions(
        &self,
        tcp: TcpStream,
        within: Duration,
    ) -> Result<(TlsStream, HelloExtensions), TlsError> {
        let _ = dial::tune(&tcp);
        let peer = || match tcp.peer_addr() {
            Ok(addr) => addr.to_string(),
            Err(_) => "the peer".to_owned(),
        };
        let recorder = Arc::new(HelloRecorder {
            inner: self.0.cert_resolver.clone(),
            seen: Mutex::default(),
        });
        let mut config = ServerConfig::clone(&self.0);
        config.cert_resolver = recorder.clone();
        let socket = stream::ObservedSocket::new(tcp.clone());
        let handshake = async_tls::TlsAcceptor::from(config).accept(socket.clone());
        match timeout(within, handshake).await {
            Ok(Ok(tls)) => Ok((TlsStream::server(tls, socket), recorder.take())),
            Ok(Err(error)) => Err(TlsError::from_io(&peer(), &error)),
            Err(_) => Err(TlsError::TimedOut { name: peer() }),
        }
    }
}

/// A certificate with its key, ready to be shown. Cheap to clone.
#[derive(Clone)]
pub struct ServerCertificate(Arc<CertifiedKey>);

impl ServerCertificate {
    /// Certificate chain and key in PEM.
    ///
    /// # Errors
    /// As [`Acceptor::from_pem`].
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, TlsError> {
        let (chain, key) = read_pem(chain, key)?;
        let key = rustls::sign::any_supported_type(&key)
            .map_err(|error| own_certificate(&error.to_string()))?;
        Ok(Self(Arc::new(CertifiedKey::new(chain, key))))
    }

    /// The server's own certificate, in DER.
    #[cfg(test)]
    pub fn certificate(&self) -> &[u8] {
        self.0.cert.first().map_or(&[], |first| &first.0)
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

struct CurrentCertificate<F>(F);

impl<F: Fn() -> ServerCertificate + Send + Sync> ResolvesServerCert for CurrentCertificate<F> {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some((self.0)().0)
    }
}

/// Reads a certificate chain and its key; for configurations made elsewhere.
///
/// # Errors
/// [`TlsError::Failed`] with what is missing.
pub fn read_pem(chain: &str, key: &str) -> Result<(Vec<Certificate>, PrivateKey), TlsError> {
    let chain = rustls_pemfile::certs(&mut chain.as_bytes()).unwrap_or_default();
    if chain.is_empty() {
        return Err(own_certificate("no certificate in PEM form"));
    }
    let items = rustls_pemfile::read_all(&mut key.as_bytes()).unwrap_or_default();
    let key = items.into_iter().find_map(|item| match item {
        rustls_pemfile::Item::PKCS8Key(key)
        | rustls_pemfile::Item::RSAKey(key)
        | rustls_pemfile::Item::ECKey(key) => Some(PrivateKey(key)),
        _ => None,
    });
    let key = key.ok_or_else(|| own_certificate("no private key in PEM form"))?;
    Ok((chain.into_iter().map(Certificate).collect(), key))
}

fn holds(der: &[u8], part: &[u8]) -> bool {
    der.windows(part.len()).any(|window| window == part)
}

/// The public half as it stands in a certificate: RSA's numbers, a curve's point. `None`: a kind we cannot take apart.
fn public_key(key: &PrivateKey) -> Option<Vec<u8>> {
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING as P256, ECDSA_P384_SHA384_ASN1_SIGNING as P384,
        EcdsaKeyPair, KeyPair, RsaKeyPair,
    };
    let der = &key.0;
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
        return Some(pair.public_key().as_ref().to_vec());
    }
    let random = ring::rand::SystemRandom::new();
    [&P256, &P384].into_iter().find_map(|curve| {
        let pair = EcdsaKeyPair::from_pkcs8(curve, der, &random).ok()?;
        Some(pair.public_key().as_ref().to_vec())
    })
}

fn own_certificate(why: &str) -> TlsError {
    TlsError::Failed {
        name: "our own certificate".to_owned(),
        why: why.to_owned(),
    }
}

/// What a client asked for in its first message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloExtensions {
    /// The name (SNI); a client that asks for an IP address counts as one that did not ask.
    pub name: Option<String>,
    /// It offered to speak HTTP/1.1 (ALPN). It is not told whether we do: clients then take it for granted.
    pub http: bool,
}

/// Writes down what is asked for on its way to the resolver that chooses the certificate. The stream hides the
/// session, so this is the only place where it can be seen.
struct HelloRecorder {
    inner: Arc<dyn ResolvesServerCert>,
    seen: Mutex<HelloExtensions>,
}

impl HelloRecorder {
    fn take(&self) -> HelloExtensions {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *seen)
    }
}

impl ResolvesServerCert for HelloRecorder {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello
            .server_name()
            .filter(|name| name.parse::<IpAddr>().is_err());
        let mut offered = hello.alpn().into_iter().flatten();
        if let Ok(mut seen) = self.seen.lock() {
            *seen = HelloExtensions {
                name: name.map(str::to_owned),
                http: offered.any(|protocol| protocol == b"http/1.1"),
            };
        }
        self.inner.resolve(hello)
    }
}

/// Why a certificate is refused, where that has no error of its own.
fn unfit(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::BadEncoding => "it cannot be read",
        CertificateError::Revoked => "it has been revoked",
        CertificateError::InvalidPurpose => "it is not for a server",
        CertificateError::UnhandledCriticalExtension => {
            "it has an extension that is not known here"
        }
        _ => "it does not pass the checks",
    }
}

/// What a TLS alert of the other end means.
fn ended_by(alert: AlertDescription) -> String {
    let words = match alert {
        AlertDescription::HandshakeFailure => "it shares no cipher with this program",
        AlertDescription::ProtocolVersion => "it wants another version of TLS",
        AlertDescription::UnrecognisedName => "it does not serve this name",
        AlertDescription::UnknownCA => "it does not know the authority of our certificate",
        AlertDescription::BadCertificate => "it does not accept our certificate",
        AlertDescription::CertificateRequired => "it wants a certificate of ours",
        AlertDescription::AccessDenied => "it denies access",
        AlertDescription::InternalError => "it has failed inside",
        other => return format!("TLS alert {}", other.get_u8()),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests;

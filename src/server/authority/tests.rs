use std::{os::unix::fs::PermissionsExt, time::Duration};

use async_std::net::{TcpListener, TcpStream};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

use super::{
    certificate::DAY,
    renewing::{RENEWED_AFTER, Renewing},
    *,
};
use crate::net::tls::{Connector, TlsError};
use crate::testing::Folder;

const SOON: Duration = Duration::from_secs(5);

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_replaced_in_two_steps_and_clients_of_both_are_served_between() {
    let folder = Folder::new();
    let old = open_or_make(&folder.0).unwrap().ca_pem().to_owned();
    assert!(matches!(finish(&folder.0), Err(AuthorityError::NothingNew)));
    let both = rotate(&folder.0).unwrap();
    assert_eq!(rotate(&folder.0).unwrap(), both);
    assert!(both.starts_with(old.trim_end()) && both.matches("BEGIN").count() == 2);
    let between = open_or_make(&folder.0).unwrap();
    let chain = between.leaf(&[]).unwrap().chain;
    assert!(chain.ends_with(&old) && chain.matches("BEGIN").count() == 2);
    let new = finish(&folder.0).unwrap();
    assert!(
        new.matches("BEGIN").count() == 1 && !both.starts_with(&new) && both.contains(new.trim())
    );
    let after = open_or_make(&folder.0).unwrap();
    assert!(after.leaf(&[]).unwrap().chain.ends_with(&new));
    assert!(matches!(finish(&folder.0), Err(AuthorityError::NothingNew)));
}

#[test]
fn the_authority_is_made_once_and_kept() {
    let folder = Folder::new();
    let first = open_or_make(&folder.0).unwrap();
    let again = open_or_make(&folder.0).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(mode(&folder.0.join(KEY_FILE)), 0o600);
    assert_eq!(mode(first.ca_file()), 0o644);
    assert_eq!(
        fs::read_dir(&folder.0).unwrap().count(),
        2,
        "no drafts left"
    );
}

#[test]
fn a_start_that_died_between_the_two_files_is_finished() {
    let folder = Folder::new();
    open_or_make(&folder.0).unwrap();
    let key = fs::read(folder.0.join(KEY_FILE)).unwrap();
    fs::remove_file(folder.0.join(CA_FILE)).unwrap();
    open_or_make(&folder.0).unwrap();
    assert_eq!(fs::read(folder.0.join(KEY_FILE)).unwrap(), key);
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let (one, other) = (Folder::new(), Folder::new());
    open_or_make(&one.0).unwrap();
    open_or_make(&other.0).unwrap();
    let refused = || open_or_make(&one.0).err().unwrap();

    fs::copy(other.0.join(KEY_FILE), one.0.join(KEY_FILE)).unwrap();
    assert!(matches!(refused(), AuthorityError::Mismatch { .. }));
    fs::write(one.0.join(KEY_FILE), "no key").unwrap();
    assert!(matches!(refused(), AuthorityError::BadKey(_)));
    fs::remove_file(one.0.join(KEY_FILE)).unwrap();
    assert!(matches!(refused(), AuthorityError::KeyLost { .. }));
    assert!(refused().hint().unwrap().contains("remove both"));

    fs::write(other.0.join(CA_FILE), "no certificate").unwrap();
    let error = open_or_make(&other.0).err().unwrap();
    assert!(matches!(error, AuthorityError::BadCertificate(_)));
    fs::write(other.0.join(CA_FILE), b"\xff\xff").unwrap();
    let error = open_or_make(&other.0).err().unwrap();
    assert!(matches!(error, AuthorityError::Unreadable { .. }));
}

#[test]
fn names_that_cannot_stand_in_a_certificate_are_refused() {
    let folder = Folder::new();
    let authority = open_or_make(&folder.0).unwrap();
    for name in ["", "two words", "h\u{f6}me"] {
        let error = authority.leaf(&[name.to_owned()]).err();
        assert!(matches!(error, Some(AuthorityError::Name(_))), "{name:?}");
    }
}

/// One TLS connection to `name`, served with the leaf: what the client reads.
async fn greet(leaf: &Leaf, trust: &Connector, name: &str) -> Result<Vec<u8>, TlsError> {
    greet_from(&leaf.acceptor().unwrap(), trust, name).await
}

async fn greet_from(
    acceptor: &Acceptor,
    trust: &Connector,
    name: &str,
) -> Result<Vec<u8>, TlsError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok((mut tls, _)) = acceptor.accept(tcp, SOON).await {
            tls.write_all(b"@").await.unwrap();
            tls.close().await.unwrap();
        }
    };
    let client = async {
        let mut tls = trust.connect(name, tcp, SOON).await?;
        let mut got = vec![0; 1];
        tls.read_exact(&mut got).await.unwrap();
        Ok(got)
    };
    future::zip(server, client).await.1
}

#[test]
fn a_certificate_is_renewed_after_a_year_while_running_and_when_the_clock_was_wrong() {
    let folder = Folder::new();
    let authority = open_or_make(&folder.0).unwrap();
    let start = SystemTime::now();
    let renewing = Renewing::new(authority, &[], start).unwrap();
    let shown = |now| renewing.at(now).certificate().to_vec();
    let (first, year) = (shown(start), RENEWED_AFTER);
    assert_eq!(shown(start + year - DAY), first);
    let second = shown(start + year);
    assert_ne!(second, first);
    assert_eq!(shown(start + year + DAY), second);
    // Long before the end of what was shown so far.
    assert!(year * 2 < DAY * SERVER_DAYS);
    // A little slow is nothing; back by more than its head start it would not be valid yet.
    assert_eq!(shown(start + year - DAY / 2), second);
    let back = shown(start);
    assert_ne!(back, second);
    assert_eq!(shown(start + DAY), back);
    // None can be made by a clock that was never set; what there is goes on.
    let never_set = SystemTime::UNIX_EPOCH + DAY;
    assert_eq!(shown(never_set), back);
    assert_eq!(shown(start + DAY), back);
}

#[test]
fn a_renewed_certificate_is_accepted_by_who_trusts_the_authority() {
    async_std::task::block_on(async {
        let folder = Folder::new();
        let authority = open_or_make(&folder.0).unwrap();
        let trust = Connector::new(&[authority.ca_file()]).unwrap();
        // Made so long ago that the first connection finds it too old.
        let long_ago = SystemTime::now() - DAY * (SERVER_DAYS + 1);
        let renewing = Renewing::new(authority, &[], long_ago).unwrap();
        let acceptor = Acceptor::showing(move || renewing.at(SystemTime::now()));
        let got = greet_from(&acceptor, &trust, "localhost").await;
        assert_eq!(got.unwrap(), b"@");
    });
}

#[test]
fn our_own_client_accepts_the_names_and_no_other() {
    async_std::task::block_on(async {
        let folder = Folder::new();
        let authority = open_or_make(&folder.0).unwrap();
        let leaf = authority
            .leaf(&["home.example".into(), "*.at.example".into()])
            .unwrap();
        let trust = Connector::new(&[authority.ca_file()]).unwrap();
        for name in [
            "localhost",
            "127.0.0.1",
            "::1",
            "home.example",
            "alice.at.example",
        ] {
            let got = greet(&leaf, &trust, name).await;
            assert_eq!(got.unwrap(), b"@", "{name}");
        }
        for name in ["other.example", "127.0.0.2", "a.b.at.example"] {
            let got = greet(&leaf, &trust, name).await;
            assert!(
                matches!(got, Err(TlsError::WrongName { .. })),
                "{name}: {got:?}"
            );
        }
        let stranger = Connector::new::<&Path>(&[]).unwrap();
        let got = greet(&leaf, &stranger, "localhost").await;
        assert!(
            matches!(got, Err(TlsError::UnknownAuthority { .. })),
            "{got:?}"
        );
    });
}

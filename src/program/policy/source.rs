//! Where the rules come from, and when they have changed.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_std::task;
use log::{error, warn};
use miniserde::json;

use crate::{
    at::{
        AtKey, AtSign,
        client::{AtError, Client},
        key::Scope,
        verb::Verb,
    },
    cli::Failure,
    np::policy::{
        group, npp,
        rules::{Combine, Group, Rules},
        yaml,
    },
    sys::{
        self,
        file::{NamedFile, Writers},
        ssh::shell_line,
    },
};

/// Where the rules are.
#[derive(Clone, Debug)]
pub(super) enum RuleSource {
    /// In a YAML file.
    File(PathBuf),
    /// On the policy's own atServer.
    Records,
}

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often records are read again even if nobody told us that they have changed.
const READ_EVERY: Duration = Duration::from_secs(60);

/// Between two tries of the first reading.
const AGAIN: Duration = Duration::from_secs(5);

/// Most records that are read.
const MAX_RECORDS: usize = 16_384;
/// Records that are read at the same time.
const AT_ONCE: usize = 16;

/// What a file looks like from outside; another one means another content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileStamp(Option<(u64, u64, i64, i64)>);

impl RuleSource {
    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::File(_) => LOOK_EVERY,
            Self::Records => READ_EVERY,
        }
    }

    /// `None`: from outside nothing can be seen.
    pub(super) async fn look(&self) -> Option<FileStamp> {
        match self {
            Self::File(file) => Some(look(file).await),
            Self::Records => None,
        }
    }

    pub(super) async fn read(&self, at: &Client) -> Result<Rules, Failure> {
        match self {
            Self::File(file) => read_rules(file).await,
            Self::Records => Ok(records(at).await?),
        }
    }

    /// At the start there are no rules to keep: a line that is busy gets a second and a third chance.
    pub(super) async fn read_first(&self, at: &Client) -> Result<Rules, Failure> {
        if let Self::Records = self {
            for _ in 0..2 {
                match records(at).await {
                    Ok(rules) => return Ok(rules),
                    Err(why) => warn!("rules=not_read reason={:?}", why.to_string()),
                }
                task::sleep(AGAIN).await;
            }
        }
        self.read(at).await
    }
}

async fn look(file: &Path) -> FileStamp {
    let about = sys::file::metadata(file.to_owned()).await.ok();
    FileStamp(about.map(|a| (a.ino(), a.size(), a.mtime(), a.mtime_nsec())))
}

/// Rules from a file.
pub(super) async fn read_rules(file: &Path) -> Result<Rules, Failure> {
    rules(file, sys::file::safe_text(file, MAX_RULES).await)
}

/// Rules from a file, where there is nothing else to do meanwhile.
pub(super) fn read_rules_now(file: &Path) -> Result<Rules, Failure> {
    let safe = NamedFile::open_safe(file, Writers::Group);
    rules(file, safe.and_then(|file| file.text(MAX_RULES)))
}

/// Longest file, in bytes.
const MAX_RULES: u64 = yaml::MAX_FILE as u64;

fn rules(file: &Path, text: io::Result<String>) -> Result<Rules, Failure> {
    let name = file.display();
    let text = text.map_err(|why| Failure::misuse(format!("cannot read {name}: {why}")))?;
    yaml::parse(&text).map_err(|why| {
        Failure::misuse(format!("{name}, {why}")).hint(format!(
            "noports policy check @alice @kitchen pi --rules {}",
            shell_line(&[name.to_string()])
        ))
    })
}

/// Keys of our own that may be rules. What others have planted beside them stays out of the answer, which would grow by it.
fn own_rules(me: &AtSign) -> String {
    let me = regex_lite::escape(me.as_str());
    format!(r"^[^:@]+\.policy\.sshnp{me}$")
}

/// Keys of what the administrator's program tells us. Others may send what they like: it does not reach our line.
pub(super) fn own_news(me: &AtSign) -> String {
    let me = regex_lite::escape(me.as_str());
    format!(r"\.policy\.sshnp{me}$")
}

/// What is among our own records: groups, and the small ones of the newer service. One that cannot be used is
/// left out, with a line in the log.
async fn records(at: &Client) -> Result<Rules, AtError> {
    let scan = Verb::Scan {
        show_hidden: false,
        of: None,
        page: None,
        regex: Some(own_rules(at.atsign())),
    };
    let keys: Vec<String> = json::from_str(&at.run(&scan).await?)
        .map_err(|_| AtError::Protocol("a list of keys that cannot be read".to_owned()))?;
    let mut entities: Vec<(u64, String)> = keys.iter().filter_map(|key| own(at, key)).collect();
    entities.sort_unstable();
    if entities.len() > MAX_RECORDS {
        error!("records={} used={MAX_RECORDS}", entities.len());
        entities.truncate(MAX_RECORDS);
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut small = npp::Records::default();
    for (entity, text) in read_all(at, entities).await? {
        let taken = match npp::kind(&entity) {
            Some((id, kind)) => small.add(id, kind, &text),
            None => group::parse(&text).map(|group| groups.push(group)),
        };
        if let Err(why) = taken {
            error!("record={entity} not_used reason={:?}", why.to_string());
        }
    }
    let (more, missing) = small.groups();
    for what in missing {
        error!("record={what:?} not_used reason=\"another record names it, and it is not there\"");
    }
    groups.extend(more);
    Ok(Rules {
        groups,
        combine: Combine::Both,
    })
}

/// Their texts, in this order; a few are on their way at the same time.
async fn read_all(
    at: &Client,
    entities: Vec<(u64, String)>,
) -> Result<Vec<(String, String)>, AtError> {
    let mut texts = Vec::new();
    for some in entities.chunks(AT_ONCE) {
        let asked: Vec<_> = some
            .iter()
            .map(|(_, entity)| {
                let (at, entity) = (at.clone(), entity.clone());
                task::spawn(async move { (at.get_own(&entity).await, entity) })
            })
            .collect();
        for answer in asked {
            let (text, entity) = answer.await;
            texts.extend(text?.map(|text| (entity, text)));
        }
    }
    Ok(texts)
}

/// Whether a key of ours is that of a rule.
pub(super) fn is_rule(entity: &str) -> bool {
    group::id(entity).is_some() || npp::kind(entity).is_some()
}

/// Number and entity, if a key is that of a rule of ours. What others share with us is none.
fn own(at: &Client, key: &str) -> Option<(u64, String)> {
    let key: AtKey = key.parse().ok()?;
    let ours = key.scope == Scope::Own && key.owner.as_ref() == Some(at.atsign());
    if !ours || key.cached || !is_rule(&key.entity) {
        return None;
    }
    let id = key.entity.split('.').next().unwrap_or_default();
    Some((id.parse().unwrap_or(u64::MAX), key.entity.clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::File, io::Write, pin::pin};

    use async_std::task::block_on;
    use futures_lite::future::poll_once;

    use crate::{cli::exit, program::policy::source::*, testing::named_pipe};

    #[test]
    fn rules_that_come_through_a_pipe_hold_nobody_up_and_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = named_pipe(folder.path());
        // Both directions: this opens without another end.
        let writer = File::options().read(true).write(true).open(&pipe);
        let mut writer = writer.unwrap();
        let mut rules = pin!(read_rules(&pipe));
        // Before the end comes, questions are answered.
        assert!(block_on(poll_once(&mut rules)).is_none());
        writer.write_all(b"rules: [\n").unwrap();
        let refused = block_on(async {
            while rustix::io::ioctl_fionread(&writer).unwrap() != 0 {
                assert!(poll_once(&mut rules).await.is_none());
            }
            drop(writer);
            rules.await
        });
        let refused = refused.err().unwrap();
        assert!(refused.message.contains("line"), "{}", refused.message);
    }

    #[test]
    fn a_strangers_planted_keys_are_not_in_the_answer_with_the_rules() {
        let me: AtSign = "@my_policy".parse().unwrap();
        let ours = regex_lite::Regex::new(&own_rules(&me)).unwrap();
        for (key, is_rule) in [
            ("1.groups.policy.sshnp@my_policy", true),
            ("a.b.npp.policy.sshnp@my_policy", true),
            ("cached:@my_policy:1.groups.policy.sshnp@evil", false),
            ("@my_policy:1.groups.policy.sshnp@evil", false),
            ("cached:public:1.groups.policy.sshnp@evil", false),
            ("1.groups.policy.sshnp@evil", false),
            ("1.groups.policy.sshnp@my_policyx", false),
            ("cached:@my_policy:x.policy.sshnp@my_policy", false),
            ("1.groups.policy.sshnp@my_policy@evil", false),
        ] {
            assert_eq!(ours.is_match(key), is_rule, "{key}");
        }
    }

    #[test]
    fn what_others_send_in_the_name_of_rules_is_no_news() {
        let me: AtSign = "@my_policy".parse().unwrap();
        let news = regex_lite::Regex::new(&own_news(&me)).unwrap();
        for (key, is_news) in [
            ("@my_policy:1.groups.policy.sshnp@my_policy", true),
            ("@my_policy:1.groups.policy.sshnp@evil", false),
            ("@my_policy:1.groups.policy.sshnp@my_policy.evil", false),
            ("@my_policy:pi.devices.policy.sshnp@device", false),
            ("@my_policy:1.groups.policy.sshnp@evilmy_policy", false),
        ] {
            assert_eq!(news.is_match(key), is_news, "{key}");
        }
    }

    #[test]
    fn a_device_without_an_end_is_no_rules() {
        for device in ["/dev/zero", "/dev/full"] {
            let refused = read_rules_now(Path::new(device)).err().unwrap();
            assert_eq!(refused.code, exit::MISUSE, "{}", refused.message);
        }
    }
}

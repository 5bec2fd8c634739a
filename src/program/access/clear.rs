//! Removes what others have sent, and the copies of their values that came with it: with the words every atServer knows,
//! many at a time where it takes many.

use miniserde::{Deserialize, json};

use crate::at::{
    AtSign, Verb,
    client::{AtError, Client},
};

use crate::cli::Failure;

/// Notifications removed with one command.
const AT_ONCE: usize = 200;

#[derive(Deserialize)]
struct ReceivedNote {
    id: String,
    from: String,
}

#[derive(miniserde::Serialize)]
struct BatchCommand {
    id: usize,
    command: String,
}

#[derive(Deserialize)]
struct BatchReply {
    response: BatchResponse,
}

#[derive(Deserialize)]
struct BatchResponse {
    data: Option<String>,
}

/// Removes the received notifications of these senders and the copies of their values, or the notifications of everybody
/// else when there are none; says how many.
pub(super) async fn clear(at: &Client, senders: &[AtSign]) -> Result<usize, Failure> {
    let copies = if senders.is_empty() {
        0
    } else {
        clear_copies(at, senders).await?
    };
    Ok(copies + clear_notes(at, senders).await?)
}

/// An answer names a part of them if there are very many.
async fn clear_copies(at: &Client, senders: &[AtSign]) -> Result<usize, Failure> {
    let mut removed = 0;
    loop {
        let scan = Verb::Scan {
            show_hidden: false,
            of: None,
            page: None,
            regex: Some(format!("^cached:.*@({})$", names(senders))),
        };
        let answer = at.run(&scan).await?;
        let mut keys: Vec<String> = json::from_str(answer.trim())
            .map_err(|_| Failure::plain("the atServer's list of keys cannot be read"))?;
        // One for each atSign, and it is needed again with the next message.
        keys.retain(|key| !key.starts_with("cached:public:publickey@"));
        if keys.is_empty() {
            return Ok(removed);
        }
        let before = removed;
        for some in keys.chunks(AT_ONCE) {
            let deletes = some.iter().map(|key| format!("delete:{key}"));
            removed += batch(at, deletes).await?;
        }
        if removed == before {
            return Err(Failure::plain("the atServer does not remove the copies"));
        }
    }
}

async fn clear_notes(at: &Client, senders: &[AtSign]) -> Result<usize, Failure> {
    let mut removed = 0;
    loop {
        let ids = received(at, senders).await?;
        if ids.is_empty() {
            return Ok(removed);
        }
        let before = removed;
        for some in ids.chunks(AT_ONCE) {
            removed += remove(at, some).await?;
        }
        if removed == before {
            return Err(Failure::plain("the atServer did not remove them"));
        }
    }
}

/// Their ids, as many as the atServer lists at once.
async fn received(at: &Client, senders: &[AtSign]) -> Result<Vec<String>, Failure> {
    let list = Verb::NotifyList {
        from: None,
        to: None,
        regex: (!senders.is_empty()).then(|| pattern(senders)),
    };
    let answer = at.run(&list).await?;
    let all: Vec<ReceivedNote> = match answer.trim() {
        "null" | "" => Vec::new(),
        text => json::from_str(text)
            .map_err(|_| Failure::plain("the atServer's notifications cannot be read"))?,
    };
    let theirs = |from: &str| match from.parse::<AtSign>() {
        Ok(from) if senders.is_empty() => from != *at.atsign(),
        Ok(from) => senders.contains(&from),
        Err(_) => false,
    };
    let theirs = all.into_iter().filter(|one| theirs(&one.from));
    Ok(theirs.map(|one| one.id).collect())
}

/// What finds them among the notifications of others; a key may look like it, too.
fn pattern(senders: &[AtSign]) -> String {
    format!("^({})$", names(senders))
}

/// One of these, as a regular expression.
fn names(senders: &[AtSign]) -> String {
    let names: Vec<_> = senders
        .iter()
        .map(|who| who.bare().replace('.', r"\."))
        .collect();
    names.join("|")
}

/// How many of these went.
async fn remove(at: &Client, ids: &[String]) -> Result<usize, Failure> {
    let removes = ids.iter().map(|id| format!("notify:remove:{id}"));
    match batch(at, removes).await? {
        // Not every atServer takes these in a batch.
        0 => one_by_one(at, ids).await,
        count => Ok(count),
    }
}

/// How many of these commands were carried out.
async fn batch(at: &Client, commands: impl Iterator<Item = String>) -> Result<usize, Failure> {
    let commands: Vec<_> = commands
        .enumerate()
        .map(|(id, command)| BatchCommand { id, command })
        .collect();
    let json = json::to_string(&commands);
    let answer = match at.run(&Verb::Batch { json }).await {
        Ok(answer) => json::from_str::<Vec<BatchReply>>(&answer).unwrap_or_default(),
        Err(AtError::Refused(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let done = answer.iter().filter(|one| one.response.data.is_some());
    Ok(done.count())
}

async fn one_by_one(at: &Client, ids: &[String]) -> Result<usize, Failure> {
    for id in ids {
        at.run(&Verb::NotifyRemove { id: id.clone() }).await?;
    }
    Ok(ids.len())
}

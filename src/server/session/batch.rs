//! Several commands in one line, as `sync` clients send them; and reading back what another server answered.

use miniserde::json::{self, Number, Value};

use crate::{
    at::{Metadata, Verb, fault::Code, verb::Dialect},
    server::{
        refusal::refuse,
        store::{
            Tx,
            records::{Meta, Record},
        },
    },
    text::json::Object as Writer,
};

use super::{
    outcome::{CommandAnswer, Handled},
    state::Session,
};

/// Most commands in one batch.
const MAX_BATCH: usize = 1000;

impl Session {
    /// Runs each command; one that fails does not stop the others.
    pub(super) fn batch(&mut self, tx: &mut Tx<'_>, text: &str) -> Handled {
        self.owner()?;
        let unreadable = || refuse(Code::InvalidSyntax, "Invalid syntax. batch");
        let Ok(Value::Array(entries)) = json::from_str::<Value>(text) else {
            return Err(unreadable());
        };
        if entries.len() > MAX_BATCH {
            return Err(unreadable());
        }
        let mut answers = Vec::new();
        for entry in &entries {
            let Value::Object(entry) = entry else {
                return Err(unreadable());
            };
            let id = match entry.get("id") {
                Some(Value::Number(Number::U64(id))) => *id,
                _ => return Err(unreadable()),
            };
            let Some(Value::String(command)) = entry.get("command") else {
                return Err(unreadable());
            };
            let response = self.one_of_batch(tx, command);
            answers.push(Writer::new().raw("id", id).raw("response", response).end());
        }
        Ok(CommandAnswer::Data(format!("[{}]", answers.join(","))))
    }

    fn one_of_batch(&mut self, tx: &mut Tx<'_>, command: &str) -> String {
        let handled = match Verb::parse(command.trim(), Dialect::Lenient) {
            Ok(
                verb @ (Verb::Update { .. }
                | Verb::UpdateMeta { .. }
                | Verb::UpdateJson { .. }
                | Verb::Delete { .. }
                | Verb::ForceDelete { .. }
                | Verb::NotifyRemove { .. }),
            ) => self.handle(verb, tx),
            _ => Err(refuse(Code::InvalidSyntax, "invalid command")),
        };
        match handled {
            Ok(CommandAnswer::Data(data)) => Writer::new().text("data", &data).end(),
            Ok(_) => Writer::new().text("data", "null").end(),
            Err(refusal) => {
                let code = refusal.fault.code.unwrap_or(Code::InternalException);
                Writer::new()
                    .text("error_code", code.number())
                    .text("error_message", &refusal.fault.text)
                    .end()
            }
        }
    }
}

/// Reads `{"key","data","metaData"}` as another server answers it. Times of expiry are counted from now.
pub(in crate::server) fn parse_all(json_text: &str, now: u64) -> Option<Record> {
    let Ok(Value::Object(all)) = json::from_str::<Value>(json_text) else {
        return None;
    };
    let value = match all.get("data") {
        Some(Value::String(value)) => value.clone(),
        _ => return None,
    };
    let given = match all.get("metaData") {
        Some(Value::Object(metadata)) => Metadata::of_json(metadata),
        _ => Metadata::default(),
    };
    Some(Record {
        value,
        meta: Meta::merged(None, &given, now),
    })
}

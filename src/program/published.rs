//! Whether an atSign has been activated: then its atServer shows its public key to everybody.

use crate::at::{
    AtKey, AtSign, Verb,
    client::{AtError, Link},
    verb::Detail,
};

/// The key's text, if there is one; asked without having logged in.
pub(super) async fn public_key(link: &mut Link, who: &AtSign) -> Result<Option<String>, AtError> {
    let verb = Verb::Lookup {
        key: AtKey::own("publickey", who),
        detail: Detail::Value,
        bypass_cache: false,
    };
    match link.ask(&verb).await {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| text != "null")),
        Err(AtError::Refused(fault)) if fault.is_key_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

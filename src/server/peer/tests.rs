use super::connection::command;
use crate::{
    at::{
        Verb,
        metadata::Item,
        verb::{Dialect, Subject},
    },
    server::store::notes::{NoteKind, tests::note},
};

#[test]
fn the_command_is_one_that_servers_of_2024_read() {
    let mut note = note("n-1", "@alice", "@bob", NoteKind::Sent);
    note.key = "@bob:Req.dev1.sshnp@alice".into();
    note.value = Some("C:T =".into());
    note.meta.items.ttr = Some(-1);
    note.meta.items.ccd = Some(false);
    note.meta.items.iv_nonce = Some(Item::new("IV=="));
    note.meta.items.shared_key_enc = Some(Item::new("SKE="));
    let line = command(&note).unwrap().line().unwrap();
    assert_eq!(
        line,
        "notify:id:n-1:update:messageType:key:notifier:SYSTEM:ttln:1000:ttr:-1:ccd:false\
         :isEncrypted:true:sharedKeyEnc:SKE=:ivNonce:IV==:@bob:Req.dev1.sshnp@alice:C:T ="
    );
    let Ok(Verb::Notify(read)) = Verb::parse(&line, Dialect::Classic) else {
        panic!("{line}");
    };
    assert!(matches!(read.subject, Subject::Key { .. }));
    assert_eq!(read.value.as_deref(), Some("C:T ="));
}

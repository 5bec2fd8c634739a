//! What each command costs on a store behind a network, in requests; and commands that get in each other's way.

use super::*;

/// Commands, some of which need what those before them wrote.
const TRIPS: &[(&str, usize)] = &[
    ("from:@alice", 0),
    ("from:@bob", 0),
    ("update:x.ns@alice v", 0),
    ("update:x.ns@alice w", 0),
    ("update:@bob:x.ns@alice v", 0),
    ("update:ttl:1000:@bob:x.ns@alice v", 0),
    ("update:public:x.ns@alice v", 0),
    ("update:meta:x.ns@alice:ttl:1000", 0),
    (r#"update:json:{"atKey":"j.ns@alice","value":"v"}"#, 0),
    ("update:privatekey:at_pkam_publickey k", 0),
    ("llookup:x.ns@alice", 0),
    ("lookup:x.ns@alice", 0),
    ("lookup:x.ns@bob", 0),
    ("lookup:x.ns@far", 0),
    ("plookup:signing_publickey@bob", 0),
    ("scan", 0),
    ("scan:@bob", 0),
    ("sync:from:-1:limit:10", 0),
    ("stats", 0),
    ("stats:3", 0),
    ("stats:15", 0),
    ("info", 0),
    ("config:block:show", 0),
    ("config:block:add:@carol", 0),
    ("config:block:remove:@carol", 0),
    ("notify:id:1:update:@bob:n.ns@alice:v", 0),
    ("notify:id:2:update:@alice:n.ns@alice:v", 0),
    ("notify:id:2:update:@alice:n.ns@alice:v", 0),
    ("notify:id:3:strategy:latest:notifier:me:latestN:1:@bob:n.ns@alice:v", 0),
    ("notify:all:update:@bob,@carol:n.ns@alice:v", 0),
    ("notify:status:1", 0),
    ("notify:fetch:1", 0),
    ("notify:list", 0),
    ("notify:remove:2", 0),
    ("notify:remove:1", 0),
    ("monitor", 0),
    ("batch:[{\"id\":1,\"command\":\"update:b1.ns@alice v\"},{\"id\":2,\"command\":\"update:b2.ns@alice v\"}]", 0),
    ("delete:x.ns@alice", 0),
    ("delete:force:j.ns@alice", 0),
    ("delete:privatekey:at_secret", 0),
    ("otp:get", 0),
    ("otp:put:abc123", 0),
    ("enroll:list", 0),
    ("enroll:listns:ns", 0),
    (r#"enroll:request:{"appName":"np","deviceName":"d1","namespaces":{"ns":"rw"},"apkamPublicKey":"K"}"#, 0),
    (r#"enroll:approve:{"enrollmentId":"ID","encryptedDefaultEncryptionPrivateKey":"P","encryptedDefaultSelfEncryptionKey":"S"}"#, 0),
    (r#"enroll:fetch:{"enrollmentId":"ID"}"#, 0),
    (r#"enroll:revoke:{"enrollmentId":"ID"}"#, 0),
    (r#"enroll:unrevoke:{"enrollmentId":"ID"}"#, 0),
    (r#"enroll:delete:{"enrollmentId":"ID"}"#, 0),
    ("keys:get:self", 0),
];

#[test]
fn each_verb_takes_few_requests() {
    let mut world = World::new(&["@alice", "@bob"]);
    let mut line = world.login("@alice");
    println!("pkam {}", world.trips);
    let mut id = String::new();
    for (command, trips) in TRIPS {
        let command = command.replace("ID", &id);
        world.trips = 0;
        let outcome = world.run(&mut line, &command);
        let reply = String::from_utf8(outcome.reply).unwrap();
        if command.starts_with("enroll:request") {
            id = reply.split('"').nth(3).unwrap().to_owned();
        }
        println!("{:>2} {command:<70}  {reply:?}", world.trips);
        let _ = trips;
    }
    let mut n = 0;
    world.deliver("@alice", "@bob");
    n += world.trips;
    println!("deliver {n}");
}

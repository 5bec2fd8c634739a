//! Writes the seeds into the folder `SEEDS`. Each target gets what suits it of the known answers.
//!
//! It is no target, but is linked like one: instrumented code needs the engine.
#![no_main]

use std::{fs, path::Path};

use miniserde::json::{self, Value};
use noports::pipe::frame::{Frame, Reason};

mod vectors;

const SESSIONS: [&str; 8] = [
    "afrom:@alice\napkam:$S\naupdate:ttl:10:@bob:x.ns@alice hello\nallookup:all:@bob:x.ns@alice\nm\n+20\nascan\nadelete:@bob:x.ns@alice",
    "afrom:@alice\nacram:$C\naenroll:request:{\"appName\":\"a\",\"deviceName\":\"d\",\"namespaces\":{\"ns\":\"rw\"},\"apkamPublicKey\":\"$P\"}\nbfrom:@alice\nbpkam:enrollmentId:$I:$S\nbupdate:x.ns@alice v\nascan\naenroll:list",
    "afrom:@alice\napkam:$S\naotp:get\ncenroll:request:{\"appName\":\"b\",\"deviceName\":\"e\",\"namespaces\":{\"wavi\":\"rw\",\"buzz\":\"r\"},\"otp\":\"$O\",\"apkamPublicKey\":\"$P\",\"encryptedAPKAMSymmetricKey\":\"k\"}\naenroll:approve:{\"enrollmentId\":\"$I\",\"encryptedDefaultEncryptionPrivateKey\":\"p\",\"encryptedDefaultSelfEncryptionKey\":\"s\"}\ncfrom:@alice\ncpkam:signingAlgo:rsa2048:hashingAlgo:sha256:enrollmentId:$I:$S\ncupdate:x.wavi@alice v\ncllookup:canary.hidden@alice\ncscan:showHidden:true\nckeys:get:private\naenroll:revoke:{\"enrollmentId\":\"$I\"}\naenroll:delete:{\"enrollmentId\":\"$I\"}",
    "afrom:@bob\np\napol\nascan\nalookup:x.ns@alice\nanotify:id:1-2:notifier:n:@alice:y.ns@bob:v\nallookup:x@alice",
    "dfrom:@bob\ndpkam:$S\ndmonitor:selfNotifications:0 .*\nefrom:@bob\nepkam:$S\nenotify:id:7:messageType:text:@bob:hello\nafrom:@alice\napkam:$S\nanotify:update:messageType:key:notifier:x:ttln:60000:@bob:y.ns@alice:v\nm\ndnoop:0\nanotify:list\nanotify:status:7\nanotify:fetch:7",
    "afrom:@alice:clientConfig:{\"version\":\"3.0.80\"}\napkam:$S\nasync:from:-1:limit:10\nastats:3\naupdate:json:{\"atKey\":\"public:z.ns@alice\",\"value\":\"v\",\"metadata\":{\"ttr\":-1,\"ccd\":true}}\naupdate:meta:public:z.ns@alice:ttl:5\nabatch:[{\"id\":1,\"command\":\"update:q.ns@alice 1\"},{\"id\":2,\"command\":\"delete:q.ns@alice\"}]\naconfig:block:add:@bob\naconfig:block:show\nainfo\nastats:0,1,2,3:.*",
    "afrom:@alice\napkam:$S\naupdate:x.ns@alice 1\n-86400\naupdate:x.ns@alice 2\nafrom:@alice\n+61\napkam:$S\naupdate:public:publickey@alice k\nanotify:all:update:@bob,@carol:z.ns@alice:v\nanotify:remove:1",
    "aotp:put:abcdef\nafrom:alice\napkam:$S\naotp:put:abcdef\nbenroll:request:{\"otp\":\"abcdef\",\"appName\":\"x\",\"deviceName\":\"y\",\"namespaces\":{\"__manage\":\"rw\",\"*\":\"rw\"},\"apkamPublicKey\":\"$P\"}\naenroll:deny:{\"enrollmentId\":\"$I\"}\naplookup:bypassCache:true:all:publickey@bob\n@exit",
];

libfuzzer_sys::fuzz_target!(init: {
    write();
}, |_data: &[u8]| {});

fn write() {
    let folder = std::env::var_os("SEEDS").expect("a folder in SEEDS");
    let mut seeds = Seeds {
        folder: folder.into(),
        count: 0,
    };
    vectors::visit(&mut |path, node| seeds.take(path, node));
    for script in SESSIONS {
        seeds.put("session", script);
    }
    for list in ["localhost:22, *:3389", "*:*,[::1]:80", ""] {
        seeds.put("answers", list);
    }
    for meta in [
        "ttl:1000:ttb:5:ttr:-1:ccd:true",
        "dataSignature:x:isBinary:true:isEncrypted:false:sharedKeyEnc:a:pubKeyCS:b",
        "encoding:base64:encKeyName:k:encAlgo:a:ivNonce:i:skeEncKeyName:s:skeEncAlgo:t:immutable:true:appMetadata:m",
        "pubKeyHash:h:hashingAlgo:sha512",
        r#"{"createdAt":1,"updatedAt":2,"version":3,"ttl":4}"#,
    ] {
        seeds.put("metadata", meta);
    }
    for seed in data_plane() {
        seeds.put_bytes("data_plane", &seed);
    }
    let line = vectors::admission()
        .line(&vectors::pair("@client_example"))
        .expect("it can sign");
    seeds.put("admit", &line);
    println!("{} seeds", seeds.count);
}

/// One of each kind; frames of every kind to a whole session.
fn data_plane() -> Vec<Vec<u8>> {
    let frames = [
        Frame::Open(1),
        Frame::Open(2),
        Frame::Data(1, b"ab"),
        Frame::Credit(1, 1000),
        Frame::End(1),
        Frame::Reset(2, Reason::Gone),
        Frame::Ping(5),
        Frame::Pong(5),
    ];
    let mut content = Vec::new();
    for frame in frames {
        content.extend(frame.header());
        if let Frame::Data(_, bytes) = frame {
            content.extend_from_slice(bytes);
        }
    }
    let record = [&[0, 17][..], &[7; 17]].concat();
    let seed = |first: &[u8], rest: &[u8]| [first, rest].concat();
    vec![
        seed(&[0, 4], &record),
        seed(&[1, 9, 1, 3], b"one two three"),
        seed(&[2], &content),
        seed(&[3, 0], &content),
        seed(&[3, 255], &content.repeat(3)),
    ]
}

struct Seeds {
    folder: std::path::PathBuf,
    count: usize,
}

impl Seeds {
    fn take(&mut self, path: &str, node: &Value) {
        let last = path.rsplit(['.', ']']).next().unwrap_or_default();
        if path.ends_with("_file") {
            self.put("keyfile", &json::to_string(node));
        }
        if path.starts_with(".notifications.") && matches!(node, Value::Object(_)) {
            self.put("notification", &json::to_string(node));
        }
        let Value::String(text) = node else { return };
        match last {
            "bytes_utf8" => {
                for mode in ["\0", "\u{1}", "\u{2}", "\u{f}"] {
                    self.put("reply", &format!("{mode}{text}"));
                }
            }
            "command" => {
                self.put("verb", text);
                self.put(
                    "session",
                    &format!("a{text}\nafrom:@alice\napkam:$S\na{text}"),
                );
            }
            "input" => self.put("atkey", text),
            _ => {}
        }
        if path.contains("relayMessages")
            || path.contains("ports")
            || path.contains("ping")
            || path.contains("heartbeat")
        {
            self.put("answers", text);
        }
        if path.starts_with(".enrollment.") && text.contains('{') {
            self.put("enrolment", &text[text.find('{').unwrap_or(0)..]);
            self.put("verb", text);
        }
        if text.starts_with(r#"{"payload""#) {
            self.put("envelope", text);
            self.put("admit", text);
        }
        if last.ends_with("key") && text.contains('@') {
            self.put("atkey", text);
        }
        if let Some(json) = text.strip_prefix("notification: ") {
            self.put("notification", json);
            self.put("reply", &format!("\u{1}{text}"));
        }
    }

    fn put(&mut self, target: &str, text: &str) {
        self.put_bytes(target, text.trim_end().as_bytes());
    }

    fn put_bytes(&mut self, target: &str, bytes: &[u8]) {
        let folder = Path::new(&self.folder).join(target);
        fs::create_dir_all(&folder).expect("the folder can be made");
        fs::write(folder.join(format!("{:04}", self.count)), bytes)
            .expect("it can be written");
        self.count += 1;
    }
}

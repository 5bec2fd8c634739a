//! What the programs tell each other in clear or decrypted: ports, heartbeats, permit lists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noports::np::{
    permit::Permit,
    ping::Heartbeat,
    ports::{Ports, PortsRequest},
};

fuzz_target!(|text: &str| {
    if let Ok(ports) = Ports::parse(text) {
        assert!(noports::text::host::is_host(&ports.host), "{}", ports.host);
        // A missing nonce is printed as the word `null`, as rendezvous do.
        if ports.nonce.is_some() {
            assert_eq!(Ports::parse(&ports.print()), Ok(ports));
        }
    }
    let _ = PortsRequest::parse(&"@alice".parse().expect("an atSign"), text);
    if let Ok(heartbeat) = Heartbeat::parse(text) {
        let _ = Heartbeat::parse(&heartbeat.print()).expect("what we print can be read");
    }
    if let Ok(permit) = text.parse::<Permit>() {
        assert_eq!(permit.to_string().parse(), Ok(permit));
    }
});

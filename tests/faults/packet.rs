//! What a line has to know of a packet, and the reset of a TCP connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Where it comes from and goes to, and the TCP segment that it may carry.
pub struct Packet<'a> {
    pub from: IpAddr,
    pub to: IpAddr,
    pub tcp: Option<Segment<'a>>,
}

/// A TCP segment, from its header on.
pub struct Segment<'a>(&'a [u8]);

/// A connection, whichever way a packet goes: the two ends in order.
pub type Flow = ((IpAddr, u16), (IpAddr, u16));

impl<'a> Packet<'a> {
    /// None: neither IPv4 nor IPv6, or cut short.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 15) * 4;
                let address = |at: usize| {
                    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                    Some(IpAddr::from(Ipv4Addr::from(four)))
                };
                let carried = (*bytes.get(9)?, bytes.get(header..)?);
                Some(Self::of(address(12)?, address(16)?, carried))
            }
            6 => {
                let address = |at: usize| {
                    let sixteen: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                    Some(IpAddr::from(Ipv6Addr::from(sixteen)))
                };
                let carried = (*bytes.get(6)?, bytes.get(IPV6_HEADER..)?);
                Some(Self::of(address(8)?, address(24)?, carried))
            }
            _ => None,
        }
    }

    fn of(from: IpAddr, to: IpAddr, (protocol, carried): (u8, &'a [u8])) -> Self {
        let is_tcp = protocol == TCP && carried.len() >= TCP_HEADER;
        let tcp = is_tcp.then_some(Segment(carried));
        Self { from, to, tcp }
    }

    /// The connection that it belongs to.
    pub fn flow(&self) -> Option<Flow> {
        let (from, to) = self.tcp.as_ref()?.ports();
        let (one, other) = ((self.from, from), (self.to, to));
        Some((one.min(other), one.max(other)))
    }

    /// What ends this connection at both of its ends: first for the sender, then for the receiver.
    pub fn resets(&self) -> Option<[Vec<u8>; 2]> {
        let tcp = self.tcp.as_ref().filter(|tcp| tcp.flags() & RST == 0)?;
        let (from, to) = tcp.ports();
        let back = if tcp.flags() & ACK == 0 {
            // It has told no number of the other side's yet.
            let next = tcp
                .number(4)
                .wrapping_add(u32::from(tcp.flags() & SYN != 0));
            segment((to, from), 0, next, RST | ACK)
        } else {
            segment((to, from), tcp.number(8), 0, RST)
        };
        let on = segment((from, to), tcp.number(4), 0, RST);
        Some([
            datagram(self.to, self.from, back),
            datagram(self.from, self.to, on),
        ])
    }
}

impl Segment<'_> {
    fn flags(&self) -> u8 {
        self.0[13]
    }

    /// Whether it begins a connection.
    pub fn begins(&self) -> bool {
        self.flags() & (SYN | ACK) == SYN
    }

    fn ports(&self) -> (u16, u16) {
        let port = |at: usize| u16::from_be_bytes([self.0[at], self.0[at + 1]]);
        (port(0), port(2))
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}

/// A TCP header alone; its checksum is still missing.
fn segment((from, to): (u16, u16), number: u32, next: u32, flags: u8) -> [u8; TCP_HEADER] {
    let mut header = [0; TCP_HEADER];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..8].copy_from_slice(&number.to_be_bytes());
    header[8..12].copy_from_slice(&next.to_be_bytes());
    header[12] = (TCP_HEADER as u8 / 4) << 4;
    header[13] = flags;
    header
}

fn datagram(from: IpAddr, to: IpAddr, mut tcp: [u8; TCP_HEADER]) -> Vec<u8> {
    let ends = [octets(from), octets(to)].concat();
    let about = [0, TCP, 0, TCP_HEADER as u8];
    let sum = checksum(&[&ends[..], &about, &tcp].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut header = match from {
        IpAddr::V4(_) => {
            let mut header = vec![0; IPV4_HEADER - ends.len()];
            header[0] = 0x45;
            header[3] = (IPV4_HEADER + TCP_HEADER) as u8;
            (header[8], header[9]) = (64, TCP);
            header
        }
        IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, TCP_HEADER as u8, TCP, 64],
    };
    header.extend_from_slice(&ends);
    if from.is_ipv4() {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    header.extend_from_slice(&tcp);
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// The Internet's, of RFC 1071. Only even lengths come here.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

//! Whose an address is, and how near, as far as an address tells.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Of an IPv6 address only what a site is given: it has all addresses behind that.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// As [`network_of`], and of an IPv4 address the 256 beside it: who rents one rents several.
pub fn neighbourhood_of(address: IpAddr) -> IpAddr {
    match network_of(address) {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        v6 => v6,
    }
}

/// All that one customer of a provider may well have: the 256 IPv4 addresses beside it, or the 65,536 IPv6 networks.
pub fn range_of(address: IpAddr) -> IpAddr {
    match neighbourhood_of(address) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48)).into(),
        v4 => v4,
    }
}

/// How near an address is, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearness {
    /// Everybody reaches it.
    World,
    /// Inside a site, or of a provider's customers.
    Site,
    /// On one wire; a cloud's machines ask for their secrets there.
    Link,
    /// This machine.
    Host,
}

impl Nearness {
    /// The one of this address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => Self::Host,
            IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast() => Self::Link,
            IpAddr::V6(v6) if v6.is_unique_local() || is_site_local(v6) => Self::Site,
            IpAddr::V6(v6) => match within(v6) {
                Some(v4) => Self::of_v4(v4),
                None if is_beside_us(v6, OWN_ADDRESSES) => Self::Site,
                None => Self::World,
            },
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Self {
        match v4.octets() {
            [127 | 0, ..] => Self::Host,
            _ if v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() => Self::Link,
            // Of protocols on one wire (RFC 6890); some clouds' machines ask for their secrets there, or at the other.
            [192, 0, 0, _] | [168, 63, 129, 16] => Self::Link,
            _ if v4.is_private() => Self::Site,
            // Behind a provider's translator (RFC 6598); of test networks (RFC 2544); never given out (RFC 1112).
            [100, 64..=127, ..] | [198, 18 | 19, ..] | [240..=255, ..] => Self::Site,
            _ => Self::World,
        }
    }

    /// Whether somebody who finds his own directory so near lets strangers send him to that address.
    pub fn admits(self, address: IpAddr) -> bool {
        let near = Self::of(address);
        near == Self::World || near == self || (near, self) == (Self::Site, Self::Host)
    }
}

/// Each line has an address of this machine, in hexadecimal digits.
const OWN_ADDRESSES: &str = "/proc/self/net/if_inet6";

/// As sites had them before unique local ones (RFC 3879).
fn is_site_local(v6: Ipv6Addr) -> bool {
    v6.segments()[0] & 0xffc0 == 0xfec0
}

/// The IPv4 address that a translator or a tunnel takes this for, or that was meant by it.
fn within(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let joined = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        // RFC 6052; RFC 4291; RFC 2765.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(joined(high, low)),
        // A site's own translator (RFC 8215).
        [0x64, 0xff9b, 1, ..] => Some(translated(v6.octets())),
        // 6to4; Teredo, which turns every bit round; ISATAP (RFCs 3056, 4380, 5214).
        [0x2002, high, low, ..] => Some(joined(high, low)),
        [0x2001, 0, .., high, low] => Some(joined(!high, !low)),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(joined(high, low)),
        _ => None,
    }
}

/// Behind a prefix of 48 to 96 bits, around octet 8 and before nothing but zeros (RFC 6052): the shortest that fits.
fn translated(octets: [u8; 16]) -> Ipv4Addr {
    const PLACES: [[usize; 4]; 4] = [
        [6, 7, 9, 10],
        [7, 9, 10, 11],
        [9, 10, 11, 12],
        [12, 13, 14, 15],
    ];
    let is_followed_by_zeros = |place: &[usize; 4]| octets[place[3] + 1..].iter().all(|o| *o == 0);
    let fits = PLACES.into_iter().find(is_followed_by_zeros);
    fits.unwrap_or_default().map(|at| octets[at]).into()
}

/// Whether it is in a network of an address of this machine, by the kernel's table of these.
fn is_beside_us(v6: Ipv6Addr, own: &str) -> bool {
    let own = fs::read_to_string(own).unwrap_or_default();
    let addresses = own.lines().filter_map(|line| line.split(' ').next());
    addresses
        .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
        .any(|bits| network_of(Ipv6Addr::from_bits(bits).into()) == network_of(v6.into()))
}

const WORDS: [(Nearness, &str); 4] = [
    (Nearness::World, "world"),
    (Nearness::Site, "site"),
    (Nearness::Link, "link"),
    (Nearness::Host, "host"),
];

impl std::fmt::Display for Nearness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = WORDS.iter().find(|(nearness, _)| nearness == self);
        f.write_str(word.map_or("", |(_, word)| word))
    }
}

impl std::str::FromStr for Nearness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = WORDS.iter().find(|(_, word)| *word == text);
        let (nearness, _) = found.ok_or("world, site, link or host")?;
        Ok(*nearness)
    }
}

/// How near several addresses are: an atDirectory on a site may have a private address and a public one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearnessSet([bool; WORDS.len()]);

impl NearnessSet {
    /// Each that is in it.
    fn members(&self) -> impl Iterator<Item = Nearness> {
        let all = WORDS.iter().zip(self.0);
        all.filter_map(|((nearness, _), is_in)| is_in.then_some(*nearness))
    }

    /// Nothing is known of any address.
    pub fn is_empty(&self) -> bool {
        self.members().next().is_none()
    }

    /// Whether somebody who finds his own directory at such addresses lets strangers send him to that one.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.members().any(|near| near.admits(address))
    }
}

impl FromIterator<Nearness> for NearnessSet {
    fn from_iter<I: IntoIterator<Item = Nearness>>(all: I) -> Self {
        let mut set = Self::default();
        for nearness in all {
            for ((other, _), is_in) in WORDS.iter().zip(&mut set.0) {
                *is_in |= *other == nearness;
            }
        }
        set
    }
}

/// `world,site`
impl std::fmt::Display for NearnessSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self.members().map(|one| one.to_string()).collect();
        f.write_str(&words.join(","))
    }
}

impl std::str::FromStr for NearnessSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn where_a_directory_has_addresses_of_several_kinds_each_of_them_counts() {
        let set = |text: &str| text.parse::<NearnessSet>().unwrap();
        for (of, goes, stays) in [
            (
                "world",
                &["198.51.100.7"][..],
                &["10.1.2.3", "127.0.0.1"][..],
            ),
            (
                "world,site",
                &["198.51.100.7", "10.1.2.3", "fd00::1"],
                &["127.0.0.1", "fe80::1"],
            ),
            (
                "site",
                &["198.51.100.7", "10.1.2.3"],
                &["::1", "169.254.169.254"],
            ),
            ("link", &["2001:db8::1", "fe80::1"], &["10.1.2.3", "::1"]),
            ("world,host", &["::1", "10.1.2.3"], &["169.254.169.254"]),
            ("site,link,host", &["fe80::1", "::1", "10.1.2.3"], &[]),
        ] {
            assert_eq!(set(of).to_string(), of);
            for (addresses, is_admitted) in [(goes, true), (stays, false)] {
                for one in addresses {
                    let admitted = set(of).admits(one.parse().unwrap());
                    assert_eq!(admitted, is_admitted, "{of}: {one}");
                }
            }
        }
        assert_eq!(set("host,world,host"), set("world,host"));
        assert!(NearnessSet::default().is_empty());
        for bad in ["", "world,", "near", "world site"] {
            assert!(bad.parse::<NearnessSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn strangers_send_nobody_inside_whose_directory_is_outside() {
        for (address, nearness) in [
            ("198.51.100.7", Nearness::World),
            ("2001:db8::1", Nearness::World),
            ("172.32.0.1", Nearness::World),
            ("10.1.2.3", Nearness::Site),
            ("192.168.0.1", Nearness::Site),
            ("100.64.0.1", Nearness::Site),
            ("fd00::1", Nearness::Site),
            ("::ffff:10.0.0.1", Nearness::Site),
            ("64:ff9b::192.168.0.1", Nearness::Site),
            ("169.254.169.254", Nearness::Link),
            ("fe80::1", Nearness::Link),
            ("::ffff:169.254.169.254", Nearness::Link),
            ("64:ff9b::169.254.169.254", Nearness::Link),
            ("255.255.255.255", Nearness::Link),
            ("ff02::1", Nearness::Link),
            ("127.0.0.1", Nearness::Host),
            ("127.255.0.1", Nearness::Host),
            ("0.0.0.0", Nearness::Host),
            ("0.1.2.3", Nearness::Host),
            ("::1", Nearness::Host),
            ("::", Nearness::Host),
            ("::127.0.0.1", Nearness::Host),
            ("::ffff:127.0.0.1", Nearness::Host),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Nearness::of(address), nearness, "{address}");
            assert_eq!(nearness.to_string().parse(), Ok(nearness));
            assert!(nearness.admits(address), "{address}");
            let is_outside = nearness == Nearness::World;
            assert_eq!(Nearness::World.admits(address), is_outside, "{address}");
        }
        let admits = |near: Nearness, address: &str| near.admits(address.parse().unwrap());
        assert!(admits(Nearness::Host, "10.0.0.1") && !admits(Nearness::Site, "127.0.0.1"));
        assert!(!admits(Nearness::Host, "169.254.169.254"));
        assert!("Host".parse::<Nearness>().is_err());
    }

    /// Each of these was the world's: a stranger reached the inside by writing an inner address another way.
    #[test]
    fn an_inner_address_is_near_however_it_is_written() {
        for (address, nearness) in [
            // A site's own translator, with prefixes of 96, 64, 56 and 48 bits.
            ("64:ff9b:1::192.168.0.1", Nearness::Site),
            ("64:ff9b:1:7:7:7:10.0.0.1", Nearness::Site),
            ("64:ff9b:1:7:c0:a800:100::", Nearness::Site),
            ("64:ff9b:1:7a9:fe:a9fe::", Nearness::Link),
            ("64:ff9b:1:7f00:0:100::", Nearness::Host),
            ("64:ff9b:1::198.51.100.7", Nearness::World),
            ("64:ff9b:1:c633:64:700::", Nearness::World),
            // Translated, and tunnelled.
            ("::ffff:0:10.0.0.1", Nearness::Site),
            ("::ffff:0:127.0.0.1", Nearness::Host),
            ("::ffff:0:198.51.100.7", Nearness::World),
            ("2002:a00:1::1", Nearness::Site),
            ("2002:a9fe:a9fe::", Nearness::Link),
            ("2002:7f00:1::1", Nearness::Host),
            ("2002:c633:6407::1", Nearness::World),
            ("2001:0:c633:6407::f5ff:fffe", Nearness::Site),
            ("2001:0:a00:1::39cc:9bf8", Nearness::World),
            ("2001:db8::5efe:10.0.0.1", Nearness::Site),
            ("2001:db8::200:5efe:198.51.100.7", Nearness::World),
            // What sites use, or nobody.
            ("fec0::1", Nearness::Site),
            ("feff::1", Nearness::Site),
            ("198.18.0.1", Nearness::Site),
            ("198.19.255.255", Nearness::Site),
            ("198.20.0.1", Nearness::World),
            ("240.0.0.1", Nearness::Site),
            ("255.255.255.254", Nearness::Site),
            ("::ffff:240.0.0.1", Nearness::Site),
            ("192.0.0.192", Nearness::Link),
            ("192.0.1.1", Nearness::World),
            ("168.63.129.16", Nearness::Link),
        ] {
            assert_eq!(
                Nearness::of(address.parse().unwrap()),
                nearness,
                "{address}"
            );
        }
    }

    #[test]
    fn who_is_in_a_network_of_this_machine_is_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("if_inet6");
        let lines = [
            "00000000000000000000000000000001 01 80 10 80       lo",
            "20010db8000100020000000000000007 02 40 00 80     eth0",
            "20010db8000300000000000000000001 03 80 00 80     eth1",
            "not an address",
            "",
        ];
        fs::write(&table, lines.join("\n")).unwrap();
        let is_beside = |address: &str, table: &std::path::Path| {
            is_beside_us(address.parse().unwrap(), table.to_str().unwrap())
        };
        for (address, expected) in [
            ("2001:db8:1:2::1", true),
            ("2001:db8:1:2:ffff::", true),
            ("2001:db8:1:3::1", false),
            ("2001:db8:3::2", true),
            ("2001:db8::7", false),
        ] {
            assert_eq!(is_beside(address, &table), expected, "{address}");
        }
        // No IPv6 here.
        assert!(!is_beside("2001:db8:1:2::1", &folder.path().join("none")));
        // The kernel's own table has the form that is read.
        if fs::read_to_string(OWN_ADDRESSES).is_ok_and(|own| own.contains(" lo")) {
            assert!(is_beside_us(Ipv6Addr::LOCALHOST, OWN_ADDRESSES));
        }
    }

    #[test]
    fn addresses_of_one_site_are_one() {
        for (address, network, neighbourhood, range) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.0", "192.0.2.0"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0", "192.0.2.0"),
            (
                "2001:db8:1:2:3:4:5:6",
                "2001:db8:1:2::",
                "2001:db8:1:2::",
                "2001:db8:1::",
            ),
            ("::1", "::", "::", "::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(network_of(address).to_string(), network);
            assert_eq!(neighbourhood_of(address).to_string(), neighbourhood);
            assert_eq!(range_of(address).to_string(), range);
        }
    }
}

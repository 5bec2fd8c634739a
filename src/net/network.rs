//! Whose an address is, and how near, as far as an address tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
            IpAddr::V6(v6) if v6.is_unique_local() => Self::Site,
            // One that a translator takes for an IPv4 address (RFC 6052), or that was meant as one (RFC 4291).
            IpAddr::V6(v6) => match v6.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
                    Self::of_v4((u32::from(high) << 16 | u32::from(low)).into())
                }
                _ => Self::World,
            },
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Self {
        let [first, second, ..] = v4.octets();
        let is_shared = first == 100 && second & 0xc0 == 64;
        if v4.is_loopback() || first == 0 {
            Self::Host
        } else if v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() {
            Self::Link
        } else if v4.is_private() || is_shared {
            Self::Site
        } else {
            Self::World
        }
    }

    /// Whether somebody who finds his own directory so near lets strangers send him to that address.
    pub fn admits(self, address: IpAddr) -> bool {
        let near = Self::of(address);
        near == Self::World || near == self || (near, self) == (Self::Site, Self::Host)
    }
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

//! Whose an address is, as far as an address tells.

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

/// As [`neighbourhood_of`], and of an IPv6 address what a company is given: 65,536 networks, each with all its addresses.
pub fn site_of(address: IpAddr) -> IpAddr {
    match neighbourhood_of(address) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_site_are_one() {
        for (address, network, neighbourhood, site) in [
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
            assert_eq!(site_of(address).to_string(), site);
        }
    }
}

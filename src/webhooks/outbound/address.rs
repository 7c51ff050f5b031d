//! Which addresses may be called. A stranger names them, and the server stands inside a network that the stranger does not
//! see: so only public addresses, but for those that the operator allows.
//!
//! A name is resolved by us; every address that it has must be good, and the connection goes to one of exactly those. So a
//! name that answers differently the next time gains nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// How long a name may take to be resolved.
const PATIENCE: Duration = Duration::from_secs(5);

/// IPv4 addresses that are not of the public internet, or not of one host there.
const NOT_PUBLIC_V4: &[([u8; 4], u8)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    // The one public address of a cloud at which its machines find their secrets.
    ([168, 63, 129, 16], 32),
];

/// Parts of the global unicast addresses of IPv6 (2000::/3) that are not of the public internet: protocol assignments with
/// Teredo, documentation.
const NOT_PUBLIC_V6: &[([u16; 8], u8)] = &[
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// Why an address is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no address that could be called.
    #[error("{0}")]
    Form(String),
    /// It is not of the public internet, and not allowed by the configuration.
    #[error("{0} is not a public address; the operator can allow it with delivery.allow_addresses")]
    NotPublic(IpAddr),
    /// Plain `http` to somewhere else than what the configuration allows.
    #[error("https is needed; plain http only goes to addresses that delivery.allow_addresses has")]
    Plain,
    /// Nobody knows the name now.
    #[error("{0}")]
    Unresolved(String),
}

/// The IPv4 address inside an IPv6 address that leads to it: mapped, 6to4, or through the translators of NAT64.
fn inner(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4(g, h)),
        [0x2002, ..] => Some(v4(b, c)),
        _ => None,
    }
}

/// True for an address of one host of the public internet.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let within =
                |(net, bits): &([u8; 4], u8)| Ipv4Net::new((*net).into(), *bits).is_ok_and(|net| net.contains(&ip));
            !NOT_PUBLIC_V4.iter().any(within)
        }
        IpAddr::V6(ip) => {
            if let Some(inner) = inner(ip) {
                return is_public(inner.into());
            }
            let within =
                |(net, bits): &([u16; 8], u8)| Ipv6Net::new((*net).into(), *bits).is_ok_and(|net| net.contains(&ip));
            let global = ip.segments().first().is_some_and(|first| first & 0xe000 == 0x2000);
            global && !NOT_PUBLIC_V6.iter().any(within)
        }
    }
}

/// Judges addresses.
#[derive(Debug, Clone)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// One that takes public addresses, and these.
    #[must_use]
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Judges one address, to be called over TLS or not.
    ///
    /// # Errors
    /// Why it is not called.
    pub fn judge(&self, ip: IpAddr, tls: bool) -> Result<(), Refused> {
        let inside = match ip {
            IpAddr::V6(six) => inner(six).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let allowed = |ip: &IpAddr| self.allowed.iter().any(|net| net.contains(ip));
        if allowed(&ip) || inside.as_ref().is_some_and(allowed) {
            return Ok(());
        }
        if !is_public(ip) {
            return Err(Refused::NotPublic(inside.unwrap_or(ip)));
        }
        if tls { Ok(()) } else { Err(Refused::Plain) }
    }

    /// Judges an address by nothing but how it is written: what it says is known without asking a name server.
    ///
    /// # Errors
    /// Why it will never be called.
    pub fn check_written(&self, url: &Url) -> Result<(), Refused> {
        let tls = url.scheme() == "https";
        let host = url.host_str().unwrap_or_default();
        match literal(host) {
            Some(ip) => self.judge(ip, tls),
            // What it means is fixed, whether a name server knows it or not.
            None if is_local(host) => self.judge(Ipv4Addr::LOCALHOST.into(), tls),
            None if !tls && self.allowed.is_empty() => Err(Refused::Plain),
            None => Ok(()),
        }
    }

    /// Judges an address as it is written. A host that is a number has no name to resolve; a name must be resolved.
    ///
    /// # Errors
    /// Why it is not called; [`Refused::Unresolved`] when that cannot be told.
    pub async fn check(&self, url: &Url) -> Result<(), Refused> {
        self.check_written(url)?;
        let host = url.host_str().unwrap_or_default();
        match literal(host) {
            Some(_) => Ok(()),
            None => self.resolve(host, url.scheme() == "https").await.map(drop),
        }
    }

    /// All addresses of a name, if each of them is good.
    async fn resolve(&self, host: &str, tls: bool) -> Result<Vec<SocketAddr>, Refused> {
        let unresolved = |why: &dyn std::fmt::Display| Refused::Unresolved(format!("{host} cannot be resolved: {why}"));
        if is_local(host) {
            self.judge(Ipv4Addr::LOCALHOST.into(), tls)?;
        }
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await;
        let found = found.map_err(|late| unresolved(&late))?.map_err(|error| unresolved(&error))?;
        let addresses: Vec<SocketAddr> = found.collect();
        if addresses.is_empty() {
            return Err(unresolved(&"it has no address"));
        }
        for address in &addresses {
            self.judge(address.ip(), tls)?;
        }
        Ok(addresses)
    }
}

/// The address that a host of a URL is; none for a name.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// True for the names that stand for this machine.
fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Resolves names for a client: it gets only addresses that were judged, and connects to one of these.
#[derive(Debug)]
pub(super) struct Judging {
    pub(super) guard: Guard,
    pub(super) tls: bool,
}

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, tls) = (self.guard.clone(), self.tls);
        Box::pin(async move {
            let addresses = guard.resolve(name.as_str(), tls).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for ip in
            ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1", "::ffff:1.1.1.1"]
        {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "192.0.0.170",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001:0:1::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    async fn check(guard: &Guard, url: &str) -> Result<(), Refused> {
        guard.check(&super::super::check::form(url)?).await
    }

    #[tokio::test]
    async fn every_way_to_write_loopback_is_refused_unless_it_is_allowed() {
        let hosts = [
            "127.0.0.1",
            "2130706433",
            "0177.0.0.1",
            "0x7f000001",
            "127.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "0.0.0.0",
            "localhost",
        ];
        let closed = Guard::new(&[]);
        for host in hosts.into_iter().chain(["LOCALHOST.", "a.localhost"]) {
            for scheme in ["http", "https"] {
                let refused = check(&closed, &format!("{scheme}://{host}:4910/")).await;
                assert!(matches!(refused, Err(Refused::NotPublic(_))), "{scheme} {host}: {refused:?}");
            }
        }
        let open = Guard::new(&["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for host in hosts.iter().filter(|host| **host != "0.0.0.0") {
            assert_eq!(check(&open, &format!("http://{host}/")).await, Ok(()), "{host}");
        }
        assert!(check(&open, "http://10.0.0.1/").await.is_err(), "nothing else");
        assert_eq!(check(&open, "http://1.1.1.1/").await, Err(Refused::Plain));
        assert_eq!(check(&closed, "http://nobody.invalid/").await, Err(Refused::Plain), "whatever it resolves to");
        assert_eq!(check(&open, "https://1.1.1.1/").await, Ok(()));
    }
}

//! Addresses of the pod itself: nothing answers there that an input could come from. `localhost` has many spellings.

use core::net::IpAddr;

/// The host of the address of a registry (`host[:port]`) or of a URL, if it is the pod itself.
pub(in crate::plan) fn own_host(address: &str) -> Option<String> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}/") };
    // A URL has one spelling of each IPv4 address: of 127.1, 0x7f000001 and 2130706433, too.
    let url = url::Url::parse(&url).ok()?;
    let host = url.host_str()?;
    is_own(host.trim_end_matches('.')).then(|| host.to_owned())
}

/// `host` is lower-case, with brackets around an IPv6 address.
fn is_own(host: &str) -> bool {
    let names = [
        "localhost",
        "localhost.localdomain",
        "localhost6",
        "localhost6.localdomain6",
        "ip6-localhost",
        "ip6-loopback",
    ];
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    names.contains(&host)
        || host.ends_with(".localhost")
        || literal.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        })
}

#[cfg(test)]
mod tests {
    use super::own_host;

    #[test]
    fn every_spelling_of_the_pod_itself_is_known() {
        for address in [
            "localhost",
            "LOCALHOST:5000",
            "localhost.",
            "localhost.localdomain",
            "a.localhost",
            "ip6-localhost:80",
            "127.0.0.1",
            "127.1:5000",
            "127.9.9.9",
            "0x7f.1",
            "2130706433",
            "0.0.0.0:80",
            "0",
            "[::1]:5000",
            "[::]",
            "[0:0::1]",
            "[::ffff:127.0.0.1]",
            "http://u:p@127.1/f?x=1",
            "https://localhost:8443/",
        ] {
            assert!(own_host(address).is_some(), "{address}");
        }
        for address in
            ["docker.io", "localhost.example.com", "10.0.0.1:5000", "128.0.0.1", "[fe80::1]", "https://h/127.0.0.1", ""]
        {
            assert_eq!(own_host(address), None, "{address}");
        }
        assert_eq!(own_host("https://user:pass@127.1/f").as_deref(), Some("127.0.0.1"), "no secret of it");
    }
}

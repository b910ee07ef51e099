//! The proxy of helpers.

use super::fields::{Fields, Problems};
use crate::plan::facts::settings::Proxy;

pub(in crate::operator) fn read(mut fields: Fields<'_>, problems: &Problems) -> Proxy {
    let mut url = |name| {
        let url: Option<String> = fields.get(name);
        let url = url.filter(|url| !url.is_empty());
        if url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            problems.note(&fields.path(name), "must be a URL that begins with http:// or https://");
        }
        url
    };
    let (http, https) = (url("http"), url("https"));
    let no: Vec<String> = fields.get("noProxy").unwrap_or_default();
    if let Some(host) = no.iter().find(|host| host.is_empty() || host.contains([',', ' ', '/']) && !is_network(host)) {
        problems.note(&fields.path("noProxy"), format_args!("{host:?} is no host, domain, address or network"));
    }
    Proxy { http, https, no }
}

/// `10.0.0.0/8`.
fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 128)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::Proxy;

    #[test]
    fn a_proxy_has_urls_and_exceptions() {
        let text = |proxy: &str| parse(&format!("images: {{cpu: a, gpu: b}}\nproxy: {proxy}"), "us");
        let proxy = text("{https: 'http://p:3128', noProxy: [.svc, 10.0.0.0/8, registry.internal]}").unwrap().proxy;
        assert_eq!((proxy.http, proxy.https.as_deref(), proxy.no.len()), (None, Some("http://p:3128"), 3));
        assert_eq!(text("{http: ''}").unwrap().proxy, Proxy::default());
        for (proxy, field) in [
            ("{https: 'p:3128'}", "proxy.https"),
            ("{noProxy: ['a,b']}", "proxy.noProxy"),
            ("{noProxy: ['a/b']}", "proxy.noProxy"),
            ("{noProxy: a}", "proxy.noProxy"),
            ("{all: a}", "proxy.all"),
        ] {
            let problems = text(proxy).unwrap_err();
            assert!(problems.contains(&format!("{field}: ")), "{proxy}: {problems}");
        }
    }
}

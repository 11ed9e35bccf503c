//! Links in answers: a page that is read through the proxy has its own root, below which its
//! links must lead.

use super::html::Tag;

/// Where the root of what is proxied appears.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// The path up to and with `/proxy`.
    pub prefix: String,
    /// Hosts (`HOST[:PORT]`) under which it knows itself.
    pub hosts: Vec<String>,
}

impl Root {
    /// The link as the client has to follow it; `None`: it is right as it is. Links to other
    /// hosts and those relative to the page are.
    pub(super) fn lead(&self, link: &str) -> Option<String> {
        let (host, path) = split(link);
        if !host.is_empty() && !self.hosts.iter().any(|own| own == host) {
            return None;
        }
        let path = match path {
            "" if !host.is_empty() => "/",
            path => path,
        };
        if !path.starts_with('/') {
            return None;
        }
        let below = path
            .strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        match (below, host) {
            (true, "") => None,
            (true, _) => Some(path.to_string()),
            (false, _) => Some(format!("{}{path}", self.prefix)),
        }
    }

    /// The links of a tag, led.
    pub(super) fn lead_tag(&self, tag: &[u8]) -> Option<Vec<u8>> {
        let tag = Tag::parse(tag)?;
        let attributes = link_attributes(&tag.name);
        if attributes.is_empty() {
            return None;
        }
        tag.replaced(|name, value| {
            let is_link = attributes.iter().any(|one| name.eq_ignore_ascii_case(one));
            is_link.then(|| self.lead(value.trim())).flatten()
        })
    }
}

/// Host and the rest, which begins with the path. Without a host: an empty one, and everything.
fn split(link: &str) -> (&str, &str) {
    let after_scheme = ["http://", "https://", "//"].iter().find_map(|start| {
        let head = link.get(..start.len())?;
        head.eq_ignore_ascii_case(start)
            .then(|| &link[start.len()..])
    });
    match after_scheme {
        None => ("", link),
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            rest.split_at(end)
        }
    }
}

/// The attributes of an element that are links (HTML 4.01, attributes of type %URI, and HTML).
fn link_attributes(element: &str) -> &'static [&'static str] {
    match element {
        "a" | "area" | "base" | "link" => &["href"],
        "audio" | "embed" | "script" | "source" | "track" => &["src"],
        "applet" => &["codebase"],
        "blockquote" | "del" | "ins" | "q" => &["cite"],
        "body" => &["background"],
        "button" => &["formaction"],
        "command" => &["icon"],
        "form" => &["action"],
        "frame" | "iframe" => &["longdesc", "src"],
        "head" => &["profile"],
        "html" => &["manifest"],
        "img" => &["longdesc", "src", "usemap"],
        "input" => &["formaction", "src", "usemap"],
        "object" => &["classid", "codebase", "data", "usemap"],
        "video" => &["poster", "src"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        Root {
            prefix: "/api/v1/namespaces/a/pods/b/proxy".into(),
            hosts: vec!["10.1.2.3:80".into(), "api:6443".into()],
        }
    }

    #[test]
    fn links_lead_below_the_root() {
        let root = root();
        let led = |link: &str| root.lead(link).unwrap_or_else(|| "as it is".into());
        for (link, expected) in [
            ("/x?y#z", "/api/v1/namespaces/a/pods/b/proxy/x?y#z"),
            ("/", "/api/v1/namespaces/a/pods/b/proxy/"),
            (
                "http://10.1.2.3:80/x",
                "/api/v1/namespaces/a/pods/b/proxy/x",
            ),
            ("https://api:6443", "/api/v1/namespaces/a/pods/b/proxy/"),
            (
                "https://api:6443/api/v1/namespaces/a/pods/b/proxy/x",
                "/api/v1/namespaces/a/pods/b/proxy/x",
            ),
            ("/api/v1/namespaces/a/pods/b/proxy/x", "as it is"),
            (
                "/api/v1/namespaces/a/pods/b/proxyx",
                "/api/v1/namespaces/a/pods/b/proxy/api/v1/namespaces/a/pods/b/proxyx",
            ),
            ("//example.com/x", "as it is"),
            ("http://example.com/x", "as it is"),
            ("x/y", "as it is"),
            ("#top", "as it is"),
            ("", "as it is"),
            ("javascript:1", "as it is"),
        ] {
            assert_eq!(led(link), expected, "{link}");
        }
    }

    #[test]
    fn tags_keep_everything_but_their_links() {
        let tag = b"<A  title='/t' HREF=/x data-href=\"/y\" >";
        let led = root().lead_tag(tag).unwrap();
        assert_eq!(
            String::from_utf8(led).unwrap(),
            "<A  title='/t' HREF=/api/v1/namespaces/a/pods/b/proxy/x data-href=\"/y\" >"
        );
        for same in [
            "<p href='/x'>",
            "</a>",
            "<a href>",
            "<a href=x>",
            "<!doctype html>",
        ] {
            assert_eq!(root().lead_tag(same.as_bytes()), None, "{same}");
        }
    }
}

//! Rules for names, label keys and values (RFC 1123 and Kubernetes' qualified names).
//! Each rule returns what is wrong, in Kubernetes' words.

const LABEL_MAX: usize = 63;
pub(crate) const SUBDOMAIN_MAX: usize = 253;

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PORT_NAME_TEXT: &str =
    "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";

/// How a kind names its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 label: namespaces, containers.
    Label,
    /// RFC 1035 label, which does not begin with a digit: services.
    Label1035,
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// Anything that is one path segment.
    PathSegment,
}

impl NameRule {
    /// What is wrong with `name`; `prefix` says that it is a `generateName`, to which a
    /// suffix will be added.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        // A trailing '-' of a prefix becomes legal once the suffix is there.
        let probe = if prefix && name.ends_with('-') {
            format!("{}a", &name[..name.len() - 1])
        } else {
            name.to_string()
        };
        match self {
            NameRule::Label => label(&probe),
            NameRule::Label1035 => label_1035(&probe),
            NameRule::Subdomain => subdomain(&probe),
            NameRule::PathSegment => path_segment(&probe),
        }
    }
}

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            is_lower_alnum(*first)
                && is_lower_alnum(*last)
                && bytes.iter().all(|b| is_lower_alnum(*b) || *b == b'-')
        }
        _ => false,
    }
}

fn is_qualified_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// RFC 1035 label.
pub fn label_1035(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_label_shape(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        wrong.push(LABEL_1035_TEXT.to_string());
    }
    wrong
}

/// An address and the length of its network part, as `10.0.0.0/8`.
pub fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// The range `inner` is a part of `outer`, and smaller. Both are in the form of [`is_cidr`].
pub fn is_within(inner: &str, outer: &str) -> bool {
    fn parse(text: &str) -> Option<(u128, u32, bool)> {
        let (address, bits) = text.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        Some(match address.parse().ok()? {
            std::net::IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, bits, true),
            std::net::IpAddr::V6(ip) => (ip.to_bits(), bits, false),
        })
    }
    let (Some((inner, inner_bits, inner_v4)), Some((outer, outer_bits, outer_v4))) =
        (parse(inner), parse(outer))
    else {
        return false;
    };
    let mask = u128::MAX.checked_shl(128 - outer_bits).unwrap_or(0);
    inner_v4 == outer_v4 && inner_bits > outer_bits && inner & mask == outer & mask
}

/// RFC 1123 label.
pub fn label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_label_shape(text) {
        wrong.push(LABEL_TEXT.to_string());
    }
    wrong
}

/// RFC 1123 subdomain.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label_shape) {
        wrong.push(SUBDOMAIN_TEXT.to_string());
    }
    wrong
}

/// Something that can be one segment of a URL's path.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A label key, annotation key or resource name: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_string());
            } else {
                wrong.extend(
                    subdomain(prefix)
                        .into_iter()
                        .map(|w| format!("prefix part {w}")),
                );
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED_TEXT} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_string());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_qualified_shape(name) {
        wrong.push(format!("name part {QUALIFIED_TEXT}"));
    }
    wrong
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified_shape(text) {
        wrong.push(LABEL_VALUE_TEXT.to_string());
    }
    wrong
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if text.is_empty()
        || !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        wrong.push(CONFIG_KEY_TEXT.to_string());
    }
    if text == "." {
        wrong.push("must not be '.'".to_string());
    }
    if text == ".." {
        wrong.push("must not be '..'".to_string());
    } else if text.starts_with("..") {
        wrong.push("must not start with '..'".to_string());
    }
    wrong
}

/// The name of a container's port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push("must be no more than 15 characters".to_string());
    }
    if !text.bytes().all(|b| is_lower_alnum(b) || b == b'-') {
        wrong.push(PORT_NAME_TEXT.to_string());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_string());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_string());
    }
    wrong
}

/// The name of an environment variable: any printable ASCII but '='.
pub fn env_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        Vec::new()
    } else {
        vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_string()]
    }
}

/// A TCP or UDP port number.
pub fn port_number(port: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "a-b", "1", "a.b-c.d"] {
            assert!(NameRule::Subdomain.check(good, false).is_empty(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", "ä", &"a".repeat(254)] {
            assert!(!NameRule::Subdomain.check(bad, false).is_empty(), "{bad}");
        }
        assert!(NameRule::Subdomain.check("web-", true).is_empty());
        assert!(!NameRule::Label.check("a.b", false).is_empty());
        assert_eq!(
            NameRule::PathSegment.check("..", false),
            ["may not be '..'"]
        );
    }

    #[test]
    fn label_keys_may_have_a_prefix() {
        for good in ["app", "example.com/app", "a_b.C-d"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A b", "-a"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn ranges_lie_within_larger_ranges() {
        for (inner, outer, within) in [
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("11.0.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "0.0.0.0/0", true),
            ("2001:db8::/64", "2001:db8::/32", true),
            ("2001:db8::/64", "0.0.0.0/0", false),
        ] {
            assert_eq!(is_within(inner, outer), within, "{inner} in {outer}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8", "::/129"] {
            assert!(!is_cidr(bad), "{bad}");
        }
    }

    #[test]
    fn config_keys_do_not_climb() {
        assert!(config_key("a.conf").is_empty());
        for bad in ["", ".", "..", "..a", "a/b"] {
            assert!(!config_key(bad).is_empty(), "{bad}");
        }
    }
}

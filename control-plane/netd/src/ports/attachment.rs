//! One pod's attachment, from the record that the runtime keeps of its CNI ADD. hull-shim's
//! records and those of libcni (containerd, CRI-O) are read.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

/// Linux' IFNAMSIZ, without the final zero byte.
const INTERFACE_NAME_LIMIT: usize = 15;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// From `aa:bb:cc:dd:ee:ff`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.trim().split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Mac(bytes))
    }

    /// The IPv6 link-local address that a kernel derives from it (RFC 4291, appendix A).
    pub fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |high, low| u16::from_be_bytes([high, low]);
        [
            0xfe80,
            0,
            0,
            0,
            word(a ^ 2, b),
            word(c, 0xff),
            word(0xfe, d),
            word(e, f),
        ]
        .into()
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The name of a network interface, fit for a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// `None` for what no interface of a CNI plugin is called: the characters that are let through
    /// mean nothing to nft.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = !text.is_empty() && text.len() <= INTERFACE_NAME_LIMIT;
        let named = text != "." && text != "..";
        (fits && named && text.chars().all(plain)).then(|| InterfaceName(text.to_string()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pod's attachment to the pod network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox.
    pub sandbox: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The interface on the node that the pod's frames come in by.
    pub port: InterfaceName,
    /// The bridge that the plugin joined it to, if any.
    pub bridge: Option<InterfaceName>,
    /// The pod's MAC.
    pub mac: Mac,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct CniResult {
    #[serde(default)]
    interfaces: Vec<CniInterface>,
    #[serde(default)]
    ips: Vec<CniAddress>,
}

#[derive(Deserialize)]
struct CniInterface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct CniAddress {
    address: String,
    #[serde(default)]
    interface: Option<usize>,
}

impl Attachment {
    /// From a record's text. `None` while ADD is under way, for a plugin whose pods have no
    /// interface on the node (macvlan, ipvlan), and for anything that is not such a record.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let record: Value = serde_json::from_slice(record).ok()?;
        let text = |keys: &[&str]| {
            let value = keys.iter().find_map(|key| record.get(key)?.as_str());
            value.map(str::to_string)
        };
        let arguments = arguments(&record);
        let argument = |name: &str| {
            let found = arguments.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let result: CniResult = serde_json::from_value(record.get("result")?.clone()).ok()?;
        let inside = result
            .interfaces
            .iter()
            .position(|i| !i.sandbox.is_empty())?;
        let outside: Vec<&CniInterface> = result
            .interfaces
            .iter()
            .filter(|interface| interface.sandbox.is_empty())
            .collect();
        // The bridge plugin tells the bridge, then the port; ptp tells the port alone.
        let port = InterfaceName::parse(&outside.last()?.name)?;
        let bridge = match outside.as_slice() {
            [bridge, .., _] => Some(InterfaceName::parse(&bridge.name)?),
            _ => None,
        };
        Some(Attachment {
            sandbox: text(&["container_id", "containerId"])?,
            namespace: argument("K8S_POD_NAMESPACE")?,
            name: argument("K8S_POD_NAME")?,
            port,
            bridge,
            mac: Mac::parse(&result.interfaces[inside].mac)?,
            addresses: result
                .ips
                .iter()
                .filter(|ip| ip.interface.is_none_or(|index| index == inside))
                .filter_map(|ip| ip.address.parse::<IpNet>().ok())
                .map(|network| network.addr())
                .collect(),
        })
    }
}

/// hull-shim keeps CNI_ARGS as they are passed, libcni as pairs.
fn arguments(record: &Value) -> Vec<(String, String)> {
    if let Some(text) = record.get("args").and_then(Value::as_str) {
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        return pairs
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
    }
    let pairs = record.get("cniArgs").and_then(Value::as_array);
    pairs
        .into_iter()
        .flatten()
        .filter_map(|pair| {
            let key = pair.get(0)?.as_str()?;
            Some((key.to_string(), pair.get(1)?.as_str()?.to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result() -> Value {
        json!({
            "interfaces": [
                {"name": "hull0", "mac": "02:00:00:00:00:01"},
                {"name": "veth12ab34cd", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/hull/netns/x"},
            ],
            "ips": [{"address": "10.42.0.5/24", "gateway": "10.42.0.1", "interface": 2}],
        })
    }

    #[test]
    fn records_of_the_shim_and_of_libcni_are_read() {
        let shim = json!({
            "container_id": "abc", "result": result(),
            "args": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
        });
        let libcni = json!({
            "kind": "cniCacheV1", "containerId": "abc", "result": result(),
            "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web"]],
        });
        let read = |record: Value| Attachment::parse(record.to_string().as_bytes()).unwrap();
        let found = read(shim);
        assert_eq!(found, read(libcni));
        assert_eq!(found.port.as_str(), "veth12ab34cd");
        assert_eq!(found.bridge.unwrap().as_str(), "hull0");
        assert_eq!(found.mac, Mac([2, 0, 0, 0, 0, 3]));
        assert_eq!(found.addresses, ["10.42.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn ptp_has_a_port_and_no_bridge_and_macvlan_has_neither() {
        let mut result = result();
        result["interfaces"].as_array_mut().unwrap().remove(0);
        result["ips"][0]["interface"] = 1.into();
        let record = |result: &Value| {
            let args = "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b";
            let record = json!({"container_id": "abc", "args": args, "result": result});
            Attachment::parse(record.to_string().as_bytes())
        };
        let found = record(&result).unwrap();
        assert_eq!((found.port.as_str(), found.bridge), ("veth12ab34cd", None));
        result["interfaces"].as_array_mut().unwrap().remove(0);
        assert_eq!(record(&result), None);
        assert_eq!(record(&Value::Null), None, "ADD is under way");
    }

    #[test]
    fn names_that_mean_something_to_nft_are_refused() {
        for bad in ["", "a\"b", "a b", "veth*", "a;b", "sixteen-letters-", ".."] {
            assert_eq!(InterfaceName::parse(bad), None, "{bad}");
        }
        assert!(InterfaceName::parse("veth0a-1_2.3").is_some());
    }

    #[test]
    fn macs_are_read_and_give_the_link_local_address() {
        assert_eq!(Mac::parse("02:00:5e:10:00:01:00"), None);
        assert_eq!(Mac::parse("0200.5e10"), None);
        let mac = Mac::parse("02:00:5E:10:00:01").unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        assert_eq!(mac.link_local().to_string(), "fe80::5eff:fe10:1");
    }
}

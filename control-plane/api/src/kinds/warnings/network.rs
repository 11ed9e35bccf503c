//! Services, ingresses, network policies and endpoint slices; addresses wherever they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{Warnings, annotation};
use crate::{ObjectExt, field::Path, kinds::service};

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
/// Who looks after a slice, as a label.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The same of Endpoints.
const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const ENDPOINTS_CONTROLLER: &str = "endpoint-controller";

/// An address that is written in another way than is usual.
pub(super) fn address(text: &str, path: &Path, out: &mut Warnings) {
    let Ok(IpAddr::V6(parsed)) = text.parse() else {
        return;
    };
    if let Some(v4) = parsed.to_ipv4_mapped() {
        out.at(
            path,
            format!(
                "non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use \"{v4}\""
            ),
        );
    } else if parsed.to_string() != text {
        out.at(
            path,
            format!("IPv6 address {text:?} should be in RFC 5952 canonical format (\"{parsed}\")"),
        );
    }
}

/// A range that says more than a range, or is written in another way than is usual.
fn range(text: &str, path: &Path, out: &mut Warnings) {
    let Some((address, bits)) = text.split_once('/') else {
        return;
    };
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return;
    };
    let network = network_of(address, bits);
    if network != address {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        out.at(
            path,
            format!(
                "CIDR value {text:?} is ambiguous in this context (should be \"{network}/{bits}\" or \"{address}/{whole}\"?)"
            ),
        );
    }
    let IpAddr::V6(v6) = address else { return };
    let mapped = v6.to_ipv4_mapped().zip(bits.checked_sub(96));
    if let Some((v4, bits)) = mapped {
        let network = network_of(v4.into(), bits);
        out.at(
            path,
            format!(
                "non-standard CIDR value {text:?} will be considered invalid in a future Kubernetes release: use \"{network}/{bits}\""
            ),
        );
    } else if format!("{v6}/{bits}") != text {
        out.at(
            path,
            format!(
                "IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{network}/{bits}\")"
            ),
        );
    }
}

fn network_of(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(bits))
                .unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(bits))
                .unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

/// Every text of a list of the spec, with its path.
fn each(object: &Value, list: &str, out: &mut Warnings, tell: fn(&str, &Path, &mut Warnings)) {
    let path = Path::new("spec").child(list);
    for (index, value) in object.list_at(&format!("/spec/{list}")).iter().enumerate() {
        tell(value.as_str().unwrap_or_default(), &path.index(index), out);
    }
}

pub(super) fn of_service(object: &Value, out: &mut Warnings) {
    if annotation(object, TOPOLOGY_HINTS).is_some() {
        out.tell(format!(
            "annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"
        ));
    }
    let kind = service::service_type(object);
    let external = kind == "ExternalName";
    let headless = kind == "ClusterIP" && service::is_headless(object);
    let has_external_ips = !object.list_at("/spec/externalIPs").is_empty();
    if !external && !headless {
        each(object, "clusterIPs", out, address);
    }
    if headless {
        for (given, field) in [
            (
                !object.str_at("/spec/loadBalancerIP").is_empty(),
                "loadBalancerIP",
            ),
            (has_external_ips, "externalIPs"),
            (
                object.str_at("/spec/sessionAffinity") != "None",
                "SessionAffinity",
            ),
        ] {
            if given {
                out.tell(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    each(object, "externalIPs", out, address);
    if has_external_ips && !headless && !external {
        out.tell(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        );
    }
    let balancer = object.str_at("/spec/loadBalancerIP");
    address(balancer, &Path::new("spec.loadBalancerIP"), out);
    each(object, "loadBalancerSourceRanges", out, range);
    if external && has_external_ips {
        out.tell("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if !external && !object.str_at("/spec/externalName").is_empty() {
        out.tell("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if object.str_at("/spec/trafficDistribution") == "PreferClose" {
        out.tell("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}

pub(super) fn of_ingress(ingress: &Value, out: &mut Warnings) {
    let has_class = ingress.pointer("/spec/ingressClassName").is_some();
    if annotation(ingress, INGRESS_CLASS).is_some() && !has_class {
        out.tell(format!(
            "annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"
        ));
    }
}

pub(super) fn of_policy(policy: &Value, out: &mut Warnings) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = policy.list_at(&format!("/spec/{direction}"));
        for (index, rule) in rules.iter().enumerate() {
            let path = Path::new("spec").child(direction).index(index).child(peers);
            for (index, peer) in rule.list_at(&format!("/{peers}")).iter().enumerate() {
                let path = path.index(index).child("ipBlock");
                range(peer.str_at("/ipBlock/cidr"), &path.child("cidr"), out);
                for (index, except) in peer.list_at("/ipBlock/except").iter().enumerate() {
                    let except = except.as_str().unwrap_or_default();
                    range(except, &path.child("except").index(index), out);
                }
            }
        }
    }
}

pub(super) fn of_endpoints(endpoints: &Value, out: &mut Warnings) {
    let managed_by = endpoints
        .labels()
        .and_then(|labels| labels.get(ENDPOINTS_MANAGED_BY));
    if managed_by.is_some_and(|name| name == ENDPOINTS_CONTROLLER) {
        return;
    }
    for (index, subset) in endpoints.list_at("/subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        for list in ["addresses", "notReadyAddresses"] {
            let path = path.child(list);
            for (index, given) in subset.list_at(&format!("/{list}")).iter().enumerate() {
                address(given.str_at("/ip"), &path.index(index).child("ip"), out);
            }
        }
    }
}

pub(super) fn of_slice(slice: &Value, out: &mut Warnings) {
    let managed_by = slice.labels().and_then(|labels| labels.get(MANAGED_BY));
    if managed_by.is_some_and(|name| name == CONTROLLER) {
        return;
    }
    if slice.str_at("/addressType") == "FQDN" {
        out.at(&Path::new("addressType"), "FQDN endpoints are deprecated");
    }
    for (index, endpoint) in slice.list_at("/endpoints").iter().enumerate() {
        let path = Path::new("endpoints").index(index).child("addresses");
        for (index, text) in endpoint.list_at("/addresses").iter().enumerate() {
            address(text.as_str().unwrap_or_default(), &path.index(index), out);
        }
    }
}

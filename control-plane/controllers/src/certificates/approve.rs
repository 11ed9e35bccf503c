//! Approves what node agents ask for themselves, if the cluster's roles let them.
//!
//! | who asks | for what | verb `create` on `certificatesigningrequests/` |
//! |---|---|---|
//! | anybody, e.g. a bootstrap token | the client certificate of a node that is not registered | `nodeclient` |
//! | that node itself | its next client certificate | `selfnodeclient` |
//! | a node | the client certificate of its service network, `system:kube-proxy` | `nodeproxy` |
//! | that node itself | its serving certificate, for its own name and addresses | `selfnodeserving` |

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
    core::v1::Node,
};

use super::request::{NODES_GROUP, Signer, Wanted};
use crate::runtime::{Informer, Key, WriteError, Writer};

/// The user that the service network of a node is.
const PROXY_USER: &str = "system:kube-proxy";

/// What to ask the authorizer, and the words of the approval.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grounds {
    pub subresource: &'static str,
    pub message: &'static str,
}

/// `None`: a person decides.
pub(super) fn grounds(
    request: &CertificateSigningRequest,
    signer: Signer,
    wanted: &Wanted,
    nodes: &Informer<Node>,
) -> Option<Grounds> {
    if signer == Signer::Client {
        return is_a_nodes_proxy(request, wanted).then_some(Grounds {
            subresource: "nodeproxy",
            message: "Auto approving service network's certificate after SubjectAccessReview.",
        });
    }
    let node = wanted.node()?;
    let own = request.spec.username.as_deref() == Some(wanted.common_name.as_str());
    match signer {
        Signer::NodeClient if own => Some(Grounds {
            subresource: "selfnodeclient",
            message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
        }),
        // A token must not be enough to become a node that is there: its pods and their secrets
        // are open to whoever speaks for it.
        Signer::NodeClient if nodes.get(&Key::new("", node)).is_some() => None,
        Signer::NodeClient => Some(Grounds {
            subresource: "nodeclient",
            message: "Auto approving kubelet client certificate after SubjectAccessReview.",
        }),
        Signer::NodeServing if own && names_are_its_own(wanted, node, nodes) => Some(Grounds {
            subresource: "selfnodeserving",
            message: "Auto approving self kubelet serving certificate after SubjectAccessReview.",
        }),
        Signer::Client | Signer::NodeServing => None,
    }
}

/// The identity of netd (kube-proxy's), asked for by a node.
fn is_a_nodes_proxy(request: &CertificateSigningRequest, wanted: &Wanted) -> bool {
    let groups = request.spec.groups.as_deref().unwrap_or_default();
    groups.iter().any(|group| group == NODES_GROUP)
        && wanted.common_name == PROXY_USER
        && wanted.organization.is_none()
        && wanted.parsed.params.subject_alt_names.is_empty()
}

/// The node's own name, and no address that another node has. A node that is registered
/// already must have the addresses.
fn names_are_its_own(wanted: &Wanted, node: &str, nodes: &Informer<Node>) -> bool {
    if wanted.dns_names().any(|name| name != node) {
        return false;
    }
    let nodes = nodes.all();
    let has = |object: &Node, address: &str| {
        object
            .status
            .as_ref()
            .and_then(|status| status.addresses.as_ref())
            .is_some_and(|list| list.iter().any(|entry| entry.address == address))
    };
    wanted.addresses().all(|address| {
        let address = address.to_string();
        nodes.iter().all(|object| {
            if object.metadata.name.as_deref() == Some(node) {
                has(object, &address)
            } else {
                !has(object, &address)
            }
        })
    })
}

/// Asks the authorizer about the one who made the request.
pub(super) async fn may(
    writer: &dyn Writer,
    request: &CertificateSigningRequest,
    subresource: &str,
) -> Result<bool, WriteError> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                subresource: Some(subresource.into()),
                verb: Some("create".into()),
                version: Some("*".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = writer.create_object(&review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

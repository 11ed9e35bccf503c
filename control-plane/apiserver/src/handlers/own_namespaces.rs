//! A tenant's list of namespaces: who may not list all of them gets those that they may read, by
//! the label selector `hull.dev/own=true`, which any client can send. The list is made of answers
//! of the authorizer, so nobody sees more than they could get one by one.

use std::sync::Arc;

use hull_api::{Kind, kinds};

use super::Backend;
use crate::{UserInfo, authorization::Attributes, http::Query};

/// The term of the selector.
const OWN: &str = "hull.dev/own=true";

fn terms(selector: &str) -> impl Iterator<Item = &str> {
    selector.split(',')
}

/// The request is a list of the user's own namespaces: its right is looked at object by object.
pub(crate) fn are_asked(kind: &Kind, verb: &str, query: &Query) -> bool {
    verb == "list"
        && kind.storage == kinds::NAMESPACES.storage
        && terms(query.get("labelSelector")).any(|term| term.trim() == OWN)
}

/// The selector without the term.
pub(super) fn others(selector: &str) -> String {
    let rest: Vec<&str> = terms(selector).filter(|term| term.trim() != OWN).collect();
    rest.join(",")
}

/// Whose namespaces are selected.
pub(super) struct Tenant {
    pub backend: Arc<Backend>,
    pub user: UserInfo,
}

impl Tenant {
    pub(super) fn may_read(&self, name: &str) -> bool {
        let kind = &kinds::NAMESPACES;
        let attributes = Attributes {
            verb: "get",
            group: kind.group,
            resource: kind.plural,
            namespace: name,
            name,
            ..Attributes::default()
        };
        let decision = self.backend.authorizer.authorize(&self.user, &attributes);
        decision.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_term_is_taken_out_and_the_rest_stays() {
        assert_eq!(others("a in (x,y),hull.dev/own=true,!b"), "a in (x,y),!b");
        assert_eq!(others(OWN), "");
        let asked =
            |verb: &str, query: &str| are_asked(&kinds::NAMESPACES, verb, &Query::parse(query));
        assert!(asked("list", "labelSelector=a%3Db%2Chull.dev%2Fown%3Dtrue"));
        assert!(!asked("watch", "labelSelector=hull.dev%2Fown%3Dtrue"));
        assert!(!asked("list", "labelSelector=hull.dev%2Fown%3Dfalse"));
    }
}

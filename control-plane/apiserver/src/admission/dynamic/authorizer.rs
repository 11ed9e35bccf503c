//! The variable `authorizer`: expressions ask the server's authorizers about whoever makes the
//! request, or about a service account.

use std::fmt;

use hull_api::{
    cel::{Authorizer, Check, Question, Verdict},
    selector::FieldSelector,
};

use super::Attributes;
use crate::{UserInfo, authorization, handlers::Context};

/// Asks on behalf of a request.
pub(super) struct Asker<'a> {
    context: &'a Context<'a>,
    request: Question,
}

impl fmt::Debug for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker")
            .field("user", &self.context.user.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Asker<'a> {
    pub(super) fn of(attributes: &Attributes<'a>) -> Self {
        let context = attributes.context;
        let request = Question {
            group: context.kind.group.to_string(),
            resource: context.kind.plural.to_string(),
            subresource: context.through.to_string(),
            namespace: attributes.namespace().to_string(),
            name: attributes.name().to_string(),
            ..Question::default()
        };
        Asker { context, request }
    }

    /// The variable.
    pub(super) fn variable(&self) -> Check<'_> {
        Check::new(self, self.request.clone())
    }
}

impl Authorizer for Asker<'_> {
    fn decide(&self, question: &Question) -> Verdict {
        let account;
        let user = match &question.service_account {
            None => self.context.user,
            Some((namespace, name)) => {
                account = UserInfo::service_account(namespace, name);
                &account
            }
        };
        // A selector that cannot be read narrows nothing. Of labels no authorizer wants to know.
        let selector = FieldSelector::parse(&question.field_selector).unwrap_or_default();
        let attributes = match &question.path {
            Some(path) => authorization::Attributes {
                verb: &question.verb,
                path: Some(path),
                ..authorization::Attributes::default()
            },
            None => authorization::Attributes {
                verb: &question.verb,
                group: &question.group,
                resource: &question.resource,
                subresource: &question.subresource,
                namespace: &question.namespace,
                name: &question.name,
                path: None,
                selected_name: selector.required("metadata.name").unwrap_or(""),
                selected_node: selector.required("spec.nodeName").unwrap_or(""),
            },
        };
        let decision = self.context.backend.authorizer.authorize(user, &attributes);
        Verdict {
            allowed: decision.allowed,
            reason: decision.reason,
            error: None,
        }
    }
}

//! Which objects a list, watch or deletecollection is about.

use std::ops::Range;

use hull_api::{
    ApiError, Kind,
    selector::{FieldSelector, LabelSelector},
};
use hull_store::prefix_range;

use super::{
    Context,
    own_namespaces::{self, Tenant},
};
use crate::watch_cache::CachedObject;

pub(super) struct Selection {
    kind: &'static Kind,
    /// Keys that can be selected.
    pub range: Range<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Only namespaces that this one may read.
    tenant: Option<Tenant>,
}

impl Selection {
    pub(super) fn read(context: &Context<'_>) -> Result<Self, ApiError> {
        let kind = context.kind;
        let (label_text, field_text) = (
            context.query.get("labelSelector"),
            context.query.get("fieldSelector"),
        );
        let cannot = |why: String| {
            ApiError::bad_request(format!(
                "Unable to find {:?} that match label selector {label_text:?}, field selector {field_text:?}: {why}",
                format!("{}, Resource={}", kind.group_version(), kind.plural)
            ))
        };
        let verb = if context.query.flag("watch") {
            "watch"
        } else {
            "list"
        };
        let tenant = own_namespaces::are_asked(kind, verb, context.query).then(|| Tenant {
            backend: context.backend.clone(),
            user: context.user.clone(),
        });
        let own_text = tenant.as_ref().map(|_| own_namespaces::others(label_text));
        let labels = LabelSelector::parse(own_text.as_deref().unwrap_or(label_text))
            .map_err(|error| cannot(error.0))?;
        let fields = FieldSelector::parse(field_text).map_err(|error| cannot(error.0))?;
        if let Some(field) = fields.fields().find(|field| !kind.is_selectable(field)) {
            return Err(cannot(format!("field label not supported: {field}")));
        }
        // A selector for one name needs one key only.
        let namespace = match (context.namespace, fields.required("metadata.namespace")) {
            ("", Some(namespace)) => namespace,
            (namespace, _) => namespace,
        };
        let range = match fields.required("metadata.name") {
            Some(name) if !name.is_empty() && (!kind.namespaced || !namespace.is_empty()) => {
                let key = kind.key(namespace, name);
                key.clone()..format!("{key}\0")
            }
            _ => prefix_range(&kind.prefix(context.namespace)),
        };
        Ok(Selection {
            kind,
            range,
            labels,
            fields,
            tenant,
        })
    }

    /// It selects every object of its range.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.tenant.is_none()
    }

    pub(super) fn contains_key(&self, key: &str) -> bool {
        key >= self.range.start.as_str() && key < self.range.end.as_str()
    }

    /// An object as stored (converted, if that needs a webhook) is selected.
    pub(super) fn matches(&self, stored: &CachedObject) -> bool {
        let tenant = self.tenant.as_ref();
        if !stored.has_labels(&self.labels)
            || tenant.is_some_and(|tenant| !tenant.may_read(stored.name()))
        {
            return false;
        }
        if self.fields.is_empty() {
            return true;
        }
        if self.kind.is_served_as_stored() {
            return self.fields.matches(|field| stored.field(self.kind, field));
        }
        let served = self.kind.to_served(stored.parsed());
        self.fields
            .matches(|field| self.kind.field_value(&served, field))
    }
}

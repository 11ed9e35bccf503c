//! Whose write a request is: the field manager.

use http::header::USER_AGENT;
use hull_api::{
    ApiError,
    field::{Errors, Path},
    managed::{self, MAX_MANAGER_BYTES, Reset, TypeRef},
    registry::Subresource,
};

use super::{
    Context, scale,
    subresources::{BINDING, EVICTION, TOKEN_REQUEST},
};
use crate::connect;

/// The manager of a write, with everything the entry in `managedFields` says.
pub(super) struct Owner {
    manager: String,
    api_version: String,
    through: &'static str,
    reset: Reset,
}

/// Wrong options of a request.
pub(super) fn invalid_options(kind: &str, errors: Errors) -> ApiError {
    ApiError::invalid("meta.k8s.io", kind, "", errors.into_vec())
}

impl Owner {
    /// The manager that the request names, else the program that sent it.
    pub(super) fn of(context: &Context<'_>, options: &str) -> Result<Self, ApiError> {
        let named = context.query.get("fieldManager");
        let manager = if named.is_empty() {
            program(context)
        } else {
            check_manager(named, options)?;
            named.to_string()
        };
        Ok(Self::new(context, manager))
    }

    /// An apply has to name its manager.
    pub(super) fn of_apply(context: &Context<'_>) -> Result<Self, ApiError> {
        let named = context.query.get("fieldManager");
        if named.is_empty() {
            let mut errors = Errors::default();
            errors.required(&Path::new("fieldManager"), "is required for apply patch");
            return Err(invalid_options("PatchOptions", errors));
        }
        check_manager(named, "PatchOptions")?;
        Ok(Self::new(context, named.to_string()))
    }

    fn new(context: &Context<'_>, manager: String) -> Self {
        let kind = context.kind;
        let reset = match context.through {
            "status" => Reset::AllButStatus,
            "" if kind.subresources.contains(&Subresource::Status) => Reset::Status,
            _ => Reset::Nothing,
        };
        Owner {
            manager,
            api_version: kind.group_version(),
            through: context.through,
            reset,
        }
    }

    /// For the ownership engine.
    pub(super) fn write(&self) -> managed::Write<'_> {
        managed::Write {
            manager: &self.manager,
            api_version: &self.api_version,
            subresource: self.through,
            reset: self.reset,
            now: jiff::Timestamp::now(),
        }
    }
}

/// The user agent up to its first slash.
fn program(context: &Context<'_>) -> String {
    let agent = context
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let name = agent.split('/').next().unwrap_or("");
    // A header's text is ASCII here, so every position is a character's border.
    match name.get(..MAX_MANAGER_BYTES.min(name.len())) {
        Some("") | None => "unknown".to_string(),
        Some(name) => name.to_string(),
    }
}

fn check_manager(name: &str, options: &str) -> Result<(), ApiError> {
    let path = Path::new("fieldManager");
    let mut errors = Errors::default();
    if name.len() > MAX_MANAGER_BYTES {
        errors.too_long(&path, MAX_MANAGER_BYTES);
    }
    if name.chars().any(char::is_control) {
        errors.invalid(&path, name, "should only contain printable characters");
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(invalid_options(options, errors))
}

impl<'a> Context<'a> {
    /// How the kind's fields merge.
    pub(crate) fn type_ref(&self) -> TypeRef<'_> {
        match &self.custom {
            Some(custom) => TypeRef::CustomRoot(&custom.schema),
            None => TypeRef::named(self.kind.schema),
        }
    }

    /// How the fields of the object in the request merge; `None`: it has no type of its own.
    pub(crate) fn body_type(&self) -> Option<TypeRef<'_>> {
        match self.subresource {
            Some(Subresource::Scale) => Some(TypeRef::named(scale::EXPECTED.type_name)),
            Some(Subresource::Binding) => Some(TypeRef::named(BINDING.type_name)),
            Some(Subresource::Eviction) => Some(TypeRef::named(EVICTION.type_name)),
            Some(Subresource::Token) => Some(TypeRef::named(TOKEN_REQUEST.type_name)),
            Some(part) if connect::leads_elsewhere(part) => None,
            _ => Some(self.type_ref()),
        }
    }

    /// The same request, as one about the object that the subresource is part of.
    pub(super) fn of_parent(&self) -> Context<'a> {
        Context {
            subresource: None,
            body: self.body.clone(),
            custom: self.custom.clone(),
            ..*self
        }
    }
}

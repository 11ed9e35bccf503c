//! Field paths and validation errors, worded as Kubernetes words them.

use std::fmt;

use serde_json::Value;

/// The path of a field, as `spec.containers[0].name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one or more fields, dots already in it.
    pub fn new(path: impl Into<String>) -> Self {
        Path(path.into())
    }

    /// A field of this one.
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() {
            Path(name.to_string())
        } else {
            Path(format!("{}.{name}", self.0))
        }
    }

    /// An element of this list.
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// An entry of this map.
    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It must be there.
    Required,
    /// It must not be this.
    Invalid,
    /// It is of another type.
    TypeInvalid,
    /// It must be one of a few values.
    NotSupported,
    /// It must not be there, or not change.
    Forbidden,
    /// It must be unique.
    Duplicate,
    /// It names something that is not there.
    NotFound,
    /// It is longer than allowed.
    TooLong,
    /// It has more entries than allowed.
    TooMany,
}

impl ErrorKind {
    /// The words in the message.
    fn words(self) -> &'static str {
        match self {
            ErrorKind::Required => "Required value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::NotFound => "Not found",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
        }
    }

    /// The `reason` of the cause in a Status.
    pub fn cause(self) -> &'static str {
        match self {
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
        }
    }
}

/// One invalid field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Where.
    pub field: String,
    /// The offending value, where the message shows it.
    pub value: Option<Value>,
    /// More words.
    pub detail: String,
}

impl FieldError {
    /// The message without the field's path.
    pub fn body(&self) -> String {
        let mut body = self.kind.words().to_string();
        if let Some(value) = &self.value {
            // Strings come out quoted, everything else as JSON: what Kubernetes prints too.
            body.push_str(": ");
            body.push_str(&value.to_string());
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The invalid fields of an object, collected.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    fn push(&mut self, kind: ErrorKind, path: &Path, value: Option<Value>, detail: String) {
        self.0.push(FieldError {
            kind,
            field: path.to_string(),
            value,
            detail,
        });
    }

    /// A missing field.
    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push(ErrorKind::Required, path, None, detail.to_string());
    }

    /// A wrong value.
    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(ErrorKind::Invalid, path, Some(value.into()), detail.into());
    }

    /// A value that is none of `supported`.
    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let mut sorted: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        sorted.sort();
        self.push(
            ErrorKind::NotSupported,
            path,
            Some(value.into()),
            format!("supported values: {}", sorted.join(", ")),
        );
    }

    /// Something that must not be there or not change.
    pub fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(ErrorKind::Forbidden, path, None, detail.into());
    }

    /// A value that is there twice.
    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.push(
            ErrorKind::Duplicate,
            path,
            Some(value.into()),
            String::new(),
        );
    }

    /// A reference to nothing.
    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.push(ErrorKind::NotFound, path, Some(value.into()), String::new());
    }

    /// A reference to nothing, with what there is.
    pub fn not_found_among(&mut self, path: &Path, value: impl Into<Value>, detail: String) {
        self.push(ErrorKind::NotFound, path, Some(value.into()), detail);
    }

    /// More bytes than allowed.
    pub fn too_long(&mut self, path: &Path, limit: usize) {
        self.push(
            ErrorKind::TooLong,
            path,
            None,
            format!("may not be more than {limit} bytes"),
        );
    }

    /// More entries than allowed.
    pub fn too_many(&mut self, path: &Path, count: usize, limit: usize) {
        self.push(
            ErrorKind::TooMany,
            path,
            Some(Value::from(count)),
            format!("must have at most {limit} items"),
        );
    }

    /// The rule that a text is one of a few words.
    pub fn check_supported(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// The rule that a number is zero or more.
    pub fn check_non_negative(&mut self, path: &Path, value: Option<i64>) {
        if let Some(value) = value
            && value < 0
        {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// The rule that a field does not change.
    pub fn check_immutable(&mut self, path: &Path, new: Option<&Value>, old: Option<&Value>) {
        if new != old {
            self.invalid(
                path,
                new.cloned().unwrap_or(Value::Null),
                "field is immutable",
            );
        }
    }

    /// Takes over errors found elsewhere.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.0.extend(errors);
    }

    /// Takes over other errors.
    pub fn append(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    /// Nothing was wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was wrong.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_kubernetes_writes_them() {
        let mut errors = Errors::default();
        let path = Path::new("spec").child("containers").index(0).child("name");
        errors.required(&path, "");
        errors.invalid(&path, "A", "must be lower case");
        errors.not_supported(&path, "x", &["b", "a"]);
        errors.invalid(
            &Path::new("spec.replicas"),
            -1,
            "must be greater than or equal to 0",
        );
        let lines: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].name: Invalid value: \"A\": must be lower case",
                "spec.containers[0].name: Unsupported value: \"x\": supported values: \"a\", \"b\"",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}

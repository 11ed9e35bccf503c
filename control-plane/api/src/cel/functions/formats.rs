//! `format.*`: Kubernetes' named formats, and what is wrong with a text by one of them.

use super::{Outcome, url};
use crate::{
    cel::value::Value,
    custom::format_holds,
    names::{self, NameRule},
};

/// A format that has a name.
pub struct Format {
    /// As `format.named` takes it.
    pub name: &'static str,
    check: fn(&str) -> Vec<String>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Format").field(&self.name).finish()
    }
}

fn said(holds: bool, why: &str) -> Vec<String> {
    if holds {
        Vec::new()
    } else {
        vec![why.to_string()]
    }
}

/// All of them.
static FORMATS: [Format; 13] = [
    Format {
        name: "dns1123Label",
        check: names::label,
    },
    Format {
        name: "dns1123Subdomain",
        check: names::subdomain,
    },
    Format {
        name: "dns1035Label",
        check: names::label_1035,
    },
    Format {
        name: "qualifiedName",
        check: names::qualified_name,
    },
    Format {
        name: "dns1123LabelPrefix",
        check: |text| NameRule::Label.check(text, true),
    },
    Format {
        name: "dns1123SubdomainPrefix",
        check: |text| NameRule::Subdomain.check(text, true),
    },
    Format {
        name: "dns1035LabelPrefix",
        check: |text| NameRule::Label1035.check(text, true),
    },
    Format {
        name: "labelValue",
        check: names::label_value,
    },
    Format {
        name: "uri",
        check: |text| {
            let why = format!("parse {text:?}: invalid URI for request");
            said(url::is_url(text), &why)
        },
    },
    Format {
        name: "uuid",
        check: |text| said(format_holds("uuid", text), "does not match the UUID format"),
    },
    Format {
        name: "byte",
        check: |text| said(format_holds("byte", text), "invalid base64"),
    },
    Format {
        name: "date",
        check: |text| said(format_holds("date", text), "invalid date"),
    },
    Format {
        name: "datetime",
        check: |text| said(format_holds("datetime", text), "invalid datetime"),
    },
];

fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// `format.named(text)` and `format.<name>()`; `name` is without its first part.
pub(super) fn find<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    match (name, values) {
        ("named", [Value::String(wanted)]) => {
            let found = named(wanted.as_str()).map(|format| Box::new(Value::Format(format)));
            Some(Ok(Value::Optional(found)))
        }
        (name, []) => named(name).map(|format| Ok(Value::Format(format))),
        _ => None,
    }
}

/// `validate`: nothing when all is well.
pub(super) fn call<'a>(name: &str, format: &Format, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    let ("validate", [Value::String(text)]) = (name, rest) else {
        return None;
    };
    let wrong = (format.check)(text.as_str());
    let wrong: Vec<Value<'a>> = wrong.into_iter().map(Value::owned).collect();
    let found = (!wrong.is_empty()).then(|| Box::new(Value::list(wrong)));
    Some(Ok(Value::Optional(found)))
}

//! Reads the text tables. They are compiled in, so a line that cannot be read is a mistake
//! of ours: the test below finds it, and at run time it reads as a field of any type.

use std::collections::HashMap;

use super::{Field, FieldType, ListType, ObjectType, PatchRule, Schema, TypeId, Wire, WireTree};

pub(super) fn parse(tables: &[&'static str]) -> Schema {
    let by_name = number_types(tables);
    let mut types = Vec::with_capacity(by_name.len());
    for table in tables {
        let (mut package, mut open_api_package, mut api_version) = ("", "", "");
        for line in table.lines().filter(|line| !line.is_empty()) {
            if let Some(line) = line.strip_prefix(' ') {
                if let (Some(current), Some(field)) =
                    (types.last_mut(), parse_field(line, package, &by_name))
                {
                    let current: &mut ObjectType = current;
                    current.fields.push(field);
                }
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["package", short, long, version] => {
                    (package, open_api_package, api_version) = (short, long, version);
                }
                ["type", name, flags @ ..] => types.push(ObjectType {
                    package,
                    open_api_package,
                    api_version,
                    name,
                    atomic: flags.contains(&"atomic"),
                    fields: Vec::new(),
                    wire: WireTree::default(),
                }),
                _ => {}
            }
        }
    }
    for object in &mut types {
        object.fields.sort_by(|a, b| a.name.cmp(&b.name));
        for (position, field) in object.fields.iter().enumerate() {
            object.wire.insert(&field.wire.path, position);
        }
    }
    Schema { types, by_name }
}

fn number_types(tables: &[&'static str]) -> HashMap<String, TypeId> {
    let mut by_name = HashMap::new();
    for table in tables {
        let mut package = "";
        for line in table.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["package", short, ..] => package = short,
                ["type", name, ..] => {
                    let id = by_name.len();
                    by_name.insert(format!("{package}.{name}"), id);
                }
                _ => {}
            }
        }
    }
    by_name
}

fn parse_field(line: &str, package: &str, types: &HashMap<String, TypeId>) -> Option<Field> {
    let mut words = line.split(' ');
    let mut field = Field {
        name: words.next()?.to_string(),
        field_type: parse_type(words.next()?, package, types),
        required: false,
        patch: PatchRule::default(),
        list_type: ListType::default(),
        atomic: false,
        default: None,
        wire: Wire::default(),
    };
    for word in words {
        if let Some(wire) = word.strip_prefix('#') {
            field.wire = parse_wire(wire)?;
            continue;
        }
        match word.split_once(':').unwrap_or((word, "")) {
            ("!", _) => field.required = true,
            ("merge", key) => {
                field.patch.merge = true;
                field.patch.merge_key = (!key.is_empty()).then(|| key.to_string());
            }
            ("replace", _) => field.patch.replace = true,
            ("retainKeys", _) => field.patch.retain_keys = true,
            ("set", _) => field.list_type = ListType::Set,
            ("atomic", _) => field.atomic = true,
            ("map", keys) => {
                field.list_type = ListType::Map(keys.split(',').map(str::to_string).collect());
            }
            _ => field.default = serde_json::from_str(word.strip_prefix('=')?).ok(),
        }
    }
    Some(field)
}

fn parse_wire(text: &str) -> Option<Wire> {
    let numbers = text.strip_suffix('*').unwrap_or(text);
    Some(Wire {
        path: numbers
            .split('.')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?,
        explicit_zero: text.ends_with('*'),
    })
}

fn parse_type(text: &str, package: &str, types: &HashMap<String, TypeId>) -> FieldType {
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return FieldType::List(Box::new(parse_type(inner, package, types)));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return FieldType::Map(Box::new(parse_type(inner, package, types)));
    }
    match text {
        "string" => FieldType::String,
        "bytes" => FieldType::Bytes,
        "bool" => FieldType::Bool,
        "int32" => FieldType::Int32,
        "int64" => FieldType::Int64,
        "float" => FieldType::Float,
        "time" => FieldType::Time,
        "microTime" => FieldType::MicroTime,
        "quantity" => FieldType::Quantity,
        "intOrString" => FieldType::IntOrString,
        "fieldsV1" => FieldType::FieldsV1,
        "schemaOrBool" => FieldType::SchemaOrBool,
        "schemaOrArray" => FieldType::SchemaOrArray,
        "schemaOrStringArray" => FieldType::SchemaOrStringArray,
        name => {
            let full = if name.contains('.') {
                name.to_string()
            } else {
                format!("{package}.{name}")
            };
            types
                .get(&full)
                .map_or(FieldType::Any, |id| FieldType::Object(*id))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TABLES, schema};
    use super::*;

    #[test]
    fn every_line_of_the_tables_is_understood() {
        let lines = TABLES
            .iter()
            .flat_map(|t| t.lines())
            .filter(|l| l.starts_with(' '))
            .count();
        let fields: usize = schema().types().iter().map(|t| t.fields.len()).sum();
        assert_eq!(lines, fields);
        for line in TABLES
            .iter()
            .flat_map(|t| t.lines())
            .filter(|l| l.starts_with(' '))
        {
            let word = line.split(' ').nth(2).unwrap();
            let inner = word.trim_matches(['[', ']', '{', '}']);
            if inner != "any"
                && inner.contains(char::is_uppercase)
                && !matches!(inner, "microTime" | "intOrString" | "fieldsV1")
                && !inner.starts_with("schemaOr")
            {
                let found = schema()
                    .types()
                    .iter()
                    .any(|t| t.name == inner.rsplit('.').next().unwrap());
                assert!(found, "{line}");
            }
        }
    }

    #[test]
    fn container_ports_merge_by_container_port() {
        let container = schema().object(schema().id("core.Container").unwrap());
        let ports = container.field("ports").unwrap();
        assert_eq!(ports.patch.merge_key.as_deref(), Some("containerPort"));
        assert_eq!(
            ports.list_type,
            ListType::Map(vec!["containerPort".into(), "protocol".into()])
        );
        assert!(container.field("nope").is_none());
    }
}

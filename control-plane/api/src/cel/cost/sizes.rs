//! The sizes that a schema allows.

use std::sync::Arc;

use crate::{
    cel::value::unescape,
    custom::{Additional, Node, ValueType},
};

/// Most bytes of a request; Kubernetes' limit.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// Bytes of one character at most.
const CHARACTER_BYTES: u64 = 4;
/// Longest forms of durations, dates and moments in JSON, in bytes.
const DURATION_BYTES: u64 = 32;
const DATE_BYTES: u64 = 12;
const MOMENT_BYTES: u64 = 45;

/// How large a value is: characters, bytes, elements or entries; 1 for what has none of them.
#[derive(Debug, Clone)]
pub struct Size<'n> {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
    parts: Parts<'n>,
}

#[derive(Debug, Clone)]
enum Parts<'n> {
    None,
    Text,
    List(Arc<Size<'n>>),
    /// Keys and values.
    Map(Arc<Size<'n>>, Arc<Size<'n>>),
    /// True: the root of a resource.
    Object(&'n Node, bool),
    /// As large as a request, whatever it is.
    Unknown,
}

impl<'n> Size<'n> {
    fn new(most: u64, parts: Parts<'n>) -> Self {
        Size {
            least: 0,
            most,
            parts,
        }
    }

    pub(super) fn scalar() -> Self {
        Size {
            least: 1,
            ..Size::new(1, Parts::None)
        }
    }

    pub(super) fn unknown() -> Self {
        Size::new(MAX_REQUEST_BYTES, Parts::Unknown)
    }

    pub(super) fn text(most: u64) -> Self {
        Size::new(most, Parts::Text)
    }

    /// A text of exactly that size.
    pub(super) fn text_of(size: u64) -> Self {
        Size {
            least: size,
            ..Size::text(size)
        }
    }

    pub(super) fn list(most: u64, item: Size<'n>) -> Self {
        Size::new(most, Parts::List(Arc::new(item)))
    }

    pub(super) fn map(most: u64, key: Size<'n>, value: Size<'n>) -> Self {
        Size::new(most, Parts::Map(Arc::new(key), Arc::new(value)))
    }

    pub(super) fn list_of(items: impl ExactSizeIterator<Item = Size<'n>>) -> Self {
        let most = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let item = items.reduce(Size::union);
        Size::list(most, item.unwrap_or_else(Size::scalar))
    }

    pub(super) fn map_of(keys: Vec<Size<'n>>, values: Vec<Size<'n>>) -> Self {
        let most = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let one = |sizes: Vec<Size<'n>>| sizes.into_iter().reduce(Size::union);
        let (key, value) = (one(keys), one(values));
        Size::map(
            most,
            key.unwrap_or_else(Size::scalar),
            value.unwrap_or_else(Size::scalar),
        )
    }

    /// What a schema allows; `is_root`: it is that of a resource.
    pub fn of_schema(node: &'n Node, is_root: bool) -> Self {
        let rules = node.rules.as_deref();
        if node.int_or_string {
            let most = rules.and_then(|rules| rules.max_length);
            let most = most.map(|most| most.saturating_mul(CHARACTER_BYTES));
            return Size::new(most.unwrap_or(MAX_REQUEST_BYTES - 2), Parts::Text);
        }
        match node.value_type {
            Some(ValueType::String) => text_size(node),
            Some(ValueType::Array) => match node.items.as_deref() {
                Some(items) => Size::list(most_items(node), Size::of_schema(items, items.embedded)),
                None => Size::unknown(),
            },
            Some(ValueType::Object) => match &node.additional {
                Additional::Schema(values) => {
                    let key = Size::text(MAX_REQUEST_BYTES - 2);
                    let value = Size::of_schema(values, values.embedded);
                    Size::map(most_properties(node), key, value)
                }
                _ => Size::new(0, Parts::Object(node, is_root)),
            },
            None if is_root => Size::new(0, Parts::Object(node, true)),
            None => Size::unknown(),
            Some(_) => Size::scalar(),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.parts, Parts::Text)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.parts, Parts::List(_))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.parts, Parts::Map(..))
    }

    /// Something can be selected from it.
    pub(super) fn has_parts(&self) -> bool {
        matches!(self.parts, Parts::Map(..) | Parts::Object(..))
    }

    /// The size of a field.
    pub(super) fn field(&self, name: &str) -> Self {
        let Parts::Object(node, is_root) = &self.parts else {
            return self.value();
        };
        let plain = unescape(name);
        let found = node.properties.get(&plain);
        match found.or_else(|| node.properties.get(name)) {
            Some(found) => Size::of_schema(found, found.embedded),
            None if *is_root && plain == "metadata" => {
                Size::map(2, Size::scalar(), Size::text(MAX_REQUEST_BYTES - 2))
            }
            None => Size::text(MAX_REQUEST_BYTES - 2),
        }
    }

    /// The size of elements or values.
    pub(super) fn value(&self) -> Self {
        match &self.parts {
            Parts::List(value) | Parts::Map(_, value) => (**value).clone(),
            Parts::Unknown => self.clone(),
            Parts::None | Parts::Text | Parts::Object(..) => Size::scalar(),
        }
    }

    /// The size of positions or keys.
    pub(super) fn key(&self) -> Self {
        match &self.parts {
            Parts::Map(key, _) => (**key).clone(),
            Parts::Unknown => self.clone(),
            _ => Size::scalar(),
        }
    }

    /// The one or the other.
    pub(super) fn union(self, other: Size<'n>) -> Self {
        let (least, most) = (self.least.min(other.least), self.most.max(other.most));
        let parts = match (self.parts, other.parts) {
            (Parts::List(a), Parts::List(b)) => {
                Parts::List(Arc::new((*a).clone().union((*b).clone())))
            }
            (Parts::None, other) => other,
            (parts, _) => parts,
        };
        Size { least, most, parts }
    }
}

fn text_size<'n>(node: &Node) -> Size<'n> {
    let rules = node.rules.as_deref();
    let longest = rules.and_then(|rules| rules.max_length);
    let format = rules.map_or("", |rules| rules.format.as_str());
    match format {
        "byte" => return Size::text(longest.unwrap_or(MAX_REQUEST_BYTES - 2)),
        "duration" => return Size::new(DURATION_BYTES, Parts::None),
        "date" => return Size::new(DATE_BYTES, Parts::None),
        "date-time" => return Size::new(MOMENT_BYTES, Parts::None),
        _ => {}
    }
    if let Some(longest) = longest {
        return Size::text(longest.saturating_mul(CHARACTER_BYTES));
    }
    let values = rules.map_or(&[][..], |rules| rules.one_of_values.as_slice());
    let lengths = values
        .iter()
        .filter_map(|value| value.as_str().map(str::len));
    let longest = lengths.max().and_then(|length| u64::try_from(length).ok());
    Size::text(longest.unwrap_or(MAX_REQUEST_BYTES - 2))
}

/// Elements of a list at most.
pub(super) fn most_items(node: &Node) -> u64 {
    let limit = node.rules.as_deref().and_then(|rules| rules.max_items);
    let least = node.items.as_deref().map_or(1, smallest_bytes);
    limit.unwrap_or((MAX_REQUEST_BYTES - 2) / least.saturating_add(1))
}

/// Entries of a map at most.
fn most_properties(node: &Node) -> u64 {
    let limit = node.rules.as_deref().and_then(|rules| rules.max_properties);
    let least = match &node.additional {
        Additional::Schema(values) => smallest_bytes(values),
        _ => 1,
    };
    limit.unwrap_or((MAX_REQUEST_BYTES - 2) / least.saturating_add(6))
}

/// The shortest form in JSON of a value that a schema allows.
pub fn smallest_bytes(node: &Node) -> u64 {
    let format = node
        .rules
        .as_ref()
        .map_or("", |rules| rules.format.as_str());
    match (node.int_or_string, node.value_type) {
        (true, _) | (false, None | Some(ValueType::Integer | ValueType::Number)) => 1,
        (false, Some(ValueType::Boolean)) => 4,
        (false, Some(ValueType::Array)) => 2,
        (false, Some(ValueType::String)) => match format {
            "duration" => 4,
            "date" => DATE_BYTES,
            "date-time" => 22,
            _ => 2,
        },
        (false, Some(ValueType::Object)) => {
            let required = node.rules.iter().flat_map(|rules| &rules.required);
            let fields = required.filter_map(|name| Some((name, node.properties.get(name)?)));
            let needed = fields.filter(|(_, field)| field.default.is_none());
            needed.fold(2, |sum, (name, field)| {
                let name = u64::try_from(name.len()).unwrap_or(u64::MAX);
                sum.saturating_add(name)
                    .saturating_add(smallest_bytes(field))
                    .saturating_add(4)
            })
        }
    }
}

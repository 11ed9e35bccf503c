//! Types of expressions, and what is said of those that have none.

use serde_json::json;

use crate::{
    cel::{Type, type_of},
    custom::Node,
};

fn schema() -> Node {
    Node::compile(&json!({"type": "object", "properties": {
        "count": {"type": "integer"}, "ratio": {"type": "number"}, "name": {"type": "string"},
        "when": {"type": "string", "format": "date-time"},
        "for": {"type": "string", "format": "duration"},
        "raw": {"type": "string", "format": "byte"},
        "on": {"type": "boolean"},
        "port": {"x-kubernetes-int-or-string": true},
        "anything": {"x-kubernetes-preserve-unknown-fields": true},
        "tags": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {
            "size": {"type": "integer"}}}},
        "x-y": {"type": "integer"}}}))
    .unwrap()
}

fn typed(source: &str) -> Result<String, String> {
    let node = schema();
    let of = Type::of_schema(&node, true).unwrap();
    let names = [
        ("self", of.clone()),
        ("any", Type::Dyn),
        ("maybe", of.optional()),
        ("authorizer", Type::authorizer()),
        ("request", Type::request()),
        ("Object", Type::Dyn),
    ];
    let found = type_of(source, &names).map_err(|error| error.to_string())?;
    Ok(found.to_string())
}

#[test]
fn expressions_have_types() {
    for (source, of) in [
        ("1 + 2", "int"),
        ("1 < 2.0", "bool"),
        ("self.count > 1u", "bool"),
        ("self.name + 'x'", "string"),
        ("self.ratio * 2.0", "double"),
        ("self.when - self.for", "timestamp"),
        ("self.when - self.when", "duration"),
        ("self.raw", "bytes"),
        ("self.port", "dyn"),
        ("self.port == 1 || self.port == 'a'", "bool"),
        ("self.tags", "list(string)"),
        ("self.tags.map(t, size(t))", "list(int)"),
        ("self.tags.filter(t, t != '')", "list(string)"),
        ("self.tags.all(i, t, i < 3 && t != '')", "bool"),
        (
            "self.tags.sum() == ''",
            "ERROR: <input>:1:14: found no matching overload for 'sum' applied to 'list(string).()'\n | self.tags.sum() == ''\n | .............^",
        ),
        ("self.labels.all(k, self.labels[k].startsWith(k))", "bool"),
        (
            "self.labels.transformMap(k, v, size(v))",
            "map(string, int)",
        ),
        (
            "self.labels.transformMapEntry(k, v, {v: k})",
            "map(string, string)",
        ),
        ("self.parts.map(p, p.size).sum()", "int"),
        ("self.parts[0].size", "int"),
        ("self.metadata.name + self.kind", "string"),
        ("self.x__dash__y", "int"),
        ("self.?name", "optional_type(string)"),
        ("self.?name.orValue('')", "string"),
        ("self.?labels.a", "optional_type(string)"),
        ("maybe.count", "optional_type(int)"),
        ("maybe.hasValue() ? maybe.value().count : 0", "int"),
        ("self.tags[?0].optMap(t, size(t))", "optional_type(int)"),
        ("self.labels[?'a']", "optional_type(string)"),
        ("any.a.b[0].c", "dyn"),
        ("any + 1", "int"),
        ("any.a == 1 && any.b == 'x'", "bool"),
        ("[1, 2]", "list(int)"),
        ("[]", "list(dyn)"),
        ("self.tags == []", "bool"),
        ("{'a': [1]}", "map(string, list(int))"),
        ("self.on ? 'a' : 'b'", "string"),
        ("self.parts[0] == null", "bool"),
        ("has(self.name)", "bool"),
        ("'%s %d'.format(['a', 1])", "string"),
        ("type(1) == int", "bool"),
        ("quantity('1').add(1).isGreaterThan(quantity('2'))", "bool"),
        ("ip('::1').family()", "int"),
        ("url('a').getQuery()['a'][0]", "string"),
        ("format.dns1123Label().validate('x').hasValue()", "bool"),
        ("authorizer.requestResource.check('get').allowed()", "bool"),
        (
            "authorizer.group('').resource('pods').check('get').reason()",
            "string",
        ),
        ("request.userInfo.groups", "list(string)"),
        ("cel.bind(x, self.count, x + 1)", "int"),
        ("math.greatest(1, 2)", "dyn"),
        ("optional.none()", "optional_type(dyn)"),
        ("dyn(1)", "dyn"),
        (
            "Object{a: 1, b: Object.b{c: 'x'}, ?d: optional.none()}",
            "dyn",
        ),
    ] {
        match typed(source) {
            Ok(found) => assert_eq!(found, of, "{source}"),
            Err(error) => assert_eq!(error, of, "{source}"),
        }
    }
}

#[test]
fn what_does_not_fit_is_said_with_its_place() {
    for (source, error) in [
        (
            "self.nope",
            "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^",
        ),
        (
            "self.metadata.labels",
            "ERROR: <input>:1:14: undefined field 'labels'\n",
        ),
        ("self.anything", "undefined field 'anything'"),
        (
            "has(self.nope)",
            "ERROR: <input>:1:4: undefined field 'nope'",
        ),
        (
            "nope > 1",
            "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope > 1\n | ^",
        ),
        (
            "self.name.nope()",
            "ERROR: <input>:1:15: undeclared reference to 'nope' (in container '')",
        ),
        (
            "1 +\n self.name",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 +\n | ..^",
        ),
        (
            "true &&\n self.nope",
            "ERROR: <input>:2:6: undefined field 'nope'\n |  self.nope\n | .....^",
        ),
        (
            "self.count == 'a'",
            "found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "self.name == null",
            "found no matching overload for '_==_' applied to '(string, null)'",
        ),
        (
            "self.name.startsWith(1)",
            "found no matching overload for 'startsWith' applied to 'string.(int)'",
        ),
        (
            "self.name.size",
            "type 'string' does not support field selection",
        ),
        (
            "self.name.all(c, true)",
            "expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        (
            "self.tags.all(t, t)",
            "found no matching overload for '_&&_' applied to '(bool, string)'",
        ),
        (
            "self.count ? 1 : 2",
            "found no matching overload for '_?_:_' applied to '(int, int, int)'",
        ),
        (
            "self.on ? 1 : 'a'",
            "found no matching overload for '_?_:_' applied to '(bool, int, string)'",
        ),
        (
            "!self.count",
            "found no matching overload for '!_' applied to '(int)'",
        ),
        (
            "[1, 'a']",
            "ERROR: <input>:1:5: expected type 'int' but found 'string'",
        ),
        (
            "{'a': 1, 'b': 'c'}",
            "expected type 'int' but found 'string'",
        ),
        (
            "1 in self.tags",
            "found no matching overload for '@in' applied to '(int, list(string))'",
        ),
        (
            "self['name']",
            "found no matching overload for '_[_]' applied to '(object, string)'",
        ),
        (
            "authorizer.resource('pods')",
            "found no matching overload for 'resource' applied to 'kubernetes.authorization.Authorizer.(string)'",
        ),
        ("request.nope", "undefined field 'nope'"),
    ] {
        let found = typed(source).unwrap_err();
        assert!(found.contains(error), "{source}: {found}");
    }
    let found = typed("self.a + self.b").unwrap_err();
    assert_eq!(found.matches("ERROR").count(), 2, "{found}");
}

#[test]
fn types_stay_small_whatever_is_made_of_them() {
    type Made = fn(usize) -> String;
    let doubled: Made = |number| format!("{{a{number}: a{number}}}");
    let nested: Made = |number| format!("[[[[optional.of(a{number})]]]]");
    for made in [doubled, nested] {
        let mut source = "a40 + 1".to_string();
        for number in (1..=40).rev() {
            source = format!("cel.bind(a{number}, {}, {source})", made(number - 1));
        }
        let error = typed(&format!("cel.bind(a0, {{1: 1}}, {source})")).unwrap_err();
        assert!(
            error.contains("no matching overload for '_+_'"),
            "{error:.200}"
        );
        assert!(error.len() < 4096, "{} bytes", error.len());
    }
}

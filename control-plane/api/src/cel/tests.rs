//! Expressions with their values.

use serde_json::{Value as Json, json};

use super::*;

fn run(source: &str, object: &Json) -> Result<Json, String> {
    let program = Program::compile(source, &[Declared::any("self")]).map_err(|e| e.to_string())?;
    let mut budget = CALL_COST;
    program
        .evaluate(&[("self", Value::json(object))], &mut budget)
        .map(|value| value.to_json())
        .map_err(|error| error.to_string())
}

#[test]
fn expressions_have_the_values_that_kubernetes_gives_them() {
    let object = json!({"n": 3, "s": "Hello", "l": [1, 2, 3], "m": {"a": 1, "b": 2}, "f": 1.5,
        "objects": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "empty": [], "x-y": 7, "none": null});
    for (source, value) in [
        ("1 + 2 * 3 == 7", json!(true)),
        ("(1 + 2) * -3", json!(-9)),
        ("7 / 2 + 7 % 2", json!(4)),
        ("1 < 2 && 2.0 > 1 || false", json!(true)),
        ("self.n > 2 ? 'big' : 'small'", json!("big")),
        ("has(self.s) && !has(self.nope)", json!(true)),
        (
            "self.l.all(x, x > 0) && self.l.exists(x, x == 2) && self.l.exists_one(x, x == 3)",
            json!(true),
        ),
        ("self.l.map(x, x * 2)", json!([2, 4, 6])),
        ("self.l.map(x, x > 1, x * 2)", json!([4, 6])),
        ("self.l.filter(x, x != 2)", json!([1, 3])),
        ("self.l.all(i, v, i < 3 && v == i + 1)", json!(true)),
        ("self.m.all(k, k in ['a', 'b'])", json!(true)),
        (
            "self.m.transformList(k, v, k + string(v))",
            json!(["a1", "b2"]),
        ),
        ("self.objects.map(o, o.name).join('-')", json!("a-b")),
        (
            "2 in self.l && 'a' in self.m && !(5 in self.l)",
            json!(true),
        ),
        ("self.l[0] + self.m['b']", json!(3)),
        ("self.l + [4]", json!([1, 2, 3, 4])),
        ("size(self.s) + self.l.size() + self.m.size()", json!(10)),
        (
            "self.s.startsWith('He') && self.s.endsWith('lo') && self.s.contains('ell')",
            json!(true),
        ),
        (
            "self.s.matches('^H[a-z]+$') && !self.s.matches('^h')",
            json!(true),
        ),
        (
            "self.s.lowerAscii() + self.s.substring(1, 3) + self.s.charAt(0)",
            json!("helloelH"),
        ),
        ("'a,b,c'.split(',')", json!(["a", "b", "c"])),
        ("'a,b,c'.replace(',', ';', 1)", json!("a;b,c")),
        ("'hello'.indexOf('l') + 'hello'.lastIndexOf('l')", json!(5)),
        ("'  x '.trim()", json!("x")),
        ("'a1b22'.findAll('[0-9]+')", json!(["1", "22"])),
        ("self.l.sum() + self.l.max() - self.l.min()", json!(8)),
        ("self.l.isSorted()", json!(true)),
        ("int('5') + int(2.9) + int(3u)", json!(10)),
        ("int(duration('2s'))", json!(2_000_000_000)),
        ("string(5) + string(true) + string(1.5)", json!("5true1.5")),
        ("type(1) == int && type('') == string", json!(true)),
        (
            "duration('1h') > duration('59m') && duration('90s').getMinutes() == 1",
            json!(true),
        ),
        (
            "timestamp('2026-01-02T03:04:05Z').getFullYear()",
            json!(2026),
        ),
        (
            "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
            json!(true),
        ),
        (
            "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('5m') && !isQuantity('x')",
            json!(true),
        ),
        (
            "quantity('1').add(quantity('500m')).compareTo(quantity('1.5'))",
            json!(0),
        ),
        (
            "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('10.0.0')",
            json!(true),
        ),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').prefixLength() == 8",
            json!(true),
        ),
        (
            "url('https://a.b:80/c?d=1').getHost() + url('https://a.b:80/c').getPort()",
            json!("a.b:8080"),
        ),
        ("isURL('/x') && !isURL('x y')", json!(true)),
        ("math.greatest(1, 2, 3) + math.least([4, 5])", json!(7)),
        (
            "sets.contains([1, 2, 3], [1, 3]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
            json!(true),
        ),
        ("self.?nope.orValue(5) + self.?n.orValue(0)", json!(8)),
        (
            "self.?m.?a.hasValue() && !self[?'q'].hasValue()",
            json!(true),
        ),
        ("optional.of(2).optMap(x, x + 1).value()", json!(3)),
        ("cel.bind(x, self.n, x * x)", json!(9)),
        ("{'a': 1, 'b': self.n}['b']", json!(3)),
        ("self.x__dash__y", json!(7)),
        ("self.none == null", json!(true)),
        ("true || self.nope == 1", json!(true)),
        ("self.nope == 1 || true", json!(true)),
        (
            "[1, 2, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2] && [3, 1].sort() == [1, 3]",
            json!(true),
        ),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1",
            json!(true),
        ),
        (
            "semver('1.2.3').major() + semver('1.2.3').minor() + semver('1.2.3').patch()",
            json!(6),
        ),
        (
            "isSemver('1.0.0-alpha+001') && !isSemver('v1.0') && !isSemver('01.0.0') && isSemver('v01.0', true)",
            json!(true),
        ),
        (
            "semver('v1.01', true) == semver('1.1.0') && semver('1.0.0-alpha.2').isLessThan(semver('1.0.0-alpha.beta'))",
            json!(true),
        ),
        (
            "format.dns1123Label().validate('A').value()[0].contains('RFC 1123 label')",
            json!(true),
        ),
        (
            "!format.dns1123LabelPrefix().validate('a-').hasValue() && format.dns1123Label().validate('a-').hasValue()",
            json!(true),
        ),
        (
            "format.named('uuid').value().validate('x').value() == ['does not match the UUID format'] && !format.named('no').hasValue()",
            json!(true),
        ),
        (
            "['date', 'datetime', 'byte', 'uri', 'labelValue', 'qualifiedName', 'dns1035Label', 'dns1035LabelPrefix', 'dns1123Subdomain', 'dns1123SubdomainPrefix'].all(f, format.named(f).value().validate('*! *').hasValue())",
            json!(true),
        ),
        (
            "self.m.transformMapEntry(k, v, {v: k}) == {1: 'a', 2: 'b'} && self.l.transformMapEntry(i, v, v > 1, {v: i}) == {2: 1, 3: 2}",
            json!(true),
        ),
        (
            "self.l.first().value() + self.l.last().value() == 4 && !self.empty.first().hasValue()",
            json!(true),
        ),
        (
            "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(2)].unwrapOpt() == [2]",
            json!(true),
        ),
        (
            "string(0.000001) + ' ' + string(1e100) + ' ' + string(100000.5)",
            json!("1e-06 1e+100 100000.5"),
        ),
        ("strings.quote('a\"\\n')", json!("\"a\\\"\\n\"")),
        ("r'\\d' + \"\\u0041\" + '''x'''", json!("\\dAx")),
        ("0x10 + 1 // comment", json!(17)),
        ("b'abc' == bytes('abc')", json!(true)),
        ("self.objects.all(ip, ip.v > 0)", json!(true)),
    ] {
        assert_eq!(run(source, &object), Ok(value), "{source}");
    }
}

#[test]
fn failures_name_themselves() {
    let object = json!({"s": "x", "l": [1], "n": 9223372036854775807_i64});
    for (source, message) in [
        ("self.nope", "no such key: nope"),
        ("self.l[3]", "index out of bounds: 3"),
        ("1 / 0", "division by zero"),
        ("self.n + 1", "integer overflow"),
        ("self.s + 1", "no such overload: _+_(string, int)"),
        ("self.s < 1", "no such overload: _<_(string, int)"),
        (
            "quantity('x')",
            "quantities must match the regular expression",
        ),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("optional.none().value()", "optional.none() dereference"),
        ("semver('1.0')", "No Major.Minor.Patch elements found"),
        (
            "[1, 2].transformMapEntry(i, v, {'a': v})",
            "insert failed: key a already exists",
        ),
        ("'a'.matches(self.s + '(')", "error parsing regexp"),
        ("(-9223372036854775807 - 1) / -1", "integer overflow"),
    ] {
        let found = run(source, &object).unwrap_err();
        assert!(found.contains(message), "{source}: {found}");
    }
}

#[test]
fn hostile_expressions_are_refused_or_run_out_of_budget() {
    let object = json!({"l": vec![1; 1000]});
    let mut refused = vec![
        "(".repeat(10_000),
        "[".repeat(5_000),
        "!".repeat(10_000),
        "-".repeat(10_000),
        format!("1{}", "+1".repeat(5_000)),
        format!("self{}", ".a".repeat(5_000)),
        format!("true{}", "?true:true".repeat(1_000)),
        format!("{}1", "{1:".repeat(2_000)),
        "a".repeat(20_000),
        "'unterminated".to_string(),
        "1 $ 2".to_string(),
        "\u{0}".to_string(),
        "'\\uZZZZ'".to_string(),
        "99999999999999999999".to_string(),
        "self.all(1, true)".to_string(),
        "has(self)".to_string(),
    ];
    refused.push("é".to_string());
    for source in refused {
        assert!(
            run(&source, &object).is_err(),
            "{}",
            &source[..source.len().min(20)]
        );
    }
    for source in [
        "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c > 0)))",
        "self.l.map(a, self.l).map(x, x + x).map(x, x + x).flatten().map(a, self.l).size() > 0",
        "self.l.map(a, 'aaaaaaaaaaaaaaaa').join('aaaaaaaaaaaa').replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').size() > 0",
        "lists.range(100000).map(x, lists.range(100000)).size() > 0",
    ] {
        let found = run(source, &object).unwrap_err();
        assert!(
            found.contains("actual cost limit exceeded"),
            "{source}: {found}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(source in "[a-z0-9 ().\\[\\]{}?:'\"!&|+*/%<>=,_-]{0,60}") {
        let _ = run(&source, &json!({"a": 1}));
    }
}

#[test]
fn messages_are_made_where_their_type_is_declared() {
    let source = "Object{metadata: Object.metadata{labels: {\"a/b\": jsonpatch.escapeKey(\"a/~b\")}}, ?spec: optional.none()}";
    let program = Program::compile(source, &[Declared::any("Object")]).unwrap();
    let mut budget = CALL_COST;
    let made = program.evaluate(&[], &mut budget).unwrap().to_json();
    assert_eq!(
        made,
        serde_json::json!({"metadata": {"labels": {"a/b": "a~1~0b"}}})
    );
    let error = Program::compile(source, &[]).unwrap_err();
    assert_eq!(error, CompileError::Undeclared("Object".to_string()));
    assert!(Program::compile("Object{1: 2}", &[Declared::any("Object")]).is_err());
}

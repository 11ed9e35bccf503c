//! What `string.format` writes.

use crate::cel::{CALL_COST, Program};

fn run(source: &str) -> Result<String, String> {
    let program = Program::compile(source, &[]).map_err(|error| error.to_string())?;
    let mut budget = CALL_COST;
    let value = program.evaluate(&[], &mut budget);
    let value = value.map_err(|error| error.to_string())?;
    Ok(value.as_str().unwrap_or("not a text").to_string())
}

#[test]
fn every_clause_writes_what_kubernetes_writes() {
    for (source, text) in [
        ("'nothing to do'.format([])", "nothing to do"),
        ("'%% and %s%%'.format(['x'])", "% and x%"),
        ("'%s %s %s'.format(['a', 1, true])", "a 1 true"),
        ("'%s'.format([2.71])", "2.71"),
        ("'%s'.format([2.0])", "2"),
        ("'%s'.format([0.000000002])", "2e-09"),
        ("'%s'.format([1e21])", "1e+21"),
        ("'%s'.format([null])", "null"),
        ("'%s'.format([b'xyz'])", "xyz"),
        ("'%s'.format([type('')])", "string"),
        (
            "'%s'.format([timestamp('2023-02-03T23:31:20+00:00')])",
            "2023-02-03T23:31:20Z",
        ),
        ("'%s'.format([duration('1h45m47s')])", "6347s"),
        (
            "'%s'.format([['abc', 3.14, null, [9, 8], timestamp('2023-02-03T23:31:20Z')]])",
            "[\"abc\", 3.140000, null, [9, 8], timestamp(\"2023-02-03T23:31:20Z\")]",
        ),
        (
            "'%s'.format([{'key1': b'xyz', 'key5': null, 'key2': duration('2h'), 'key4': true, 'key3': 2.71828}])",
            "{\"key1\":b\"xyz\", \"key2\":duration(\"7200s\"), \"key3\":2.718280, \"key4\":true, \"key5\":null}",
        ),
        (
            "'%s'.format([{1: 'a\\n', true: double('NaN')}])",
            "{1:\"a\\n\", true:\"NaN\"}",
        ),
        ("'%d %d %d'.format([5, -5, 7u])", "5 -5 7"),
        (
            "'%b %b %b %b'.format([5, -5, 64u, true])",
            "101 -101 1000000 1",
        ),
        ("'%o %o %o'.format([11, -11, 65535u])", "13 -13 177777"),
        (
            "'%x %X %x %X'.format([30, 30, -30, 6000u])",
            "1e 1E -1e 1770",
        ),
        (
            "'%x %X'.format(['Hello!', b'\\x00lo'])",
            "48656c6c6f21 006C6F",
        ),
        ("'%f'.format([2.71828])", "2.718280"),
        ("'%.3f'.format([1.2345])", "1.234"),
        ("'%.0f'.format([1234567.5])", "1,234,568"),
        ("'%.2f'.format([-1234567.891])", "-1,234,567.89"),
        (
            "'%f %f %f'.format(['NaN', 'Infinity', '-Infinity'])",
            "NaN ∞ -∞",
        ),
        ("'%e'.format([2.71828])", "2.718280\u{202f}×\u{202f}10⁰⁰"),
        (
            "'%.6e'.format([1052.032911275])",
            "1.052033\u{202f}×\u{202f}10⁰³",
        ),
        ("'%.1e'.format([0.00025])", "2.5\u{202f}×\u{202f}10⁻⁰⁴"),
    ] {
        assert_eq!(run(source).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn wrong_clauses_are_errors() {
    for (source, error) in [
        (
            "'%a'.format([1])",
            "could not parse formatting clause: unrecognized formatting clause \"a\"",
        ),
        ("'%d %d %d'.format([0, 1])", "index 2 out of range"),
        (
            "'%d'.format([0, 1])",
            "too many arguments supplied to string.format (expected 1, got 2)",
        ),
        ("'%'.format([1])", "unexpected end of string"),
        (
            "'%.'.format([1])",
            "could not parse formatting clause: error while parsing precision: could not find end of precision specifier",
        ),
        (
            "'%.1000000f'.format([1.0])",
            "precision 1000000 exceeds maximum allowed precision 100",
        ),
        (
            "'%d'.format(['x'])",
            "decimal clause can only be used on integers, was given string",
        ),
        (
            "'%f'.format([1])",
            "fixed-point clause can only be used on doubles, was given int",
        ),
        (
            "'%e'.format(['1'])",
            "scientific clause can only be used on doubles, was given string",
        ),
        (
            "'%b'.format([1.0])",
            "only integers and bools can be formatted as binary, was given double",
        ),
        (
            "'%o'.format([true])",
            "octal clause can only be used on integers, was given bool",
        ),
        (
            "'%x'.format([null])",
            "only integers, byte buffers, and strings can be formatted as hex, was given null_type",
        ),
        (
            "'%s'.format([quantity('1')])",
            "was given kubernetes.Quantity",
        ),
        ("'%s'.format('x')", "no such overload"),
    ] {
        let found = run(source).unwrap_err();
        assert!(found.contains(error), "{source}: {found}");
    }
}

#[test]
fn what_is_written_is_paid_for() {
    let source = "lists.range(2000).map(a, '%.100f'.format([1.0])).map(t, '%s%s%s%s%s%s%s%s'.format([t, t, t, t, t, t, t, t])).map(t, '%s%s%s%s%s%s%s%s'.format([t, t, t, t, t, t, t, t])).size() > 0";
    let error = run(source).unwrap_err();
    assert!(error.contains("actual cost limit exceeded"), "{error}");
}

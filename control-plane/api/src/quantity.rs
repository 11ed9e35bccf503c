//! Resource quantities: `100m`, `1.5Gi`, `2e3` (`k8s.io/apimachinery/pkg/api/resource`).

use std::{cmp::Ordering, fmt, str::FromStr};

/// How a quantity was written, which decides how it is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `k`, `M`, `m`: powers of 1000.
    DecimalSi,
    /// `Ki`, `Mi`: powers of 1024.
    BinarySi,
    /// `e3`.
    DecimalExponent,
}

/// A fixed-point number with nine decimals, as Kubernetes keeps it.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
/// Larger amounts are cut to this, as Kubernetes does.
const MAX: i128 = i64::MAX as i128 * NANO;
/// More digits than this cannot change the value but could overflow the arithmetic.
const MAX_DIGITS: usize = 28;

const BINARY: [(&str, u32); 6] = [
    ("Ki", 1),
    ("Mi", 2),
    ("Gi", 3),
    ("Ti", 4),
    ("Pi", 5),
    ("Ei", 6),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// A text that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseQuantityError;

impl Quantity {
    /// A whole number.
    pub fn from_units(units: i64) -> Self {
        Quantity {
            nanos: i128::from(units) * NANO,
            format: Format::DecimalSi,
        }
    }

    /// Thousandths, rounded up: the unit of CPU requests.
    pub fn milli_value(&self) -> i64 {
        saturate(divide_up(self.nanos, 1_000_000))
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        saturate(divide_up(self.nanos, NANO))
    }

    /// It is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// It is a whole number.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The difference, written like `self`.
    pub fn minus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos - other.nanos).clamp(-MAX, MAX),
            format: self.format,
        }
    }

    /// The sum, written like `self`.
    pub fn plus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos + other.nanos).clamp(-MAX, MAX),
            format: self.format,
        }
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero, as `Quantity.Value` does.
fn divide_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match value % by {
        0 => quotient,
        rest if rest > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// What stands after the number.
enum Scale {
    Ten(i32, Format),
    Binary(u32),
}

fn parse_suffix(suffix: &str) -> Option<Scale> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some(Scale::Binary(*power));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some(Scale::Ten(*exponent, Format::DecimalSi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|e: &i32| e.abs() <= 1000)?;
    Some(Scale::Ten(exponent, Format::DecimalExponent))
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseQuantityError);
        }
        let scale = parse_suffix(suffix).ok_or(ParseQuantityError)?;
        let magnitude = scaled(whole, fraction, &scale);
        let format = match scale {
            Scale::Binary(_) => Format::BinarySi,
            Scale::Ten(_, format) => format,
        };
        Ok(Quantity {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }
}

/// The number in nano units, rounded up and cut to the maximum.
fn scaled(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len() > MAX_DIGITS {
        return MAX;
    }
    let mut lost = false;
    let fraction = match fraction.get(..MAX_DIGITS - whole.len()) {
        Some(kept) => {
            lost = kept.len() < fraction.len();
            kept
        }
        None => fraction,
    };
    let digits = whole
        .bytes()
        .chain(fraction.bytes())
        .fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    if digits == 0 {
        return i128::from(lost);
    }
    let (mut value, exponent) = match scale {
        Scale::Ten(exponent, _) => (digits, exponent + 9 - fraction.len() as i32),
        Scale::Binary(power) => match digits.checked_mul(1024i128.pow(*power)) {
            Some(value) => (value, 9 - fraction.len() as i32),
            None => return MAX,
        },
    };
    for _ in 0..exponent.max(0) {
        value = match value.checked_mul(10) {
            Some(value) if value <= MAX => value,
            _ => return MAX,
        };
    }
    for _ in 0..(-exponent).max(0) {
        lost |= value % 10 != 0;
        value /= 10;
    }
    (value + i128::from(lost)).min(MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that needs none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let large_enough = self.nanos.abs() >= 1024 * NANO;
        if self.format == Format::BinarySi && large_enough && self.is_integer() {
            let mut units = self.nanos / NANO;
            let mut suffix = "";
            for (name, _) in BINARY {
                if units % 1024 != 0 {
                    break;
                }
                units /= 1024;
                suffix = name;
            }
            return write!(f, "{units}{suffix}");
        }
        let mut mantissa = self.nanos;
        let mut exponent = -9;
        while mantissa % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return match exponent {
                0 => write!(f, "{mantissa}"),
                exponent => write!(f, "{mantissa}e{exponent}"),
            };
        }
        let suffix = DECIMAL
            .iter()
            .find(|(_, e)| *e == exponent)
            .map_or("", |(name, _)| name);
        write!(f, "{mantissa}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_come_out_canonical() {
        for (text, canonical) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("100m", "100m"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1500e3", "1500e3"),
            ("9E", "9E"),
            ("-1", "-1"),
            ("+2", "2"),
            ("1000", "1k"),
            ("128974848", "128974848"),
            ("129M", "129M"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.0000000001", "1n"),
        ] {
            let parsed: Quantity = text.parse().unwrap();
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", ".", "a", "1x", "1.2.3", "--1", "1 Gi", "1KI", "1e", "e3", "٣",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn huge_amounts_are_cut_not_wrapped() {
        for text in [
            "1e1000",
            "999999999999999999999999999999999999999999E",
            "9999999999999999999999999Ei",
        ] {
            let parsed: Quantity = text.parse().unwrap();
            assert_eq!(parsed.value(), i64::MAX, "{text}");
        }
    }

    #[test]
    fn amounts_compare_across_suffixes() {
        let small: Quantity = "1G".parse().unwrap();
        let large: Quantity = "1Gi".parse().unwrap();
        assert!(small < large);
        assert_eq!(
            "1000m".parse::<Quantity>().unwrap(),
            Quantity::from_units(1)
        );
        assert_eq!("1500u".parse::<Quantity>().unwrap().milli_value(), 2);
    }
}

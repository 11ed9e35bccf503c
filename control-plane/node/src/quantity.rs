//! Kubernetes resource quantities (`250m`, `64Mi`, `1e3`), as milli-units.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Milli-units of a quantity; `None` when it is malformed or does not fit.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let split = text
        .char_indices()
        .find(|(index, c)| {
            !(c.is_ascii_digit() || *c == '.' || (*index == 0 && (*c == '+' || *c == '-')))
        })
        .map_or(text.len(), |(index, _)| index);
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator) = multiplier(suffix)?;
    let (mantissa, scale) = decimal(number)?;
    // Rounded up, as Kubernetes does when a quantity is finer than the unit asked for.
    let scaled = mantissa.checked_mul(numerator)?.checked_mul(1000)?;
    let divisor = denominator.checked_mul(10i128.checked_pow(scale)?)?;
    let quotient = scaled.div_euclid(divisor);
    Some(if scaled.rem_euclid(divisor) == 0 {
        quotient
    } else {
        quotient + 1
    })
}

/// Whole units, rounded up.
pub fn value(quantity: &Quantity) -> Option<i64> {
    let milli = milli(quantity)?;
    let quotient = milli.div_euclid(1000);
    let up = if milli.rem_euclid(1000) == 0 {
        quotient
    } else {
        quotient + 1
    };
    i64::try_from(up).ok()
}

fn decimal(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.trim_start_matches(['+', '-']).is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    const POWERS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        _ => {
            if let Some(power) = POWERS.iter().position(|p| *p == suffix) {
                return Some((1000i128.pow(u32::try_from(power).ok()? + 1), 1));
            }
            if let Some(binary) = suffix.strip_suffix('i') {
                let binary = if binary == "K" { "k" } else { binary };
                let power = POWERS.iter().position(|p| *p == binary)?;
                return Some((1024i128.pow(u32::try_from(power).ok()? + 1), 1));
            }
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent >= 0 {
                (power, 1)
            } else {
                (1, power)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("250m", Some(250)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("64Mi", Some(67_108_864_000)),
            ("1Ki", Some(1_024_000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("1E-1", Some(100)),
            ("100n", Some(1)),
            ("", None),
            ("1x", None),
            ("..", None),
        ] {
            assert_eq!(milli(&Quantity(text.into())), expected, "{text:?}");
        }
        assert_eq!(value(&Quantity("1500m".into())), Some(2));
        assert_eq!(value(&Quantity("1Gi".into())), Some(1 << 30));
    }
}

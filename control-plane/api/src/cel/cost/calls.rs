//! The prices of functions.

use super::{Estimate, Size, sum, traversal};

/// An authorization check.
const CHECK_COST: u64 = 350_000;
/// Bytes of the larger of the addresses' forms.
const ADDRESS_BYTES: u64 = 16;
/// Longest text of a number.
const NUMBER_BYTES: u64 = 20;
/// Longest of the patterns of named formats.
const FORMAT_PATTERN: u64 = 60;

/// What a pattern costs by its length.
fn pattern(size: u64) -> u64 {
    size.div_ceil(4)
}

pub(super) fn call<'n>(
    name: &str,
    target: Option<Estimate<'n>>,
    arguments: Vec<Estimate<'n>>,
) -> Estimate<'n> {
    let mut costs: Vec<u64> = arguments.iter().map(|one| one.cost).collect();
    costs.extend(target.iter().map(|target| target.cost));
    let mut sizes = target.into_iter().chain(arguments).map(|one| one.size);
    let first = sizes.next().unwrap_or_else(Size::scalar);
    let rest: Vec<Size<'n>> = sizes.collect();
    let (cost, size) = price(name, &first, &rest);
    costs.push(cost);
    Estimate::of(sum(&costs), size)
}

/// The price of a function by itself, and the size of what it makes.
fn price<'n>(name: &str, first: &Size<'n>, rest: &[Size<'n>]) -> (u64, Size<'n>) {
    let second = rest.first().map_or(0, |size| size.most);
    let most = first.most;
    match name {
        "check" => (CHECK_COST, Size::scalar()),
        "startsWith" | "endsWith" => (traversal(second), Size::scalar()),
        "contains" if first.is_list() => (most, Size::scalar()),
        "contains" => (
            traversal(most).saturating_mul(traversal(second)),
            Size::scalar(),
        ),
        "matches" | "find" | "findAll" => {
            let cost = traversal(most.saturating_add(1)).saturating_mul(pattern(second));
            let size = match name {
                "matches" => Size::scalar(),
                "find" => Size::text(most),
                _ => Size::list(most, Size::text(most)),
            };
            (cost, size)
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" | "reverse" if !first.is_list() => {
            (traversal(most), Size::text(most))
        }
        "replace" => {
            let with = rest.get(1).map_or(0, |size| size.most);
            let least = rest.first().map_or(0, |size| size.least);
            (most.div_ceil(5), Size::text(replaced(most, least, with)))
        }
        "split" => (most.div_ceil(5), Size::list(most, Size::text(most))),
        "join" => {
            let separators = most.saturating_sub(1).saturating_mul(second);
            let all = most.saturating_mul(first.value().most);
            let all = all.saturating_add(separators);
            (traversal(all), Size::text(all))
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            let item = first.value();
            let each = match (first.is_list(), item.is_text()) {
                (false, _) => return (traversal(most), Size::scalar()),
                (true, true) => traversal(item.most).saturating_add(1),
                (true, false) => 1,
            };
            (most.saturating_mul(each), item)
        }
        "sets.contains" | "sets.intersects" => (
            most.saturating_mul(second).saturating_add(1),
            Size::scalar(),
        ),
        "sets.equivalent" => {
            let pairs = most.saturating_mul(second);
            (pairs.saturating_mul(2).saturating_add(1), Size::scalar())
        }
        "url" | "bytes" | "strings.quote" => (traversal(most), Size::text(most.saturating_mul(4))),
        "format" => (traversal(most), Size::text(super::MAX_REQUEST_BYTES)),
        "containsIP" => (traversal(2 * ADDRESS_BYTES), Size::scalar()),
        "containsCIDR" => (traversal(3 * ADDRESS_BYTES) + 1, Size::scalar()),
        "validate" => {
            let cost = traversal(second).saturating_mul(pattern(FORMAT_PATTERN));
            (cost, Size::scalar())
        }
        "string" if first.is_text() => (1, first.clone()),
        "string" => (1, Size::text(NUMBER_BYTES)),
        "dyn"
        | "optional.of"
        | "optional.ofNonZeroValue"
        | "value"
        | "or"
        | "distinct"
        | "sort"
        | "flatten"
        | "slice" => (1, first.clone()),
        "orValue" => {
            let other = rest.first().cloned();
            (
                1,
                other.map_or_else(|| first.clone(), |other| first.clone().union(other)),
            )
        }
        "first" | "last" => (1, first.value()),
        _ => (1, Size::scalar()),
    }
}

/// The longest text that replacing makes.
fn replaced(size: u64, least: u64, with: u64) -> u64 {
    match least {
        // Around every character.
        0 => size
            .saturating_add(1)
            .saturating_mul(with)
            .saturating_add(size),
        least if with <= least => size,
        least => size.div_ceil(least).saturating_mul(with),
    }
}

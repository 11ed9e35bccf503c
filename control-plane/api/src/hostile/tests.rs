use std::{
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

/// Seconds of new inputs per target.
const SECONDS: f64 = 1.0;
const EDITS_MAX: usize = 4;
/// What the grammars here give a meaning.
const WORDS: [&str; 48] = [
    "\0",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    ".",
    "(",
    ")",
    "!",
    "=",
    "==",
    "!=",
    "&&",
    "||",
    "?",
    "-",
    "+",
    "*",
    "/",
    "~1",
    "%",
    "null",
    "true",
    "0",
    "-1",
    "1e99",
    "9223372036854775808",
    "Ki",
    "\\ud800",
    "in ",
    "notin ",
    "size",
    "map",
    "all",
    "self",
    "matches",
    "format",
    "optional",
    "$patch",
    "replace",
    "$setElementOrder/",
    "$retainKeys",
    "f:",
    "k:{",
    "@every",
];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let entries = std::fs::read_dir(&path).unwrap();
    let all: Vec<_> = entries
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        // Editors end a file with a line.
        .map(|seed| seed.strip_suffix(b"\n").unwrap_or(&seed).to_vec())
        .collect();
    assert!(!all.is_empty(), "{} has no seeds", path.display());
    all
}

/// The bodies in the other form.
fn protobuf_seeds() -> Vec<Vec<u8>> {
    let bodies = seeds("json").into_iter();
    let objects = bodies.map(|body| parse_json(&body).unwrap().value);
    objects
        .map(|object| protobuf::encode_object(&object).unwrap())
        .collect()
}

fn edit(input: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = random.random_range(at..=input.len().min(at + 16));
    match random.random_range(0..5) {
        0 => drop(input.drain(at..end)),
        1 => {
            let piece = input[at..end].to_vec();
            let to = random.random_range(0..=input.len());
            drop(input.splice(to..to, piece));
        }
        2 => {
            let word = WORDS.choose(random).unwrap();
            drop(input.splice(at..end, word.bytes()));
        }
        3 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        _ => input.insert(at, random.random()),
    }
}

fn play(target: &Target, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    if outcome.is_err() {
        panic!(
            "target {} fell over {:?}",
            target.name,
            String::from_utf8_lossy(input)
        );
    }
}

fn hold(name: &str, seeds: &[Vec<u8>]) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for input in seeds {
        play(target, input);
    }
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs_f64(SECONDS);
    while Instant::now() < end {
        let mut input = seeds.choose(&mut random).unwrap().clone();
        for _ in 0..random.random_range(1..=EDITS_MAX) {
            edit(&mut input, &mut random);
        }
        play(target, &input);
    }
}

#[test]
fn bodies_in_json_conform_or_are_refused() {
    hold("json", &seeds("json"));
}

#[test]
fn bodies_in_protobuf_are_read_as_they_are_written() {
    hold("protobuf", &protobuf_seeds());
}

#[test]
fn patches_change_an_object_or_are_refused() {
    hold("patch", &seeds("patch"));
}

#[test]
fn what_is_applied_twice_changes_nothing_the_second_time() {
    hold("apply", &seeds("apply"));
}

#[test]
fn expressions_end() {
    hold("cel", &seeds("cel"));
}

#[test]
fn selectors_quantities_times_and_schedules_are_read_or_refused() {
    hold("text", &seeds("text"));
}

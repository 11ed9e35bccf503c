use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{TARGETS, Target};

/// Seconds of new inputs per target.
const SECONDS: f64 = 1.0;
const INPUT_MAX_BYTES: usize = 600;

/// Inputs that once found something, or that reach deep.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let path = Path::new("fuzz/corpus").join(target.name);
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

fn play(target: &Target, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    if outcome.is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("target {} fell over these bytes: {hex}", target.name);
    }
}

fn hold(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for input in corpus(target) {
        play(target, &input);
    }
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs_f64(SECONDS);
    while Instant::now() < end {
        let mut input = vec![0; random.random_range(0..INPUT_MAX_BYTES)];
        random.fill(input.as_mut_slice());
        play(target, &input);
    }
}

#[test]
fn a_disk_survives_hostile_drivers() {
    hold("block");
}

#[test]
fn a_read_only_disk_stays_as_it_was_under_hostile_drivers() {
    hold("block_read_only");
}

#[test]
fn a_network_device_survives_hostile_drivers() {
    hold("net");
}

#[test]
fn vsock_survives_hostile_drivers() {
    hold("vsock");
}

#[test]
fn a_balloon_survives_hostile_drivers() {
    hold("balloon");
}

#[test]
fn an_entropy_device_survives_hostile_drivers() {
    hold("rng");
}

#[test]
fn configuration_space_and_bars_survive_hostile_accesses() {
    hold("pci");
}

#[test]
fn a_hostile_kernel_image_is_refused() {
    hold("kernel");
}

#[test]
fn a_device_of_the_host_keeps_its_table_and_its_place_under_hostile_guests() {
    hold("vfio");
}

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_api::hostile::run("text", data));

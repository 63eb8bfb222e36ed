#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| murmur_fuzz::fuzz::one("revocation_list", bytes));

//! Compiles the wire messages. Needs no protoc: protox parses the proto file.

use std::{error::Error, path::Path};

const PROTO_ROOT: &str = "../proto/proto";
const WIRE: &str = "murmur/wire/v2/wire.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", Path::new(PROTO_ROOT).join(WIRE).display());
    let descriptors = protox::compile([WIRE], [PROTO_ROOT])?;
    // No generated Debug: these messages hold plaintext and invite secrets, which must never reach a log.
    prost_build::Config::new().bytes(["."]).skip_debug(["."]).compile_fds(descriptors)?;
    Ok(())
}

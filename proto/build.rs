//! Compiles the service contracts in pure Rust and writes the table of scopes from their options.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use protox::prost_reflect::{DescriptorPool, Value};

const FILES: [&str; 20] = [
    "murmur/v1/directory.proto",
    "murmur/v1/node.proto",
    "murmur/v1/auth.proto",
    "murmur/v1/agent.proto",
    "murmur/v1/task.proto",
    "murmur/v1/queue.proto",
    "murmur/v1/runtime.proto",
    "murmur/v1/event.proto",
    "murmur/v1/upload.proto",
    "murmur/v1/tunnel.proto",
    "murmur/v1/webhook.proto",
    "murmur/node/v1/message.proto",
    "murmur/node/v1/outbox.proto",
    "murmur/node/v1/session.proto",
    "murmur/node/v1/host.proto",
    "murmur/node/v1/file.proto",
    "murmur/node/v1/notify.proto",
    "murmur/node/v1/share.proto",
    "murmur/node/v1/event.proto",
    "murmur/node/v1/permission.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The encoded set keeps the scope options, which the plain descriptor types would drop.
    fs::write(out.join("murmur.fds.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("scopes.rs"), scope_table(&compiler.descriptor_pool())?)?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .bytes(".")
        // In one order, so that the same request has the same bytes: an idempotency key is bound to them.
        .btree_map(".")
        .compile_well_known_types(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// One row per RPC: its HTTP/2 path and the number of its scope, zero where the option is missing.
fn scope_table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let option = pool.get_extension_by_name("murmur.v1.scope").ok_or("access.proto no longer defines `scope`")?;
    let mut table = String::from("&[\n");
    for service in pool.services() {
        for method in service.methods() {
            let scope = match method.options().get_extension(&option).as_ref() {
                Value::EnumNumber(number) => *number,
                _ => 0,
            };
            writeln!(table, "    (\"/{}/{}\", {scope}),", service.full_name(), method.name())?;
        }
    }
    table.push(']');
    Ok(table)
}

//! Generates the client and the server of proto/api.proto, the Container Runtime
//! Interface of Kubernetes 1.36.

use std::path::Path;

/// protoc before 22 (Debian 12 has 21) does not know this option. It asks that the
/// field is not printed: src/redacted.rs does that.
const REDACT: &str = " [debug_redact = true]";
/// The message whose fields have it.
const SECRET: &str = "runtime.v1.AuthConfig";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/api.proto");
    let out = std::env::var("OUT_DIR")?;
    let proto = Path::new(&out).join("api.proto");
    std::fs::write(
        &proto,
        std::fs::read_to_string("proto/api.proto")?.replace(REDACT, ""),
    )?;
    let mut prost = tonic_prost_build::Config::new();
    prost.skip_debug([SECRET]);
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        // Records that an older version wrote lack the newer fields.
        .message_attribute(".", "#[serde(default)]")
        .compile_with_config(prost, &[proto], &[Path::new(&out).to_owned()])?;
    Ok(())
}

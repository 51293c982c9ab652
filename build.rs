//! Compiles `proto/` into clients and servers; no `protoc` is needed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    find(Path::new(ROOT), &mut files)?;
    files.sort();
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    // What is sent is the same each time: a walk of the simulation replays.
    config.btree_map([".akash_redis.agent.v1.Configure.redis_config"]);
    // It carries a password; `src/wire` prints it without.
    config.skip_debug([".akash_redis.agent.v1.Follow"]);
    tonic_prost_build::configure()
        .include_file("wire.rs")
        .compile_fds_with_config(protox::compile(files, [ROOT])?, config)?;
    Ok(())
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

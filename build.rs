//! How the release binary is linked: for a quick start of the helper and little memory of the daemon. Everything here is
//! left out where it cannot be had, and the binary works all the same.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let native = std::env::var("HOST").ok() == std::env::var("TARGET").ok();
    let gnu = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if native
        && gnu
        && is("PROFILE", "release")
        && let Some(directory) = unwinder()
    {
        println!("cargo:rustc-link-search=native={}", directory.display());
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
    // The linker that the toolchain brings on this target folds functions that are the same to the byte, which generics
    // make by the hundred. Where somebody chose another linker it is left alone.
    let chosen = std::env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"));
    if native && gnu && is("PROFILE", "release") && is("CARGO_CFG_TARGET_ARCH", "x86_64") && !chosen {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all,-O2");
        if loader_unpacks() {
            println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
        if let Some(script) = hot_functions_first() {
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
        }
    }
}

/// A script for the linker that puts what a helper call and a daemon at work run side by side (packaging/link/trace.py
/// says why, and finds out what that is).
fn hot_functions_first() -> Option<PathBuf> {
    const NAMES: &str = "packaging/link/hot-functions.txt";
    println!("cargo:rerun-if-changed={NAMES}");
    let names = std::fs::read_to_string(NAMES).ok()?;
    let line = |name: &str| format!("*(.text.{name} .text.unlikely.{name})\n");
    let sections: String = names.lines().map(line).collect();
    let script = PathBuf::from(std::env::var_os("OUT_DIR")?).join("hot-functions.ld");
    std::fs::write(&script, format!("SECTIONS {{ .text.hot : {{\n{sections}}} }} INSERT BEFORE .text;\n")).ok()?;
    Some(script)
}

/// Can the loader of this system read packed relative relocations (DT_RELR)? They take 6 instead of 340 KB, which every
/// helper call would read. glibc can since 2.36: Debian 12, Ubuntu 24.04, Fedora 37, RHEL 10. An older one refuses such a
/// binary with a word about `GLIBC_ABI_DT_RELR`, so whoever builds there gets the old form, and so does whoever builds
/// there for all: what is linked on a newer system needs that system's symbols anyway.
fn loader_unpacks() -> bool {
    let Ok(asked) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let said = String::from_utf8_lossy(&asked.stdout);
    let version = said.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let number = |text: &str| text.split('.').next()?.parse::<u32>().ok();
    version.and_then(|(major, minor)| Some((number(major)?, number(minor)?))).is_some_and(|found| found >= (2, 36))
}

/// The shared libgcc costs every helper call a tenth of a millisecond at start (measured: 0.12 of 0.88 ms of a program that
/// does nothing), and is missing in small images. Without the archive the shared one is linked as usual.
fn unwinder() -> Option<PathBuf> {
    let asked = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output().ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    // A driver that does not have it answers with the bare name.
    path.is_absolute().then(|| path.parent().map(Path::to_owned)).flatten()
}

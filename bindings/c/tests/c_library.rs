//! The header is what cbindgen makes of the source, and a C program compiled against it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_header_is_generated_from_the_source() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_src(root().join("src/lib.rs")).with_config(config).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = root().join("include/tarndb.h");
    if std::env::var_os("TARNDB_UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == committed, "include/tarndb.h is not current: run the tests with TARNDB_UPDATE=1");
}

/// The folder with the library of this build.
fn library_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().find(|folder| folder.join("libtarndb_c.so").exists()).map(Path::to_path_buf).unwrap()
}

#[test]
fn a_c_program_runs() {
    let scratch = tempfile::tempdir().unwrap();
    for (compiler, standard) in [("cc", "-std=c11"), ("c++", "-std=c++17")] {
        let program = scratch.path().join(compiler);
        let mut compile = Command::new(compiler);
        if compiler == "c++" {
            compile.args(["-x", "c++"]);
        }
        let folder = library_folder();
        let status = compile
            .args([standard, "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(root().join("include"))
            .arg(root().join("examples/quickstart.c"))
            .arg("-o")
            .arg(&program)
            .arg("-L")
            .arg(&folder)
            .args(["-ltarndb_c", &format!("-Wl,-rpath,{}", folder.display())])
            .status()
            .unwrap();
        assert!(status.success(), "{compiler} failed");
        let output = Command::new(&program).arg(scratch.path().join(format!("lake-{compiler}"))).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let expected = format!("sum 42\nkind 2: it names the table\nversion {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(text, expected);
    }
}

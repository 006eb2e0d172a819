//! Boots of virtual machines that were recorded, and are part of this repository.

use std::path::Path;

/// The content of a file of a recorded boot; `swtpm-tests/fixtures/boots/ORIGIN.md` lists them.
///
/// # Panics
/// Where there is none.
pub(crate) fn recorded(boot: &str, file: &str) -> Vec<u8> {
    let boots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../swtpm-tests/fixtures/boots");
    let path = boots.join(boot).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

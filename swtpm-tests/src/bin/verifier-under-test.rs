//! `rootbound-verifier` by another name, so that cargo builds it for this package's tests and tells them where it is.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    rootbound_verifier::cli::main()
}

//! The verifier daemon and its command line: `rootbound-verifier --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    rootbound_verifier::cli::main()
}

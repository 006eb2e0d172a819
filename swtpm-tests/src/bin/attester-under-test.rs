//! `rootbound-attester` by another name, so that cargo builds it for this package's tests and tells them where it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    rootbound_attester::tpm::silence_library_log();
    rootbound_attester::cli::main()
}

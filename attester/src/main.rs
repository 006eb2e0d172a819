//! The attester daemon and its commands: see `rootbound-attester --help`.

fn main() -> std::process::ExitCode {
    rootbound_attester::tpm::silence_library_log();
    rootbound_attester::cli::main()
}

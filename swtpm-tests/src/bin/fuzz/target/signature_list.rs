//! EFI_SIGNATURE_LIST and UEFI_VARIABLE_DATA.

use rootbound_swtpm_tests::boot_logs::signature_list;
use rootbound_verifier::evidence::boot_log::{Guid, SignatureKind, Variable, parse_signature_lists};

use super::{Outcome, Target, with_trailing_byte};

/// Each input is read as both.
pub(super) struct SignatureListTarget;

impl Target for SignatureListTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let digests = signature_list(SignatureKind::Sha256, &[&[1; 32], &[2; 32]]);
        let certificates = signature_list(SignatureKind::X509, &[&[0x30; 60]]);
        let other = signature_list(SignatureKind::Other(Guid::SHIM), &[b"x", b"y"]);
        let both = [&digests[..], &certificates].concat();
        let variable = Variable::marshal(Guid::IMAGE_SECURITY, "dbx", &both);
        vec![digests, certificates, other, both, variable]
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let lists = parse_signature_lists(input).inspect(|entries| {
            let length: usize = entries.iter().map(|entry| entry.data.len() + 16).sum();
            assert!(length <= input.len(), "entries are parts of the input");
            if !input.is_empty() {
                assert!(
                    parse_signature_lists(&with_trailing_byte(input)).is_err(),
                    "nothing may follow a list"
                );
            }
        });
        let variable = Variable::parse(input).inspect(|variable| {
            let again = Variable::marshal(variable.vendor(), variable.name(), variable.contents());
            assert_eq!(again, input, "a variable has one form");
        });
        let accepted = lists.is_ok() || variable.is_ok();
        // Without the GUIDs of other kinds: each would be an outcome of its own.
        let known = |kind| matches!(kind, SignatureKind::X509 | SignatureKind::Sha256);
        let lists = lists.map(|entries| entries.last().map(|entry| known(entry.kind)));
        let variable = variable.map(|variable| variable.configuration());
        Outcome { accepted, class: format!("{lists:?} {variable:?}") }
    }
}

//! What a TPM states, and what it signs with.

use rootbound_common::crypto::hash;
use rootbound_common::tpm::{
    Attest, AttestKind, Attested, CreationData, HashAlgorithm, Name, PcrIndex, PcrSelection, Signature,
    put_sized,
};
use rootbound_swtpm_tests::corpus::Corpus;
use rootbound_swtpm_tests::software_tpm::{
    ENDORSEMENT_HIERARCHY, Kind, SoftwareKey, SoftwareTpm, Statement, Template,
};

use super::{Outcome, Target, with_trailing_byte};

/// Each input is read as each of the three structures.
pub(super) struct AttestTarget;

impl Target for AttestTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        let p384 = SoftwareKey::p384(Template {
            name_algorithm: HashAlgorithm::Sha384,
            ..Template::attestation_p256()
        });
        let selections = [vec![HashAlgorithm::Sha256], HashAlgorithm::ALL.to_vec(), vec![]];
        for tpm in [SoftwareTpm::new(), SoftwareTpm::with_rsa()] {
            for banks in &selections {
                let pcrs = (0..24).filter_map(PcrIndex::new).collect();
                let selection =
                    PcrSelection::of_banks(banks.iter().map(|bank| (*bank, pcrs))).expect("each bank once");
                let quoted = Statement::quoted(&selection, &[7; 32]);
                let signed = tpm.statement(Kind::Quote, &[3; 32], quoted).sign(&tpm.attestation_key);
                seeds.extend([signed.attest, signed.signature, creation_data(&selection)]);
            }
            let name = tpm.attestation_key.name();
            for (kind, attested) in [
                (Kind::Certify, Statement::certified(&name, &tpm.qualified_signer())),
                (Kind::Creation, Statement::created(&name, &[9; 32])),
                (Kind::Time, vec![0; 25]),
            ] {
                seeds.push(tpm.statement(kind, b"", attested).marshal());
            }
        }
        seeds.push(p384.sign(b"message"));
        for kind in ["quote-evidence", "quote-no-ak", "attest-creation"] {
            for artefact in Corpus::find().iter().flat_map(|corpus| corpus.artefacts(kind)) {
                let files = ["quote.msg", "quote.sig", "certify_creation.msg", "creation_data.bin"];
                seeds.extend(files.into_iter().filter_map(|file| artefact.find(file)));
            }
        }
        seeds
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let attest = Attest::parse(input).inspect(|attest| check_attest(input, attest));
        let signature = Signature::parse(input).inspect(|signature| check_signature(input, signature));
        let creation = CreationData::parse(input).inspect(|creation| check_creation(input, creation));
        let accepted = attest.is_ok() || signature.is_ok() || creation.is_ok();
        let attest = attest.map(|attest| (attest.attested.kind(), attest.qualified_signer.algorithm()));
        let signature = signature.map(|signature| signature.scheme);
        let creation = creation.map(|creation| creation.parent_name_algorithm);
        Outcome { accepted, class: format!("{attest:?} {signature:?} {creation:?}") }
    }
}

/// What was accepted is, field by field, what an independent marshaller makes of it.
fn check_attest(input: &[u8], attest: &Attest<'_>) {
    assert!(input.len() <= Attest::MAX, "an attest is bounded");
    let (kind, attested) = match &attest.attested {
        Attested::Quote { selection, pcr_digest } => (Kind::Quote, Statement::quoted(selection, pcr_digest)),
        Attested::Certify { name, qualified_name } => {
            (Kind::Certify, Statement::certified(name, qualified_name))
        }
        Attested::Creation { object_name, creation_hash } => {
            (Kind::Creation, Statement::created(object_name, creation_hash))
        }
        Attested::Other(kind) => (of_other(*kind), Vec::new()),
    };
    let statement = Statement {
        magic: Statement::TPM_GENERATED,
        kind: kind.tpm_id(),
        qualified_signer: attest.qualified_signer.to_bytes(),
        extra_data: attest.extra_data.to_vec(),
        clock: attest.clock,
        firmware_version: attest.firmware_version,
        attested,
    };
    let marshalled = statement.marshal();
    if matches!(attest.attested, Attested::Other(_)) {
        assert!(input.starts_with(&marshalled), "an attest of another kind begins like every attest");
    } else {
        assert_eq!(marshalled, input, "an attest has one form");
        assert!(Attest::parse(&with_trailing_byte(input)).is_err(), "nothing may follow an attest");
    }
    assert_eq!(Name::parse(&attest.qualified_signer.to_bytes()), Ok(attest.qualified_signer));
}

fn of_other(kind: AttestKind) -> Kind {
    match kind {
        AttestKind::Nv => Kind::Nv,
        AttestKind::NvDigest => Kind::NvDigest,
        AttestKind::CommandAudit => Kind::CommandAudit,
        AttestKind::SessionAudit => Kind::SessionAudit,
        AttestKind::Time => Kind::Time,
        AttestKind::Quote | AttestKind::Certify | AttestKind::Creation => {
            panic!("{kind:?} is a kind whose body is parsed")
        }
    }
}

fn check_signature(input: &[u8], signature: &Signature<'_>) {
    assert_eq!(signature.to_bytes(), input, "a signature has one form");
    assert!(input.len() <= Signature::MAX, "a signature is bounded");
    assert!(Signature::parse(&with_trailing_byte(input)).is_err(), "nothing may follow a signature");
}

fn check_creation(input: &[u8], creation: &CreationData<'_>) {
    let mut marshalled = Vec::new();
    creation.selection.marshal(&mut marshalled);
    put_sized(&mut marshalled, creation.pcr_digest);
    marshalled.push(creation.locality);
    let parent = creation.parent_name_algorithm.map_or(0x0010, HashAlgorithm::tpm_id);
    marshalled.extend(parent.to_be_bytes());
    for field in [creation.parent_name, creation.parent_qualified_name, creation.outside_info] {
        put_sized(&mut marshalled, field);
    }
    assert_eq!(marshalled, input, "creation data have one form");
    assert!(CreationData::parse(&with_trailing_byte(input)).is_err(), "nothing may follow creation data");
}

/// TPMS_CREATION_DATA of a primary object.
fn creation_data(selection: &PcrSelection) -> Vec<u8> {
    let mut out = Vec::new();
    selection.marshal(&mut out);
    put_sized(&mut out, hash(HashAlgorithm::Sha256, &[]).as_bytes());
    out.extend([0x01, 0x00, 0x10]);
    for field in [&ENDORSEMENT_HIERARCHY[..], &ENDORSEMENT_HIERARCHY, b"outside"] {
        put_sized(&mut out, field);
    }
    out
}

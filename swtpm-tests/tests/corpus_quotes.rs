//! Quotes of real machines, judged by our own parsers and verification as independent tools judged them (`INDEX.json`).
//!
//! Real attesters send TPMT_SIGNATURE and TPMT_PUBLIC; parts of the corpus come as PKCS#1 or DER signatures and as PEM
//! keys. [`adapter`] puts those into the TPM's form, and does nothing else. Where our verdict is another than the
//! index's, [`EXCEPTIONS`] says why.

mod adapter;

use rootbound_common::crypto::{Digest, SignatureError, VerifyingKey, VerifyingKeyError, hash};
use rootbound_common::tpm::{
    Attest, AttestKind, Attested, CreationData, HashAlgorithm, Name, ParseError, PcrIndex, PcrSelection,
    PcrValues, Public, Signature, SignatureScheme,
};
use rootbound_swtpm_tests::corpus::{Artefact, Corpus};
use serde_json::Value;

/// What we refuse though its signature verifies, why, and by which check.
const EXCEPTIONS: [(&str, &str, Refusal); 3] = [
    (
        "google+go-attestation/extracted/windows_gcp_shielded_vm",
        "signed over SHA-1, which is refused throughout",
        Refusal::Key(VerifyingKeyError::Sha1(SignatureScheme::RsaSsa(HashAlgorithm::Sha1))),
    ),
    (
        "google+go-attestation/extracted/infineon_ak_creation",
        "signed over SHA-1, which is refused throughout",
        Refusal::Key(VerifyingKeyError::Sha1(SignatureScheme::RsaSsa(HashAlgorithm::Sha1))),
    ),
    (
        "veraison+services/extracted/enacttrust_basic",
        "no TPM made it: its qualified signer is empty, as in a statement that no key signs (Part 3, 18.4)",
        Refusal::Form(ParseError::Truncated { what: "name algorithm", needed: 2, left: 0 }),
    ),
];

/// Which of our checks refused.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    Form(ParseError),
    Key(VerifyingKeyError),
    Signature(SignatureError),
    NotAQuote(AttestKind),
    NothingSelected,
    Nonce,
    PcrValues,
    PcrDigest,
}

/// A quote as the corpus has it, in the TPM's forms.
#[derive(Clone)]
struct Quote {
    attest: Vec<u8>,
    signature: Vec<u8>,
    ak: Vec<u8>,
    /// Where the source says which nonce it asked for.
    nonce: Option<Vec<u8>>,
    pcrs: Option<PcrValues>,
}

impl Quote {
    fn read(artefact: &Artefact) -> Self {
        let expected = &artefact.expected;
        let scheme = adapter::scheme(&expected["scheme"]);
        let stated = artefact.read("quote.sig");
        let signature = match expected["scheme"]["fmt"].as_str() {
            Some("raw") => adapter::signature(scheme, &stated),
            _ => stated,
        };
        let nonce = expected.get("nonce_provenance").map(|_| artefact.read("nonce.bin"));
        let attest = artefact.read("quote.msg");
        Self {
            signature,
            ak: adapter::public_area(artefact, scheme),
            nonce,
            pcrs: pcr_values(artefact),
            attest,
        }
    }

    /// The checks of `authenticate` that need no challenge of ours.
    fn judge(&self) -> Result<PcrSelection, Refusal> {
        let public = Public::parse(&self.ak).map_err(Refusal::Form)?;
        let key = VerifyingKey::of_public_area(&public).map_err(Refusal::Key)?;
        let signature = Signature::parse(&self.signature).map_err(Refusal::Form)?;
        key.verify(&self.attest, &signature).map_err(Refusal::Signature)?;
        let attest = Attest::parse(&self.attest).map_err(Refusal::Form)?;
        let kind = attest.attested.kind();
        let Attested::Quote { selection, pcr_digest } = attest.attested else {
            return Err(Refusal::NotAQuote(kind));
        };
        if selection.is_empty() {
            return Err(Refusal::NothingSelected);
        }
        if self.nonce.as_ref().is_some_and(|nonce| nonce != attest.extra_data) {
            return Err(Refusal::Nonce);
        }
        if let Some(pcrs) = &self.pcrs {
            // The index states values of other banks too, which the quote says nothing of.
            let mut stated = PcrValues::default();
            for (_, index, value) in
                pcrs.iter().filter(|(bank, index, _)| selection.pcrs(*bank).contains(*index))
            {
                stated.insert(index, *value);
            }
            let digest =
                stated.digest(&selection, signature.scheme.hash()).map_err(|_| Refusal::PcrValues)?;
            if digest.as_bytes() != pcr_digest {
                return Err(Refusal::PcrDigest);
            }
        }
        Ok(selection)
    }

    /// The same with one of the index's changes; `None` where the change is one of policy, not of bytes.
    fn mutated(&self, mutation: &Value) -> Option<Self> {
        let number = |field: &str| mutation[field].as_u64().and_then(|number| usize::try_from(number).ok());
        let offset = number("offset").unwrap_or_default();
        let mask = number("mask").and_then(|mask| u8::try_from(mask).ok()).unwrap_or_default();
        let mut changed = self.clone();
        let pcr = || {
            let bank = mutation["bank"].as_str().unwrap().parse().unwrap();
            (bank, PcrIndex::new(u8::try_from(number("index").unwrap()).unwrap()).unwrap())
        };
        match (mutation["op"].as_str().unwrap(), mutation["file"].as_str()) {
            ("policy", _) => return None,
            ("xor", Some("quote.msg")) => changed.attest[offset] ^= mask,
            // Offsets count from the start of the numbers, which end both forms of an RSA signature.
            ("xor", Some("quote.sig")) => {
                let header = changed.signature.len() - adapter::rsa_length(&changed.signature);
                changed.signature[header + offset] ^= mask;
            }
            ("reverse", Some("quote.sig")) => {
                let header = changed.signature.len() - adapter::rsa_length(&changed.signature);
                changed.signature[header..].reverse();
            }
            ("replace", Some("nonce.bin")) => changed.nonce = Some(hex(mutation["hex"].as_str().unwrap())),
            ("xor-pcr", None) => {
                let (bank, index) = pcr();
                let values = changed.pcrs.as_mut().unwrap();
                let mut value = values.get(bank, index).unwrap().as_bytes().to_vec();
                value[offset] ^= mask;
                values.insert(index, Digest::from_slice(bank, &value).unwrap());
            }
            ("set-pcr", None) => {
                let (bank, index) = pcr();
                let value = hex(mutation["hex"].as_str().or(mutation["value"].as_str()).unwrap());
                changed.pcrs.as_mut().unwrap().insert(index, Digest::from_slice(bank, &value).unwrap());
            }
            ("drop-pcr", None) => {
                let (bank, index) = pcr();
                let mut kept = PcrValues::default();
                for (_, other, value) in
                    self.pcrs.as_ref().unwrap().iter().filter(|(b, i, _)| (*b, *i) != (bank, index))
                {
                    kept.insert(other, *value);
                }
                changed.pcrs = Some(kept);
            }
            (op, file) => panic!("mutation {op} of {file:?} is not known"),
        }
        Some(changed)
    }
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap()
}

/// From `pcrs.json`, or from the file that tpm2_quote writes.
fn pcr_values(artefact: &Artefact) -> Option<PcrValues> {
    artefact.pcr_values().or_else(|| Some(adapter::tpm2_tools_values(&artefact.find("pcrs.tpm2tools")?)))
}

/// The index's `pcr_selection`: `[[bank, [pcr, …]], …]`.
fn selection(stated: &Value) -> PcrSelection {
    let banks = stated.as_array().unwrap().iter().map(|bank| {
        let pcrs = bank[1].as_array().unwrap().iter();
        let pcrs = pcrs.map(|pcr| PcrIndex::new(u8::try_from(pcr.as_u64().unwrap()).unwrap()).unwrap());
        (bank[0].as_str().unwrap().parse().unwrap(), pcrs.collect())
    });
    PcrSelection::of_banks(banks).unwrap()
}

fn exception(artefact: &Artefact) -> Option<Refusal> {
    let (_, _, refusal) = EXCEPTIONS.into_iter().find(|(name, _, _)| *name == artefact.name)?;
    Some(refusal)
}

/// What the statement says, whether or not its signature can be checked.
fn check_statement(artefact: &Artefact) {
    let (name, expected) = (&artefact.name, &artefact.expected);
    let bytes = artefact.read("quote.msg");
    let attest = Attest::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(attest.extra_data, hex(expected["extraData"].as_str().unwrap()), "{name}");
    assert_eq!(expected["attest_type"], "QUOTE", "{name}");
    let Attested::Quote { selection: found, .. } = &attest.attested else { panic!("{name}: not a quote") };
    assert_eq!(*found, selection(&expected["pcr_selection"]), "{name}");
}

#[test]
fn quotes_are_judged_as_the_index_says() {
    let Some(corpus) = Corpus::open("quotes_are_judged_as_the_index_says") else { return };
    let artefacts = corpus.artefacts("quote-evidence");
    assert_eq!(artefacts.len(), 25);
    let (mut accepted, mut with_values) = (0, 0);
    for artefact in &artefacts {
        let (name, expected) = (&artefact.name, &artefact.expected);
        let quote = Quote::read(artefact);
        let judged = quote.judge();
        if let Some(refusal) = exception(artefact) {
            assert_eq!(judged, Err(refusal), "{name}");
            continue;
        }
        check_statement(artefact);
        assert!(expected["outcome"].as_str().unwrap().starts_with("accept"), "{name}");
        assert_eq!(expected["signature"], "valid", "{name}");
        assert_eq!(quote.pcrs.is_some(), expected["pcr_digest"] == "match", "{name}");
        assert_eq!(quote.nonce.is_some(), expected["nonce"] == "match", "{name}");
        assert_eq!(judged, Ok(selection(&expected["pcr_selection"])), "{name}");
        accepted += 1;
        with_values += usize::from(quote.pcrs.is_some());
    }
    assert_eq!((accepted, with_values), (23, 22));
}

#[test]
fn changed_quotes_are_refused_by_the_check_that_the_index_names() {
    let Some(corpus) = Corpus::open("changed_quotes_are_refused_by_the_check_that_the_index_names") else {
        return;
    };
    let mut refused = 0;
    for artefact in corpus.artefacts("quote-evidence") {
        let quote = Quote::read(&artefact);
        for mutation in &artefact.mutations {
            let Some(changed) = quote.mutated(mutation) else { continue };
            let expected = mutation["expect"].as_str().unwrap();
            let found = changed.judge().expect_err(&artefact.name);
            let as_expected = match &found {
                Refusal::Signature(_) => expected.contains("signature"),
                Refusal::Nonce => expected.contains("nonce"),
                Refusal::PcrDigest => expected.contains("PCR digest"),
                Refusal::PcrValues => expected.contains("missing PCR"),
                Refusal::Form(_) | Refusal::Key(_) | Refusal::NotAQuote(_) | Refusal::NothingSelected => {
                    false
                }
            };
            assert!(as_expected, "{}: {mutation}: {found:?}", artefact.name);
            refused += 1;
        }
    }
    assert_eq!(refused, 12);
}

/// Attack 21 on real bytes.
#[test]
fn one_changed_bit_anywhere_in_a_real_quote_is_refused() {
    let Some(corpus) = Corpus::open("one_changed_bit_anywhere_in_a_real_quote_is_refused") else { return };
    for artefact in corpus.artefacts("quote-evidence") {
        let quote = Quote::read(&artefact);
        for position in 0..quote.attest.len() {
            let mut changed = quote.clone();
            changed.attest[position] ^= 1 << (position % 8);
            assert!(changed.judge().is_err(), "{}: byte {position}", artefact.name);
        }
    }
}

#[test]
fn quotes_without_a_published_key_are_read() {
    let Some(corpus) = Corpus::open("quotes_without_a_published_key_are_read") else { return };
    let artefacts = corpus.artefacts("quote-no-ak");
    assert_eq!(artefacts.len(), 4);
    for artefact in &artefacts {
        let name = &artefact.name;
        check_statement(artefact);
        let bytes = artefact.read("quote.msg");
        let Attested::Quote { selection, pcr_digest } = Attest::parse(&bytes).unwrap().attested else {
            panic!("{name}: not a quote")
        };
        // IMN-DELL: validly formed, and proves nothing.
        assert_eq!(selection.is_empty(), name.ends_with("IMN-DELL.evidence"), "{name}");
        let Some(signature) = artefact.find("quote.sig") else {
            assert!(name.ends_with("TestDecodeQuote"), "{name} has a signature");
            continue;
        };
        let scheme = Signature::parse(&signature).unwrap_or_else(|error| panic!("{name}: {error}")).scheme;
        let stated = u16::from_str_radix(&artefact.expected["scheme"]["scheme"].as_str().unwrap()[2..], 16);
        assert_eq!(Ok(scheme.tpm_id()), stated, "{name}");
        if let Some(values) = artefact.pcr_values() {
            assert_eq!(values.digest(&selection, scheme.hash()).unwrap().as_bytes(), pcr_digest, "{name}");
        }
    }
}

/// TPM2_CertifyCreation by an AK over itself, on an Infineon TPM.
#[test]
fn creation_statement_names_the_key_and_covers_its_creation_data() {
    let Some(corpus) = Corpus::open("creation_statement_names_the_key_and_covers_its_creation_data") else {
        return;
    };
    let artefacts = corpus.artefacts("attest-creation");
    assert_eq!(artefacts.len(), 1);
    for artefact in &artefacts {
        let public = Public::parse(&artefact.read("ak.pub")).unwrap();
        check_creation(&public, &artefact.read("certify_creation.msg"), &artefact.read("creation_data.bin"));
        let signature = artefact.read("certify_creation.sig");
        let scheme = Signature::parse(&signature).unwrap().scheme;
        assert_eq!(scheme, SignatureScheme::RsaSsa(HashAlgorithm::Sha1));
        let refused = VerifyingKey::of_public_area(&public).map(|key| key.scheme());
        assert_eq!(refused.map_err(Refusal::Key).err(), exception(artefact));
    }
}

/// The same for the AK of a quote, on a GCE machine.
#[test]
fn creation_statement_of_a_quoting_key_names_it() {
    let Some(corpus) = Corpus::open("creation_statement_of_a_quoting_key_names_it") else { return };
    let artefacts = corpus.artefacts("quote-evidence");
    let mut found = 0;
    for artefact in artefacts.iter().filter(|artefact| artefact.find("ak_creation_data.bin").is_some()) {
        let public = Public::parse(&adapter::unsized_public_area(&artefact.read("ak.pub"))).unwrap();
        let statement = artefact.read("ak_create_attestation.bin");
        check_creation(&public, &statement, &artefact.read("ak_creation_data.bin"));
        found += 1;
    }
    assert_eq!(found, 1);
}

fn check_creation(public: &Public, statement: &[u8], creation_data: &[u8]) {
    let attest = Attest::parse(statement).unwrap();
    let Attested::Creation { object_name, creation_hash } = attest.attested else {
        panic!("not of creation")
    };
    assert_eq!(object_name, public.name());
    assert_eq!(object_name, Name::of_public_area(HashAlgorithm::Sha256, public.as_bytes()));
    CreationData::parse(creation_data).unwrap();
    assert_eq!(hash(public.name_algorithm(), &[creation_data]).as_bytes(), creation_hash);
}

/// TPM2_Certify of a key, as Parsec makes it.
#[test]
fn certify_statement_verifies_and_names_the_key() {
    let Some(corpus) = Corpus::open("certify_statement_verifies_and_names_the_key") else { return };
    let mut found = 0;
    for artefact in corpus.artefacts("quote-evidence") {
        let Some(statement) = artefact.find("certify.msg") else { continue };
        let scheme = adapter::scheme(&artefact.expected["scheme"]);
        let ak = Public::parse(&adapter::public_area(&artefact, scheme)).unwrap();
        let signature = artefact.read("certify.sig");
        let key = VerifyingKey::of_public_area(&ak).unwrap();
        key.verify(&statement, &Signature::parse(&signature).unwrap()).unwrap();
        let certified = Public::parse(&artefact.read("certified_key.pub")).unwrap();
        let Attested::Certify { name, .. } = Attest::parse(&statement).unwrap().attested else {
            panic!("not of certification")
        };
        assert_eq!(name, certified.name());
        found += 1;
    }
    assert_eq!(found, 1);
}

/// Quotes of virtual machines over swtpm, booted in many ways.
#[test]
fn quotes_of_virtual_machines_verify() {
    let Some(corpus) = Corpus::open("quotes_of_virtual_machines_verify") else { return };
    let boots = corpus.boots();
    assert!(!boots.is_empty());
    for boot in &boots {
        let (name, stated) = (&boot.name, &boot.expected["validated"]["quote"]);
        let ak = adapter::unsized_public_area(&boot.read("ak.pub"));
        assert_eq!(Public::parse(&ak).unwrap().name().to_bytes(), boot.read("ak.name"), "{name}");
        let quote = Quote {
            attest: boot.read("quote.msg"),
            signature: boot.read("quote.sig"),
            ak,
            nonce: Some(boot.read("nonce.bin")),
            pcrs: boot.pcr_values(),
        };
        let selection = quote.judge().unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        let selected: u32 = selection.banks().map(|(_, pcrs)| pcrs.len()).sum();
        assert_eq!(u64::from(selected), stated["npcrs"].as_u64().unwrap(), "{name}");
        let attest = Attest::parse(&quote.attest).unwrap();
        assert_eq!(Some(attest.clock.clock), stated["clock"].as_u64(), "{name}");
        assert_eq!(Some(u64::from(attest.clock.reset_count)), stated["resetCount"].as_u64(), "{name}");
        assert_eq!(Some(u64::from(attest.clock.restart_count)), stated["restartCount"].as_u64(), "{name}");
        assert_eq!(Some(u64::from(attest.clock.safe)), stated["safe"].as_u64(), "{name}");
        assert_eq!(
            format!("{:016x}", attest.firmware_version),
            stated["firmware"].as_str().unwrap(),
            "{name}"
        );
    }
}

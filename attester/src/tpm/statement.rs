//! What the TPM states and an AK signs: TPM2_Quote and TPM2_Certify.

use rootbound_common::crypto::VerifyingKey;
use rootbound_common::tpm::{Attest, Attested, PcrSelection, PcrValues, Signature};
use tss_esapi::structures::{Attest as TssAttest, Data, Signature as TssSignature, SignatureScheme};
use tss_esapi::traits::Marshall;

use super::device::{Device, PASSWORD, TWO_PASSWORDS};
use super::keys::{KeyRing, stack};
use super::{AkBlob, CredentialKeyBlob, TpmError, pcr};

/// A statement of the TPM with the AK's signature over exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

/// A quote with the PCR values that it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The statement. Its selection is what the TPM quoted: of a bank that is not active the TPM quotes no PCR, and
    /// signs that; whoever needs what was asked for compares.
    pub statement: Statement,
    /// Their digest is the quoted one.
    pub values: PcrValues,
}

/// How often a quote is made anew because a PCR moved between it and the values.
const QUOTE_ATTEMPTS: u32 = 10;

/// Quotes `selection`, and reads the values until they are those that the quote is over.
///
/// A machine that works extends PCR 10 at any time, so quote and values may miss each other without anybody's fault.
/// Values from before and from after a quote are tried, so that a quote is wasted only if PCRs move twice around it.
pub(super) fn quote(
    device: &Device,
    ring: &mut KeyRing,
    ak: &AkBlob,
    selection: &PcrSelection,
    extra_data: &[u8],
) -> Result<Quote, TpmError> {
    let signer = Signer::new(ak, extra_data)?;
    let list = pcr::to_tss(selection)?;
    let loaded = ring.load_ak(device, ak)?;
    let mut values = pcr::read(device, selection)?;
    for _ in 0..QUOTE_ATTEMPTS {
        let (attest, signature) = device.run("TPM2_Quote", PASSWORD, |context| {
            context.quote(loaded.key(), signer.extra_data.clone(), SignatureScheme::Null, list.clone())
        })?;
        let statement = signer.statement(&attest, &signature)?;
        if signer.is_quote_of(&statement, &values)? {
            return Ok(Quote { statement, values });
        }
        values = pcr::read(device, selection)?;
        if signer.is_quote_of(&statement, &values)? {
            return Ok(Quote { statement, values });
        }
    }
    Err(TpmError::PcrsMoving { operation: "TPM2_Quote", attempts: QUOTE_ATTEMPTS })
}

/// Certifies that `key` lives in this TPM with the public area that it has.
///
/// TPM2_Certify needs the admin role of the key: the empty password, since adminWithPolicy is clear. So it works
/// whatever the PCRs are.
pub(super) fn certify(
    device: &Device,
    ring: &mut KeyRing,
    ak: &AkBlob,
    key: &CredentialKeyBlob,
    extra_data: &[u8],
) -> Result<Statement, TpmError> {
    let signer = Signer::new(ak, extra_data)?;
    let loaded_ak = ring.load_ak(device, ak)?;
    let loaded_key = ring.load_credential_key(device, key)?;
    let (attest, signature) = device.run("TPM2_Certify", TWO_PASSWORDS, |context| {
        context.certify(
            loaded_key.handle(),
            loaded_ak.key(),
            signer.extra_data.clone(),
            SignatureScheme::Null,
        )
    })?;
    let statement = signer.statement(&attest, &signature)?;
    match signer.parse(&statement)?.attested {
        Attested::Certify { name, .. } if name == key.name() => Ok(statement),
        _ => Err(TpmError::Inconsistent("TPM2_Certify states something else than asked for")),
    }
}

/// The AK's side of a statement: what it signs with, and the check that it did.
struct Signer {
    key: VerifyingKey,
    extra_data: Data,
}

impl Signer {
    fn new(ak: &AkBlob, extra_data: &[u8]) -> Result<Self, TpmError> {
        // TPM2B_DATA holds a TPMT_HA; libtss2 leaves out the two bytes of its algorithm.
        let extra_data = Data::try_from(extra_data)
            .map_err(|_| TpmError::InvalidArgument("extraData holds at most 64 bytes"))?;
        let key = VerifyingKey::of_public_area(ak.public())
            .map_err(|_| TpmError::InvalidArgument("the attestation key has no scheme that verifies"))?;
        Ok(Self { key, extra_data })
    }

    /// The bytes of a statement. tss-esapi 7.7 gives it parsed, so what is sent is marshalled anew; that these are the
    /// bytes that the TPM signed is checked, not believed.
    fn statement(&self, attest: &TssAttest, signature: &TssSignature) -> Result<Statement, TpmError> {
        let attest = attest.marshall().map_err(|error| stack("TPMS_ATTEST", &error))?;
        let signature = signature.marshall().map_err(|error| stack("TPMT_SIGNATURE", &error))?;
        let parsed = Signature::parse(&signature)
            .map_err(|_| TpmError::Inconsistent("the TPM gives a signature that does not parse"))?;
        self.key
            .verify(&attest, &parsed)
            .map_err(|_| TpmError::Inconsistent("the AK's signature is not over the statement"))?;
        Ok(Statement { attest, signature })
    }

    fn parse<'s>(&self, statement: &'s Statement) -> Result<Attest<'s>, TpmError> {
        let attest = Attest::parse(&statement.attest)
            .map_err(|_| TpmError::Inconsistent("the TPM gives a statement that does not parse"))?;
        if attest.extra_data != self.extra_data.value() {
            return Err(TpmError::Inconsistent("the statement has another extraData than asked for"));
        }
        Ok(attest)
    }

    /// Whether these are the values that a quote is over.
    fn is_quote_of(&self, statement: &Statement, values: &PcrValues) -> Result<bool, TpmError> {
        let Attested::Quote { selection, pcr_digest } = self.parse(statement)?.attested else {
            return Err(TpmError::Inconsistent("TPM2_Quote states something else than a quote"));
        };
        let digest = values.digest(&selection, self.key.scheme().hash());
        Ok(digest.is_ok_and(|digest| digest.as_bytes() == pcr_digest))
    }
}

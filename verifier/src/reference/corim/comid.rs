//! A CoMID (the draft, 5.1): a PCR set, or a boot set.

use rootbound_common::crypto::{Digest, TaggedDigest};
use rootbound_common::tpm::PcrIndex;
use rootbound_compute::values::{BootValue, BootValues, Measured, Source};

use super::cbor::{Item, Key, Reader};
use super::manifest::{MAX_WORDS, entities, set_name, tag_identity, taken};
use super::{CorimError, digest, unknown};
use crate::node::Name;
use crate::reference::exchange::{ExportedValues, TakenSet};
use crate::reference::{AcceptedPcrs, BootSet};

/// Reference triples: each accepted value of each PCR in each bank, as one.
const MAX_TRIPLES: usize = 24 * 3 * AcceptedPcrs::MAX_PER_PCR;

/// What is measured, as the key of a measurement says it in our profile.
pub(super) mod measured {
    pub(in super::super) const BOOT_APPLICATION: &str = "boot_application";
    pub(in super::super) const DRIVER: &str = "driver";
    pub(in super::super) const INITRD: &str = "initrd";
    pub(in super::super) const COMMAND_LINE: &str = "command_line";
    /// With the number of the PCR behind it.
    pub(in super::super) const EVENT: &str = "event:";
    pub(in super::super) const FIRMWARE_VERSION: &str = "firmware_version";
    pub(in super::super) const FIRMWARE_BLOB: &str = "firmware_blob";
}

/// Reads a CoMID that begins at `start` of the file. `profiled`: whether the CoRIM says that it is of our profile. `name`: what
/// the set is called here.
pub(super) fn read(
    bytes: &[u8],
    start: usize,
    profiled: bool,
    name: Option<&Name>,
) -> Result<TakenSet, CorimError> {
    let mut reader = Reader::new(bytes, start);
    let (mut version, mut triples) = (None, None);
    reader.map("a CoMID: a map", |reader, key| {
        let at = reader.at();
        match key {
            // A language: of texts for people.
            Key::Number(0) => reader.words(MAX_WORDS, "a language").map(|_| ()),
            Key::Number(1) => {
                version = Some(tag_identity(reader)?);
                Ok(())
            }
            Key::Number(2) => entities(reader).map(|_| ()),
            Key::Number(4) => {
                triples = Some(Triples::read(reader, bytes, start)?);
                Ok(())
            }
            key => Err(unknown(at, "concise-mid-tag", key)),
        }
    })?;
    reader.end()?;
    let at = reader.at();
    let version = version.ok_or(CorimError::Missing { at, what: "the tag's identity (1)" })?;
    let triples = triples.ok_or(CorimError::Missing { at, what: "reference triples" })?;
    let name = set_name(name, triples.model, start)?;
    Ok(taken(name, version, triples.values(profiled)?))
}

/// Reference triples of one environment.
struct Triples<'b> {
    model: Option<&'b str>,
    measurements: Vec<Measurement<'b>>,
}

/// What is expected of a measured element.
struct Measurement<'b> {
    at: usize,
    key: Option<&'b str>,
    label: Option<&'b str>,
    digests: Vec<Digest>,
    registers: Vec<(PcrIndex, Vec<Digest>)>,
    text: Option<(&'b str, TextIs)>,
}

/// As what a text was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextIs {
    RawValue,
    Version,
}

impl<'b> Triples<'b> {
    fn read(reader: &mut Reader<'b>, comid: &'b [u8], start: usize) -> Result<Self, CorimError> {
        let mut triples = Self { model: None, measurements: Vec::new() };
        let mut environment: Option<&[u8]> = None;
        let mut there = false;
        reader.map("triples: a map", |reader, key| {
            let at = reader.at();
            if key != Key::Number(0) {
                return Err(unknown(at, "triples-map", key));
            }
            there = true;
            reader
                .list("a list of reference triples", |reader| {
                    reader.exactly(2, "a reference triple: [environment, measurements]")?;
                    let at = reader.at();
                    triples.model = model(reader)?;
                    let here = comid.get(at.saturating_sub(start)..reader.at().saturating_sub(start));
                    if environment.is_some_and(|first| Some(first) != here) {
                        let what = "values of several environments in one tag".to_owned();
                        return Err(CorimError::Inexpressible { at, what });
                    }
                    environment = here;
                    let at = reader.at();
                    let measurements = reader.list("a list of measurements", |reader| {
                        triples.measurements.push(Measurement::read(reader)?);
                        Ok(())
                    })?;
                    if measurements > 1 {
                        return Err(CorimError::Joint { at });
                    }
                    if triples.measurements.len() > MAX_TRIPLES {
                        return Err(CorimError::Shape {
                            at,
                            what: "the end: there are 18432 triples already",
                        });
                    }
                    Ok(())
                })
                .map(|_| ())
        })?;
        if there {
            Ok(triples)
        } else {
            Err(CorimError::Missing { at: reader.at(), what: "reference triples (0)" })
        }
    }

    /// What the set has. Without keys they are PCR values; with them, values of boots.
    fn values(self, profiled: bool) -> Result<ExportedValues, CorimError> {
        if self.measurements.iter().all(|measurement| measurement.key.is_none()) {
            return self.pcrs();
        }
        if !profiled {
            let keyed = self.measurements.iter().find(|measurement| measurement.key.is_some());
            let at = keyed.map_or(0, |measurement| measurement.at);
            let what = format!("measured elements with keys, without the profile `{}`", super::PROFILE);
            return Err(CorimError::Inexpressible { at, what });
        }
        self.boot()
    }

    fn pcrs(self) -> Result<ExportedValues, CorimError> {
        let several = self.measurements.len() > 1;
        let first = self.measurements.first().map_or(0, |measurement| measurement.at);
        let mut values = Vec::new();
        for measurement in self.measurements {
            let at = measurement.at;
            if several && measurement.registers.len() > 1 {
                return Err(CorimError::Joint { at });
            }
            if measurement.registers.is_empty()
                || !measurement.digests.is_empty()
                || measurement.label.is_some()
                || measurement.text.is_some()
            {
                let what =
                    "measured values, without a key, that are not integrity registers alone".to_owned();
                return Err(CorimError::Inexpressible { at, what });
            }
            for (pcr, digests) in measurement.registers {
                values.extend(digests.into_iter().map(|digest| (pcr, digest)));
            }
        }
        AcceptedPcrs::new(values)
            .map(ExportedValues::Pcrs)
            .map_err(|why| CorimError::Inexpressible { at: first, what: why.to_string() })
    }

    fn boot(self) -> Result<ExportedValues, CorimError> {
        let (mut values, mut bank) = (Vec::new(), None);
        let at = self.measurements.first().map_or(0, |measurement| measurement.at);
        for measurement in self.measurements {
            bank = bank.or(measurement.digests.first().map(Digest::algorithm));
            values.push(measurement.boot_value()?);
            if values.len() > BootSet::MAX_VALUES {
                return Err(CorimError::Inexpressible {
                    at,
                    what: "more values than a boot set may have".to_owned(),
                });
            }
        }
        let what = || "texts without any digest, which would say of which bank they are".to_owned();
        let bank = bank.ok_or_else(|| CorimError::Inexpressible { at, what: what() })?;
        Ok(ExportedValues::Boot(BootValues::new(bank, values)))
    }
}

/// environment-map (the draft, 5.1.4.1): the model of a class. Sets are of no instance and no group.
fn model<'b>(reader: &mut Reader<'b>) -> Result<Option<&'b str>, CorimError> {
    let (mut model, mut there) = (None, false);
    reader.map("an environment: a map", |reader, key| {
        let at = reader.at();
        if key != Key::Number(0) {
            return Err(unknown(at, "environment-map", key));
        }
        reader.map("a class: a map", |reader, key| {
            there = true;
            let at = reader.at();
            match key {
                // A class is told from others by it, and all values here are of one class.
                Key::Number(0) => reader.skip()?,
                Key::Number(1) => {
                    reader.words(MAX_WORDS, "a vendor")?;
                }
                Key::Number(2) => model = Some(reader.words(MAX_WORDS, "a model")?),
                Key::Number(3 | 4) => {
                    reader.small("a layer or an index")?;
                }
                key => return Err(unknown(at, "class-map", key)),
            }
            Ok(())
        })
    })?;
    if there { Ok(model) } else { Err(CorimError::Missing { at: reader.at(), what: "the class (0)" }) }
}

impl<'b> Measurement<'b> {
    /// measurement-map.
    fn read(reader: &mut Reader<'b>) -> Result<Self, CorimError> {
        let at = reader.at();
        let mut measurement =
            Self { at, key: None, label: None, digests: Vec::new(), registers: Vec::new(), text: None };
        let mut there = false;
        reader.map("a measurement: a map", |reader, key| {
            let at = reader.at();
            match key {
                Key::Number(0) => {
                    measurement.key = match reader.item()? {
                        Item::Text(text) => Some(text),
                        Item::Number(_) | Item::Tag(_) => {
                            let what = "a measured element that is named by no text".to_owned();
                            return Err(CorimError::Inexpressible { at, what });
                        }
                        _ => return Err(CorimError::Shape { at, what: "the key of a measured element" }),
                    };
                }
                Key::Number(1) => {
                    measurement.values(reader)?;
                    there = true;
                }
                key => return Err(unknown(at, "measurement-map", key)),
            }
            Ok(())
        })?;
        if there { Ok(measurement) } else { Err(CorimError::Missing { at, what: "measured values (1)" }) }
    }

    /// measurement-values-map.
    fn values(&mut self, reader: &mut Reader<'b>) -> Result<(), CorimError> {
        reader.map("measured values: a map", |reader, key| {
            let at = reader.at();
            match key {
                Key::Number(0) => self.text = Some((version(reader)?, TextIs::Version)),
                Key::Number(2) => self.digests = digests(reader)?,
                Key::Number(4) => {
                    const RAW: &str = "a raw value: tag 560 and bytes that are UTF-8";
                    reader.tag(560, RAW)?;
                    let (bytes, at) = reader.bytes(RAW)?;
                    let text = std::str::from_utf8(bytes);
                    let text = text.map_err(|_| CorimError::Shape { at, what: RAW })?;
                    self.text = Some((text, TextIs::RawValue));
                }
                Key::Number(11) => self.label = Some(reader.text("a name")?),
                Key::Number(14) => self.registers = registers(reader)?,
                key => return Err(unknown(at, "measurement-values-map", key)),
            }
            Ok(())
        })
    }

    /// As a value of a boot, under our profile.
    fn boot_value(&self) -> Result<BootValue, CorimError> {
        let other = || CorimError::Inexpressible {
            at: self.at,
            what: "a measured element that the profile does not know, or a value that is not one of it"
                .to_owned(),
        };
        let digest = match (self.digests.as_slice(), self.text) {
            ([digest], None) => Some(TaggedDigest(*digest)),
            _ => None,
        };
        let text = match self.text {
            Some((text, is)) if self.digests.is_empty() => Some((text.to_owned(), is)),
            _ => None,
        };
        let measured = match (self.key.ok_or_else(other)?, digest, text) {
            (measured::BOOT_APPLICATION, Some(digest), _) => Measured::BootApplication { digest },
            (measured::DRIVER, Some(digest), _) => Measured::Driver { digest },
            (measured::INITRD, Some(digest), _) => Measured::Initrd { digest },
            (measured::FIRMWARE_BLOB, Some(digest), _) => Measured::FirmwareBlob { digest },
            (measured::COMMAND_LINE, _, Some((text, TextIs::RawValue))) => Measured::CommandLine { text },
            (measured::FIRMWARE_VERSION, _, Some((text, TextIs::Version))) => {
                Measured::FirmwareVersion { text }
            }
            (key, Some(digest), _) => {
                let pcr = key.strip_prefix(measured::EVENT).and_then(decimal).ok_or_else(other)?;
                Measured::Event { pcr, digest }
            }
            _ => return Err(other()),
        };
        if !self.registers.is_empty() {
            return Err(other());
        }
        Ok(BootValue {
            measured,
            label: self.label.unwrap_or_default().to_owned(),
            source: Source::default(),
        })
    }
}

/// A PCR in the one way in which its number is written.
fn decimal(text: &str) -> Option<PcrIndex> {
    let pcr = PcrIndex::new(text.parse().ok()?)?;
    (pcr.get().to_string() == text).then_some(pcr)
}

/// digests-type (the draft, 7.7): each of another algorithm.
fn digests(reader: &mut Reader<'_>) -> Result<Vec<Digest>, CorimError> {
    let mut digests: Vec<Digest> = Vec::new();
    reader.list("a list of digests", |reader| {
        let at = reader.at();
        let digest = digest(reader)?;
        if digests.iter().any(|other| other.algorithm() == digest.algorithm()) {
            return Err(CorimError::Shape { at, what: "a digest by another algorithm than those before" });
        }
        digests.push(digest);
        Ok(())
    })?;
    Ok(digests)
}

/// integrity-registers: PCRs by their number.
fn registers(reader: &mut Reader<'_>) -> Result<Vec<(PcrIndex, Vec<Digest>)>, CorimError> {
    let mut registers = Vec::new();
    reader.map("integrity registers: a map", |reader, key| {
        let at = reader.at();
        let pcr = match key {
            Key::Number(number) => u8::try_from(number).ok().and_then(PcrIndex::new),
            Key::Text(_) => None,
        };
        let what = || format!("integrity register {key}, which is no PCR");
        let pcr = pcr.ok_or_else(|| CorimError::Inexpressible { at, what: what() })?;
        registers.push((pcr, digests(reader)?));
        Ok(())
    })?;
    Ok(registers)
}

/// version-map: a text. How versions are compared is not for a value that is accepted as it is.
fn version<'b>(reader: &mut Reader<'b>) -> Result<&'b str, CorimError> {
    let mut version = None;
    reader.map("a version: a map", |reader, key| {
        let at = reader.at();
        if key != Key::Number(0) {
            return Err(unknown(at, "version-map", key));
        }
        version = Some(reader.text("a version")?);
        Ok(())
    })?;
    version.ok_or(CorimError::Missing { at: reader.at(), what: "the version (0)" })
}

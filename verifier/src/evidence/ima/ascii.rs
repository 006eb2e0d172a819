//! The readable form of the list (`ascii_runtime_measurements`), for import.
//!
//! It does not say everything: a space or a line break in a name is not told from the one between fields, and the sizes
//! of numbers are gone. Data are put together again as the kernel would have them, and taken only where they have the
//! stated template hash, so that nothing is guessed. A violation has no such hash: its data are as good as they look, and
//! no worse, since nothing covers them in the binary form either. No quote is answered with this form.

use data_encoding::HEXLOWER;

use super::entry::{Entry, Template};
use super::fields::{Head, parse};
use super::parser::counted;
use super::{ImaError, MAX_BYTES, MAX_ENTRY, PCR, Shown};

/// A list in its readable form, line by line.
#[derive(Debug)]
pub struct AsciiList<'t> {
    rest: &'t [u8],
    number: u64,
}

/// A line, with its data as the binary form has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsciiEntry {
    number: u64,
    template: Template,
    template_hash: Vec<u8>,
    data: Vec<u8>,
}

impl<'t> AsciiList<'t> {
    /// Starts at the first line.
    pub fn new(text: &'t [u8]) -> Result<Self, ImaError> {
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(ImaError::TooManyBytes);
        }
        Ok(Self { rest: text, number: 0 })
    }

    fn line(&mut self, line: &[u8]) -> Result<AsciiEntry, ImaError> {
        let number = self.number;
        self.number = counted(number)?;
        if line.len() > 2 * MAX_ENTRY {
            let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
            return Err(ImaError::TooLong { entry: number, what: "line", length, limit: 2 * MAX_ENTRY });
        }
        AsciiEntry::parse(number, line)
    }
}

impl Iterator for AsciiList<'_> {
    type Item = Result<AsciiEntry, ImaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..).unwrap_or_default();
        let entry = self.line(line);
        if entry.is_err() {
            // The place in the list is lost.
            self.rest = &[];
        }
        Some(entry)
    }
}

impl AsciiEntry {
    fn parse(number: u64, line: &[u8]) -> Result<Self, ImaError> {
        let broken = |rule| ImaError::Line { entry: number, rule };
        let mut words = Words { rest: Some(line) };
        let pcr = words.next().and_then(|word| std::str::from_utf8(word).ok()?.trim_start().parse().ok());
        let pcr: u32 = pcr.ok_or(broken("begins with no PCR number"))?;
        if pcr != u32::from(PCR) {
            return Err(ImaError::OtherPcr { entry: number, pcr });
        }
        let template_hash = words.hex().ok_or(broken("has no template hash"))?;
        if ![20, 32, 48, 64].contains(&template_hash.len()) {
            return Err(broken("its template hash is of no known size"));
        }
        let name = words.next().ok_or(broken("names no template"))?;
        let template = Template::of_name(name)
            .ok_or_else(|| ImaError::UnknownTemplate { entry: number, name: Shown::of(name) })?;
        let data = words.data(template).ok_or(broken("its fields are not those of its template"))?;
        let entry = Self { number, template, template_hash, data };
        if entry.as_entry()?.template_hash_fits() {
            Ok(entry)
        } else {
            Err(ImaError::TemplateHash { entry: number })
        }
    }

    /// The entry as the binary form has it.
    #[must_use]
    pub fn to_binary(&self) -> Vec<u8> {
        let Self { template, template_hash, data, .. } = self;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let name = template.name().as_bytes();
        let pcr = u32::from(PCR).to_le_bytes();
        let head = [&pcr[..], template_hash, &length(name), name].concat();
        // The oldest template's fields are of known sizes.
        let length = if *template == Template::Ima { Vec::new() } else { length(data).to_vec() };
        [head, length, data.clone()].concat()
    }

    /// Bytes of its template hash, which names the hash of the list.
    #[must_use]
    pub fn template_hash_size(&self) -> usize {
        self.template_hash.len()
    }

    /// The entry.
    pub fn as_entry(&self) -> Result<Entry<'_>, ImaError> {
        let Self { number, template, template_hash, data } = self;
        parse(Head { number: *number, template: *template, template_hash }, data)
    }
}

/// What stands between single spaces.
struct Words<'t> {
    rest: Option<&'t [u8]>,
}

impl<'t> Words<'t> {
    fn next(&mut self) -> Option<&'t [u8]> {
        let rest = self.rest?;
        let Some(space) = rest.iter().position(|byte| *byte == b' ') else {
            return self.rest.take();
        };
        let (word, rest) = rest.split_at_checked(space)?;
        self.rest = Some(rest.get(1..).unwrap_or_default());
        Some(word)
    }

    fn hex(&mut self) -> Option<Vec<u8>> {
        HEXLOWER.decode(self.next()?).ok()
    }

    /// The template data of the rest of the line, which must be all of it.
    fn data(&mut self, template: Template) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        if template == Template::Ima {
            data.extend(self.hex()?);
            put(&mut data, self.rest.take()?)?;
            return Some(data);
        }
        put(&mut data, &self.digest()?)?;
        // Nothing comes after the name: so it may have spaces.
        let plain = matches!(template, Template::ImaNg | Template::ImaNgV2);
        let name = if plain { self.rest.take()? } else { self.next()? };
        put(&mut data, &[name, &[0]].concat())?;
        match template {
            Template::Ima | Template::ImaNg | Template::ImaNgV2 => {}
            Template::ImaSig | Template::ImaSigV2 | Template::ImaBuf => put(&mut data, &self.hex()?)?,
            Template::ImaModsig => {
                put(&mut data, &self.hex()?)?;
                put(&mut data, &self.digest()?)?;
                put(&mut data, &self.hex()?)?;
            }
            Template::EvmSig => {
                put(&mut data, &self.hex()?)?;
                let names = self.next()?;
                put(&mut data, &[names, &[0]].concat())?;
                put(&mut data, &self.hex()?)?;
                put(&mut data, &self.hex()?)?;
                for _ in 0..2 {
                    put(&mut data, &self.number::<u32>()?.to_le_bytes())?;
                }
                put(&mut data, &self.number::<u16>()?.to_le_bytes())?;
            }
        }
        // The kernel writes a space before each field, and none after the last.
        self.rest.is_none().then_some(data)
    }

    /// `algorithm:hex`, with its type before it in the second versions; empty where the field is.
    fn digest(&mut self) -> Option<Vec<u8>> {
        let word = self.next()?;
        let Some(colon) = word.iter().rposition(|byte| *byte == b':') else {
            return word.is_empty().then(Vec::new);
        };
        let (prefix, hex) = word.split_at_checked(colon + 1)?;
        let digest = HEXLOWER.decode(hex).ok()?;
        Some([prefix, &[0], &digest].concat())
    }

    fn number<N: std::str::FromStr>(&mut self) -> Option<N> {
        std::str::from_utf8(self.next()?).ok()?.parse().ok()
    }
}

fn put(data: &mut Vec<u8>, field: &[u8]) -> Option<()> {
    data.extend(u32::try_from(field.len()).ok()?.to_le_bytes());
    data.extend_from_slice(field);
    Some(())
}

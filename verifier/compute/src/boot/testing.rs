//! Small PE images and disks for tests, made field by field. Used by the tests of other crates, too, by its path.

/// An image in the making: PE32+ for x86-64, without sections.
#[derive(Debug, Clone)]
pub(crate) struct ImageBuilder {
    magic: u16,
    directories: u32,
    sections: Vec<(String, Vec<u8>, u32, u32)>,
    trailer: Vec<u8>,
}

/// Where an image of this builder has its fields. The section table is PE32+'s with 16 directories.
pub(crate) mod at {
    /// e_lfanew.
    pub(crate) const LFANEW: usize = 0x3c;
    /// The PE signature.
    pub(crate) const PE: usize = 64;
    /// NumberOfSections.
    pub(crate) const SECTION_COUNT: usize = 70;
    /// The optional header.
    pub(crate) const OPTIONAL: usize = 88;
    /// SizeOfHeaders.
    pub(crate) const HEADERS: usize = 148;
    /// CheckSum.
    pub(crate) const CHECKSUM: usize = 152;
    /// NumberOfRvaAndSizes.
    pub(crate) const DIRECTORIES: usize = 196;
    /// The certificate table's directory entry.
    pub(crate) const SECURITY: usize = 232;
    /// The first section's header.
    pub(crate) const SECTIONS: usize = 328;
    /// The first section's data.
    pub(crate) const DATA: usize = 512;
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// PE32+ with 16 directories.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { magic: 0x20b, directories: 16, sections: Vec::new(), trailer: Vec::new() }
    }

    /// PE32 for i386.
    #[must_use]
    pub(crate) fn pe32(mut self) -> Self {
        self.magic = 0x10b;
        self
    }

    /// With fewer directories.
    #[must_use]
    pub(crate) fn directories(mut self, count: u32) -> Self {
        self.directories = count;
        self
    }

    /// Adds a section, which is as long in memory as its data.
    #[must_use]
    pub(crate) fn section(self, name: &str, data: &[u8]) -> Self {
        let size = word(data.len());
        self.section_in_memory(name, data, size)
    }

    /// Adds a section of another size in memory.
    #[must_use]
    pub(crate) fn section_in_memory(mut self, name: &str, data: &[u8], virtual_size: u32) -> Self {
        let address = self.sections.last().map_or(0x1000, |(_, data, size, at)| {
            at.saturating_add((*size).max(word(data.len())).next_multiple_of(0x1000)).saturating_add(0x1000)
        });
        self.sections.push((name.to_owned(), data.to_vec(), virtual_size, address));
        self
    }

    /// Adds bytes behind the last section.
    #[must_use]
    pub(crate) fn trailer(mut self, bytes: &[u8]) -> Self {
        self.trailer = bytes.to_vec();
        self
    }

    /// The file. Data are padded to 512 bytes, the trailer is not.
    #[must_use]
    pub(crate) fn build(&self) -> Vec<u8> {
        let plus = self.magic == 0x20b;
        let fixed: u32 = if plus { 112 } else { 96 };
        let optional = fixed.saturating_add(self.directories.saturating_mul(8));
        let headers = word(at::OPTIONAL)
            .saturating_add(optional)
            .saturating_add(word(self.sections.len()).saturating_mul(40))
            .next_multiple_of(512);
        let image = self.sections.last().map_or(0x1000, |(_, _, size, at)| at.saturating_add(*size));
        let mut file = b"MZ".to_vec();
        file.resize(at::LFANEW, 0);
        push(&mut file, &[word(at::PE)]);
        file.extend(b"PE\0\0");
        half(&mut file, &[if plus { 0x8664 } else { 0x14c }, half_word(self.sections.len())]);
        push(&mut file, &[0, 0, 0]);
        half(&mut file, &[half_word(optional), 0x222]);
        half(&mut file, &[self.magic, 0]);
        push(&mut file, &[0, 0, 0, 0x1000, 0x1000]);
        push(&mut file, &[0, 0]);
        push(&mut file, &[0x1000, 512, 0, 0, 0, 0, image.next_multiple_of(0x1000), headers, 0]);
        half(&mut file, &[10, 0]);
        file.resize(at::OPTIONAL.saturating_add(index(fixed)).saturating_sub(4), 0);
        push(&mut file, &[self.directories]);
        file.resize(at::OPTIONAL.saturating_add(index(optional)), 0);
        let mut start = headers;
        for (name, data, virtual_size, address) in &self.sections {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(8, 0);
            file.extend(bytes);
            let size = word(data.len()).next_multiple_of(512);
            push(&mut file, &[*virtual_size, *address, size, start, 0, 0, 0, 0x4000_0040]);
            start = start.saturating_add(size);
        }
        file.resize(index(headers), 0);
        for (_, data, ..) in &self.sections {
            file.extend(data);
            file.resize(file.len().next_multiple_of(512), 0);
        }
        file.extend(&self.trailer);
        file
    }
}

/// Sets 32 bits, little-endian.
pub(crate) fn set(file: &mut [u8], at: usize, value: u32) {
    for (to, from) in file.iter_mut().skip(at).zip(value.to_le_bytes()) {
        *to = from;
    }
}

/// Appends a certificate table of these bytes, and names it in the directory. The image is PE32+.
pub(crate) fn sign(file: &mut Vec<u8>, table: &[u8]) {
    file.resize(file.len().next_multiple_of(8), 0);
    let start = file.len();
    set(file, at::SECURITY, word(start));
    set(file, at::SECURITY.saturating_add(4), word(table.len()));
    file.extend(table);
}

/// A GPT disk of 512-byte sectors with one partition, without its checksums' being right until `checksums` makes them so.
#[must_use]
pub(crate) fn gpt_disk(sector: usize, crc: impl Fn(&[u8]) -> u32) -> Vec<u8> {
    let mut entries = vec![0; 128 * 128];
    for (position, byte) in entries.iter_mut().take(128).enumerate() {
        *byte = u8::try_from(position).unwrap_or(1).saturating_add(1);
    }
    let mut header = b"EFI PART".to_vec();
    push(&mut header, &[0x1_0000, 92, 0, 0]);
    for number in [1_u64, 99, 34, 98] {
        header.extend(number.to_le_bytes());
    }
    header.extend([0x66; 16]);
    header.extend(2_u64.to_le_bytes());
    push(&mut header, &[128, 128, crc(&entries)]);
    let sum = crc(&header);
    set(&mut header, 16, sum);
    let mut disk = vec![0; sector];
    disk.extend(header);
    disk.resize(sector.saturating_mul(2), 0);
    disk.extend(entries);
    disk.resize(disk.len().saturating_add(sector), 0);
    disk
}

fn push(file: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| file.extend(word.to_le_bytes()));
}

fn half(file: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|word| file.extend(word.to_le_bytes()));
}

fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn half_word<T: TryInto<u16>>(number: T) -> u16 {
    number.try_into().unwrap_or(u16::MAX)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

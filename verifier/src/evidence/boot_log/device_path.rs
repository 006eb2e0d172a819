//! EFI_DEVICE_PATH_PROTOCOL as text (UEFI, 10.3 and 10.6), and the image load event that holds one (PFP, 10.2.3).
//!
//! Never proved: the digest of an image load event is the image's, so that where it was loaded from is the log's word.

use rootbound_common::tpm::{ParseError, Reader};

use super::reader::LittleEndian;
use super::text;
use super::variable::Guid;

/// Nodes of one path: a disk behind two bridges has ten.
const MAX_NODES: usize = 64;

/// The device path of a UEFI_IMAGE_LOAD_EVENT, as text.
pub(super) fn of_image_load(data: &[u8]) -> Result<String, ParseError> {
    let mut reader = Reader::new(data);
    reader.bytes(24, "image location, length and link-time address")?;
    let length = reader.count64(data.len(), "device path length")?;
    let path = reader.bytes(length, "device path")?;
    reader.finish("image load event")?;
    to_text(path)
}

/// A device path as text: nodes joined by `/`, each kind that boots use by its UEFI name, others by their numbers.
pub(super) fn to_text(path: &[u8]) -> Result<String, ParseError> {
    let mut reader = Reader::new(path);
    let mut out = Vec::new();
    while !reader.rest().is_empty() {
        if out.len() >= MAX_NODES {
            return Err(ParseError::TooLong { what: "device path", length: out.len() + 1, limit: MAX_NODES });
        }
        let kind = reader.u8("device path node")?;
        let subtype = reader.u8("device path node")?;
        let length = usize::from(reader.le16("device path node length")?);
        let rule = "a node has at least four bytes";
        let length = length.checked_sub(4).ok_or(ParseError::Invalid { what: "device path", rule })?;
        let body = reader.bytes(length, "device path node")?;
        if (kind, subtype) == (0x7f, 0xff) {
            break;
        }
        out.push(node(kind, subtype, body));
    }
    Ok(out.join("/"))
}

fn node(kind: u8, subtype: u8, body: &[u8]) -> String {
    let guid = |at: usize| body.get(at..at.saturating_add(16)).and_then(|bytes| bytes.try_into().ok());
    let known = match (kind, subtype) {
        (1, 1) => match body {
            [function, device] => Some(format!("Pci({device:#x},{function:#x})")),
            _ => None,
        },
        (2, 1) => match body {
            // EISA ids of a PCI root bridge and of a PCI Express root bridge.
            [0xd0, 0x41, 0x03 | 0x08, 0x0a, uid @ ..] => {
                uid.first_chunk::<4>().map(|uid| format!("PciRoot({:#x})", u32::from_le_bytes(*uid)))
            }
            _ => None,
        },
        (3, 11) => body.first_chunk::<6>().map(|mac| {
            let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("MAC({})", mac.join(":"))
        }),
        (3, 12) => Some("IPv4".into()),
        (3, 13) => Some("IPv6".into()),
        (3, 23) => body.first_chunk::<4>().map(|ns| format!("NVMe({:#x})", u32::from_le_bytes(*ns))),
        (3, 24) => std::str::from_utf8(body).ok().map(|uri| format!("Uri({uri})")),
        (4, 1) => body.first_chunk::<4>().zip(guid(20)).map(|(number, guid)| {
            format!("HD({},GPT,{})", u32::from_le_bytes(*number), Guid::from_bytes(guid))
        }),
        (4, 4) => text::utf16(body),
        (4, 6) => guid(0).map(|guid| format!("FvFile({})", Guid::from_bytes(guid))),
        (4, 7) => guid(0).map(|guid| format!("Fv({})", Guid::from_bytes(guid))),
        (1..=4, 3 | 10) => guid(0).map(|guid| format!("Ven({})", Guid::from_bytes(guid))),
        _ => None,
    };
    known.unwrap_or_else(|| format!("Path({kind},{subtype})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(nodes: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, subtype, body) in nodes {
            let length = u16::try_from(body.len() + 4).unwrap().to_le_bytes();
            out.extend([&[*kind, *subtype][..], &length, body].concat());
        }
        out
    }

    #[test]
    fn a_path_to_a_file_on_a_disk_is_readable() {
        let file = text::to_utf16("\\EFI\\BOOT\\BOOTX64.EFI");
        let path = nodes(&[
            (2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0]),
            (1, 1, &[0, 6]),
            (3, 23, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (4, 4, &file),
            (9, 9, b"?"),
            (0x7f, 0xff, &[]),
        ]);
        let expected = "PciRoot(0x0)/Pci(0x6,0x0)/NVMe(0x1)/\\EFI\\BOOT\\BOOTX64.EFI/Path(9,9)";
        assert_eq!(to_text(&path).as_deref(), Ok(expected));
        let length = u64::try_from(path.len()).unwrap().to_le_bytes();
        assert_eq!(of_image_load(&[&[0; 24][..], &length, &path].concat()).as_deref(), Ok(expected));
    }

    #[test]
    fn malformed_paths_are_refused_and_malformed_nodes_shown_by_number() {
        assert!(to_text(&[4, 4, 3, 0]).is_err(), "a node shorter than its own header");
        assert!(to_text(&[4, 4, 0xff, 0xff]).is_err(), "a node beyond the end");
        assert!(to_text(&nodes(&[(9, 9, &[][..]); MAX_NODES + 1])).is_err(), "more nodes than a path has");
        assert!(of_image_load(&[0xff; 32]).is_err(), "a path of 2^64 bytes");
        let odd = nodes(&[(4, 4, &[0x00, 0xd8]), (4, 1, &[1]), (1, 1, &[])]);
        assert_eq!(to_text(&odd).as_deref(), Ok("Path(4,4)/Path(4,1)/Path(1,1)"));
    }
}

//! The few commands that a test sends itself, and swtpm's control channel.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::Reader;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

const CC_STARTUP: u32 = 0x144;
const CC_SHUTDOWN: u32 = 0x145;
const CC_GET_CAPABILITY: u32 = 0x17a;
const CC_PCR_EXTEND: u32 = 0x182;

const CAP_HANDLES: u32 = 1;
const CAP_TPM_PROPERTIES: u32 = 6;

/// No answer to a test's own command takes longer, even on a machine that is busy compiling.
const LIMIT: Duration = Duration::from_secs(30);

/// A response: tag, size, response code, parameters.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    /// The response code; 0 is success.
    #[must_use]
    pub fn code(&self) -> u32 {
        u32::from_be_bytes(self.bytes[6..10].try_into().expect("four bytes"))
    }

    /// Whether the response code is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code() == 0
    }

    /// The whole response.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn expect_success(&self, what: &str) {
        assert!(self.is_success(), "{what}: response code {:#x}", self.code());
    }

    pub(super) fn handles(&self) -> Vec<u32> {
        let mut reader = self.capability(CAP_HANDLES);
        let count = reader.u32("count").expect("a count");
        (0..count).map(|_| reader.u32("handle").expect("a handle")).collect()
    }

    pub(super) fn property(&self, tag: u32) -> u32 {
        let mut reader = self.capability(CAP_TPM_PROPERTIES);
        assert_eq!(reader.u32("count"), Ok(1));
        assert_eq!(reader.u32("property"), Ok(tag), "the TPM has no such property");
        reader.u32("value").expect("a value")
    }

    fn capability(&self, capability: u32) -> Reader<'_> {
        self.expect_success("TPM2_GetCapability");
        let mut reader = Reader::new(&self.bytes[10..]);
        reader.u8("moreData").expect("moreData");
        assert_eq!(reader.u32("capability"), Ok(capability));
        reader
    }
}

pub(super) fn startup(kind: u16) -> Vec<u8> {
    command(NO_SESSIONS, CC_STARTUP, &kind.to_be_bytes())
}

pub(super) fn shutdown(kind: u16) -> Vec<u8> {
    command(NO_SESSIONS, CC_SHUTDOWN, &kind.to_be_bytes())
}

pub(super) fn handles(first: u32) -> Vec<u8> {
    get_capability(CAP_HANDLES, first, 64)
}

pub(super) fn property(tag: u32) -> Vec<u8> {
    get_capability(CAP_TPM_PROPERTIES, tag, 1)
}

pub(super) fn pcr_extend(pcr: u8, digests: &[Digest]) -> Vec<u8> {
    // One password session with an empty password: TPM_RS_PW, no nonce, no attributes, no HMAC.
    const PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    let mut body = u32::from(pcr).to_be_bytes().to_vec();
    body.extend_from_slice(&PASSWORD);
    body.extend_from_slice(&u32::try_from(digests.len()).expect("few banks").to_be_bytes());
    for digest in digests {
        body.extend_from_slice(&digest.algorithm().tpm_id().to_be_bytes());
        body.extend_from_slice(digest.as_bytes());
    }
    command(SESSIONS, CC_PCR_EXTEND, &body)
}

fn get_capability(capability: u32, property: u32, count: u32) -> Vec<u8> {
    let body: Vec<u8> = [capability, property, count].into_iter().flat_map(u32::to_be_bytes).collect();
    command(NO_SESSIONS, CC_GET_CAPABILITY, &body)
}

fn command(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + body.len()).expect("a short command");
    let mut out = tag.to_be_bytes().to_vec();
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub(super) fn connect(port: u16) -> TcpStream {
    try_connect(port).unwrap_or_else(|error| panic!("swtpm on port {port}: {error}"))
}

pub(super) fn transmit(port: u16, command: &[u8]) -> Answer {
    try_transmit(port, command).unwrap_or_else(|error| panic!("swtpm on port {port}: {error}"))
}

pub(super) fn try_transmit(port: u16, command: &[u8]) -> io::Result<Answer> {
    let mut stream = try_connect(port)?;
    stream.write_all(command)?;
    Ok(Answer { bytes: read_message(&mut stream)? })
}

/// Reads a command or a response: a header of ten bytes, in which the size is, and the rest.
pub(super) fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let size = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    let rest = usize::try_from(size).ok().and_then(|size| size.checked_sub(header.len()));
    let Some(rest) = rest.filter(|rest| *rest <= 4096) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a TPM's message"));
    };
    let mut bytes = header.to_vec();
    bytes.resize(header.len() + rest, 0);
    stream.read_exact(&mut bytes[header.len()..])?;
    Ok(bytes)
}

/// A response without parameters.
pub(super) fn response(code: u32) -> Vec<u8> {
    command(NO_SESSIONS, code, &[])
}

/// CMD_INIT of swtpm's control channel (swtpm_ioctl(8), `-i`): what the reset line does to a TPM.
pub(super) fn initialize(control: u16) {
    const CMD_INIT: [u8; 4] = [0, 0, 0, 2];
    const NO_FLAGS: [u8; 4] = [0; 4];
    let mut stream = connect(control);
    stream.write_all(&[CMD_INIT, NO_FLAGS].concat()).expect("swtpm takes a control command");
    let mut result = [0; 4];
    stream.read_exact(&mut result).expect("swtpm answers a control command");
    assert_eq!(result, [0; 4], "CMD_INIT fails");
}

pub(super) fn try_connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

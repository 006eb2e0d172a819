//! What can be wrong with a file of releases, and where.

use std::fmt;
use std::io;

use super::limits::Limits;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}{fault}")]
pub struct FilesError {
    /// Where.
    pub place: Box<Place>,
    /// What.
    pub fault: Fault,
}

/// A place in a file: the file, the member of it, and the offset, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file, as the operator named it.
    pub file: String,
    /// Members, from the outer to the inner one: `data.tar.xz`, then `./usr/bin/x`.
    pub members: Vec<String>,
    /// In the file, or in the innermost archive after decompression, in bytes.
    pub offset: Option<u64>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system could not read it.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// Neither a folder nor a regular file.
    #[error("is neither a folder nor a regular file")]
    Special,
    /// Of no kind that is read.
    #[error(
        "is of no kind that is read here: a folder, a cpio archive, a squashfs or ext4 image, an OCI image layout, a .deb or .rpm \
         package"
    )]
    UnknownKind,
    /// It changed under our eyes.
    #[error("changed while it was read")]
    Changed,
    /// It ends too early.
    #[error("ends within {0}")]
    Truncated(&'static str),
    /// It breaks its format.
    #[error("is corrupt: {0}")]
    Corrupt(String),
    /// What the format has, but nobody here reads.
    #[error("has {0}, which is not read here")]
    Unsupported(&'static str),
    /// A name that may lead out of the root.
    #[error("has `..` in a name, and may lead out of the root")]
    Escapes,
    /// A name without a meaning.
    #[error("has a name that {0}")]
    Name(&'static str),
    /// Folders in folders in folders, or images in images.
    #[error("nests deeper than {0}")]
    TooDeep(usize),
    /// Symbolic links that lead in circles.
    #[error("has symbolic links that lead nowhere, or in circles")]
    LinkLoop,
    /// A link to what is not there.
    #[error("is a hard link to `{0}`, which is not there")]
    DanglingLink(String),
    /// A member is there twice.
    #[error("has two members that may be there once: {0}")]
    Duplicate(String),
    /// A member is missing.
    #[error("has no {0}")]
    Missing(String),
    /// A member that nobody announced.
    #[error("has a member that nothing announces")]
    Unlisted,
    /// More entries than the limit.
    #[error("has more than {0} entries")]
    TooManyEntries(u64),
    /// Folders that are too large to be searched from their beginning for each of their files.
    #[error("has folders so large that more than {0} of their entries were passed in search of files")]
    TooManyLookups(u64),
    /// More digests than a set may have.
    #[error("more than {0} digests are more than one digest set may have")]
    TooManyDigests(u64),
    /// Something is larger than it may be.
    #[error("has {what} of more than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it may be.
        limit: u64,
    },
    /// A compression bomb, by ratio.
    #[error("unpacks to more than {0} times its size: raise the limit if that is meant")]
    Ratio(u64),
    /// A compression bomb, by size; or a folder with more than that.
    #[error("has more than {0} bytes, unpacked: raise the limit if that is meant")]
    TooMuch(u64),
    /// A digest that the archive itself has is not that of the content.
    #[error("does not have the digest that {0} says")]
    Digest(&'static str),
    /// Nothing was found.
    #[error("has no regular file to write down: a digest set needs at least one")]
    Nothing,
}

impl Fault {
    /// What an I/O error says: a limit of ours where one of our readers said so, or else what the system or a decoder did.
    pub(crate) fn of_io(error: io::Error, what: &'static str) -> Self {
        if let Some(inner) = error.get_ref() {
            if inner.is::<Carried>() {
                return match error.into_inner().map(|inner| inner.downcast::<Carried>()) {
                    Some(Ok(carried)) => carried.0,
                    _ => Self::Corrupt(what.to_owned()),
                };
            }
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Self::Truncated(what),
                _ => Self::Corrupt(format!("{what}: {}", printable(inner.to_string().as_bytes()))),
            };
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(what),
            _ if error.raw_os_error().is_none() => Self::Corrupt(format!("{what}: {error}")),
            _ => Self::Io(error),
        }
    }

    /// As an I/O error, on its way through a reader of a library.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(Carried(self))
    }

    pub(crate) fn corrupt(what: &str) -> Self {
        Self::Corrupt(what.to_owned())
    }

    pub(crate) fn at(self, place: &Place) -> FilesError {
        FilesError { place: Box::new(place.clone()), fault: self }
    }

    pub(crate) fn too_deep() -> Self {
        Self::TooDeep(Limits::DEPTH)
    }
}

#[derive(Debug)]
struct Carried(Fault);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Carried {}

impl From<rustix::io::Errno> for Fault {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl Place {
    pub(crate) fn file(file: &std::path::Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self { file: printable(file.as_os_str().as_bytes()), ..Self::default() }
    }

    pub(crate) fn member(&self, name: &[u8]) -> Self {
        let mut place = Self { offset: None, ..self.clone() };
        place.members.push(printable(name));
        place
    }

    pub(crate) fn offset(&self, offset: u64) -> Self {
        Self { offset: Some(offset), ..self.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}: ", self.file)?;
        }
        for member in &self.members {
            write!(f, "`{member}`: ")?;
        }
        match self.offset {
            Some(offset) => write!(f, "at offset {offset}: "),
            None => Ok(()),
        }
    }
}

/// A stranger's text for people: without control characters, and not longer than a line or two.
pub(crate) fn printable(text: &[u8]) -> String {
    const MOST: usize = 300;
    let mut shown = String::new();
    for c in String::from_utf8_lossy(text).chars() {
        if shown.len() > MOST {
            shown.push('…');
            break;
        }
        if c.is_control() || c == '`' { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

//! .deb packages: deb(5), deb-control(5), deb-conffiles(5).
//!
//! An `ar` archive of three members, read here: a header is 60 bytes. Established of a package: its form, its name and
//! version as it says them, and the digests of the files that it has. What its scripts do is not: it is noted that there
//! are some.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use rootbound_common::crypto::Digest;

use super::collect::{About, Group};
use super::decode::{Compression, Extent};
use super::error::{Fault, FilesError, Place, printable};
use super::hash::Worker;
use super::limits::{Given, Meter, Taken, fill, text};
use super::path::{below_root, merged_usr};
use super::tar::{self, MemberKind};
use super::tree::open_file;

/// `!<arch>\n`, the front of an `ar` archive.
pub(crate) const MAGIC: &[u8] = b"!<arch>\n";

/// The files of a package.
pub(crate) fn read(path: &Path, worker: &mut Worker<'_>) -> Result<(), FilesError> {
    let (file, _) = open_file(path)?;
    let place = Place::file(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let group = stream(BufReader::with_capacity(256 << 10, file), &name, &place, worker)?;
    worker.shared.add(group).map(drop).map_err(|fault| fault.at(&place))
}

/// What the control archive says.
#[derive(Debug, Default)]
struct Control {
    stanza: Option<Vec<u8>>,
    configuration: HashSet<Vec<u8>>,
    scripts: Vec<&'static str>,
    diverting: Vec<&'static str>,
}

const SCRIPTS: [&str; 5] = ["preinst", "postinst", "prerm", "postrm", "config"];

/// The files of a package that is not a file.
pub(crate) fn stream(
    input: impl BufRead,
    file: &str,
    place: &Place,
    worker: &mut Worker<'_>,
) -> Result<Group, FilesError> {
    let meter = Meter::new(worker.shared.options.limits);
    let mut input = Taken::new(input, &meter);
    let mut magic = [0; 8];
    exact(&mut input, &mut magic, "the front of an ar archive").map_err(|fault| fault.at(place))?;
    if magic != MAGIC {
        return Err(Fault::corrupt("no ar archive").at(place));
    }
    let (mut is_debian, mut control, mut group) = (false, None, None);
    loop {
        let offset = input.position;
        let Some(header) = header(&mut input).map_err(|fault| fault.at(&place.offset(offset)))? else {
            break;
        };
        let here = place.member(&header.name);
        let fail = |fault: Fault| fault.at(&here.offset(offset));
        let mut member = (&mut input).take(header.size);
        match header.name.as_slice() {
            b"debian-binary" if is_debian => return Err(fail(Fault::Duplicate("debian-binary".to_owned()))),
            b"debian-binary" => {
                let version = text(&mut member, "debian-binary").map_err(fail)?;
                if !version.starts_with(b"2.") {
                    return Err(fail(Fault::Unsupported("another version of the form of packages than 2")));
                }
                is_debian = true;
            }
            _ if !is_debian => {
                return Err(fail(Fault::Missing("debian-binary as the first member".to_owned())));
            }
            name if name.starts_with(b"control.tar") => {
                if control.is_some() {
                    return Err(fail(Fault::Duplicate("control.tar".to_owned())));
                }
                control = Some(read_control(&mut member, &here, &meter)?);
            }
            name if name.starts_with(b"data.tar") => {
                if group.is_some() {
                    return Err(fail(Fault::Duplicate("data.tar".to_owned())));
                }
                let Some(control) = &control else {
                    return Err(fail(Fault::Missing("control.tar before data.tar".to_owned())));
                };
                let mut found = control.group(file).map_err(fail)?;
                read_data(&mut member, &here, &meter, control, &mut found, worker)?;
                group = Some(found);
            }
            name if name.starts_with(b"_") || group.is_some() => {}
            _ => return Err(fail(Fault::Unlisted)),
        }
        let rest = member.limit();
        let skipped = std::io::copy(&mut member, &mut std::io::sink())
            .map_err(|error| fail(Fault::of_io(error, "a member of an ar archive")))?;
        if skipped < rest {
            return Err(fail(Fault::Truncated("a member of an ar archive")));
        }
        if header.size % 2 == 1 {
            // The last member's may be missing.
            fill(&mut input, &mut [0]).map_err(|error| fail(Fault::of_io(error, "an ar archive")))?;
        }
    }
    if !is_debian {
        return Err(Fault::Missing("debian-binary".to_owned()).at(place));
    }
    if control.is_none() {
        return Err(Fault::Missing("control.tar".to_owned()).at(place));
    }
    group.ok_or_else(|| Fault::Missing("data.tar".to_owned()).at(place))
}

struct Header {
    name: Vec<u8>,
    size: u64,
}

/// Nothing at the end.
fn header(input: &mut impl Read) -> Result<Option<Header>, Fault> {
    const WHAT: &str = "a header of an ar archive";
    let mut bytes = [0; 60];
    match fill(input, &mut bytes).map_err(|error| Fault::of_io(error, WHAT))? {
        0 => return Ok(None),
        60 => {}
        _ => return Err(Fault::Truncated(WHAT)),
    }
    if !bytes.ends_with(b"`\n") {
        return Err(Fault::corrupt("no header of an ar archive here"));
    }
    let field = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default().trim_ascii();
    let name = field(0, 16);
    let size =
        std::str::from_utf8(field(48, 58)).ok().filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(Some(Header {
        name: name.strip_suffix(b"/").unwrap_or(name).to_vec(),
        size: size.and_then(|size| size.parse().ok()).ok_or(Fault::corrupt("a size that is no number"))?,
    }))
}

fn exact(input: &mut impl Read, buffer: &mut [u8], what: &'static str) -> Result<(), Fault> {
    let count = fill(input, buffer).map_err(|error| Fault::of_io(error, what))?;
    if count < buffer.len() { Err(Fault::Truncated(what)) } else { Ok(()) }
}

/// A member that is a compressed tar archive.
fn archive<'m>(member: &'m mut impl BufRead, meter: &Rc<Meter>) -> Result<impl Read + 'm, Fault> {
    let front = member.fill_buf().map_err(|error| Fault::of_io(error, "an archive of a package"))?;
    let decoder = Compression::of(front)?
        .decoder(member, Extent::All)
        .map_err(|error| Fault::of_io(error, "an archive of a package"))?;
    Ok(Given::new(decoder, meter))
}

fn read_control(member: &mut impl BufRead, place: &Place, meter: &Rc<Meter>) -> Result<Control, FilesError> {
    let archive = archive(member, meter).map_err(|fault| fault.at(place))?;
    let mut control = Control::default();
    tar::each(archive, place, meter, |member, content| {
        match (&member.kind, member.path.as_slice()) {
            (MemberKind::File, b"control") => {
                if control.stanza.is_some() {
                    return Err(Fault::Duplicate("control".to_owned()));
                }
                control.stanza = Some(text(content, "the control file")?);
            }
            (MemberKind::File, b"conffiles") => {
                let list = text(content, "the list of conffiles")?;
                for line in list.split(|byte| *byte == b'\n') {
                    // `remove-on-upgrade /etc/x` is in no package, and does no harm here.
                    let path = line.iter().position(|byte| *byte == b'/').and_then(|slash| line.get(slash..));
                    if let Some(path) = path {
                        control.configuration.insert(below_root(path.trim_ascii_end())?);
                    }
                }
            }
            (MemberKind::File, name) => {
                if let Some(script) = SCRIPTS.iter().find(|script| script.as_bytes() == name) {
                    control.scripts.push(script);
                    let text = text(content, "a script")?;
                    if text.windows(11).any(|window| window == b"dpkg-divert") {
                        control.diverting.push(script);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(control)
}

impl Control {
    fn group(&self, file: &str) -> Result<Group, Fault> {
        let stanza = self.stanza.as_deref().ok_or(Fault::Missing("control in control.tar".to_owned()))?;
        let field = |name: &str| {
            let value = stanza.split(|byte| *byte == b'\n').find_map(|line| {
                let colon = line.iter().position(|byte| *byte == b':')?;
                let (key, value) = line.split_at_checked(colon)?;
                key.eq_ignore_ascii_case(name.as_bytes()).then_some(value.get(1..)?.trim_ascii())
            });
            let value = value.filter(|value| !value.is_empty()).map(printable);
            value.ok_or(Fault::Missing(format!("{name} in its control file")))
        };
        let (package, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
        let mut group = Group::new(&format!(
            "package {package} {version} {architecture}, {}",
            printable(file.as_bytes())
        ));
        if !self.scripts.is_empty() {
            group.notes.push((About::Scripts, format!(
                "runs scripts when it is installed or removed ({}): what they make or change is not in the set",
                self.scripts.join(", ")
            )));
        }
        if !self.diverting.is_empty() {
            group.notes.push((
                About::Diversion,
                format!(
                    "its {} may divert files of other packages to other paths (dpkg-divert): look at them",
                    self.diverting.join(", ")
                ),
            ));
        }
        Ok(group)
    }
}

fn read_data(
    member: &mut impl BufRead,
    place: &Place,
    meter: &Rc<Meter>,
    control: &Control,
    group: &mut Group,
    worker: &mut Worker<'_>,
) -> Result<(), FilesError> {
    let archive = archive(member, meter).map_err(|fault| fault.at(place))?;
    let options = worker.shared.options;
    let seen_at = |path: &[u8]| if options.split_usr { path.to_vec() } else { merged_usr(path.to_vec()) };
    // What is no file is there once, too: which of two stays, the order of unpacking says.
    let mut members: HashMap<Vec<u8>, Option<Option<Digest>>> = HashMap::new();
    tar::each(archive, place, meter, |member, content| {
        let found = match &member.kind {
            MemberKind::Folder => return Ok(()),
            MemberKind::Symlink(_) => {
                group.left_out.symbolic_links += 1;
                None
            }
            MemberKind::Special => {
                group.left_out.special_files += 1;
                None
            }
            MemberKind::HardLink(target) => {
                let found = members.get(&seen_at(target)).copied().flatten();
                Some(found.ok_or_else(|| Fault::DanglingLink(printable(target)))?)
            }
            MemberKind::File => Some(worker.content(content, &member.path, member.mode, None)?.digest),
        };
        let path = seen_at(&member.path);
        if members.insert(path.clone(), found).is_some() {
            return Err(Fault::Duplicate(printable(&member.path)));
        }
        let Some(digest) = found else { return Ok(()) };
        if control.configuration.contains(&member.path) && !options.configuration_files {
            group.left_out.configuration_files += 1;
            return Ok(());
        }
        group.push(digest, &path, &options.prefix);
        Ok(())
    })
}

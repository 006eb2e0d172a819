//! A root file system that archives are laid onto, one entry after the other, without making one: files by digest,
//! symbolic links by target. What the kernel or a container runtime would have at the end.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use rootbound_common::crypto::Digest;

use super::error::{Fault, printable};
use super::limits::Limits;
use super::path::{join, split};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file, and which archive it is of.
    File {
        /// Nothing where it is left out.
        digest: Option<Digest>,
        /// The caller's number of the archive.
        of: usize,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A folder.
    Folder,
    /// A device, pipe or socket.
    Special,
}

/// What there is, by path below the root. Folders that nobody named are not kept: they would cost more than the archive has.
/// Nothing is below what is no folder.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    nodes: BTreeMap<Vec<u8>, Node>,
    replaced: u64,
}

impl Overlay {
    /// Links in links, as ELOOP of Linux has it.
    const HOPS: usize = 40;
    /// Names between slashes that one path leads through, with those of all its links.
    const PARTS: usize = 4096;

    /// Puts something at a path. Its folders may be symbolic links of earlier archives; it itself replaces what is there.
    pub(crate) fn put(&mut self, path: &[u8], node: Node) -> Result<(), Fault> {
        if path.is_empty() {
            return Ok(());
        }
        let path = self.resolve(path)?;
        if node != Node::Folder {
            self.remove(&path);
        }
        let mut above = split(&path).0;
        while !above.is_empty() {
            match self.nodes.get(above) {
                Some(Node::Folder) => break,
                Some(_) => self.remove_alone(above),
                None => {}
            }
            above = split(above).0;
        }
        self.remove_alone(&path);
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Gives a path what another has: a hard link.
    pub(crate) fn link(&mut self, path: &[u8], target: &[u8], of: usize) -> Result<(), Fault> {
        let found = self.nodes.get(&self.resolve(target)?).cloned();
        match found {
            Some(Node::File { digest, .. }) => self.put(path, Node::File { digest, of }),
            Some(node @ (Node::Symlink(_) | Node::Special)) => self.put(path, node),
            Some(Node::Folder) | None => Err(Fault::DanglingLink(printable(target))),
        }
    }

    /// Removes a path, and what is below it.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        self.clear(path);
        self.remove_alone(path);
    }

    fn remove_alone(&mut self, path: &[u8]) {
        if let Some(Node::File { .. }) = self.nodes.remove(path) {
            self.replaced += 1;
        }
    }

    /// Removes what is below a path; the root's is empty.
    pub(crate) fn clear(&mut self, path: &[u8]) {
        let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below: Vec<_> = if path.is_empty() {
            self.nodes.keys().cloned().collect()
        } else {
            // `0` is the byte behind `/`.
            let range = (Bound::Excluded(from.as_slice()), Bound::Excluded(to.as_slice()));
            self.nodes.range::<[u8], _>(range).map(|(path, _)| path.clone()).collect()
        };
        for path in below {
            self.remove_alone(&path);
        }
    }

    /// The path as the system sees it: with what leads to it resolved, and itself as it is.
    pub(crate) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Fault> {
        let (folder, name) = split(path);
        let mut rest: VecDeque<Vec<u8>> = parts(folder).collect();
        let (mut at, mut hops, mut count) = (Vec::new(), 0, rest.len());
        while let Some(part) = rest.pop_front() {
            if part == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &part);
            if next.len() > Limits::PATH {
                return Err(Fault::Name("has more than 4096 bytes"));
            }
            if let Some(Node::Symlink(target)) = self.nodes.get(&next) {
                hops += 1;
                if hops > Self::HOPS {
                    return Err(Fault::LinkLoop);
                }
                if target.starts_with(b"/") {
                    at.clear();
                }
                let through: Vec<_> = parts(target).collect();
                count += through.len();
                if count > Self::PARTS {
                    return Err(Fault::LinkLoop);
                }
                for part in through.into_iter().rev() {
                    rest.push_front(part);
                }
            } else {
                at = next;
            }
        }
        let whole = join(&at, name);
        if whole.len() > Limits::PATH { Err(Fault::Name("has more than 4096 bytes")) } else { Ok(whole) }
    }

    /// All there is, in the order of paths, and how many files were removed or replaced.
    pub(crate) fn finish(self) -> (impl Iterator<Item = (Vec<u8>, Node)>, u64) {
        (self.nodes.into_iter(), self.replaced)
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(of: usize) -> Node {
        Node::File { digest: None, of }
    }

    fn names(overlay: Overlay) -> (Vec<(String, usize)>, u64) {
        let (nodes, replaced) = overlay.finish();
        let files = nodes.filter_map(|(path, node)| match node {
            Node::File { of, .. } => Some((String::from_utf8(path).unwrap(), of)),
            _ => None,
        });
        (files.collect(), replaced)
    }

    #[test]
    fn files_land_where_links_of_earlier_archives_lead() {
        let mut overlay = Overlay::default();
        overlay.put(b"lib", Node::Symlink(b"usr/lib".to_vec())).unwrap();
        overlay.put(b"opt/x", Node::Symlink(b"../../../lib".to_vec())).unwrap();
        overlay.put(b"lib/a", file(1)).unwrap();
        overlay.put(b"opt/x/b", file(2)).unwrap();
        overlay.link(b"c", b"lib/b", 3).unwrap();
        let expected = [("c", 3), ("usr/lib/a", 1), ("usr/lib/b", 2)].map(|(path, of)| (path.to_owned(), of));
        assert_eq!(names(overlay), (expected.to_vec(), 0));
    }

    #[test]
    fn what_comes_later_replaces_and_removes() {
        let mut overlay = Overlay::default();
        for path in ["a/b/c", "a/b0", "a/d", "e", "f/g"] {
            overlay.put(path.as_bytes(), file(1)).unwrap();
        }
        overlay.remove(b"a/b");
        overlay.put(b"e", file(2)).unwrap();
        overlay.put(b"f", Node::Symlink(b"a".to_vec())).unwrap();
        let expected = [("a/b0", 1), ("a/d", 1), ("e", 2)].map(|(path, of)| (path.to_owned(), of));
        assert_eq!(names(overlay), (expected.to_vec(), 3));
    }

    #[test]
    fn folders_that_nobody_named_are_not_kept_and_what_stands_in_their_place_goes() {
        let mut overlay = Overlay::default();
        let deep = "d/".repeat(100);
        for number in 0..100 {
            overlay.put(format!("{number}/{deep}x").as_bytes(), file(1)).unwrap();
        }
        assert_eq!(overlay.nodes.len(), 100);
        // A folder that is named later keeps what is in it.
        overlay.put(b"0/d", Node::Folder).unwrap();
        assert_eq!((overlay.nodes.len(), overlay.replaced), (101, 0));
        overlay.put(b"a", file(2)).unwrap();
        overlay.put(b"a/b/c", file(3)).unwrap();
        assert_eq!((overlay.nodes.len(), overlay.replaced), (102, 1));
        overlay.put(b"a/b", file(4)).unwrap();
        overlay.put(b"a/b", Node::Folder).unwrap();
        assert_eq!((overlay.nodes.len(), overlay.replaced), (102, 3));
        assert_eq!(overlay.nodes.get(&b"a/b"[..]), Some(&Node::Folder));
    }

    #[test]
    fn a_path_that_leads_through_too_many_names_is_refused() {
        let mut overlay = Overlay::default();
        // 1,201 names each: three of them are few enough, and with those of a fourth they are not.
        for number in 0..3 {
            let target = format!("{}l{}", "a/../".repeat(600), number + 1);
            overlay.put(format!("l{number}").as_bytes(), Node::Symlink(target.into_bytes())).unwrap();
        }
        overlay.put(b"l0/x", file(1)).unwrap();
        let target = ["a/../".repeat(819), "l0".to_owned()].concat();
        overlay.put(b"m", Node::Symlink(target.into_bytes())).unwrap();
        assert!(matches!(overlay.put(b"m/x", file(1)), Err(Fault::LinkLoop)));
    }

    #[test]
    fn links_in_circles_and_to_nothing_are_refused() {
        let mut overlay = Overlay::default();
        overlay.put(b"a", Node::Symlink(b"b".to_vec())).unwrap();
        overlay.put(b"b", Node::Symlink(b"a".to_vec())).unwrap();
        assert!(matches!(overlay.put(b"a/x", file(1)), Err(Fault::LinkLoop)));
        assert!(
            matches!(overlay.link(b"x", b"nothing", 1), Err(Fault::DanglingLink(name)) if name == "nothing")
        );
    }
}

//! Paths below a root.

use super::error::Fault;
use super::limits::Limits;

/// A member's name as a path below the root, without a slash in front: `./usr//bin/x` and `/usr/bin/x` are `usr/bin/x`.
/// Empty for the root itself. `..` is refused whether or not it leads out: what it means depends on symbolic links.
pub(crate) fn below_root(name: &[u8]) -> Result<Vec<u8>, Fault> {
    if name.len() > Limits::PATH {
        return Err(Fault::Name("has more than 4096 bytes"));
    }
    if name.contains(&0) {
        return Err(Fault::Name("has a NUL"));
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(Fault::Escapes),
            part => {
                depth += 1;
                if depth > Limits::DEPTH {
                    return Err(Fault::too_deep());
                }
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Ok(path)
}

/// The folder that a path is in, and its name there.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

/// One path in another, either may be empty.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match (folder, name) {
        ([], name) => name.to_vec(),
        (folder, []) => folder.to_vec(),
        (folder, name) => [folder, b"/", name].concat(),
    }
}

/// Where the kernel sees a file of a package on a system whose `/bin`, `/sbin` and `/lib*` are links into `/usr`.
pub(crate) fn merged_usr(path: Vec<u8>) -> Vec<u8> {
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    let folders: [&[u8]; 6] = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32"];
    if first.len() < path.len() && folders.contains(&first) { join(b"usr", &path) } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_relative_to_the_root() {
        for (name, path) in [
            ("./usr//bin/x", "usr/bin/x"),
            ("/etc/./x/", "etc/x"),
            ("x", "x"),
            ("./", ""),
            ("a..b/..c", "a..b/..c"),
        ] {
            assert_eq!(below_root(name.as_bytes()).unwrap(), path.as_bytes(), "{name}");
        }
    }

    #[test]
    fn names_that_may_escape_or_mean_nothing_are_refused() {
        for name in ["../x", "/../x", "a/../../x", "a/..", ".."] {
            assert!(matches!(below_root(name.as_bytes()), Err(Fault::Escapes)), "{name}");
        }
        assert!(matches!(below_root(b"a\0b"), Err(Fault::Name("has a NUL"))));
        assert!(matches!(below_root(&[b'a'; 4097]), Err(Fault::Name("has more than 4096 bytes"))));
        assert!(matches!(below_root("a/".repeat(129).as_bytes()), Err(Fault::TooDeep(128))));
    }

    #[test]
    fn files_of_packages_are_where_a_merged_usr_has_them() {
        for (path, merged) in [
            ("bin/sh", "usr/bin/sh"),
            ("lib64/ld.so", "usr/lib64/ld.so"),
            ("bin", "bin"),
            ("usr/bin/x", "usr/bin/x"),
            ("library/x", "library/x"),
        ] {
            assert_eq!(merged_usr(path.into()), merged.as_bytes());
        }
    }
}

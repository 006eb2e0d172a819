//! `reference compute files`: the digest set of what may run, out of images and packages.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::files::{
    About, Computed, FilesError, Kind, Limits, Options, Prefix, Progress, Source, Summary, compute,
};

use super::super::{Output, Show};

/// Nothing is mounted, unpacked or executed, and no daemon is asked. What comes out is the text of a digest set, for
/// `digests set`: a line for each regular file, behind lines that say which package, layer or image it comes from. It is
/// written when all of it is there, and not at all where anything is wrong with a source.
///
/// Left out, and counted: symbolic links, devices, what is on other file systems than its folder, configuration files of
/// packages, files that later layers remove. Scripts of packages and diversions (dpkg-divert) are noted: what they make or
/// move is not in the set.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Folders (root file systems, OCI image layouts, apt's cache), initramfs and other cpio archives, squashfs and ext4
    /// images, OCI images in tar archives, .deb and .rpm packages
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// What the paths are: tree, packages, cpio, squashfs, ext4, oci, deb or rpm; without it, it is found by what is there
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// What to put in front of each path: where the files will be seen
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = prefix)]
    prefix: Prefix,
    /// Of the digests: what the IMA policy measures with
    #[arg(long, value_name = "ALGORITHM", default_value = "sha256")]
    algorithm: Algorithm,
    /// Only what may run: an x in the mode, ELF, scripts, kernel modules
    #[arg(long)]
    executable_only: bool,
    /// Configuration files of packages, too
    #[arg(long)]
    configuration_files: bool,
    /// Packages are for systems whose /bin, /sbin and /lib are folders of their own; without it, files there are written
    /// below /usr, where the kernel sees them
    #[arg(long)]
    split_usr: bool,
    /// Write the set to this file, as a whole, and the summary to standard output; without it, the set goes to standard
    /// output and the summary to standard error
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Say how far it is, even where standard error is no terminal
    #[arg(long)]
    progress: bool,
    /// How many read and hash at once; without it, as many as there are cores
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZero<usize>>,
    /// Entries that a source may have
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().entries)]
    max_entries: u64,
    /// GiB that a source may have after decompression
    #[arg(long, value_name = "GIB", default_value_t = Limits::default().unpacked >> 30)]
    max_unpacked: u64,
    /// How many times its size a source may have after decompression, once that is more than 16 MiB
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().ratio)]
    max_ratio: u64,
    /// Entries of folders of an ext4 image that are passed in search of its files, at most
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().lookups)]
    max_lookups: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
    /// Broken: only for kernels that measure with nothing else
    Sha1,
}

impl From<Algorithm> for HashAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256,
            Algorithm::Sha384 => Self::Sha384,
            Algorithm::Sha512 => Self::Sha512,
            Algorithm::Sha1 => Self::Sha1,
        }
    }
}

fn prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text.as_bytes()).map_err(|fault| fault.to_string())
}

/// Why there is no digest set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesVerbError {
    /// A source.
    #[error(transparent)]
    Source(#[from] FilesError),
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is there is not to be replaced by a file.
    #[error("--out {}: something is there that is no regular file, and it is left as it is", path.display())]
    NoFile {
        /// What is there.
        path: PathBuf,
    },
}

impl FilesVerbError {
    /// Whether the command line and what it names were right.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

impl Files {
    /// Writes the set; the summary is to be shown where standard output is free for it.
    pub(crate) fn run(&self, output: Output) -> Result<Option<Shown>, FilesVerbError> {
        let sources: Vec<_> =
            self.paths.iter().map(|path| Source { path: path.clone(), kind: self.kind }).collect();
        let free = || self.out.as_deref().map_or(Ok(()), nothing_but_a_file);
        free()?;
        let computed = self.computed(&sources)?;
        let shown = Shown(computed.summary().clone());
        if let Some(path) = &self.out {
            free()?;
            write_whole(path, &computed)
                .map_err(|source| FilesVerbError::Write { path: path.clone(), source })?;
            return Ok(Some(shown));
        }
        let failed = |source| FilesVerbError::Write { path: "standard output".into(), source };
        computed.write(&mut std::io::BufWriter::new(std::io::stdout().lock())).map_err(failed)?;
        let summary = match output {
            Output::Text => shown.text(),
            Output::Json => format!("{:#}\n", shown.json()),
        };
        // The set is written; there is nobody left to tell.
        let _ = std::io::stderr().lock().write_all(summary.as_bytes());
        Ok(None)
    }

    fn computed(&self, sources: &[Source]) -> Result<Computed, FilesError> {
        let defaults = Options::default();
        let options = Options {
            algorithm: self.algorithm.into(),
            executable_only: self.executable_only,
            configuration_files: self.configuration_files,
            split_usr: self.split_usr,
            prefix: self.prefix.clone(),
            limits: Limits {
                entries: self.max_entries,
                unpacked: self.max_unpacked.saturating_mul(1 << 30),
                ratio: self.max_ratio,
                lookups: self.max_lookups,
            },
            workers: self.jobs.unwrap_or(defaults.workers),
            ..defaults
        };
        let progress = Progress::default();
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal && !self.progress {
            return compute(sources, &options, &progress);
        }
        std::thread::scope(|scope| {
            let (done, waits) = mpsc::channel::<()>();
            let progress = &progress;
            scope.spawn(move || tell(progress, &waits, is_terminal));
            let computed = compute(sources, &options, progress);
            drop(done);
            computed
        })
    }
}

/// Says how far it is, until the other end is dropped.
fn tell(progress: &Progress, waits: &mpsc::Receiver<()>, is_terminal: bool) {
    let (begun, every) = (Instant::now(), Duration::from_secs(if is_terminal { 1 } else { 10 }));
    let mut said = false;
    while waits.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        let bytes = progress.bytes();
        let rate = bytes / begun.elapsed().as_secs().max(1);
        let line = format!("{} files, {}, {}/s", progress.files(), size(bytes), size(rate));
        let mut stderr = std::io::stderr().lock();
        // Whoever looks at it has gone.
        let _ = if is_terminal { write!(stderr, "\r{line}\x1b[K") } else { writeln!(stderr, "{line}") };
        said = is_terminal;
    }
    if said {
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
    }
}

/// A device, a pipe or a link such as `/dev/stdout` would be gone, with a file in its place.
fn nothing_but_a_file(path: &Path) -> Result<(), FilesVerbError> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => Err(FilesVerbError::NoFile { path: path.to_owned() }),
        // Why nothing can be written there, writing says.
        _ => Ok(()),
    }
}

/// To a new file beside it, which then takes its name.
fn write_whole(path: &Path, computed: &Computed) -> Result<(), std::io::Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".digests").tempfile_in(folder)?;
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    computed.write(&mut std::io::BufWriter::new(file.as_file_mut()))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The summary.
#[derive(Debug)]
pub(crate) struct Shown(Summary);

impl Show for Shown {
    fn text(&self) -> String {
        const MOST: usize = 10;
        let summary = &self.0;
        let mut text = format!(
            "{} digests ({}) of {} files with {}, from {} sources\n",
            summary.digests,
            summary.algorithm,
            summary.files,
            size(summary.bytes),
            summary.sources
        );
        let left_out = summary.left_out.counts();
        let mut heading = "left out:\n";
        for (count, what) in left_out.iter().filter(|(count, _)| *count > 0) {
            let _ = writeln!(text, "{}{count:>10}  {what}", std::mem::take(&mut heading));
        }
        for (about, heading) in [
            (About::Diversion, "diversions:"),
            (About::Scripts, "scripts of packages:"),
            (About::NoImage, "no images:"),
        ] {
            let notes: Vec<_> = summary.notes.iter().filter(|note| note.about == about).collect();
            if notes.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{heading}");
            for note in notes.iter().take(MOST) {
                let _ = writeln!(text, "  {}: {}", note.source, note.note);
            }
            if notes.len() > MOST {
                let _ = writeln!(text, "  … and {} more: --output json lists them", notes.len() - MOST);
            }
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

//! The judge: entry by entry, while the list streams by.

use data_encoding::HEXLOWER;
use rootbound_common::crypto::{Digest, TaggedDigest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrValues};

use super::compiled::Denial;
use super::findings::RuntimeFindings;
use super::signature::FileSignature;
use super::table::Found;
use super::{
    CompiledRules, RuntimeAppraisal, RuntimeDeviation, RuntimeRules, SignatureCache, SignatureProblem,
    Treatment,
};
use crate::evidence::ima::{
    Attachment, BankMode, BootAggregate, Cover, Entry, FileDigest, FileHash, Passed, Shown, Walked,
};

/// Judges the entries of one walk.
///
/// No answer of it becomes better by what nothing vouches for in an entry: a file that is called an event is an event of
/// an unknown name, an event that is called a file is in no set, and the names of violations are tolerated by name only
/// where the operator says so.
#[derive(Debug)]
pub struct Judge<'r> {
    rules: &'r CompiledRules,
    cache: &'r SignatureCache,
    pcrs: &'r PcrValues,
    findings: RuntimeFindings,
    tail: RuntimeFindings,
    /// Wrong signatures that are still verified. Each costs as much as a right one, and is a deviation anyway.
    wrong_signatures: u32,
}

/// What accepted an entry.
enum Accepted {
    Digest,
    Signature,
    Excluded,
    Event,
    Violation,
    BootAggregate,
}

/// What a buffer is, by the name of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    KeyLoad,
    PolicyLoad,
    DeviceMapper,
    KernelVersion,
    KexecCommandLine,
    Other,
}

impl Event {
    /// Keys are measured under the keyring's name (`ima_queue_keys.c`), device-mapper events under `dm_…` (`dm-ima.c`).
    pub(super) fn of(name: &[u8], rules: &RuntimeRules) -> Self {
        let is_keyring = || std::str::from_utf8(name).is_ok_and(|name| rules.key_loads.contains_key(name));
        match name {
            b"kernel_version" => Self::KernelVersion,
            b"kexec-cmdline" => Self::KexecCommandLine,
            [b'd', b'm', b'_', ..] => Self::DeviceMapper,
            b"ima-policy" | b"ima_policy" | b"ima_policy_loaded" => Self::PolicyLoad,
            [b'.', ..] => Self::KeyLoad,
            _ if is_keyring() => Self::KeyLoad,
            _ => Self::Other,
        }
    }

    pub(super) fn is_other(self) -> bool {
        self == Self::Other
    }
}

impl<'r> Judge<'r> {
    /// Wrong signatures in one list that are verified: far more than a machine with one wrong package has, and some 50 ms.
    const MAX_WRONG_SIGNATURES: u32 = 1024;

    /// Starts; `pcrs` are those of the same quote as the walk.
    ///
    /// Goes on from earlier findings where they are of the same rules. Where they are not, or there are none, the walk has
    /// to begin at the first entry: [`Judge::continues`] says which.
    #[must_use]
    pub fn new(
        rules: &'r CompiledRules,
        cache: &'r SignatureCache,
        pcrs: &'r PcrValues,
        earlier: Option<RuntimeFindings>,
    ) -> Self {
        let findings = earlier
            .filter(|findings| Self::continues(rules, findings))
            .unwrap_or_else(|| RuntimeFindings::start(rules.id().to_owned()));
        Self {
            rules,
            cache,
            pcrs,
            findings,
            tail: RuntimeFindings::start(rules.id().to_owned()),
            wrong_signatures: Self::MAX_WRONG_SIGNATURES,
        }
    }

    /// Whether findings can be continued by these rules; if not, every entry of the boot has to be judged again.
    #[must_use]
    pub fn continues(rules: &CompiledRules, findings: &RuntimeFindings) -> bool {
        findings.rules == rules.id()
    }

    /// Judges entries that a walk gives at once ([`crate::evidence::ima::Walk::push_together`]): the same as each in turn,
    /// and faster with large sets.
    pub fn judge_together(&mut self, entries: &[Passed<'_>]) {
        if entries.len() > 1 {
            self.rules.sets.iter().for_each(|set| set.fetch(entries));
            if !self.rules.keys.is_empty() {
                entries.iter().for_each(|passed| self.fetch_signature(&passed.entry));
            }
        }
        for passed in entries {
            self.judge(&passed.entry, passed.cover);
        }
    }

    fn fetch_signature(&self, entry: &Entry<'_>) {
        if let Attachment::Signature(xattr) = entry.attachment()
            && let Ok(signature) = FileSignature::parse(xattr)
        {
            signature.fetch(entry, &self.rules.keys, self.cache);
        }
    }

    /// Judges an entry.
    #[inline]
    pub fn judge(&mut self, entry: &Entry<'_>, cover: Cover) {
        let verdict = self.verdict(entry);
        let findings = match cover {
            Cover::Quote => &mut self.findings,
            Cover::Tail => &mut self.tail,
        };
        let counts = &mut findings.counts;
        // Entries are bounded by the walk.
        counts.entries += 1;
        if entry.is_violation() {
            counts.violations += 1;
        }
        match verdict {
            Ok(Accepted::Digest) => counts.by_digest += 1,
            Ok(Accepted::Signature) => counts.by_signature += 1,
            Ok(Accepted::Excluded) => counts.excluded += 1,
            Ok(Accepted::Event) => counts.events += 1,
            Ok(Accepted::Violation | Accepted::BootAggregate) => {}
            Err(deviation) => findings.deviates(*deviation),
        }
    }

    /// Ends, with the walk that gave the entries. `None` where the findings are not those of the walk's entries: it began
    /// after the first entry, and there were no findings of these rules to go on from.
    #[must_use]
    pub fn finish(self, walked: &Walked) -> Option<RuntimeAppraisal> {
        if self.findings.counts.entries != walked.covered() || self.tail.counts.entries != walked.lag() {
            return None;
        }
        let mut of_list = Vec::new();
        let (covered, least) = (walked.covered(), self.rules.rules.min_entries);
        if covered < least {
            of_list.push(RuntimeDeviation::TooFewEntries { covered, least });
        }
        let weak = walked.mode() == BankMode::PaddedSha1;
        if weak && !self.rules.rules.weak_sha1_padding {
            of_list.push(RuntimeDeviation::PaddedSha1);
        }
        Some(RuntimeAppraisal { findings: self.findings, tail: self.tail, of_list, walked: *walked, weak })
    }

    #[inline]
    fn verdict(&mut self, entry: &Entry<'_>) -> Result<Accepted, Box<RuntimeDeviation>> {
        if entry.number() == 0 || BootAggregate::is(entry) {
            return self.boot_aggregate(entry);
        }
        if entry.is_violation() {
            return if self.rules.tolerate_violations.matches(entry.name()) {
                Ok(Accepted::Violation)
            } else {
                let path = Shown::of(entry.name());
                Err(Box::new(RuntimeDeviation::Violation { entry: entry.number(), path }))
            };
        }
        match entry.attachment() {
            Attachment::Buffer(buffer) => self.buffer(entry, buffer),
            Attachment::None
            | Attachment::Signature(_)
            | Attachment::AppendedSignature { .. }
            | Attachment::Evm { .. } => self.file(entry),
        }
    }

    #[inline]
    fn file(&mut self, entry: &Entry<'_>) -> Result<Accepted, Box<RuntimeDeviation>> {
        let (rules, digest, path) = (self.rules, entry.digest(), entry.name());
        let denied = rules.denies(&digest).or_else(|| match entry.attachment() {
            Attachment::AppendedSignature { digest: Some(without), .. } => rules.denies(&without),
            Attachment::AppendedSignature { digest: None, .. }
            | Attachment::None
            | Attachment::Buffer(_)
            | Attachment::Signature(_)
            | Attachment::Evm { .. } => None,
        });
        if let Some(Denial { by }) = denied {
            return Err(Box::new(RuntimeDeviation::Denied {
                entry: entry.number(),
                path: Shown::of(path),
                digest: digest.to_string(),
                by,
            }));
        }
        if rules.policy_paths.matches(path) {
            return policy(rules, entry, &digest);
        }
        let strong = matches!(digest.algorithm, FileHash::Tpm(hash) if hash >= rules.rules.min_digest);
        let found = if strong { rules.find(&digest, path) } else { Found::Unknown };
        if found == Found::Accepted {
            return Ok(Accepted::Digest);
        }
        if rules.exclude.matches(path) {
            return Ok(Accepted::Excluded);
        }
        self.signed(entry, strong, found)
    }

    /// A file that only a signature can vouch for.
    fn signed(
        &mut self,
        entry: &Entry<'_>,
        strong: bool,
        found: Found,
    ) -> Result<Accepted, Box<RuntimeDeviation>> {
        let (number, stated) = (entry.number(), entry.digest());
        let path = || Shown::of(entry.name());
        let digest = || stated.to_string();
        if !strong {
            let least = self.rules.rules.min_digest.to_string();
            return Err(Box::new(RuntimeDeviation::WeakDigest {
                entry: number,
                path: path(),
                digest: digest(),
                least,
            }));
        }
        let xattr = match entry.attachment() {
            Attachment::Signature(xattr) | Attachment::AppendedSignature { signature: xattr, .. } => xattr,
            // EVM's is over metadata, and is not asked.
            Attachment::None | Attachment::Buffer(_) | Attachment::Evm { .. } => &[],
        };
        let problem = if xattr.is_empty() || self.rules.keys.is_empty() {
            None
        } else {
            match self.verify(entry, xattr) {
                Ok(()) => return Ok(Accepted::Signature),
                Err(problem) => Some(problem),
            }
        };
        Err(Box::new(match (problem, found) {
            (Some(problem), _) => {
                RuntimeDeviation::Signature { entry: number, path: path(), digest: digest(), problem }
            }
            (None, Found::OtherPath) => {
                RuntimeDeviation::OtherPath { entry: number, path: path(), digest: digest() }
            }
            (None, Found::Unknown | Found::Accepted) => {
                RuntimeDeviation::UnknownFile { entry: number, path: path(), digest: digest() }
            }
        }))
    }

    fn verify(&mut self, entry: &Entry<'_>, xattr: &[u8]) -> Result<(), SignatureProblem> {
        FileSignature::parse(xattr)?.verify(entry, &self.rules.keys, self.cache, &mut self.wrong_signatures)
    }

    /// The first entry; and those of kernels that kexec started, which have to be the same: the boot PCRs are.
    fn boot_aggregate(&mut self, entry: &Entry<'_>) -> Result<Accepted, Box<RuntimeDeviation>> {
        let number = entry.number();
        let stated = entry.digest().to_string();
        if number == 0 {
            self.findings.boot_aggregate = Some(stated);
            return match BootAggregate::check(entry, self.pcrs) {
                Ok(_) => Ok(Accepted::BootAggregate),
                Err(error) => Err(Box::new(RuntimeDeviation::BootAggregate { problem: error.to_string() })),
            };
        }
        Err(Box::new(if entry.is_violation() || self.findings.boot_aggregate != Some(stated) {
            RuntimeDeviation::OtherBootAggregate { entry: number }
        } else {
            match self.rules.rules.kexec {
                Treatment::Accept => return Ok(Accepted::BootAggregate),
                Treatment::Refuse => RuntimeDeviation::Kexec { entry: number },
            }
        }))
    }

    /// What the kernel measured in memory. Rules are over the SHA-256 of the buffer itself, whatever IMA's hash is.
    fn buffer(&self, entry: &Entry<'_>, buffer: &[u8]) -> Result<Accepted, Box<RuntimeDeviation>> {
        let (number, rules) = (entry.number(), &self.rules.rules);
        let event = || Shown::of(entry.name());
        let stated = entry.digest();
        let sha256 = hash(HashAlgorithm::Sha256, &[buffer]);
        if let Some(Denial { by }) = self.rules.denies(&stated).or_else(|| self.rules.denies_memory(&sha256))
        {
            return Err(Box::new(RuntimeDeviation::Denied {
                entry: number,
                path: event(),
                digest: in_words(&sha256),
                by,
            }));
        }
        if stated.of_tpm().is_some_and(|stated| hash(stated.algorithm(), &[buffer]) != stated) {
            return Err(Box::new(RuntimeDeviation::BufferDigest { entry: number, event: event() }));
        }
        let listed = |digests: &[TaggedDigest]| digests.iter().any(|listed| listed.0 == sha256);
        let by_name = |lists: &std::collections::BTreeMap<String, Vec<TaggedDigest>>| {
            let name = std::str::from_utf8(entry.name()).ok();
            name.and_then(|name| lists.get(name)).is_some_and(|digests| listed(digests))
        };
        let is_one_of = |texts: &[String]| {
            // Of the kernel's strings some are measured with their NUL.
            let text = buffer.strip_suffix(&[0]).unwrap_or(buffer);
            texts.iter().any(|listed| listed.as_bytes() == text)
        };
        let digest = || in_words(&sha256);
        Err(Box::new(match Event::of(entry.name(), rules) {
            Event::KeyLoad if by_name(&rules.key_loads) => return Ok(Accepted::Event),
            Event::KeyLoad => RuntimeDeviation::KeyLoad { entry: number, keyring: event(), digest: digest() },
            Event::PolicyLoad => return policy(self.rules, entry, &stated),
            Event::DeviceMapper if listed(&rules.device_mapper) => return Ok(Accepted::Event),
            Event::DeviceMapper => {
                RuntimeDeviation::DeviceMapper { entry: number, event: event(), digest: digest() }
            }
            Event::KernelVersion if is_one_of(&rules.kernel_versions) => return Ok(Accepted::Event),
            Event::KernelVersion => {
                RuntimeDeviation::KernelVersion { entry: number, version: Shown::of(buffer) }
            }
            Event::KexecCommandLine if is_one_of(&rules.kexec_command_lines) => return Ok(Accepted::Event),
            Event::KexecCommandLine => {
                RuntimeDeviation::KexecCommandLine { entry: number, command_line: Shown::of(buffer) }
            }
            Event::Other if by_name(&rules.critical_data) => return Ok(Accepted::Event),
            Event::Other => {
                RuntimeDeviation::CriticalData { entry: number, event: event(), digest: digest() }
            }
        }))
    }
}

/// A policy that was loaded: only its own list accepts it.
fn policy(
    rules: &CompiledRules,
    entry: &Entry<'_>,
    digest: &FileDigest<'_>,
) -> Result<Accepted, Box<RuntimeDeviation>> {
    let strong = matches!(digest.algorithm, FileHash::Tpm(hash) if hash >= rules.rules.min_digest);
    if strong && rules.policies.find(digest, entry.name()) == Found::Accepted {
        return Ok(Accepted::Event);
    }
    Err(Box::new(RuntimeDeviation::PolicyLoad {
        entry: entry.number(),
        path: Shown::of(entry.name()),
        digest: digest.to_string(),
    }))
}

fn in_words(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm(), HEXLOWER.encode(digest.as_bytes()))
}

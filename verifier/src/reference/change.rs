//! The book as it would be: what a change of reference values would put in force, before anybody puts it in force.
//!
//! A kind of values joins by a variant of [`ReferenceChange`], its arm in [`ReferenceBook::with`], and its line in
//! [`ReferenceBook::judges_alike`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{
    AcceptedPcrs, BootSet, BootSetVersion, DigestSetVersion, Profile, ProfileBody, ProfileError, Provenance,
    ReferenceBook, ReferenceSet, SetKind, Versioned,
};
use crate::appraisal::runtime::DigestSet;
use crate::node::{Labels, Name};

/// Something that could be changed about the reference values.
#[derive(Debug, Clone)]
pub enum ReferenceChange {
    /// The next version of a reference set.
    Set(Name, AcceptedPcrs),
    /// The next version of a boot set.
    Boot(Name, BootSet),
    /// The next version of a digest set.
    Digests(Name, Arc<DigestSet>),
    /// The next version of a profile.
    Profile(Name, Box<ProfileBody>),
    /// A set is withdrawn: one of this kind, or whichever has the name.
    Withdraw(Option<SetKind>, Name),
}

impl fmt::Display for ReferenceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(name, _) => write!(f, "reference set {name}"),
            Self::Boot(name, _) => write!(f, "boot set {name}"),
            Self::Digests(name, _) => write!(f, "digest set {name}"),
            Self::Profile(name, _) => write!(f, "profile {name}"),
            Self::Withdraw(kind, name) => {
                write!(f, "{} {name} withdrawn", kind.map_or("set", SetKind::in_words))
            }
        }
    }
}

/// Why there is no such book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing is changed.
    #[error("nothing would change: name a set, a profile or a withdrawal")]
    Nothing,
    /// The same is changed twice.
    #[error("the {what} `{name}` is changed twice; which one is meant?")]
    Twice {
        /// Its kind.
        what: &'static str,
        /// Its name.
        name: Name,
    },
    /// There is no set to withdraw.
    #[error("there is no set `{name}` to withdraw")]
    NoSuchSet {
        /// The name.
        name: Name,
    },
    /// There are several.
    #[error(
        "there are sets `{name}` of several kinds: write `set:{name}`, `boot:{name}` or `digests:{name}`"
    )]
    WhichSet {
        /// The name of all.
        name: Name,
    },
    /// The profile is refused.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

impl ChangeError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Nothing => "no_change_named",
            Self::Twice { .. } => "changed_twice",
            Self::NoSuchSet { .. } => "no_set_to_withdraw",
            Self::WhichSet { .. } => "set_ambiguous",
            Self::Profile(_) => "changed_profile_refused",
        }
    }
}

impl ReferenceBook {
    /// The book that these changes together would make of this one. Nothing is changed by it.
    ///
    /// A new version has the number after the current one; where versions were withdrawn, the store would count on from those.
    pub fn with(&self, changes: Vec<ReferenceChange>, provenance: &Provenance) -> Result<Self, ChangeError> {
        if changes.is_empty() {
            return Err(ChangeError::Nothing);
        }
        let mut references = self.references();
        let mut seen = BTreeSet::new();
        let mut once = |what: &'static str, name: &Name| {
            let new = seen.insert((what, name.clone()));
            if new { Ok(()) } else { Err(ChangeError::Twice { what, name: name.clone() }) }
        };
        let next = |name: Name, current: Option<&Versioned>| {
            let version = current.map_or(1, |current| current.version.saturating_add(1));
            (Versioned { name, version }, provenance.clone())
        };
        for change in changes {
            match change {
                ReferenceChange::Set(name, accepted) => {
                    once(SetKind::Pcrs.in_words(), &name)?;
                    let current = self.set(&name).map(|set| &set.id);
                    references.sets.retain(|set| set.id.name != name);
                    let (id, provenance) = next(name, current);
                    references.sets.push(ReferenceSet { id, accepted, provenance });
                }
                ReferenceChange::Boot(name, set) => {
                    once(SetKind::Boot.in_words(), &name)?;
                    let current = self.boot_set(&name).map(|set| &set.id);
                    references.boot_sets.retain(|set| set.id.name != name);
                    let (id, provenance) = next(name, current);
                    references.boot_sets.push(BootSetVersion { id, set, provenance });
                }
                ReferenceChange::Digests(name, digests) => {
                    once(SetKind::Digests.in_words(), &name)?;
                    let current = self.digest_set(&name).map(|set| &set.id);
                    references.digest_sets.retain(|set| set.id.name != name);
                    let (id, provenance) = next(name, current);
                    references.digest_sets.push(DigestSetVersion { id, digests, provenance });
                }
                ReferenceChange::Profile(name, body) => {
                    once("profile", &name)?;
                    let current = self.profiles().map(Profile::id).find(|id| id.name == name);
                    references.profiles.retain(|profile| profile.id().name != name);
                    let (id, provenance) = next(name, current);
                    references.profiles.push(Profile::new(id, *body, provenance)?);
                }
                ReferenceChange::Withdraw(kind, name) => {
                    let kind = self.kind_of(kind, &name)?;
                    once(kind.in_words(), &name)?;
                    match kind {
                        SetKind::Pcrs => references.sets.retain(|set| set.id.name != name),
                        SetKind::Boot => {
                            let gone = references.boot_sets.extract_if(.., |set| set.id.name == name);
                            references.withdrawn_boot_sets.extend(gone);
                        }
                        SetKind::Digests => references.digest_sets.retain(|set| set.id.name != name),
                    }
                }
            }
        }
        // In the order in which the store gives them: of two that fit equally well, the first is named first.
        references.profiles.sort_by(|one, other| one.id().name.cmp(&other.id().name));
        let book = Self::of(references)?;
        // What could not be put in force is not supposed either.
        for profile in book.profiles() {
            book.check(profile.body())?;
        }
        Ok(book)
    }

    /// Which set of this name there is, of this kind where one is said.
    fn kind_of(&self, kind: Option<SetKind>, name: &Name) -> Result<SetKind, ChangeError> {
        let there = |kind: &SetKind| match kind {
            SetKind::Pcrs => self.set(name).is_some(),
            SetKind::Boot => self.boot_set(name).is_some(),
            SetKind::Digests => self.digest_set(name).is_some(),
        };
        let mut found =
            SetKind::ALL.into_iter().filter(|one| kind.is_none_or(|kind| kind == *one)).filter(there);
        match (found.next(), found.next()) {
            (Some(kind), None) => Ok(kind),
            (Some(_), Some(_)) => Err(ChangeError::WhichSet { name: name.clone() }),
            (None, _) => Err(ChangeError::NoSuchSet { name: name.clone() }),
        }
    }

    /// Whether a node with these labels is judged by the same values here and there: the verdict on it is the same.
    #[must_use]
    pub fn judges_alike(&self, other: &Self, labels: &Labels) -> bool {
        let (here, there) = match (self.profile(labels), other.profile(labels)) {
            (Ok(here), Ok(there)) => (here, there),
            (Err(here), Err(there)) => return here == there,
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => return false,
        };
        // Wherever they come from.
        let accepted = |name: &Name| match (self.set(name), other.set(name)) {
            (Some(here), Some(there)) => here.accepted.iter().eq(there.accepted.iter()),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let (rules, others) = (self.rules(labels).runtime, other.rules(labels).runtime);
        here.id().name == there.id().name
            && here.body() == there.body()
            && self.deny() == other.deny()
            && self.boot(here).map(|boot| &boot.rules) == other.boot(there).map(|boot| &boot.rules)
            && here.body().references.iter().all(accepted)
            && rules.map(|rules| rules.id()) == others.map(|rules| rules.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appraisal::runtime::RuntimeRules;
    use rootbound_common::clock::Timestamp;
    use rootbound_common::crypto::hash;
    use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection};
    use rootbound_compute::values::Source;

    const BANK: HashAlgorithm = HashAlgorithm::Sha256;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn provenance() -> Provenance {
        let created_at = Timestamp::from_millis(0);
        Provenance { author: "uid 0".into(), reason: String::new(), created_at }
    }

    fn accepted(text: &str) -> AcceptedPcrs {
        AcceptedPcrs::new([(PcrIndex::new(0).unwrap(), hash(BANK, &[text.as_bytes()]))]).unwrap()
    }

    fn digests(path: &str) -> Arc<DigestSet> {
        Arc::new(DigestSet::parse(format!("sha256:{}  {path}\n", "ab".repeat(32)).as_bytes()).unwrap())
    }

    fn body() -> Box<ProfileBody> {
        let mut body = ProfileBody::initial(name("pcrs"));
        body.pcrs = PcrSelection::of_bank(BANK, (0..=10).filter_map(PcrIndex::new).collect());
        body.credential_policy.pcrs = (0..=7).filter_map(PcrIndex::new).collect();
        body.runtime = Some(RuntimeRules { digest_sets: vec![name("files")], ..RuntimeRules::default() });
        Box::new(body)
    }

    fn book() -> ReferenceBook {
        let changes = vec![
            ReferenceChange::Profile(name("all"), body()),
            ReferenceChange::Set(name("pcrs"), accepted("old")),
            ReferenceChange::Digests(name("files"), digests("/bin/a")),
        ];
        ReferenceBook::default().with(changes, &provenance()).unwrap()
    }

    fn refused(changes: Vec<ReferenceChange>) -> (ChangeError, &'static str) {
        let error = book().with(changes, &provenance()).unwrap_err();
        let code = error.code();
        (error, code)
    }

    #[test]
    fn changes_together_make_the_book_that_would_be_and_leave_the_one_that_is() {
        let book = book();
        let changes = vec![
            ReferenceChange::Set(name("pcrs"), accepted("new")),
            ReferenceChange::Set(name("more"), accepted("more")),
            ReferenceChange::Withdraw(None, name("files")),
        ];
        let would = book.with(changes, &provenance()).unwrap();
        assert_eq!(would.set(&name("pcrs")).unwrap().id.to_string(), "pcrs@2");
        assert_eq!(would.set(&name("pcrs")).unwrap().accepted, accepted("new"));
        assert_eq!(would.set(&name("more")).unwrap().id.to_string(), "more@1");
        assert!(would.digest_set(&name("files")).is_none());
        assert_eq!(book.set(&name("pcrs")).unwrap().accepted, accepted("old"));
        assert!(book.digest_set(&name("files")).is_some() && book.set(&name("more")).is_none());
    }

    #[test]
    fn each_change_that_is_none_is_refused_by_name() {
        let set = |text: &str| ReferenceChange::Set(name(text), accepted("x"));
        assert_eq!(refused(vec![]), (ChangeError::Nothing, "no_change_named"));
        let twice = |what| ChangeError::Twice { what, name: name("pcrs") };
        assert_eq!(refused(vec![set("pcrs"), set("pcrs")]), (twice("reference set"), "changed_twice"));
        let withdrawn = ReferenceChange::Withdraw(None, name("pcrs"));
        assert_eq!(refused(vec![set("pcrs"), withdrawn]), (twice("reference set"), "changed_twice"));
        let none = ChangeError::NoSuchSet { name: name("gone") };
        let withdraw = |kind, text: &str| vec![ReferenceChange::Withdraw(kind, name(text))];
        assert_eq!(refused(withdraw(None, "gone")), (none.clone(), "no_set_to_withdraw"));
        let none = ChangeError::NoSuchSet { name: name("pcrs") };
        assert_eq!(refused(withdraw(Some(SetKind::Digests), "pcrs")), (none, "no_set_to_withdraw"));
        let bad = ProfileBody { references: Vec::new(), ..ProfileBody::initial(name("pcrs")) };
        let (error, code) = refused(vec![ReferenceChange::Profile(name("all"), Box::new(bad))]);
        assert!(matches!(error, ChangeError::Profile(ProfileError::NoReferences { .. })), "{error}");
        assert_eq!(code, "changed_profile_refused");
    }

    #[test]
    fn what_could_not_be_put_in_force_is_not_supposed() {
        let boot = r#"{"bank":"sha256","explained":[9],"sets":["kernel"]}"#;
        let mut body = body();
        body.boot = Some(serde_json::from_str(boot).unwrap());
        let set = |pcr: u8| {
            let digest = format!("sha256:{}", "ab".repeat(32));
            let event = format!(r#"{{"kind":"event","pcr":{pcr},"digest":"{digest}"}}"#);
            let values = format!(r#"{{"bank":"sha256","values":[{{"measured":{event}}}]}}"#);
            ReferenceChange::Boot(
                name("kernel"),
                BootSet::new(serde_json::from_str(&values).unwrap()).unwrap(),
            )
        };
        let with = |pcr| {
            let changes = vec![ReferenceChange::Profile(name("all"), body.clone()), set(pcr)];
            book().with(changes, &provenance())
        };
        assert!(with(9).unwrap().boot_set(&name("kernel")).is_some());
        let error = with(11).unwrap_err();
        assert!(matches!(error, ChangeError::Profile(ProfileError::Boot(_))), "{error}");
        assert_eq!(error.code(), "changed_profile_refused");
    }

    #[test]
    fn name_of_two_sets_has_to_say_which() {
        let both = book()
            .with(vec![ReferenceChange::Digests(name("pcrs"), digests("/bin/b"))], &provenance())
            .unwrap();
        let error = both.with(vec![ReferenceChange::Withdraw(None, name("pcrs"))], &provenance());
        let error = error.unwrap_err();
        assert_eq!((error.code(), &error), ("set_ambiguous", &ChangeError::WhichSet { name: name("pcrs") }));
        let chosen = ReferenceChange::Withdraw(Some(SetKind::Pcrs), name("pcrs"));
        let would = both.with(vec![chosen], &provenance()).unwrap();
        assert!(would.set(&name("pcrs")).is_none() && would.digest_set(&name("pcrs")).is_some());
    }

    #[test]
    fn books_judge_alike_where_no_value_that_a_profile_names_differs() {
        let (book, labels) = (book(), Labels::default());
        let with = |change| book.with(vec![change], &provenance()).unwrap();
        assert!(book.judges_alike(&book.clone(), &labels));
        let unnamed = with(ReferenceChange::Set(name("unnamed"), accepted("x")));
        assert!(book.judges_alike(&unnamed, &labels));
        let same = with(ReferenceChange::Digests(name("files"), digests("/bin/a")));
        assert!(book.judges_alike(&same, &labels), "another version that accepts the same");
        let elsewhere = Source { node: Some("n".into()), ..Source::default() };
        let same = with(ReferenceChange::Set(name("pcrs"), accepted("old").from_source(&elsewhere)));
        assert_ne!(same.set(&name("pcrs")), book.set(&name("pcrs")));
        assert!(book.judges_alike(&same, &labels), "the same values, from elsewhere");
        let mut stricter = body();
        stricter.ignored = [PcrIndex::new(9).unwrap()].into_iter().collect();
        for other in [
            with(ReferenceChange::Set(name("pcrs"), accepted("new"))),
            with(ReferenceChange::Digests(name("files"), digests("/bin/b"))),
            with(ReferenceChange::Profile(name("all"), stricter)),
            with(ReferenceChange::Profile(name("any"), body())),
            with(ReferenceChange::Withdraw(None, name("files"))),
        ] {
            assert!(!book.judges_alike(&other, &labels), "{other:?}");
        }
    }

    #[test]
    fn what_withdrawing_a_boot_set_leaves_demanded_is_foreseen_too() {
        use crate::appraisal::boot::{BootRules, Demanded};
        use rootbound_compute::values::{BootValue, BootValues, Measured};

        let set = |measured: &[Measured]| {
            let value = |measured: &Measured| BootValue {
                measured: measured.clone(),
                label: String::new(),
                source: Source::default(),
            };
            BootSet::new(BootValues::new(BANK, measured.iter().map(value).collect())).unwrap()
        };
        let digest = rootbound_common::crypto::TaggedDigest(hash(BANK, &[b"x"]));
        let line = Measured::CommandLine { text: "quiet".into() };
        let mut body = body();
        let explained = [4, 8, 9].into_iter().filter_map(PcrIndex::new).collect();
        body.boot = Some(BootRules { sets: vec![name("a"), name("b")], ..BootRules::of(BANK, explained) });
        body.collect = vec![crate::reference::LogKind::BootLog, crate::reference::LogKind::Ima];
        let changes = vec![
            ReferenceChange::Profile(name("booted"), body),
            ReferenceChange::Boot(name("a"), set(&[Measured::Initrd { digest }, line])),
            ReferenceChange::Boot(name("b"), set(&[Measured::BootApplication { digest }])),
        ];
        let profiles = vec![ReferenceChange::Set(name("pcrs"), accepted("old"))];
        let book = ReferenceBook::default().with([profiles, changes].concat(), &provenance()).unwrap();
        let demanded = |book: &ReferenceBook| {
            let profile = book.profiles().next().unwrap();
            book.boot(profile).unwrap().rules.demanded
        };
        assert_eq!(demanded(&book), Demanded::default());
        let withdrawn = ReferenceChange::Withdraw(Some(SetKind::Boot), name("a"));
        let would = book.with(vec![withdrawn], &provenance()).unwrap();
        assert_eq!(demanded(&would), Demanded { initrd: true, command_line: true });
        assert!(!book.judges_alike(&would, &Labels::default()));
        let again = ReferenceChange::Boot(name("a"), set(&[Measured::BootApplication { digest }]));
        let would = would.with(vec![again], &provenance()).unwrap();
        assert_eq!(demanded(&would), Demanded::default(), "the set says otherwise now");
    }
}

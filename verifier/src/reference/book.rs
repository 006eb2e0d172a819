//! The book of what is current: what appraisals read.

use std::collections::BTreeMap;
use std::sync::Arc;

use rootbound_common::clock::Timestamp;

use super::{
    BootSet, BootSetVersion, DenyList, DigestSetVersion, LogKind, Profile, ProfileBody, ProfileError,
    Provenance, ReferenceSet, Versioned,
};
use crate::appraisal::boot::{BootRules, BootRulesError};
use crate::appraisal::runtime::{CompiledRules, DigestSet, RuntimeRules};
use crate::node::{Labels, Name};

/// What a book is of: the current version of each profile and set.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Profiles.
    pub profiles: Vec<Profile>,
    /// Sets of PCR values.
    pub sets: Vec<ReferenceSet>,
    /// Sets of values of boots.
    pub boot_sets: Vec<BootSetVersion>,
    /// The last version of each of those of which every version is withdrawn: it accepts nothing.
    pub withdrawn_boot_sets: Vec<BootSetVersion>,
    /// Sets of digests of what runs.
    pub digest_sets: Vec<DigestSetVersion>,
    /// What nothing makes acceptable.
    pub deny: DenyList,
}

/// Boot rules with the values of their sets.
#[derive(Debug)]
pub struct CompiledBoot {
    /// As if all were written in the profile.
    pub rules: BootRules,
    /// The versions that they came of.
    pub sets: Vec<Versioned>,
}

/// Every current profile and reference set: what appraisals read. Replaced as a whole when one changes.
#[derive(Debug, Clone, Default)]
pub struct ReferenceBook {
    profiles: Vec<Profile>,
    sets: BTreeMap<Name, ReferenceSet>,
    boot_sets: BTreeMap<Name, BootSetVersion>,
    withdrawn_boot_sets: BTreeMap<Name, BootSetVersion>,
    digest_sets: BTreeMap<Name, DigestSetVersion>,
    deny: DenyList,
    /// The boot rules of each profile that has any.
    boot: BTreeMap<Name, Arc<CompiledBoot>>,
    /// The run-time rules of each profile that asks for the IMA list, ready for use.
    runtime: BTreeMap<Name, Arc<CompiledRules>>,
}

/// What a node is judged by.
#[derive(Debug, Clone, Copy)]
pub struct RuleBook<'a> {
    /// Its profile, where one fits.
    pub profile: Option<&'a ProfileBody>,
    /// The run-time rules of that.
    pub runtime: Option<&'a CompiledRules>,
}

/// Why no profile is a node's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    /// None fits its labels.
    #[error("no profile fits the node's labels")]
    None,
    /// Two fit equally well.
    #[error("profiles {first} and {second} fit the node's labels equally well")]
    Ambiguous {
        /// One of them.
        first: Versioned,
        /// Another.
        second: Versioned,
    },
}

impl ReferenceBook {
    /// The book of profiles that name no boot sets.
    pub fn new(
        profiles: Vec<Profile>,
        sets: Vec<ReferenceSet>,
        digest_sets: Vec<DigestSetVersion>,
    ) -> Result<Self, ProfileError> {
        Self::of(References { profiles, sets, digest_sets, ..References::default() })
    }

    /// The book of the current version of each profile and set. Rules are compiled here, once.
    ///
    /// What a profile and its boot sets contradict each other about is refused where one is written ([`Self::check`]); a book
    /// of both is made all the same, and accepts what neither denies.
    pub fn of(references: References) -> Result<Self, ProfileError> {
        let References { profiles, sets, boot_sets, withdrawn_boot_sets, digest_sets, deny } = references;
        let by_name = |sets: Vec<BootSetVersion>| -> BTreeMap<_, _> {
            sets.into_iter().map(|set| (set.id.name.clone(), set)).collect()
        };
        let (boot_sets, mut withdrawn_boot_sets) = (by_name(boot_sets), by_name(withdrawn_boot_sets));
        withdrawn_boot_sets.retain(|name, _| !boot_sets.contains_key(name));
        let boot = profiles.iter().filter_map(|profile| {
            let rules = profile.body().boot.as_ref()?;
            let named: Vec<_> = rules.sets.iter().filter_map(|name| boot_sets.get(name)).collect();
            let withdrawn = rules.sets.iter().filter_map(|name| withdrawn_boot_sets.get(name));
            let (rules, sets) = (
                rules.with_sets(named.iter().copied()).after(withdrawn),
                named.iter().map(|set| set.id.clone()),
            );
            Some((profile.id().name.clone(), Arc::new(CompiledBoot { rules, sets: sets.collect() })))
        });
        let boot = boot.collect();
        let digest_sets: BTreeMap<_, _> =
            digest_sets.into_iter().map(|set| (set.id.name.clone(), set)).collect();
        let mut runtime = BTreeMap::new();
        for profile in &profiles {
            let find = |name: &Name| digest_sets.get(name).map(|set| Arc::clone(&set.digests));
            let compiled = match &profile.body().runtime {
                Some(rules) => CompiledRules::with_deny(rules.clone(), find, &deny)?,
                // What accepts nothing still replays, and nobody reads what it finds.
                None if profile.body().collect.contains(&LogKind::Ima) => {
                    let digest_sets = vec![Name::default_set()];
                    CompiledRules::new(RuntimeRules { digest_sets, ..RuntimeRules::default() }, |_| None)?
                }
                None => continue,
            };
            runtime.insert(profile.id().name.clone(), Arc::new(compiled));
        }
        let sets = sets.into_iter().map(|set| (set.id.name.clone(), set)).collect();
        Ok(Self { profiles, sets, boot_sets, withdrawn_boot_sets, digest_sets, deny, boot, runtime })
    }

    /// What it is of: to change something of, and see what that would come to.
    #[must_use]
    pub fn references(&self) -> References {
        References {
            profiles: self.profiles.clone(),
            sets: self.sets.values().cloned().collect(),
            boot_sets: self.boot_sets.values().cloned().collect(),
            withdrawn_boot_sets: self.withdrawn_boot_sets.values().cloned().collect(),
            digest_sets: self.digest_sets.values().cloned().collect(),
            deny: self.deny.clone(),
        }
    }

    /// Refuses a profile whose boot sets say what it could not have said itself.
    pub fn check(&self, body: &ProfileBody) -> Result<(), ProfileError> {
        let Some(rules) = &body.boot else { return Ok(()) };
        let sets: Vec<_> = rules.sets.iter().filter_map(|name| self.boot_sets.get(name)).collect();
        Ok(rules.check_with(&sets)?)
    }

    /// Refuses a boot set that contradicts a profile that names it.
    pub fn check_boot_set(&self, name: &Name, set: &BootSet) -> Result<(), (Versioned, BootRulesError)> {
        let provenance = Provenance {
            author: String::new(),
            reason: String::new(),
            created_at: Timestamp::from_millis(0),
        };
        let next =
            BootSetVersion { id: Versioned { name: name.clone(), version: 0 }, set: set.clone(), provenance };
        for profile in &self.profiles {
            let Some(rules) = profile.body().boot.as_ref().filter(|rules| rules.sets.contains(name)) else {
                continue;
            };
            let of = |named: &Name| if named == name { Some(&next) } else { self.boot_sets.get(named) };
            let sets: Vec<_> = rules.sets.iter().filter_map(of).collect();
            rules.check_with(&sets).map_err(|error| (profile.id().clone(), error))?;
        }
        Ok(())
    }

    /// The boot rules of a profile of this book, where it has any.
    #[must_use]
    pub fn boot(&self, profile: &Profile) -> Option<&CompiledBoot> {
        self.boot.get(&profile.id().name).map(Arc::as_ref)
    }

    /// The current version of a boot set.
    #[must_use]
    pub fn boot_set(&self, name: &Name) -> Option<&BootSetVersion> {
        self.boot_sets.get(name)
    }

    /// What nothing makes acceptable.
    #[must_use]
    pub fn deny(&self) -> &DenyList {
        &self.deny
    }

    /// What a node with these labels is judged by.
    #[must_use]
    pub fn rules(&self, labels: &Labels) -> RuleBook<'_> {
        let profile = self.profile(labels).ok();
        let runtime = profile.and_then(|profile| self.runtime.get(&profile.id().name));
        RuleBook { profile: profile.map(Profile::body), runtime: runtime.map(Arc::as_ref) }
    }

    /// The current version of a digest set.
    #[must_use]
    pub fn digest_set(&self, name: &Name) -> Option<&DigestSetVersion> {
        self.digest_sets.get(name)
    }

    /// Digests with this content, where a current set has them: they need not be compiled again.
    #[must_use]
    pub fn digests_of(&self, content: &[u8; 32]) -> Option<Arc<DigestSet>> {
        let mut sets = self.digest_sets.values();
        sets.find(|set| set.digests.id() == content).map(|set| Arc::clone(&set.digests))
    }

    /// The profile of a node with these labels: of those whose labels the node all has, the one that names most.
    pub fn profile(&self, labels: &Labels) -> Result<&Profile, NoProfile> {
        let mut best: Option<&Profile> = None;
        let mut rival: Option<&Profile> = None;
        for profile in self.profiles.iter().filter(|profile| profile.body().match_labels.all_in(labels)) {
            let names = profile.body().match_labels.len();
            match best.map(|best| best.body().match_labels.len()) {
                Some(most) if names < most => {}
                Some(most) if names == most => rival = Some(profile),
                Some(_) | None => (best, rival) = (Some(profile), None),
            }
        }
        match (best, rival) {
            (None, _) => Err(NoProfile::None),
            (Some(best), None) => Ok(best),
            (Some(best), Some(rival)) => {
                Err(NoProfile::Ambiguous { first: best.id().clone(), second: rival.id().clone() })
            }
        }
    }

    /// The current version of each profile.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.iter()
    }

    /// The current version of a set.
    #[must_use]
    pub fn set(&self, name: &Name) -> Option<&ReferenceSet> {
        self.sets.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn profile(title: &str, labels: &[(&str, &str)]) -> Profile {
        let mut body = ProfileBody::initial(name("default"));
        for (key, value) in labels {
            body.match_labels.set(name(key), Some(name(value))).unwrap();
        }
        let provenance = Provenance {
            author: "uid 0".into(),
            reason: String::new(),
            created_at: Timestamp::from_millis(0),
        };
        Profile::new(Versioned { name: name(title), version: 1 }, body, provenance).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let mut labels = Labels::default();
        for (key, value) in pairs {
            labels.set(name(key), Some(name(value))).unwrap();
        }
        labels
    }

    #[test]
    fn the_profile_that_names_most_labels_wins() {
        let book = ReferenceBook::new(
            vec![
                profile("any", &[]),
                profile("prod", &[("env", "prod")]),
                profile("prod-db", &[("env", "prod"), ("role", "db")]),
            ],
            vec![],
            vec![],
        )
        .unwrap();
        let of = |pairs: &[(&str, &str)]| book.profile(&labels(pairs)).unwrap().id().to_string();
        assert_eq!(of(&[]), "any@1");
        assert_eq!(of(&[("env", "test")]), "any@1");
        assert_eq!(of(&[("env", "prod")]), "prod@1");
        assert_eq!(of(&[("env", "prod"), ("role", "db"), ("rack", "b7")]), "prod-db@1");
    }

    #[test]
    fn profiles_that_fit_equally_well_or_not_at_all_give_none() {
        let book = ReferenceBook::new(
            vec![profile("a", &[("env", "prod")]), profile("b", &[("role", "db")])],
            vec![],
            vec![],
        )
        .unwrap();
        assert_eq!(book.profile(&labels(&[])), Err(NoProfile::None));
        let both = book.profile(&labels(&[("env", "prod"), ("role", "db")]));
        assert!(matches!(both, Err(NoProfile::Ambiguous { .. })), "{both:?}");
    }
}

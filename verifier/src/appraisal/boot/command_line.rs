//! Rules for the kernel's command line.

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;
use serde::{Deserialize, Serialize};

use super::rules::{BootRulesError, Measurement};
use crate::evidence::boot_log::text::to_utf16;

/// Which command lines the kernel may be started with. What any of the three accepts is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLineRules {
    /// Whole command lines, to the byte. Boot loaders add to them: GRUB the kernel's path in front (PCR 8), systemd-boot and
    /// direct boot `initrd=…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exact: Vec<String>,
    /// Command lines whose text the log does not hold, by the digest of their event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Measurement>,
    /// Rules for each word, for command lines whose text is proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenRules>,
}

/// Rules for the words of a command line.
///
/// Words are split as the kernel splits them: at white space outside of double quotes; quotes are dropped. A quote that does
/// not end is refused. In a word's name (what stands before `=`) `-` and `_` are the same, as they are for the kernel. Words
/// after `--`, which go to init, are judged like all others.
///
/// A rule that ends in `*` is for all words that begin so; one without `=` is for that word with any value, too, where it
/// forbids. PCR 8 holds GRUB's commands beside the command line, and only the log says which is which: so at most one
/// event of a PCR is taken as the command line by these rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRules {
    /// Words that have to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Words that must not be there, such as `init`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbidden: Vec<String>,
    /// Every other word that may be there; `*` alone is every word.
    pub allowed: Vec<String>,
}

/// Why a command line is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineFault {
    /// None of the whole command lines, and there are no rules for words.
    #[error("is none of the accepted ones")]
    NotListed,
    /// The log does not hold its text, so that no word can be judged.
    #[error("has a text that the log does not prove")]
    Unreadable,
    /// A quote does not end.
    #[error("has a quote that does not end")]
    Quote,
    /// A word is missing.
    #[error("lacks `{0}`")]
    Missing(String),
    /// A word must not be there.
    #[error("has `{0}`, which is forbidden")]
    Forbidden(String),
    /// A word is not among those that are allowed.
    #[error("has `{0}`, which is not allowed")]
    NotAllowed(String),
}

impl CommandLineRules {
    pub(super) fn check(&self) -> Result<(), BootRulesError> {
        let rules = "command_line";
        if self.exact.is_empty() && self.digests.is_empty() && self.tokens.is_none() {
            return Err(BootRulesError::AcceptsNothing { rules });
        }
        let Some(tokens) = &self.tokens else { return Ok(()) };
        if tokens.required.is_empty()
            && tokens.forbidden.is_empty()
            && tokens.allowed.iter().any(|t| t == "*")
        {
            return Err(BootRulesError::Tokens {
                token: "*".into(),
                why: "every word is allowed and none required",
            });
        }
        let contradiction = |token: &String, why| Err(BootRulesError::Tokens { token: token.clone(), why });
        for token in &tokens.required {
            if tokens.forbidden.iter().any(|rule| forbids(rule, token)) {
                return contradiction(token, "required and forbidden");
            }
        }
        match tokens.required.iter().chain(&tokens.forbidden).chain(&tokens.allowed).find(|t| t.is_empty()) {
            Some(empty) => contradiction(empty, "an empty word"),
            None => Ok(()),
        }
    }

    /// The digests of whole command lines, in the forms in which boot loaders measure them: UTF-16 with a terminator (EFI
    /// stub, systemd-boot), UTF-8 without (GRUB) and with one.
    pub(super) fn exact_digests(&self, bank: HashAlgorithm) -> Vec<Digest> {
        let exact = self.exact.iter().flat_map(|text| {
            [
                hash(bank, &[&to_utf16(text)]),
                hash(bank, &[text.as_bytes()]),
                hash(bank, &[text.as_bytes(), &[0]]),
            ]
        });
        exact.chain(self.digests.iter().map(|one| one.digest.0)).collect()
    }
}

impl TokenRules {
    /// Judges a command line.
    pub fn judge(&self, text: &str) -> Result<(), CommandLineFault> {
        let tokens = split(text).ok_or(CommandLineFault::Quote)?;
        for token in &tokens {
            if self.forbidden.iter().any(|rule| forbids(rule, token)) {
                return Err(CommandLineFault::Forbidden(token.clone()));
            }
            if !self.required.iter().chain(&self.allowed).any(|rule| fits(rule, token)) {
                return Err(CommandLineFault::NotAllowed(token.clone()));
            }
        }
        match self.required.iter().find(|rule| !tokens.iter().any(|token| fits(rule, token))) {
            Some(missing) => Err(CommandLineFault::Missing(missing.clone())),
            None => Ok(()),
        }
    }
}

/// The words, or nothing where a quote does not end.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            // The kernel's isspace, with the no-break space that it counts among spaces.
            ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{a0}' if !quoted => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            other => word.push(other),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    (!quoted).then_some(words)
}

/// A word with `_` for `-` in its name.
fn normal(word: &str) -> String {
    match word.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('-', "_")),
        None => word.replace('-', "_"),
    }
}

fn fits(rule: &str, token: &str) -> bool {
    let (rule, token) = (normal(rule), normal(token));
    match rule.strip_suffix('*') {
        Some(prefix) => token.starts_with(prefix),
        None => token == rule,
    }
}

fn forbids(rule: &str, token: &str) -> bool {
    let name = token.split_once('=').map_or(token, |(name, _)| name);
    fits(rule, token) || (!rule.contains('=') && fits(rule, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> TokenRules {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        TokenRules {
            required: words("ima_policy=tcb"),
            forbidden: words("init rdinit systemd.unit=rescue.target"),
            allowed: words("quiet console=* root=* dyndbg=*"),
        }
    }

    /// Attack 61.
    #[test]
    fn each_way_in_which_a_command_line_is_not_accepted_is_named() {
        let said = |text: &str| CommandLineFault::Forbidden(text.into());
        for (line, expected) in [
            ("quiet ima_policy=tcb console=ttyS0", Ok(())),
            ("quiet ima-policy=tcb", Ok(())),
            ("ima_policy=tcb dyndbg=\"file a.c +p\"", Ok(())),
            ("quiet", Err(CommandLineFault::Missing("ima_policy=tcb".into()))),
            ("ima_policy=tcb init=/bin/sh", Err(said("init=/bin/sh"))),
            ("ima_policy=tcb \"init=/bin/sh\"", Err(said("init=/bin/sh"))),
            ("ima_policy=tcb quiet\tinit=/bin/sh", Err(said("init=/bin/sh"))),
            ("ima_policy=tcb quiet\u{a0}init=/bin/sh", Err(said("init=/bin/sh"))),
            ("ima_policy=tcb -- init", Err(CommandLineFault::NotAllowed("--".into()))),
            ("ima_policy=tcb systemd.unit=rescue.target", Err(said("systemd.unit=rescue.target"))),
            ("ima_policy=tcb ima_appraise=off", Err(CommandLineFault::NotAllowed("ima_appraise=off".into()))),
            ("ima_policy=tcb \"quiet init=/bin/sh", Err(CommandLineFault::Quote)),
        ] {
            assert_eq!(rules().judge(line), expected, "{line}");
        }
    }

    #[test]
    fn rules_that_check_nothing_or_contradict_are_refused() {
        let with = |tokens| CommandLineRules { tokens: Some(tokens), ..CommandLineRules::default() };
        assert_eq!(with(rules()).check(), Ok(()));
        let nothing = BootRulesError::AcceptsNothing { rules: "command_line" };
        assert_eq!(CommandLineRules::default().check(), Err(nothing));
        let word = |text: &str| vec![text.to_owned()];
        for tokens in [
            TokenRules { allowed: word("*"), ..TokenRules::default() },
            TokenRules { required: word("init=/sbin/init"), ..rules() },
            TokenRules { forbidden: word(""), ..rules() },
        ] {
            assert!(matches!(with(tokens).check(), Err(BootRulesError::Tokens { .. })));
        }
    }
}

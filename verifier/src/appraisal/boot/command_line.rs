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
/// A command line is judged only where the kernel (`next_arg` in lib/cmdline.c, `efi_convert_cmdline` of the EFI stub) and
/// what reads it later cannot take it for other words than these rules do; all others are [`Unreadable`]. It is of printable
/// ASCII: a line feed ends it for the stub, the byte A0 is white space for the kernel, and the other white space is refused
/// with the control characters, so that the space alone parts words. It has at most 2047 bytes. A `"` opens and
/// closes a whole word or a whole value (`name="…"`), and is dropped; a `'` is refused, as systemd drops it and the kernel
/// does not. In a word's name (what stands before `=`) `-` and `_` are the same, as they are for the kernel.
///
/// Words after `--` go to init. They are judged like all others, but none of them is the one that is required. Where the
/// kernel takes the last of several words of a name, or each, a required one would not decide: so there are no more words of
/// its name than are required. Programs that know no quotes see words in a quoted one: forbidden words are looked for there,
/// too.
///
/// A rule that ends in `*` is for all words that begin so; one without `=` is for that word with any value, too, where it
/// forbids. PCR 8 holds GRUB's commands beside the command line, and only the log says which is which: so at most one
/// event of a PCR is taken as the command line by these rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRules {
    /// Words that have to be there, before any `--`.
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
    NotProved,
    /// The kernel may read other words than the rules are for.
    #[error("{0}, so that nobody can say which words the kernel reads")]
    Unreadable(Unreadable),
    /// A word is missing.
    #[error("lacks `{0}`")]
    Missing(String),
    /// A word has the name of a required one, and may outdo it.
    #[error("has `{0}` beside a required word of that name")]
    Repeated(String),
    /// A word must not be there.
    #[error("has `{0}`, which is forbidden")]
    Forbidden(String),
    /// A word is not among those that are allowed.
    #[error("has `{0}`, which is not allowed")]
    NotAllowed(String),
}

/// Why the words of a command line are not certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is cut before the kernel reads it.
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    /// A control character (a line feed or a tab, say), or one beyond ASCII.
    #[error("has a character that is no printable ASCII")]
    Character,
    /// A quote does not end, or is not around a whole word or a whole value; or it is a single one.
    #[error("has a quote that is not around a whole word or value, or a single quote")]
    Quote,
}

/// The longest command line that is judged by its words: x86's and arm64's COMMAND_LINE_SIZE, 2048, less the terminator.
/// The EFI stub cuts a longer one at a space.
const LONGEST: usize = 2047;

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
        let tokens = split(text).map_err(CommandLineFault::Unreadable)?;
        for token in &tokens {
            let forbidden = |word: &str| self.forbidden.iter().any(|rule| forbids(rule, word));
            if forbidden(token) || token.split(' ').any(forbidden) {
                return Err(CommandLineFault::Forbidden(token.clone()));
            }
            if !self.required.iter().chain(&self.allowed).any(|rule| fits(rule, token)) {
                return Err(CommandLineFault::NotAllowed(token.clone()));
            }
        }
        for rule in &self.required {
            if !tokens.iter().take_while(|token| *token != "--").any(|token| fits(rule, token)) {
                return Err(CommandLineFault::Missing(rule.clone()));
            }
            let required = self.required.iter().filter(|other| normal(name(other)) == normal(name(rule)));
            let mut same = tokens.iter().filter(|token| fits(name(rule), name(token)));
            if let Some(more) = same.nth(required.count()) {
                return Err(CommandLineFault::Repeated(more.clone()));
            }
        }
        Ok(())
    }
}

/// The words, without their quotes.
fn split(text: &str) -> Result<Vec<String>, Unreadable> {
    if text.len() > LONGEST {
        return Err(Unreadable::TooLong);
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Unreadable::Character);
    }
    let mut quoted = false;
    let words = text.split(|character| {
        quoted ^= character == '"';
        character == ' ' && !quoted
    });
    words.filter(|word| !word.is_empty()).map(|word| unquoted(word).ok_or(Unreadable::Quote)).collect()
}

/// A word without the pair of quotes around it or its value; nothing where it has any other.
fn unquoted(word: &str) -> Option<String> {
    let inner = |text: &str| Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned());
    let of_value = || match word.split_once('=')? {
        // For the kernel a `=` in front is a part of the name.
        ("", _) => None,
        (name, value) => Some(format!("{name}={}", inner(value)?)),
    };
    let bare = inner(word).or_else(of_value).unwrap_or_else(|| word.to_owned());
    (!bare.contains(['"', '\''])).then_some(bare)
}

fn name(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
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
    fits(rule, token) || (!rule.contains('=') && fits(rule, name(token)))
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
            ("ima_policy=tcb -- init", Err(CommandLineFault::NotAllowed("--".into()))),
            ("ima_policy=tcb systemd.unit=rescue.target", Err(said("systemd.unit=rescue.target"))),
            ("ima_policy=tcb ima_appraise=off", Err(CommandLineFault::NotAllowed("ima_appraise=off".into()))),
        ] {
            assert_eq!(rules().judge(line), expected, "{line}");
        }
    }

    /// `ima_policy=tcb` is required and every word allowed but `init`, so that nothing but what is tested refuses.
    fn lenient() -> TokenRules {
        TokenRules { allowed: vec!["*".into()], ..rules() }
    }

    fn assert_unreadable(lines: &[&str], expected: Unreadable) {
        for line in lines {
            assert_eq!(lenient().judge(line), Err(CommandLineFault::Unreadable(expected)), "{line:?}");
        }
    }

    /// Attack 61: the kernel drops no quote within a word, so that it knows no `ima_pol""icy`.
    #[test]
    fn a_quote_is_around_a_whole_word_or_a_whole_value() {
        for line in [
            "\"ima_policy=tcb\"",
            "ima_policy=\"tcb\"",
            "ima_policy=tcb \"a b\" a=\"b c\" \"a=b c\" \"\" a=\"\"",
            "\"ima_policy=tcb\" \"--\" quiet",
        ] {
            assert_eq!(lenient().judge(line), Ok(()), "{line}");
        }
        let inner = [
            "ima_pol\"\"icy=tcb",
            "ima_policy=t\"cb\"",
            "ima_policy=\"t\"cb",
            "\"ima_policy\"=tcb",
            "\"ima_policy=\"tcb\"\"",
            "\"ima_policy\"=\"tcb\"",
            "ima_policy=\"\"tcb\"\"",
            "=\"ima_policy=tcb\"",
            "ima_policy=tcb a\" \"b",
        ];
        assert_unreadable(&inner, Unreadable::Quote);
        let open = ["ima_policy=tcb \"quiet init=/bin/sh", "ima_policy=tcb a=\"", "ima_policy=tcb \""];
        assert_unreadable(&open, Unreadable::Quote);
    }

    /// Attack 61: systemd drops single quotes, too.
    #[test]
    fn a_single_quote_is_refused() {
        let lines = ["ima_policy=tcb 'systemd.unit=rescue.target'", "ima_policy=tcb \"a='b'\""];
        assert_unreadable(&lines, Unreadable::Quote);
    }

    /// Attack 61: at a line feed the EFI stub stops, and other white space parts words.
    #[test]
    fn a_control_character_is_refused() {
        let lines = [
            "quiet\nima_policy=tcb",
            "ima_policy=tcb\n",
            "ima_policy=tcb\tquiet",
            "ima_policy=tcb\u{b}quiet",
            "ima_policy=tcb\u{c}quiet",
            "ima_policy=tcb\rquiet",
            "ima_policy=tcb\0quiet",
            "ima_policy=tcb \u{7f}",
        ];
        assert_unreadable(&lines, Unreadable::Character);
    }

    /// Attack 61: `à` is C3 A0 in UTF-8, and A0 is white space for the kernel.
    #[test]
    fn a_character_beyond_ascii_is_refused() {
        let lines = [
            "ima_policy=tcb root=/dev/sdaàinit=/bin/sh",
            "ima_policy=tcb quiet\u{a0}init=/bin/sh",
            "ima_policy=tcb root=ü",
        ];
        assert_unreadable(&lines, Unreadable::Character);
    }

    /// Attack 61: what is over the kernel's buffer is cut.
    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let of_length = |length: usize| format!("{:length$}", "ima_policy=tcb");
        assert_eq!(lenient().judge(&of_length(2047)), Ok(()));
        assert_unreadable(&[&of_length(2048)], Unreadable::TooLong);
    }

    /// Attack 61: the kernel stops at `--`.
    #[test]
    fn a_word_for_init_is_judged_but_is_none_that_is_required() {
        let missing = Err(CommandLineFault::Missing("ima_policy=tcb".into()));
        assert_eq!(lenient().judge("ima_policy=tcb -- quiet"), Ok(()));
        assert_eq!(lenient().judge("quiet -- ima_policy=tcb"), missing);
        assert_eq!(lenient().judge("quiet \"--\" ima_policy=tcb"), missing);
        let forbidden = Err(CommandLineFault::Forbidden("init=/bin/sh".into()));
        assert_eq!(lenient().judge("ima_policy=tcb -- init=/bin/sh"), forbidden);
    }

    /// Attack 61: of several words of a name the kernel takes the last, or each.
    #[test]
    fn a_second_word_of_a_required_name_is_refused() {
        let second = |text: &str| Err(CommandLineFault::Repeated(text.into()));
        assert_eq!(lenient().judge("ima_policy=tcb ima-policy=none"), second("ima-policy=none"));
        assert_eq!(lenient().judge("ima_policy=none ima_policy=tcb"), second("ima_policy=tcb"));
        assert_eq!(lenient().judge("ima_policy=tcb ima_policy"), second("ima_policy"));
        assert_eq!(lenient().judge("ima_policy=tcb -- ima_policy=none"), second("ima_policy=none"));
        assert_eq!(lenient().judge("ima_policy=tcb root=a root=b ima_policy_x=1"), Ok(()));
        let required = vec!["console=tty0".into(), "console=ttyS0".into()];
        let consoles = TokenRules { required, ..lenient() };
        assert_eq!(consoles.judge("console=ttyS0 console=tty0"), Ok(()));
        assert_eq!(consoles.judge("console=tty0 console=ttyS0 console=a"), second("console=a"));
    }

    /// Attack 61: a script that splits at every space reads `init` where the kernel reads a value.
    #[test]
    fn a_forbidden_word_in_a_quoted_one_is_found() {
        let found = Err(CommandLineFault::Forbidden("root=a init=/bin/sh".into()));
        assert_eq!(lenient().judge("ima_policy=tcb root=\"a init=/bin/sh\""), found);
        assert_eq!(lenient().judge("ima_policy=tcb \"root=a init=/bin/sh\""), found);
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

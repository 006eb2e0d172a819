//! Somebody asks which subjects, resources or actions would be allowed: what is not visible to it, it does not find.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::BASE64URL_NOPAD;
use rand_core::Rng;
use rootbound_common::crypto::hash;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;

use super::caller::Caller;
use super::decide::{DecideError, Turn, actor_of};
use super::{Verifier, rng};
use crate::policy::{Bundle, Question, SubjectKind};

/// Which part of the question is looked for; what it names in the question counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// Its subject: nodes, or entities of the bundle.
    Subject,
    /// Its resource: entities of the bundle.
    Resource,
    /// Its action: one that the bundle declares for the types of both.
    Action,
}

/// Which page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// From the page before.
    pub token: Option<String>,
    /// Results at most.
    pub limit: Option<u64>,
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Ids, or names of actions, in their order.
    pub names: Vec<String>,
    /// For the next page; `None`: there is none.
    pub next: Option<String>,
}

/// Candidates that are judged for one page, at some 10 µs each.
const MAX_JUDGED: usize = 256;
/// Results of a page, where none is asked for.
const USUAL: usize = 100;

impl Verifier {
    /// Looks for what would be allowed, as things stand now; an answer to one of these names later is a decision of its own.
    pub async fn search(
        &self,
        caller: &Caller,
        question: Question,
        sought: Sought,
        page: Page,
    ) -> Result<Found, DecideError> {
        let bundle = self.bundle.load_full();
        let search = digest_of(caller, &question, sought);
        let after = match &page.token {
            Some(token) => Some(self.pages.open(token, &search).ok_or(DecideError::PageToken)?),
            None => None,
        };
        let limit = page.limit.map_or(USUAL, |limit| usize::try_from(limit).unwrap_or(MAX_JUDGED));
        let limit = limit.min(MAX_JUDGED);
        let candidates = self.candidates(&bundle, &question, sought, after.as_deref()).await?;
        let (mut names, mut last, mut about) = (Vec::new(), None, None);
        let mut turn = Turn::begins();
        for name in candidates.iter().take(MAX_JUDGED) {
            if names.len() >= limit {
                break;
            }
            turn.pause_when_it_is_over().await;
            if let Some(asked) = naming(&question, sought, name)
                && self.decide(&bundle, caller, asked, &mut about).allowed()
            {
                names.push(name.clone());
            }
            last = Some(name);
        }
        self.record_search(caller, &bundle, &question, names.len()).await?;
        let ended = last == candidates.last();
        let next = last.filter(|_| !ended).and_then(|last| self.pages.seal(last, &search));
        Ok(Found { names, next })
    }

    /// The next names to be judged, in their order: one more than a page judges, where there are so many.
    async fn candidates(
        &self,
        bundle: &Bundle,
        question: &Question,
        sought: Sought,
        after: Option<&str>,
    ) -> Result<Vec<String>, DecideError> {
        let most = MAX_JUDGED + 1;
        let entities = |kind: &str| bundle.entities_of(kind, after, most);
        Ok(match sought {
            Sought::Action => bundle
                .actions_between(&question.subject().kind, &question.resource().kind)
                .into_iter()
                .filter(|name| after.is_none_or(|after| *name > after))
                .take(most)
                .map(str::to_owned)
                .collect(),
            Sought::Resource => entities(&question.resource().kind),
            Sought::Subject => match question.subject_kind() {
                SubjectKind::Node(_) => {
                    let after = after.and_then(|after| after.parse::<NodeId>().ok());
                    let most = u32::try_from(most).unwrap_or(u32::MAX);
                    let nodes = self.store.nodes(after, most).await?;
                    nodes.iter().map(|node| node.id.to_string()).collect()
                }
                SubjectKind::Service | SubjectKind::OnNode => Vec::new(),
                SubjectKind::Other => entities(&question.subject().kind),
            },
        })
    }
}

/// The question with a name for what is looked for; `None` where it is none that anybody could ask about.
fn naming(question: &Question, sought: Sought, name: &str) -> Option<Question> {
    let (mut subject, mut action, mut resource) =
        (question.subject().clone(), question.action().clone(), question.resource().clone());
    match sought {
        Sought::Subject => subject.id = name.to_owned(),
        Sought::Resource => resource.id = name.to_owned(),
        Sought::Action => action.name = name.to_owned(),
    }
    Question::of(subject, action, resource, question.context().clone()).ok()
}

/// What a page belongs to: another caller, or another search, has pages of its own.
fn digest_of(caller: &Caller, question: &Question, sought: Sought) -> Vec<u8> {
    let caller = format!("{:?}", actor_of(caller));
    let question = serde_json::to_vec(question).unwrap_or_default();
    let sought = match sought {
        Sought::Subject => b"s",
        Sought::Resource => b"r",
        Sought::Action => b"a",
    };
    // A name has no zero byte.
    hash(HashAlgorithm::Sha256, &[caller.as_bytes(), &[0], sought, &question]).as_bytes().to_vec()
}

/// Seals where a page ended, for the next: a token says nothing of what its caller did not find there, and counts for no
/// other search. It lives as long as the process.
pub(super) struct PageKey([u8; 32]);

impl PageKey {
    /// A new key.
    pub(super) fn generate() -> Self {
        let mut key = [0; 32];
        rng().fill_bytes(&mut key);
        Self(key)
    }

    fn key(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, &self.0).ok().map(LessSafeKey::new)
    }

    fn seal(&self, last: &str, search: &[u8]) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        rng().fill_bytes(&mut nonce);
        let mut sealed = last.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key()?.seal_in_place_append_tag(unique, Aad::from(search), &mut sealed).ok()?;
        Some(BASE64URL_NOPAD.encode(&[&nonce[..], &sealed].concat()))
    }

    fn open(&self, token: &str, search: &[u8]) -> Option<String> {
        /// An id of the longest kind, the nonce and the tag, in base64.
        const LONGEST: usize = 2 * Question::MAX_ID;
        let token = Some(token).filter(|token| token.len() <= LONGEST)?;
        let token = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let (nonce, sealed) = token.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let last = self.key()?.open_in_place(nonce, Aad::from(search), &mut sealed).ok()?;
        String::from_utf8(last.to_vec()).ok()
    }
}

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_opens_for_its_search_alone_and_says_nothing() {
        let key = PageKey::generate();
        let token = key.seal("alice", b"one search").unwrap();
        assert_eq!(key.open(&token, b"one search").as_deref(), Some("alice"));
        assert_eq!(key.open(&token, b"another"), None);
        assert_eq!(PageKey::generate().open(&token, b"one search"), None);
        assert!(!BASE64URL_NOPAD.decode(token.as_bytes()).unwrap().windows(5).any(|part| part == b"alice"));
        let long = "A".repeat(5000);
        for bad in ["", "A", "AAAA", &token[1..], "alice", &long] {
            assert_eq!(key.open(bad, b"one search"), None, "{bad}");
        }
    }
}

//! Paths with parameters, of which the most specific that fits is found: a trie of segments.
//!
//! matchit, which axum has, takes a parameter and the rest of a path at one place for a conflict, and does not go back where what it
//! chose first leads nowhere.

use std::collections::BTreeMap;

/// A segment of a declared path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// It stands there as it is; the last one may be empty.
    Text(String),
    /// Any one that is not empty.
    One,
    /// This one and all that follow, at the end: at least a character.
    Rest,
}

/// What follows some segments.
#[derive(Debug, Default)]
pub(super) struct Table {
    texts: BTreeMap<String, Table>,
    one: Option<Box<Table>>,
    rest: Option<usize>,
    end: Option<usize>,
}

impl Table {
    /// Adds a path; where it is there already, says what it is for.
    pub(super) fn insert(&mut self, path: &[Segment], value: usize) -> Result<(), usize> {
        let mut at = self;
        for segment in path {
            at = match segment {
                Segment::Text(text) => at.texts.entry(text.clone()).or_default(),
                Segment::One => at.one.get_or_insert_default(),
                Segment::Rest => return put(&mut at.rest, value),
            };
        }
        put(&mut at.end, value)
    }

    /// What the most specific path is for that fits: at the first segment at which two differ, a text goes before a parameter,
    /// and that before the rest. Each place of the table is looked at once at the most, and none is deeper than a declared path.
    pub(super) fn find(&self, path: &[&str]) -> Option<usize> {
        let Some((first, others)) = path.split_first() else { return self.end };
        let by_text = self.texts.get(*first).and_then(|next| next.find(others));
        let by_one = || self.one.as_deref().filter(|_| !first.is_empty())?.find(others);
        let rest = || self.rest.filter(|_| !first.is_empty() || !others.is_empty());
        by_text.or_else(by_one).or_else(rest)
    }
}

fn put(place: &mut Option<usize>, value: usize) -> Result<(), usize> {
    match *place {
        Some(there) => Err(there),
        None => {
            *place = Some(value);
            Ok(())
        }
    }
}

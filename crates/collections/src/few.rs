//! Small collections that mostly hold one thing: without an allocation for that one.

use std::collections::BTreeSet;

/// A set that is never empty.
#[derive(Debug)]
pub(crate) enum Few<T> {
    One(T),
    More(BTreeSet<T>),
}

impl<T: Ord + Clone> Few<T> {
    /// Adds a value; false: it is there already.
    pub(crate) fn insert(&mut self, value: T) -> bool {
        match self {
            Self::One(own) if *own == value => false,
            Self::One(own) => {
                *self = Self::More([own.clone(), value].into());
                true
            }
            Self::More(all) => all.insert(value),
        }
    }

    /// Takes a value out; true: it was the only one, and the set must go.
    pub(crate) fn remove(&mut self, value: &T) -> bool {
        match self {
            Self::One(own) => own == value,
            Self::More(all) => {
                all.remove(value);
                all.is_empty()
            }
        }
    }

    /// Every value in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, more) = match self {
            Self::One(own) => (Some(own), None),
            Self::More(all) => (None, Some(all)),
        };
        one.into_iter().chain(more.into_iter().flatten())
    }
}

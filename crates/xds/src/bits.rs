//! A growing set of small numbers, one bit each.

/// A set of slot numbers.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub fn contains(&self, at: u32) -> bool {
        let word = self.words.get(at as usize / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Puts a number in; tells whether it is new.
    pub fn insert(&mut self, at: u32) -> bool {
        if self.contains(at) {
            return false;
        }
        let index = at as usize / 64;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.words[index] |= 1 << (at % 64);
        true
    }

    /// Takes a number out; tells whether it was there.
    pub fn remove(&mut self, at: u32) -> bool {
        let was = self.contains(at);
        if was {
            self.words[at as usize / 64] &= !(1 << (at % 64));
        }
        was
    }

    /// Every number, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.words.iter().zip(0u32..);
        words.flat_map(|(word, index)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| index * 64 + bit)
        })
    }
}

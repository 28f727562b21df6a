//! A growing set of small numbers, one bit each.

/// A set of slot numbers.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    pub fn contains(&self, at: u32) -> bool {
        let word = self.words.get(at as usize / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub fn insert(&mut self, at: u32) {
        if self.contains(at) {
            return;
        }
        let index = at as usize / 64;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.words[index] |= 1 << (at % 64);
        self.count += 1;
    }

    pub fn remove(&mut self, at: u32) {
        if self.contains(at) {
            self.words[at as usize / 64] &= !(1 << (at % 64));
            self.count -= 1;
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }
}

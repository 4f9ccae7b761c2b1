//! Tables for tests, of any word.

use super::{Bucket, Bucket4, Table, Word, overflow_words};

/// One bucket, that is all the candidates of every flow.
pub(super) struct Single<'b, B>(pub(super) &'b B);

impl<B: Bucket> Table for Single<'_, B> {
    type Bucket = B;

    fn buckets(&self) -> u32 {
        1
    }

    fn bucket(&self, _index: u32) -> Option<&B> {
        Some(self.0)
    }

    fn overflow_word(&self, _index: u32) -> Option<&B::Word> {
        None
    }
}

pub(super) struct Whole<W> {
    pub(super) buckets: Vec<Bucket4<W>>,
    pub(super) overflows: Vec<W>,
}

impl<W: Word> Whole<W> {
    pub(super) fn new(buckets: u32, word: impl Fn() -> W) -> Self {
        Self {
            buckets: (0..buckets).map(|_| Bucket4::empty(&word)).collect(),
            overflows: (0..overflow_words(buckets)).map(|_| word()).collect(),
        }
    }
}

impl<W: Word> Table for Whole<W> {
    type Bucket = Bucket4<W>;

    fn buckets(&self) -> u32 {
        self.buckets.len() as u32
    }

    fn bucket(&self, index: u32) -> Option<&Bucket4<W>> {
        self.buckets.get(index as usize)
    }

    fn overflow_word(&self, index: u32) -> Option<&W> {
        self.overflows.get(index as usize)
    }
}

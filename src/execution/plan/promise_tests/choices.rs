//! Where the model takes its choices from: the bytes that proptest draws and shrinks.

use k8s_openapi::jiff::SignedDuration;

/// A finite source of choices. Once it is empty, every choice is the first of its table, and nothing fails any more.
pub struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into_iter())
    }

    pub fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    /// An entry of a table. An entry that stands in it twice is twice as likely.
    pub fn pick<T: Copy, const N: usize>(&mut self, table: &[T; N]) -> T {
        table[usize::from(self.below(N.try_into().unwrap()))]
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u8) -> u8 {
        self.0.next().map_or(0, |byte| byte % n)
    }

    /// True in one of eight cases.
    pub fn rarely(&mut self) -> bool {
        self.below(8) == 7
    }

    /// Up to `worst` seconds; 0 and `worst` more often than any other.
    pub fn at_most(&mut self, worst: u8) -> SignedDuration {
        #[derive(Clone, Copy)]
        enum Length {
            None,
            Worst,
            Between,
        }
        match self.pick(&[Length::None, Length::Worst, Length::Between]) {
            Length::None => seconds(0),
            Length::Worst => seconds(worst),
            Length::Between => seconds(self.below(worst)),
        }
    }
}

pub fn seconds(seconds: u8) -> SignedDuration {
    SignedDuration::from_secs(i64::from(seconds))
}

use tarndb_core::{Error, Result};

/// The place of a change in the order of the changes of its object: hexadecimal digits, of which those that a shorter number lacks
/// at its end count as zeros, as S3 has it.
///
/// Stores give numbers of at most 32 digits. The eight after them are ours: the steps of what was found by looking at an object of
/// which the store had told something before, and will tell something with a number that we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Sequence {
    digits: u128,
    steps: u32,
}

impl Sequence {
    /// Digits that the number of a store has at most, and the digits of our steps.
    const DIGITS: usize = 32;
    const STEPS: usize = 8;

    /// Digits that are written at least.
    const WRITTEN: usize = 16;

    /// Before all others: that of objects that were there before their index.
    pub(crate) const FIRST: Self = Self { digits: 0, steps: 0 };

    /// A number that a store gave.
    ///
    /// # Errors
    /// `DataInvalid` for what is not a number of at most 32 hexadecimal digits.
    pub(crate) fn of_store(text: &str) -> Result<Self> {
        if text.len() > Self::DIGITS { Err(wrong(text, Self::DIGITS)) } else { Self::parse(text) }
    }

    /// A number that is in a table.
    ///
    /// # Errors
    /// `DataInvalid` for what is not a number of at most 40 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let most = Self::DIGITS + Self::STEPS;
        if text.is_empty() || text.len() > most {
            return Err(wrong(text, most));
        }
        let mut sequence = Self::FIRST;
        for (place, digit) in text.chars().enumerate() {
            let digit = digit.to_digit(16).ok_or_else(|| wrong(text, most))?;
            match place.checked_sub(Self::DIGITS) {
                None => sequence.digits |= u128::from(digit) << (4 * (Self::DIGITS - 1 - place)),
                Some(place) => sequence.steps |= digit << (4 * (Self::STEPS - 1 - place)),
            }
        }
        Ok(sequence)
    }

    /// Two numbers of a store, of which the first counts before the second.
    pub(crate) fn of_pair(first: u64, second: u64) -> Self {
        Self { digits: u128::from(first) << 64 | u128::from(second), steps: 0 }
    }

    /// A number of nanoseconds.
    pub(crate) fn of_time(nanos: u64) -> Self {
        Self::of_pair(nanos, 0)
    }

    /// The time that the first 16 digits are.
    pub(crate) fn time(self) -> u64 {
        (self.digits >> 64) as u64
    }

    /// After this one, and before all that the store gives to later changes: with the time in seconds since 1970 as its step, so that
    /// it also comes after what was found earlier and forgotten.
    pub(crate) fn found_at(self, seconds: u32) -> Self {
        Self { steps: self.steps.saturating_add(1).max(seconds), ..self }
    }

    /// Whether it is, up to our steps, a number that a store gave.
    pub(crate) fn is_of_store(self) -> bool {
        self.digits > 0
    }

    /// The number in words of 32 bits, the first of which counts most.
    pub(crate) fn words(self) -> [u32; 5] {
        let word = |shift: u32| (self.digits >> shift) as u32;
        [word(96), word(64), word(32), word(0), self.steps]
    }

    /// The opposite of [`Sequence::words`].
    pub(crate) fn of_words(words: [u32; 5]) -> Self {
        let [first, second, third, fourth, steps] = words;
        let digits = [first, second, third, fourth].iter().fold(0, |digits: u128, word| digits << 32 | u128::from(*word));
        Self { digits, steps }
    }

    /// The digits, without zeros behind the sixteenth. Texts of this form have the order of the numbers.
    pub(crate) fn text(self) -> String {
        let text = format!("{:032X}{:08X}", self.digits, self.steps);
        let length = text.trim_end_matches('0').len().max(Self::WRITTEN);
        text.get(..length).map(str::to_string).unwrap_or(text)
    }
}

fn wrong(text: &str, most: usize) -> Error {
    Error::data_invalid(format!("`{text}` is not a sequence number of 1 to {most} hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_compared_as_digits_with_zeros_behind() {
        let parse = |text: &str| Sequence::of_store(text).unwrap();
        assert!(parse("0055AED6DCD90281E5") > parse("0055AED6DCD90281"));
        assert_eq!(parse("0055aed6"), parse("0055AED600"));
        assert!(parse("1") > parse("0FFF"));
        assert_eq!(parse("000000000000002A"), Sequence::of_time(42));
        assert_eq!(Sequence::of_time(42).text(), "000000000000002A");
        for wrong in ["", "0x1", "G", "+1", "123456789012345678901234567890123"] {
            assert!(Sequence::of_store(wrong).is_err(), "{wrong}");
        }
        assert!(Sequence::parse(&"1".repeat(40)).is_ok() && Sequence::parse(&"1".repeat(41)).is_err());
    }

    #[test]
    fn steps_come_after_their_number_and_before_the_next() {
        let texts = ["0055AED6DCD90281", "0055AED6DCD90281E5", "0055AED6DCD90281E6", "00000000000004420000000000028963", "0"];
        let numbers = texts.map(|text| Sequence::of_store(text).unwrap());
        let mut all: Vec<Sequence> =
            numbers.into_iter().flat_map(|number| [number, number.found_at(7), number.found_at(7).found_at(7)]).collect();
        all.sort_unstable();
        assert_eq!(all[0], Sequence::FIRST);
        for pair in all.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].text() < pair[1].text(), "{pair:?}");
        }
        for number in all {
            assert_eq!(Sequence::parse(&number.text()).unwrap(), number);
            assert_eq!(Sequence::of_words(number.words()), number);
            assert_eq!(number.words() < Sequence::of_time(7).words(), number < Sequence::of_time(7));
        }
    }
}

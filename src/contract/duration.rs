//! Durations as users write them, such as `1d12h` or `90s`: numbers of days, hours, minutes and seconds, added up.

use std::fmt;

/// What the schema lets through.
pub const PATTERN: &str = "^([0-9]{1,9}[dhms])+$";
/// Longest duration in a spec, 365 days in seconds.
pub const MAX_SECONDS: u64 = 365 * 86_400;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// Not the notation of a duration.
    Malformed(String),
    /// More seconds than can be counted.
    TooLong(String),
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "{text:?} is not a duration such as 1d12h, 30m or 90s"),
            Self::TooLong(text) => write!(f, "{text} is too long"),
        }
    }
}

impl std::error::Error for DurationError {}

/// The whole seconds of a duration: `1d2h3m4s`; the order of the units is free and a unit may come again.
///
/// # Errors
/// See [`DurationError`].
pub fn parse_seconds(text: &str) -> Result<u64, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    if text.is_empty() {
        return Err(malformed());
    }
    let mut total = 0_u64;
    let mut digits = String::new();
    for c in text.chars() {
        let unit: u64 = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(malformed()),
        };
        if digits.is_empty() {
            return Err(malformed());
        }
        let count: u64 = digits.parse().map_err(|_| too_long())?;
        total = count.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(too_long)?;
        digits.clear();
    }
    if digits.is_empty() { Ok(total) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_add_up() {
        let cases = [("1d2h3m4s", 93_784), ("90s", 90), ("0s", 0), ("1s1s", 2), ("5m1h", 3900), ("365d", MAX_SECONDS)];
        for (text, seconds) in cases {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_an_error() {
        for text in ["", "1", "s", "1d2", "1.5h", "-1s", "1 h", "1H", "1w", "h1", "1ms", "٣s"] {
            assert_eq!(parse_seconds(text), Err(DurationError::Malformed(text.to_owned())), "{text}");
        }
        for text in ["18446744073709551616s", "18446744073709551615m", "18446744073709551615s1s"] {
            assert_eq!(parse_seconds(text), Err(DurationError::TooLong(text.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_big_integers(parts in prop::collection::vec((any::<u64>(), 0..4_usize), 1..6)) {
            let units = [("d", 86_400_u32), ("h", 3_600), ("m", 60), ("s", 1)];
            let text = parts.iter().map(|(count, unit)| format!("{count}{}", units[*unit].0)).collect::<Vec<_>>().concat();
            let total: BigUint = parts.iter().map(|(count, unit)| BigUint::from(*count) * units[*unit].1).sum();
            prop_assert_eq!(parse_seconds(&text).ok(), u64::try_from(total).ok());
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}|[0-9dhms]{0,40}") {
            let _ = parse_seconds(&text);
        }
    }
}

//! Kubernetes quantities, such as `500m`, `2Gi` or `1e3`, read exactly.
//!
//! Our own reader, because `kube_quantity` binds its own version of k8s-openapi, is limited to 28 digits and cannot
//! round up; and no floats, because a limit that is off by a byte is another limit.
//!
//! The notation is that of `resource.ParseQuantity`
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as KubernetesQuantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the schema lets through: no sign, at least one digit, one suffix. Bounded so that rules on it cost little.
pub(super) const PATTERN: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$";
/// Longest text of a quantity in a spec.
pub(super) const MAX_LENGTH: usize = 32;

/// A quantity as the user wrote it: `2` and `"2"` are both kept as they are and mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// Written as a number: `2`.
    Number(i64),
    /// Written as a text: `500m`.
    Text(String),
}

/// Why a quantity has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not the notation of a quantity.
    #[error("{0:?} is not a quantity such as 2, 500m, 1.5Gi or 1e3")]
    Malformed(String),
    /// Below zero, where an amount is meant.
    #[error("{0} is negative")]
    Negative(String),
    /// More than 2^63 - 1 units, the most that Kubernetes keeps.
    #[error("{0} is too large")]
    TooLarge(String),
}

impl Quantity {
    /// As people write a number of bytes: `64Mi`, in the largest unit that it is a whole number of.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
        let whole = units.into_iter().find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits);
        Quantity::Text(whole.map_or_else(|| bytes.to_string(), |(bits, unit)| format!("{}{unit}", bytes >> bits)))
    }

    /// The value in whole units (bytes), rounded up as Kubernetes does.
    ///
    /// # Errors
    /// See [`QuantityError`].
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        scaled(&self.to_string(), 0)
    }

    /// The value in thousandths of a unit (millicores), rounded up as Kubernetes does.
    ///
    /// # Errors
    /// See [`QuantityError`].
    pub fn millis(&self) -> Result<u64, QuantityError> {
        scaled(&self.to_string(), 3)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Number(number) => number.fmt(f),
            Quantity::Text(text) => f.write_str(text),
        }
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Quantity::Text(text.to_owned())
    }
}

impl From<&Quantity> for KubernetesQuantity {
    fn from(quantity: &Quantity) -> Self {
        KubernetesQuantity(quantity.to_string())
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "pattern": PATTERN, "maxLength": MAX_LENGTH})
    }
}

/// `text * 10^decimals`, rounded up to an integer.
fn scaled(text: &str, decimals: i64) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed(text.to_owned());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at_checked(end).ok_or_else(malformed)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(malformed());
    }
    let (twos, tens) = suffix_powers(suffix).ok_or_else(malformed)?;

    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    for _ in 0..twos {
        double(&mut digits);
    }
    // The decimal point stands this many digits from the right; negative: that many zeros follow.
    let point = i64::try_from(fraction.len()).map_err(|_| malformed())? - tens - decimals;
    let value = round_up(&digits, point).ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
    if value > 0 && text.starts_with('-') {
        return Err(QuantityError::Negative(text.to_owned()));
    }
    Ok(value)
}

/// A suffix as powers of (2, 10).
fn suffix_powers(suffix: &str) -> Option<(u32, i64)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            (0, i64::from(exponent.parse::<i32>().ok()?))
        }
    })
}

/// Doubles a number given by its decimal digits, first digit first.
fn double(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let sum = *digit * 2 + carry;
        *digit = sum % 10;
        carry = sum / 10;
    }
    if carry > 0 {
        digits.insert(0, carry);
    }
}

/// The integer that `digits` with a decimal point `point` digits from the right rounds up to; none: over 2^63 - 1.
fn round_up(digits: &[u8], point: i64) -> Option<u64> {
    let significant: &[u8] = match digits.iter().position(|digit| *digit != 0) {
        Some(first) => digits.get(first..)?,
        None => return Some(0),
    };
    let length = i64::try_from(significant.len()).ok()?;
    let whole_length = length.checked_sub(point)?;
    if whole_length > 19 {
        return None;
    }
    let kept = usize::try_from(whole_length.clamp(0, length)).ok()?;
    let (kept_digits, dropped) = significant.split_at_checked(kept)?;
    let mut value = kept_digits.iter().try_fold(0_u64, |value, digit| append_digit(value, *digit))?;
    for _ in length..whole_length {
        value = append_digit(value, 0)?;
    }
    let rounded = value.checked_add(u64::from(dropped.iter().any(|digit| *digit != 0)))?;
    i64::try_from(rounded).is_ok().then_some(rounded)
}

fn append_digit(value: u64, digit: u8) -> Option<u64> {
    value.checked_mul(10)?.checked_add(u64::from(digit))
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_those_of_kubernetes() {
        let whole = [
            ("0", 0),
            ("2", 2),
            ("2.", 2),
            (".5k", 500),
            ("1.5Gi", 1_610_612_736),
            ("64Mi", 67_108_864),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("7Ei", 8_070_450_532_247_928_832),
            ("+3", 3),
            ("-0", 0),
            ("1e-2", 1),
            ("9223372036854775807", 9_223_372_036_854_775_807),
        ];
        for (text, value) in whole {
            assert_eq!(Quantity::from(text).bytes(), Ok(value), "{text}");
        }
    }

    #[test]
    fn fractions_round_up() {
        for (text, bytes, millis) in [("512m", 1, 512), ("1n", 1, 1), ("0.0005", 1, 1), ("1.0001", 2, 1001)] {
            assert_eq!(
                (Quantity::from(text).bytes(), Quantity::from(text).millis()),
                (Ok(bytes), Ok(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_and_texts_mean_the_same() {
        assert_eq!(Quantity::Number(3).millis(), Quantity::from("3").millis());
        let both: [Quantity; 2] = serde_json::from_str(r#"[4294967296, "4Gi"]"#).unwrap();
        assert_eq!(both[0].bytes(), both[1].bytes());
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"[4294967296,"4Gi"]"#);
    }

    #[test]
    fn what_is_no_amount_is_an_error() {
        for text in ["", ".", "Gi", "1.1.1", "1K", "1gi", "1 Gi", "1Gi ", "0x1", "1e", "1e+", "e3", "--1", "1m1", "٣"]
        {
            assert_eq!(Quantity::from(text).bytes(), Err(QuantityError::Malformed(text.to_owned())), "{text}");
        }
        assert_eq!(Quantity::from("-1n").bytes(), Err(QuantityError::Negative("-1n".to_owned())));
        assert_eq!(Quantity::Number(i64::MIN).bytes().map_err(|_| ()), Err(()));
        for text in ["8Ei", "1e19", "9223372036854775808", "1e2147483647"] {
            assert_eq!(Quantity::from(text).bytes(), Err(QuantityError::TooLarge(text.to_owned())), "{text}");
        }
    }

    /// The value by big integers: `ceil(digits * 2^twos * 10^tens)`.
    fn oracle(whole: &str, fraction: &str, twos: u32, tens: i64) -> Option<u64> {
        let digits: BigUint = format!("0{whole}{fraction}").parse().unwrap();
        let tens = tens - i64::try_from(fraction.len()).unwrap();
        let power = BigUint::from(10_u8).pow(u32::try_from(tens.unsigned_abs()).unwrap());
        let number = digits << twos;
        let value = if tens >= 0 { number * power } else { (number + &power - 1_u8) / power };
        u64::try_from(value).ok().filter(|value| i64::try_from(*value).is_ok())
    }

    const SUFFIXES: [(&str, u32, i64); 16] = [
        ("", 0, 0),
        ("n", 0, -9),
        ("u", 0, -6),
        ("m", 0, -3),
        ("k", 0, 3),
        ("M", 0, 6),
        ("G", 0, 9),
        ("T", 0, 12),
        ("P", 0, 15),
        ("E", 0, 18),
        ("Ki", 10, 0),
        ("Mi", 20, 0),
        ("Gi", 30, 0),
        ("Ti", 40, 0),
        ("Pi", 50, 0),
        ("Ei", 60, 0),
    ];

    proptest! {
        #[test]
        fn agrees_with_big_integers(whole in "[0-9]{1,24}", fraction in "[0-9]{0,24}", suffix in 0..SUFFIXES.len()) {
            let (suffix, twos, tens) = SUFFIXES[suffix];
            let quantity = Quantity::Text(format!("{whole}.{fraction}{suffix}"));
            prop_assert_eq!(quantity.bytes().ok(), oracle(&whole, &fraction, twos, tens));
            prop_assert_eq!(quantity.millis().ok(), oracle(&whole, &fraction, twos, tens + 3));
        }

        #[test]
        fn agrees_with_big_integers_on_exponents(whole in "[0-9]{1,9}", fraction in "[0-9]{0,9}", tens in -30_i64..30) {
            let quantity = Quantity::Text(format!("{whole}.{fraction}e{tens}"));
            prop_assert_eq!(quantity.bytes().ok(), oracle(&whole, &fraction, 0, tens));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}|[0-9.eEKMi+-]{0,40}") {
            let _ = (Quantity::Text(text.clone()).bytes(), Quantity::Text(text).millis());
        }
    }

    #[test]
    fn bytes_are_written_in_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1 << 10, "1Ki"),
            (3 << 19, "1536Ki"),
            (64 << 20, "64Mi"),
            (5 << 30, "5Gi"),
            (1 << 50, "1024Ti"),
        ] {
            assert_eq!(Quantity::of_bytes(bytes).to_string(), text);
            assert_eq!(Quantity::of_bytes(bytes).bytes(), Ok(bytes));
        }
    }
}

//! Kubernetes' quantities, compared by what they come to and not by how they are written.
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>)

use std::str::FromStr;
use std::time::Duration;

use crate::parse_error::{ParseError, invalid};

/// An amount of a resource in billionths, to which Kubernetes rounds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

/// How much of a resource a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount {
    /// The pod says nothing of it.
    None,
    /// This much, and how that was written.
    Of(Quantity, String),
}

const BILLION: i128 = 1_000_000_000;

/// Of amounts with a power of two behind them, Kubernetes keeps no more.
const MOST_BINARY: i128 = (i64::MAX as i128) * BILLION;

/// Powers of 1024, and of ten, by their signs.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

// === impl Quantity ===

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whole bytes.
    #[must_use]
    pub fn bytes(bytes: u64) -> Self {
        Self(i128::from(bytes).saturating_mul(BILLION))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// Of a number without sign, its decimal point moved by `exponent`, times `unit` billionths: rounded up.
    fn scaled(whole: &str, fraction: &str, exponent: i64, unit: i128) -> i128 {
        let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| i128::from(digit.saturating_sub(b'0')));
        if digits().all(|digit| digit == 0) {
            return 0;
        }
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let point = length(whole).saturating_add(exponent);
        let split = usize::try_from(point.max(0)).unwrap_or(usize::MAX);
        let mut amount: i128 = 0;
        for digit in digits().take(split) {
            amount = amount.saturating_mul(10).saturating_add(digit);
        }
        // Beyond the last digit there are zeros; what is not zero soon outgrows every number.
        let zeros = point.saturating_sub(length(whole).saturating_add(length(fraction))).clamp(0, 40);
        for _ in 0..zeros {
            amount = amount.saturating_mul(10);
        }
        amount = amount.saturating_mul(unit);
        // From the last digit on, since a floor of floors is the floor of all.
        let (mut below, mut is_exact) = (0_i128, true);
        let mut next = |digit: i128| {
            let sum = digit.saturating_mul(unit).saturating_add(below);
            is_exact &= sum % 10 == 0;
            below = sum / 10;
        };
        let behind: Vec<_> = digits().skip(split).collect();
        behind.into_iter().rev().for_each(&mut next);
        (0..point.saturating_neg().clamp(0, 40)).for_each(|_| next(0));
        amount.saturating_add(below).saturating_add(i128::from(!is_exact))
    }
}

impl FromStr for Quantity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (sign, unsigned) = match text.as_bytes().first().ok_or(())? {
            b'-' => (-1, text.get(1..)),
            b'+' => (1, text.get(1..)),
            _ => (1, Some(text)),
        };
        let unsigned = unsigned.ok_or(())?;
        let split = |text: &str, is_more: fn(u8) -> bool| text.bytes().take_while(|byte| is_more(*byte)).count();
        let (number, suffix) = unsigned.split_at(split(unsigned, |byte| byte.is_ascii_digit() || byte == b'.'));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(());
        }
        if let Some(power) = BINARY.iter().position(|sign| *sign == suffix) {
            let unit = (0..=power).fold(BILLION, |unit, _| unit.saturating_mul(1024));
            return Ok(Self(sign * Self::scaled(whole, fraction, 0, unit).min(MOST_BINARY)));
        }
        let exponent = match DECIMAL.iter().find(|(sign, _)| *sign == suffix) {
            Some((_, exponent)) => *exponent,
            None => i64::from(suffix.strip_prefix(['e', 'E']).ok_or(())?.parse::<i32>().map_err(drop)?),
        };
        Ok(Self(sign * Self::scaled(whole, fraction, exponent, BILLION)))
    }
}

// === impl Amount ===

impl FromStr for Amount {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.parse() {
            _ if text == "none" => Ok(Self::None),
            Ok(quantity) if quantity > Quantity::ZERO => Ok(Self::Of(quantity, text.to_owned())),
            _ => Err(invalid("amount", text, "a Kubernetes quantity above zero, such as 50m, 0.5 or 64Mi, or none")),
        }
    }
}

/// A positive whole number with a unit: `500ms`, `30s`, `5m`, `1h`, `1d`.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(invalid("duration", text, "a number above zero and a unit, such as 500ms, 30s, 5m or 1h")),
    }
}

/// As [`parse_duration`], or `0s`.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_wait(text: &str) -> Result<Duration, ParseError> {
    if text == "0s" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// Bytes from a Kubernetes quantity without fraction: `65536`, `512Ki`, `1Mi`, `1M`.
///
/// # Errors
/// A sentence for anything else.
pub fn parse_bytes(text: &str) -> Result<u64, ParseError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(invalid("size", text, "bytes with or without Ki, Mi or Gi, such as 512Ki or 1Mi")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|()| panic!("{text}"))
    }

    #[test]
    fn quantities_are_equal_if_they_come_to_the_same() {
        for same in [
            &["1Gi", "1073741824", "1024Mi", "1048576Ki", "1.0Gi", "01Gi", "+1Gi", "1073741824000m", "1.073741824e9"][..],
            &["1", "1.", "1.0", "1000m", "1000000u", "1000000000n", "1e0", "1E0", "10e-1", "0.1e1", ".1e+1", "+1"],
            &["1e3", "1k", "1000", "1E3", "0.001M", "1000.000", "10e2"],
            &["0.5", ".5", "500m", "5e-1", "0500m"],
            &["1.5Gi", "1536Mi", "1610612736"],
            &["0", "0.0", "0Gi", "-0", "0e100", "00", ".0"],
            // Rounded up to billionths.
            &["1n", "0.1n", "0.0000000001", "1e-100", "1e-2147483648", "0.00000000000000000001Ki"],
            &["2n", "1.1n"],
            // As much as a binary one can be.
            &["9223372036854775807", "8Ei", "99999999Ei", "9223372036854775807.0"],
            &["1E", "1e18", "1000P"],
            &["-1", "-1000m"],
        ] {
            for text in same {
                assert_eq!(quantity(text), quantity(same[0]), "{text} and {}", same[0]);
            }
        }
        let rising =
            ["-1", "0", "1n", "1u", "1m", "2m", "1", "1k", "1Ki", "1M", "1Mi", "1G", "1Gi", "1T", "1Ti", "1P", "1E"];
        for pair in rising.windows(2) {
            assert!(quantity(pair[0]) < quantity(pair[1]), "{pair:?}");
        }
        assert!(quantity("1024.0000001") > quantity("1Ki") && quantity("1e38") > quantity("1e20"));
        assert_eq!(Quantity::bytes(1 << 30), quantity("1Gi"));
        assert_eq!(quantity("1Gi").plus(quantity("1m")).plus(quantity("-1Mi")), quantity("1072693248.001"));
        // Long ones take as long as they are.
        assert_eq!(quantity(&format!("{}1Gi", "0".repeat(100_000))), quantity("1Gi"));
        assert_eq!(quantity(&format!("1.{}", "0".repeat(100_000))), quantity("1"));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            ".",
            "+",
            "-",
            "Gi",
            "1 Gi",
            " 1",
            "1 ",
            "1gi",
            "1KI",
            "1K",
            "1mi",
            "1e",
            "1e1.5",
            "1e1Ki",
            "1.2.3",
            "--1",
            "0x1",
            "1_000",
            "1,5",
            "e3",
            "1e99999999999",
            "infinity",
            "nan",
            "1Gi1",
            "١",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_amount_is_above_zero_or_none() {
        assert_eq!("none".parse(), Ok(Amount::None));
        assert_eq!("0.5Gi".parse(), Ok(Amount::Of(quantity("512Mi"), "0.5Gi".to_owned())));
        for text in ["0", "-1", "None", "", "1 core"] {
            let problem = text.parse::<Amount>().unwrap_err().to_string();
            assert!(problem.contains("64Mi, or none"), "{problem}");
        }
    }
}

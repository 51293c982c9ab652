//! Quantities as users spell them: `500m` CPU, `1Gi` bytes, `12.5act`, `10s`.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::money::Uact;

/// Why a quantity could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a {what}; write it like {example}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Splits `1.5Gi` into an exact fraction `(15, 10)` and the unit.
fn split(text: &str) -> Option<(u128, u128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || fraction.len() > 9
        || whole.len() > 18
        || (number.contains('.') && fraction.is_empty())
    {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = format!("{whole}{fraction}").parse().ok()?;
    Some((value, scale, unit))
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal, $example:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
        pub struct $name(#[schemars(with = "String", regex(pattern = $pattern))] pub $inner);

        impl std::str::FromStr for $name {
            type Err = QuantityError;
            fn from_str(text: &str) -> Result<Self, QuantityError> {
                Self::parse(text).ok_or_else(|| QuantityError { text: text.to_owned(), what: $what, example: $example })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = String;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what, " like ", $example))
                    }
                    fn visit_str<E>(self, v: &str) -> Result<String, E> {
                        Ok(v.to_owned())
                    }
                    fn visit_u64<E>(self, v: u64) -> Result<String, E> {
                        Ok(v.to_string())
                    }
                    fn visit_i64<E>(self, v: i64) -> Result<String, E> {
                        Ok(v.to_string())
                    }
                    fn visit_f64<E>(self, v: f64) -> Result<String, E> {
                        Ok(v.to_string())
                    }
                }
                d.deserialize_any(Text)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

quantity!(
    /// CPU in thousandths: `500m` or `0.5`.
    Cpu(u64), "CPU quantity", "500m or 0.5", r"^[0-9]+(\.[0-9]{1,3})?m?$"
);
quantity!(
    /// Bytes: `512Mi`, `1.5Gi`, `2G`.
    Bytes(u64), "size", "512Mi or 1.5Gi", r"^[0-9]+(\.[0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)?$"
);
quantity!(
    /// Money: `12act`, `0.5act`.
    Money(Uact), "sum of money", "12act or 0.5act", r"^[0-9]+(\.[0-9]{1,6})?act$"
);
quantity!(
    /// A span of time: `500ms`, `10s`, `5m`, `1h`, `14d`.
    Span(Duration), "span of time", "10s or 5m", r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
);
quantity!(
    /// Hundredths: `25%`.
    Percent(u32), "percentage", "25%", r"^[0-9]+%$"
);

impl Cpu {
    fn parse(text: &str) -> Option<Self> {
        let (value, scale, unit) = split(text)?;
        let milli = match unit {
            "m" => value,
            "" => value.checked_mul(1000)?,
            _ => return None,
        };
        (milli % scale == 0).then(|| u64::try_from(milli / scale).ok().map(Self))?
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

/// Units of size, the largest first within each family.
const SIZE_UNITS: [(&str, u128); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1000),
];

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let (value, scale, unit) = split(text)?;
        let factor =
            if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(u, _)| *u == unit)?.1 };
        u64::try_from(value.checked_mul(factor)? / scale).ok().map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            SIZE_UNITS.iter().find(|(_, n)| self.0 > 0 && u128::from(self.0).is_multiple_of(*n));
        match unit {
            Some((name, n)) => write!(f, "{}{name}", u128::from(self.0) / n),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Money {
    fn parse(text: &str) -> Option<Self> {
        let (value, scale, unit) = split(text)?;
        let micro = value.checked_mul(1_000_000)?;
        (unit == "act" && micro % scale == 0)
            .then(|| u64::try_from(micro / scale).ok().map(|n| Self(Uact(n))))?
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let (value, scale, unit) = split(text)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let ms = value.checked_mul(factor)? / scale;
        u64::try_from(ms).ok().map(|n| Self(Duration::from_millis(n)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => write!(f, "0s"),
            n if n % 86_400_000 == 0 => write!(f, "{}d", n / 86_400_000),
            n if n % 3_600_000 == 0 => write!(f, "{}h", n / 3_600_000),
            n if n % 60_000 == 0 => write!(f, "{}m", n / 60_000),
            n if n % 1000 == 0 => write!(f, "{}s", n / 1000),
            n => write!(f, "{n}ms"),
        }
    }
}

impl Percent {
    fn parse(text: &str) -> Option<Self> {
        let (value, scale, unit) = split(text)?;
        (unit == "%" && scale == 1).then(|| u32::try_from(value).ok().map(Self))?
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

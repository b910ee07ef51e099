//! The order to end the command of an attempt: written by the operator into an annotation of the pod, read by its helper.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

/// The value of [`crate::names::STOP_ANNOTATION`], once it has one: `2026-11-27T10:00:00Z`, or with ` suspend` behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodOrder {
    /// When it was given.
    pub at: Timestamp,
    /// Another attempt follows, which may go on from what this one leaves: `suspend` was set, and not `stop`.
    pub is_followed: bool,
}

const FOLLOWED: &str = " suspend";

impl fmt::Display for PodOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.at, if self.is_followed { FOLLOWED } else { "" })
    }
}

impl FromStr for PodOrder {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, is_followed) = text.strip_suffix(FOLLOWED).map_or((text, false), |at| (at, true));
        Ok(Self { at: at.parse()?, is_followed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let at: Timestamp = "2026-11-27T10:00:00Z".parse().unwrap();
        for is_followed in [false, true] {
            let order = PodOrder { at, is_followed };
            assert_eq!(order.to_string().parse::<PodOrder>().unwrap(), order);
        }
        assert_eq!(PodOrder { at, is_followed: false }.to_string(), "2026-11-27T10:00:00Z", "as older helpers know it");
        for text in ["", " suspend", "2026-11-27T10:00:00Z suspended"] {
            assert!(text.parse::<PodOrder>().is_err(), "{text}");
        }
    }
}

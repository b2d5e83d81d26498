//! What is done to a value before it is stored: pure functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a value is made coarser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Generalization {
    /// Numbers: the lower edge of the bucket of this width (`668` with step 100 is `600`).
    Step(f64),
    /// Strings: the first so many characters (`"10115"` with prefix 3 is `"101"`).
    Prefix(usize),
}

/// Quotients nearer than this to a whole number count as whole: 0.3 / 0.1 is
/// 2.9999999999999996 in binary, but 0.3 lies on the edge of its bucket. It is
/// also what makes generalising twice the same as once.
const WHOLE_WITHIN: f64 = 1e-9;

impl Generalization {
    /// The lower edge of the bucket. Without effect for [`Generalization::Prefix`].
    pub fn integer(&self, value: i64) -> i64 {
        match *self {
            Self::Step(step) if step >= 1.0 => {
                // The contract admits whole steps only for integers.
                let step = step as i64;
                value.div_euclid(step).saturating_mul(step)
            }
            Self::Step(_) | Self::Prefix(_) => value,
        }
    }

    /// The lower edge of the bucket. Without effect for [`Generalization::Prefix`].
    pub fn number(&self, value: f64) -> f64 {
        match *self {
            Self::Step(step) => {
                let quotient = value / step;
                let whole = quotient.round();
                let near = (quotient - whole).abs() <= WHOLE_WITHIN * whole.abs().max(1.0);
                (if near { whole } else { quotient.floor() }) * step
            }
            Self::Prefix(_) => value,
        }
    }

    /// The first characters (not bytes). Without effect for [`Generalization::Step`].
    pub fn text<'a>(&self, value: &'a str) -> &'a str {
        match *self {
            Self::Prefix(chars) => match value.char_indices().nth(chars) {
                Some((end, _)) => &value[..end],
                None => value,
            },
            Self::Step(_) => value,
        }
    }
}

/// The network an address belongs to: /24 of IPv4, /48 of IPv6, as its first
/// address. An IPv4 address written as IPv6 (`::ffff:203.0.113.9`) is cut as
/// IPv4, or its last 80 bits would leave nothing of it. `None`: not an address.
pub fn truncate_ip(text: &str) -> Option<String> {
    match text.trim().parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Some(Ipv4Addr::new(a, b, c, 0).to_string())
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Some(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_lose_their_host() {
        assert_eq!(truncate_ip("203.0.193.24").as_deref(), Some("203.0.193.0"));
        assert_eq!(truncate_ip("2001:db8:1:2:3:4:5:6").as_deref(), Some("2001:db8:1::"));
        assert_eq!(truncate_ip("::ffff:203.0.113.9").as_deref(), Some("203.0.113.0"));
        assert_eq!(truncate_ip(" 10.1.2.3 ").as_deref(), Some("10.1.2.0"));
        for bad in ["", "203.0.193", "203.0.193.24/24", "host", "1.2.3.4.5", "fe80::1%eth0"] {
            assert_eq!(truncate_ip(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_fall_to_the_lower_edge() {
        let hundred = Generalization::Step(100.0);
        assert_eq!(hundred.integer(668), 600);
        assert_eq!(hundred.integer(600), 600);
        assert_eq!(hundred.integer(-1), -100);
        assert_eq!(hundred.number(-0.5), -100.0);
        assert_eq!(Generalization::Step(0.1).number(0.3), 3.0 * 0.1);
        assert_eq!(hundred.integer(i64::MIN), i64::MIN, "saturates, does not overflow");
    }

    #[test]
    fn strings_keep_their_first_characters() {
        let three = Generalization::Prefix(3);
        assert_eq!(three.text("10115"), "101");
        assert_eq!(three.text("zürich"), "zür");
        assert_eq!(three.text("ab"), "ab");
        assert_eq!(three.text(""), "");
    }

    proptest! {
        #[test]
        fn truncating_is_idempotent_and_forgets_the_host(octets: [u8; 4], host: u8) {
            let [a, b, c, d] = octets;
            let once = truncate_ip(&Ipv4Addr::new(a, b, c, d).to_string()).unwrap();
            prop_assert_eq!(truncate_ip(&once).unwrap(), once.clone());
            prop_assert_eq!(truncate_ip(&Ipv4Addr::new(a, b, c, host).to_string()).unwrap(), once);
        }

        #[test]
        fn truncating_v6_is_idempotent(segments: [u16; 8]) {
            let once = truncate_ip(&Ipv6Addr::from(segments).to_string()).unwrap();
            prop_assert_eq!(truncate_ip(&once).unwrap(), once);
        }

        #[test]
        fn integer_buckets(value in -1_000_000_000_i64..1_000_000_000, step in 1_i64..100_000) {
            let bucket = Generalization::Step(step as f64);
            let edge = bucket.integer(value);
            prop_assert!(edge <= value && value - edge < step && edge % step == 0);
            prop_assert_eq!(bucket.integer(edge), edge);
        }

        #[test]
        fn number_buckets_are_idempotent(value in -1e9_f64..1e9, step in 1e-3_f64..1e6) {
            let bucket = Generalization::Step(step);
            let edge = bucket.number(value);
            prop_assert_eq!(bucket.number(edge), edge);
        }

        #[test]
        fn prefixes_are_idempotent(text: String, chars in 1_usize..64) {
            let bucket = Generalization::Prefix(chars);
            let cut = bucket.text(&text);
            prop_assert!(text.starts_with(cut) && cut.chars().count() <= chars);
            prop_assert_eq!(bucket.text(cut), cut);
        }
    }
}

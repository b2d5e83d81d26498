//! The values of the dimensions, as dictionaries that all batches share, and
//! who has which.

use std::sync::Arc;

use arrow::array::StringArray;

use super::super::fleet::PRODUCTS;
use super::super::rng::mix;

/// ISO 3166-1 alpha-2, in order of frequency.
const COUNTRIES: &str = "CNUSDEINFRGBBRITESIDMXJPPLTRKRVNNLTHRUBEPHATPKSEBDCHEGCZPTNGARDKFICOIEZANOHUPEROGRMYSAAECLIRIQUAMAKE\
    DZETGHTZUGSKBGHRSILTLVEELUCYMTISCANZAUILSGHKTWKZUZECVEGTDOBOHNPYSVNICRPAUYCUHTJMTTBSBBGYSRBZLKNPMMKH\
    LAMNBTMVBNTLFJPGWSTOVUSBKIFMMHPWNRTVRSBAMEMKALMDBYGEAMAZXKLIMCADSMTNLYSDSSERDJSOCMCICDCGGAGQCFTDNEML\
    BFSNGMGWGNSLLRTGBJMRCVSTAOZMZWMWMZMGSZLSBWNAMUSCKMBIRWJOLBSYYEOMKWQABHPSAFTMTJKGPRGUGPMQREGFNCPFAWCW";
/// How many models there are.
pub const MODELS: usize = 2_000;
const PARTNERS: u64 = 200;
const QUANTILES: usize = 1 << 16;
/// A new version three times a month.
const VERSIONS_PER_MONTH: u32 = 3;
/// Versions at the beginning.
const FIRST_VERSIONS: u32 = 12;

/// A model's product line and maker, as places in their dictionaries.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub product: u8,
    pub partner: u32,
}

pub struct Words {
    pub products: Arc<StringArray>,
    pub models: Arc<StringArray>,
    pub partners: Arc<StringArray>,
    pub countries: Arc<StringArray>,
    pub firmwares: Arc<StringArray>,
    model_of: Vec<u16>,
    country_of: Vec<u16>,
    made: Vec<Model>,
}

/// Which of `kinds` each of the quantiles is: the n-th has a share of 1/n^`skew`.
fn skewed(kinds: usize, skew: f64) -> Vec<u16> {
    let weight = |kind: usize| (kind as f64 + 1.0).powf(-skew);
    let total: f64 = (0..kinds).map(weight).sum();
    let (mut kind, mut until) = (0, weight(0) / total);
    let place = |slot: usize| slot as f64 / QUANTILES as f64;
    let mut next = |slot: usize| {
        while place(slot) >= until && kind + 1 < kinds {
            kind += 1;
            until += weight(kind) / total;
        }
        kind as u16
    };
    (0..QUANTILES).map(&mut next).collect()
}

impl Words {
    pub fn new(months: u32) -> Self {
        let countries: Vec<&str> = COUNTRIES.as_bytes().chunks(2).filter_map(|code| std::str::from_utf8(code).ok()).collect();
        let products: u32 = PRODUCTS.iter().map(|product| product.share).sum();
        let made = (0..MODELS as u64).map(|model| {
            let bits = mix(model ^ 0x006d_6f64_656c);
            let mut share = (bits & 0xffff) as u32 * products >> 16;
            let of_share = |product: &super::super::fleet::Product| {
                let is_it = share < product.share;
                share = share.saturating_sub(product.share);
                is_it
            };
            let product = PRODUCTS.iter().position(of_share).unwrap_or_default() as u8;
            // The lesser of two: a few partners make most models.
            let partner = (bits >> 16 & 0xffff).min(bits >> 32 & 0xffff) * PARTNERS >> 16;
            Model { product, partner: partner as u32 }
        });
        let versions = FIRST_VERSIONS + VERSIONS_PER_MONTH * months;
        Self {
            products: Arc::new(PRODUCTS.iter().map(|product| Some(product.name)).collect()),
            models: Arc::new((0..MODELS).map(|model| Some(format!("m{model:04}"))).collect()),
            partners: Arc::new((0..PARTNERS).map(|partner| Some(format!("p{partner:03}"))).collect()),
            firmwares: Arc::new((0..versions).map(|version| Some(format!("1.{}.{}", version / 8, version % 8))).collect()),
            model_of: skewed(MODELS, 0.8),
            country_of: skewed(countries.len(), 1.0),
            countries: Arc::new(countries.into_iter().map(Some).collect()),
            made: made.collect(),
        }
    }

    /// A model by 16 random bits.
    pub fn model(&self, bits: u64) -> u32 {
        u32::from(self.model_of[(bits & 0xffff) as usize])
    }

    /// A country by 16 random bits.
    pub fn country(&self, bits: u64) -> u32 {
        u32::from(self.country_of[(bits & 0xffff) as usize])
    }

    pub fn made(&self, model: u32) -> Model {
        self.made[model as usize]
    }

    /// The firmware in a month by 8 random bits of the device: some update at once, some late.
    pub const fn firmware(month: usize, bits: u64) -> u32 {
        let square = (bits & 0xff) * (bits & 0xff) >> 8;
        let behind = square * (FIRST_VERSIONS as u64 - 1) >> 8;
        FIRST_VERSIONS - 1 + VERSIONS_PER_MONTH * month as u32 - behind as u32
    }
}

//! A chunk's dictionary: its entries keep their places, so that pages which are
//! copied stay right.
//!
//! An entry that only deleted rows used would tell of them (the days on which a
//! device was active, a firmware that nobody else had). It gets the value of a
//! neighbour that is in use: no page refers to it, and only the dictionary is
//! written anew. A value that is new to the chunk goes to the end.

use hashbrown::{HashMap, HashSet};
use parquet::basic::Compression;

use super::Stop;
use super::decode::{plain_texts, take};
use super::leaf::{Leaf, Shape, Values, plain};
use super::page::{Codec, Header, Kind};

pub(crate) struct Dictionary {
    header: Header,
    pub(crate) entries: Values,
    places: Option<HashMap<Vec<u8>, u32>>,
    pub(crate) changed: bool,
}

impl Dictionary {
    pub(crate) fn decode(shape: &Shape, header: Header, payload: &[u8]) -> Result<Self, Stop> {
        if !matches!(header.kind, Kind::Dictionary { .. }) {
            return Err(Stop::Damaged("a chunk's dictionary is no dictionary"));
        }
        let entries = match Values::empty(shape) {
            Values::Fixed { width, .. } => Values::Fixed { width, bytes: take(payload, &mut 0, header.values * width)?.to_vec() },
            _ => Values::Texts(plain_texts(payload, header.values)?),
        };
        Ok(Self { header, entries, places: None, changed: false })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The same rows with codes for values; values that are not there are added.
    pub(crate) fn code(&mut self, leaf: &Leaf) -> Leaf {
        let entries = &mut self.entries;
        let places =
            self.places.get_or_insert_with(|| (0_u32..).zip(0..entries.len()).map(|(code, at)| (entries.get(at).to_vec(), code)).collect());
        let mut codes = Vec::with_capacity(leaf.values.len());
        for at in 0..leaf.values.len() {
            let value = leaf.values.get(at);
            let next = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let code = *places.entry(value.to_vec()).or_insert(next);
            if code == next {
                entries.push(value);
                self.changed = true;
                self.header.kind = Kind::Dictionary { sorted: false };
            }
            codes.push(code);
        }
        Leaf { rep: leaf.rep.clone(), def: leaf.def.clone(), slots: leaf.slots, values: Values::Codes(codes) }
    }

    /// Overwrites entries that no row has any more.
    pub(crate) fn forget(&mut self, orphans: &HashSet<u32>) {
        if orphans.is_empty() {
            return;
        }
        self.changed = true;
        self.places = None;
        let count = self.len();
        let in_use = |at: &usize| !orphans.contains(&(*at as u32));
        // The one before, so that what is sorted stays so; before the first that is in use, that one.
        let first: Vec<u8> = (0..count).find(in_use).map(|at| self.entries.get(at).to_vec()).unwrap_or_default();
        let mut entries = match &self.entries {
            Values::Fixed { width, .. } => Values::Fixed { width: *width, bytes: Vec::new() },
            _ => Values::Texts(super::decode::Texts::default()),
        };
        let nothing = match &self.entries {
            Values::Fixed { width, .. } if first.is_empty() => vec![0; *width],
            _ => first,
        };
        let mut last = nothing;
        for at in 0..count {
            if in_use(&at) {
                last = self.entries.get(at).to_vec();
            }
            entries.push(&last);
        }
        self.entries = entries;
    }

    /// Appends the page to `out`; returns its bytes before compression, the header's included.
    pub(crate) fn write(&self, codec: &mut Codec, out: &mut Vec<u8>, compression: Compression) -> Result<usize, Stop> {
        let mut payload = Vec::new();
        match &self.entries {
            Values::Texts(texts) => plain(texts, &mut payload),
            Values::Fixed { bytes, .. } => payload.extend_from_slice(bytes),
            Values::Codes(_) => return Err(Stop::Damaged("a dictionary holds codes")),
        }
        Ok(codec.write(out, &payload, self.len(), &self.header, compression)? + payload.len())
    }
}

//! Text columns as codes into one sorted dictionary per row group.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, NullBufferBuilder, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::UInt32Type;
use hashbrown::HashMap;

/// A dictionary that would be larger is none.
const DICTIONARY_BYTES_MAX: usize = 1 << 20;
const NO_CODE: u32 = u32::MAX;

/// A column of a row group: the texts that it uses, ascending, and a code per row (0 in a row without text).
pub(crate) struct Coded<'a> {
    pub(crate) texts: Vec<&'a str>,
    pub(crate) codes: Vec<u32>,
    pub(crate) nulls: Option<NullBuffer>,
}

impl<'a> Coded<'a> {
    /// `pieces` are strings or dictionaries of strings with keys of 32 bits; none where the dictionary would be too large or empty.
    pub(crate) fn new(pieces: &[&'a ArrayRef]) -> Option<Self> {
        let rows = pieces.iter().map(|piece| piece.len()).sum();
        let mut coding = Coding::default();
        let mut codes = Vec::with_capacity(rows);
        let mut nulls = NullBufferBuilder::new(rows);
        for piece in pieces {
            match piece.as_dictionary_opt::<UInt32Type>() {
                Some(piece) => coding.take_dictionary(piece, &mut codes, &mut nulls)?,
                None => coding.take_strings(piece.as_string_opt()?, &mut codes, &mut nulls)?,
            }
        }
        let (texts, ranks) = coding.sorted()?;
        for code in &mut codes {
            // A row without text has a code as well: 0, whose rank is some other.
            *code = ranks[*code as usize];
        }
        Some(Self { texts, codes, nulls: nulls.finish() })
    }
}

/// Gives texts codes in order of first use.
#[derive(Default)]
struct Coding<'a> {
    texts: Vec<&'a str>,
    codes: HashMap<&'a str, u32>,
    bytes: usize,
    /// The dictionary that `known` is about.
    dictionary: Option<&'a StringArray>,
    /// Code of each entry of that dictionary that was used.
    known: Vec<u32>,
}

impl<'a> Coding<'a> {
    fn code(&mut self, text: &'a str) -> Option<u32> {
        if let Some(code) = self.codes.get(text) {
            return Some(*code);
        }
        self.bytes += 4 + text.len();
        if self.bytes > DICTIONARY_BYTES_MAX {
            return None;
        }
        let code = u32::try_from(self.texts.len()).ok()?;
        self.texts.push(text);
        self.codes.insert(text, code);
        Some(code)
    }

    fn take_strings(&mut self, strings: &'a StringArray, codes: &mut Vec<u32>, nulls: &mut NullBufferBuilder) -> Option<()> {
        match strings.nulls() {
            Some(some) => nulls.append_buffer(some),
            None => nulls.append_n_non_nulls(strings.len()),
        }
        let mut last: Option<(&str, u32)> = None;
        for text in strings {
            codes.push(match (text, last) {
                (None, _) => 0,
                (Some(text), Some((same, code))) if same == text => code,
                (Some(text), _) => {
                    let code = self.code(text)?;
                    last = Some((text, code));
                    code
                }
            });
        }
        Some(())
    }

    fn take_dictionary(
        &mut self,
        piece: &'a DictionaryArray<UInt32Type>,
        codes: &mut Vec<u32>,
        nulls: &mut NullBufferBuilder,
    ) -> Option<()> {
        let texts: &'a StringArray = piece.values().as_string_opt()?;
        // Batches that share a dictionary share its buffers, whoever holds the array.
        if !self.dictionary.is_some_and(|known| same_buffers(known, texts)) {
            self.dictionary = Some(texts);
            self.known.clear();
            self.known.resize(texts.len(), NO_CODE);
        }
        let valid = piece.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        match &valid {
            Some(some) => nulls.append_buffer(some),
            None => nulls.append_n_non_nulls(piece.len()),
        }
        let keys: &[u32] = piece.keys().values();
        let first = codes.len();
        codes.resize(first + keys.len(), 0);
        let places = codes.get_mut(first..)?;
        match &valid {
            None => self.take_keys(keys, texts, places),
            Some(valid) => {
                valid.valid_slices().try_for_each(|(from, to)| self.take_keys(keys.get(from..to)?, texts, places.get_mut(from..to)?))
            }
        }
    }

    /// Keys without nulls.
    fn take_keys(&mut self, keys: &[u32], texts: &'a StringArray, places: &mut [u32]) -> Option<()> {
        for (key, place) in keys.iter().zip(places) {
            let key = *key as usize;
            let mut code = *self.known.get(key)?;
            if code == NO_CODE {
                code = self.code(texts.value(key))?;
                self.known[key] = code;
            }
            *place = code;
        }
        Some(())
    }

    /// The texts in order, and the place that each code has there; none without texts.
    fn sorted(self) -> Option<(Vec<&'a str>, Vec<u32>)> {
        let mut order: Vec<u32> = (0..u32::try_from(self.texts.len()).ok()?).collect();
        order.sort_unstable_by_key(|code| self.texts[*code as usize]);
        let mut ranks = vec![0; order.len()];
        for (rank, code) in order.iter().enumerate() {
            ranks[*code as usize] = rank as u32;
        }
        (!order.is_empty()).then(|| (order.iter().map(|code| self.texts[*code as usize]).collect(), ranks))
    }
}

fn same_buffers(a: &StringArray, b: &StringArray) -> bool {
    a.len() == b.len() && a.offsets().ptr_eq(b.offsets()) && a.values().ptr_eq(b.values())
}

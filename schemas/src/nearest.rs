//! "did you mean": the known name nearest to a misspelt one.

/// The candidate within a third of the word's length (at least two edits, so
/// that a swapped pair of letters is found); ties go to the first.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let edits_max = (word.chars().count() / 3).max(2);
    candidates
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= edits_max && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, row by row. Words here are keys, so short; longer ones
/// are cut to keep the work bounded.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, left_char) in left.chars().take(64).enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, right_char) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left_char != *right_char);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_noise_finds_none() {
        let keys = ["collection", "legal_basis", "min_policy", "k"];
        assert_eq!(nearest("min_polcy", &keys), Some("min_policy"));
        assert_eq!(nearest("colection", &keys), Some("collection"));
        assert_eq!(nearest("zebra", &keys), None);
        assert_eq!(nearest("x", &keys), None, "replacing every letter is no likeness");
    }

    #[test]
    fn distance_of_known_pairs() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }
}

//! The comparison of a spliced file with its original notices whatever is wrong.

use super::*;

#[test]
fn a_wrong_splice_is_found_out() {
    let mut codec = Codec::new().unwrap();
    for seed in 1_000..1_040 {
        let case = case(seed);
        let edits = by_group(&case.old, &case.gone);
        let replacing = Some(&case.replacing);
        let Some(spliced) = splice(&case.old, &edits, replacing, &mut codec, &mut Counts::default()).unwrap() else { continue };
        let new = ParquetFile::of_bytes(joined(&spliced)).unwrap();
        // Held against other edits than those that it was made by.
        let Some(group) = edits.iter().position(|edits| !edits.is_empty()) else { continue };
        let mut others = edits.clone();
        others[group].remove(0);
        let found = check(&case.old, &new, &others, Some(&case.replacements), &mut codec);
        assert!(matches!(found, Err(Stop::Mismatch(_))), "{seed}: {found:?}");
    }
    // One value is another: the same file but for a page of other rows.
    let dice = Dice(SeededRandom::new(5));
    let base = rows(&dice, 200, 9);
    let days: Int32Array = (0..200).map(|row| Some(if row == 60 { 1_000 } else { row % 7 })).collect();
    let plain: Int32Array = (0..200).map(|row| Some(row % 7)).collect();
    let with = |days: Int32Array| {
        let mut columns = base.columns().to_vec();
        columns[8] = Arc::new(days);
        ParquetFile::of_bytes(encode(&RecordBatch::try_new(schema(), columns).unwrap(), 50, 500)).unwrap()
    };
    let (old, other) = (with(plain), with(days));
    let edits = by_group(&old, &vec![(55, None)]);
    let spliced = splice(&other, &edits, None, &mut codec, &mut Counts::default()).unwrap().unwrap();
    let new = ParquetFile::of_bytes(joined(&spliced)).unwrap();
    assert!(matches!(check(&old, &new, &edits, None, &mut codec), Err(Stop::Mismatch(_))));
    check(&other, &new, &edits, None, &mut codec).unwrap();
}

/// A file like the case's, but for one value of a row that stays.
fn with_another_value(case: &Case, dice: &Dice, column: usize) -> Option<ParquetFile> {
    let stays: Vec<usize> = (0..case.rows.num_rows()).filter(|row| case.gone.iter().all(|(gone, _)| gone != row)).collect();
    let near = |row: &usize| case.gone.iter().any(|(gone, _)| gone.abs_diff(*row) < case.page_rows);
    // Mostly one of a page that is encoded again.
    let (mut chosen, all): (Vec<usize>, _) = (stays.iter().copied().filter(near).collect(), stays);
    if chosen.is_empty() || dice.one_in(4) {
        chosen = all;
    }
    let row = *chosen.get(dice.below(chosen.len()))?;
    let values = case.rows.column(column);
    let is_nan = |row: usize| values.as_any().downcast_ref::<Float64Array>().is_some_and(|values| values.value(row).is_nan());
    let other =
        (0..case.rows.num_rows()).find(|other| values.slice(*other, 1) != values.slice(row, 1) && !(is_nan(*other) && is_nan(row)))?;
    let places: Vec<(usize, usize)> = (0..case.rows.num_rows()).map(|at| (0, if at == row { other } else { at })).collect();
    let mut columns = case.rows.columns().to_vec();
    columns[column] = interleave(&[values.as_ref()], &places).unwrap();
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    Some(ParquetFile::of_bytes(encode(&rows, case.page_rows, case.group_rows)).unwrap())
}

#[test]
fn one_other_value_in_any_column_is_found_out() {
    let mut codec = Codec::new().unwrap();
    let mut tried = [0; 10];
    for seed in 0..rounds() / 4 {
        let (case, dice) = (case(seed), Dice(SeededRandom::new(seed + 9_000)));
        let edits = by_group(&case.old, &case.gone);
        if edits.iter().all(Vec::is_empty) {
            continue;
        }
        for (column, tried) in tried.iter_mut().enumerate() {
            let Some(other) = with_another_value(&case, &dice, column) else { continue };
            let spliced = splice(&other, &edits, Some(&case.replacing), &mut codec, &mut Counts::default()).unwrap();
            let new = ParquetFile::of_bytes(joined(&spliced.unwrap())).unwrap();
            let found = check(&case.old, &new, &edits, Some(&case.replacements), &mut codec);
            assert!(matches!(found, Err(Stop::Mismatch(_))), "{seed}, column {column}: {found:?}");
            *tried += 1;
        }
    }
    assert!(tried.iter().all(|tried| *tried > rounds() / 16), "{tried:?}");
}

#[test]
fn another_row_in_the_place_of_a_replaced_one_is_found_out() {
    let mut codec = Codec::new().unwrap();
    let mut tried = 0;
    for seed in 0..rounds() / 2 {
        let case = case(seed);
        let edits = by_group(&case.old, &case.gone);
        if !edits.iter().flatten().any(|edit| edit.with.is_some()) {
            continue;
        }
        let spliced = splice(&case.old, &edits, Some(&case.replacing), &mut codec, &mut Counts::default()).unwrap().unwrap();
        let new = ParquetFile::of_bytes(joined(&spliced)).unwrap();
        // The same rows in another order: each is a row of these, but for one or two none is the right one.
        let count = case.replacements.num_rows();
        let turned: Vec<(usize, usize)> = (0..count).map(|row| (0, (row + 1) % count)).collect();
        let columns = case.replacements.columns().iter().map(|column| interleave(&[column.as_ref()], &turned).unwrap());
        let turned = RecordBatch::try_new(schema(), columns.collect()).unwrap();
        let is_another = edits.iter().flatten().filter_map(|edit| edit.with).any(|with| {
            let (with, other) = (case.replacements.slice(with as usize, 1), turned.slice(with as usize, 1));
            with.column(0).as_ref() != other.column(0).as_ref()
        });
        if is_another {
            let found = check(&case.old, &new, &edits, Some(&turned), &mut codec);
            assert!(matches!(found, Err(Stop::Mismatch(_))), "{seed}: {found:?}");
            tried += 1;
        }
    }
    assert!(tried > rounds() / 20, "{tried}");
}
